from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talking_portrait.models.face.eyelid_shapes import eyelid_closure
from talking_portrait.models.face.face_mesh import BLENDSHAPES, INNER_LOWER_LIP, INNER_UPPER_LIP, mouth_opening
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import NECK, euler_to_matrix, head_matrix
from talking_portrait.pipelines.motion.edit import (
    add_blinks,
    edit,
    fit_length,
    join,
    limit,
    mirror,
    offset_pose,
    remove_blinks,
    resample,
    scale_head,
    scale_mouth,
    smooth,
)

from ..face.moving_faces import face_motion, same

quick = settings(max_examples=25)
motions = st.builds(
    face_motion,
    frames=st.integers(1, 40),
    seed=st.integers(0, 100),
    fps=st.sampled_from([24, 25, 30, Fraction(30000, 1001)]),
    pose=st.sampled_from(["head", "camera"]),
)
rates = st.sampled_from([8, 12, 24, 25, 30, 50, 60, Fraction(24000, 1001)])


def blink(frames: int, at: int) -> np.ndarray:
    closed = np.zeros(frames)
    closed[at - 1 : at + 3] = [0.6, 1, 0.7, 0.2]
    return closed


@quick
@given(motions)
def test_with_defaults_nothing_changes(motion):
    assert same(edit(motion), motion)


@quick
@given(motions, st.floats(0, 3), st.floats(0, 0.3), st.floats(0, 3), st.floats(-30, 30), rates)
def test_every_edit_keeps_the_frames_that_cover_the_time(motion, mouth, smoothing, head, yaw, fps):
    edited = edit(motion, mouth=mouth, smoothing=smoothing, head=head, yaw=yaw, fps=fps, blinks="add", mirrored=True)
    assert edited.frames == math.ceil(motion.frames / motion.fps * Fraction(fps))
    assert np.isfinite(edited.vertices).all()
    assert edited.vertices.dtype == edited.rotation.dtype == edited.translation.dtype == np.float32


@quick
@given(motions)
def test_mirrored_twice_is_the_same(motion):
    once = mirror(motion)
    assert not same(once, motion, 1e-3)
    assert same(mirror(once), motion)


def test_a_mirrored_motion_has_negated_x_and_swapped_sides():
    """Points in space, under the pose, are the originals with x negated and the sides exchanged."""
    motion = face_motion(5)
    mirrored = mirror(motion)

    def placed(m):
        matrix = head_matrix(m.rotation, m.translation)
        return m.vertices @ matrix[:, :3, :3].transpose(0, 2, 1) + matrix[:, None, :3, 3]

    index = [263, 33, 291, 61, 1, 152]
    opposite = [33, 263, 61, 291, 1, 152]
    assert np.allclose(placed(mirrored)[:, index], placed(motion)[:, opposite] * [-1, 1, 1], atol=1e-4)
    left, right = BLENDSHAPES.index("browDownLeft"), BLENDSHAPES.index("browDownRight")
    assert np.array_equal(mirrored.blendshapes[:, right], motion.blendshapes[:, left])
    assert np.allclose(mirrored.gaze, motion.gaze * [-1, 1])


@quick
@given(motions, motions, st.floats(0, 1))
def test_joined_length_is_the_sum(first, second, crossfade):
    second = replace(second, pose=first.pose)
    joined = join([first, second], crossfade)
    added = math.ceil(second.frames / second.fps * first.fps)
    assert joined.frames == first.frames + added
    assert joined.fps == first.fps
    assert same(fit_length(joined, first.frames), first)


def test_a_crossfade_removes_the_jump():
    first, second = face_motion(20, 1), face_motion(30, 2)
    hard, soft = join([first, second]), join([first, second], 0.4)

    def jump(m):
        return np.abs(np.diff(m.vertices[18:32], axis=0)).max()

    assert jump(soft) < 0.5 * jump(hard)
    np.testing.assert_allclose(soft.rotation[-15:], second.rotation[-15:], atol=1e-5)


def test_join_moves_the_expression_to_the_first_face():
    first, second = face_motion(5, 1), face_motion(6, 2)
    stranger = replace(second, vertices=second.vertices * 1.1 + 1, neutral=second.neutral * 1.1 + 1)
    joined = join([first, stranger])
    assert np.array_equal(joined.neutral, first.neutral)
    assert np.allclose(joined.vertices[5:] - first.neutral, 1.1 * (second.vertices - second.neutral), atol=1e-4)


