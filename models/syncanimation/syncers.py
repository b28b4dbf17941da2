"""AudioPose Syncer and AudioEmotion Syncer: speech to head poses and to the expression of the upper face.

All inputs and outputs are normalised labels (`labels.Statistics`), one row for each of N consecutive frames. Both
normalise over the rows of a call, so training passes all frames of a person at once (published).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from .labels import BROWS
from .syncer_layers import AudioTrunk, NormedLinear, Stack, VectorUNet, moments

TIME_PERIOD = 10000
"""Frames after which the emotion syncer's time code repeats."""


class SyncerOutput(NamedTuple):
    """What training compares.

    `prediction` and the autoencoder's `reconstruction` are labels; `mean` and `log_variance` its code's.
    """

    prediction: torch.Tensor
    reconstruction: torch.Tensor
    mean: torch.Tensor
    log_variance: torch.Tensor


def sample_code(mean: torch.Tensor, log_variance: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return mean + (log_variance / 2).exp() * noise


# --- pose ---


@dataclass(frozen=True)
class PoseSyncerConfig:
    """`code` is the autoencoder's; published sizes as defaults."""

    audio: int = 256
    hidden: int = 128
    code: int = 32
    autoencoder: int = 256
    condition: int = 256
    layers: int = 1
    dropout: float = 0.6

    @property
    def joined(self) -> int:
        return self.hidden + 6 + 2 * self.condition


class _PoseEncoder(Stack):
    def __init__(self, config: PoseSyncerConfig) -> None:
        super().__init__()
        self.add_blocks(6, config.autoencoder, 2 * config.code, "block7")

    def forward(self, pose: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return moments(self.pass_blocks(pose))


class _PoseDecoder(Stack):
    def __init__(self, config: PoseSyncerConfig) -> None:
        super().__init__()
        self.add_blocks(config.code, config.autoencoder, 6, "output_layer")

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        return self.pass_blocks(code)


class _PoseHeads(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.euler_fc = NormedLinear(width, width // 2)
        self.euler_yr = nn.Linear(width // 2, 2)
        self.euler_p = nn.Linear(width // 2, 1)
        self.translation_fc = NormedLinear(width, width // 2)
        self.translation_xy = nn.Linear(width // 2, 2)
        self.translation_z = nn.Linear(width // 2, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        euler, translation = self.euler_fc(values), self.translation_fc(values)
        parts = (
            self.euler_p(euler),
            self.euler_yr(euler),
            self.translation_xy(translation),
            self.translation_z(translation),
        )
        return torch.cat(parts, 1)


class PoseSyncer(nn.Module):
    """Audio features and the pose of the frame before to the pose: Euler angles, then translation."""

    def __init__(self, config: PoseSyncerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PoseSyncerConfig()
        self.autoencoder = nn.ModuleDict({"encoder": _PoseEncoder(config), "decoder": _PoseDecoder(config)})
        self.unet_pose = VectorUNet(config.joined, config.hidden)
        self.label_mapp = NormedLinear(5, config.condition, config.dropout)
        self.pitch_mapp = NormedLinear(1, config.condition, config.dropout)
        self.audio_first = NormedLinear(config.audio, config.hidden)
        self.norm4 = nn.BatchNorm1d(config.hidden)
        for number in range(config.layers):
            self.add_module(f"audio_encoder{number}", nn.Sequential(NormedLinear(config.hidden, config.hidden)))
        self.attr_map_net = _PoseHeads(config.hidden)

    def forward(self, audio: torch.Tensor, previous: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Audio (N, 256), poses (N, 6) of the frames before and codes (N, 32) to poses (N, 6).

        In driving, `code` is drawn from a normal distribution of mean 0 and deviation 1.
        """
        return self._predict(audio, previous, self.decode(code))

    def training_pass(
        self, audio: torch.Tensor, previous: torch.Tensor, pose: torch.Tensor, noise: torch.Tensor
    ) -> SyncerOutput:
        """The same with codes that are sampled around those of the true poses (N, 6), from `noise` (N, 32)."""
        mean, log_variance = self.encode(pose)
        reconstruction = self.decode(sample_code(mean, log_variance, noise))
        return SyncerOutput(self._predict(audio, previous, reconstruction), reconstruction, mean, log_variance)

    def encode(self, pose: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Poses (N, 6) to the mean and the logarithm of the variance of their codes, (N, 32) each."""
        return self.autoencoder["encoder"](pose)

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        return self.autoencoder["decoder"](code)

    def _predict(self, audio: torch.Tensor, previous: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        values = self.audio_first(audio)
        for number in range(self.config.layers):
            values = self.get_submodule(f"audio_encoder{number}")(values) + self.norm4(values)
        joined = [values, decoded, self.pitch_mapp(previous[:, :1]), self.label_mapp(previous[:, 1:])]
        return self.attr_map_net(self.unet_pose(torch.cat(joined, 1)))


# --- emotion ---


@dataclass(frozen=True)
class EmotionSyncerConfig:
    """`audio_hidden` are the channels of the convolutions, `width` the U-Net's; published sizes as defaults."""

    audio: int = 256
    audio_hidden: int = 128
    width: int = 256
    code: int = 256
    autoencoder: int = 64
    expressions: int = 7
    embedding: int = 64
    time: int = 16
    brow_condition: int = 128
    blink_condition: int = 256
    layers: int = 3

    @property
    def blinks(self) -> int:
        return self.expressions - BROWS

    @property
    def joined(self) -> int:
        return self.audio_hidden + self.expressions + self.brow_condition + self.blink_condition


_AUTOENCODER_LAYERS, _AUTOENCODER_DROPOUT = 2, 0.1


def time_code(frames: torch.Tensor) -> torch.Tensor:
    """Frame numbers (N,) to sine and cosine (N, 2)."""
    angle = 2 * math.pi * (torch.remainder(frames, TIME_PERIOD).float() / TIME_PERIOD)
    return torch.stack([angle.sin(), angle.cos()], 1)


class _EmotionCoder(AudioTrunk, Stack):
    """An encoder or a decoder with audio and time beside its `own` inputs."""

    def __init__(self, config: EmotionSyncerConfig, own: int, after: int, last: str) -> None:
        super().__init__(config.audio, config.audio_hidden, _AUTOENCODER_LAYERS, _AUTOENCODER_DROPOUT)
        self.timeEmbedding = nn.Linear(2, config.time)
        before = config.expressions + own + config.audio_hidden + config.time
        self.add_blocks(before, config.autoencoder, after, last)

    def pass_joined(self, own: torch.Tensor, condition: Condition) -> torch.Tensor:
        audio, time = self.project_audio(condition.audio), self.timeEmbedding(time_code(condition.frames))
        return self.pass_blocks(torch.cat([condition.average, own, audio, time], 1))


class Condition(NamedTuple):
    """What the emotion syncer's autoencoder depends on: audio, average expression and frame numbers."""

    audio: torch.Tensor
    average: torch.Tensor
    frames: torch.Tensor


class _EmotionEncoder(_EmotionCoder):
    def __init__(self, config: EmotionSyncerConfig) -> None:
        super().__init__(config, config.embedding, 2 * config.code, "block7")
        self.bsEmbedding = nn.Linear(config.expressions, config.embedding)

    def forward(self, expression: torch.Tensor, condition: Condition) -> tuple[torch.Tensor, torch.Tensor]:
        return moments(self.pass_joined(self.bsEmbedding(expression), condition))


class _EmotionDecoder(_EmotionCoder):
    def __init__(self, config: EmotionSyncerConfig) -> None:
        super().__init__(config, config.code, config.expressions, "output_layer")

    def forward(self, code: torch.Tensor, condition: Condition) -> torch.Tensor:
        return self.pass_joined(code, condition)


class _ExpressionHeads(nn.Module):
    def __init__(self, width: int, blinks: int) -> None:
        super().__init__()
        self.arkit_fc1 = NormedLinear(width, width // 2)
        self.arkit_fc2 = NormedLinear(width, width // 2)
        self.arkit_output_1 = nn.Linear(width // 2, BROWS)
        self.arkit_output_2 = nn.Linear(width // 2, blinks)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        brows, blinks = self.arkit_fc1(values), self.arkit_fc2(values)
        return torch.cat([self.arkit_output_1(brows), self.arkit_output_2(blinks)], 1)


class EmotionSyncer(AudioTrunk):
    """Audio features and a reference expression to the brows and blinks of each frame.

    `audio` is windows of features (N, 256, 27), as published, or the features (N, 256) themselves of N consecutive
    frames, which takes a fraction of the time; see `AudioTrunk.project_audio`.
    """

    def __init__(self, config: EmotionSyncerConfig | None = None) -> None:
        config = config or EmotionSyncerConfig()
        super().__init__(config.audio, config.audio_hidden, config.layers)
        self.config = config
        self.autoencoder = nn.ModuleDict({"encoder": _EmotionEncoder(config), "decoder": _EmotionDecoder(config)})
        self.unet_bs = VectorUNet(config.joined, config.width)
        self.bs_mapp = NormedLinear(BROWS, config.brow_condition, 0.6)
        self.blink_mapp = NormedLinear(config.blinks, config.blink_condition, 0.5)
        self.attr_map_net = _ExpressionHeads(config.width, config.blinks)

    def forward(
        self,
        audio: torch.Tensor,
        average: torch.Tensor,
        reference: torch.Tensor,
        frames: torch.Tensor,
        code: torch.Tensor,
    ) -> torch.Tensor:
        """Expressions (N, 7).

        `average` (N, 7) is the person's average blendshapes as they are, `reference` (N, 7) the first frame's labels,
        `frames` (N,) counts, and `code` (N, 256) is drawn from a normal distribution of mean 0 and deviation 1.
        """
        condition = Condition(audio, average, frames.flatten())
        return self._predict(audio, reference, self.autoencoder["decoder"](code, condition))

    def training_pass(
        self,
        audio: torch.Tensor,
        average: torch.Tensor,
        expression: torch.Tensor,
        frames: torch.Tensor,
        noise: torch.Tensor,
    ) -> SyncerOutput:
        """The same with the true labels (N, 7) as reference, and codes sampled around theirs, from `noise` (N, 256)."""
        condition = Condition(audio, average, frames.flatten())
        mean, log_variance = self.autoencoder["encoder"](expression, condition)
        reconstruction = self.autoencoder["decoder"](sample_code(mean, log_variance, noise), condition)
        return SyncerOutput(self._predict(audio, expression, reconstruction), reconstruction, mean, log_variance)

    def encode(
        self, audio: torch.Tensor, average: torch.Tensor, expression: torch.Tensor, frames: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the variance (N, 256) of the codes of expressions."""
        return self.autoencoder["encoder"](expression, Condition(audio, average, frames.flatten()))

    def _predict(self, audio: torch.Tensor, reference: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        brows, blinks = self.bs_mapp(reference[:, :BROWS]), self.blink_mapp(reference[:, BROWS:])
        return self.attr_map_net(self.unet_bs(torch.cat([self.project_audio(audio), decoded, brows, blinks], 1)))
