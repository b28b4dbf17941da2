"""Frames that AI makes, into a video file as they come, so that a longer video takes no more memory."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ..errors import TalkingPortraitError
from ..provenance.marking import new_marking
from ..types import Audio
from .images import to_uint8
from .output_paths import file_to_write
from .sound import SoundTrack
from .video import VideoWriter, check_video_name


def write_stream(
    path: str | Path,
    batches: Iterable[torch.Tensor],
    fps: Fraction,
    audio: Audio | SoundTrack | None = None,
    *,
    crf: int = 18,
    mark: bool = True,
) -> int:
    """Writes batches (n, H, W, 3 or 4) of frames, floats in 0..1 or bytes, as they come; returns the frame count.

    The file says that AI made it; without `mark` only its metadata does, and that the invisible mark was turned off.
    Nothing is held but the batch at hand. When a batch or the file fails, an iterator that can be closed is closed,
    and nothing is left of the file. Raises TalkingPortraitError as `VideoWriter` does, and where there is no frame.
    """
    check_video_name(path, crf)
    marking = new_marking(mark)
    file_to_write(path)  # before the first batch, which may take long
    with ExitStack() as stack:
        close = getattr(batches, "close", None)
        if close is not None:
            stack.callback(close)
        frames = map(_bytes, batches)
        first = next(frames, None)
        if first is None or not len(first):
            raise TalkingPortraitError("There are no frames to write; make the motion or the sound longer.")
        height, width = first.shape[1:3]
        writer = VideoWriter(path, (height, width), fps, audio, crf=crf, marking=marking, alpha=first.shape[3] == 4)
        video = stack.enter_context(writer)
        video.write(first)
        del first  # else it would stay for as long as all others come
        for batch in frames:
            video.write(batch)
            del batch
        return video.frames


def _bytes(frames: torch.Tensor) -> np.ndarray:
    return frames.cpu().numpy() if frames.dtype == torch.uint8 else to_uint8(frames)
