"""AniTalker's stage 2: speech and a portrait to motion codes, as the noise predictor of a diffusion model.

    audio = stage2.encode_sequence(stage2.encode_audio(features))   # speech alone
    audio, controls = stage2.apply_controls(audio, controls)        # location, scale and pose, given or predicted
    condition = stage2.condition(audio, start, code)
    noise = stage2.predict(condition, noisy, timesteps)             # the only part that the time step changes

The published program runs everything at each step; the first three parts give the same at all of them.

Source: AniTalker (section 3.2 of the paper and the published weights).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .conformer import Conformer


@dataclass(frozen=True)
class ConformerConfig:
    """Sizes of one conformer."""

    width: int
    inner: int
    heads: int
    kernel: int
    blocks: int


@dataclass(frozen=True)
class Stage2Config:
    """Sizes of a stage 2, and which of the five published variants it is.

    `features` channels of the speech features; `layers` of them that are mixed, 0 for MFCC, which then has `middle`
    channels between its two convolutions; `audio_channels` of the encoded speech; `speech` and `decoder` conformers;
    `hidden` of the LSTMs; `projection` width of each of the four inputs of the decoder beside the speech; `pose` and
    `placement`: which controls there are.
    """

    features: int = 1024
    layers: int = 25
    middle: int = 256
    audio_channels: int = 512
    speech: ConformerConfig | None = ConformerConfig(512, 512, 2, 13, 4)
    decoder: ConformerConfig = ConformerConfig(1024, 1024, 2, 13, 2)
    hidden: int = 128
    projection: int = 128
    style: int = 512
    motion: int = 20
    pose: bool = True
    placement: bool = True

    @property
    def feature_kind(self) -> str:
        """The kind of speech features, "hubert" or "mfcc"."""
        return "hubert" if self.layers else "mfcc"

    @property
    def rows(self) -> int:
        """Rows of speech features to one frame of motion."""
        return 2 if self.layers else 4

    @property
    def variant(self) -> str:
        """The published program's name for it."""
        controls = "full_control" if self.placement else "pose_only" if self.pose else "audio_only"
        return f"{self.feature_kind}_{controls}"


@dataclass(frozen=True)
class Controls:
    """Pose and place of the head, (B, F, n): `pose` yaw, pitch and roll over 90 degrees; `location` and `scale` of the
    face in parts of the picture's width."""

    pose: torch.Tensor
    location: torch.Tensor
    scale: torch.Tensor


class Recurrent(nn.Module):
    """An LSTM over time and a layer on top."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, num_layers=2, batch_first=True)
        self.fc = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lstm(x)[0])


class Stage2(nn.Module):
    """Predicts the noise of motion codes. Names are the published ones."""

    def __init__(self, config: Stage2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Stage2Config()
        if config.layers:
            self.weights = nn.Parameter(torch.empty(config.layers))
            self.down_sample1 = _halving(config.features, config.audio_channels)
        else:
            self.down_sample1 = _halving(config.features, config.middle)
            self.down_sample2 = _halving(config.middle, config.audio_channels)
        if config.speech:
            self.speech_encoder = _conformer(config.speech)
        self.coarse_decoder = _conformer(config.decoder)
        for name, size in self._controls():
            self.add_module(f"{name}_predictor", Recurrent(config.audio_channels, config.hidden, size))
            self.add_module(f"{name}_encoder", Recurrent(size, config.hidden, config.audio_channels))
        self.init_code_proj = nn.Sequential(nn.Linear(config.style, config.projection))
        self.noisy_encoder = nn.Sequential(nn.Linear(config.motion, config.projection))
        self.t_encoder = nn.Sequential(nn.Linear(1, config.projection))
        self.encoder_direction_code = nn.Linear(config.motion, config.projection)
        self.out_proj = nn.Linear(config.decoder.width, config.motion)

    def _controls(self) -> list[tuple[str, int]]:
        """Names and sizes, in the order in which they are added; each is predicted from the sum so far."""
        placement = [("location", 1), ("face_scale", 1)] if self.config.placement else []
        return [*placement, *([("pose", 3)] if self.config.pose else [])]

    @property
    def mix(self) -> torch.Tensor:
        """(layers,) shares of the hidden states that HuBERT gives; they add up to one."""
        return self.weights.softmax(0)

    def encode_audio(self, features: torch.Tensor) -> torch.Tensor:
        """Speech features (B, rows * F, features), hidden states already mixed, to (B, F, channels) at 25 a second."""
        audio = self.down_sample1(features.transpose(1, 2))
        if not self.config.layers:
            audio = self.down_sample2(audio)
        return audio.transpose(1, 2)

    def encode_sequence(self, audio: torch.Tensor) -> torch.Tensor:
        """Encoded speech (B, F, channels) after the conformer over the whole sequence; with MFCC as it is."""
        return self.speech_encoder(audio) if self.config.speech else audio

    def apply_controls(
        self, audio: torch.Tensor, controls: Controls | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Adds the controls (B, F, n), predicted from the speech when none are given; also returns them by name."""
        used: dict[str, torch.Tensor] = {}
        given = {} if controls is None else vars(controls) | {"face_scale": controls.scale}
        for name, _ in self._controls():
            used[name] = self.get_submodule(f"{name}_predictor")(audio) if controls is None else given[name]
            audio = audio + self.get_submodule(f"{name}_encoder")(used[name])
        return audio, used

    def condition(self, audio: torch.Tensor, start: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """(B, F, channels + 2 projections): the speech beside the portrait's code (B, motion) and start (B, style)."""
        beside = torch.cat([self.encoder_direction_code(code), self.init_code_proj(start)], dim=-1)
        return torch.cat([audio, beside[:, None].expand(-1, audio.shape[1], -1)], dim=-1)

    def predict(
        self,
        condition: torch.Tensor,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        places: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The noise (B, F, motion) in `noisy` codes at time steps (B,) of 0..999, which the network takes as they are.

        `places`: as for `Conformer`, of `coarse_decoder`.
        """
        time = self.t_encoder(timesteps[:, None].to(noisy))[:, None].expand(-1, noisy.shape[1], -1)
        return self.out_proj(
            self.coarse_decoder(torch.cat([condition, self.noisy_encoder(noisy), time], dim=-1), places)
        )


def _halving(inputs: int, outputs: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, 3, stride=2, padding=1)


def _conformer(config: ConformerConfig) -> Conformer:
    return Conformer(config.width, inner=config.inner, heads=config.heads, kernel=config.kernel, blocks=config.blocks)
