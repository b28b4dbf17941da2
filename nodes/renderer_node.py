"""What all renderers share: frames are collected in memory if IMAGE is connected, else encoded into a video file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, ClassVar

import torch

from ..pipelines.audio.waveform import check_audio
from ..pipelines.timing import frame_end
from ..pipelines.types import Audio
from . import host
from .frames import frames_in_memory
from .host import io

HIDDEN: Any = [io.Hidden.prompt, io.Hidden.unique_id]
"""Of every renderer's schema: `RendererNode.keeps_frames` reads them."""


class RendererNode(io.ComfyNode):
    """A node that makes frames, as IMAGE and as VIDEO.

    The memory of an IMAGE grows with its length, that of a VIDEO does not. So if only VIDEO is connected, frames are
    encoded as they are rendered and not kept.
    """

    FRAME_OUTPUTS: ClassVar[tuple[int, ...]] = (0,)
    """Numbers of the outputs that hold all frames or masks."""
    VIDEO_OUTPUT: ClassVar[int]

    @classmethod
    def keeps_frames(cls) -> bool:
        """Whether frames stay in memory: if they are connected, or the video is not, or the links are not available."""
        return host.are_linked(cls, cls.FRAME_OUTPUTS) is not False or not host.are_linked(cls, [cls.VIDEO_OUTPUT])

    @classmethod
    def images_and_video(
        cls,
        batches: Iterable[torch.Tensor],
        count: int,
        fps: Fraction,
        sound: Audio | None,
        size: tuple[int, int] | None = None,
    ) -> tuple[torch.Tensor | None, Any]:
        """IMAGE, or None where frames are not kept, and VIDEO of `count` frames; raises as `frames_in_memory`."""
        if not cls.keeps_frames():
            return None, streamed_video(batches, fps, sound)
        images = frames_in_memory(batches, count, size)
        return images, video_of(images, fps, sound)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float | bool:
        """Part of ComfyUI's cache key: results of a run that kept no frames cannot be used where frames are needed.

        NaN, which equals nothing, where links are not available before the node runs.
        """
        return math.nan if host.are_linked(cls, cls.FRAME_OUTPUTS) is None else cls.keeps_frames()


def sound_input() -> io.Input:
    return io.Audio.Input("audio", optional=True, tooltip="The sound of the video; it ends with the last frame.")


def video_output() -> io.Output:
    return io.Video.Output(
        display_name="video",
        tooltip="The frames with the sound, for Save Video. If images is not connected, frames are encoded while they "
        "are rendered, and memory does not grow with the length.",
    )


def sound_of(audio: Any, frames: int, fps: Fraction, *, first: int = 0) -> Audio | None:
    """AUDIO from frame `first` on for as long as `frames` frames last, or None where there is none."""
    if audio is None:
        return None
    sound = check_audio(audio)
    begin, end = (frame_end(number, sound.sample_rate, fps) for number in (first, first + frames))
    wave = sound.waveform[:, begin:end]
    return Audio(wave, sound.sample_rate) if wave.shape[1] else None


def streamed_video(batches: Iterable[torch.Tensor], fps: Fraction, audio: Audio | None) -> Any:
    """VIDEO from batches of frames, encoded as they come."""
    from ..pipelines.files.frame_stream import write_stream

    return host.encoded_video(lambda path: write_stream(path, batches, fps, audio))


def video_of(images: torch.Tensor, fps: Fraction, audio: Audio | None) -> Any:
    """VIDEO of frames in memory, encoded when it is saved."""
    return host.video_of_frames(images, fps, audio, lambda: streamed_video(_with_progress(images), fps, audio))


def _with_progress(images: torch.Tensor) -> Iterator[torch.Tensor]:
    progress = host.progress()
    for number in range(len(images)):
        yield images[number : number + 1]
        progress(number + 1, len(images))
