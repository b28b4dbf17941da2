"""AniPortrait's diffusion, whole: a portrait and drawn faces become frames.

animation = animate(networks, codec, encoder, portrait, drawings, Settings(), progress=progress)
for frames in animation:      # (B, H, W, 3), as they are finished
    ...
animation.state               # what a next call continues from
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from ..latents import ImageCodec, Managed, PictureEncoder
from ..types import Progress, no_progress

Scheduler = Literal["ddim", "dpmpp_2m", "unipc", "lcm"]
"""DDIM is the published one. The others need fewer steps and give other numbers; "lcm" also needs a distilled network,
that is an LCM LoRA merged into the denoising UNet by `models/diffusion/lora.py`."""
SCHEDULERS: tuple[Scheduler, ...] = ("ddim", "dpmpp_2m", "unipc", "lcm")
MODES: tuple[str, ...] = ("reference", "seamless")


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
        window, overlap: frames that the network sees together (at most 32 with the published motion modules), and how
            many of them the next window sees again.
        window_batch: windows that pass the network at once; halved by itself when memory runs out.
        decode_batch: frames that the VAE decodes at once; likewise.
        mode: "reference" samples as published: the whole clip at once, in a closed loop whose last window runs on into
            its beginning. "seamless" opens the loop, moves the windows from step to step and weights their overlaps,
            and samples a long clip in stretches that flow into each other, in constant memory.
        stretch: "seamless" only: how many windows long a stretch is.
        published_pose: how drawings reach the pose guider: as in the published program, or in the range and with the
            statistics of its training (see `models/aniportrait/pose_guider.py`).
        compiled: let torch.compile translate the denoising UNet's blocks; slow at first, then faster on a GPU.

    These give other numbers, for less time:
        scheduler: see `Scheduler`.
        guided: the part of the steps, in 0..1 from the first to the last, in which guidance is used.
        deep_every: every how many steps the deep layers are computed; in between they keep what they gave
            (DeepCache, Ma et al. 2024). 1 computes always.
    """

    size: tuple[int, int] = (512, 512)
    steps: int = 25
    cfg: float = 3.5
    seed: int = 0
    window: int = 16
    overlap: int = 4
    window_batch: int = 1
    decode_batch: int = 4
    mode: Literal["reference", "seamless"] = "reference"
    stretch: int = 4
    published_pose: bool = True
    compiled: bool = False
    scheduler: Scheduler = "ddim"
    guided: tuple[float, float] = (0.0, 1.0)
    deep_every: int = 1


class Drawings(Protocol):
    """Drawn faces by frame number: a tensor (F, H, W, 3) in 0..1, a list, or an object that draws when it is asked.

    Frames are asked for more than once and not always in order. Another size than `Settings.size` is resized by
    nearest pixels, as published.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int, /) -> torch.Tensor:
        """(H, W, 3) in 0..1, in the colours of `pipelines/drawing.py`."""


@dataclass(frozen=True)
class AnimationState:
    """What the next clip needs to begin where this one ended; all on the CPU.

    `latents` (1, 4, n, h, w) and `drawings` (n, H, W, 3) uint8 of the last n frames; `frames` how many there have been
    altogether; `statistics` the pose guider's, None where each window has its own.
    """

    latents: torch.Tensor
    drawings: torch.Tensor
    frames: int
    statistics: tuple[tuple[torch.Tensor, torch.Tensor], ...] | None = None


class Animation(Iterator[torch.Tensor]):
    """Frames (B, H, W, 3) float32 on the CPU in 0..1, batch after batch, each frame once and in order.

    `frames` is how many there will be, `state` what a next call continues from; None until all frames have left.
    Leaving early (`close`, or an exception out of `progress`) frees everything.
    """

    frames: int
    state: AnimationState | None

    def __next__(self) -> torch.Tensor:
        raise NotImplementedError

    def close(self) -> None:
        """Frees what an unfinished animation holds."""


def animate(
    networks: Networks,
    codec: ImageCodec,
    encoder: PictureEncoder,
    portrait: torch.Tensor,
    drawings: Drawings,
    settings: Settings | None = None,
    *,
    state: AnimationState | None = None,
    progress: Progress = no_progress,
) -> Animation:
    """A portrait (H, W, 3) in 0..1 that does what the drawn faces show, one frame for each.

    Inputs are checked at once; the work begins when the first frames are asked for.

    Args:
        portrait: any size; it is squeezed to `settings.size`, as published, so crop it to that shape before.
        state: of the clip before this one, in "seamless" mode, with the same portrait and size.
        progress: called after each run of a network, with a rough picture after each step, and after each batch of
            decoded frames with the last of them.

    Raises TalkingPortraitError for impossible settings, no or unfitting drawings, half precision on a CPU, a state of
    another size or mode, networks that give NaN, and memory that suffices for nothing.
    """
    raise NotImplementedError
