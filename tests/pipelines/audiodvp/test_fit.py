"""The face model that is fitted to a person whose shape, movement, colours and light are known."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from talking_portrait.models.audiodvp.camera import Camera
from talking_portrait.models.audiodvp.rasterizer import interpolate, rasterize
from talking_portrait.models.face.face_mesh import VERTICES, face_mesh, mouth_opening
from talking_portrait.pipelines.audiodvp import fit as fit_module
from talking_portrait.pipelines.audiodvp.fit import fit_face
from talking_portrait.pipelines.audiodvp.fitted_face import COEFFICIENTS_FILE, FOLDER, MODEL_FILE, FittedFace
from talking_portrait.pipelines.audiodvp.morphable.coefficients import LANDMARKS_68, has_basis
from talking_portrait.pipelines.audiodvp.person_colours import ambient_shade
from talking_portrait.pipelines.audiodvp.person_mesh import expression_weight, person_mesh
from talking_portrait.pipelines.audiodvp.person_shape import fit_shape
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import head_matrix, project
from talking_portrait.pipelines.person.person import CROPS, STAGES, Person, crop_name, open_person

SIZE, FRAMES = 128, 60
DARK = range(40, 60)
"""Frames with less light."""
LOST = 25
"""A frame without a face."""
DISTANCE = 32.0
TEETH = (0.3, 0.28, 0.25)
"""What is seen of the inner mouth."""


@dataclass
class Truth:
    """`points` (FRAMES, 468, 3) in pixels, `opening` (FRAMES,) of the mouth, `yaw` (FRAMES,) in degrees."""

    points: np.ndarray
    opening: np.ndarray
    yaw: np.ndarray


def moving_head() -> tuple[Truth, np.ndarray]:
    """A head that speaks, turns and nods, and its vertices (FRAMES, 468, 3) in the camera's space."""
    time = np.arange(FRAMES) / 25
    opening = 0.5 - 0.5 * np.cos(2 * np.pi * 2.3 * time)
    yaw = 12 * np.sin(2 * np.pi * 0.4 * time)
    angles = np.stack([5 * np.sin(2 * np.pi * 0.7 * time), yaw, 2 * np.cos(2 * np.pi * 0.5 * time)], 1)
    places = np.stack([0.4 * np.sin(time), 0.3 * np.cos(2 * time), -DISTANCE + 0.5 * np.sin(time)], 1)
    still = face_mesh().vertices * [1.05, 0.96, 1.0]
    below = np.clip((-4.2 - still[:, 1]) / 0.4, 0, 1) * expression_weight()
    shapes = still + 1.5 * opening[:, None, None] * below[:, None] * [0, -1, 0]
    matrix = head_matrix(angles, places)
    in_camera = shapes @ matrix[:, :3, :3].transpose(0, 2, 1) + matrix[:, None, :3, 3]
    flat = project(shapes, matrix, (SIZE, SIZE))
    pixels_per_cm = SIZE / (2 * DISTANCE * np.tan(np.radians(31.5)))
    depth = -(in_camera[..., 2] - in_camera[..., 2].mean(1, keepdims=True)) * pixels_per_cm
    return Truth(np.concatenate([flat, depth[..., None]], 2), opening, yaw), in_camera


def write_person(folder: Path) -> Truth:
    """A prepared person, whose pictures are drawn from the true shapes."""
    truth, in_camera = moving_head()
    mesh, focal = person_mesh(), 1 / np.tan(np.radians(31.5))
    x, y, _ = face_mesh().vertices.T
    colours = np.stack([0.6 + 0.1 * np.sin(x), 0.45 + 0.1 * np.sin(0.8 * y), 0.4 + 0.05 * np.cos(x + y)], 1)
    colours = torch.from_numpy(np.where(mesh.inner_mouth[:, None], TEETH, mesh.spread(colours))).float()[None]
    (folder / CROPS).mkdir(parents=True)
    for number, vertices in enumerate(in_camera):
        space = torch.from_numpy(mesh.spread(vertices)).float()
        clip = torch.stack([focal * space[:, 0], -focal * space[:, 1], 0 * space[:, 2], -space[:, 2]], 1)
        clip[:, 2] = clip[:, 3] - 20  # nearer to the camera is less
        raster = rasterize(clip[None], torch.from_numpy(mesh.triangles.copy()), (SIZE, SIZE))
        face = interpolate(raster, torch.from_numpy(mesh.triangles.copy()), colours)[0].permute(1, 2, 0)
        covered = raster.barycentric[0].sum(-1, keepdim=True)
        frame = torch.lerp(torch.full_like(face, 0.3), face * (0.75 if number in DARK else 1), covered)
        Image.fromarray((frame * 255).round().byte().numpy()).save(folder / CROPS / crop_name(number))
    usable = np.arange(FRAMES) != LOST
    points = truth.points.copy()
    points[LOST] = points[0, ::-1]  # what is in the file of such a frame must not matter
    np.savez(
        folder / "track.npz",
        points=points.astype(np.float32),
        found=usable,
        matrix=np.zeros((FRAMES, 4, 4), np.float32),
        image_size=[SIZE, SIZE],
    )
    np.save(folder / "usable.npy", usable)
    (folder / "source.mp4").write_bytes(b"not read here")
    meta = {"version": 1, "source": {"file": "source.mp4", "fingerprint": "0"}, "finished": STAGES, "fps": "25/1"}
    meta |= {"frames": FRAMES, "size": [SIZE, SIZE], "crop": {"left": 0, "top": 0, "side": SIZE}, "crop_size": SIZE}
    (folder / "meta.json").write_text(json.dumps(meta | {"shots": [[0, FRAMES]]}))
    return truth


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Person, Truth]:
    folder = tmp_path_factory.mktemp("person") / "ann"
    truth = write_person(folder)
    return open_person(folder), truth


