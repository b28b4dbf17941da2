"""Motion codes to frames of a portrait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch

from ...models.anitalker.encoder import Encoded
from ...models.anitalker.stage1 import Stage1
from ..errors import TalkingPortraitError
from ..memory import HalvingBatches, Managed, loaded
from ..types import MotionLatents, Progress, no_progress
from .portrait import Portrait, check_numbers


@torch.no_grad()
def render(
    stage1: Managed,
    portrait: Portrait,
    motion: MotionLatents,
    *,
    batch: int = 8,
    progress: Progress = no_progress,
) -> Iterator[torch.Tensor]:
    """Frames (n, size, size, 3) in 0..1 on the CPU, in order, at most `batch` at once, fewer where memory is short.

    The portrait's maps and the basis of motion serve all frames; memory does not grow with their number. `progress` is
    called for each batch with its last frame.

    Raises TalkingPortraitError for codes of another model, and where stage 1 gives NaN.
    """
    config = cast(Stage1, stage1.module).dec.config
    if motion.codes.ndim != 2 or motion.codes.shape[1] != config.motion or not motion.frames:
        raise TalkingPortraitError(
            f"The motion latents are {tuple(motion.codes.shape)}, but (frames, {config.motion}) are expected; "
            "make them with AniTalker Motion or AniTalker Motion from Video and this very model."
        )
    network, device = loaded(stage1, Stage1)
    maps = [features.to(device) for features in portrait.maps]
    scene = network.dec.prepare(Encoded(portrait.start.to(device), portrait.code.to(device), maps))

    def paint(begin: int, end: int) -> torch.Tensor:
        network, device = loaded(stage1, Stage1)  # whoever takes the frames may have run other networks in between
        pictures = network.dec(scene, motion.codes[begin:end].to(device))
        return ((pictures.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).float().cpu()

    done = 0
    for frames in HalvingBatches(batch, "frame").each(motion.frames, paint):
        check_numbers(frames, "stage 1")
        done += len(frames)
        progress(done, motion.frames, frames[-1])
        yield frames
