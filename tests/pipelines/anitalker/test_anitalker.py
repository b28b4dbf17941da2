"""AniTalker's stages: sampler, controls, features that fit, windows, pictures of any size, frames in batches."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from talking_portrait.models.anitalker.loading import build_stage1, build_stage2
from talking_portrait.models.anitalker.renderer import Scene
from talking_portrait.models.anitalker.stage1 import Stage1
from talking_portrait.models.anitalker.stage2 import Stage2
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.anitalker.controls import (
    HeadControls,
    from_motion,
    head_controls,
    with_curves,
    with_drawn,
)
from talking_portrait.pipelines.anitalker.motion import generate_motion, layer_mix, motion_frames
from talking_portrait.pipelines.anitalker.portrait import Portrait, motion_from_video, prepare_portrait
from talking_portrait.pipelines.anitalker.rendering import render
from talking_portrait.pipelines.anitalker.sampling import possible_steps, sample, strided_schedule
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.memory import Resident
from talking_portrait.pipelines.types import FaceMotion, MotionLatents, SpeechFeatures

from ...tiny_weights.anitalker import HUBERT_CHANNELS, HUBERT_LAYERS, SIZE, STAGE2, stage1_state, stage2_state

HERE = Path("tiny.ckpt")


class CancelledError(Exception):
    pass


def stage2_of(file: str) -> Stage2:
    state = {name.removeprefix("ema_model."): tensor for name, tensor in stage2_state(file).items() if "ema" in name}
    return build_stage2(state, path=HERE)


@pytest.fixture(scope="module")
def stage1() -> Resident:
    return Resident(build_stage1(stage1_state(), path=HERE))


@pytest.fixture(scope="module")
def stage2() -> dict[str, Resident]:
    return {file: Resident(stage2_of(file)) for file in STAGE2}


@pytest.fixture(scope="module")
def portrait(stage1: Resident) -> Portrait:
    return prepare_portrait(stage1, example_portrait()[0])


def speech(file: str, frames: int, seed: int = 0) -> SpeechFeatures:
    generator = torch.Generator().manual_seed(seed)
    if file.endswith("mfcc"):
        return SpeechFeatures(torch.randn(4 * frames, 1, 39, generator=generator), Fraction(100), "mfcc-anitalker")
    states = torch.randn(2 * frames, HUBERT_LAYERS, HUBERT_CHANNELS, generator=generator)
    return SpeechFeatures(states, Fraction(50), "hubert-64", "paired")


def motion_of(seconds: float, fps: int = 25, yaw: float = 0.0, x: float = 0.0) -> FaceMotion:
    frames, rest = round(seconds * fps), face_mesh().vertices.astype(np.float32)
    rotation, translation = np.zeros((2, frames, 3), dtype=np.float32)
    rotation[:, 1], translation[:, 0] = np.linspace(0, yaw, frames), x
    return FaceMotion(np.repeat(rest[None], frames, axis=0), rest, rotation, translation, Fraction(fps))


# --- sampler ---


@given(st.integers(2, 1000))
def test_any_number_of_steps_becomes_one_that_a_stride_gives(wanted: int) -> None:
    steps = possible_steps(wanted)
    assert steps >= wanted
    assert possible_steps(steps) == steps
    assert len(strided_schedule(steps).timesteps) == steps
    if steps > wanted:
        with pytest.raises(TalkingPortraitError, match=f"{steps} is the next number that does"):
            strided_schedule(wanted)


@pytest.mark.parametrize("steps", [0, 1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(TalkingPortraitError, match="2 to 1000 are possible"):
        possible_steps(steps)


def test_a_perfect_prediction_finds_the_clean_sample() -> None:
    clean = torch.rand(1, 5, 20, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
    schedule = strided_schedule(10)
    alpha_cumprod = dict(zip(schedule.timesteps, schedule.alphas_cumprod.tolist(), strict=True))

    def predict(x: torch.Tensor, timestep: int) -> torch.Tensor:
        return (x - alpha_cumprod[timestep] ** 0.5 * clean) / (1 - alpha_cumprod[timestep]) ** 0.5

    torch.testing.assert_close(sample(predict, torch.randn(1, 5, 20), schedule), clean, atol=1e-4, rtol=1e-4)
    wild = sample(lambda x, timestep: -10 * x, torch.randn(1, 5, 20), schedule)
    assert wild.abs().max() <= 1


# --- controls ---


def test_the_published_signs_and_units() -> None:
    """pose_yaw 0.25 of the published program is 22.5 degrees to the face's right, so -22.5 here."""
    signals = HeadControls.constant(yaw=-22.5, pitch=9, roll=-900, location=0.4, scale=0.6).signals(3)
    torch.testing.assert_close(signals.pose, torch.tensor([0.25, 0.1, -1.0]).expand(1, 3, 3))
    torch.testing.assert_close(signals.location, torch.full((1, 3, 1), 0.4))
    torch.testing.assert_close(signals.scale, torch.full((1, 3, 1), 0.6))


