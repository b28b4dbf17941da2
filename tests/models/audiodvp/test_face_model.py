"""The face model: its file, its geometry, pose, camera and light."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from talking_portrait.models.audiodvp.camera import Camera, rotation_matrix, to_pixels, to_world
from talking_portrait.models.audiodvp.face_model import (
    TENSORS,
    Coefficients,
    FaceModel,
    adjacent_triangles,
    load_face_model,
    lower_triangles,
)
from talking_portrait.models.audiodvp.lighting import harmonics, illuminate
from talking_portrait.models.errors import TalkingPortraitError

from .face import coefficients, face_model, neutral

SIZE = (48, 40)


def saved(folder: Path, **changes: torch.Tensor) -> Path:
    path = folder / "facemodel.safetensors"
    save_file({**face_model().tensors(), **changes}, path)
    return path


# --- the file ---


def test_a_saved_model_is_loaded_whole(tmp_path: Path) -> None:
    model = replace(face_model(), camera=Camera(fov_y=63.0, eye_z=0.0, up_y=1.0), mirrored=False)
    model.save(tmp_path / "face.safetensors")
    loaded = load_face_model(tmp_path / "face.safetensors")
    assert (loaded.camera, loaded.mirrored, loaded.vertices) == (model.camera, False, 72)
    for name, tensor in model.tensors().items():
        assert torch.equal(getattr(loaded, name), tensor), name
        assert getattr(loaded, name).dtype == tensor.dtype


def test_its_type_of_numbers_does_not_matter(tmp_path: Path) -> None:
    model = face_model()
    wide = {
        name: tensor.double() if tensor.is_floating_point() else tensor.int()
        for name, tensor in model.tensors().items()
    }
    save_file(wide, tmp_path / "face.safetensors")
    for name, tensor in load_face_model(tmp_path / "face.safetensors").tensors().items():
        assert tensor.dtype == getattr(model, name).dtype


def test_without_metadata_it_has_the_published_camera(tmp_path: Path) -> None:
    loaded = load_face_model(saved(tmp_path))
    assert (loaded.camera, loaded.mirrored) == (Camera(), True)


def test_a_model_without_identities_and_textures_is_possible(tmp_path: Path) -> None:
    model = load_face_model(saved(tmp_path, id_base=torch.zeros(216, 0), tex_base=torch.zeros(216, 0)))
    face = replace(neutral(2), alpha=torch.zeros(1, 0, 1), beta=torch.zeros(1, 0, 1))
    rendered = model.render(face, SIZE)
    torch.testing.assert_close(rendered.image, face_model().render(neutral(2), SIZE).image, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TENSORS)
def test_a_missing_tensor_is_reported(tmp_path: Path, name: str) -> None:
    tensors = {key: tensor for key, tensor in face_model().tensors().items() if key != name}
    save_file(tensors, tmp_path / "face.safetensors")
    with pytest.raises(TalkingPortraitError, match=f"lacks {name}|an unknown file"):
        load_face_model(tmp_path / "face.safetensors")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"extra": torch.ones(1)}, "also holds extra"),
        ({"geo_mean": torch.ones(217, 1)}, "shape"),
        ({"exp_base": torch.ones(213, 5)}, "exp_base has the shape"),
        ({"triangles": torch.ones(7, 4, dtype=torch.int32)}, "triangles has the shape"),
        ({"triangles": torch.tensor([[0, 1, 72]])}, "triangles holds other values than whole numbers from 0 to 71"),
        ({"lower_triangles": torch.tensor([[0, 1, -1]])}, "lower_triangles holds"),
        ({"landmark_index": torch.tensor([72])}, "landmark_index holds"),
        ({"landmark_index": torch.tensor([0.5])}, "landmark_index holds"),
        ({"point_buf": torch.full((72, 8), 113)}, "point_buf holds other values than whole numbers from 0 to 112"),
        ({"tex_mean": torch.full((216, 1), math.nan)}, "tex_mean holds values that are no finite numbers"),
        ({"id_base": torch.ones(216, 4, dtype=torch.int64)}, "id_base holds values"),
    ],
)
def test_what_does_not_fit_is_reported(tmp_path: Path, change: dict[str, torch.Tensor], problem: str) -> None:
    with pytest.raises(TalkingPortraitError, match=f"^facemodel.safetensors is no face model .*{problem}"):
        load_face_model(saved(tmp_path, **change))


@pytest.mark.parametrize(
    "camera",
    [
        "",
        "[]",
        "3",
        '{"fov_y": 0}',
        '{"fov_y": "wide"}',
        '{"lens": 1}',
        '{"near": 5, "far": 5}',
        '{"up_y": 0}',
        '{"eye_z": NaN}',
        "[" * 9999,
    ],
)
def test_a_camera_that_cannot_be_read_is_reported(tmp_path: Path, camera: str) -> None:
    save_file(face_model().tensors(), tmp_path / "face.safetensors", {"camera": camera})
    with pytest.raises(TalkingPortraitError, match="its camera can't be read"):
        load_face_model(tmp_path / "face.safetensors")


def test_another_systems_file_is_named(tmp_path: Path) -> None:
    save_file(
        {
            "proj.weight": torch.ones(2, 2),
            "proj.bias": torch.ones(2),
            "norm.weight": torch.ones(2),
            "norm.bias": torch.ones(2),
        },
        tmp_path / "x.safetensors",
    )
    with pytest.raises(TalkingPortraitError, match="is Hallo's image projection, but a face model"):
        load_face_model(tmp_path / "x.safetensors")


def test_the_file_states_the_camera_by_name(tmp_path: Path) -> None:
    from safetensors import safe_open

    face_model().save(tmp_path / "face.safetensors")
    with safe_open(tmp_path / "face.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["camera"]) == {"eye_z": 8, "fov_y": 25, "near": 0.01, "far": 100, "up_y": -1}
    assert metadata["mirrored"] == "true"
    assert set(load_file(tmp_path / "face.safetensors")) == set(TENSORS)


# --- the mesh ---


def test_lower_triangles_have_a_vertex_below_the_centre_of_all() -> None:
    mean = torch.tensor([[0.0, 10, 0], [1, 11, 0], [0, 14, 0], [1, 15, 0], [0, 18, 0]]).view(-1, 1)
    triangles = torch.tensor([[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 2]])
    assert lower_triangles(mean, triangles).tolist() == [[0, 1, 2], [1, 2, 3]]


def test_adjacent_triangles_are_listed_for_each_vertex() -> None:
    fan = torch.tensor([[0, number, number + 1] for number in range(1, 12)])
    table = adjacent_triangles(fan, 14)
    assert table[0].tolist() == list(range(8)), "the first eight of eleven"
    assert table[1].tolist() == [0] + [11] * 7
    assert table[5].tolist() == [3, 4] + [11] * 6
    assert table[13].tolist() == [11] * 8
    assert adjacent_triangles(torch.zeros(0, 3, dtype=torch.int32), 2).tolist() == [[0] * 8] * 2


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_normals_are_unit_vectors_away_from_the_surface(batch: int) -> None:
    model = face_model(24, 24)
    geometry = model.geometry(neutral().alpha, neutral(batch).delta)
    normals = model.normals(geometry)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(batch, 576))
    outwards = geometry / torch.tensor([0.8, 1.1, 0.7]) ** 2
    cosine = torch.cosine_similarity(normals, outwards, dim=-1).view(batch, 24, 24)
    assert cosine[:, 1:-1, 1:-1].min() > 0.99


def test_a_vertex_without_triangles_has_no_normal() -> None:
    model = replace(face_model(), point_buf=torch.full((72, 8), 112))
    assert not model.normals(model.geometry(neutral().alpha, neutral().delta)).any()


def test_geometry_and_albedo_are_the_means_plus_what_the_coefficients_add() -> None:
    model, face = face_model(), coefficients(2)
    geometry, albedo = model.geometry(face.alpha, face.delta), model.albedo(face.beta)
    assert (geometry.shape, albedo.shape) == ((2, 72, 3), (1, 72, 3))
    row = 3 * 20 + 1
    expected = (
        model.geo_mean[row, 0] + model.id_base[row] @ face.alpha[0, :, 0] + model.exp_base[row] @ face.delta[1, :, 0]
    )
    torch.testing.assert_close(geometry[1, 20, 1], expected)


# --- pose, camera and light ---


def test_the_rotation_is_about_x_then_y_then_z() -> None:
    def about(axis: int) -> torch.Tensor:
        angles = torch.zeros(1, 3, 1)
        angles[0, axis] = 0.4
        return rotation_matrix(angles)[0]

    quarter = rotation_matrix(torch.tensor([[[0.0], [0], [math.pi / 2]]]))[0]
    torch.testing.assert_close(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)
    together = rotation_matrix(torch.full((1, 3, 1), 0.4))[0]
    torch.testing.assert_close(together, about(2) @ about(1) @ about(0))


def test_the_translation_is_subtracted_before_the_rotation() -> None:
    quarter = rotation_matrix(torch.tensor([[[0.0], [0], [math.pi / 2]]]))
    world = to_world(torch.tensor([[[3.0, 0, 0]]]), quarter, torch.tensor([[[1.0], [0], [5]]]))
    torch.testing.assert_close(world, torch.tensor([[[0.0, 2, -5]]]), atol=1e-5, rtol=0)


def test_the_models_left_and_top_are_those_of_the_image() -> None:
    world = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    centre, side, top = to_pixels(Camera().project(world), (100, 200))[0]
    torch.testing.assert_close(centre, torch.tensor([100.0, 50]))
    assert side[0] < centre[0]
    assert top[1] < centre[1]
    unrolled = to_pixels(Camera(up_y=1.0).project(world), (100, 200))[0]
    assert unrolled[1, 0] > centre[0]


@pytest.mark.parametrize(("distance", "depth"), [(0.01, -1), (100, 1)])
def test_depth_runs_from_the_near_to_the_far_plane(distance: float, depth: float) -> None:
    clip = Camera().project(torch.tensor([[[0.0, 0, 8 - distance]]]))[0, 0]
    assert float(clip[2] / clip[3]) == pytest.approx(depth, abs=1e-3)


def test_without_light_coefficients_the_shading_is_even() -> None:
    normals = torch.nn.functional.normalize(torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    colours = illuminate(torch.ones(1, 50, 3), normals, torch.zeros(1, 27, 1))
    torch.testing.assert_close(colours, torch.full_like(colours, 0.7 * math.sqrt(math.pi) / 2))


def test_light_coefficients_are_band_by_band() -> None:
    normals, gamma = torch.tensor([[[0.0, 1, 0]]]), torch.zeros(1, 27, 1)
    gamma[0, 3 + 1] = 1  # the second band's green
    change = illuminate(torch.ones(1, 1, 3), normals, gamma) - illuminate(torch.ones(1, 1, 3), normals, 0 * gamma)
    expected = -2 * math.pi / math.sqrt(3) * math.sqrt(3) / math.sqrt(4 * math.pi)
    torch.testing.assert_close(change, torch.tensor([[[0, expected, 0]]]), atol=1e-5, rtol=0)


def test_the_basis_functions_are_orthogonal_over_the_sphere() -> None:
    count = 20000  # evenly spread points of a Fibonacci spiral
    number = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * number / count, math.pi * (1 + math.sqrt(5)) * number
    radius = (1 - z * z).sqrt()
    values = harmonics(torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)[None])[0]
    products = values.T @ values / count
    torch.testing.assert_close(products, products.diag().diag(), atol=1e-3, rtol=0)


# --- pictures ---


@pytest.mark.parametrize("lower", [False, True])
def test_a_batch_of_three_gives_the_same_as_each_frame_alone(lower: bool) -> None:
    model, faces = face_model(), coefficients(3)
    together = model.render(faces, SIZE, lower=lower)
    assert together.image.shape == (3, 3, *SIZE)
    assert together.alpha.shape == (3, 1, *SIZE)
    for number in range(3):
        own = {
            entry.name: getattr(faces, entry.name)[number if len(getattr(faces, entry.name)) > 1 else 0][None]
            for entry in fields(Coefficients)
        }
        alone = model.render(Coefficients(**own), SIZE, lower=lower)
        torch.testing.assert_close(together.landmarks[number], alone.landmarks[0])
        different = (together.image[number] - alone.image[0]).abs().amax(0) > 1e-3
        assert different.float().mean() < 0.01, "all but pixels at an edge, of which rounding decides"


@pytest.mark.parametrize("changing", ["delta", "gamma", "rotation", "beta"])
def test_any_coefficient_may_be_the_same_in_all_frames(changing: str) -> None:
    model, one, two = face_model(), coefficients(1), coefficients(2)
    value = getattr(two, changing) if changing != "beta" else torch.stack([one.beta[0], -one.beta[0]])
    rendered = model.render(replace(one, **{changing: value}), SIZE)
    assert rendered.image.shape == (2, 3, *SIZE)
    assert (rendered.image[0] - rendered.image[1]).abs().max() > 1e-3


def test_the_lower_face_is_the_lower_part_of_the_image() -> None:
    model = face_model()
    whole, lower = (model.render(neutral(), SIZE, lower=lower) for lower in (False, True))
    rows = whole.alpha[0, 0].sum(1), lower.alpha[0, 0].sum(1)
    assert rows[0][10:38].all()
    assert not rows[1][:18].any()
    torch.testing.assert_close(rows[1][26:], rows[0][26:])


def test_landmarks_lie_where_their_vertices_are_drawn() -> None:
    """The red vertex of a face is the only red in its image, at the landmark."""
    model = replace(face_model(), landmark_index=torch.tensor([36]))
    tex_mean = torch.zeros(216, 1)
    tex_mean[3 * 36] = 1.0
    rendered = replace(model, tex_mean=tex_mean).render(neutral(), (96, 96))
    row, column = divmod(int(rendered.image[0, 0].argmax()), 96)
    x, y = rendered.landmarks[0, 0].tolist()
    assert (column + 0.5, row + 0.5) == pytest.approx((x, y), abs=1.0)


def test_coefficients_that_are_no_numbers_are_refused() -> None:
    face = coefficients(2)
    face.delta[1, 0] = math.nan
    with pytest.raises(TalkingPortraitError, match="72 of 144 vertices"):
        face_model().render(face, SIZE)


def test_the_photometric_loss_reaches_every_coefficient() -> None:
    model, face = face_model(), coefficients(2)
    leaves = {name: value.requires_grad_() for name, value in vars(face).items()}
    rendered = model.render(Coefficients(**leaves), SIZE)
    (rendered.image.square().mean() + rendered.landmarks.square().mean()).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name
        assert leaf.grad.abs().flatten(1).amax(1).min() > 0, name


def test_a_model_moves_to_a_device_whole() -> None:
    moved = face_model().to(torch.device("meta"))
    assert isinstance(moved, FaceModel)
    assert {tensor.device.type for tensor in moved.tensors().values()} == {"meta"}


@pytest.mark.parametrize("lower", [False, True])
def test_coverage_is_the_alpha_of_a_render(lower: bool) -> None:
    model, face = face_model(9, 9), coefficients(2)
    alpha = model.coverage(face, (32, 40), lower=lower)
    assert 0.02 < float(alpha.mean()) < 0.9
    torch.testing.assert_close(alpha, model.render(face, (32, 40), lower=lower).alpha)
