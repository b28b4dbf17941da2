"""Inputs that several nodes have, and the values of sockets: checked, in the pipelines' own form, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from ..pipelines.errors import MOST, TalkingPortraitError
from ..pipelines.finite import check_plain, check_scale
from ..pipelines.image.affine_sampling import over_white
from ..pipelines.progress import check_interrupted
from ..pipelines.types import Audio, FaceTrack
from .checked_node import described
from .host import advanced, io
from .sockets import Curve


def rate_input(name: str, tooltip: str, default: float = 25.0) -> io.Input:
    """A frame rate; three decimals, so that 23.976, 29.97 and 59.94 can be given."""
    return io.Float.Input(name, default=default, min=1.0, max=240.0, step=1.0, round=0.001, tooltip=tooltip)


def size_input(name: str, tooltip: str) -> io.Input:
    """A side of frames that Stable Diffusion makes."""
    return io.Int.Input(name, default=512, min=64, max=2048, step=8, tooltip=tooltip)


def amount_input(name: str, tooltip: str, *, default: float = 1.0, max: float = 3.0, min: float = 0.0) -> io.Input:
    """A strength; 1 is natural."""
    return io.Float.Input(name, default=default, min=min, max=max, step=0.05, round=0.001, tooltip=tooltip)


def seed_input(tooltip: str, *, default: int = 0) -> io.Input:
    """A seed that ComfyUI can change after each run, to any value that its own samplers take."""
    return io.Int.Input("seed", default=default, min=0, max=MOST, control_after_generate=True, tooltip=tooltip)


def guidance_scale_input(tooltip: str) -> io.Input:
    """Classifier-free guidance's scale of a video diffusion; 3.5 as published."""
    return io.Float.Input("cfg", default=3.5, min=0.0, max=20.0, step=0.1, round=0.01, tooltip=tooltip)


def guidance_inputs() -> list[io.Input]:
    """In which part of the denoising steps guidance is used: `guide_from` and `guide_to`."""
    tooltips = {
        "guide_from": "Fraction of the steps at which guidance begins; 0 is the first step.",
        "guide_to": "Fraction of the steps at which guidance ends; 1 is the last step. Less is faster and changes the "
        "result.",
    }
    return [
        advanced(io.Float.Input(name, default=float(at), min=0.0, max=1.0, step=0.05, tooltip=tooltip))
        for at, (name, tooltip) in enumerate(tooltips.items())
    ]


def decode_batch_input() -> io.Input:
    tooltip = "Frames that the VAE decodes at once; halved when memory runs out."
    return advanced(io.Int.Input("decode_batch", default=4, min=1, max=64, tooltip=tooltip))


def deep_every_input(layers: str) -> io.Input:
    """Every how many denoising steps the deep layers, so called in the tooltip, are computed."""
    tooltip = f"{layers} are computed in every n-th step only; above 1 is faster and changes the result."
    return advanced(io.Int.Input("deep_every", default=1, min=1, max=10, tooltip=tooltip))


def compiled_input() -> io.Input:
    tooltip = "Compiles the network with torch.compile: slow at first, then faster on a graphics card."
    return advanced(io.Boolean.Input("compiled", default=False, tooltip=tooltip))


def curve_inputs(tooltips: Mapping[str, str]) -> list[io.Input]:
    """Sockets for curves of ComfyUI's Curve Editor, by name; none in ComfyUI's versions before that node."""
    if not hasattr(io, "Curve"):
        return []
    # Without forceInput the front end makes each a curve that is always given, and puts it among the widget values.
    socket = {"forceInput": True}
    return [Curve.Input(name, optional=True, tooltip=text, extra_dict=socket) for name, text in tooltips.items()]


