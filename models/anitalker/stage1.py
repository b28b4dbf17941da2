"""AniTalker's stage 1 as a whole: a face to its motion, and motion back to a face."""

from __future__ import annotations

from torch import nn

from .encoder import EncoderConfig, MotionEncoder
from .renderer import Renderer, RendererConfig


class Stage1(nn.Module):
    """`enc`, the motion encoder, and `dec`, the warping renderer, under their published names."""

    def __init__(self, encoder: EncoderConfig | None = None, renderer: RendererConfig | None = None) -> None:
        super().__init__()
        self.enc = MotionEncoder(encoder)
        self.dec = Renderer(renderer)

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return self.enc.config.size