def test_curves_join_their_points_and_hold_at_the_ends() -> None:
    controls = with_curves(HeadControls.constant(pitch=5), "yaw 1:0, 3:20\n\n scale 0:0.4", 100)
    assert controls.yaw[[0, 25, 50, 75, 99]].tolist() == pytest.approx([0, 0, 10, 20, 20])
    assert set(controls.scale) == {0.4}
    assert controls.signals(100).pose[0, :, 1].tolist() == pytest.approx([5 / 90] * 100)


@pytest.mark.parametrize("line", ["yaw", "nod 0:1", "yaw 0", "yaw 0:1:2", "yaw 1:0 0:1", "yaw 0:nan", "yaw 0:1 0:2"])
def test_what_is_no_curve_is_refused(line: str) -> None:
    with pytest.raises(TalkingPortraitError, match="is no curve, but a line such as") as raised:
        with_curves(HeadControls.constant(), f"pitch 0:1\n{line}", 10)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_controls_of_another_length_are_refused() -> None:
    controls = replace(HeadControls.constant(), roll=np.zeros(7))
    with pytest.raises(TalkingPortraitError, match="The head's roll has 7 values, but 1 or 10"):
        controls.signals(10)
    assert controls.signals(7).pose.shape == (1, 7, 3)
    with pytest.raises(TalkingPortraitError, match="yaw holds NaN"):
        HeadControls.constant(yaw=float("nan")).signals(2)


def test_a_face_motion_of_another_rate_turns_the_head_at_the_same_time() -> None:
    rest = HeadControls.constant(location=0.3, scale=0.45)
    slow, fast = (from_motion(motion_of(2, fps, yaw=30), 50, rest) for fps in (25, 50))
    np.testing.assert_allclose(slow.yaw[::5], fast.yaw[::5], atol=0.7)
    assert slow.yaw[0] == pytest.approx(0, abs=1e-6)
    assert slow.yaw[-1] == pytest.approx(30)
    assert (slow.location, slow.scale) == (rest.location, rest.scale)


def test_a_face_motion_may_be_longer_but_hardly_shorter_than_the_speech() -> None:
    rest, motion = HeadControls.constant(), motion_of(2, yaw=30)
    assert len(from_motion(motion, 30, rest).yaw) == 30
    held = from_motion(motion, 60, rest).yaw
    assert set(held[50:]) == {held[49]}
    with pytest.raises(TalkingPortraitError, match=r"The face motion lasts 2\.00 s, but the speech 4\.00 s"):
        from_motion(motion, 100, rest)


def test_with_landmarks_a_motion_starts_from_the_portraits_own_pose_and_place() -> None:
    _, track = example_portrait()
    rest = HeadControls.constant()
    own, moved, turned = (
        from_motion(motion, 25, rest, track) for motion in (motion_of(1), motion_of(1, x=2), motion_of(1, yaw=20))
    )
    nose = track.points[0, 4, 0] / track.image_size[1]
    assert own.location[0] == pytest.approx(nose, abs=0.01)
    assert 0.2 < own.scale[0] < 0.7
    # The head's own x axis points to the face's left, the picture's right.
    assert moved.location[0] > own.location[0] + 0.02
    assert turned.yaw[-1] - own.yaw[-1] == pytest.approx(20, abs=1)
    assert turned.location[-1] > own.location[-1]


