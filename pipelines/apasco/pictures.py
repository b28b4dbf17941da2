"""Pictures as APasco takes them, and colours kept near the portrait's."""

from __future__ import annotations

import torch

from ..image.resizing import resized_on_bytes


def portrait_picture(portrait: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(H, W, 3) in 0..1 squeezed to `size` (height, width), whatever becomes of its shape; on the CPU."""
    return resized_on_bytes(portrait, size, "BILINEAR")[0].permute(1, 2, 0)


def match_colours(frames: torch.Tensor, portrait: torch.Tensor, strength: float) -> torch.Tensor:
    """Frames (F, H, W, 3) whose colours, all frames together, come nearer to the portrait's (H, W, 3).

    Mean and spread of each colour are drawn to the portrait's. `strength` 0 leaves them, 1 matches both exactly but for
    what 0..1 cuts off. A small one, in every clip anew, is enough to keep colours from running away, as each clip
    continues the one before it.
    """
    if not strength:
        return frames
    deviation, mean = torch.std_mean(frames, dim=(0, 1, 2))
    wanted_deviation, wanted_mean = torch.std_mean(portrait, dim=(0, 1))
    matched = (frames - mean) * (wanted_deviation / deviation.clamp(min=1e-3)) + wanted_mean
    return torch.lerp(frames, matched, strength).clamp(0, 1)