def test_a_curve_that_one_part_lacks_is_at_rest_there():
    first, second = replace(face_motion(5), gaze=None), face_motion(6, seed=1)
    joined = join([first, second])
    assert np.abs(joined.gaze[:5]).max() == 0
    assert np.allclose(joined.gaze[5:], second.gaze)
    assert join([replace(first, breath=None), replace(second, breath=None)]).breath is None


def test_poses_of_different_kinds_do_not_join():
    with pytest.raises(TalkingPortraitError, match='"camera"'):
        join([face_motion(3), face_motion(3, pose="camera")])
    with pytest.raises(TalkingPortraitError, match="no motions"):
        join([])


@quick
@given(motions, rates)
def test_resampling_keeps_the_duration(motion, fps):
    resampled = resample(motion, fps)
    assert resampled.frames == math.ceil(motion.seconds * Fraction(fps))
    assert 0 <= resampled.seconds - motion.seconds < 1 / Fraction(fps)
    assert np.allclose(resampled.rotation[0], motion.rotation[0])


def test_resampling_up_and_down_again_gives_the_same():
    motion = face_motion(30)
    assert same(resample(resample(motion, 50), 25), motion, 1e-5)


def test_a_mirrored_face_looks_to_the_other_side():
    motion = face_motion(5)
    assert np.allclose(mirror(motion).gaze, motion.gaze * [-1, 1])


@pytest.mark.parametrize("fps", [8, 12, 15, 24, 30])
def test_closures_survive_a_lower_rate(fps):
    for at in range(8, 16):
        jaw, closed = np.full(25, 0.6), blink(25, at)
        jaw[at] = 0
        slow = resample(face_motion(25, jaw=jaw, closed=closed), fps)
        assert mouth_opening(slow.vertices).min() < 0.01
        assert eyelid_closure(slow.vertices, slow.neutral).max() > 0.95
        assert slow.blendshapes[:, BLENDSHAPES.index("eyeBlinkLeft")].max() == pytest.approx(1)


def test_mouth_gain_scales_the_opening_and_nothing_else():
    jaw = np.linspace(0, 0.5, 11)
    motion = face_motion(11, jaw=jaw, closed=blink(11, 5))
    wide = scale_mouth(motion, 1.5)
    assert np.allclose(mouth_opening(wide.vertices), 1.5 * mouth_opening(motion.vertices), atol=1e-4)
    upper = motion.neutral[:, 1] > 1.2
    np.testing.assert_allclose(wide.vertices[:, upper], motion.vertices[:, upper], atol=1e-5)
    shut = scale_mouth(motion, 0)
    assert np.abs((shut.vertices - shut.neutral)[:, motion.neutral[:, 1] < -1.8]).max() < 1e-5
    assert shut.blendshapes[:, BLENDSHAPES.index("jawOpen")].max() < 1e-5
    assert shut.blendshapes[:, BLENDSHAPES.index("eyeBlinkLeft")].max() == pytest.approx(1)


def test_smoothing_reduces_jitter_and_keeps_closures():
    random = np.random.default_rng(0)
    jaw = np.clip(0.5 + 0.1 * random.standard_normal(60), 0, 1)
    jaw[30] = 0
    motion = face_motion(60, jaw=jaw, closed=blink(60, 15))
    smoothed = smooth(motion, 0.08)
    rough = [np.abs(np.diff(mouth_opening(m.vertices[35:]), 2)).mean() for m in (motion, smoothed)]
    assert rough[1] < 0.3 * rough[0]
    assert mouth_opening(smoothed.vertices[30]) < 0.012
    assert eyelid_closure(smoothed.vertices[15], smoothed.neutral).min() > 0.88
    assert np.abs(np.diff(smoothed.rotation, 2, axis=0)).max() < np.abs(np.diff(motion.rotation, 2, axis=0)).max()


def test_removed_blinks_leave_open_eyes_and_all_else():
    motion = face_motion(30, closed=blink(30, 10))
    open_eyed = remove_blinks(motion)
    assert eyelid_closure(open_eyed.vertices, open_eyed.neutral).max() < 1e-5
    assert open_eyed.blendshapes[:, BLENDSHAPES.index("eyeBlinkRight")].max() < 1e-5
    assert np.allclose(mouth_opening(open_eyed.vertices), mouth_opening(motion.vertices))
    assert same(remove_blinks(face_motion(30)), face_motion(30), 1e-5)


