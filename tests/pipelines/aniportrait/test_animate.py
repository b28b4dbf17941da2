"""AniPortrait's whole diffusion on small networks: frames, memory, continuation, and error texts."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from talking_portrait.pipelines.aniportrait.animate import AnimationState, Networks, Settings, animate
from talking_portrait.pipelines.aniportrait.denoising import Denoiser, denoise
from talking_portrait.pipelines.aniportrait.portrait import prepare_portrait
from talking_portrait.pipelines.aniportrait.pose import PoseGuidance, WindowFeatures
from talking_portrait.pipelines.diffusion.context_windows import uniform_windows
from talking_portrait.pipelines.diffusion.samplers import published_schedule, sample_ddim
from talking_portrait.pipelines.diffusion.segments import frame_noise
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.memory import Resident

from .tiny_aniportrait import SIZE, Codec, Drawings, Encoder, Guider, networks, portrait

BASE = Settings(size=(SIZE, SIZE), steps=2, window=4, overlap=1, segment_windows=2, decode_batch=3)
SEAMLESS = replace(BASE, mode="seamless")


def run(drawings=None, settings: Settings = BASE, *, nets: Networks | None = None, codec=None, **options):
    """(frames (F, H, W, 3), the animation)"""
    drawings = Drawings(10) if drawings is None else drawings
    animation = animate(nets or networks(), codec or Codec(), Encoder(), portrait(), drawings, settings, **options)
    return torch.cat(list(animation)), animation


def test_the_reference_mode_is_the_published_loop() -> None:
    nets, drawings = networks(), Drawings(10)
    frames, _ = run(drawings, nets=nets)
    prepared = prepare_portrait(nets, Codec(), Encoder(), portrait(), BASE.size)
    features = WindowFeatures(PoseGuidance(nets.pose_guider, drawings, BASE.size), 2**30)
    denoiser = Denoiser(nets.denoising_unet, prepared.bank, prepared.token, features)
    start = torch.randn(1, 4, 10, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = denoise(denoiser, start, lambda step: uniform_windows(10, 4, 1), 2)
    torch.testing.assert_close(frames, Codec().decode(latents[0].transpose(0, 1)), atol=5e-4, rtol=0)


@pytest.mark.parametrize("mode", ["reference", "seamless"])
def test_frames_have_the_portraits_size_and_differ_by_seed_drawing_and_portrait(mode: str) -> None:
    chosen = replace(BASE, mode=mode)
    frames, animation = run(settings=chosen)
    assert frames.shape == (10, SIZE, SIZE, 3)
    assert frames.dtype == torch.float32
    assert animation.frames == 10
    torch.testing.assert_close(run(settings=chosen)[0], frames, atol=5e-4, rtol=0)
    assert not torch.allclose(run(settings=replace(chosen, seed=1))[0], frames, atol=0.01)
    assert not torch.allclose(run(Drawings(10, start=5), chosen)[0], frames, atol=1e-3)
    other = torch.cat(list(animate(networks(), Codec(), Encoder(), portrait() ** 3, Drawings(10), chosen)))
    assert not torch.allclose(other, frames, atol=1e-3)


def test_frames_may_be_taller_than_wide_and_no_multiple_of_the_deepest_layer() -> None:
    frames, _ = run(torch.zeros(3, 72, 104, 3), replace(SEAMLESS, size=(72, 104)))
    assert frames.shape == (3, 72, 104, 3)


@settings(max_examples=10)
@given(
    frames=st.integers(1, 16),
    window=st.integers(2, 6),
    overlap=st.integers(0, 2),
    segment_windows=st.integers(1, 3),
    batch=st.integers(1, 3),
    mode=st.sampled_from(["reference", "seamless"]),
    continued=st.booleans(),
)
def test_every_frame_is_yielded_once_and_in_order(
    frames, window, overlap, segment_windows, batch, mode, continued
) -> None:
    """A network that predicts zeros leaves each frame its own noise, which identifies the frame."""
    codec = Codec()
    chosen = replace(
        BASE,
        cfg=1.0,
        window=window,
        overlap=min(overlap, window - 1),
        segment_windows=segment_windows,
        window_batch=batch,
        mode=mode,
        continued=continued,
    )
    found, animation = run(Drawings(frames), chosen, nets=SILENT, codec=codec)
    noise = frame_noise((4, 8, 8), 0, range(frames))
    if mode == "reference":
        noise = torch.randn(noise.shape, generator=torch.Generator().manual_seed(0))
    left = sample_ddim(lambda sample, time: torch.zeros_like(sample), noise, published_schedule(), 2)
    torch.testing.assert_close(found, Codec().decode(left[0].transpose(0, 1)))
    assert max(codec.decoded) <= chosen.decode_batch
    assert animation.state is not None
    assert animation.state.frames == frames


SILENT = networks()
SILENT.denoising_unet.module.conv_out.weight.zero_()
SILENT.denoising_unet.module.conv_out.bias.zero_()


def test_a_video_in_one_segment_equals_its_part_of_a_longer_one() -> None:
    whole, _ = run(Drawings(9), replace(SEAMLESS, segment_windows=8))
    torch.testing.assert_close(run(Drawings(9), replace(SEAMLESS, segment_windows=30))[0], whole, atol=5e-4, rtol=0)


def test_windows_together_give_what_windows_alone_give() -> None:
    for chosen in (BASE, SEAMLESS):
        alone, _ = run(settings=chosen)
        torch.testing.assert_close(run(settings=replace(chosen, window_batch=3))[0], alone, atol=5e-4, rtol=0)


def test_drawings_are_requested_as_they_are_needed() -> None:
    drawings = Drawings(60)
    animation = animate(networks(), Codec(), Encoder(), portrait(), drawings, SEAMLESS)
    next(animation)
    reference_frames = {round(i * 59 / 3) for i in range(4)}
    assert max(frame for frame in drawings.requested if frame not in reference_frames) < 20
    animation.close()


def test_a_state_continues_a_video_with_the_frames_of_a_longer_one() -> None:
    chosen = replace(SEAMLESS, continued=True)
    drawings = Drawings(20)
    nets = networks()
    first, animation = run([drawings[i] for i in range(12)], chosen, nets=nets)
    state = animation.state
    assert isinstance(state, AnimationState)
    assert state.latents.shape == (1, 4, 4, 8, 8)
    assert state.latents.device.type == "cpu"
    assert state.drawings.dtype == torch.uint8
    second, animation = run([drawings[i] for i in range(12, 20)], chosen, nets=nets, state=state)
    assert len(second) == 8
    assert animation.state.frames == 20
    alone, _ = run([drawings[i] for i in range(12, 20)], chosen, nets=nets)
    assert not torch.allclose(second, alone, atol=1e-3)


def test_progress_counts_windows_and_frames_and_shows_pictures() -> None:
    for chosen in (BASE, replace(SEAMLESS, window_batch=3)):
        reports: list[tuple[int, int, tuple[int, ...] | None]] = []

        def watch(done: int, total: int, preview: torch.Tensor | None = None, reports=reports) -> None:
            reports.append((done, total, None if preview is None else tuple(preview.shape)))

        run(Drawings(12), chosen, progress=watch)
        assert [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)
        assert {total for _, total, _ in reports} == {reports[-1][0]}
        assert {shape for _, _, shape in reports} == {None, (8, 8, 3), (SIZE, SIZE, 3)}


# --- faster, with other numbers ---


@pytest.mark.parametrize(
    "change",
    [
        {"scheduler": "dpmpp_2m"},
        {"scheduler": "unipc"},
        {"scheduler": "lcm"},
        {"guided": (0.0, 0.5)},
        {"deep_every": 2},
    ],
)
def test_faster_settings_change_the_frames_reproducibly(change: dict) -> None:
    plain = replace(SEAMLESS if "deep_every" in change else BASE, steps=3)
    frames, _ = run(Drawings(5), replace(plain, **change))
    torch.testing.assert_close(run(Drawings(5), replace(plain, **change))[0], frames, atol=5e-4, rtol=0)
    assert not torch.allclose(frames, run(Drawings(5), plain)[0], atol=1e-3)


def test_noise_that_lcm_adds_belongs_to_frames() -> None:
    chosen = replace(SEAMLESS, steps=3, scheduler="lcm")
    longer, _ = run(Drawings(9), replace(chosen, segment_windows=9))
    torch.testing.assert_close(run(Drawings(9), replace(chosen, segment_windows=20))[0], longer, atol=5e-4, rtol=0)


# --- devices and memory ---


class Crowded(Resident):
    """A network on a device that holds one window at a time, or none."""

    fits = 1

    def __init__(self, module: torch.nn.Module, device: str = "cpu") -> None:
        super().__init__(module, device)
        self.refused = 0
        if not isinstance(module, Guider) and module.config.output:
            module.register_forward_pre_hook(self._look)

    def _look(self, module, arguments) -> None:
        if len(arguments[0]) > 2 * self.fits:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_fewer_windows_are_tried_when_memory_runs_out() -> None:
    nets = networks(Crowded)
    frames, _ = run(settings=replace(BASE, window_batch=4), nets=nets)
    assert nets.denoising_unet.refused == 2  # four, two, then one for good
    torch.testing.assert_close(frames, run()[0], atol=5e-4, rtol=0)


def test_not_even_one_window_fits() -> None:
    class Full(Crowded):
        fits = 0

    with pytest.raises(TalkingPortraitError, match="even one window at a time"):
        run(nets=networks(Full))


def test_the_decoder_too_takes_fewer_frames_when_memory_runs_out() -> None:
    class Narrow(Codec):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            if len(latents) > 1:
                raise torch.OutOfMemoryError("out of memory")
            return super().decode(latents)

    frames, _ = run(codec=Narrow())
    torch.testing.assert_close(frames, run()[0], atol=5e-4, rtol=0)


@pytest.mark.parametrize("mode", ["reference", "seamless"])
def test_cancelling_in_a_step_leaves_nothing_behind(mode: str) -> None:
    nets = networks()
    run(settings=replace(BASE, mode=mode), nets=nets)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    before = tensors()

    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(settings=replace(BASE, mode=mode), nets=nets, progress=cancel)
    assert tensors() == before
    animation = animate(nets, Codec(), Encoder(), portrait(), Drawings(10), replace(BASE, mode=mode))
    next(animation)
    animation.close()
    assert next(animation, None) is None
    del animation
    assert tensors() == before


@pytest.mark.slow
def test_a_hundred_seconds_take_no_more_memory_than_ten() -> None:
    code = """
