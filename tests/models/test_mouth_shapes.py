"""The mouth's shapes on the canonical mesh."""

from __future__ import annotations

import numpy as np
import pytest
from talking_portrait.models.face.face_mesh import (
    BLENDSHAPES,
    LEFT_EYE,
    LIPS_INNER,
    RIGHT_BROW,
    face_mesh,
    mirror_index,
    mouth_opening,
)
from talking_portrait.models.face.mouth_shapes import (
    lip_curves,
    lip_opening,
    lip_seal,
    mouth_blendshapes,
    mouth_vertices,
    neutral_vertices,
    sealing_press,
)
from talking_portrait.models.speech.mouth_network import CONTROLS


def controls(**amounts: float) -> np.ndarray:
    return np.array([[amounts.get(name, 0.0) for name in CONTROLS]], np.float32)


def gap(**amounts: float) -> float:
    return float(mouth_opening(neutral_vertices() + mouth_vertices(controls(**amounts)))[0])


def random_controls(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, len(CONTROLS))).astype(np.float32)


def test_at_rest_the_lips_are_closed_and_little_else_differs_from_the_canonical_mesh():
    assert mouth_opening(neutral_vertices()) < 1e-6
    assert not mouth_vertices(controls()).any()
    moved = np.linalg.norm(neutral_vertices() - face_mesh().vertices, axis=-1)
    assert moved.max() < 0.4
    assert (moved > 0.01).sum() < 120


def test_the_whole_line_of_the_lips_is_closed_at_rest():
    rest = neutral_vertices()
    for upper, lower in zip(LIPS_INNER[1:10], LIPS_INNER[:10:-1], strict=True):
        np.testing.assert_allclose(rest[upper], rest[lower], atol=1e-5)


def test_both_sides_of_the_face_move_alike():
    shapes = neutral_vertices() + mouth_vertices(random_controls(20))
    np.testing.assert_allclose(shapes[:, mirror_index()] * [-1, 1, 1], shapes, atol=1e-5)


def test_eyes_and_brows_stay():
    assert np.abs(mouth_vertices(random_controls(20))[:, [*LEFT_EYE, *RIGHT_BROW]]).max() < 1e-3


def test_openings_are_natural():
    assert 0.25 <= gap(jaw=1) <= 0.35
    assert 0.15 <= gap(jaw=0.68, upper=0.45) <= 0.28
    assert 0.03 <= gap(upper=0.55, jaw=0.08) <= 0.09
    assert gap(jaw=0.2, round=1, upper=0.1) < gap(jaw=0.2, upper=0.1)


@pytest.mark.parametrize("jaw", [0.0, 0.3, 0.7, 1.0])
def test_press_closes_the_lips_over_any_jaw(jaw: float):
    assert gap(jaw=jaw, upper=0.5, press=0.9) < 1e-5
    shape = neutral_vertices() + mouth_vertices(controls(jaw=jaw, upper=0.5, press=1))
    for upper, lower in zip(LIPS_INNER[1:10], LIPS_INNER[:10:-1], strict=True):
        np.testing.assert_allclose(shape[0, upper], shape[0, lower], atol=1e-4)


def test_every_seal_has_a_press():
    seal = np.linspace(0, 1, 101)
    np.testing.assert_allclose(lip_seal(sealing_press(seal)), seal, atol=1e-9)
    assert sealing_press(0.0) == 0


def test_the_formula_for_the_opening_is_what_the_mesh_does():
    some = random_controls(200)
    measured = mouth_opening(neutral_vertices() + mouth_vertices(some))
    np.testing.assert_allclose(measured, lip_opening(some), atol=0.02)


