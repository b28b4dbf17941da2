"""SyncNet: how well lips and sound go together (Chung and Zisserman 2016), in the form of the public syncnet_python.

One network embeds 0.2 s of a face's crop, another the same 0.2 s of sound; where both belong together, the embeddings
are near to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from .checkpoints import expect_kind, read_checkpoint, strict_load

FRAMES, SIDE = 5, 224
"""Frames of 25 a second that are embedded together, and their side in pixels."""
ROWS, COEFFICIENTS = 20, 13
"""Rows of MFCC, 100 a second, that are embedded together, and the coefficients of each."""
WIDTH = 1024
"""Numbers of an embedding."""


class SyncNet(nn.Module):
    """Modules have the published names."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_layer2d(1, 64, 3, padding=1),
            nn.Identity(),  # in the place of a pooling over single pixels
            *_layer2d(64, 192, 3, padding=1),
            nn.MaxPool2d(3, (1, 2)),
            *_layer2d(192, 384, 3, padding=1),
            *_layer2d(384, 256, 3, padding=1),
            *_layer2d(256, 256, 3, padding=1),
            nn.MaxPool2d(3, 2),
            *_layer2d(256, 512, (5, 4)),
        )
        self.netcnnlip = nn.Sequential(
            *_layer3d(3, 96, (FRAMES, 7, 7), stride=2),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_layer3d(96, 256, (1, 5, 5), stride=2, padding=1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_layer3d(256, 256, (1, 3, 3), padding=1),
            *_layer3d(256, 256, (1, 3, 3), padding=1),
            *_layer3d(256, 256, (1, 3, 3), padding=1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_layer3d(256, 512, (1, 6, 6)),
        )
        self.netfcaud = _head()
        self.netfclip = _head()

    def embed_sound(self, mfcc: torch.Tensor) -> torch.Tensor:
        """(B, 1024) of MFCC (B, 20, 13), of sound in whole numbers of 16 bits."""
        return self.netfcaud(self.netcnnaud(mfcc.transpose(1, 2)[:, None]).flatten(1))

    def embed_lips(self, crops: torch.Tensor) -> torch.Tensor:
        """(B, 1024) of crops (B, 5, 3, 224, 224), blue, green and red in 0..255."""
        return self.netfclip(self.netcnnlip(crops.transpose(1, 2)).flatten(1))


def _layer2d(wide: int, deep: int, kernel: int | tuple[int, int], *, padding: int = 0) -> tuple[nn.Module, ...]:
    return nn.Conv2d(wide, deep, kernel, padding=padding), nn.BatchNorm2d(deep), nn.ReLU()


def _layer3d(
    wide: int, deep: int, kernel: tuple[int, int, int], *, stride: int = 1, padding: int = 0
) -> tuple[nn.Module, ...]:
    """`stride` and `padding` are the picture's; over time there is neither."""
    convolution = nn.Conv3d(wide, deep, kernel, (1, stride, stride), (0, padding, padding))
    return convolution, nn.BatchNorm3d(deep), nn.ReLU()


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, WIDTH))


def load_syncnet(path: str | Path) -> SyncNet:
    """syncnet_v2.model. Raises TalkingPortraitError for another file."""
    state = expect_kind(read_checkpoint(path), ("syncnet",), "SyncNet (syncnet_v2.model)", path)
    return build_syncnet(state, path=path)


def build_syncnet(state: Mapping[str, torch.Tensor], *, path: str | Path) -> SyncNet:
    """From named tensors, on the CPU, for inference. `path` names them in errors."""
    with torch.device("meta"):
        network = SyncNet()
    # Counters of training, which torch before 0.4.1 did not write.
    counters = {name: torch.tensor(0) for name in network.state_dict() if name.endswith("num_batches_tracked")}
    strict_load(network, {**counters, **state}, path=path)
    return network.eval().requires_grad_(False)