@pytest.fixture(scope="module")
def fitted(work: tuple[Person, Truth]) -> FittedFace:
    return fit_face(work[0])


def seen_frames() -> np.ndarray:
    return np.flatnonzero(np.arange(FRAMES) != LOST)


def test_landmarks_are_projected_to_where_they_were(work: tuple[Person, Truth], fitted: FittedFace) -> None:
    landmarks = fitted.face_model.render(fitted.coefficients(range(FRAMES)), (SIZE, SIZE)).landmarks.numpy()
    error = np.linalg.norm(landmarks - work[1].points[:, :VERTICES, :2], axis=-1)
    assert error[seen_frames()].mean() < 0.3
    assert error[LOST].mean() < 1, "between its neighbours"


def test_images_look_like_the_crops(work: tuple[Person, Truth], fitted: FittedFace) -> None:
    frames = list(range(0, FRAMES, 7))
    images, alpha = fitted.render(frames)
    assert images.shape == (len(frames), SIZE, SIZE, 3)
    assert alpha.shape == (len(frames), SIZE, SIZE)
    crops = torch.from_numpy(work[0].crops(frames)).float() / 255
    assert -10 * torch.log10((images - crops)[alpha > 0].square().mean()) > 28  # dB


def test_the_inner_mouth_has_the_colours_of_open_mouths(work: tuple[Person, Truth], fitted: FittedFace) -> None:
    inner = torch.from_numpy(person_mesh().inner_mouth.copy())
    colours = fitted.face_model.albedo(torch.zeros(1, 0, 1))[0][inner] * ambient_shade()
    assert (colours.median(0).values - torch.tensor(TEETH)).abs().max() < 0.05
    assert fit_module._open_frames(np.full(20, 0.01), np.arange(20)) == []
    assert fit_module._open_frames(np.linspace(0, 1, 20), np.arange(5, 25)) == [23, 24]


def test_light_follows_the_video(fitted: FittedFace) -> None:
    images, alpha = fitted.render([10, 50])
    bright, dark = (image[shown > 0].mean() for image, shown in zip(images, alpha, strict=True))
    assert dark / bright == pytest.approx(0.75, abs=0.04)


def test_expressions_are_those_of_the_mouth_and_not_of_the_head(work: tuple[Person, Truth], fitted: FittedFace) -> None:
    expression, truth = fitted.expression.numpy()[seen_frames()], work[1]
    assert np.abs(expression.std(axis=0) - 1).max() < 0.05
    assert np.corrcoef(expression[:, 0], truth.opening[seen_frames()])[0, 1] > 0.98
    assert abs(np.corrcoef(expression[:, 0], truth.yaw[seen_frames()])[0, 1]) < 0.2
    turning = fitted.identity.numpy()[seen_frames()]
    assert abs(np.corrcoef(turning[:, 1], truth.yaw[seen_frames()])[0, 1]) > 0.99


def test_the_open_mouth_is_wider_than_in_any_frame(fitted: FittedFace) -> None:
    expressions = torch.cat([fitted.expression, fitted.opened[None]])[..., None]
    shapes = fitted.face_model.geometry(torch.zeros(1, 3, 1), expressions)[:, :VERTICES].numpy()
    openings = mouth_opening(shapes)
    assert openings[-1] > openings[:-1].max()


def test_a_frame_without_the_face_lies_between_its_neighbours(fitted: FittedFace) -> None:
    for values in (fitted.expression, fitted.light):
        between = (values[LOST - 1] + values[LOST + 1]) / 2
        assert torch.allclose(values[LOST], between, atol=0.02 * float(values.abs().max()))


def test_the_lower_face_is_what_lies_below_the_middle(work: tuple[Person, Truth], fitted: FittedFace) -> None:
    _, whole = fitted.render([5])
    _, lower = fitted.render([5], lower=True)
    assert lower[whole == 0].max() == 0
    eyes = work[1].points[5, [33, 263], 1].max()
    chin = work[1].points[5, 152, 1]
    rows = torch.nonzero(lower[0] > 0)[:, 0].float()
    assert rows.min() > eyes
    assert rows.max() > chin - 2
    mask = fitted.masks([5])[0]
    assert mask.dtype == np.uint8
    assert (mask[lower[0].numpy() > 0] == 255).all()
    assert np.nonzero(mask)[0].max() > rows.max() + 3, "also where a wide open mouth reaches"


