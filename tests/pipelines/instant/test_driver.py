from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from talking_portrait.models.face.eyelid_shapes import eyelid_closure
from talking_portrait.models.face.face_mesh import BLENDSHAPES, mouth_opening
from talking_portrait.pipelines.audio.waveform import resample
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import NECK, about_neck, euler_to_matrix
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.files.sound import read_audio, read_speech, write_wav
from talking_portrait.pipelines.instant.driver.breathing import breath_curve
from talking_portrait.pipelines.instant.driver.driver import drive
from talking_portrait.pipelines.instant.driver.gaze import gaze_of, saccades
from talking_portrait.pipelines.instant.driver.head_motion import MAX_DEGREES, resting_drift, speech_rotation
from talking_portrait.pipelines.instant.driver.prosody import RATE, Prosody
from talking_portrait.pipelines.instant.driver.upper_face import brow_weights
from talking_portrait.pipelines.motion.blinks import blink_times, blink_weights
from talking_portrait.pipelines.motion.edit import mirror
from talking_portrait.pipelines.types import Audio

from ..face.moving_faces import same

UPPER = slice(None), [10, 67, 105, 334, 159, 386, 168]


@pytest.fixture(scope="module")
def speech() -> Audio:
    whole = example_speech()
    return Audio(whole.waveform[:, : 4 * whole.sample_rate], whole.sample_rate)


@pytest.fixture(scope="module")
def spoken(speech):
    return drive(speech, seed=3)


def synthetic_speech(seconds: float, seed: int = 0) -> Prosody:
    """Phrases of some seconds with syllables, some of them stressed."""
    random = np.random.default_rng(seed)
    frames = int(seconds * RATE)
    phrases, at = [], 0.3
    while at < seconds - 1:
        end = min(at + random.uniform(1.2, 4), seconds - 0.2)
        phrases.append((at, end))
        at = end + random.uniform(0.4, 1.0)
    speech = np.zeros(frames, dtype=bool)
    for start, end in phrases:
        speech[int(start * RATE) : int(end * RATE)] = True
    times = np.arange(frames) / RATE
    accents = np.array(
        [(t, random.uniform(0.3, 1)) for a, b in phrases for t in np.arange(a + 0.2, b - 0.1, 0.55)]
    ).reshape(-1, 2)
    pitch = np.where(speech, 2 * np.sin(times * 5) + 2 * np.sin(times * 1.7 + 1), 0)
    loudness = np.where(speech, -6 + 6 * np.sin(times * 25), -25.0)
    return Prosody(loudness, pitch, speech, speech, np.array(phrases), accents)


# --- the whole ---


@pytest.mark.parametrize("fps", [12, 25, 30, Fraction(30000, 1001), 60])
@pytest.mark.parametrize("samples", [400, 16000, 16001, 30011])
def test_frames_cover_the_audio_exactly(fps, samples):
    motion = drive(Audio(torch.zeros(1, samples), 16000), fps=fps)
    assert motion.frames == math.ceil(Fraction(samples, 16000) * fps)
    assert len(motion.rotation) == len(motion.translation) == len(motion.blendshapes) == motion.frames
    assert motion.fps == fps
    assert motion.vertices.dtype == motion.rotation.dtype == motion.translation.dtype == np.float32


def test_same_seed_same_motion_and_another_seed_another(speech, spoken):
    assert same(drive(speech, seed=3), spoken)
    other = drive(speech, seed=4)
    assert np.abs(other.rotation - spoken.rotation).max() > 0.5
    assert np.allclose(mouth_opening(other.vertices), mouth_opening(spoken.vertices), atol=1e-4)
    assert not same(drive(speech, seed=2**64 - 1), spoken)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (48000, 6), (8000, 1)])
