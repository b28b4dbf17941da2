"""The pose guider: five features of a drawn face, for the denoising UNet to add up.

Source: AniPortrait (section 3.2 of the paper, and the published weights). Two properties of the published program are
defaults here, because its results come from them:

- the norms use the mean and variance of the frames at hand, all frames of the window together, instead of the
  running statistics of training, so a frame's features depend on its window;
- the drawing reaches it as 2 * pixel - 1 with pixels of 0..255, so -1..509, where training used -1..1.

Norms may also be given the statistics of chosen frames, so that a long video's frames share them and each frame's
features are its own. The deterministic counterpart takes the running statistics and -1..1. Running statistics with
-1..509 would make features far too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..diffusion.attention import Attention, FeedForward
from ..errors import TalkingPortraitError

_INNER_HEADS = 16
_STEM = (
    (3, 3, 3, 1), (3, 16, 4, 2), (16, 16, 3, 1), (16, 32, 4, 2),
    (32, 32, 3, 1), (32, 64, 4, 2), (64, 64, 3, 1), (64, 128, 3, 1),
)  # fmt: skip
"""In and out channels, kernel and stride of the first stack."""


Statistics = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Mean and variance of each channel (C,), float32, for each batch norm in the order of the data's way."""

_Normalise = Callable[[nn.BatchNorm2d, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class PoseGuiderConfig:
    """`channels` of the first feature, of which the others have 1, 2, 4 and 4 times as many; `inner` of attention."""

    channels: int = 320
    inner: int = 1408


class AttentionBlock(nn.Module):
    """Self-attention and feed-forward on normed tokens. There is no cross attention, in spite of the published name."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attn1(self.norm1(tokens))
        return tokens + self.ff(self.norm3(tokens))


class PixelTransformer(nn.Module):
    """An attention block over the pixels of a frame, in a width of its own; added to the input."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, inner, 1)
        self.transformer_blocks = nn.ModuleList([AttentionBlock(inner, _INNER_HEADS)])
        self.proj_out = nn.Conv2d(inner, channels, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        tokens = rearrange(self.proj_in(self.norm(hidden)), "b c h w -> b (h w) c")
        tokens = self.transformer_blocks[0](tokens)
        return self.proj_out(rearrange(tokens, "b (h w) c -> b c h w", h=hidden.shape[-2])) + hidden


def _convolutions(*layers: tuple[int, int, int, int]) -> nn.Sequential:
    """Convolution, batch norm and ReLU for each (in, out, kernel, stride)."""
    stack: list[nn.Module] = []
    for channels, out_channels, kernel, stride in layers:
        stack += [nn.Conv2d(channels, out_channels, kernel, stride, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*stack)


class PoseGuider(nn.Module):
    """A drawn face to the five features that the denoising UNet adds up."""

    def __init__(self, config: PoseGuiderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PoseGuiderConfig()
        c = config.channels
        self.conv_layers = _convolutions(*_STEM)
        self.final_proj = nn.Conv2d(_STEM[-1][1], c, 1)
        self.scale = nn.Parameter(torch.full((1,), 2.0))
        self.conv_layers_1 = _convolutions((c, c, 3, 1), (c, c, 3, 2))
        self.cross_attn1 = PixelTransformer(c, config.inner)
        self.conv_layers_2 = _convolutions((c, c, 3, 1), (c, 2 * c, 3, 2))
        self.cross_attn2 = PixelTransformer(2 * c, config.inner)
        self.conv_layers_3 = _convolutions((2 * c, 2 * c, 3, 1), (2 * c, 4 * c, 3, 2))
        self.cross_attn3 = PixelTransformer(4 * c, config.inner)
        self.conv_layers_4 = _convolutions((4 * c, 4 * c, 3, 1))
        self.cross_attn4 = PixelTransformer(4 * c, config.inner)

    def forward(
        self, frames: torch.Tensor, *, batch_statistics: bool = True, statistics: Statistics | None = None
    ) -> list[torch.Tensor]:
        """Features of drawn faces.

        Args:
            frames: (samples, 3, frames, H, W), -1..509 with batch statistics, else -1..1; see the module.
            batch_statistics: whether norms use the mean and variance of all these frames, else the running ones.
            statistics: those of other frames, from `statistics`, instead of either.

        Raises TalkingPortraitError for statistics of another pose guider.

        Returns: five of (samples, C, frames, H', W'): H / 8 high, then 16, 32, 64 and 64 (rounded up).
        """
        if statistics is not None:
            self._check_statistics(statistics)
            return self._features(frames, _with_given(statistics))
        return self._features(frames, _with_own if batch_statistics else _with_running)

    def _check_statistics(self, statistics: Statistics) -> None:
        norms = sorted(layer.num_features for layer in self.modules() if isinstance(layer, nn.BatchNorm2d))
        if sorted(len(values) for values, _ in statistics) != norms:
            raise TalkingPortraitError(
                f"The statistics of the state are for {len(statistics)} norms, but this pose guider has {len(norms)} "
                "of its own widths; continue with the networks that made the state."
            )

    def statistics(self, frames: torch.Tensor) -> Statistics:
        """What the norms use of these frames with batch statistics, so that others can be normed alike."""
        found: list[tuple[torch.Tensor, torch.Tensor]] = []

        def record(layer: nn.BatchNorm2d, hidden: torch.Tensor) -> torch.Tensor:
            variance, mean = torch.var_mean(hidden.contiguous().float(), dim=(0, 2, 3), correction=0)
            found.append((mean, variance))
            return _with_own(layer, hidden)

        self._features(frames, record)
        return tuple(found)

    def _features(self, frames: torch.Tensor, normalise: _Normalise) -> list[torch.Tensor]:
        samples = len(frames)
        hidden = _apply(self.conv_layers, rearrange(frames, "s c f h w -> (s f) c h w"), normalise)
        hidden = self.final_proj(hidden) * self.scale
        features = [hidden]
        for convolutions, transformer in (
            (self.conv_layers_1, self.cross_attn1),
            (self.conv_layers_2, self.cross_attn2),
            (self.conv_layers_3, self.cross_attn3),
            (self.conv_layers_4, self.cross_attn4),
        ):
            hidden = transformer(_apply(convolutions, hidden, normalise))
            features.append(hidden)
        return [rearrange(feature, "(s f) c h w -> s c f h w", s=samples) for feature in features]


def _apply(stack: nn.Sequential, hidden: torch.Tensor, normalise: _Normalise) -> torch.Tensor:
    for layer in stack:
        hidden = normalise(layer, hidden) if isinstance(layer, nn.BatchNorm2d) else layer(hidden)
    return hidden


def _with_own(layer: nn.BatchNorm2d, hidden: torch.Tensor) -> torch.Tensor:
    if hidden[:, 0].numel() == 1:  # its own mean, which torch refuses to norm: a single frame of 64 x 64 pixels
        return layer.bias[:, None, None].expand_as(hidden)
    # For channels-last tensors torch sums in float32, forty times less exactly where a channel is nearly even.
    hidden = hidden.contiguous()
    return F.batch_norm(hidden, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)


def _with_running(layer: nn.BatchNorm2d, hidden: torch.Tensor) -> torch.Tensor:
    return layer(hidden)


def _with_given(statistics: Statistics) -> _Normalise:
    remaining = iter(statistics)

    def normalise(layer: nn.BatchNorm2d, hidden: torch.Tensor) -> torch.Tensor:
        mean, variance = (values.to(hidden.device, layer.weight.dtype) for values in next(remaining))
        return F.batch_norm(hidden, mean, variance, layer.weight, layer.bias, eps=layer.eps)

    return normalise