def test_another_expression_takes_the_place_of_the_frames_own(fitted: FittedFace) -> None:
    own, _ = fitted.render([5, 6])
    same, _ = fitted.render([5, 6], fitted.expression[5:7])
    other, _ = fitted.render([5, 6], fitted.opened[None])
    assert torch.allclose(own, same, atol=1e-4)
    assert (other - own).abs().max() > 0.1


def test_a_fit_is_stored_and_not_done_again(
    work: tuple[Person, Truth], fitted: FittedFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "fit_shape", None)
    again = fit_face(work[0])
    for name, tensor in fitted.tensors().items():
        assert torch.allclose(again.tensors()[name], tensor), name
    assert again.face_model.camera == fitted.face_model.camera


def test_a_morphable_model_is_fitted_in_place_of_the_persons_own(
    work: tuple[Person, Truth], fitted: FittedFace, tmp_path: Path
) -> None:
    person = replace(work[0], folder=Path(shutil.copytree(work[0].folder, tmp_path / "ann")))
    own = fitted.face_model
    scaled = {name: getattr(own, name) / 10 for name in ("geo_mean", "id_base", "exp_base")}
    model = replace(own, **scaled, landmark_index=torch.tensor(LANDMARKS_68), camera=Camera())
    face = fit_face(person, model)
    frames = list(range(0, FRAMES, 7))
    images, alpha = face.render(frames)
    crops = torch.from_numpy(person.crops(frames)) / 255
    assert float((images - crops).abs()[alpha > 0.5].mean()) < 0.05
    opening = np.stack([face.expression[:, k].numpy() for k in range(3)])
    assert np.abs(np.corrcoef(work[1].opening, opening)[0, 1:]).max() > 0.95
    assert not has_basis(own, face.face_model)
    assert has_basis(fit_face(person).face_model, model), "a fit that is there stays where no model is given"
    with pytest.raises(TalkingPortraitError, match="has 468 landmarks, but 68 are expected"):
        fit_face(person, own)


def test_a_fit_that_is_stopped_or_not_stored_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_person(tmp_path / "ann")
    person = open_person(tmp_path / "ann")
    before = sorted(person.folder.iterdir())

    def stop(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        assert preview is None or preview.shape == (SIZE, SIZE, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_face(person, progress=stop)

    def refuse(self: FittedFace, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FittedFace, "save", refuse)
        with pytest.raises(TalkingPortraitError, match=r"can't be written .*No space left on device"):
            fit_face(person)
    assert sorted(person.folder.iterdir()) == before
    with pytest.raises(TalkingPortraitError, match="has no fitted face"):
        FittedFace.read(person.folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def with_nan(path: Path) -> None:
    tensors = load_file(path)
    next(tensor for tensor in tensors.values() if tensor.is_floating_point())[0] = torch.nan
    save_file(tensors, path)


def without_a_component(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {"expression": tensors["expression"][:, 1:].contiguous()}, path)


@pytest.mark.parametrize(
    ("file", "spoil"),
    [(MODEL_FILE, cut), (COEFFICIENTS_FILE, cut), (COEFFICIENTS_FILE, with_nan), (MODEL_FILE, with_nan),
     (COEFFICIENTS_FILE, without_a_component)],
)  # fmt: skip
def test_damaged_files_are_refused(
    fitted: FittedFace, tmp_path: Path, file: str, spoil: Callable[[Path], None]
) -> None:
    (tmp_path / FOLDER).mkdir()
    fitted.save(tmp_path / FOLDER)
    FittedFace.read(tmp_path)
    spoil(tmp_path / FOLDER / file)
    with pytest.raises(TalkingPortraitError, match=file):
        FittedFace.read(tmp_path)


def test_a_face_that_does_not_move_is_refused() -> None:
    still = np.repeat(moving_head()[0].points[:1], 30, axis=0)
    still += np.random.default_rng(0).normal(scale=0.01, size=still.shape)  # a landmark engine trembles a little
    with pytest.raises(TalkingPortraitError, match="The face does not move in the video"):
        fit_shape(still, np.eye(3)[:2], np.ones(30, bool), [(0, 30)], SIZE, 25.0)


def test_the_mesh_is_the_landmarks_divided_with_a_mouth_of_its_own() -> None:
    mesh = person_mesh()
    assert len(mesh.triangles) == 16 * len(face_mesh().triangles)
    assert set(mesh.triangles.ravel()) == set(range(len(mesh.shares)))
    assert np.abs(mesh.shares.sum(axis=1) - 1).max() < 1e-6
    assert not mesh.inner_mouth[:VERTICES].any()
    inside = mesh.inner_mouth[mesh.triangles].all(axis=1)
    assert inside.sum() == 16 * 18
    assert not mesh.inner_mouth[mesh.triangles[~inside]].any(), "lips and mouth share no vertex"

    mirrored = mesh.spread(face_mesh().vertices * [-1, 1, 1])
    first, second, third = (mirrored[mesh.triangles[:, corner]] for corner in range(3))
    normals = np.cross(first - second, second - third)
    assert normals[:, 2].mean() > 0
    lost = np.flatnonzero(np.linalg.norm(normals, axis=1) == 0)
    assert not len(lost)
