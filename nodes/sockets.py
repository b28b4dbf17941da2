"""What the nodes share: their own socket types, and the ways between sockets and pipelines."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ..pipelines.errors import TalkingPortraitError
from ..pipelines.types import Audio, FaceTrack
from . import host

Execute = TypeVar("Execute", bound=Callable[..., Any])

FaceLandmarks = host.io.Custom("FACE_LANDMARKS")
"""ComfyUI's own payload, so its landmark nodes and ours can feed each other."""
CoreAudioEncoder = host.io.Custom("AUDIO_ENCODER")
SpeechEncoderSocket = host.io.Custom("TALKING_PORTRAIT_SPEECH_ENCODER")
SpeechFeaturesSocket = host.io.Custom("TALKING_PORTRAIT_SPEECH_FEATURES")
FaceMotionSocket = host.io.Custom("TALKING_PORTRAIT_FACE_MOTION")
CropSocket = host.io.Custom("TALKING_PORTRAIT_CROP")


def titled(execute: Execute) -> Execute:
    """Lets the messages of an `execute` begin with the node's title, as an API client sees nothing but the message."""

    @functools.wraps(execute)
    def with_title(cls: Any, *args: Any, **inputs: Any) -> Any:
        try:
            return execute(cls, *args, **inputs)
        except TalkingPortraitError as error:
            title = cls.define_schema().display_name
            raise TalkingPortraitError(str(error) if str(error).startswith(title) else f"{title}: {error}") from error

    return with_title  # type: ignore[return-value]


def rate_input(name: str, tooltip: str, default: float = 25.0) -> Any:
    """A frame rate; three decimals, so that 23.976, 29.97 and 59.94 can be given."""
    return host.io.Float.Input(name, default=default, min=1.0, max=120.0, step=1.0, round=0.001, tooltip=tooltip)


def amount_input(name: str, tooltip: str, *, default: float = 1.0, max: float = 3.0, min: float = 0.0) -> Any:
    """A strength; 1 is natural."""
    return host.io.Float.Input(name, default=default, min=min, max=max, step=0.05, round=0.001, tooltip=tooltip)


def audio_socket(audio: Audio) -> dict[str, Any]:
    """`Audio` as AUDIO."""
    return {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}


def images_socket(images: Any) -> torch.Tensor:
    """IMAGE as (B, H, W, 1 to 4) float32 on the CPU."""
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or not len(images):
        shape = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise TalkingPortraitError(
            f"The image input is {shape}, but pictures (batch, height, width, 1 to 4 colours) are expected; "
            "connect a Load Image node."
        )
    return images.detach().to("cpu", torch.float32)


def portrait_socket(images: Any) -> torch.Tensor:
    """The first picture of an IMAGE as (H, W, 3); grey is spread, transparency left out."""
    picture = images_socket(images)[0]
    return picture.expand(*picture.shape[:-1], 3) if picture.shape[-1] == 1 else picture[..., :3]


def first_frame(track: FaceTrack) -> FaceTrack:
    """The landmarks of a clip's first picture."""
    from dataclasses import replace

    def first(values: Any) -> Any:
        return None if values is None else values[:1]

    return replace(
        track,
        points=track.points[:1],
        found=track.found[:1],
        matrix=track.matrix[:1],
        blendshapes=first(track.blendshapes),
        score=first(track.score),
    )