def test_drawn_curves_span_the_speech_and_take_the_place_of_numbers_and_text() -> None:
    numbers = HeadControls.constant(yaw=5, pitch=7, location=0.4, scale=0.3)
    drawn = {"yaw": lambda places: places, "scale": lambda places: 1 - places}
    head = with_drawn(with_curves(numbers, "yaw 0:9\nroll 0:3", 5), drawn, 5)
    np.testing.assert_allclose(head.yaw, [-45, -22.5, 0, 22.5, 45])
    np.testing.assert_allclose(head.scale, [1, 0.75, 0.5, 0.25, 0])
    for name, value in (("pitch", 7), ("roll", 3), ("location", 0.4)):
        np.testing.assert_allclose(getattr(head, name), value)
    controls = head_controls("numbers", numbers, "", drawn, 5, None, None)
    np.testing.assert_allclose(controls.pose[0, :, 0], [0.5, 0.25, 0, -0.25, -0.5], atol=1e-6)
    assert len(with_drawn(numbers, drawn, 1).yaw) == 1
    with pytest.raises(TalkingPortraitError, match="The head's yaw holds NaN"):
        head_controls("numbers", numbers, "", {"yaw": lambda places: places * np.nan}, 5, None, None)


def test_following_a_face_motion_needs_one() -> None:
    numbers = HeadControls.constant()
    assert head_controls("none", numbers, "", {}, 5, None, None) is None
    assert head_controls("numbers", numbers, "yaw 0:9", {}, 5, None, None).pose[0, 0, 0] == pytest.approx(-0.1)
    with pytest.raises(TalkingPortraitError, match="none is connected"):
        head_controls("face motion", numbers, "", {}, 5, None, None)


# --- motion ---


@pytest.mark.parametrize("file", STAGE2)
def test_every_variant_makes_motion_of_its_own(stage2: dict[str, Resident], portrait: Portrait, file: str) -> None:
    features = speech(file, 30)
    made = generate_motion(stage2[file], features, portrait, steps=4, seed=3)
    assert made.codes.shape == (30, 20)
    assert made.fps == 25
    assert made.codes.abs().max() <= 1
    again = generate_motion(stage2[file], features, portrait, steps=4, seed=3)
    torch.testing.assert_close(made.codes, again.codes, atol=1e-5, rtol=0)
    other = generate_motion(stage2[file], features, portrait, steps=4, seed=4)
    assert not torch.allclose(made.codes, other.codes, atol=0.01)
    controls = HeadControls.constant(yaw=30).signals(30)
    if not STAGE2[file].pose:
        with pytest.raises(TalkingPortraitError, match="moves the head by the voice alone, but controls were given"):
            generate_motion(stage2[file], features, portrait, controls=controls, steps=4)
        return
    controlled = generate_motion(stage2[file], features, portrait, controls=controls, steps=4, seed=3)
    assert not torch.allclose(made.codes, controlled.codes, atol=1e-3)


@pytest.mark.parametrize("file", ["stage2_pose_only_hubert", "stage2_pose_only_mfcc"])
def test_speech_longer_than_a_window_is_blended(stage2: dict[str, Resident], portrait: Portrait, file: str) -> None:
    calls: list[tuple[int, int]] = []
    features = speech(file, 700)
    made = generate_motion(
        stage2[file], features, portrait, steps=3, seconds=8, progress=lambda *done: calls.append(done[:2])
    )
    assert made.frames == 700
    assert torch.isfinite(made.codes).all()
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert calls[-1][0] == calls[-1][1]
    whole = generate_motion(stage2[file], features, portrait, steps=3)
    assert not torch.allclose(made.codes, whole.codes, atol=1e-4)
    torch.testing.assert_close(
        whole.codes, generate_motion(stage2[file], features, portrait, steps=3, seconds=28).codes
    )


def test_windows_leave_no_seam_where_attention_is_local(stage2: dict[str, Resident], portrait: Portrait) -> None:
    """Without attention a frame depends on a fraction of a second, so windows must give what one pass gives."""
    network = stage2_of("stage2_pose_only_hubert")
    for conformer in (network.speech_encoder, network.coarse_decoder):
        for block in conformer.encoders:
            block.self_attn.linear_out.weight.zero_()
    local, features = Resident(network), speech("hubert", 600)
    whole = generate_motion(local, features, portrait, steps=3)
    torch.testing.assert_close(
        generate_motion(local, features, portrait, steps=3, seconds=7).codes, whole.codes, atol=1e-3, rtol=1e-3
    )


