from __future__ import annotations

import numpy as np
import pytest
from talking_portrait.models.face.eyelid_shapes import eye_opening, eyelid_closure, eyelid_shapes
from talking_portrait.models.face.face_mesh import (
    BLENDSHAPES,
    LEFT_BROW,
    LEFT_EYE,
    LIPS_OUTER,
    RIGHT_BROW,
    RIGHT_EYE,
    face_mesh,
    mirror_index,
)
from talking_portrait.models.face.mouth_shapes import neutral_vertices
from talking_portrait.models.face.upper_face_shapes import SHAPES, upper_face_shapes


def test_every_shape_is_a_known_blendshape():
    shapes = upper_face_shapes()
    assert tuple(shapes) == SHAPES
    assert set(SHAPES) <= set(BLENDSHAPES)
    for offsets in shapes.values():
        assert offsets.shape == (468, 3)
        assert offsets.dtype == np.float32
        assert 0.05 < np.linalg.norm(offsets, axis=1).max() < 1.0  # cm: visible, but no grimace


@pytest.mark.parametrize("name", [name.removesuffix("Left") for name in SHAPES if name.endswith("Left")])
def test_left_is_the_mirror_image_of_right(name):
    shapes = upper_face_shapes()
    right = shapes[f"{name}Right"]
    assert np.allclose(shapes[f"{name}Left"], right[mirror_index()] * [-1, 1, 1], atol=1e-5)
    assert np.abs(right[face_mesh().vertices[:, 0] > 0.5]).max() < 0.02  # a side moves its own half


def test_a_full_blink_closes_along_the_whole_lid():
    neutral = neutral_vertices()
    blink = upper_face_shapes()["eyeBlinkRight"] + upper_face_shapes()["eyeBlinkLeft"]
    shut = neutral + blink
    for ring in (RIGHT_EYE, LEFT_EYE):
        upper, lower = list(ring[1:8]), list(ring[15:8:-1])
        assert np.linalg.norm(shut[upper] - shut[lower], axis=1).max() < 1e-3
        travel = np.linalg.norm(blink, axis=1)
        assert travel[upper].mean() > 4 * travel[lower].mean()  # the upper lid does the work


@pytest.mark.parametrize("amount", [0.0, 0.25, 0.5, 1.0])
def test_closure_is_the_weight(amount):
    neutral = neutral_vertices()
    right = upper_face_shapes()["eyeBlinkRight"]
    closure = eyelid_closure((neutral + amount * right)[None], neutral)
    assert np.allclose(closure, [[amount, 0]], atol=1e-5)


def test_lids_close_on_any_face():
    stranger = face_mesh().vertices.astype(np.float64) * [1.2, 0.7, 1] + np.random.default_rng(0).normal(
        0, 0.03, (468, 3)
    )
    shut = stranger + eyelid_shapes(stranger).sum(axis=0)
    assert eye_opening(stranger).min() > 0.03
    assert eye_opening(shut).max() < 1e-6


def test_a_wide_eye_counts_as_negative_closure():
    neutral = neutral_vertices()
    wide = neutral + upper_face_shapes()["eyeWideLeft"]
    closure = eyelid_closure(wide, neutral)
    assert closure[0] == pytest.approx(0, abs=1e-5)
    assert -0.3 < closure[1] < -0.1


def test_brows_move_where_they_should():
    shapes = upper_face_shapes()
    inner_up, outer_up, down = shapes["browInnerUp"], shapes["browOuterUpRight"], shapes["browDownRight"]
    inner, outer = [55, 107], [53, 63, 52, 105]
    assert inner_up[inner, 1].min() > 0.3
    assert outer_up[outer, 1].min() > 0.25
    assert outer_up[inner, 1].max() < inner_up[inner, 1].min() / 2
    assert down[list(RIGHT_BROW), 1].max() <= 0
    assert down[inner, 1].max() < -0.2
    for name in ("browInnerUp", "browOuterUpLeft", "browOuterUpRight", "browDownLeft", "browDownRight"):
        still = [*RIGHT_EYE, *LEFT_EYE, *LIPS_OUTER, 10, 152]  # lids, mouth, top of the forehead, chin
        assert np.abs(shapes[name][still]).max() < 0.03, name
        assert np.abs(shapes[name][[*LEFT_BROW, *RIGHT_BROW]]).max() > 0.2


def test_cheeks_lift_without_the_mouth():
    cheek = upper_face_shapes()["cheekSquintRight"]
    assert cheek[np.abs(cheek).max(axis=1).argmax(), 1] > 0.15
    assert np.abs(cheek[list(LIPS_OUTER)]).max() < 0.03


def test_shapes_are_smooth():
    """Along an edge of the mesh a brow's movement changes by less than 0.7 cm a cm: edges get longer, nothing folds."""
    mesh = face_mesh()
    edges = np.concatenate([mesh.triangles[:, [0, 1]], mesh.triangles[:, [1, 2]]])
    length = np.linalg.norm(mesh.vertices[edges[:, 0]] - mesh.vertices[edges[:, 1]], axis=1)
    for name, offsets in upper_face_shapes().items():
        if name.startswith("brow"):
            apart = np.linalg.norm(offsets[edges[:, 0]] - offsets[edges[:, 1]], axis=1)
            assert (apart / length).max() < 0.7, name


def test_shapes_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        upper_face_shapes()["browInnerUp"][0] = 1
