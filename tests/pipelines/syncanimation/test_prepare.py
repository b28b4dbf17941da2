"""A prepared person gets what SyncAnimation is trained on: what is in it, how it goes on, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from talking_portrait.__main__ import main
from talking_portrait.models.face.face_mesh import BLENDSHAPES, face_mesh
from talking_portrait.pipelines.audiodvp.morphable.head_shape import MorphableHead
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.person.person import Person, open_person
from talking_portrait.pipelines.person.prepare import Settings as PersonSettings
from talking_portrait.pipelines.person.prepare import prepare_person
from talking_portrait.pipelines.person_systems import prepare_person_for
from talking_portrait.pipelines.syncanimation.avatar import FOLDER, STAGES, face_rects, open_avatar
from talking_portrait.pipelines.syncanimation.export import export_person
from talking_portrait.pipelines.syncanimation.preparation import head_tracking
from talking_portrait.pipelines.syncanimation.prepare import Settings, prepare_avatar, published_blendshapes
from talking_portrait.pipelines.types import FaceTrack

from ...morphable_face import morphable_face
from ...speaking_person import MarkLandmarker, Scene, speaking, write_video

FRAMES = 55
SMALL = PersonSettings(crop_size=128)


class Bands:
    """A parser that takes what is high for the head and what is low for the torso."""

    name = "bands"

    def __init__(self) -> None:
        self.calls = 0

    def parts(self, frame: np.ndarray, number: int) -> np.ndarray:
        self.calls += 1
        parts = np.zeros(frame.shape[:2], np.uint8)
        parts[40:90, 40:90], parts[90:100, 50:80], parts[100:, 30:100] = 1, 2, 3
        return parts


@pytest.fixture(scope="module", autouse=True)
def one_focal_length() -> Iterator[None]:
    """The search for it is long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_tracking, "FOCAL_LENGTHS", np.array([2.0]))
        yield


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "ann.mp4", speaking(2.2, yaw=1))


