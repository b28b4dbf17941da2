"""The networks of Hallo and APasco, as net.pth holds them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from ..diffusion.unet import UNet, UNetConfig
from .face_locator import FaceLocator
from .mesh_encoder import MeshEncoder
from .projections import WINDOW, AudioProjection, ImageProjection


@dataclass(frozen=True)
class NetworksConfig:
    """Sizes; the defaults are the published ones. `mesh_tokens` 0 stands for no mesh encoder."""

    reference_unet: UNetConfig = field(default_factory=lambda: UNetConfig(output=False))
    denoising_unet: UNetConfig = field(default_factory=lambda: UNetConfig(motion_frames=32, audio=768))
    locator_widths: tuple[int, ...] = (16, 32, 64, 128)
    face_embedding: int = 512
    face_tokens: int = 4
    audio_inputs: int = WINDOW * 12 * 768
    audio_inner: int = 512
    audio_tokens: int = 32
    mesh_tokens: int = 0

    def with_geometry(self, tokens: int = 16, *, learnt_weights: bool = False) -> NetworksConfig:
        """The same with APasco's mesh encoder, and attention to it in every audio module."""
        unet = replace(self.denoising_unet, geometry=self.denoising_unet.audio, learnt_weights=learnt_weights)
        return replace(self, denoising_unet=unet, mesh_tokens=tokens)


class Networks(nn.Module):
    """All networks under the prefixes of net.pth. They run one by one, never as a whole."""

    def __init__(self, config: NetworksConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworksConfig()
        unet = config.denoising_unet
        self.reference_unet = UNet(config.reference_unet)
        self.denoising_unet = UNet(unet)
        self.face_locator = FaceLocator(unet.channels[0], config.locator_widths)
        self.imageproj = ImageProjection(config.face_embedding, unet.context, config.face_tokens)
        self.audioproj = AudioProjection(config.audio_inputs, config.audio_inner, unet.audio, config.audio_tokens)
        self.mesh_encoder = MeshEncoder(unet.geometry, config.mesh_tokens) if config.mesh_tokens else None