def test_each_control_does_what_it_is_called():
    rest = neutral_vertices()
    chin, corner, lip = 152, 291, 0
    assert mouth_vertices(controls(jaw=1))[0, chin, 1] < -1
    assert mouth_vertices(controls(width=1))[0, corner, 0] > 0.3
    rounded = mouth_vertices(controls(round=1))[0]
    assert rounded[corner, 0] < -0.4
    assert rounded[lip, 2] > 0.4
    assert mouth_vertices(controls(upper=1))[0, lip, 1] > 0.1
    assert not mouth_vertices(controls(tongue=1)).any()
    assert rest.dtype == np.float32


def test_an_upper_lip_rises_by_less_than_half_and_its_corners_stay_together():
    """As on recorded speakers: 0.2 to 0.45 of an opening, the lip's border little more than half as far."""
    edge, border, inner, outer = 13, 0, 78, 61
    mixed = mouth_vertices(np.array([[0.2, 0, 0, 0, 0.8, 0], [0.45, 0, 0, 0, 0.95, 0]]))
    opened = mixed[:, edge, 1] - mixed[:, 14, 1]
    assert (np.abs(mixed[:, edge, 1] / opened - [0.25, 0.2]) < 0.06).all()
    assert (mixed[:, border, 1] < 0.75 * mixed[:, edge, 1]).all()
    assert (np.abs(mixed[:, inner, 1] - mixed[:, outer, 1]) < 0.12).all()


def test_movement_is_smooth_across_the_skin():
    """Outside the gap between the lips every edge of the mesh keeps between a third and three times its length."""
    triangles = face_mesh().triangles
    edges = np.unique(
        np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1), axis=0
    )
    inside = set(LIPS_INNER)
    edges = np.array([edge for edge in edges if not inside & set(edge.tolist())])
    rest = neutral_vertices()
    length = np.linalg.norm(rest[edges[:, 0]] - rest[edges[:, 1]], axis=-1)
    for shape in rest + mouth_vertices(np.concatenate([controls(jaw=1), controls(round=1), controls(width=1)])):
        stretched = np.linalg.norm(shape[edges[:, 0]] - shape[edges[:, 1]], axis=-1)
        assert (stretched < 3 * length + 0.05).all()
        assert (stretched > length / 3 - 0.05).all()


def test_blendshape_scores_are_in_range_and_named_right():
    scores = mouth_blendshapes(random_controls(50))
    assert scores.shape == (50, len(BLENDSHAPES))
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert not mouth_blendshapes(controls()).any()

    def score(name: str, **amounts: float) -> float:
        return float(mouth_blendshapes(controls(**amounts))[0, BLENDSHAPES.index(name)])

    assert score("jawOpen", jaw=0.6) == pytest.approx(0.6)
    assert score("mouthClose", jaw=0.6, press=1) == pytest.approx(0.6)
    assert score("mouthPucker", round=1) > 0.8
    assert score("mouthFunnel", round=1, jaw=0.5) > score("mouthFunnel", round=1)
    assert score("mouthStretchLeft", width=1) == score("mouthStretchRight", width=1) > 0.3
    assert score("mouthPressLeft", press=1) > 0.3
    assert score("mouthUpperUpRight", upper=1) > 0.3
    assert score("mouthLowerDownLeft", upper=1) > 0.3
    assert score("eyeBlinkLeft", jaw=1, press=1) == 0


def test_lip_curves_are_read_off_any_mesh():
    """Rounding and lip press of meshes that this system's own controls made, and of a face at rest."""
    rest = neutral_vertices()
    drawn = random_controls(200)
    drawn[:, 0] = 0.2 + 0.4 * drawn[:, 0]
    drawn[:, 3] = np.where(np.arange(200) % 2, 0.9, 0.0)
    press, rounded = lip_curves(rest + mouth_vertices(drawn), rest)
    assert np.corrcoef(rounded, drawn[:, 2])[0, 1] > 0.9
    assert np.median(press[1::2]) > 0.7
    assert np.median(press[::2]) < 0.1
    still = lip_curves(np.stack([rest, rest]), rest)
    assert np.abs(still).max() == 0