def test_a_file_moves_the_face_alike_whichever_way_it_is_read(tmp_path, speech, rate, channels):
    sound = resample(speech, rate).waveform.repeat(channels, 1) * torch.linspace(1, 0.5, channels)[:, None]
    write_wav(tmp_path / "a.wav", Audio(sound[:, : 2 * rate + 1], rate))
    streamed, _ = read_speech(tmp_path / "a.wav", Fraction(25))
    assert same(drive(streamed), drive(read_audio(tmp_path / "a.wav")))


def test_the_number_of_threads_changes_rounding_alone(speech, spoken):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert same(drive(speech, seed=3), spoken)
    finally:
        torch.set_num_threads(before)


def test_head_motion_does_not_depend_on_the_level_of_the_recording(speech, spoken):
    quiet = (speech.waveform * 10 ** (-50 / 20) * 32768).round() / 32768
    soft = drive(Audio(quiet, speech.sample_rate), seed=3)
    for axis in range(3):
        assert np.corrcoef(soft.rotation[:, axis], spoken.rotation[:, axis])[0, 1] > 0.9
    assert np.corrcoef(mouth_opening(soft.vertices), mouth_opening(spoken.vertices))[0, 1] > 0.95


def test_amounts_of_zero_are_exactly_still(speech):
    still = drive(speech, seed=3, **dict.fromkeys(AMOUNTS, 0.0))
    assert not any(curve.any() for curve in still.curves.values())
    unseen = drive(speech, seed=3, mouth=0, head=0, brows=0, blinks=0, drift=0)
    assert not unseen.rotation.any()
    assert not (unseen.vertices - unseen.neutral).any()
    assert not still.rotation.any()
    assert not still.translation.any()
    assert not (still.vertices - still.neutral).any()
    assert not still.blendshapes.any()


AMOUNTS = ("mouth", "head", "brows", "blinks", "drift", "gaze", "breath", "idle", "asymmetry")


@pytest.mark.parametrize("name", [*AMOUNTS, "nod"])
def test_one_amount_leaves_the_others_alone(speech, spoken, name):
    less = drive(speech, seed=3, **{name: 0.0})
    assert np.allclose(less.rotation, spoken.rotation, atol=1e-3) == (name not in ("head", "drift", "nod", "breath"))
    mouth = mouth_opening(less.vertices), mouth_opening(spoken.vertices)
    assert np.allclose(*mouth, atol=1e-5) == (name != "mouth")
    blink = BLENDSHAPES.index("eyeBlinkLeft")
    assert np.allclose(less.blendshapes[:, blink], spoken.blendshapes[:, blink], atol=1e-3) == (name != "blinks")
    brow = BLENDSHAPES.index("browInnerUp")
    assert np.allclose(less.blendshapes[:, brow], spoken.blendshapes[:, brow], atol=1e-3) == (
        name not in ("brows", "idle")
    )
    assert np.allclose(less.breath, spoken.breath, atol=1e-5) == (name != "breath")
    if name not in ("gaze", "head", "drift", "nod", "breath"):  # the eyes turn against the head
        assert np.allclose(less.gaze, spoken.gaze, atol=1e-3)


def test_amounts_scale(speech, spoken):
    double = drive(speech, seed=3, head=2, drift=2)
    assert np.allclose(double.rotation, 2 * spoken.rotation, atol=1e-4)
    half = drive(speech, seed=3, mouth=0.5)
    assert np.allclose(mouth_opening(half.vertices), mouth_opening(spoken.vertices) / 2, atol=1e-4)


def test_the_mouth_head_brows_and_eyelids_move(spoken):
    assert mouth_opening(spoken.vertices).std() > 0.01
    assert mouth_opening(spoken.vertices).min() < 0.03
    assert spoken.pose == "head"
    sd = spoken.rotation.std(axis=0)
    assert (sd > 0.3).all()
    assert np.abs(spoken.rotation).max() < MAX_DEGREES + 2
    assert eyelid_closure(spoken.vertices, spoken.neutral).max() > 0.95
    assert spoken.blendshapes[:, BLENDSHAPES.index("browInnerUp")].max() > 0.1


