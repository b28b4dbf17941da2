"""The two sampling modes: all frames at once in cyclic windows, as published, or overlapping segments without seams."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from ...models.aniportrait.pose_guider import Statistics
from ...models.diffusion.compiling import set_compiled
from ...models.diffusion.unet import UNet
from ..diffusion.context_windows import open_windows, spread_over, triangle_weights, uniform_windows
from ..diffusion.latents import LATENT_SIDE, ImageCodec, decoded
from ..diffusion.segments import Segment, frame_noise, plan_segments
from ..types import Progress
from .denoising import ContextSchedule, Denoiser, FinishedFrames, denoise
from .portrait import PreparedPortrait
from .pose import FrameFeatures, PoseFeatures, PoseGuidance, WindowFeatures
from .settings import AnimationState, Drawings, Networks, Settings

FEATURE_BUDGET = 1_000_000_000
"""Bytes of pose features that the reference mode keeps from step to step, on the device."""

Video = Generator[torch.Tensor, None, AnimationState]
"""Frames (B, H, W, 3) as they are finished, and in the end what a next clip continues from."""


@dataclass(frozen=True)
class SamplingJob:
    """What both ways work with."""

    networks: Networks
    codec: ImageCodec
    drawings: Drawings
    settings: Settings
    portrait: PreparedPortrait

    @property
    def frames(self) -> int:
        return len(self.drawings)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a frame's latents."""
        height, width = self.settings.size
        return 4, height // LATENT_SIDE, width // LATENT_SIDE

    def guidance(self, drawings: Drawings) -> PoseGuidance:
        guider, settings = self.networks.pose_guider, self.settings
        published = settings.published_pose
        return PoseGuidance(
            guider,
            drawings,
            settings.size,
            dtype=self.networks.dtype,
            batch_statistics=published,
            published_range=published,
        )

    def denoiser(self, features: PoseFeatures) -> Denoiser:
        settings = self.settings
        set_compiled(cast(UNet, self.networks.denoising_unet.module), settings.compiled)
        return Denoiser(
            self.networks.denoising_unet,
            self.portrait.bank,
            self.portrait.token,
            features,
            cfg=settings.cfg,
            guided=settings.is_guided,
            batch=settings.window_batch,
            weights=None if settings.mode == "reference" else triangle_weights,
            deep_every=settings.deep_every,
        )


