"""Less flicker in latents: clips that fade into each other, and an average over time outside the lips."""

from __future__ import annotations

import torch

from ...models.diffusion.layout import REGIONS


def faded(held: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """A clip's latents (1, 4, F, h, w), the first n frames faded in from those held of the last (1, 4, n, h, w)."""
    count = min(held.shape[2], latents.shape[2])
    if not count:
        return latents
    weight = (torch.arange(1, count + 1) / (count + 1))[:, None, None]
    blend = torch.lerp(held[:, :, :count], latents[:, :, :count], weight)
    return torch.cat([blend, latents[:, :, count:]], dim=2)


def smooth_over_time(
    latents: torch.Tensor, before: torch.Tensor | None, mask: torch.Tensor, strength: float
) -> torch.Tensor:
    """Latents (1, 4, F, h, w), each frame averaged with its neighbours where there are no lips.

    `before` (1, 4, 1, h, w) is the frame before the first; `mask` (3, 1, h, w) in the order of `REGIONS`. With
    `strength` 1 a frame counts for a half and its neighbours for a quarter each; 0 leaves all as they are.
    """
    if not strength:
        return latents
    first = latents[:, :, :1] if before is None else before
    around = torch.cat([first, latents, latents[:, :, -1:]], dim=2)
    average = (around[:, :, :-2] + 2 * latents + around[:, :, 2:]) / 4
    lips = mask[REGIONS.index("lip")].to(latents.dtype)
    return latents + strength * (1 - lips) * (average - latents)