@pytest.mark.parametrize("kind", ["zeros", "hiss"])
def test_without_speech_it_only_idles(kind):
    wave = torch.zeros(1, 20 * 16000)
    if kind == "hiss":
        wave += 1e-4 * torch.randn(wave.shape, generator=torch.Generator().manual_seed(0))
    motion = drive(Audio(wave, 16000), seed=1)
    assert mouth_opening(motion.vertices).max() < 0.01
    assert 0.05 < motion.rotation.std(axis=0).max() < 1.0
    assert np.abs(motion.rotation).max() < 2.5
    assert 0.02 < motion.blendshapes[:, BLENDSHAPES.index("browInnerUp")].max() < 0.25
    assert motion.breath.max() > 0.6
    lips = np.linalg.norm((motion.vertices - motion.neutral)[:, [61, 291, 13, 14]], axis=-1)
    assert 0.005 < lips.max() < 0.15  # cm
    assert motion.blendshapes[:, BLENDSHAPES.index("eyeBlinkRight")].max() == pytest.approx(1)


def test_the_same_movement_at_any_rate(speech, spoken):
    fast = drive(speech, seed=3, fps=50)
    assert np.allclose(fast.rotation[::2][: spoken.frames], spoken.rotation, atol=1e-3)


def test_progress_reaches_the_end_and_may_cancel(speech):
    reports: list[tuple[int, int]] = []
    drive(speech, progress=lambda done, total, preview=None: reports.append((done, total)))
    assert reports[-1] == (100, 100)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)

    class CancelledError(Exception):
        pass

    def cancel(done, total, preview=None):
        raise CancelledError

    with pytest.raises(CancelledError):
        drive(speech, progress=cancel)


@pytest.mark.parametrize(
    "wrong",
    [{"mouth": -1}, {"head": math.nan}, {"brows": 99}, {"drift": math.inf}, {"blink_rate": 61}, {"blinks": "x"},
     {"fps": 0}, {"fps": 1000}],
)  # fmt: skip
def test_impossible_amounts_are_refused(speech, wrong):
    with pytest.raises(TalkingPortraitError, match="expected"):
        drive(speech, **wrong)


def test_missing_audio_is_refused():
    with pytest.raises(TalkingPortraitError, match="no audio"):
        drive(None)  # type: ignore[arg-type]


# --- head ---


def test_head_motion_has_the_size_and_pace_of_a_speaker():
    angles = np.concatenate([speech_rotation(synthetic_speech(60, seed), seed) for seed in range(4)])
    sd = angles.std(axis=0)
    assert 2.0 < sd[0] < 4.5
    assert 2.0 < sd[1] < 4.5
    assert 1.5 < sd[2] < 4.0
    assert np.abs(angles).max() <= MAX_DEGREES
    spectrum = np.abs(np.fft.rfft(angles - angles.mean(axis=0), axis=0)) ** 2
    frequency = np.fft.rfftfreq(len(angles), 1 / RATE)
    share = spectrum[(frequency > 4)].sum() / spectrum.sum()
    assert share < 0.01  # no jitter
    assert spectrum[(frequency > 0.5) & (frequency < 3)].sum() / spectrum.sum() > 0.05  # not just postures


def test_the_head_nods_on_accents_and_rests_in_silence():
    prosody = synthetic_speech(30)
    with_nods, without = speech_rotation(prosody, 5, nod=1), speech_rotation(prosody, 5, nod=0)
    nods = (with_nods - without)[:, 0]
    at = (prosody.accents[:, 0] * RATE).astype(int) + 4
    assert nods[at].mean() > 2 * np.abs(nods).mean()
    assert np.allclose(with_nods[:, 1:], without[:, 1:])
    silent = replace(
        prosody,
        speech=np.zeros_like(prosody.speech),
        pitch=np.zeros(prosody.frames),
        phrases=np.zeros((0, 2)),
        accents=np.zeros((0, 2)),
    )
    assert np.abs(speech_rotation(silent, 5)).max() < 1e-9