class ProgressTally:
    """Sums the progress of several parts, each of which counts from 0, into one total."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def part(self) -> Progress:
        before = self._done

        def advance(done: int, total: int, preview: torch.Tensor | None = None) -> None:
            self._done = before + done
            self._progress(self._done, self._total, preview)

        return advance


def reference_video(job: SamplingJob, progress: Progress) -> Video:
    """As published. Latents of the whole clip are held (64 kB a frame at 512 x 512), pictures are not."""
    settings = job.settings
    windows = uniform_windows(job.frames, settings.window, settings.overlap)
    tally = ProgressTally(progress, len(windows) * settings.steps + job.frames)
    features = WindowFeatures(job.guidance(job.drawings), FEATURE_BUDGET)
    denoiser = job.denoiser(features)
    device = denoiser.device
    shape = (1, job.latent_shape[0], job.frames, *job.latent_shape[1:])
    # Drawn in the networks' precision, as published: in half precision other numbers come out for the same seed.
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(settings.seed), dtype=job.networks.dtype)
    latents = denoise(
        denoiser,
        noise.to(device, torch.float32),
        lambda step: windows,
        settings.steps,
        scheduler=settings.scheduler,
        fresh=lambda step: _noise(job, range(job.frames), step).to(device),
        progress=tally.part(),
    )
    del denoiser, features
    yield from decoded(job.codec, latents, settings.decode_batch, tally.part())
    last = min(settings.window, job.frames)
    frames = range(job.frames - last, job.frames)
    return AnimationState(latents[:, :, -last:].cpu(), _bytes(job.drawings, frames), job.frames)


def seamless_video(job: SamplingJob, state: AnimationState | None, progress: Progress) -> Video:
    """Segment by segment: what is held does not grow with the clip."""
    settings, guidance = job.settings, job.guidance(ContinuedDrawings(job.drawings, state))
    before = state.latents.shape[2] if state else 0
    ahead = settings.window if settings.continued else 0
    segments = list(
        plan_segments(
            job.frames,
            settings.segment_windows * (settings.window - settings.overlap),
            reach=settings.window,
            finished=before,
            ahead=ahead,
        )
    )
    schedules = [_context_schedule(settings, segment) for segment in segments]
    windows = sum(len(schedule(step)) for schedule in schedules for step in range(settings.steps))
    tally = ProgressTally(progress, windows + job.frames)

    statistics = _statistics(job, guidance, state)
    features = FrameFeatures(guidance, statistics, range(-before, job.frames + ahead), settings.window)
    denoiser = job.denoiser(features)
    tail = state.latents if state else torch.empty(1, job.latent_shape[0], 0, *job.latent_shape[1:])
    earlier = state.frames if state else 0
    for segment, schedule in zip(segments, schedules, strict=True):
        features.begin(segment.start)
        numbers = range(earlier + segment.start, earlier + segment.end)
        noise = _noise(job, numbers).to(denoiser.device)

        def fresh(step: int, numbers: range = numbers) -> torch.Tensor:
            return _noise(job, numbers, step).to(denoiser.device)

        finished = tail[:, :, tail.shape[2] - segment.finished :].to(denoiser.device)
        latents = denoise(
            denoiser,
            noise,
            schedule,
            settings.steps,
            scheduler=settings.scheduler,
            fresh=fresh,
            finished=FinishedFrames(finished, noise[:, :, : segment.finished]) if segment.finished else None,
            progress=tally.part(),
        )[:, :, : segment.last - segment.start]
        tail = latents[:, :, -settings.window :].cpu()
        yield from decoded(job.codec, latents[:, :, segment.finished :], settings.decode_batch, tally.part())
    frames = range(job.frames - tail.shape[2], job.frames)
    drawings = _bytes(ContinuedDrawings(job.drawings, state), frames)
    return AnimationState(tail, drawings, earlier + job.frames, statistics)


class ContinuedDrawings:
    """A clip's drawings with those of the clip before at negative numbers, and its last one for all beyond its end."""

    def __init__(self, drawings: Drawings, state: AnimationState | None) -> None:
        self._drawings, self._before = drawings, state.drawings if state else None

    def __len__(self) -> int:
        return len(self._drawings)

    def __getitem__(self, frame: int, /) -> torch.Tensor:
        if frame < 0:
            assert self._before is not None
            return self._before[frame] / 255
        return self._drawings[min(frame, len(self) - 1)]


def _context_schedule(settings: Settings, segment: Segment) -> ContextSchedule:
    frames = segment.end - segment.start

    def windows(step: int) -> Sequence[Sequence[int]]:
        # The output of deep layers belongs to a window, which therefore stays until they are computed again.
        moved = step // settings.deep_every
        return open_windows(frames, settings.window, settings.overlap, step=moved, finished=segment.finished)

    return windows


def _statistics(job: SamplingJob, guidance: PoseGuidance, state: AnimationState | None) -> Statistics | None:
    """What the norms of the pose guider use for the whole clip.

    As published, statistics come from each window. Here they come from as many frames spread over the clip, and are
    used for all its frames and for the clip that continues it.
    """
    if not guidance.batch_statistics:
        return None
    if state and state.statistics:
        return state.statistics
    count = min(job.settings.window, job.frames)
    return guidance.statistics(spread_over(job.frames, count))


def _noise(job: SamplingJob, frames: range, part: int = 0) -> torch.Tensor:
    return frame_noise(job.latent_shape, job.settings.seed, frames, part)


def _bytes(drawings: Drawings, frames: range) -> torch.Tensor:
    return torch.stack([(drawings[frame].cpu() * 255).round().clamp(0, 255).byte() for frame in frames])
