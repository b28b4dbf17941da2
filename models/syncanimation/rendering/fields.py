"""The networks that give density and colour: the head's in space, the torso's on the image's plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..audio_nets import AUDIO_CODE, AudioAttention, AudioNet, LinearAudioNet
from .camera import turned
from .encodings import SPHERICAL_HARMONICS, frequency_encoding, frequency_size, spherical_harmonics
from .hash_grid import GridConfig, HashGrid
from .tri_plane import lay_out, plane_features

COLOUR_MARGIN = 0.001
"""How far beyond 0..1 colours and the torso's alpha reach."""
HEAD_CODE, TORSO_CODE = 4, 8
"""Values of a training frame's own code."""
ANCHORS = ((0.01, 0.01, 0.1, 1.0), (-0.1, -0.1, 0.1, 1.0), (0.1, -0.1, 0.1, 1.0))
"""Homogeneous points that move with the head and show its pose to the torso, before training."""
GRID_RATE, NET_RATE, ATTENTION_RATE, ATTENTION_DECAY = 1e-2, 1e-3, 5e-3, 1e-4
"""Published learning rates, and the audio attention's weight decay."""


class Layers(nn.Module):
    """Linear layers without bias, with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.net = nn.ModuleList(nn.Linear(before, after, bias=False) for before, after in pairs)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for layer in self.net[:-1]:
            values = F.relu(layer(values))
        return self.net[-1](values)


def bounded(values: torch.Tensor) -> torch.Tensor:
    """Values as colours or alphas in float32, which reach a little beyond 0..1 (published)."""
    return values.float().sigmoid() * (1 + 2 * COLOUR_MARGIN) - COLOUR_MARGIN


def _codes(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(0.1 * torch.randn(rows, width))


# --- head ---


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of the head's field.

    `channels` are those of the speech features (N, channels, steps), or with `linear_audio` all values of a frame's
    features. `expressions` are 7 values of the upper face, or OpenFace's AU45 alone; 0 leaves them out. `codes` counts
    training frames. The others are the published sizes.
    """

    channels: int = 1024
    linear_audio: bool = False
    expressions: int = 7
    codes: int = 20000
    grid: GridConfig = GridConfig()
    hidden: int = 64
    geometry: int = 64
    expression_hidden: int = 64
    uncertainty_hidden: int = 32


class HeadSamples(NamedTuple):
    """Density (n,), colour (n, 3), lengths of the two attention vectors (n,), uncertainty (n,)."""

    density: torch.Tensor
    colour: torch.Tensor
    ambient_audio: torch.Tensor
    ambient_expression: torch.Tensor
    uncertainty: torch.Tensor


class HeadDensity(NamedTuple):
    """What `HeadField.densities` gives: all but the colour, which needs the `geometry` features (n, 64)."""

    density: torch.Tensor
    geometry: torch.Tensor
    ambient_audio: torch.Tensor
    ambient_expression: torch.Tensor
    uncertainty: torch.Tensor


