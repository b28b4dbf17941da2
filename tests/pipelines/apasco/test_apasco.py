"""APasco's animation: frame counts, clips that continue each other, options, memory, and what it refuses.

Long, as all of it runs the same tiny networks on the same inputs.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.models.apasco.loading import build_net
from talking_portrait.pipelines.apasco.animate import Inputs, Settings, animate, plan_clips
from talking_portrait.pipelines.apasco.audio_context import audio_layers, audio_windows
from talking_portrait.pipelines.apasco.deflicker import faded, smooth_over_time
from talking_portrait.pipelines.apasco.geometry import geometry_of_track, normalised
from talking_portrait.pipelines.apasco.masks import RegionMasks, filled
from talking_portrait.pipelines.apasco.pictures import match_colours
from talking_portrait.pipelines.apasco.settings import Networks
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.evaluation.flicker import flicker
from talking_portrait.pipelines.memory import Resident
from talking_portrait.pipelines.types import FaceTrack, SpeechFeatures

from ...tiny_weights.apasco import CHANNELS, CONFIG, LAYERS, net_state

SMALL = replace(
    CONFIG,
    reference_unet=replace(CONFIG.reference_unet, channels=(32, 32)),
    denoising_unet=replace(CONFIG.denoising_unet, channels=(32, 32)),
)
SMALL = replace(
    SMALL,
    reference_unet=replace(SMALL.reference_unet, attention=(True, False)),
    denoising_unet=replace(SMALL.denoising_unet, attention=(True, False)),
)
QUICK = Settings(size=(64, 64), clip=4, steps=1)


class PatchCodec:
    """Each latent is the mean colour of its patch, and that comes back; counts the pictures it was given."""

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        self.encoded.append(len(pictures))
        colours = F.avg_pool2d(pictures.permute(0, 3, 1, 2), 8)
        return torch.cat([2 * colours - 1, colours[:, :1]], dim=1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        colours = (torch.tanh(latents[:, :3]) + 1) / 2
        return F.interpolate(colours, scale_factor=8).permute(0, 2, 3, 1)


def networks_of(config=SMALL, state=None) -> Networks:
    return Networks.of(build_net(state or net_state(config), path="net.pth", config=config), Resident)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return networks_of()


def inputs_of(frames: int, size=(48, 40)) -> Inputs:
    random = torch.Generator().manual_seed(3)
    cells = np.arange(64 * 64).reshape(64, 64) % 255
    lip = np.zeros((64, 64), dtype=np.uint8)
    lip[40:52, 20:44] = 255
    face = np.where(lip > 0, 0, cells).astype(np.uint8)
    masks = RegionMasks(filled((8, 32, 8, 40), size), 255 - face - lip, face, lip)
    states = torch.randn(frames, LAYERS + 1, CHANNELS, generator=random)
    speech = SpeechFeatures(states, Fraction(25), "wav2vec2-tiny", "resampled")
    portrait = torch.rand(*size, 3, generator=random)
    return Inputs(portrait, torch.randn(1, 512, generator=random), masks, speech)


def made(networks, inputs, settings=QUICK, codec=None, **options) -> torch.Tensor:
    clips = animate(networks, codec or PatchCodec(), inputs, settings, **options)
    return torch.cat([clip.frames for clip in clips])


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 9])
def test_one_frame_for_each_row_of_speech(networks, frames):
    video = made(networks, inputs_of(frames))
    assert video.shape == (frames, 64, 64, 3)
    assert torch.isfinite(video).all()


@given(st.integers(1, 500), st.integers(1, 30), st.integers(0, 15))
def test_planned_clips_add_up_and_always_reach_as_far_as_they_yield(frames, clip, overlap):
    overlap = min(overlap, clip // 2)
    counts = plan_clips(frames, clip, overlap)
    assert sum(counts) == frames
    assert all(count == clip - overlap for count in counts[:-1])
    assert 0 < counts[-1] <= clip


@pytest.mark.parametrize(("parts", "overlap"), [([3, 1, 4], 0), ([5, 2], 2), ([1, 1], 1)])
def test_calls_of_any_length_add_up_to_every_frame(networks, parts, overlap):
    inputs, settings, state = inputs_of(10), replace(QUICK, overlap=overlap), None
    for part in [*parts, 0]:
        done = state.frames if state else 0
        animation = animate(networks, PatchCodec(), inputs, settings, frames=part, state=state)
        clips = list(animation)
        assert sum(len(clip.frames) for clip in clips) == animation.frames == (part or 10 - done)
        state = clips[-1].state
        assert state.frames == done + animation.frames
    assert state.frames == 10


@pytest.mark.parametrize("options", [{}, {"overlap": 2, "deflicker": 0.5, "anchoring": 0.3}, {"shared_noise": True}])
def test_calls_that_continue_each_other_give_the_same_frames(networks, options):
    inputs, settings = inputs_of(11), replace(QUICK, **options)
    whole = made(networks, inputs, settings)
    first = list(animate(networks, PatchCodec(), inputs, settings, frames=4 if not settings.overlap else 2))
    rest = list(animate(networks, PatchCodec(), inputs, settings, state=first[-1].state))
    joined = torch.cat([clip.frames for clip in (*first, *rest)])
    assert joined.shape == whole.shape
    if not settings.overlap:
        torch.testing.assert_close(joined, whole, atol=1e-4, rtol=0)


def test_the_same_seed_gives_the_same_frames_and_another_does_not(networks):
    inputs = inputs_of(5)
    torch.testing.assert_close(made(networks, inputs), made(networks, inputs), atol=1e-4, rtol=0)
    assert not torch.allclose(made(networks, inputs), made(networks, inputs, replace(QUICK, seed=1)), atol=0.01)


@pytest.mark.parametrize("size", [(64, 96), (104, 72)])
def test_sizes_that_are_no_squares_work(networks, size):
    assert made(networks, inputs_of(5), replace(QUICK, size=size)).shape == (5, *size, 3)


class Counted(Resident):
    """Counts rows that pass the network."""

    def __init__(self, module) -> None:
        super().__init__(module)
        self.rows: list[int] = []
        module.register_forward_pre_hook(lambda _, args: self.rows.append(len(args[0])))
        if hasattr(module, "write_bank"):
            write = module.write_bank

            def counted(sample, *rest):
                self.rows.append(len(sample))
                return write(sample, *rest)

            module.write_bank = counted


@pytest.mark.parametrize(("cfg", "denoised", "rows"), [(3.5, 2, [2, 4, 4]), (1.0, 1, [1, 2, 2]), (0.0, 1, [1, 2, 2])])
def test_each_network_runs_no_more_than_it_must(cfg, denoised, rows):
    """The portrait is encoded once for all clips, the frames before the first not at all; no guidance needs one row."""
    counted = networks_of()
    counted = replace(
        counted,
        reference_unet=Counted(counted.reference_unet.module),
        denoising_unet=Counted(counted.denoising_unet.module),
        face_locator=Counted(counted.face_locator.module),
    )
    codec = PatchCodec()
    made(counted, inputs_of(12), replace(QUICK, cfg=cfg, steps=2), codec)
    assert counted.denoising_unet.rows == [denoised] * 2 * 3
    assert counted.reference_unet.rows == rows
    assert counted.face_locator.rows == [1]
    assert codec.encoded == [1, 2, 2]


def test_unmixed_rows_are_another_and_need_no_more(networks):
    inputs = inputs_of(5)
    assert not torch.allclose(
        made(networks, inputs), made(networks, inputs, replace(QUICK, mixed_rows=False)), atol=1e-3
    )


@pytest.mark.parametrize("mixed_rows", [True, False])
def test_a_step_without_guidance_gives_what_the_conditional_row_has_in_one_with_it(networks, mixed_rows):
    inputs, settings = inputs_of(8), replace(QUICK, mixed_rows=mixed_rows)
    state = next(animate(networks, PatchCodec(), inputs, settings)).state  # so that there are frames before the clip
    given: list[torch.Tensor] = []
    hook = networks.denoising_unet.module.register_forward_hook(lambda module, args, result: given.append(result))
    for guided in ((0.0, 1.0), (1.0, 1.0)):
        made(networks, inputs, replace(settings, guided=guided), state=state)
    hook.remove()
    both, alone = given
    assert (len(both), len(alone)) == (2, 1)
    assert not torch.allclose(both[0], both[1], atol=1e-2)
    torch.testing.assert_close(alone[0], both[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "rows", "deep"),
    [
        ({"deep_every": 1}, [2, 2, 2, 2], [2, 2, 2, 2]),
        ({"guided": (0.0, 0.5)}, [2, 2, 1, 1], [2, 2, 1, 1]),
        ({"guided": (0.5, 1.0), "deep_every": 4}, [1, 1, 2, 2], [1, 2]),
        ({"guided": (0.0, 0.5), "deep_every": 2}, [2, 2, 1, 1], [2, 1]),
        ({"guided": (0.0, 0.2), "deep_every": 3}, [2, 1, 1, 1], [2, 1]),
        ({"cfg": 1.0, "deep_every": 2}, [1, 1, 1, 1], [1, 1]),
    ],
)
def test_faster_settings_leave_rows_and_deep_layers_out(networks, changes, rows, deep):
    settings, found, found_deep = replace(QUICK, steps=4, **changes), [], []
    unet = networks.denoising_unet.module
    hooks = [
        unet.register_forward_pre_hook(lambda _, args: found.append(len(args[0]))),
        unet.mid_block.register_forward_pre_hook(lambda _, args: found_deep.append(len(args[0]) // QUICK.clip)),
    ]
    frames = made(networks, inputs_of(4), settings)
    for hook in hooks:
        hook.remove()
    assert (found, found_deep) == (rows, deep)
    plain = made(networks, inputs_of(4), replace(settings, guided=(0.0, 1.0), deep_every=1))
    if changes == {"deep_every": 1}:
        torch.testing.assert_close(frames, plain)
    else:
        assert not torch.allclose(frames, plain, atol=1e-3)


def test_compiling_can_be_switched_off_again(networks, monkeypatch):
    compiled: list[torch.nn.Module] = []

    def compile_(module: torch.nn.Module, **options: object) -> None:
        module._compiled_call_impl = lambda *args: compiled.append(module) or module._call_impl(*args)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    for on in (True, False):
        compiled.clear()
        made(networks, inputs_of(4), replace(QUICK, compiled=on))
        assert bool(compiled) == on


@pytest.mark.parametrize("changes", [{}, {"guided": (0.0, 0.5), "deep_every": 2}])
def test_rows_that_do_not_fit_together_pass_one_by_one(networks, monkeypatch, changes):
    inputs, settings = inputs_of(4), replace(QUICK, steps=2, **changes)
    whole = made(networks, inputs, settings)
    unet = networks.denoising_unet.module
    forward = unet.forward

    def short_of_memory(sample, *rest, **options):
        if len(sample) > 1:
            raise torch.OutOfMemoryError("no room")
        return forward(sample, *rest, **options)

    monkeypatch.setattr(unet, "forward", short_of_memory)
    assert torch.allclose(made(networks, inputs, settings), whole, atol=1e-4)

    def no_memory(*rest, **options):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(unet, "forward", no_memory)
    with pytest.raises(TalkingPortraitError, match="Memory does not suffice for even one sample"):
        made(networks, inputs, settings)
    monkeypatch.setattr(networks.reference_unet.module, "write_bank", no_memory)
    with pytest.raises(TalkingPortraitError, match="Memory does not suffice for even one picture"):
        made(networks, inputs, settings)


def test_half_precision_on_a_cpu_is_refused():
    half = build_net(net_state(SMALL), path="net.pth", config=SMALL, dtype=torch.float16)
    with pytest.raises(TalkingPortraitError, match="float16, which a CPU cannot compute well"):
        made(Networks.of(half, Resident), inputs_of(4))


def test_cancelling_stops_within_a_step(networks):
    steps = []

    class CancelledError(Exception):
        pass

    def progress(done, total, preview=None):
        steps.append((done, total))
        if done == 2:
            raise CancelledError

    with pytest.raises(CancelledError):
        made(networks, inputs_of(12), replace(QUICK, steps=3), progress=progress)
    assert steps[-1] == (2, 3 * 3 + 12)


@pytest.mark.parametrize("stopped_by", ["cancelling", "memory in a step", "memory at a picture"])
def test_a_stopped_run_leaves_no_tensors(networks, monkeypatch, stopped_by):
    inputs, settings = inputs_of(12), replace(QUICK, steps=3)
    made(networks, inputs, settings)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    before = tensors()
    where = networks.denoising_unet.module if stopped_by == "memory in a step" else networks.reference_unet.module
    forward, runs = where._run, []

    def run(*rest, **options):
        runs.append(forward(*rest, **options))
        if stopped_by != "cancelling" and len(runs) >= 2:
            raise torch.OutOfMemoryError("no room")
        return runs[-1]

    def progress(done, total, preview=None):
        if done == 7 and stopped_by == "cancelling":
            raise InterruptedError

    monkeypatch.setattr(where, "_run", run)
    with pytest.raises((InterruptedError, TalkingPortraitError)):
        made(networks, inputs, settings, progress=progress)
    runs.clear()
    assert tensors() == before
    monkeypatch.undo()
    animation = animate(networks, PatchCodec(), inputs, settings)
    next(animation)
    del animation
    assert tensors() == before, "nor behind one whose other frames are not taken"


def test_progress_counts_every_step_and_frame(networks):
    reports = []
    made(
        networks,
        inputs_of(6),
        replace(QUICK, steps=3),
        progress=lambda done, total, preview=None: reports.append((done, total)),
    )
    assert {total for _, total in reports} == {2 * 3 + 6}
    assert all(before <= after for (before, _), (after, _) in pairwise(reports))
    assert reports[-1][0] == 12


def test_numbers_that_overflow_are_reported():
    networks = networks_of()
    bias = networks.denoising_unet.module.conv_out.bias
    bias.data = torch.full_like(bias, torch.nan)  # a tensor of its own: the tiny weights are shared by all tests
    with pytest.raises(TalkingPortraitError, match=r"denoising UNet gave values that are not numbers \(NaN\)"):
        made(networks, inputs_of(4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": 31}, "clip length is 31 frames, but the motion modules take 1 to 30"),
        ({"clip": 0}, "clip length is 0 frames"),
        ({"schedule": "cosine"}, 'schedule is "cosine", but linear or scaled_linear'),
        ({"overlap": 3}, "to overlap by 3, but 0 to 2"),
        ({"size": (60, 64)}, "64 x 60 pixels"),
        ({"steps": 0}, "0 steps"),
        ({"seed": -1}, "seed is -1"),
        ({"deflicker": 1.5}, "calming is 1.5"),
        ({"weights": (1.0, float("nan"), 1.0)}, "no finite number"),
        ({"deep_every": 0}, "deep_every is 0, but 1 or more"),
        ({"guided": (0.8, 0.2)}, "from 0.8 to 0.2 of the steps is requested"),
        ({"guided": (0.0, 50.0)}, "from 0.0 to 50.0 of the steps"),
    ],
)
def test_impossible_settings_are_refused(networks, changes, message):
    with pytest.raises(TalkingPortraitError, match=message) as caught:
        animate(networks, PatchCodec(), inputs_of(4), replace(QUICK, **changes))
    assert "\n" not in str(caught.value)


FACE = np.random.default_rng(0).normal(size=(478, 3))


def changed(**changes):
    return lambda inputs: replace(inputs, **changes)


def with_states(states, timing="resampled"):
    return lambda inputs: replace(inputs, speech=SpeechFeatures(states, Fraction(25), "other", timing))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(embedding=torch.zeros(1, 256)), r"embedding has the shape \(1, 256\), but \(1, 512\)"),
        (changed(portrait=torch.rand(50, 40, 3)), "for a picture of 40 x 48 pixels, but the portrait has 40 x 50"),
        (changed(portrait=torch.rand(48, 40)), r"portrait is a tensor of the shape \(48, 40\)"),
        (with_states(torch.zeros(4, 1, CHANNELS)), "have 1 layer of 64 numbers in 4 frames, but this"),
        (with_states(torch.zeros(4, LAYERS + 1, 48)), "3 layers of 48 numbers"),
        (with_states(torch.zeros(0, LAYERS + 1, CHANNELS)), "in 0 frames"),
        (with_states(torch.zeros(4, LAYERS + 1, CHANNELS), "stock"), "in the stock timing"),
        (changed(geometry=normalised(FACE, np.zeros((4, 478, 3)))), "no mesh encoder"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(networks, change, message):
    with pytest.raises(TalkingPortraitError, match=message) as caught:
        animate(networks, PatchCodec(), change(inputs_of(4)), QUICK)
    assert "\n" not in str(caught.value)


def test_states_of_other_videos_are_refused(networks):
    (clip,) = animate(networks, PatchCodec(), inputs_of(4), QUICK)
    with pytest.raises(TalkingPortraitError, match="nothing is left to do"):
        animate(networks, PatchCodec(), inputs_of(4), QUICK, state=clip.state)
    with pytest.raises(TalkingPortraitError, match="was 64 x 64 pixels"):
        animate(networks, PatchCodec(), inputs_of(9), replace(QUICK, size=(72, 64)), state=clip.state)


def test_geometry_moves_trained_networks_only_and_holds_its_ends():
    config = SMALL.with_geometry(4)
    trained, inputs = networks_of(config), inputs_of(6)
    random = np.random.default_rng(1)
    rest = random.normal(size=(478, 3))
    geometry = normalised(rest, rest + 0.3 * random.normal(size=(3, 478, 3)))
    with_mesh = replace(inputs, geometry=geometry)
    plain = made(trained, inputs)
    assert not torch.allclose(made(trained, with_mesh), plain, atol=1e-3)
    torch.testing.assert_close(made(trained, with_mesh, replace(QUICK, geometry=0.0)), plain, atol=1e-4, rtol=0)
    assert torch.equal(geometry.frames(2, 5)[:, 0], geometry.frames(2, 5)[:, 2])
    assert geometry.portrait.mean(1).abs().max() < 1e-6


def test_silence_that_fills_the_last_clip_is_sampled_and_gives_no_frames(networks):
    filled = inputs_of(8)
    filled = replace(filled, speech=replace(filled.speech, padding=2))
    run = animate(networks, PatchCodec(), filled, replace(QUICK, clip=4))
    clips = list(run)
    assert run.frames == 6
    assert [len(clip.frames) for clip in clips] == [4, 2]
    whole = torch.cat(
        [
            clip.frames
            for clip in animate(
                networks,
                PatchCodec(),
                replace(filled, speech=replace(filled.speech, padding=0)),
                replace(QUICK, clip=4),
            )
        ]
    )
    torch.testing.assert_close(torch.cat([clip.frames for clip in clips]), whole[:6], atol=1e-4, rtol=0)
    with pytest.raises(TalkingPortraitError, match="6 of the speech's 6 frames are made already"):
        animate(networks, PatchCodec(), filled, replace(QUICK, clip=4), state=clips[-1].state)


def test_the_portraits_own_mesh_is_the_reference_of_a_driving_video():
    random = np.random.default_rng(2)
    portrait = random.normal(size=(478, 3)) * 50 + 200
    open_mouth = portrait + random.normal(size=(478, 3)) * 3
    driving = np.stack([open_mouth, portrait, open_mouth]) * 3.5 - 40  # of a larger picture, and somewhere else in it
    track = FaceTrack(driving, np.ones(3, bool), (1080, 1920), np.tile(np.eye(4), (3, 1, 1)))
    found, still = geometry_of_track(track, portrait), geometry_of_track(track)
    expected = normalised(portrait[:468], portrait[None, :468])
    torch.testing.assert_close(found.portrait, expected.portrait)
    assert not torch.allclose(found.meshes[0, 0], found.portrait[0], atol=1e-3), "the first frame is no face at rest"
    torch.testing.assert_close(still.portrait[0], still.meshes[0, 0])
    alone = geometry_of_track(replace(track, points=portrait[None]), portrait)
    torch.testing.assert_close(alone.meshes[0], alone.portrait)
    with pytest.raises(TalkingPortraitError, match="face geometry has points"):
        geometry_of_track(track, portrait[:100])


# ---- audio context


def test_windows_reach_two_frames_either_way_and_stop_at_the_ends():
    states = torch.arange(6.0)[:, None, None]
    windows = audio_windows(states, 0, 8)[0, :, :, 0, 0]
    assert windows[0].tolist() == [0, 0, 0, 1, 2]
    assert windows[3].tolist() == [1, 2, 3, 4, 5]
    assert windows[7].tolist() == [5, 5, 5, 5, 5]


def test_the_state_before_the_first_layer_is_left_out():
    states = torch.randn(2, 13, 768)
    assert torch.equal(audio_layers(states, 5 * 12 * 768), states[:, 1:])
    assert torch.equal(audio_layers(states[:, 1:], 5 * 12 * 768), states[:, 1:])


# ---- flicker and drift


def test_held_frames_fade_out_evenly():
    mixed = faded(torch.zeros(1, 4, 3, 1, 1), torch.ones(1, 4, 5, 1, 1))
    assert torch.allclose(mixed[0, 0, :, 0, 0], torch.tensor([0.25, 0.5, 0.75, 1, 1]))


def test_smoothing_leaves_the_lips_alone_and_steady_motion_too():
    mask = torch.zeros(3, 1, 2, 2)
    mask[2, 0, 0, 0] = 1
    noise = torch.randn(1, 4, 6, 2, 2)
    smoothed = smooth_over_time(noise, None, mask, 1.0)
    assert torch.equal(smoothed[..., 0, 0], noise[..., 0, 0])
    assert smoothed[..., 1, 1].var() < 0.8 * noise[..., 1, 1].var()
    steady = torch.arange(6.0)[None, None, :, None, None].expand(1, 4, 6, 2, 2)
    assert torch.allclose(smooth_over_time(steady, steady[:, :, :1] - 1, mask, 1.0)[:, :, :-1], steady[:, :, :-1])


def test_anchoring_matches_mean_and_standard_deviation():
    portrait, frames = 0.3 + 0.4 * torch.rand(8, 8, 3), 0.6 + 0.2 * torch.rand(4, 8, 8, 3)
    matched = match_colours(frames, portrait, 1.0)
    assert torch.allclose(matched.mean((0, 1, 2)), portrait.mean((0, 1)), atol=0.01)
    assert torch.allclose(matched.std((0, 1, 2)), portrait.std((0, 1)), atol=0.01)
    assert torch.equal(match_colours(frames, portrait, 0.0), frames)


def test_the_metric_measures_jitter_jumps_and_drift():
    ramp = torch.linspace(0, 0.4, 12)[:, None, None, None].expand(12, 8, 8, 3)
    steady = flicker(ramp.split(4))
    assert steady.jitter < 1e-3
    assert steady.borders == pytest.approx(1, abs=1e-3)
    jittery = flicker((ramp + 0.1 * torch.rand(12, 8, 8, 3)).split(4))
    assert jittery.jitter > 1
    jumps = torch.cat([ramp[:4], ramp[4:8] + 0.3, ramp[8:]])
    assert flicker(jumps.split(4)).borders > 3
    assert steady.drift == pytest.approx(255 * 0.4 * 8 / 11, rel=0.01)
    wide = torch.rand(2, 8, 8, 3)
    assert flicker([wide, wide / 2]).spread_drift > 30


@pytest.mark.parametrize(
    ("options", "figure", "share"),
    [({"shared_noise": True}, "borders", 0.9), ({"overlap": 2}, "borders", 0.97), ({"deflicker": 1.0}, "jitter", 0.6)],
)
def test_each_option_lowers_the_flicker_that_it_is_for(networks, options, figure, share):
    """Over 15 clips, as a border more or less decides nothing then."""
    inputs = inputs_of(60)

    def measured(settings):
        return getattr(flicker(clip.frames for clip in animate(networks, PatchCodec(), inputs, settings)), figure)

    assert measured(replace(QUICK, **options)) < share * measured(QUICK)


@pytest.mark.parametrize(("anchoring", "most"), [(0.0, 8.0), (0.5, 3.0)])
def test_colours_do_not_drift_over_sixty_clips(networks, anchoring, most):
    """Mean and deviation of the last clips' colours equal the first's, within a few grey levels; and in between."""
    settings = replace(QUICK, clip=2, anchoring=anchoring)
    clips = [clip.frames for clip in animate(networks, PatchCodec(), inputs_of(120), settings)]
    assert len(clips) == 60
    for figure in (torch.mean, torch.std):
        course = 255 * torch.stack([figure(clip.flatten(0, 2), dim=0) for clip in clips])
        tens = course.unflatten(0, (6, 10)).mean(dim=1)
        assert (tens - tens[0]).abs().max() < most