import resource, sys, json
sys.path.insert(0, sys.argv[2])
from tiny_aniportrait import *
from talking_portrait.pipelines.aniportrait.animate import Settings, animate
torch.set_num_threads(1)
frames = 0
settings = Settings(size=(SIZE, SIZE), steps=3, mode="seamless", window_batch=2)
for batch in animate(networks(), Codec(), Encoder(), portrait(), Drawings(int(sys.argv[1])), settings):
    frames += len(batch)
print(json.dumps([frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
    peaks = []
    for frames in (300, 3000):
        command = [sys.executable, "-c", code, str(frames), str(Path(__file__).parent)]
        left, peak = json.loads(subprocess.check_output(command))
        assert left == frames
        peaks.append(peak)
    assert peaks[1] <= 1.05 * peaks[0], peaks


# --- what is wrong, in words ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (60, 64)}, "64 x 60 pixels are requested"),
        ({"size": (32, 64)}, "sides of 64 and more"),
        ({"window": 33}, "window is 33 frames, but the motion modules take 1 to 32"),
        ({"window": 0}, "window is 0 frames"),
        ({"overlap": 4}, "overlap by 4, but 0 to 3"),
        ({"steps": 0}, "in 0 steps"),
        ({"seed": -1}, "seed is -1"),
        ({"window_batch": 0}, "window_batch is 0"),
        ({"mode": "other"}, 'mode is "other"'),
        ({"scheduler": "euler"}, 'scheduler "euler"'),
        ({"deep_every": 2}, "choose the seamless mode"),
        ({"guided": (0.8, 0.2)}, "a beginning before its end"),
        ({"cfg": float("nan")}, "Guidance of nan"),
    ],
)
def test_impossible_settings_are_named(change: dict, message: str) -> None:
    with pytest.raises(TalkingPortraitError, match=message):
        animate(networks(), Codec(), Encoder(), portrait(), Drawings(5), replace(BASE, **change))


@pytest.mark.parametrize(
    ("drawings", "message"),
    [
        ([], "no drawn faces"),
        (torch.zeros(2, SIZE, SIZE), "Drawn face 0 is a tensor of the shape"),
        (torch.zeros(2, SIZE, 2 * SIZE, 3), "another shape than the frames'"),
        ([torch.zeros(SIZE, SIZE, 3)] * 5 + [torch.zeros(SIZE, 90, 3)], "Drawn face 5 has 90 x 64 pixels"),
    ],
)
def test_unfitting_drawings_are_named(drawings, message: str) -> None:
    with pytest.raises(TalkingPortraitError, match=message):
        list(animate(networks(), Codec(), Encoder(), portrait(), drawings, BASE))


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(TalkingPortraitError, match="float16, which a CPU cannot compute well"):
        run(nets=networks(dtype=torch.float16))


def test_bfloat16_runs_on_a_cpu() -> None:
    frames, _ = run(nets=networks(dtype=torch.bfloat16))
    assert frames.isfinite().all()


def test_weights_that_are_no_numbers_are_named() -> None:
    nets = networks()
    nets.denoising_unet.module.conv_out.bias.fill_(float("nan"))
    with pytest.raises(TalkingPortraitError, match="not numbers"):
        run(nets=nets)
    nets = networks()
    nets.reference_unet.module.conv_in.bias.fill_(float("nan"))
    with pytest.raises(TalkingPortraitError, match="The reference UNet gave values that are not numbers"):
        run(nets=nets)


def test_a_state_needs_the_seamless_mode_and_its_own_size() -> None:
    _, animation = run(settings=SEAMLESS)
    with pytest.raises(TalkingPortraitError, match="closed loop, which continues nothing"):
        run(state=animation.state)
    with pytest.raises(TalkingPortraitError, match="previous clip was 64 x 64 pixels, but 72 x 72"):
        run(Drawings(5, 72), replace(SEAMLESS, size=(72, 72)), state=animation.state)


def test_compiling_can_be_switched_off_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's network stays from run to run, so the switch of one run must not reach the next."""
    runs: list[torch.nn.Module] = []

    def compile_(module: torch.nn.Module, **options: object) -> None:
        def call(*args: object, **named: object) -> object:
            runs.append(module)
            return module._call_impl(*args, **named)

        module._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    nets = networks()
    for compiled in (False, True, False, True):
        runs.clear()
        run(Drawings(3), replace(BASE, compiled=compiled), nets=nets)
        assert bool(runs) == compiled