class HeadField(nn.Module):
    """Points and directions of view to density and colour, given the audio code and the expression of a frame."""

    compiled = False
    """Whether the planes' entries are fetched by what `torch.compile` makes of that, for graphics cards."""

    def __init__(self, config: HeadConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HeadConfig()
        self.individual_codes = _codes(config.codes, HEAD_CODE)
        self.audio_net = (LinearAudioNet if config.linear_audio else AudioNet)(config.channels)
        self.audio_att_net = AudioAttention()
        self.encoder_xy, self.encoder_yz, self.encoder_xz = (HashGrid(config.grid) for _ in range(3))
        features = 3 * config.grid.outputs
        self.aud_ch_att_net = Layers(features, config.hidden, AUDIO_CODE)
        if config.expressions:
            self.eye_att_net = Layers(features, config.expression_hidden, config.expressions)
        inputs = features + AUDIO_CODE + config.expressions
        self.sigma_net = Layers(inputs, config.hidden, config.hidden, 1 + config.geometry)
        self.color_net = Layers(SPHERICAL_HARMONICS + config.geometry + HEAD_CODE, config.hidden, 3)
        self.unc_net = Layers(features, config.uncertainty_hidden, 1)

    def encode_audio(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows (B, 8, channels, steps) of `speech_windows` to audio codes (B, 32)."""
        codes = self.audio_net(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        return self.audio_att_net(codes)

    @property
    def tables(self) -> torch.Tensor:
        """The three planes' entries (3, entries)."""
        return torch.stack([grid.embeddings[:, 0] for grid in (self.encoder_xy, self.encoder_yz, self.encoder_xz)])

    def layout(self) -> torch.Tensor | None:
        """The tables as a CPU interpolates them, for many calls without gradients; None elsewhere."""
        return lay_out(self.tables, self.config.grid) if self.encoder_xy.embeddings.device.type == "cpu" else None

    def encode(self, points: torch.Tensor, layout: torch.Tensor | None = None) -> torch.Tensor:
        """Points (n, 3) of -1..1 to the planes' features (n, 36)."""
        return plane_features(points, self.tables, self.config.grid, layout, compiled=self.compiled)

    def forward(
        self,
        points: torch.Tensor,
        directions: torch.Tensor,
        audio: torch.Tensor,
        expression: torch.Tensor,
        code: torch.Tensor,
    ) -> HeadSamples:
        """Points and unit directions (n, 3); audio codes (1, 32), expressions (1, 7), code (1, 4), or n of each."""
        found = self.densities(self.encode(points), audio, expression)
        colour = self.colours(found.geometry, spherical_harmonics(directions), code)
        return HeadSamples(found.density, colour, *found[2:])

    def densities(
        self, features: torch.Tensor, audio: torch.Tensor, expression: torch.Tensor, *, uncertain: bool = True
    ) -> HeadDensity:
        """Features (n, 36) of points to all but their colour; uncertainty 0 without `uncertain`."""
        attention, eyes = self._attention(features)
        inputs = [features, audio * attention]
        if eyes is not None:
            inputs.append(expression * eyes)
        values = self.sigma_net(torch.cat(inputs, 1))
        # float32 at least: in half precision the exponential would overflow from 11 on.
        density = torch.exp(values[:, 0].float())
        uncertainty = self._uncertainty(features) if uncertain else torch.zeros_like(density)
        return HeadDensity(density, values[:, 1:], *_lengths(attention, eyes), uncertainty)

    def colours(self, geometry: torch.Tensor, harmonics: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Geometry (n, 64), spherical harmonics (n, 16) of the directions and the code (1, 4) or (n, 4) to (n, 3)."""
        code = code.expand(len(geometry), -1)
        return bounded(self.color_net(torch.cat([harmonics, geometry, code], 1)))

    def attention(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Lengths of the attention vectors and uncertainty (n,) of points, which neighbours are to have alike."""
        features = self.encode(points)
        return *_lengths(*self._attention(features)), self._uncertainty(features)

    def _attention(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.aud_ch_att_net(features), self.eye_att_net(features) if self.config.expressions else None

    def _uncertainty(self, features: torch.Tensor) -> torch.Tensor:
        return F.softplus(self.unc_net(features.detach()).float())[:, 0]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For an optimiser, with the published learning rates."""
        grids = ("encoder_xy.", "encoder_yz.", "encoder_xz.")
        return _groups(self, grids, "audio_att_net.")


def _lengths(attention: torch.Tensor, eyes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    audio = attention.float().norm(dim=1)
    return audio, torch.zeros_like(audio) if eyes is None else eyes.float().norm(dim=1)


def _groups(module: nn.Module, grids: tuple[str, ...], attention: str) -> list[dict[str, Any]]:
    named = list(module.named_parameters())
    of_grids = [tensor for name, tensor in named if name.startswith(grids)]
    of_attention = [tensor for name, tensor in named if attention and name.startswith(attention)]
    taken = {id(tensor) for tensor in (*of_grids, *of_attention)}
    groups: list[dict[str, Any]] = [
        {"params": of_grids, "lr": GRID_RATE},
        {"params": [tensor for _, tensor in named if id(tensor) not in taken], "lr": NET_RATE},
    ]
    if of_attention:
        groups.append({"params": of_attention, "lr": ATTENTION_RATE, "weight_decay": ATTENTION_DECAY})
    return groups


# --- torso ---


@dataclass(frozen=True)
class TorsoConfig:
    """Sizes of the torso's field; `shrink` is what the image's coordinates are multiplied by. Published sizes."""

    codes: int = 20000
    shrink: float = 0.8
    grid: GridConfig = GridConfig(levels=16, features=2, base=16, finest=2048, log2_entries=16, kind="tiled")
    hidden: int = 32
    octaves: int = 8
    anchor_octaves: int = 3


class TorsoSamples(NamedTuple):
    """Alpha (n, 1), colour (n, 3), and how far the coordinates were moved (n, 2)."""

    alpha: torch.Tensor
    colour: torch.Tensor
    offset: torch.Tensor


class TorsoField(nn.Module):
    """Coordinates of the image to the torso's alpha and colour, given the pose of the head."""

    def __init__(self, config: TorsoConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TorsoConfig()
        self.individual_codes_torso = _codes(config.codes, TORSO_CODE)
        self.anchor_points = nn.Parameter(torch.tensor(ANCHORS))
        condition = (
            frequency_size(2, config.octaves) + frequency_size(2 * len(ANCHORS), config.anchor_octaves) + TORSO_CODE
        )
        self.torso_deform_net = Layers(condition, config.hidden, config.hidden, 2)
        self.torso_encoder = HashGrid(config.grid)
        self.torso_net = Layers(config.grid.outputs + condition, config.hidden, config.hidden, 4)

    def forward(self, coordinates: torch.Tensor, pose: torch.Tensor, code: torch.Tensor) -> TorsoSamples:
        """Coordinates (n, 2) of `pixel_coordinates`, the renderer's pose (4, 4) or (1, 4, 4), and the code (1, 8)."""
        places = coordinates * self.config.shrink
        anchors = frequency_encoding(self.anchors(pose), self.config.anchor_octaves)
        condition = torch.cat([anchors, code.expand(1, -1)], 1).expand(len(places), -1)
        condition = torch.cat([frequency_encoding(places, self.config.octaves), condition], 1)
        offset = self.torso_deform_net(condition)
        features = self.torso_encoder((places + offset).clamp(-1, 1))
        values = bounded(self.torso_net(torch.cat([features, condition], 1)))
        return TorsoSamples(values[:, :1], values[:, 1:], offset)

    def anchors(self, pose: torch.Tensor) -> torch.Tensor:
        """The anchor points as a camera of this pose sees them, (1, 6)."""
        seen = turned(self.anchor_points, torch.linalg.inv(pose.reshape(4, 4).T).T)
        return (seen[:, :2] / seen[:, 3:] / seen[:, 2:3]).reshape(1, -1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For an optimiser, with the published learning rates."""
        return _groups(self, ("torso_encoder.",), "")
