"""What the nodes share: their own socket types, and the ways between sockets and pipelines."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ..pipelines.aniportrait.settings import AnimationState
from ..pipelines.apasco import settings as apasco
from ..pipelines.apasco.masks import RegionMasks
from ..pipelines.errors import TalkingPortraitError, is_out_of_memory, shown
from ..pipelines.face.identity import FaceIdentity
from ..pipelines.image.affine_sampling import over_white
from ..pipelines.types import Audio, Crop, FaceMotion, FaceTrack, MotionLatents, SpeechFeatures
from . import host
from .aniportrait_files import LoadedAniPortrait

Execute = TypeVar("Execute", bound=Callable[..., Any])

FaceLandmarks = host.io.Custom("FACE_LANDMARKS")
"""ComfyUI's own payload, so its landmark nodes and ours can feed each other."""
CoreAudioEncoder = host.io.Custom("AUDIO_ENCODER")
SpeechEncoderSocket = host.io.Custom("TALKING_PORTRAIT_SPEECH_ENCODER")
SpeechFeaturesSocket = host.io.Custom("TALKING_PORTRAIT_SPEECH_FEATURES")
FaceMotionSocket = host.io.Custom("TALKING_PORTRAIT_FACE_MOTION")
FaceRestorerSocket = host.io.Custom("TALKING_PORTRAIT_FACE_RESTORER")
UpscaleModel = host.io.Custom("UPSCALE_MODEL")
InterpolationModel = host.io.Custom("INTERP_MODEL")
"""ComfyUI's own, since the version that has Load Frame Interpolation Model."""
CropSocket = host.io.Custom("TALKING_PORTRAIT_CROP")
AniTalkerSocket = host.io.Custom("TALKING_PORTRAIT_ANITALKER")
MotionLatentsSocket = host.io.Custom("TALKING_PORTRAIT_MOTION_LATENTS")
APascoSocket = host.io.Custom("TALKING_PORTRAIT_APASCO")
APascoStateSocket = host.io.Custom("TALKING_PORTRAIT_APASCO_STATE")
FaceEmbeddingSocket = host.io.Custom("TALKING_PORTRAIT_FACE_EMBEDDING")
RegionMasksSocket = host.io.Custom("TALKING_PORTRAIT_REGION_MASKS")
AniPortraitSocket = host.io.Custom("TALKING_PORTRAIT_ANIPORTRAIT")
AniPortraitStateSocket = host.io.Custom("TALKING_PORTRAIT_ANIPORTRAIT_STATE")


@dataclass(frozen=True)
class LoadedSpeechEncoder:
    """SPEECH_ENCODER: the encoder, and the host's hold on its memory."""

    encoder: Any
    memory: host.ManagedModule


@dataclass(frozen=True)
class LoadedAniTalker:
    """ANITALKER: its renderer, and one of its motion models."""

    stage1: host.ManagedModule
    stage2: host.ManagedModule


@dataclass(frozen=True)
class LoadedFaceRestorer:
    """FACE_RESTORER: a GFPGAN."""

    network: host.ManagedModule


OWN_VALUES: Mapping[str, tuple[type, str, str]] = {
    "TALKING_PORTRAIT_FACE_MOTION": (FaceMotion, "a face motion", "Instant Driver or Reenact Motion"),
    "TALKING_PORTRAIT_SPEECH_FEATURES": (SpeechFeatures, "speech features", "Encode Speech or Speech MFCC"),
    "TALKING_PORTRAIT_SPEECH_ENCODER": (LoadedSpeechEncoder, "a loaded speech encoder", "Load Speech Encoder"),
    "TALKING_PORTRAIT_ANITALKER": (LoadedAniTalker, "a loaded AniTalker", "Load AniTalker"),
    "TALKING_PORTRAIT_MOTION_LATENTS": (MotionLatents, "motion latents", "AniTalker Motion"),
    "TALKING_PORTRAIT_FACE_RESTORER": (LoadedFaceRestorer, "a loaded face restorer", "Load Face Restorer"),
    "TALKING_PORTRAIT_ANIPORTRAIT": (LoadedAniPortrait, "a loaded AniPortrait", "Load AniPortrait"),
    "TALKING_PORTRAIT_ANIPORTRAIT_STATE": (AnimationState, "the state of a clip", "another AniPortrait Sampler"),
    "TALKING_PORTRAIT_APASCO": (apasco.Networks, "a loaded APasco", "Load APasco"),
    "TALKING_PORTRAIT_APASCO_STATE": (apasco.AnimationState, "the state of a clip", "another APasco Sampler"),
    "TALKING_PORTRAIT_FACE_EMBEDDING": (FaceIdentity, "a face embedding", "Face Embedding"),
    "TALKING_PORTRAIT_REGION_MASKS": (RegionMasks, "region masks", "Region Masks"),
    "TALKING_PORTRAIT_CROP": (Crop, "how pictures were cut", "Crop Portrait"),
}
"""What our own sockets carry, by type: its class, what it is called, and who makes it."""


