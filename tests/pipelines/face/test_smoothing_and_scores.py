"""Smoothed landmarks, and expression scores from a shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from talking_portrait.models.face.face_mesh import BLENDSHAPES, face_mesh, mouth_opening
from talking_portrait.models.face.mouth_shapes import mouth_vertices, neutral_vertices
from talking_portrait.models.face.upper_face_shapes import upper_face_shapes
from talking_portrait.pipelines.face.expression_scores import scores_from_shape
from talking_portrait.pipelines.face.smoothing import smooth_points

DATA = Path(__file__).parents[4] / "shared" / "data"
TASK = DATA / "face_landmarker.task"
PORTRAITS = DATA / "portraits"


def moving_mesh(frames: int) -> np.ndarray:
    mesh = face_mesh().vertices.astype(np.float64) * [10, -10, -10] + 300
    drift = np.stack([np.linspace(0, 60, frames), np.linspace(0, -20, frames), np.zeros(frames)], axis=1)
    return mesh + drift[:, None]


def test_smoothing_reduces_jitter_without_delay():
    still = moving_mesh(60)
    rng = np.random.default_rng(0)
    shaken = still + rng.normal(0, 0.25, still.shape)
    smoothed = smooth_points(shaken)
    assert np.abs(smoothed - still).mean() < 0.65 * np.abs(shaken - still).mean()
    lag = (smoothed - still)[5:-5, :, 0].mean()
    assert abs(lag) < 0.02  # the face moves a pixel a frame


def test_smoothing_leaves_a_quick_closure_and_a_cut_alone():
    points = moving_mesh(20)
    points[:, 14, 1] += 12
    points[10, 14, 1] -= 12  # the lips meet for one frame
    other = moving_mesh(5) * 0.7
    clip = np.concatenate([points, other])
    smoothed = smooth_points(clip, 2.0)
    opening = mouth_opening(clip)
    np.testing.assert_allclose(mouth_opening(smoothed)[[9, 10, 11]], opening[[9, 10, 11]], atol=2e-3)
    np.testing.assert_allclose(smoothed[19:21], clip[19:21], atol=1e-9)


# --- expression scores from the shape ---


def score(vertices: np.ndarray, name: str) -> np.ndarray:
    return scores_from_shape(vertices)[..., BLENDSHAPES.index(name)]


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_a_closing_eye_raises_its_own_blink_score(side):
    rest, shapes = neutral_vertices(), upper_face_shapes()
    other = "Right" if side == "Left" else "Left"
    eyes = np.stack([rest + amount * shapes[f"eyeBlink{side}"] for amount in (0, 0.5, 1)])
    blink = score(eyes, f"eyeBlink{side}")
    assert blink[0] < 0.3
    assert blink[2] > 0.7
    assert (np.diff(blink) > 0.2).all()
    assert np.ptp(score(eyes, f"eyeBlink{other}")) < 0.01


@pytest.mark.parametrize(("control", "name"), [(0, "jawOpen"), (1, "mouthSmileLeft"), (2, "mouthPucker")])
def test_mouth_controls_raise_their_scores(control, name):
    controls = np.zeros((3, 6))
    controls[:, control] = [0, 0.5, 1]
    scores = score(neutral_vertices() + mouth_vertices(controls), name)
    assert (np.diff(scores) > -1e-6).all()
    assert scores[2] - scores[0] > 0.15


def test_brows_raise_and_lower_their_scores():
    shapes, rest = upper_face_shapes(), neutral_vertices()
    for name, least in (("browInnerUp", 0.2), ("browOuterUpLeft", 0.2), ("browDownRight", 0.05)):
        assert score(rest + shapes[name], name) - score(rest, name) > least
    assert scores_from_shape(rest).shape == (52,)