def curve_socket(curve: Any, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """CURVE as a function of places from 0 to 1. Raises TalkingPortraitError for another object."""
    evaluate = getattr(curve, "interp_array", None)
    if not callable(evaluate):
        raise TalkingPortraitError(
            f'The input "{name}" is {described(curve)}, but a curve is expected; connect ComfyUI\'s Curve Editor.'
        )
    return evaluate


def frame_rate(fps: Any) -> Fraction:
    """A rate as it comes from a widget or a socket. Raises TalkingPortraitError for what is none."""
    from ..pipelines.timing import as_rate

    return as_rate(fps)


def sound_from(audio: Any) -> Audio:
    """AUDIO as `Audio`. Raises TalkingPortraitError for what is none."""
    from ..pipelines.audio.waveform import check_audio

    return check_audio(audio)


def audio_socket(audio: Audio) -> dict[str, Any]:
    """`Audio` as AUDIO."""
    return {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}


def track_from(landmarks: Any, face: str = "largest", index: int = 0) -> FaceTrack:
    """FACE_LANDMARKS of one face as a track.

    Raises TalkingPortraitError for what is none, and where there is no such face.
    """
    from ..pipelines.face.landmark_payload import from_payload

    return from_payload(landmarks, choose=face, index=index)  # type: ignore[arg-type]


def tracks_from(landmarks: Any, most: int) -> list[FaceTrack]:
    """Each face of FACE_LANDMARKS, from left to right; none where there is no face."""
    from ..pipelines.face.face_tracking import NoFaceError

    tracks: list[FaceTrack] = []
    while len(tracks) < most:
        try:
            tracks.append(track_from(landmarks, "index", len(tracks)))
        except NoFaceError:
            break
    return tracks


def portrait_track(landmarks: Any) -> FaceTrack:
    """The largest face of FACE_LANDMARKS in the first picture."""
    return first_frame(track_from(landmarks))


def landmarks_socket(track: FaceTrack) -> dict[str, Any]:
    """A track as FACE_LANDMARKS."""
    from ..pipelines.face.landmark_payload import to_payload

    return to_payload(track)


def boxes_socket(payload: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The boxes of FACE_LANDMARKS as BOUNDING_BOX, of every picture; none for a picture without a face of its own."""
    from ..pipelines.face.landmark_payload import face_boxes

    return face_boxes(payload)


def images_socket(images: Any, name: str = "images") -> torch.Tensor:
    """IMAGE as (B, H, W, 1, 3 or 4) float32 on the CPU; bytes become 0..1.

    Raises TalkingPortraitError for another object, another scale than 0..1, and NaN.
    """
    check_plain(images, f'The input "{name}"')
    if (
        not isinstance(images, torch.Tensor)
        or images.ndim != 4
        or images.shape[-1] not in (1, 3, 4)
        or 0 in images.shape
    ):
        raise TalkingPortraitError(
            f'The input "{name}" is {_shape_of(images)}, but pictures (batch, height, width, 1, 3 or 4 colours) are '
            "expected; connect a Load Image node."
        )
    if images.dtype == torch.uint8:
        images = images.detach().to("cpu", torch.float32) / 255
    return _checked_values(images, name, "Picture")


def mask_socket(mask: Any, name: str = "mask") -> torch.Tensor:
    """MASK as (B, H, W) float32 on the CPU. Raises TalkingPortraitError for another object or scale, and for NaN."""
    check_plain(mask, f'The input "{name}"')
    if not isinstance(mask, torch.Tensor) or mask.ndim not in (2, 3) or 0 in mask.shape:
        raise TalkingPortraitError(
            f'The input "{name}" is {_shape_of(mask)}, but a mask (batch, height, width) is expected; connect a node '
            "that makes masks."
        )
    return _checked_values(mask.reshape(-1, *mask.shape[-2:]), name, "Mask")


def _shape_of(value: Any) -> str:
    return f"a tensor of the shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else described(value)


def _checked_values(values: torch.Tensor, name: str, what: str) -> torch.Tensor:
    """Pictures or masks, which `what` says, as float32 on the CPU.

    Raises TalkingPortraitError for another type or scale, and for NaN.
    """
    if not (values.is_floating_point() or values.dtype == torch.bool):
        kind = str(values.dtype).removeprefix("torch.")
        raise TalkingPortraitError(
            f'The input "{name}" holds numbers of the type {kind}, but real numbers from 0 to 1 are expected; divide '
            "them by their largest value."
        )
    values = values.detach().to("cpu", torch.float32)
    for number, item in enumerate(values):
        check_interrupted()
        advice = (
            "a VAE that decodes in half precision makes such pictures, so let it run in full precision."
            if what == "Picture"
            else "make it anew."
        )
        check_scale(item, f'{what} {number} of the input "{name}"', advice)
    return values


def portrait_socket(images: Any, name: str = "image") -> torch.Tensor:
    """The first picture of an IMAGE as (H, W, 3); grey is expanded, transparency composited over white."""
    return colours(_first_picture(images, name))


def cut_out_socket(images: Any, name: str = "image") -> torch.Tensor:
    """As `portrait_socket`, but (H, W, 4) for a picture of which something is transparent."""
    picture = _first_picture(images, name)
    keeps_alpha = picture.shape[-1] == 4 and bool((picture[..., 3] < 1).any())
    return picture if keeps_alpha else colours(picture)


def _first_picture(images: Any, name: str) -> torch.Tensor:
    check_plain(images, f'The input "{name}"')
    first = images[:1] if isinstance(images, torch.Tensor) and images.ndim == 4 else images
    return images_socket(first, name)[0]


def colours(pictures: torch.Tensor) -> torch.Tensor:
    """(..., 1, 3 or 4) as (..., 3); grey is expanded, transparency composited over white as in picture files."""
    return pictures.expand(*pictures.shape[:-1], 3) if pictures.shape[-1] == 1 else over_white(pictures)


def first_frame(track: FaceTrack) -> FaceTrack:
    """The landmarks of a batch's first picture."""

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
