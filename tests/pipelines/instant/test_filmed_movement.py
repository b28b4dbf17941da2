"""How a filmed face moves, without the faults of its landmarks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from talking_portrait.models.curves import smoothstep
from talking_portrait.models.face.face_mesh import LIPS_OUTER, mouth_opening
from talking_portrait.models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from talking_portrait.models.face.mouth_shapes import mouth_vertices, neutral_vertices
from talking_portrait.pipelines.face.head_pose import head_matrix
from talking_portrait.pipelines.face.metric_mesh import project
from talking_portrait.pipelines.instant.dub.filmed_face import filmed_face
from talking_portrait.pipelines.instant.dub.filmed_movement import CHIN, LOWER_LIP, steadied, with_chin_below_lip
from talking_portrait.pipelines.instant.dub.lip_rims import (
    OPEN_FROM,
    REACH,
    STEPS,
    USUAL_RIMS,
    clear_edge,
    contact_line,
    edge_steps,
)
from talking_portrait.pipelines.instant.dub.mouth_motion import MouthMotion, mouth_motions
from talking_portrait.pipelines.instant.dub.mouth_view import lip_edges
from talking_portrait.pipelines.instant.dub.resting_face import held_mouths
from talking_portrait.pipelines.instant.dub.skin.face_texture import texture_of
from talking_portrait.pipelines.instant.dub.skin.lip_landmarks import LEAST_FRAMES, ROWS, LipLandmarks
from talking_portrait.pipelines.instant.dub.skin.registration import FilmedSkin
from talking_portrait.pipelines.instant.renderer.face_opening import ENTRIES, Aperture

FRAMES, SIZE = 60, (512, 512)
JITTER = 0.002
"""Eye distances; a landmarker's standard deviation."""


def jitter(*shape: int) -> np.ndarray:
    """White, and alike in all landmarks, as that of a landmarker is: in the second place (..., 2)."""
    return np.random.default_rng(0).normal(0, JITTER, (shape[0], 1, 2)) * np.ones(shape)


def flicker(values: np.ndarray) -> float:
    return float(np.abs(np.diff(values, 2, axis=0)).mean())


