"""Light on a portrait's skin: found in the picture, and changed by turning heads and moving cheeks."""

from __future__ import annotations

import numpy as np
import pytest
from talking_portrait.models.face.face_mesh import VERTICES, vertex_normals
from talking_portrait.models.face.mouth_shapes import mouth_vertices
from talking_portrait.pipelines.face.head_pose import euler_to_matrix
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.instant.renderer.face_light import FaceLight, _fitted
from talking_portrait.pipelines.instant.renderer.portrait_mesh import PortraitMesh

from ...gallery import HOLD, SHAPES, gallery_motion


@pytest.fixture(scope="module")
def mesh() -> PortraitMesh:
    return PortraitMesh(example_portrait()[1])


def lit_from(mesh: PortraitMesh, lamp: list[float]) -> FaceLight:
    """The light of a picture whose pixels are as bright as that lamp makes the nearest vertex."""
    height, width = mesh.image_size
    normals = vertex_normals((mesh.vertices @ mesh.matrix[:3, :3].T)[None])[0]
    picture = np.zeros((height, width, 3))
    for (x, y), light in zip(mesh.points.astype(int), 0.5 * (1 + normals @ lamp), strict=True):
        picture[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = light
    return FaceLight(picture, mesh)


def test_a_lamp_is_found_among_hair():
    random = np.random.default_rng(0)
    normals = random.normal(0, 0.4, (300, 3)) + [0, 0, 1]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = 1 + normals @ [0.3, 0.2, 0.1]
    light[:60] = 0.1
    even, lamp = _fitted(light, normals)
    assert np.dot(lamp, [0.3, 0.2, 0.1]) / np.linalg.norm(lamp) / np.linalg.norm([0.3, 0.2, 0.1]) > 0.9
    assert even + normals[60:].mean(axis=0) @ lamp == pytest.approx(1, abs=0.1)


def test_a_still_face_keeps_its_light(mesh):
    change = lit_from(mesh, [0.4, 0.2, 0.3]).change(np.zeros((2, VERTICES, 3)), np.eye(4)[None].repeat(2, axis=0))
    assert change == pytest.approx(1, abs=1e-6)


def test_cheeks_that_turn_to_the_lamp_get_brighter(mesh):
    turn = np.eye(4)[None].repeat(2, axis=0)
    turn[:, :3, :3] = euler_to_matrix(np.array([[0, 12.0, 0], [0, -12.0, 0]]))
    cheeks = [50, 280]
    for side in (1, -1):
        change = lit_from(mesh, [0.5 * side, 0, 0.2]).change(np.zeros((2, VERTICES, 3)), turn)[:, cheeks].mean(axis=1)
        assert (change[0] - 1) * side > 0.02 > -0.02 > (change[1] - 1) * side
        assert np.abs(change - 1).max() < 0.17


def test_an_opening_jaw_takes_light_from_the_chin(mesh):
    """Under a lamp from above the front of the chin turns down; forehead and eyes keep their light."""
    jaw = mouth_vertices(np.array([[0.8, 0, 0, 0, 0, 0]])).astype(np.float64)
    change = lit_from(mesh, [0, 0.6, 0.1]).change(jaw, np.eye(4)[None])[0]
    assert change[[200, 199, 175]].mean() < 0.99
    assert change[[10, 151, 9, 33, 263]] == pytest.approx(1, abs=0.01)


def test_a_pucker_lights_no_spot_under_the_nose(mesh):
    """Its skin turns up to a lamp from above, but below the nose; skin that turns down loses its light as elsewhere."""
    motion, frame = gallery_motion(), np.array([HOLD * list(SHAPES).index("u") + HOLD // 2])
    lamp = lit_from(mesh, [0, 0.6, 0.1])
    light = mesh.move(motion, frame, mesh.mouth.speaking(motion), lamp).light[0].numpy()
    assert light[[0, 164, 167, 393]].max() < 1.05
    assert light[[17, 18, 200]].max() < 0.98