def test_added_blinks_close_both_eyes_but_not_next_to_another():
    still = face_motion(1500)
    blinking = add_blinks(still, 20, seed=3)
    closure = eyelid_closure(blinking.vertices, blinking.neutral)
    assert np.allclose(closure[:, 0], closure[:, 1], atol=1e-4)
    shut = closure[:, 0] > 0.95
    starts = np.flatnonzero(shut[1:] & ~shut[:-1]) + 1
    assert 10 <= len(starts) <= 30
    assert same(add_blinks(blinking, 20, seed=3), blinking, 1e-5)
    assert same(add_blinks(still, 0), still)


def test_head_amount_scales_about_rest():
    motion = face_motion(20)
    none = scale_head(motion, 0)
    assert not none.rotation.any()
    assert np.abs(none.translation).max() < 1e-6
    assert np.allclose(scale_head(motion, 2).rotation, 2 * motion.rotation, atol=1e-5)
    camera_motion = face_motion(21, pose="camera")
    held = scale_head(camera_motion, 0)
    assert np.allclose(held.rotation, np.median(camera_motion.rotation, axis=0), atol=1e-4)
    assert np.ptp(held.translation, axis=0).max() < 1e-4
    assert held.translation[0, 2] == pytest.approx(-55, abs=2)


def test_an_offset_turns_the_head_about_its_neck():
    motion = face_motion(6)
    turned = offset_pose(motion, yaw=10, move=(0, 0, 2))
    before, after = head_matrix(motion.rotation, motion.translation), head_matrix(turned.rotation, turned.translation)
    neck = np.append(NECK, 1)
    assert np.allclose((after - before) @ neck, [0, 0, 2, 0], atol=1e-5)
    assert np.allclose(
        before[:, :3, :3].transpose(0, 2, 1) @ after[:, :3, :3], euler_to_matrix(np.array([0, 10.0, 0])), atol=1e-6
    )


@quick
@given(motions, st.floats(0, 20), st.floats(0.01, 0.3))
def test_limits_hold(motion, angle, opening):
    limited = limit(motion, max_angle=angle, max_opening=opening)
    assert np.abs(limited.rotation).max() <= angle + 1e-5
    assert mouth_opening(limited.vertices).max() <= opening * 1.01 + 1e-4


def test_what_is_well_below_a_limit_stays():
    motion = face_motion(20)
    assert same(limit(motion, max_angle=30, max_opening=1), motion, 1e-5)


def test_lips_that_touch_keep_their_shape_under_a_limit():
    """Rounded, pressed or spread lips of no opening at all did not jump to the neutral face for a frame."""
    motion = face_motion(6)
    vertices = motion.vertices.copy()
    vertices[2, INNER_LOWER_LIP] = vertices[2, INNER_UPPER_LIP]
    vertices[2, :, 2] += 0.3 * (vertices[2, :, 1] < 0)
    limited = limit(replace(motion, vertices=vertices), max_opening=0.1)
    np.testing.assert_allclose(limited.vertices[2], vertices[2], atol=1e-5)


def test_a_limited_mouth_has_limited_curves():
    """The tongue and the rounding of the lips belong to the opening that is drawn in."""
    motion = replace(face_motion(6), tongue=np.full(6, 0.5, np.float32), pucker=np.full(6, 0.5, np.float32))
    vertices = motion.vertices.copy()
    vertices[3, INNER_LOWER_LIP, 1] -= 5
    limited = limit(replace(motion, vertices=vertices), max_opening=0.1)
    assert limited.tongue[3] < 0.1
    assert limited.pucker[3] < 0.1


@pytest.mark.parametrize(
    "wrong",
    [{"mouth": -1}, {"mouth": math.nan}, {"smoothing": -0.1}, {"head": math.inf}, {"yaw": 200}, {"move": (0, 0, 1e6)},
     {"max_angle": -1}, {"max_opening": math.nan}, {"blinks": "add", "blink_rate": 1e9}, {"fps": 0},
     {"then": face_motion(2), "crossfade": -1}, {"blinks": "bogus"}, {"blinks": None},
     {"mouth": "wide"}, {"yaw": None}],
)  # fmt: skip
def test_impossible_amounts_are_refused(wrong):
    with pytest.raises(TalkingPortraitError, match="expected"):
        edit(face_motion(4), **wrong)