def test_layers_may_be_mixed_beforehand_for_this_model_alone(stage2: dict[str, Resident], portrait: Portrait) -> None:
    file, other = "stage2_pose_only_hubert", "stage2_audio_only_hubert"
    network, features = stage2[file].module, speech(file, 20)
    assert isinstance(network, Stage2)
    shares = layer_mix(network)
    assert shares.sum() == pytest.approx(1)
    states = torch.einsum("n,fnc->fc", shares, features.states)[:, None]
    mixed = replace(features, states=states, mixed=tuple(shares.tolist()))
    torch.testing.assert_close(
        generate_motion(stage2[file], mixed, portrait, steps=4).codes,
        generate_motion(stage2[file], features, portrait, steps=4).codes,
        atol=1e-3,
        rtol=1e-3,
    )
    foreign = replace(mixed, mixed=(0.6, 0.3, 0.1))
    with pytest.raises(TalkingPortraitError, match="were mixed for another AniTalker model"):
        generate_motion(stage2[other], foreign, portrait, steps=4)
    with pytest.raises(TalkingPortraitError, match="takes MFCC and mixes no layers"):
        layer_mix(stage2_of("stage2_pose_only_mfcc"))


HUBERT, MFCC = "stage2_pose_only_hubert", "stage2_pose_only_mfcc"
WRONG = {
    "MFCC to HuBERT": (HUBERT, speech(MFCC, 5)),
    "HuBERT to MFCC": (MFCC, speech(HUBERT, 5)),
    "base to large": (HUBERT, replace(speech(HUBERT, 5), states=torch.zeros(10, 2, 32))),
    "resampled": (HUBERT, replace(speech(HUBERT, 5), timing="resampled")),
    "AudioDVP's": (MFCC, SpeechFeatures(torch.zeros(9, 28, 12), Fraction(25), "mfcc-audiodvp")),
}


@pytest.mark.parametrize(("file", "features"), WRONG.values(), ids=WRONG)
def test_features_of_another_kind_are_refused(stage2: dict[str, Resident], file: str, features: SpeechFeatures) -> None:
    network = stage2[file].module
    assert isinstance(network, Stage2)
    with pytest.raises(TalkingPortraitError, match="The speech features are .*, but the model .* takes") as raised:
        motion_frames(network.config, features)
    assert features.model in str(raised.value)
    assert "\n" not in str(raised.value)


def test_too_little_speech_is_refused(stage2: dict[str, Resident]) -> None:
    features = speech(MFCC, 1)
    with pytest.raises(TalkingPortraitError, match="gives 3 rows of features, but 4 make one frame"):
        motion_frames(STAGE2[MFCC], replace(features, states=features.states[:3]))


def test_files_of_different_trainings_are_refused(stage2: dict[str, Resident], portrait: Portrait) -> None:
    foreign = replace(portrait, start=torch.zeros(1, 512))
    with pytest.raises(TalkingPortraitError, match="load two files of the same training"):
        generate_motion(stage2[MFCC], speech(MFCC, 5), foreign, steps=4)


@pytest.mark.parametrize("stop_at", [1, 2, 4])
def test_cancelling_motion_stops_at_once(stage2: dict[str, Resident], portrait: Portrait, stop_at: int) -> None:
    calls = 0

    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise CancelledError

    with pytest.raises(CancelledError):
        generate_motion(stage2[HUBERT], speech(HUBERT, 10), portrait, steps=10, progress=cancel)
    assert calls == stop_at


# --- pictures in and out ---


@pytest.mark.parametrize("size", [(16, 24), (480, 640), (2160, 3840)])
def test_pictures_that_are_no_squares_are_refused(stage1: Resident, size: tuple[int, int]) -> None:
    with pytest.raises(TalkingPortraitError, match=rf"The portrait is {size[1]} x {size[0]} pixels, but a square"):
        prepare_portrait(stage1, torch.zeros(*size, 3))
    with pytest.raises(TalkingPortraitError, match="The driving video is .* but a square picture"):
        motion_from_video(stage1, torch.zeros(1, *size, 3))


