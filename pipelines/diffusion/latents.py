"""What surrounds a diffusion in latents: the networks on their devices, pictures to latents and back, CLIP.

The host may own these (ComfyUI's VAE, CLIP_VISION and memory management), so pipelines use them by protocol alone.
Pictures are ComfyUI's IMAGE: (B, H, W, 3) in 0..1. Latents are Stable Diffusion's, scaled to unit deviation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch

from ..errors import TalkingPortraitError
from ..finite import check_finite
from ..memory import HalvingBatches
from ..types import Progress, no_progress

LATENT_SCALE = 0.18215
"""What Stable Diffusion 1.5's VAE multiplies its latents by."""
LATENT_SIDE = 8
"""Pixels along the side of one latent."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_RGB = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)
"""Share of each latent channel in red, green and blue (-1..1): a linear approximation of Stable Diffusion 1.4's VAE,
from the Hugging Face forum ("Decoding latents to RGB without upscaling", 2022). For previews alone."""


def check_precision(device: torch.device, dtype: torch.dtype) -> None:
    """Raises TalkingPortraitError for half precision on a CPU, which computes it slowly and inexactly."""
    if device.type == "cpu" and dtype == torch.float16:
        raise TalkingPortraitError(
            "The networks are loaded in float16, which a CPU cannot compute well; load them in float32, or in bfloat16 "
            "to save memory."
        )


def precision(name: str, device: torch.device) -> torch.dtype:
    """The type of a diffusion's weights; "auto" is float16 on a graphics card, as published, and float32 on a CPU."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    check_precision(device, DTYPES[name])
    return DTYPES[name]


class ImageCodec(Protocol):
    """A VAE. It brings itself to its device at each call."""

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) in 0..1 to latents (B, 4, H / 8, W / 8): the distribution's mean, times 0.18215."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, 4, h, w), on any device, to (B, 8 h, 8 w, 3) in 0..1, float32 on the CPU."""


class PictureEncoder(Protocol):
    """CLIP's image encoder with its projection. It brings itself to its device at each call."""

    def embed(self, portrait: torch.Tensor) -> torch.Tensor:
        """(H, W, 3) in 0..1 to the projected embedding (1, C), of the pixels that `pictures.clip_pixels` makes."""


def decoded(
    codec: ImageCodec,
    latents: torch.Tensor | Iterable[torch.Tensor],
    batch: int = 4,
    progress: Progress = no_progress,
) -> Iterator[torch.Tensor]:
    """Frames (B, H, W, 3) of a video's latents (1, 4, F, h, w), or of such pieces of it one after the other.

    At most `batch` frames are decoded together, fewer where memory does not suffice. `progress` is called after each
    batch with the frames done, the total so far, and the newest frame.

    Raises TalkingPortraitError where the VAE gives NaN.
    """
    batches = HalvingBatches(batch, "frame")
    done = total = 0
    for piece in [latents] if isinstance(latents, torch.Tensor) else latents:
        rows = piece[0].transpose(0, 1)
        total += len(rows)

        def decode(start: int, end: int, rows: torch.Tensor = rows) -> torch.Tensor:
            return codec.decode(rows[start:end])

        for frames in batches.each(len(rows), decode):
            check_finite(
                frames,
                "The VAE",
                "let it run in full precision, or download its file again",
                where=f" for frame {done} or one of the next",
            )
            done += len(frames)
            progress(done, total, frames[-1])
            yield frames


def rough_picture(latents: torch.Tensor) -> torch.Tensor:
    """What latents (4, h, w) roughly look like: (h, w, 3) in 0..1 on the CPU, without a VAE. Good for a preview."""
    colours = torch.tensor(_RGB, dtype=torch.float32)
    picture = torch.einsum("chw,cr->hwr", latents.detach().to("cpu", torch.float32), colours)
    return (picture / 2 + 0.5).nan_to_num(0.5).clamp(0, 1)