def test_a_rising_voice_lifts_the_chin():
    prosody = replace(synthetic_speech(30), accents=np.zeros((0, 2)))
    without_pitch = replace(prosody, pitch=np.zeros(prosody.frames))
    answer = (speech_rotation(prosody, 1) - speech_rotation(without_pitch, 1))[:, 0]
    inside = prosody.speech
    assert np.corrcoef(answer[inside], prosody.pitch[inside])[0, 1] < -0.6


def test_drift_is_slow_small_and_never_repeats():
    rotation, translation = resting_drift(60 * RATE, 0)
    assert rotation.std(axis=0).min() > 0.1
    assert np.abs(rotation).max() < 2
    assert np.abs(translation).max() < 0.5
    speed = np.abs(np.diff(rotation, axis=0)).max() * RATE
    assert speed < 3  # degrees a second
    yaw = rotation[:, 1] - rotation[:, 1].mean()
    correlation = np.correlate(yaw, yaw, "full")[len(yaw) - 1 :] / (yaw @ yaw)
    assert correlation[10 * RATE :].max() < 0.7


def test_turning_about_the_neck_leaves_the_neck():
    rotation = np.random.default_rng(0).normal(0, 8, (5, 3))
    assert np.allclose(euler_to_matrix(rotation) @ NECK + about_neck(rotation), NECK)


def test_a_short_clip_has_head_movement_of_all_three_kinds():
    for seed in range(4):
        sd = np.median([speech_rotation(synthetic_speech(7, clip), seed).std(axis=0) for clip in range(6)], axis=0)
        assert (sd > [1.6, 1.6, 1.2]).all()


def test_postures_are_held_over_short_pauses_and_end_in_long_ones():
    prosody = synthetic_speech(60)
    quiet = replace(prosody, pitch=np.zeros(prosody.frames), accents=np.zeros((0, 2)))
    first, second, third = (0.5, 3.0), (3.6, 6.0), (20.0, 22.0)
    angles = speech_rotation(replace(quiet, phrases=np.array([first, second, third])), 0)
    assert np.linalg.norm(angles[330]) > 1.0
    assert np.abs(angles[9 * RATE : 18 * RATE]).max() < 0.05


# --- eyes and breath ---


def test_the_eyes_turn_against_the_head_and_jump_between_places():
    prosody = synthetic_speech(60)
    looked = saccades(prosody, 0)
    speed = np.linalg.norm(np.diff(looked, axis=0), axis=1) * RATE
    jumps = np.flatnonzero((speed[1:] > 20) & (speed[:-1] <= 20))
    assert 30 < len(jumps) < 140  # a minute
    assert np.median(speed) < 1e-6  # still between them
    assert np.abs(looked).max() > 4  # sometimes away
    assert np.median(np.abs(looked)) < 2
    turned = np.array([[0.0, 5, 0], [4, 0, 0]])
    gaze = gaze_of(turned, np.zeros((2, 2)))
    assert gaze[0, 0] < -3  # the head to its left, the eyes to its right
    assert gaze[1, 1] > 3  # the chin down, the eyes up


def test_breath_goes_in_before_a_phrase_and_out_with_it():
    prosody = synthetic_speech(60)
    air = breath_curve(prosody, 0)
    assert air.min() >= 0
    starts, ends = (prosody.phrases[:, side] * RATE for side in (0, 1))
    change = air[np.minimum(ends, prosody.frames - 1).astype(int)] - air[starts.astype(int)]
    assert (change < 0.05).all()
    pauses = starts[1:] - ends[:-1] > 0.6 * RATE
    rise = air[starts[1:].astype(int)] - air[ends[:-1].astype(int)]
    assert rise[pauses].min() > 0.2
    silent = breath_curve(replace(prosody, phrases=np.zeros((0, 2))), 0)
    breaths = np.flatnonzero((silent[1:-1] > silent[:-2]) & (silent[1:-1] >= silent[2:]) & (silent[1:-1] > 0.5))
    assert 10 < len(breaths) < 22
    assert np.abs(np.diff(silent)).max() * RATE < 3