def test_large_frames_drive_as_small_ones_do(stage1: Resident) -> None:
    slope = torch.linspace(0, 255, SIZE).round()[:, None].expand(SIZE, SIZE) / 255
    small = torch.stack([slope, slope.T, 1 - slope])[..., None].expand(-1, -1, -1, 3)
    large = small.repeat_interleave(68, dim=1).repeat_interleave(68, dim=2)  # 2176 pixels
    one, two = (motion_from_video(stage1, frames).codes for frames in (large, small))
    assert (one - two).abs().max() < 0.1 * (two[0] - two[1]).abs().max()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_video_drives_absolutely_or_from_the_portraits_pose(stage1: Resident, batch: int) -> None:
    frames = torch.rand(5, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(6))
    reports: list[int] = []
    driven = motion_from_video(stage1, frames, 23.976, batch=batch, progress=lambda done, *rest: reports.append(done))
    assert driven.fps == Fraction(24000, 1001)
    assert reports[-1] == 5
    picture = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(7))
    own = prepare_portrait(stage1, picture).code
    relative = motion_from_video(stage1, frames, portrait=picture, batch=batch)
    torch.testing.assert_close(relative.codes[0], own[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(relative.codes - own, driven.codes - driven.codes[:1], atol=1e-5, rtol=1e-4)
    first = prepare_portrait(stage1, frames[0]).code
    torch.testing.assert_close(driven.codes[:1], first, atol=1e-5, rtol=1e-4)


@given(frames=st.integers(1, 9), batch=st.integers(1, 10))
@settings(max_examples=12)
def test_frames_come_in_order_whatever_the_batch(stage1: Resident, portrait: Portrait, frames: int, batch: int) -> None:
    codes = torch.randn(frames, 20, generator=torch.Generator().manual_seed(8))
    motion = MotionLatents(codes, Fraction(25))
    parts = list(render(stage1, portrait, motion, batch=batch))
    assert max(map(len, parts)) <= batch
    pictures = torch.cat(parts)
    assert pictures.shape == (frames, SIZE, SIZE, 3)
    assert 0 <= pictures.min() <= pictures.max() <= 1
    whole = torch.cat(list(render(stage1, portrait, motion, batch=frames)))
    torch.testing.assert_close(pictures, whole, atol=1e-4, rtol=1e-4)


def test_the_same_motion_moves_another_portrait(stage1: Resident, portrait: Portrait) -> None:
    motion = MotionLatents(torch.randn(1, 20, generator=torch.Generator().manual_seed(9)), Fraction(25))
    other = prepare_portrait(stage1, torch.rand(48, 48, 3, generator=torch.Generator().manual_seed(10)))
    one, two = (next(iter(render(stage1, face, motion))) for face in (portrait, other))
    assert (one - two).abs().max() > 0.05


def test_codes_of_another_model_are_refused(stage1: Resident, portrait: Portrait) -> None:
    for codes in (torch.zeros(3, 7), torch.zeros(0, 20), torch.zeros(20)):
        with pytest.raises(TalkingPortraitError, match=r"but \(frames, 20\) are expected"):
            next(iter(render(stage1, portrait, MotionLatents(codes, Fraction(25)))))


def test_cancelling_a_render_stops_at_the_next_batch(stage1: Resident, portrait: Portrait) -> None:
    reports: list[int] = []

    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        assert preview is not None
        reports.append(done)
        raise CancelledError

    motion = MotionLatents(torch.zeros(9, 20), Fraction(25))
    with pytest.raises(CancelledError):
        list(render(stage1, portrait, motion, batch=2, progress=cancel))
    assert reports == [2]


def test_where_memory_is_short_fewer_frames_are_rendered_at_once(
    stage1: Resident, portrait: Portrait, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = stage1.module
    assert isinstance(network, Stage1)
    whole, sizes = network.dec.forward, []

    def tight(scene: Scene, codes: torch.Tensor) -> torch.Tensor:
        sizes.append(len(codes))
        if len(codes) > 2:
            raise torch.OutOfMemoryError
        return whole(scene, codes)

    monkeypatch.setattr(network.dec, "forward", tight)
    motion = MotionLatents(torch.zeros(5, 20), Fraction(25))
    assert [len(part) for part in render(stage1, portrait, motion, batch=8)] == [2, 2, 1]
    assert sizes == [5, 2, 2, 1]
