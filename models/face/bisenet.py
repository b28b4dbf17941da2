"""BiSeNet for face parsing: 19 classes of pixels, by a ResNet-18 whose coarse levels are weighted by attention.

The published weights (79999_iter.pth, trained on CelebAMask-HQ, whose terms are non-commercial) take RGB pictures of
512 pixels, normalised as for ImageNet. Classes: 0 background, 1 skin, 2-3 brows, 4-5 eyes, 6 glasses, 7-8 ears,
9 earrings, 10 nose, 11 inner mouth, 12-13 lips, 14 neck, 15 necklace, 16 clothes, 17 hair, 18 hat.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import expect_kind, read_checkpoint, strict_load

CLASSES = 19
INPUT_SIZE = 512
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAINING_HEADS = (r"conv_out(16|32)\..*",)
"""Names of the file that only its training needs."""


class BasicBlock(nn.Module):
    """Two convolutions of 3 x 3 with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if inputs != outputs or stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """Features at 1/8, 1/16 and 1/32 of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class ConvBNReLU(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class AttentionRefinement(nn.Module):
    """Features weighted channel by channel by their mean over the picture."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, outputs, 3)
        self.conv_atten = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x)
        return features * self.bn_atten(self.conv_atten(features.mean((2, 3), keepdim=True))).sigmoid()


class ContextPath(nn.Module):
    """Features at 1/8 of the picture: the backbone's own, and those of its coarser levels."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvBNReLU(128, 128, 3)
        self.conv_head16 = ConvBNReLU(128, 128, 3)
        self.conv_avg = ConvBNReLU(512, 128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eighth, sixteenth, coarsest = self.resnet(x)
        whole = self.conv_avg(coarsest.mean((2, 3), keepdim=True))
        refined = F.interpolate(self.arm32(coarsest) + whole, sixteenth.shape[2:])
        refined = self.arm16(sixteenth) + self.conv_head32(refined)
        return eighth, self.conv_head16(F.interpolate(refined, eighth.shape[2:]))


class FeatureFusion(nn.Module):
    """Both features as one, weighted channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = ConvBNReLU(256, 256, 1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        features = self.convblk(torch.cat([fine, context], dim=1))
        weights = self.conv2(F.relu(self.conv1(features.mean((2, 3), keepdim=True)))).sigmoid()
        return features * weights + features


class Output(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, 256, 3)
        self.conv_out = nn.Conv2d(256, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """Pictures (n, 3, h, w) normalised as for ImageNet to logits (n, 19, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion()
        self.conv_out = Output(256, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        logits = self.conv_out(self.ffm(*self.cp(pictures)))
        return F.interpolate(logits, pictures.shape[2:], mode="bilinear", align_corners=True)


def load_bisenet(path: str | Path) -> BiSeNet:
    """79999_iter.pth or a file with the same names, on the CPU. Raises TalkingPortraitError for another file."""
    state = expect_kind(read_checkpoint(path), ("bisenet",), "BiSeNet's face parsing", path)
    with torch.device("meta"):
        network = BiSeNet()
    strict_load(network, state, path=path, unused=TRAINING_HEADS)
    return network.eval().requires_grad_(False)