@pytest.fixture(scope="module")
def bare(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("person") / "ann"
    prepare_person(video, folder, settings=SMALL, landmarker=MarkLandmarker())
    return folder


@pytest.fixture(scope="module")
def made(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(bare, tmp_path_factory.mktemp("avatar") / "ann"))
    prepare_avatar(open_person(folder), parser=Bands())
    return folder


@pytest.fixture
def person(bare: Path, tmp_path: Path) -> Person:
    return open_person(shutil.copytree(bare, tmp_path / "ann"))


def test_the_folder_holds_all_that_training_takes(made: Path) -> None:
    person = open_person(made)
    ann = open_avatar(person)
    assert ann.size == 128
    assert (ann.c2w.shape, ann.c2w.dtype) == ((FRAMES, 4, 4), torch.float32)
    assert ann.blendshapes.shape == (FRAMES, 52)
    assert ann.usable.all()
    assert ann.cx == ann.cy == 64
    turned = ann.c2w[:, :3, :3]
    torch.testing.assert_close(turned @ turned.transpose(1, 2), torch.eye(3).expand(FRAMES, 3, 3), atol=1e-5, rtol=0)
    assert 0.2 < ann.c2w[:, 2, 3].min() < 3, "the camera is some metres before the face"

    frames, parts, torso = ann.frames([0, 54]), ann.parts([0, 54]), ann.torso([0, 54])
    whole = next(person.full_frames())
    assert np.abs(frames[0].astype(float) - whole).mean() < 2, "all of a small square video is shown"
    assert sorted(np.unique(parts)) == [0, 1, 2, 3]
    assert torso.shape == (2, 128, 128, 4)
    assert not torso[..., 3][(parts == 0)].any()
    assert ann.background().shape == (128, 128, 3)

    masks, rects = ann.face_masks([3]), ann.rects([3])
    assert (masks.shape, masks.dtype) == ((1, 128, 128), np.float32)
    assert (masks.min(), masks.max()) == (0, pytest.approx(1, abs=1e-5))
    top, bottom, left, right = rects["face"][0]
    inside = masks[0, top:bottom, left:right].sum() / masks.sum()
    assert inside > 0.6

    meta = json.loads((made / FOLDER / "meta.json").read_text())
    assert meta["parser"] == "bands"
    assert (meta["tracker"]["name"], meta["tracker"]["shape"]) == ("bundle adjustment", "canonical face")
    assert meta["finished"] == list(STAGES)


@pytest.fixture(scope="module")
def exported(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All but one frame, which is not to be trained on."""
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("part") / "ann"))
    labels = load_file(folder / FOLDER / "labels.safetensors")
    labels["usable"][5] = False
    save_file(labels, folder / FOLDER / "labels.safetensors")
    out = folder.parent / "out"
    assert main(["person", "export", str(folder), "--out", str(out)]) == 0
    return out


def test_exported_poses_are_those_of_the_published_tracker(exported: Path, made: Path) -> None:
    ann = open_avatar(open_person(made))
    parts = [json.loads((exported / f"transforms_{name}.json").read_text()) for name in ("train", "val")]
    assert [len(part["frames"]) for part in parts] == [49, 5], "ten of eleven parts are for training"
    entries = [frame for part in parts for frame in part["frames"]]
    numbers = [frame["img_id"] for frame in entries]
    assert numbers == [frame["aud_id"] for frame in entries] == [*range(5), *range(6, FRAMES)]
    c2w = np.array([frame["transform_matrix"] for frame in entries])
    np.testing.assert_allclose(c2w, ann.c2w[numbers].numpy(), rtol=0, atol=1e-6)
    camera = parts[0]
    assert camera["cx"] == camera["cy"] == 64

    def away(rotation: np.ndarray) -> float:
        """Pixels that the canonical nose and brow are off under the published camera, the head at negative depth."""
        errors = []
        for vertex, landmark in ((1, 30), (168, 27)):
            x, y, z = (rotation @ (face_mesh().vertices[vertex] / 100) + translation).T
            u, v = (-camera["focal_len"] * x / z + camera["cx"], camera["focal_len"] * y / z + camera["cy"])
            errors.append(np.hypot(*(np.stack([u, v], 1) - ann.landmarks[numbers, landmark].numpy()).T))
        return float(np.mean(errors))

    rotation = c2w[:, :3, :3].transpose(0, 2, 1)
    translation = -np.einsum("nij,nj->ni", rotation, c2w[:, :3, 3])
    assert (translation[:, 2] < -0.2).all()
    assert away(rotation) < 2
    assert away(rotation.transpose(0, 2, 1)) > 2 * away(rotation), "the head is turned"


def test_an_export_holds_every_file_of_the_layout(exported: Path, made: Path) -> None:
    ann = open_avatar(open_person(made))
    assert {path.name for path in exported.iterdir()} == {
        *("ori_imgs", "gt_imgs", "torso_imgs", "parsing", "bc.jpg", "aud.wav", "bs.npy"),
        *("transforms_train.json", "transforms_val.json"),
    }
    assert len(list((exported / "gt_imgs").iterdir())) == FRAMES - 1
    np.testing.assert_allclose(np.loadtxt(exported / "ori_imgs" / "3.lms"), ann.landmarks[3].numpy(), atol=1e-4)
    np.testing.assert_allclose(np.load(exported / "bs.npy"), ann.blendshapes.numpy())
    picture, parts = ann.frames([3])[0].astype(float), ann.parts([3])[0]
    assert np.abs(np.array(Image.open(exported / "ori_imgs" / "3.jpg")) - picture).mean() < 3
    before = np.array(Image.open(exported / "gt_imgs" / "3.jpg")).astype(float)
    assert np.abs(before - ann.background())[parts == 0].mean() < 3
    assert np.abs(before - picture)[parts != 0].mean() < 3
    torso = Image.open(exported / "torso_imgs" / "3.png")
    assert (torso.mode, torso.size) == ("RGBA", (128, 128))
    labels = np.array(Image.open(exported / "parsing" / "3.png"))
    for part, colour in enumerate([(255, 255, 255), (0, 0, 255), (0, 255, 0), (255, 0, 0)]):
        assert (labels[parts == part] == colour).all()
    face = np.array(Image.open(exported / "parsing" / "3_face.png"))
    np.testing.assert_allclose((255.0 - face[..., 1]) / 255, ann.face_masks([3])[0], atol=0.003)


def test_what_can_not_be_exported_is_one_sentence(
    made: Path, bare: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, out, words in (
        (made, exported, "holds other files (aud.wav), so nothing was written to it"),
        (tmp_path, tmp_path / "out", "holds no prepared person"),
        (bare, tmp_path / "out", "choose SyncAnimation in Prepare Person"),
    ):
        assert main(["person", "export", str(folder), "--out", str(out)]) == 2
        assert words in capsys.readouterr().err

    def stop(done: int, *_: object) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_person(open_person(made), tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists()


def test_finished_work_is_not_done_again_and_other_work_is_refused(made: Path) -> None:
    parser = Bands()
    prepare_avatar(open_person(made), parser=parser)
    assert not parser.calls
    with pytest.raises(TalkingPortraitError, match="size 128, parser bands, but size 256, parser bands is requested"):
        prepare_avatar(open_person(made), Settings(256), parser=parser)


@pytest.mark.parametrize("at", [pytest.param(0.25, marks=pytest.mark.slow), 0.95])
def test_an_interrupted_preparation_goes_on_at_its_stage(person: Person, at: float) -> None:
    """And the tracker has its shape from a face model, which a finished person keeps."""
    shape = MorphableHead(morphable_face(3, identities=2))

    def stop(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done / total > at:
            raise KeyboardInterrupt

    first, second = Bands(), Bands()
    with pytest.raises(KeyboardInterrupt):
        prepare_avatar(person, parser=first, shape=shape, progress=stop)
    with pytest.raises(TalkingPortraitError, match="not prepared for SyncAnimation"):
        open_avatar(person)
    ann = prepare_avatar(person, parser=second, shape=shape)
    assert len(ann.frames(range(FRAMES))) == FRAMES
    assert second.calls == (0 if at > 0.9 else FRAMES)
    assert not [path for path in (person.folder / FOLDER).iterdir() if path.suffix == ".part"]
    meta = json.loads((person.folder / FOLDER / "meta.json").read_text())
    assert meta["tracker"]["shape"] == meta["settings"]["shape"] == shape.name
    prepare_avatar(person, parser=second)
    with pytest.raises(TalkingPortraitError, match=r"shape face model \w+, but .* shape face model \w+ is requested"):
        prepare_avatar(person, parser=second, shape=MorphableHead(morphable_face(4)))


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from tests.pipelines.syncanimation.test_prepare import Bands
from talking_portrait.pipelines.person.person import open_person
from talking_portrait.pipelines.syncanimation.prepare import prepare_avatar
def progress(done, total, preview=None):
    if done / total > 0.6:
        os.kill(os.getpid(), signal.SIGKILL)
prepare_avatar(open_person(sys.argv[1]), parser=Bands(), progress=progress)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
def test_a_killed_preparation_goes_on_and_leaves_nothing(person: Person) -> None:
    command = [sys.executable, "-c", KILLED, str(person.folder), str(Path(__file__).parents[3])]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert prepare_avatar(person, parser=Bands()).usable.all()
    assert not [path for path in (person.folder / FOLDER).iterdir() if path.suffix == ".part"]


@pytest.mark.parametrize("name", ["labels.safetensors", "background.png", "frames/000003.png", "torso/000003.png"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_damaged_file_is_named(made: Path, tmp_path: Path, name: str, how: str) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "ann"))
    path = folder / FOLDER / name
    content = path.read_bytes()
    path.unlink() if how == "gone" else path.write_bytes(content[: len(content) // 3])
    with pytest.raises(TalkingPortraitError, match=path.name):
        read_all(folder)


@pytest.mark.parametrize(("label", "value"), [("landmarks", torch.nan), ("c2w", torch.inf), ("focal", 0.0)])
def test_labels_that_no_frame_has_are_damage(made: Path, tmp_path: Path, label: str, value: float) -> None:
    path = Path(shutil.copytree(made, tmp_path / "ann")) / FOLDER / "labels.safetensors"
    labels = load_file(path)
    labels[label].view(-1)[-1] = value
    save_file(labels, path)
    with pytest.raises(TalkingPortraitError, match=r"labels.safetensors is missing or damaged"):
        read_all(tmp_path / "ann")


def read_all(folder: Path) -> None:
    ann = open_avatar(open_person(folder))
    ann.frames([3]), ann.torso([3]), ann.background()


def test_a_person_who_was_prepared_for_another_system_is_told_apart(person: Person) -> None:
    with pytest.raises(TalkingPortraitError, match="choose SyncAnimation in Prepare Person"):
        open_avatar(person)


def test_frames_from_another_place_and_without_the_face_are_not_used(tmp_path: Path) -> None:
    scenes = [*speaking(2.4), *speaking(1.2, place=1), *[Scene(persons=0)] * 10]
    lines: list[str] = []
    video = write_video(tmp_path / "cut.mp4", scenes)
    person = prepare_person(video, tmp_path / "ann", settings=SMALL, landmarker=MarkLandmarker())
    ann = prepare_avatar(person, parser=Bands(), say=lines.append)
    assert len(ann.usable) == person.frames == 100
    assert np.flatnonzero(ann.usable).tolist() == list(range(60))
    assert "2.40 to 3.60 s are not used for SyncAnimation: the camera stands elsewhere than in the rest." in lines


def test_wrong_settings_are_refused_before_anything_is_done(tmp_path: Path, video: Path) -> None:
    with pytest.raises(TalkingPortraitError, match="Pictures of 300 pixels"):
        Settings(300)
    with pytest.raises(TalkingPortraitError, match="audiodvp, syncanimation, both is expected"):
        prepare_person_for("wav2lip", video, tmp_path / "ann")  # type: ignore[arg-type]
    with pytest.raises(TalkingPortraitError, match=r"nowhere\.pth"):
        prepare_person_for("both", video, tmp_path / "ann", parser=tmp_path / "nowhere.pth")
    assert not (tmp_path / "ann").exists()


def test_blendshapes_are_in_the_published_order() -> None:
    scores = np.tile(np.linspace(0, 0.5, len(BLENDSHAPES)), (9, 1)).astype(np.float32)
    scores[4] = 1  # of a frame that is not usable
    track = FaceTrack(np.zeros((9, 478, 3)), np.ones(9, bool), (8, 8), np.tile(np.eye(4), (9, 1, 1)), scores)
    published = published_blendshapes(track, np.arange(9) != 4, ((0, 9),))
    assert published.shape == (9, 52)
    for column, name in enumerate(BLENDSHAPES[1:]):
        np.testing.assert_allclose(published[:, column], scores[0, BLENDSHAPES.index(name)], atol=1e-5)
    assert not published[:, 51].any()


def test_lids_are_labelled_shut_in_the_frames_in_which_they_are() -> None:
    scores = np.full((30, len(BLENDSHAPES)), 0.1, np.float32)
    scores[10:13] = 0.8
    track = FaceTrack(np.zeros((30, 478, 3)), np.ones(30, bool), (8, 8), np.tile(np.eye(4), (30, 1, 1)), scores)
    published = published_blendshapes(track, np.ones(30, bool), ((0, 30),))
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        lids = published[:, BLENDSHAPES.index(name) - 1]
        np.testing.assert_allclose(lids[[9, 10, 12, 13]], [0.1, 0.8, 0.8, 0.1], atol=1e-6)
    assert published[9, BLENDSHAPES.index("jawOpen") - 1] > 0.2, "all else is smoothed, as published"


def test_rectangles_end_at_the_pictures_edges() -> None:
    landmarks = np.random.default_rng(0).uniform(-20, 150, (4, 68, 2))
    for rects in face_rects(landmarks, 128).values():
        assert (rects >= 0).all()
        assert (rects <= 128).all()
        assert (rects[:, 1] > rects[:, 0]).all()
        assert (rects[:, 3] > rects[:, 2]).all()
    sides = np.diff(face_rects(landmarks, 128)["lips"])
    assert (sides[:, 0] == sides[:, 2]).all()
