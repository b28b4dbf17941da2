"""What AniPortrait's diffusion is run with: networks, settings, drawings; and what is wrong with them in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from ..diffusion.context_windows import check_overlap
from ..diffusion.latents import LATENT_SIDE
from ..diffusion.reduced_steps import check_reduced_steps, is_guided
from ..errors import TalkingPortraitError, check_seed, one_line
from ..finite import check_finite
from ..memory import Managed

Scheduler = Literal["ddim", "dpmpp_2m", "unipc", "lcm"]
SCHEDULERS: tuple[Scheduler, ...] = ("ddim", "dpmpp_2m", "unipc", "lcm")
"""DDIM is the published one. The others need fewer steps and give other numbers; "lcm" also needs a distilled network,
that is an LCM LoRA merged into the denoising UNet by `models/diffusion/lora.py`."""
LONGEST_WINDOW = 32
"""Frames that the published motion modules have positions for."""
Mode = Literal["reference", "seamless"]
MODES: tuple[Mode, ...] = ("reference", "seamless")


@dataclass(frozen=True)
class Networks:
    """AniPortrait's three networks of this stage, all of one `dtype`; see `models/aniportrait/loading.py`."""

    reference_unet: Managed
    denoising_unet: Managed
    pose_guider: Managed
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Exact:
        size: (height, width) of the frames, multiples of 8. 512 x 512 is what the networks were trained on.
        steps: denoising steps, 1..1000.
        cfg: classifier-free guidance; 1 and less go without, at half the cost.
        seed: 0..2**64 - 1.
        window, overlap: frames that the network processes together (at most 32 with the published motion modules), and
            how many of them the next window has again.
        window_batch: windows that pass the network at once; halved by itself when memory runs out.
        decode_batch: frames that the VAE decodes at once; likewise.
        mode: "reference" samples as published: the whole clip at once, in a closed loop whose last window runs on into
            its beginning. "seamless" opens the loop, moves the windows from step to step and weights their overlaps,
            and samples a long clip in segments that flow into each other, in constant memory.
        segment_windows: "seamless" only: how many windows' worth of new frames a segment has. Longer ones cost less:
            beside them, one or two windows at the ends are computed twice.
        continued: "seamless" only: another clip will follow this one; some frames beyond the end are sampled, and not
            handed out, so that it can begin without a seam.
        published_pose: how drawings reach the pose guider: as in the published program, or in the range and with the
            statistics of its training (see `models/aniportrait/pose_guider.py`).
        compiled: let torch.compile translate the denoising UNet's blocks; slow at first, then faster on a GPU.

    These give other numbers, for less time:
        scheduler: see `SCHEDULERS`.
        guided: the part of the steps, in 0..1 from the first to the last, in which guidance is used.
        deep_every: "seamless" only: every how many steps the deep layers are computed; in between their last
            output is used (DeepCache, Ma et al. 2024). 1 computes always.
    """

    size: tuple[int, int] = (512, 512)
    steps: int = 25
    cfg: float = 3.5
    seed: int = 0
    window: int = 16
    overlap: int = 4
    window_batch: int = 1
    decode_batch: int = 4
    mode: Mode = "reference"
    segment_windows: int = 16
    continued: bool = False
    published_pose: bool = True
    compiled: bool = False
    scheduler: Scheduler = "ddim"
    guided: tuple[float, float] = (0.0, 1.0)
    deep_every: int = 1

    def is_guided(self, step: int) -> bool:
        """Whether guidance is used in this step, counted from 0."""
        return is_guided(step, self.steps, self.cfg, self.guided)


class Drawings(Protocol):
    """Drawn faces by frame number: a tensor (F, H, W, 3) in 0..1, a list, or an object that draws on request.

    Frames are requested more than once and not always in order. Another size than `Settings.size`, of the same shape,
    is resized by nearest pixels, as published.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int, /) -> torch.Tensor:
        """(H, W, 3) in 0..1, in the colours of `pipelines/aniportrait/pose_image.py`."""


@dataclass(frozen=True)
class AnimationState:
    """What the next clip needs to begin where this one ended; all on the CPU.

    `latents` (1, 4, n, h, w) and `drawings` (n, H, W, 3) uint8 of the last n frames; `frames` how many there have been
    altogether; `statistics` the pose guider's, None where it was not given any.
    """

    latents: torch.Tensor
    drawings: torch.Tensor
    frames: int
    statistics: tuple[tuple[torch.Tensor, torch.Tensor], ...] | None = None


