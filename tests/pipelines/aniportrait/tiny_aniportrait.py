"""Small networks of AniPortrait's kind, and what stands for the VAE and CLIP: everything but published weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from talking_portrait.models.aniportrait.pose_guider import PoseGuider
from talking_portrait.models.diffusion.unet import UNet, UNetConfig
from talking_portrait.pipelines.aniportrait.settings import Networks
from talking_portrait.pipelines.memory import Resident

SIZE = 64
CONFIG = UNetConfig(channels=(32, 64), attention=(True, False), layers=1, context=24, motion_frames=32)


class Guider(PoseGuider):
    """A pose guider of the real one's kind: features that vary with the drawings of the whole window."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, drawings: torch.Tensor, *, batch_statistics: bool = True, statistics=None) -> list[torch.Tensor]:
        mean, variance = statistics[0] if statistics else (drawings.mean(), drawings.var())
        level = (drawings - mean) / (variance + 1e-3).sqrt() if batch_statistics or statistics else drawings
        level = F.avg_pool3d(level.float(), (1, 8, 8)).mean(dim=1, keepdim=True)
        halves = F.avg_pool3d(level, (1, 2, 2), ceil_mode=True)
        widths = ((level, 32), (halves, 32), (halves, 64))
        return [x.expand(-1, width, -1, -1, -1).to(drawings.dtype) for x, width in widths]

    def statistics(self, drawings: torch.Tensor):
        return ((drawings.mean(), drawings.var()),)


class Codec:
    """Eight by eight pixels to a latent, by their mean colour; the fourth channel is the mean of the others."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        colours = F.avg_pool2d(pictures.permute(0, 3, 1, 2), 8) - 0.5
        return torch.cat([colours, colours.mean(dim=1, keepdim=True)], dim=1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.decoded.append(len(latents))
        return F.interpolate(latents[:, :3].cpu() / 4 + 0.5, scale_factor=8).permute(0, 2, 3, 1).clamp(0, 1)


class Encoder:
    def embed(self, portrait: torch.Tensor) -> torch.Tensor:
        return portrait.mean(dim=(0, 1)).repeat(1, CONFIG.context // 3)


class Drawings:
    """Draws a moving square on request, and records the requested frames."""

    def __init__(self, frames: int, size: int = SIZE, start: int = 0) -> None:
        self.frames, self.size, self.start = frames, size, start
        self.requested: list[int] = []

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, frame: int, /) -> torch.Tensor:
        if not 0 <= frame < self.frames:
            raise IndexError(frame)
        self.requested.append(frame)
        drawing = torch.zeros(self.size, self.size, 3)
        left = (frame + self.start) * 3 % (self.size - 16)
        drawing[left : left + 16, 20:40] = 200 / 255
        return drawing


def networks(managed: Callable[[torch.nn.Module], Resident] = Resident, dtype: torch.dtype = torch.float32) -> Networks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unets = UNet(replace(CONFIG, motion_frames=0, output=False)), UNet(CONFIG)
    reference, denoising = (unet.eval().requires_grad_(False).to(dtype) for unet in unets)
    return Networks(managed(reference), managed(denoising), managed(Guider()), dtype)


def portrait() -> torch.Tensor:
    return torch.rand(80, 70, 3, generator=torch.Generator().manual_seed(1))