def filmed(mouths: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Landmarks (F, 468, 3) of faces with mouth controls (F, 6) that are turned to the side by degrees (F,)."""
    vertices = (neutral_vertices() + mouth_vertices(mouths)).astype(np.float64)
    rotation = np.stack([0 * turn, turn, 0 * turn], axis=-1)
    matrix = head_matrix(rotation, np.tile([0, 0, -60.0], (len(turn), 1)))
    in_camera = vertices @ np.swapaxes(matrix[:, :3, :3], 1, 2) + matrix[:, None, :3, 3]
    depth = -in_camera[..., 2:]
    scale = np.linalg.norm(np.diff(project(vertices[:, [33, 263]], matrix, SIZE), axis=1), axis=-1) / 9
    return np.concatenate([project(vertices, matrix, SIZE), (depth - depth.mean()) * scale[:, None]], axis=-1)


def test_a_still_mouth_loses_its_jitter_and_quick_or_steady_movement_stays():
    noise = jitter(FRAMES, 468, 2)
    assert flicker(steadied(noise)) < 0.3 * flicker(noise)
    closing = np.zeros((FRAMES, 468, 2))
    closing[30, :, 1] = -0.05 * (neutral_vertices()[:, 1] < -4)
    assert np.abs(steadied(closing) - closing)[:, LOWER_LIP].max() < 0.002
    speech = 0.03 * np.sin(np.arange(FRAMES) / 2)[:, None, None] * np.ones((1, 468, 2))
    assert np.abs(steadied(speech) - speech).max() < 0.1 * 0.03
    ramp = np.linspace(0, 0.3, FRAMES)[:, None, None] * np.ones((1, 468, 2))
    assert np.abs(steadied(ramp) - ramp)[5:-5].max() < 1e-9
    assert steadied(noise[:1]).shape == (1, 468, 2)


def test_new_words_move_a_face_that_hardly_moves_without_the_jitter_of_its_landmarks():
    points = filmed(np.zeros((FRAMES, 6)), 3 * np.sin(np.arange(FRAMES) / 20)).astype(np.float32)
    eyes = float(np.linalg.norm(points[0, 33] - points[0, 263]))
    noisy = points.copy()
    noisy[:, :, :2] += eyes * np.random.default_rng(1).normal(0, JITTER, (FRAMES, 468, 2))
    noisy[:, 200:, :2] += eyes * jitter(FRAMES, 268, 2)
    numbers, shut = np.arange(FRAMES), held_mouths(np.zeros((FRAMES, 6)))
    face = filmed_face(noisy, np.ones(FRAMES, bool), (0,), SIZE, smoothing=0)
    moved = np.stack([mouth.moved for mouth in mouth_motions(face, numbers, shut, numbers, 1.0)])
    assert flicker(moved[:, CHIN]) < 0.3 * flicker((noisy - points)[:, CHIN, :2])


def test_another_shot_does_not_reach_into_the_frames_before_it():
    points = filmed(np.zeros((FRAMES, 6)), np.zeros(FRAMES)).astype(np.float32)
    other = points.copy()
    other[30:, LOWER_LIP, 1] += 1.0
    faces = [filmed_face(each, np.ones(FRAMES, bool), (0, 30), SIZE, smoothing=0) for each in (points, other)]
    lips = [face.points[:, LOWER_LIP, 1] for face in faces]
    assert np.abs(lips[1] - lips[0])[:30].max() < 0.1
    assert np.abs(lips[1] - lips[0] - 1)[30:].max() < 0.1


def test_a_chin_follows_a_lip_that_goes_down_without_it_and_no_other():
    down = np.tile([0.6, 0.8], (3, 1))
    moved = np.zeros((3, 468, 2))
    moved[1, LOWER_LIP] = 0.1 * down[1]
    moved[2] = 0.1 * down[2]
    after = with_chin_below_lip(moved, down)
    assert np.allclose(after[[0, 2]], moved[[0, 2]])
    assert np.allclose(after[1, LOWER_LIP], moved[1, LOWER_LIP], atol=1e-3)
    assert np.allclose(after[1, 200], 0.048 * down[1], atol=1e-3)
    assert np.allclose(after[1, [1, 33, 152, 172, 263, 397]], 0)


def test_edges_of_lips_that_part_lie_no_farther_in_than_where_the_filmed_ones_meet():
    """A film's open lips have their edges within the landmarks; the corners of hardly open ones have no room for it."""
    points = neutral_vertices()[:, :2].astype(np.float64) * [10, -10] + 256
    points[list(LOWER_INNER_LIP), 1] += [0, 1, 2, 3, 4, 3, 2, 1, 0]
    moved = np.zeros((468, 2))
    moved[list(LOWER_INNER_LIP), 1] = 20
    basis = np.array([[10.0, 0, 0], [0, -10, 0]])
    frame, light = np.full((512, 512, 3), 128, np.uint8), np.full(3, 128.0)
    edges = lip_edges(frame, MouthMotion(points, moved, basis, points[13], 90.0, 0.5, (-0.1, -0.1)), light)
    upper, lower = (points[list(chain), 1].mean() for chain in (UPPER_INNER_LIP, LOWER_INNER_LIP))
    assert (edges.lower - edges.upper).min() > -1e-6
    assert points[list(LIPS_OUTER), 1].min() < edges.middle[1] + edges.upper.mean() < lower
    assert upper < edges.middle[1] + edges.lower.mean()


def test_shut_lips_that_open_part_where_they_are_seen_to_meet():
    """A dark line above the landmarks' by up to a tenth of the mouth's half width, and a darker one on the chin."""
    points = neutral_vertices()[:, :2].astype(np.float64) * [20, -20] + 256
    lips = Aperture(points, MOUTH_CORNERS, UPPER_INNER_LIP, LOWER_INNER_LIP)
    x, y = np.meshgrid(np.arange(512) + 0.5, np.arange(512) + 0.5)
    along, across = np.moveaxis(lips.local(np.stack([x, y], axis=-1)), -1, 0)
    line = np.interp(along, lips.table_along, lips.upper) - 0.1 * lips.half * np.cos(1.5 * along / lips.half)
    dark = 60 * np.exp(-0.5 * ((across - line) / 2) ** 2) + 90 * np.exp(-0.5 * ((across - 0.5 * lips.half) / 2) ** 2)
    frame = np.repeat((180 - dark)[..., None], 3, axis=2).astype(np.uint8)
    meet = contact_line(frame, lips, np.ones(ENTRIES), np.full(3, 180.0))
    inner = np.abs(lips.table_along) < 0.8 * lips.half
    wanted = -0.1 * lips.half * np.cos(1.5 * lips.table_along / lips.half)
    assert np.abs(meet - wanted)[inner].max() < 0.02 * lips.half
    plain = contact_line(np.full_like(frame, 180), lips, np.ones(ENTRIES), np.full(3, 180.0))
    assert np.abs(plain).max() < 0.01 * lips.half


def test_landmarks_that_jump_beside_the_skin_are_put_back_and_few_frames_are_left():
    """A face with spots whose landmarks of chin and lips are off by pixels that differ from frame to frame."""
    numbers = np.random.default_rng(3)
    points = neutral_vertices() * [14, -14, -14] + [128, 100, 0]
    frame = cv2.GaussianBlur(numbers.integers(0, 256, (256, 256, 3)).astype(np.uint8), (0, 0), 2.5)
    lower = smoothstep(-1.0, -4.0, neutral_vertices()[:, 1].astype(np.float64))[None, :, None]
    wrong = np.concatenate([numbers.normal(0, 1.5, (24, 1, 2)) * lower, np.zeros((24, 468, 1))], axis=2)
    landmarks = (points + wrong).astype(np.float32)
    skin = FilmedSkin(24)
    for number in range(24):
        skin.add(number, texture_of(frame, landmarks[number]))
    aligned, few = (skin.aligned(landmarks, np.arange(count))[:, [0, 17, 200]] for count in (24, 5))
    before = landmarks[:, [0, 17, 200]]
    assert aligned.std(axis=0)[:, :2].mean() < 0.4 * before.std(axis=0)[:, :2].mean()
    np.testing.assert_allclose(few, before, atol=1e-4)


def test_landmarks_of_open_lips_are_put_at_their_edges_and_those_of_shut_lips_stay():
    """An upper lip of which landmarkers report too much or too little in all frames: its edge is seen."""
    jaws = np.array([[0.5, 0.4, 0, 0, 0, 0], [0.35, 0.4, 0, 0, 0, 0], [0.0, 0, 0, 0, 0, 0]])
    points = (neutral_vertices() + mouth_vertices(jaws)) * [14, -14, -14] + [128, 0, 0]
    x, y = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
    frames, halves = [], []
    for shape in points:
        mouth = Aperture(shape[:, :2], MOUTH_CORNERS, UPPER_INNER_LIP, LOWER_INNER_LIP)
        along, across = np.moveaxis(mouth.local(np.stack([x, y], axis=-1)), -1, 0)
        upper, lower = mouth.edges_at(along)
        frame = np.full((256, 256, 3), (190, 90, 90), np.uint8)
        frame[(across > upper) & (across < lower)] = (40, 15, 15)
        frames.append(frame)
        halves.append(mouth.half)
    middle = list(UPPER_INNER_LIP[2:7])
    for wrong in (-0.08, 0.08):
        told = points.copy()
        for lip, part in (ROWS[0][0], ROWS[1][0], ROWS[2][0]):
            told[:2, list(lip), 1] += part * wrong * np.array(halves[:2])[:, None]
        steps = [edge_steps(frame, shape) for frame, shape in zip(frames[:2], told[:2], strict=True)]
        lips = LipLandmarks.of([step for step in steps if step is not None] * 4, told)
        away = (lips.at_edges(told, 0.0) - points)[:, middle, 1] / np.array(halves)[:, None]
        assert np.abs(away[:2]).mean() < 0.2 * abs(wrong)
        np.testing.assert_allclose(away[2], 0, atol=1e-3)
        assert lips.rims[0] == 0
    for few in ([], [step for step in steps if step is not None]):
        np.testing.assert_allclose(LipLandmarks.of(few, points).at_edges(points, 0.0), points)
    assert LipLandmarks.of([], points).rims == USUAL_RIMS
    corners = [61, 291, *LIPS_OUTER]
    np.testing.assert_allclose(lips.at_edges(points, 0.0)[:, corners], points[:, corners])
    assert {len(lip) for row in ROWS for lip, _ in row} == {9}


@pytest.mark.parametrize("followed", [0.5, 1.0])
def test_lips_whose_inner_edges_go_less_far_than_their_outer_ones_are_open_farther(followed):
    """What colours say may be the edge of teeth or of a shadow, within the landmarks."""
    jaws = np.zeros((9, 6))
    jaws[:, 0] = np.linspace(0.0, 0.6, 9)
    points = (neutral_vertices() + mouth_vertices(jaws)) * [14, -14, -14] + [128, 0, 0]
    told = points.copy()
    for lip in (UPPER_INNER_LIP, LOWER_INNER_LIP):
        told[:, list(lip)] += (1 - followed) * (points[:1] - points)[:, list(lip)]
    opened = mouth_opening(told) > OPEN_FROM
    half = np.linalg.norm(told[:, MOUTH_CORNERS[1], :2] - told[:, MOUTH_CORNERS[0], :2], axis=-1).mean() / 2
    gaps = [np.linalg.norm(shape[opened, 13, :2] - shape[opened, 14, :2], axis=-1).mean() for shape in (points, told)]
    missing = (gaps[0] - gaps[1]) / half
    within = np.full((2, STEPS), 0.005) + 0.03 * np.exp(-0.5 * ((np.linspace(*REACH, STEPS) + 0.06) / 0.02) ** 2)
    outwards = LipLandmarks.of([within] * LEAST_FRAMES, told).outwards
    if followed < 1:
        assert 0.5 * missing < sum(outwards) < 1.2 * missing
    else:
        assert sum(outwards) < 0


def test_an_edge_without_a_peak_moves_no_landmarks():
    """Colours that change ever more towards the teeth have no lip's edge; the nearest one would be without an end."""
    falling = np.tile(np.linspace(0.02, 0.005, STEPS), (2, 1))
    assert clear_edge([falling], 0)[1] == 0
    assert LipLandmarks.of([falling] * LEAST_FRAMES, neutral_vertices()[None]).outwards[0] == 0
    peak = falling + 0.03 * np.exp(-0.5 * ((np.linspace(*REACH, STEPS) + 0.06) / 0.02) ** 2)
    place, clear = clear_edge([peak], 0)
    assert clear == 1
    assert abs(place + 0.06) < 0.01
