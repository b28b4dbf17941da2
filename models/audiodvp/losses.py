"""The losses of AudioDVP's three trainings, with the published weights as defaults."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

STRONG_LANDMARKS = (*range(17, 27), *range(36, 68))
"""Brows, eyes and mouth of the 68 landmarks; the others are jaw and nose."""


@dataclass(frozen=True)
class FitWeights:
    """Of the terms of `fit_loss`; `alpha`, `beta` and `delta` within the regularisation."""

    photometric: float = 1.9
    landmark: float = 1.6e-3
    regularisation: float = 3e-4
    alpha: float = 1.0
    beta: float = 1.7e-3
    delta: float = 0.8


def landmark_weights(strong: float = 50.0) -> torch.Tensor:
    """(68,): `strong` for brows, eyes and mouth, 1 for jaw and nose."""
    weights = torch.ones(68)
    weights[list(STRONG_LANDMARKS)] = strong
    return weights


def photometric_loss(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean square over all values of images (B, 3, H, W) in 0..1, the black background included.

    `target` is the video's frame, black where the rendered face is not.
    """
    return F.mse_loss(image, target)


def landmark_loss(landmarks: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted squares of distances in pixels (B, 68, 2), over 68: a sum over the batch, no mean (published)."""
    return (weights[:, None] * (landmarks - target).square()).sum() / len(weights)


def regularisation(coefficients: torch.Tensor) -> torch.Tensor:
    """Sum of squares over the batch, no mean (published)."""
    return coefficients.square().sum()


def fit_loss(
    photometric: torch.Tensor,
    landmark: torch.Tensor,
    alpha: torch.Tensor,
    beta: torch.Tensor,
    delta: torch.Tensor,
    weights: FitWeights | None = None,
) -> torch.Tensor:
    """The loss of the face model's fit, from its first two terms and the coefficients."""
    weights = weights or FitWeights()
    size = (
        weights.alpha * regularisation(alpha)
        + weights.beta * regularisation(beta)
        + weights.delta * regularisation(delta)
    )
    return weights.photometric * photometric + weights.landmark * landmark + weights.regularisation * size


def adversarial_loss(logits: torch.Tensor, *, real: bool) -> torch.Tensor:
    """Binary cross entropy of a discriminator's logits against "real" or "fake"."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def discriminator_loss(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Half of the sum over the logits of generated and of real images."""
    return 0.5 * (adversarial_loss(fake, real=False) + adversarial_loss(real, real=True))


def generator_loss(
    logits: torch.Tensor, image: torch.Tensor, target: torch.Tensor, l1_weight: float = 100.0
) -> torch.Tensor:
    """The generated images' logits against "real", and the absolute difference of images in -1..1."""
    return adversarial_loss(logits, real=True) + l1_weight * F.l1_loss(image, target)
