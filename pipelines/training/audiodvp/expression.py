"""The trainer of the network from speech to expression, and its metrics on speech that it was not trained on.

Loss: squared error of standardised coefficients and of their change from frame to frame, without which the mouth
trembles. Each coefficient counts as much as it moves the face: most of them are small, and of those much is the noise
of the fit, which no speech explains. Published: of the coefficients as they are, with no other term.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ....models.audiodvp.face_model import FaceModel
from ....models.audiodvp.speech_to_expression import SpeechToExpression
from ....models.audiodvp.temporal_expression import TemporalExpression
from ...audiodvp.expression import predict_expression
from ...errors import TalkingPortraitError
from ..core.trainer import Batch, Trainer
from ..data.datasets import Item

FRAMES = 64
"""Of a clip."""
VELOCITY = 0.5
"""Weight of the change from frame to frame."""
MOST_CALIBRATION = 2.0
RIDGE, RIDGE_WINDOW, RIDGE_FRAMES = 1.0, 7, 4000
"""The linear map's penalty, in parts of the mean square of its inputs, the frames that it takes, and the most frames
that it is fitted to. Penalty and frames were chosen on a synthetic and a filmed person, of a minute each."""
NOISE = 0.1
"""Standard deviation of what is added to standardised features, in training only."""


class ExpressionTrainer(Trainer):
    """See the module."""

    title = "audiodvp-expression"

    movement: torch.Tensor

    def __init__(self, network: SpeechToExpression, movement: torch.Tensor) -> None:
        """`movement` (K,) as `coefficient_movement` gives it."""
        super().__init__()
        self.network = network
        self.register_buffer("movement", movement, persistent=False)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        features = self.network.standardised(batch["features"])
        predicted = self.network.predict(features + NOISE * torch.randn_like(features)).float()
        target = (batch["expression"] - self.network.mean) / self.network.scale
        return _loss((predicted - target) * self.movement, batch["usable"])

    def picture(self, batch: Batch) -> torch.Tensor:
        """A band for each of the first coefficients, bright where it is high: above the target, below the result."""
        target = (batch["expression"] - self.network.mean) / self.network.scale
        predicted = self.network.predict(self.network.standardised(batch["features"])).float()
        curves = torch.stack([target[0, :, :8].T, predicted[0, :, :8].T], dim=1)
        bands = nn.functional.pad(curves.repeat_interleave(12, dim=1) / 4 + 0.5, (0, 0, 0, 4))
        return bands.flatten(0, 1).repeat_interleave(4, dim=1)[..., None].expand(-1, -1, 3).clamp(0, 1)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"expression": self.network.state_dict()}


def _loss(error: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Of errors (B, T, K), over the frames whose face could be used (B, T)."""
    both = usable[:, 1:] & usable[:, :-1]
    return _mean(error.square(), usable) + VELOCITY * _mean(error.diff(dim=1).square(), both)


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Of values (B, T, K), over the frames (B, T) that count."""
    return (values * where[..., None]).sum() / (where.sum() * values.shape[-1]).clamp(min=1)


def coefficient_movement(face: FaceModel, scale: torch.Tensor) -> torch.Tensor:
    """(K,) how far a standard deviation `scale` (K,) of each coefficient moves the face, 1 in the square mean."""
    movement = face.exp_base.norm(dim=0) * scale
    return movement / movement.square().mean().sqrt().clamp(min=1e-9)


@torch.no_grad()
def with_linear(
    network: SpeechToExpression, features: torch.Tensor, expression: torch.Tensor, frames: np.ndarray
) -> SpeechToExpression:
    """A trained temporal network with a linear map beside it, by ridge regression on `frames`; an affine one as it is.

    `features` (T, F) and `expression` (T, K) are of all frames.
    """
    if not isinstance(network.network, TemporalExpression):
        return network
    rows = torch.from_numpy(frames[np.linspace(0, len(frames) - 1, min(RIDGE_FRAMES, len(frames))).astype(int)])
    reach = RIDGE_WINDOW // 2
    around = nn.functional.pad(network.standardised(features), (0, 0, reach, reach))
    target = ((expression - network.mean) / network.scale)[rows].double()
    bias = target.mean(0)
    products = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for offset in range(RIDGE_WINDOW):
        products += (around[rows + offset] @ around[rows + offset].T).double()
    products += RIDGE * products.diagonal().mean().clamp(min=1e-9) * torch.eye(len(rows), dtype=torch.float64)
    weights = torch.linalg.solve(products, target - bias).float()
    taps = [weights.T @ around[rows + offset] for offset in range(RIDGE_WINDOW)]
    joined = TemporalExpression(replace(network.network.config, linear=RIDGE_WINDOW))
    joined.load_state_dict(
        {**network.network.state_dict(), "linear.weight": torch.stack(taps, -1), "linear.bias": bias.float()}
    )
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("network.")}
    result = SpeechToExpression(joined)
    result.load_state_dict(state | {f"network.{name}": tensor for name, tensor in joined.state_dict().items()})
    return result.eval().requires_grad_(False)


class SpokenExpressions(torch.utils.data.Dataset):
    """Random clips of a video's speech features (T, F) with the expression (T, K) of each frame.

    `usable` (T,) bool are the frames that count. Raises TalkingPortraitError where there are fewer than two.
    """

    def __init__(self, features: torch.Tensor, expression: torch.Tensor, usable: np.ndarray, seed: int) -> None:
        self.features, self.expression, self.seed = features, expression, seed
        self.usable = torch.from_numpy(usable)
        self.frames = min(FRAMES, len(features))
        if int(self.usable.sum()) < 2:
            raise TalkingPortraitError(
                f"{int(self.usable.sum())} frames with a usable face are there to train on, but at least 2 are "
                "expected; prepare a longer video."
            )

    def __getitem__(self, number: int) -> Item:
        rng = np.random.default_rng([self.seed, number])
        start = int(rng.integers(len(self.features) - self.frames + 1))
        clip = slice(start, start + self.frames)
        return {"features": self.features[clip], "expression": self.expression[clip], "usable": self.usable[clip]}


@torch.no_grad()
def calibrate(
    network: SpeechToExpression,
    face: FaceModel,
    features: torch.Tensor,
    expression: torch.Tensor,
    frames: np.ndarray,
) -> None:
    """Makes the network's movement as large as fits `frames` best, which it was trained on, by one factor for all.

    Dropout makes it smaller: by a third on a synthetic person, whose mouth then opened by half as much as it should.
    """
    weight = face.exp_base.square().sum(dim=0)
    predicted, target = predict_expression(network, features)[frames], expression[frames]
    one, other = predicted - predicted.mean(0), target - target.mean(0)
    factor = (one * other * weight).sum() / (one.square() * weight).sum().clamp(min=1e-9)
    factor = factor.clamp(1.0, MOST_CALIBRATION)
    network.mean.copy_(target.mean(0) + factor * (network.mean - predicted.mean(0)))
    network.scale.mul_(factor)


def evaluate_expression(
    network: SpeechToExpression,
    face: FaceModel,
    features: torch.Tensor,
    expression: torch.Tensor,
    frames: np.ndarray,
) -> dict[str, float]:
    """Metrics on `frames` of a video that the network was not trained on.

    Error: the share of the face's movement that is wrong, 1 for a face that never moves. Correlation: of the
    coefficients with their fit, weighted by how much each moves the face.
    """
    norm = face.exp_base.norm(dim=0)
    predicted, target = predict_expression(network, features)[frames] * norm, expression[frames] * norm
    one, other = predicted - predicted.mean(0), target - target.mean(0)
    spread = other.square().sum(0)
    error = (predicted - target).square().sum() / spread.sum().clamp(min=1e-9)
    correlation = (one * other).sum(0) / (one.square().sum(0) * spread).sqrt().clamp(min=1e-9)
    weighted = (correlation * spread).sum() / spread.sum().clamp(min=1e-9)
    return {"expression error": float(error), "expression correlation": float(weighted)}
