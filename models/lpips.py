"""LPIPS: how differently two pictures look, by the features of AlexNet (Zhang et al. 2018, version 0.1)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .checkpoints import State, read_checkpoint
from .errors import TalkingPortraitError

_LAYERS = (
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
"""Number in torchvision's AlexNet, input and output channels, kernel, stride and padding of each convolution."""
_POOLED = (1, 2)
"""Before these of them the features are pooled."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
LEAST_SIDE = 32
"""Pixels; smaller pictures are enlarged, as the last pooling would leave nothing of them."""


class LPIPS(nn.Module):
    """Weights come from `load_lpips`."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, k, s, p) for _, a, b, k, s, p in _LAYERS)
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(1, b, 1, 1)) for _, _, b, *_ in _LAYERS)

    def forward(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B,) of pictures (B, 3, h, w) in 0..1."""
        differences = []
        for one, other, weight in zip(self._features(image), self._features(target), self.weights, strict=True):
            differences.append(((one - other).square() * weight).sum(1).mean((1, 2)))
        return torch.stack(differences).sum(0)

    def _features(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Of each convolution, of length 1 at every place."""
        if min(image.shape[-2:]) < LEAST_SIDE:
            image = F.interpolate(image, scale_factor=LEAST_SIDE / min(image.shape[-2:]), mode="bilinear")
        values = (2 * image - 1 - image.new_tensor(SHIFT)[:, None, None]) / image.new_tensor(SCALE)[:, None, None]
        found = []
        for number, convolution in enumerate(self.convolutions):
            if number in _POOLED:
                values = F.max_pool2d(values, 3, 2)
            values = F.relu(convolution(values))
            found.append(values / (values.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def load_lpips(path: str | Path, alexnet: str | Path | None = None) -> LPIPS:
    """Reads the weights of LPIPS and AlexNet's convolutions, from one file, such as the state of the public class has,
    or the convolutions from a file of their own, torchvision's `alexnet`.

    Raises TalkingPortraitError for other files.
    """
    state = read_checkpoint(path)
    if alexnet is not None:
        state = {**read_checkpoint(alexnet), **state}
    named: State = {}
    for place, (number, *_) in enumerate(_LAYERS):
        for part in ("weight", "bias"):
            begins = ("features", f"net.slice{place + 1}")
            _take(named, f"convolutions.{place}.{part}", state, f".{number}.{part}", begins)
        _take(named, f"weights.{place}", state, ".model.1.weight", (f"lin{place}",))
    network = LPIPS()
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in named.items()} != expected:
        files = [Path(file).name for file in (path, alexnet) if file is not None]
        raise TalkingPortraitError(
            f"{' and '.join(files)} {'hold' if len(files) > 1 else 'holds'} not all of AlexNet's convolutions and "
            "LPIPS' five weights; take alex.pth of LPIPS 0.1 with torchvision's alexnet-owt-7be5be79.pth, or save the "
            "state of LPIPS with AlexNet in one file, or go on without it."
        )
    network.load_state_dict(named)
    return network.eval().requires_grad_(False)


def _take(named: State, name: str, state: State, end: str, begins: tuple[str, ...]) -> None:
    for begin in begins:
        if begin + end in state:
            named[name] = state[begin + end].float()