def test_the_sides_of_the_face_differ_and_closed_lips_stay_closed(speech):
    even, uneven = (drive(speech, seed=3, asymmetry=amount) for amount in (0.0, 1.0))
    side = np.abs(even.vertices - mirror(even).vertices)[:, [61, 291]].max()
    assert side < 1e-3
    assert np.abs(uneven.vertices - mirror(uneven).vertices)[:, [61, 291]].max() > 0.01
    assert np.allclose(mouth_opening(even.vertices), mouth_opening(uneven.vertices), atol=1e-3)


# --- blinks and brows ---


@pytest.mark.parametrize("rate", [12, 20, 30])
def test_blinks_come_at_the_given_rate_with_natural_intervals(rate):
    prosody = synthetic_speech(600)
    times = np.concatenate([blink_times(600, prosody.phrases, rate, seed) + 1000 * seed for seed in range(4)])
    assert len(times) / 40 == pytest.approx(rate, rel=0.12)
    intervals = np.diff(times)
    single = intervals[(intervals > 0.6) & (intervals < 100)]
    assert single.std() / single.mean() > 0.25  # no metronome
    assert np.median(single) < single.mean()  # long waits are rare, as in a log-normal
    assert intervals.min() > 0.35


def test_blinks_are_more_frequent_at_the_ends_of_phrases():
    prosody = synthetic_speech(600)
    times = np.concatenate([blink_times(600, prosody.phrases, 20, seed) for seed in range(4)])
    after_end = times[:, None] - prosody.phrases[:, 1]
    near = ((after_end > -0.1) & (after_end < 0.35)).any(axis=1).mean()
    by_chance = len(prosody.phrases) * 0.45 / 600
    assert near > 2 * by_chance


@pytest.mark.parametrize("seconds", [10, 20, 60])
def test_short_motions_have_10_to_35_blinks_a_minute_too(seconds):
    rates = [
        len(blink_times(seconds, synthetic_speech(seconds, seed).phrases, 20, seed)) / seconds * 60
        for seed in range(60)
    ]
    assert np.mean([10 <= rate <= 35 for rate in rates]) > 0.9


@pytest.mark.parametrize("fps", [24, 25, 30, 60])
def test_a_blink_has_a_real_shape(fps):
    weights = blink_weights(np.array([1.003]), 3 * fps, Fraction(fps), 0)
    assert weights.max() == pytest.approx(1)
    closed_at = weights.argmax()
    half = np.flatnonzero(weights > 0.5)
    assert 0.1 < len(half) / fps < 0.3
    assert (np.diff(half) == 1).all()
    falling, rising = closed_at - np.flatnonzero(weights > 0)[0], np.flatnonzero(weights > 0)[-1] - closed_at
    assert rising > 1.3 * falling  # shut faster than opened
    assert weights[0] == weights[-1] == 0


def test_no_blinks_at_a_rate_of_zero():
    assert len(blink_times(60, np.zeros((0, 2)), 0, 0)) == 0
    assert not blink_weights(np.zeros(0), 50, Fraction(25), 0).any()


def test_brows_rise_with_the_voice_and_rest_in_silence():
    prosody = synthetic_speech(60)
    brows = brow_weights(prosody, 0)
    lift = brows["browInnerUp"]
    assert 0.2 < lift.max() <= 1
    assert lift.min() >= 0
    quiet = ~prosody.speech
    assert lift[quiet].mean() < lift[prosody.speech].mean()
    assert np.corrcoef(lift[prosody.speech], prosody.pitch[prosody.speech])[0, 1] > 0.1
    assert not np.allclose(brows["browOuterUpLeft"], brows["browOuterUpRight"], atol=1e-3)
    silent = replace(prosody, speech=quiet & False, pitch=lift * 0, phrases=np.zeros((0, 2)), accents=np.zeros((0, 2)))
    assert not any(rows.any() for rows in brow_weights(silent, 0).values())
