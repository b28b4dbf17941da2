"""CLIP's image encoder as AniPortrait uses it: without a host's own, and any that has ComfyUI's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import TalkingPortraitError
from ..image.resizing import resized_on_bytes
from ..memory import Managed, loaded
from ..progress import check_between_layers
from .pictures import CLIP_MEAN, CLIP_SIZE, CLIP_STD


class ClipEncoder:
    """A `PictureEncoder` from a CLIP vision encoder with ComfyUI's `encode_image`."""

    def __init__(self, clip_vision: Any) -> None:
        self.clip_vision = clip_vision
        check_between_layers(getattr(clip_vision, "model", None))

    def embed(self, portrait: torch.Tensor) -> torch.Tensor:
        """Raises TalkingPortraitError for an encoder without the projection."""
        # Squeezed as published; ComfyUI's own resizing would cut the sides off.
        picture = resized_on_bytes(portrait, (CLIP_SIZE, CLIP_SIZE), "BICUBIC").movedim(1, -1)
        output = self.clip_vision.encode_image(picture)
        try:
            embedding = output["image_embeds"]
        except (AttributeError, IndexError, KeyError, TypeError):
            embedding = None
        if not isinstance(embedding, torch.Tensor):
            raise TalkingPortraitError(
                "The CLIP vision encoder has no projection, which the networks expect; load the image encoder of "
                "sd-image-variations (ViT-L/14 with projection)."
            )
        return embedding.float()


class LoadedClipVision:
    """CLIP_VISION without ComfyUI; `memory` manages the network that `models/diffusion/clip_vision.py` loads."""

    def __init__(self, memory: Managed) -> None:
        self.memory = memory

    @torch.no_grad()
    def encode_image(self, image: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Projected embeddings (B, C), as `image_embeds`, of pictures in its own size, (B, 224, 224, 3) in 0..1."""
        pixels = (image - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
        network, device = loaded(self.memory, torch.nn.Module)
        return {"image_embeds": network(pixel_values=pixels.movedim(-1, 1).to(device)).image_embeds.cpu()}
