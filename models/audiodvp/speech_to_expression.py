"""A network from speech features to expression, with the scales of both: what is trained for one person.

Features and coefficients are standardised by the mean and the deviation they have in the person's video, so networks
begin and learn alike whatever the features are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..checkpoints import sizes_of, strict_load
from .audio_to_expression import AudioToExpression, AudioToExpressionConfig, feature_windows
from .temporal_expression import TemporalExpression, TemporalExpressionConfig

Kind = Literal["temporal", "affine"]
KINDS: tuple[Kind, ...] = ("temporal", "affine")
WINDOW = 7
"""Frames that the affine network takes (published)."""
_SMALLEST = 1e-6


class SpeechToExpression(nn.Module):
    """`network` is the dilated convolutions ("temporal") or the published affine map ("affine")."""

    feature_mean: torch.Tensor
    feature_scale: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, network: TemporalExpression | AudioToExpression) -> None:
        super().__init__()
        self.network = network
        features, expressions = network.config.features, network.config.expressions
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))
        self.register_buffer("mean", torch.zeros(expressions))
        self.register_buffer("scale", torch.ones(expressions))

    @property
    def kind(self) -> Kind:
        return "temporal" if isinstance(self.network, TemporalExpression) else "affine"

    @property
    def features(self) -> int:
        return self.network.config.features

    @property
    def context(self) -> int:
        """Frames on either side that a frame depends on."""
        return self.network.config.context if isinstance(self.network, TemporalExpression) else WINDOW // 2

    @property
    def config(self) -> dict[str, Any]:
        """What `build_speech_to_expression` makes the same network from, in JSON's types."""
        return {"kind": self.kind} | asdict(self.network.config)

    @torch.no_grad()
    def fit_scales(self, features: torch.Tensor, coefficients: torch.Tensor) -> None:
        """Takes means and deviations from features (T, F) and coefficients (T, K); what never changes is left out."""
        for values, mean, scale in (
            (features, self.feature_mean, self.feature_scale),
            (coefficients, self.mean, self.scale),
        ):
            deviation = values.std(0, correction=0)
            mean.copy_(values.mean(0))
            scale.copy_(torch.where(deviation > _SMALLEST, deviation, torch.ones_like(deviation)))

    def standardised(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.feature_mean) / self.feature_scale

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        """Standardised features (B, T, F) to standardised coefficients (B, T, K)."""
        if isinstance(self.network, TemporalExpression):
            return self.network(features)
        windows = torch.cat([feature_windows(each, WINDOW) for each in features])
        return self.network(windows)[..., 0].view(*features.shape[:2], -1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, T, F) to coefficients (B, T, K), with zeros, the mean, beyond both ends."""
        return self.predict(self.standardised(features)) * self.scale + self.mean


def new_speech_to_expression(kind: Kind, features: int, expressions: int) -> SpeechToExpression:
    """Random weights at the usual sizes."""
    if kind == "affine":
        return SpeechToExpression(AudioToExpression(AudioToExpressionConfig((WINDOW, 5, 3, 1), features, expressions)))
    return SpeechToExpression(TemporalExpression(TemporalExpressionConfig(features, expressions)))


def build_speech_to_expression(
    state: Mapping[str, torch.Tensor], config: Mapping[str, Any], *, path: str | Path
) -> SpeechToExpression:
    """From named tensors and `SpeechToExpression.config`, for inference.

    Raises TalkingPortraitError for tensors of other names or shapes, and for a configuration that no network has.
    """
    with sizes_of(state, path), torch.device("meta"):
        sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in config.items()
        }
        kind = sizes.pop("kind")
        network: TemporalExpression | AudioToExpression
        if kind == "affine":
            network = AudioToExpression(AudioToExpressionConfig(**sizes))
        elif kind == "temporal":
            network = TemporalExpression(TemporalExpressionConfig(**sizes))
        else:
            raise ValueError(f"{kind} is no kind of network")
        module = SpeechToExpression(network)
    strict_load(module, state, path=path)
    return module.eval().requires_grad_(False)