def check_settings(settings: Settings) -> None:
    """Raises TalkingPortraitError for settings that cannot work with any networks."""
    height, width = settings.size
    if height < 64 or width < 64 or height % LATENT_SIDE or width % LATENT_SIDE:
        raise TalkingPortraitError(
            f"Frames of {width} x {height} pixels are requested, but sides of 64 and more in steps of 8 are expected; "
            "512 x 512 suits the networks best."
        )
    check_window(settings)
    check_overlap(settings.window, settings.overlap)
    if not 1 <= settings.steps <= 1000:
        raise TalkingPortraitError(f"Sampling in {settings.steps} steps was requested, but 1 to 1000 are possible.")
    check_seed(settings.seed)
    counts = {
        "window_batch": settings.window_batch,
        "decode_batch": settings.decode_batch,
        "stretch": settings.segment_windows,  # as the node's input is called
    }
    for name, count in counts.items():
        if count < 1:
            raise TalkingPortraitError(f"The setting {name} is {count}, but 1 or more is expected; 1 is always right.")
    if settings.mode not in MODES or settings.scheduler not in SCHEDULERS:
        raise TalkingPortraitError(
            f'The mode is "{one_line(settings.mode)}" and the scheduler "{one_line(settings.scheduler)}", but one of '
            f"{', '.join(MODES)} and one of {', '.join(SCHEDULERS)} are expected."
        )
    if settings.deep_every > 1 and settings.mode == "reference":
        raise TalkingPortraitError(
            "Deep layers cannot be kept from step to step for a whole clip at once; choose the seamless mode, or "
            "compute them in every step."
        )
    check_reduced_steps(settings.cfg, settings.guided, settings.deep_every)


def check_window(settings: Settings, longest: int = LONGEST_WINDOW) -> None:
    """Raises TalkingPortraitError for a window that motion modules with `longest` positions cannot take."""
    if not 1 <= settings.window <= longest:
        raise TalkingPortraitError(
            f"The window is {settings.window} frames, but the motion modules take 1 to {longest}; 16 is the published "
            "one."
        )


def check_drawings(drawings: Drawings, size: tuple[int, int]) -> None:
    """Raises TalkingPortraitError where there are none, or where the first is no picture of the frames' shape."""
    if len(drawings) == 0:
        raise TalkingPortraitError("There are no drawn faces, but one for each frame is expected; draw a motion first.")
    check_drawing(drawings[0], size, 0)


def check_drawing(drawing: torch.Tensor, size: tuple[int, int], frame: int) -> None:
    shape = tuple(drawing.shape)
    if len(shape) != 3 or shape[-1] != 3 or 0 in shape:
        raise TalkingPortraitError(
            f"Drawn face {frame} is a tensor of the shape {shape}, but (height, width, 3) is expected; draw a motion "
            "first."
        )
    if abs(shape[0] * size[1] - shape[1] * size[0]) > 0.02 * shape[0] * size[1]:
        raise TalkingPortraitError(
            f"Drawn face {frame} has {shape[1]} x {shape[0]} pixels, which is another shape than the frames' "
            f"{size[1]} x {size[0]}; draw the motion in the frames' size."
        )


def check_state(state: AnimationState | None, settings: Settings) -> None:
    """Raises TalkingPortraitError for a state that these settings cannot continue."""
    if state is None:
        return
    if settings.mode == "reference":
        raise TalkingPortraitError(
            "The reference mode samples a clip as a closed loop, which continues nothing; choose the seamless mode, or "
            "disconnect the previous state."
        )
    latents, drawings = state.latents, state.drawings
    whole = state.frames if isinstance(state.frames, int) else 0
    tensors = isinstance(latents, torch.Tensor) and isinstance(drawings, torch.Tensor)
    if not tensors or latents.ndim != 5 or not 1 <= latents.shape[2] == len(drawings) <= whole:
        raise TalkingPortraitError(
            "The previous state does not have latents and drawings of the same last frames of a clip; connect the "
            "output state of another AniPortrait Sampler."
        )
    check_finite(latents, "The sampler before", "connect the output state of one whose frames are as they should be")
    height, width = (side * LATENT_SIDE for side in latents.shape[-2:])
    if (height, width) != tuple(settings.size):
        raise TalkingPortraitError(
            f"The previous clip was {width} x {height} pixels, but {settings.size[1]} x {settings.size[0]} are asked "
            "for now; a clip can only be continued in its size."
        )
