"""AniPortrait's denoising loop on small networks of the real structure, and its pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from talking_portrait.models.aniportrait.pose_guider import PoseGuider
from talking_portrait.models.diffusion.unet import UNet, UNetConfig
from talking_portrait.pipelines.aniportrait.denoising import Denoiser, FinishedFrames, denoise
from talking_portrait.pipelines.aniportrait.pictures import clip_pixels, pose_pixels, reference_pixels
from talking_portrait.pipelines.aniportrait.pose import FrameFeatures, PoseGuidance, WindowFeatures
from talking_portrait.pipelines.diffusion.context_windows import open_windows, triangle_weights, uniform_windows
from talking_portrait.pipelines.diffusion.samplers import published_schedule, sample_ddim
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.memory import Resident

CONFIG = UNetConfig(channels=(32, 64), attention=(True, False), layers=1, context=24, motion_frames=8)
FRAMES, SIDE = 7, 8
WINDOWS = uniform_windows(FRAMES, 4, 2)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Guider(PoseGuider):
    """A pose guider of the real one's kind: features that vary with the drawings of the whole window."""

    calls = 0

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, drawings: torch.Tensor, *, batch_statistics: bool, statistics=None) -> list[torch.Tensor]:
        self.calls += 1
        given = statistics[0][0] if statistics else drawings.mean()
        level = drawings - given if batch_statistics else drawings
        frames = level.mean(dim=(1, 3, 4))[:, None, :, None, None]
        sizes = ((32, SIDE), (32, SIDE // 2), (64, SIDE // 2))
        return [frames.expand(-1, width, -1, side, side) for width, side in sizes]

    def statistics(self, drawings: torch.Tensor):
        return ((drawings.mean(), drawings.var()),)


def guidance(
    guider: Guider | None = None, *, batch_statistics: bool = True, frames: int = FRAMES, dtype=torch.float32
) -> PoseGuidance:
    drawings = noise(frames, 64, 64, 3).sigmoid() / 64
    return PoseGuidance(
        Resident(guider or Guider()),
        drawings,
        (64, 64),
        batch_statistics=batch_statistics,
        published_range=batch_statistics,
        dtype=dtype,
    )


def networks() -> tuple[UNet, UNet]:
    torch.manual_seed(0)
    return UNet(replace(CONFIG, motion_frames=0, output=False)).eval(), UNet(CONFIG).eval()


def denoiser(*, seed: int = 0, **options) -> Denoiser:
    reference, unet = networks()
    token = noise(1, 1, CONFIG.context)
    bank = reference.write_bank(noise(1, 4, 1, SIDE, SIDE, seed=seed), token)
    return Denoiser(Resident(unet), bank, token, WindowFeatures(guidance(), 2**30), **options)


def test_windows_together_give_what_windows_alone_give() -> None:
    assert len(WINDOWS) == 4
    latents = noise(1, 4, FRAMES, SIDE, SIDE)
    alone = denoiser().velocity(latents, 500, WINDOWS)
    for batch in (2, 3, 4, 9):
        together = denoiser(batch=batch).velocity(latents, 500, WINDOWS)
        torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-3)


def test_guidance_scales_the_difference_that_the_portrait_makes() -> None:
    latents = noise(1, 4, FRAMES, SIDE, SIDE)
    conditional = denoiser(cfg=1.0).velocity(latents, 500, WINDOWS)
    double, triple = (denoiser(cfg=cfg).velocity(latents, 500, WINDOWS) for cfg in (2.0, 3.0))
    torch.testing.assert_close(triple - double, double - conditional, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(double, conditional, atol=1e-3)
    assert not torch.allclose(denoiser(cfg=1.0, seed=7).velocity(latents, 500, WINDOWS), conditional, atol=1e-3)


def test_overlaps_are_averaged_unless_the_published_sum_is_chosen() -> None:
    latents = noise(1, 4, FRAMES, SIDE, SIDE)
    times = torch.tensor([sum(frame in window for window in WINDOWS) for frame in range(FRAMES)])
    assert times.max() > times.min()
    mean, total = (denoiser(cfg=1.0, sum_overlaps=add).velocity(latents, 500, WINDOWS) for add in (False, True))
    torch.testing.assert_close(mean * times[:, None, None], total, atol=2e-4, rtol=1e-3)
    guided, same = (denoiser(sum_overlaps=add).velocity(latents, 500, WINDOWS) for add in (False, True))
    torch.testing.assert_close(guided, same, atol=2e-4, rtol=1e-3)


def test_sampling_reports_each_run_of_the_network_and_each_step() -> None:
    runs, steps = [], []
    start, model = noise(1, 4, FRAMES, SIDE, SIDE), denoiser(batch=3)
    found = denoise(
        model,
        start,
        lambda step: WINDOWS,
        2,
        callback=lambda done, sample, clean: steps.append(done),
        progress=lambda done, total, preview=None: runs.append((done, total, preview is not None)),
    )
    assert runs == [(3, 8, False), (4, 8, False), (4, 8, True), (7, 8, False), (8, 8, False), (8, 8, True)]
    assert steps == [1, 2]
    expected = sample_ddim(lambda x, time: model.velocity(x, time, WINDOWS), start, published_schedule(), 2)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    assert found.isfinite().all()


def test_cancelling_stops_after_the_current_run() -> None:
    runs = []

    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        runs.append(done)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        denoise(denoiser(), noise(1, 4, FRAMES, SIDE, SIDE), lambda step: WINDOWS, 2, progress=cancel)
    assert runs == [1]


@pytest.mark.parametrize("frames", [FRAMES - 1, FRAMES + 1])
def test_windows_for_another_length_are_refused(frames: int) -> None:
    with pytest.raises(TalkingPortraitError, match=f"the {frames} frames"):
        denoise(denoiser(), noise(1, 4, frames, SIDE, SIDE), lambda step: WINDOWS, 2)


def test_the_sampler_stays_exact_while_the_network_computes_in_half() -> None:
    reference, unet = (network.bfloat16() for network in networks())
    token = noise(1, 1, CONFIG.context).bfloat16()
    bank = reference.write_bank(noise(1, 4, 1, SIDE, SIDE).bfloat16(), token)
    features = WindowFeatures(guidance(dtype=torch.bfloat16), 2**30)
    model = Denoiser(Resident(unet), bank, token, features)
    found = denoise(model, noise(1, 4, FRAMES, SIDE, SIDE), lambda step: WINDOWS, 2)
    assert found.dtype == torch.float32
    exact = denoise(denoiser(), noise(1, 4, FRAMES, SIDE, SIDE), lambda step: WINDOWS, 2)
    assert float((found - exact).std() / exact.std()) < 0.1


def test_features_of_windows_are_cached_within_their_budget_and_else_recomputed() -> None:
    size = sum(level.nbytes for level in WindowFeatures(guidance(), 0)(WINDOWS[0]))
    guider = Guider()
    features = WindowFeatures(guidance(guider), 2 * size)
    for _ in range(2):
        for window in WINDOWS:
            for found, level in zip(features(window), guidance().features(window), strict=True):
                torch.testing.assert_close(found, level, atol=2e-4, rtol=1e-3)
    assert guider.calls == 4 + 2


def test_features_of_frames_do_not_depend_on_the_window_and_are_made_once() -> None:
    guider = Guider()
    source = guidance(guider, frames=20)
    statistics = source.statistics(range(20))
    one = [FrameFeatures(source, statistics, range(-3, 17), batch=1)((frame,)) for frame in range(17)]
    features, guider.calls = FrameFeatures(source, statistics, range(-3, 17), batch=4), 0
    for start in (0, 1, 5, 12):
        for found, level in zip(
            features(range(start, start + 5)), zip(*one[start : start + 5], strict=True), strict=True
        ):
            torch.testing.assert_close(found, torch.cat(level, dim=2), atol=1e-4, rtol=1e-4)
    features(range(3, 8))
    assert guider.calls == 5


def test_features_can_restart_at_a_frame_without_earlier_ones() -> None:
    guider = Guider()
    source = guidance(guider, frames=20)
    statistics = source.statistics(range(20))
    features = FrameFeatures(source, statistics, range(20), batch=4)
    whole = features(range(20))
    features.begin(7)
    for found, level in zip(features(range(5)), whole, strict=True):
        torch.testing.assert_close(found, level[:, :, 7:12], atol=2e-4, rtol=1e-3)
    made = guider.calls
    features.begin(12)
    features(range(4))
    assert guider.calls == made
    features.begin(0)
    features(range(4))
    assert guider.calls == made + 1


def test_finished_frames_stay_and_enter_with_their_own_noise() -> None:
    model, inputs = denoiser(weights=triangle_weights), []
    velocity = model.velocity

    def recorded(latents: torch.Tensor, timestep: int, windows, **options) -> torch.Tensor:
        inputs.append((timestep, latents[:, :, :2].clone()))
        return velocity(latents, timestep, windows, **options)

    model.velocity = recorded  # type: ignore[method-assign]
    start, latents = noise(1, 4, FRAMES, SIDE, SIDE), noise(1, 4, 2, SIDE, SIDE, seed=3)
    finished = FinishedFrames(latents, start[:, :, :2])
    found = denoise(model, start, lambda step: open_windows(FRAMES, 4, 2, step=step, finished=2), 3, finished=finished)
    assert torch.equal(found[:, :, :2], latents)
    assert found.isfinite().all()
    for timestep, entered in inputs:
        power = published_schedule().alphas_cumprod[timestep]
        torch.testing.assert_close(entered, power.sqrt() * latents + (1 - power).sqrt() * start[:, :, :2])


def test_values_that_are_no_numbers_are_named_with_their_step() -> None:
    model = denoiser()
    with pytest.raises(TalkingPortraitError, match=r"not numbers \(NaN\) in step 1 of 2"):
        denoise(model, noise(1, 4, FRAMES, SIDE, SIDE) * float("nan"), lambda step: WINDOWS, 2)


def test_guidance_can_be_left_out_of_some_steps() -> None:
    latents = noise(1, 4, FRAMES, SIDE, SIDE)
    model = denoiser(guided=lambda step: step == 1)
    conditional, guided = denoiser(cfg=1.0).velocity(latents, 500, WINDOWS), denoiser().velocity(latents, 500, WINDOWS)
    for step in (0, 2):
        torch.testing.assert_close(model.velocity(latents, 500, WINDOWS, step=step), conditional, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(model.velocity(latents, 500, WINDOWS, step=1), guided, atol=2e-4, rtol=1e-3)


def test_deep_layers_are_cached_until_their_next_step() -> None:
    first, second = noise(1, 4, FRAMES, SIDE, SIDE), noise(1, 4, FRAMES, SIDE, SIDE, seed=1)
    model = denoiser(deep_every=2, batch=2)
    deep = model._managed.module.mid_block.register_forward_hook(lambda *call: runs.append(1))
    runs: list[int] = []
    exact = denoiser(batch=2).velocity(second, 400, WINDOWS)
    model.velocity(first, 500, WINDOWS, step=0)
    assert len(runs) == 2
    close = model.velocity(second, 400, WINDOWS, step=1)
    assert len(runs) == 2
    anew = model.velocity(second, 400, WINDOWS, step=2)
    assert len(runs) == 4
    deep.remove()
    torch.testing.assert_close(anew, exact, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(close, exact, atol=1e-3)
    model.velocity(second, 400, WINDOWS, step=2)
    torch.testing.assert_close(model.velocity(second, 400, WINDOWS, step=3), exact, atol=2e-4, rtol=1e-3)


def test_cached_deep_layers_serve_steps_in_which_guidance_has_ended() -> None:
    latents = noise(1, 4, FRAMES, SIDE, SIDE)
    model = denoiser(deep_every=2, guided=lambda step: step == 0)
    deep = model._managed.module.mid_block.register_forward_hook(lambda *call: runs.append(1))
    runs: list[int] = []
    model.velocity(latents, 500, WINDOWS, step=0)
    unguided = model.velocity(latents, 500, WINDOWS, step=1)
    deep.remove()
    assert len(runs) == len(WINDOWS)
    torch.testing.assert_close(unguided, denoiser(cfg=1.0).velocity(latents, 500, WINDOWS), atol=2e-4, rtol=1e-3)


# --- pictures ---


def test_drawings_reach_the_pose_guider_in_its_odd_range_or_in_the_trained_one() -> None:
    levels = torch.tensor([0, 1, 254, 255]) / 255
    drawings = levels[:, None, None, None].expand(4, 2, 3, 3)
    published, unit = pose_pixels(drawings, (2, 3)), pose_pixels(drawings, (2, 3), published_range=False)
    assert published.shape == (1, 3, 4, 2, 3)
    assert published[0, 0, :, 0, 0].tolist() == [-1, 1, 507, 509]
    assert unit[0, 0, :, 0, 0].tolist() == pytest.approx([-1, 2 / 255 - 1, 508 / 255 - 1, 1])


def test_drawings_of_another_size_keep_their_colours() -> None:
    drawings = torch.zeros(1, 4, 4, 3)
    drawings[:, :, 2:, 1] = 200 / 255
    resized = pose_pixels(drawings, (8, 8))
    assert sorted(set(resized.flatten().tolist())) == [-1, 399]
    assert (resized[0, 1, 0, :, 4:] == 399).all()


def test_pictures_are_resized_to_the_size_of_the_networks() -> None:
    portrait = torch.zeros(30, 20, 3)
    portrait[15:] = torch.tensor([1.0, 0.5, 0.0])
    reference = reference_pixels(portrait, (64, 48))
    assert reference.shape == (1, 3, 64, 48)
    assert reference[0, :, 0, 0].tolist() == [-1, -1, -1]
    np.testing.assert_allclose(reference[0, :, -1, -1], [1, 2 * 128 / 255 - 1, -1], atol=1e-6)
    clip = clip_pixels(portrait)
    assert clip.shape == (1, 3, 224, 224)
    assert float(clip[0, 0, 0, 0]) == pytest.approx(-0.48145466 / 0.26862954)
    assert float(clip[0, 0, -1, -1]) == pytest.approx((1 - 0.48145466) / 0.26862954)