def titled(execute: Execute) -> Execute:
    """Checks what arrives at a node's own sockets, and lets its messages begin with its title.

    An API client may put a constant where a link belongs, and sees nothing but the message.
    """
    names = list(inspect.signature(execute).parameters)[1:]

    @functools.wraps(execute)
    def with_title(cls: Any, *args: Any, **inputs: Any) -> Any:
        try:
            _check_own_values(cls, {**dict(zip(names, args, strict=False)), **inputs})
            return execute(cls, *args, **inputs)
        except (TalkingPortraitError, MemoryError, RuntimeError) as error:
            title = cls.define_schema().display_name
            if is_out_of_memory(error) or (not host.IN_COMFYUI and isinstance(error, torch.OutOfMemoryError)):
                raise TalkingPortraitError(
                    f"{title}: This needs more memory than there is; take smaller pictures or fewer frames at once."
                ) from error
            if not isinstance(error, TalkingPortraitError):
                raise
            raise TalkingPortraitError(str(error) if str(error).startswith(title) else f"{title}: {error}") from error

    return with_title  # type: ignore[return-value]


def _check_own_values(cls: Any, inputs: Mapping[str, Any]) -> None:
    for entry in cls.define_schema().inputs:
        value = inputs.get(entry.id)
        if entry.io_type not in OWN_VALUES or (value is None and entry.optional):
            continue
        expected, what, source = OWN_VALUES[entry.io_type]
        if not isinstance(value, expected):
            raise TalkingPortraitError(
                f'The input "{entry.id}" is {described(value)}, but {what} is expected; connect {source}.'
            )


def described(value: Any) -> str:
    """A value that is no picture, sound or the like, in a few words."""
    return "nothing" if value is None else f"{shown(value)} ({type(value).__name__})"


def rate_input(name: str, tooltip: str, default: float = 25.0) -> Any:
    """A frame rate; three decimals, so that 23.976, 29.97 and 59.94 can be given."""
    return host.io.Float.Input(name, default=default, min=1.0, max=240.0, step=1.0, round=0.001, tooltip=tooltip)


def size_input(name: str, tooltip: str) -> Any:
    """A side of frames that Stable Diffusion makes."""
    return host.io.Int.Input(name, default=512, min=64, max=2048, step=8, tooltip=tooltip)


def amount_input(name: str, tooltip: str, *, default: float = 1.0, max: float = 3.0, min: float = 0.0) -> Any:
    """A strength; 1 is natural."""
    return host.io.Float.Input(name, default=default, min=min, max=max, step=0.05, round=0.001, tooltip=tooltip)


def audio_socket(audio: Audio) -> dict[str, Any]:
    """`Audio` as AUDIO."""
    return {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}


def images_socket(images: Any, name: str = "images") -> torch.Tensor:
    """IMAGE as (B, H, W, 1, 3 or 4) float32 on the CPU. Raises TalkingPortraitError for another object, and for NaN."""
    if (
        not isinstance(images, torch.Tensor)
        or images.ndim != 4
        or images.shape[-1] not in (1, 3, 4)
        or 0 in images.shape
    ):
        raise TalkingPortraitError(
            f'The input "{name}" is {_shape_of(images)}, but pictures (batch, height, width, 1 to 4 colours) are '
            "expected; connect a Load Image node."
        )
    return _finite(images, name)


def mask_socket(mask: Any, name: str = "mask") -> torch.Tensor:
    """MASK as (B, H, W) float32 on the CPU. Raises TalkingPortraitError for another object, and for NaN."""
    if not isinstance(mask, torch.Tensor) or mask.ndim not in (2, 3) or 0 in mask.shape:
        raise TalkingPortraitError(
            f'The input "{name}" is {_shape_of(mask)}, but a mask (batch, height, width) is expected; connect a node '
            "that makes masks."
        )
    return _finite(mask.reshape(-1, *mask.shape[-2:]), name)


def _shape_of(value: Any) -> str:
    return f"a tensor of the shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else described(value)


def _finite(values: torch.Tensor, name: str) -> torch.Tensor:
    if values.is_complex():
        raise TalkingPortraitError(f'The input "{name}" holds complex numbers, but values from 0 to 1 are expected.')
    values = values.detach().to("cpu", torch.float32)
    # By its sum, one by one: quick, and nothing is made that is as large as the pictures.
    for number, item in enumerate(values):
        if not bool(torch.isfinite(item.sum())):
            raise TalkingPortraitError(
                f'Picture {number} of the input "{name}" holds NaN or infinite values, which no colour has; a VAE that '
                "decodes in half precision makes such pictures, so let it run in full precision."
            )
    return values


def portrait_socket(images: Any, name: str = "image") -> torch.Tensor:
    """The first picture of an IMAGE as (H, W, 3); grey is spread, transparency laid over white."""
    first = images[:1] if isinstance(images, torch.Tensor) and images.ndim == 4 else images
    return colours(images_socket(first, name)[0])


def colours(pictures: torch.Tensor) -> torch.Tensor:
    """(..., 1, 3 or 4) as (..., 3); grey is spread, transparency laid over white as in picture files."""
    return pictures.expand(*pictures.shape[:-1], 3) if pictures.shape[-1] == 1 else over_white(pictures)


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
