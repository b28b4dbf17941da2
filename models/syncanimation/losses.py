"""The losses of the three trainings, with the published weights as defaults."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .rendering.fields import HeadField
from .rendering.renderer import HeadRender
from .syncers import SyncerOutput

KL_WEIGHT = 0.1
LEAST_WEIGHT, MOST_WEIGHT = 0.2, 10.0
"""Bounds of a pixel's weight by its uncertainty: the least one's part, and the most of the other part."""
JITTER = 1e-3


@dataclass(frozen=True)
class HeadLossWeights:
    """Of the terms of `head_loss` beside the colours' and of `jitter_loss`; most grow with the training's progress."""

    uncertainty: float = 0.01
    entropy: float = 1e-4
    ambient: float = 1e-4
    jitter: float = 1e-5
    patch: float = 0.1


def syncer_loss(output: SyncerOutput, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of labels (N, D), and the distance of the codes from a normal distribution."""
    divergence = (output.mean.square() + output.log_variance.exp() - output.log_variance - 1) / 2
    return F.l1_loss(output.prediction, target) + KL_WEIGHT * divergence.mean()


def torso_loss(image: torch.Tensor, target: torch.Tensor, anchor_points: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of colours (n, 3), and the distance of the anchors' homogeneous coordinate from 1.

    Nothing else is in it: the published loss ends here for the torso.
    """
    return F.l1_loss(image, target) + (1 - anchor_points[:, 3]).square().mean()


def head_loss(
    render: HeadRender,
    target: torch.Tensor,
    face: torch.Tensor,
    outside: torch.Tensor,
    progress: float,
    *,
    uncertainty: bool = True,
    weights: HeadLossWeights | None = None,
) -> torch.Tensor:
    """The head's loss over n pixels, patches and jitter aside.

    Args:
        target: colours (n, 3) in 0..1.
        face: which pixels (n,) show the face, where the uncertainty is to explain the difference.
        outside: pixels (n,) where speech must not matter; at all others the expression must not. SyncTalk takes what
            is outside of the lower face, SyncAnimation what is outside of the whole face.
        progress: 0 at the training's start, 1 at its end and beyond.
        uncertainty: whether pixels are weighted by it; not in the training of the lips.
    """
    weights = weights or HeadLossWeights()
    difference = (render.image - target).abs().mean(1)
    extra = difference.new_zeros(())
    if uncertainty:
        share = F.softmax(render.uncertainty.detach(), 0) * len(difference)
        beta = 1 + render.uncertainty
        explained = (render.image - target).detach().norm(dim=1) / (2 * beta.square()) + beta.log().square() / 2
        extra = (face * explained + ~face * render.uncertainty).mean() * (weights.uncertainty * progress)
        weight = ((1 - progress) + progress * share).clamp(0, MOST_WEIGHT)
        difference = difference * (LEAST_WEIGHT + (1 - LEAST_WEIGHT) * weight)
    ambient = (outside * render.ambient_audio + ~outside * render.ambient_expression).mean()
    return (
        difference.mean()
        + extra
        + weights.entropy * entropy(render.opacity).mean()
        + weights.ambient * progress * ambient
    )


def entropy(opacity: torch.Tensor) -> torch.Tensor:
    """How undecided between background and head pixels are, in bits."""
    alpha = opacity.clamp(1e-5, 1 - 1e-5)
    return -alpha * alpha.log2() - (1 - alpha) * (1 - alpha).log2()


def jitter_loss(head: HeadField, points: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Differences of attention and uncertainty between points (m, 3) and others nearby; published: every 16th step.

    Its weight is `HeadLossWeights.jitter` times the training's progress.
    """
    moved = points + JITTER * (2 * torch.rand(points.shape, generator=generator).to(points.device) - 1)
    pairs = zip(head.attention(points), head.attention(moved), strict=True)
    return torch.stack([F.l1_loss(here, there) for here, there in pairs]).sum()


PATCH_SCALES = 3


def patch_loss(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A substitute, without weights, of LPIPS for patches (B, 3, h, w) in 0..1: differences of gradients and structure.

    Over three scales, as far as the patches' size allows: the absolute difference of the gradients, and what lacks of
    structural similarity (SSIM, windows of 7 pixels).
    """
    losses = []
    for scale in range(PATCH_SCALES):
        if scale and min(image.shape[-2:]) < 2 * _WINDOW:
            break
        if scale:
            image, target = F.avg_pool2d(image, 2), F.avg_pool2d(target, 2)
        for axis in (2, 3):
            losses.append(F.l1_loss(image.diff(dim=axis), target.diff(dim=axis)))
        losses.append((1 - _similarity(image, target)).mean() / 2)
    return torch.stack(losses).mean()


_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2


def _similarity(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    window = min(_WINDOW, *image.shape[-2:])

    def average(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(values, window, 1)

    means = average(image), average(target)
    variances = average(image.square()) - means[0].square(), average(target.square()) - means[1].square()
    together = average(image * target) - means[0] * means[1]
    luminance = (2 * means[0] * means[1] + _C1) / (means[0].square() + means[1].square() + _C1)
    return luminance * (2 * together + _C2) / (variances[0] + variances[1] + _C2)
