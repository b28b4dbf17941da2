"""Trains the networks that correct landmarks of the mouth and the eyes (models/face/part_points.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset

from ....models.face.face_mesh import (
    LIPS_INNER,
    LIPS_OUTER,
    NOSE_BASE,
    RIGHT_BROW,
    RIGHT_EYE,
    face_mesh,
    mirror_index,
)
from ....models.face.part_points import PartPointsConfig, PartPointsNetwork
from ...face.part_points import to_square
from ...image.affine_sampling import turned_map
from ...image.byte_sampling import opencv_map
from ...packages import load_opencv
from ...types import Progress, no_progress
from ..core.state import MovingAverage
from .examples import AROUND, CROP, Crops

RATE = 2e-3
DROPOUT = 0.3
AVERAGE = 0.998
"""Decay of the weights' moving average, after the first steps."""
SHIFT, TURN, SCALE = 0.04, 5.0, 0.1
"""Usual deviation of the square from where the coarse points put it: half sides, degrees, and its size's logarithm."""
ASPECT, SHEAR = 0.07, 0.06
"""Usual deviation of the logarithm of its aspect, and of its slant, which make other faces of a face."""
WATCH_EVERY = 2000
WIDE = 3.0
"""How much more often the widest gaps between lips or lids are taken than the narrowest."""


@dataclass(frozen=True)
class Subject:
    """What a network learns: landmarks within `reach` cm of the `rings`, which count more, and gaps between pairs."""

    rings: tuple[tuple[tuple[int, ...], float], ...]
    reach: float
    gaps: tuple[tuple[int, int], ...]
    symmetric: bool
    """Whether both sides of the face belong to it; else it is the right one's."""
    size: int
    """Of the picture, in pixels."""
    usual_gap: float
    """Width of a wide gap, in half sides."""

    def landmarks(self) -> np.ndarray:
        vertices = face_mesh().vertices
        rings = [number for ring, _ in self.rings for number in ring]
        distance = np.linalg.norm(vertices[:, None, :2] - vertices[None, rings, :2], axis=-1).min(axis=1)
        # Below the nose for the mouth, on one side of it for an eye.
        own = vertices[:, 1] < vertices[NOSE_BASE, 1] + 0.3 if self.symmetric else vertices[:, 0] < 0
        return np.flatnonzero((distance < self.reach) & own)

    def places(self, numbers: Sequence[Any]) -> torch.Tensor:
        """Where among the `landmarks` these are, in the shape that they have."""
        return torch.from_numpy(np.searchsorted(self.landmarks(), numbers))

    def weights(self) -> np.ndarray:
        """(N, 3) of the landmarks' coordinates in the loss."""
        landmarks = self.landmarks()
        weights = np.full((len(landmarks), 3), 0.25, dtype=np.float32)
        for ring, weight in self.rings:
            weights[np.isin(landmarks, ring)] = weight
        return weights * np.array([1, 1, 0.4], dtype=np.float32)


MOUTH_SUBJECT = Subject(
    rings=((LIPS_OUTER, 1.0), (LIPS_INNER, 1.5)),
    reach=3.2,
    gaps=tuple(zip((191, 80, 81, 82, 13, 312, 311, 310, 415), (95, 88, 178, 87, 14, 317, 402, 318, 324), strict=True)),
    symmetric=True,
    size=64,
    usual_gap=0.5,
)
EYES_SUBJECT = Subject(
    rings=((RIGHT_BROW, 0.5), (RIGHT_EYE, 1.5)),
    reach=1.2,
    gaps=((161, 163), (160, 144), (159, 145), (158, 153), (157, 154)),
    symmetric=False,
    size=48,
    usual_gap=0.3,
)


@dataclass(frozen=True)
class Settings:
    """`steps` batches of `batch` crops; `workers` processes vary the crops."""

    steps: int = 10_000
    batch: int = 64
    seed: int = 0
    workers: int = 1


def train_part_points(
    crops: Crops,
    subject: Subject,
    settings: Settings,
    progress: Progress = no_progress,
    watch: Callable[[int, PartPointsNetwork], None] | None = None,
) -> PartPointsNetwork:
    """A network in evaluation mode, the moving average of its weights. `watch` is called with it now and then and
    at the end."""
    torch.manual_seed(settings.seed)
    landmarks = subject.landmarks()
    config = PartPointsConfig(points=len(landmarks), size=subject.size)
    network = _Normalised(PartPointsNetwork(config, landmarks.tolist()))
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    moving = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    average = MovingAverage(moving, AVERAGE)
    weights = torch.from_numpy(subject.weights())
    gaps = subject.places(subject.gaps).T
    batches = DataLoader(_Batches(crops, subject, settings), batch_size=None, num_workers=settings.workers)
    for step, (pictures, coarse, fine) in enumerate(_without_opencv_threads(batches)):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * step / settings.steps)))
        made = network(pictures.permute(0, 3, 1, 2) / 255, coarse)
        loss = (torch.sqrt((made - fine) ** 2 + 1e-5) * weights).mean()
        loss = loss + 0.5 * (_gaps(made, gaps) - _gaps(fine, gaps)).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.decay = min(AVERAGE, (step + 1) / (step + 10))
        average.update()
        progress(step + 1, settings.steps)
        if watch is not None and ((step + 1) % WATCH_EVERY == 0 or step + 1 == settings.steps):
            watch(step + 1, network.folded(average.tensors))
    return network.folded(average.tensors)


def errors(network: PartPointsNetwork, crops: Crops, subject: Subject) -> dict[str, float]:
    """Mean distances, in sides of the square, of the heaviest ring's points and of the gaps from the fine ones.

    Before the correction ("coarse") and after it.
    """
    landmarks = subject.landmarks()
    ring, gaps = subject.places(subject.rings[-1][0]), subject.places(subject.gaps).T
    found: dict[str, list[torch.Tensor]] = {"coarse": [], "corrected": [], "coarse gap": [], "corrected gap": []}
    for start in range(0, len(crops), 256):
        rows = [_plain(crops, index, landmarks, subject) for index in range(start, min(len(crops), start + 256))]
        pictures, coarse, fine = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        with torch.inference_mode():
            made = network(pictures.permute(0, 3, 1, 2) / 255, coarse)
        for name, points in (("coarse", coarse), ("corrected", made)):
            found[name].append((points - fine)[:, ring, :2].norm(dim=-1).mean(dim=1) / 2)
            found[f"{name} gap"].append((_gaps(points, gaps) - _gaps(fine, gaps)).abs().mean(dim=1) / 2)
    return {name: float(torch.cat(values).mean()) for name, values in found.items()}


def _without_opencv_threads(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, whose readers are begun while OpenCV has no threads.

    A process that is forked while it has some waits for ever for those, which it does not have.
    """
    opencv = load_opencv()
    threads = opencv.getNumThreads()
    opencv.setNumThreads(1)
    try:
        yield from batches
    finally:
        opencv.setNumThreads(threads)


class _Batches(Dataset[tuple[torch.Tensor, ...]]):
    """Batches of varied crops; each follows from the seed and its number."""

    def __init__(self, crops: Crops, subject: Subject, settings: Settings) -> None:
        self.crops, self.subject, self.settings = crops, subject, settings
        self.landmarks = subject.landmarks()
        # Files with many crops, which are alike, count less for each of them; wide gaps, which are rare, more.
        _, number, count = np.unique(crops.files, return_inverse=True, return_counts=True)
        first, second = np.array(subject.gaps).T
        gap = np.linalg.norm(crops.fine[:, first, :2] - crops.fine[:, second, :2], axis=-1).mean(axis=1) * AROUND
        chance = (1 + WIDE * np.clip(gap / subject.usual_gap, 0, 1)) / np.sqrt(count[number])
        self.chance = chance / chance.sum()

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, ...]:
        load_opencv().setNumThreads(1)
        random = np.random.default_rng([self.settings.seed, step])
        chosen = random.choice(len(self.crops), self.settings.batch, p=self.chance)
        rows = [_varied(self.crops, index, self.landmarks, self.subject, random) for index in chosen]
        return tuple(torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))


class _Normalised(nn.Module):
    """The network with batch normalisation after each convolution and dropout, for training."""

    def __init__(self, network: PartPointsNetwork) -> None:
        super().__init__()
        self.network = network
        self.norms = nn.ModuleList(nn.BatchNorm2d(layer.out_channels) for layer in _convolutions(network))
        nn.init.zeros_(network.correction.weight)
        nn.init.zeros_(network.correction.bias)

    def forward(self, pictures: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        return self.network(pictures, coarse, list(self.norms), DROPOUT if self.training else 0.0)

    def folded(self, weights: Mapping[str, torch.Tensor] | None = None) -> PartPointsNetwork:
        """The network in evaluation mode with the normalisation in its convolutions, and with other `weights`."""
        copy = deepcopy(self)
        copy.load_state_dict({**copy.state_dict(), **(weights or {})})
        norms = [norm for norm in copy.norms if isinstance(norm, nn.BatchNorm2d)]
        pairs = zip(_convolutions(copy.network), norms, strict=True)
        copy.network.convolutions = nn.ModuleList(fuse_conv_bn_eval(layer.eval(), norm.eval()) for layer, norm in pairs)
        return copy.network.eval()


def _convolutions(network: PartPointsNetwork) -> list[nn.Conv2d]:
    return [layer for layer in network.convolutions if isinstance(layer, nn.Conv2d)]


def _gaps(points: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    return (points[:, pairs[0], :2] - points[:, pairs[1], :2] + 1e-6).norm(dim=-1)


def _plain(crops: Crops, index: int, landmarks: np.ndarray, subject: Subject) -> tuple[np.ndarray, ...]:
    square = turned_map((CROP / 2, CROP / 2), CROP / AROUND, 0, (subject.size,) * 2)
    return _placed(crops.pictures[index], square, subject, crops.coarse[index, landmarks], crops.fine[index, landmarks])


def _varied(
    crops: Crops, index: int, landmarks: np.ndarray, subject: Subject, random: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Picture (size, size, 3) float32, coarse and fine points (N, 3) of a crop in another place, light and quality."""
    middle = CROP / 2 + random.normal(0, SHIFT, 2) * CROP / 2
    side, turned = CROP / AROUND * math.exp(random.normal(0, SCALE)), random.normal(0, TURN)
    wider = math.exp(random.normal(0, ASPECT))
    slant = np.array([[wider, random.normal(0, SHEAR)], [0, 1 / wider]])
    linear = turned_map((0, 0), side, turned, (subject.size,) * 2)[:, :2] @ slant
    square = np.column_stack([linear, middle - linear @ np.full(2, subject.size / 2)])
    picture = _of_quality(crops.pictures[index], random)
    coarse, fine = crops.coarse[index], crops.fine[index]
    picture, coarse, fine = _placed(picture, square, subject, coarse, fine)
    if subject.symmetric and random.random() < 0.5:
        picture = picture[:, ::-1]
        coarse, fine = (points[mirror_index()] * np.array([-1, 1, 1], dtype=np.float32) for points in (coarse, fine))
    return _in_light(picture, random), coarse[landmarks], fine[landmarks]


def _placed(picture: np.ndarray, square: np.ndarray, subject: Subject, *points: np.ndarray) -> tuple[np.ndarray, ...]:
    """What lies in a square of the crop: its picture (size, size, 3) float32, and points in its half sides."""
    cv2 = load_opencv()
    size = (subject.size, subject.size)
    way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(picture, opencv_map(square), size, flags=way, borderMode=cv2.BORDER_REPLICATE)
    inside = ((one + [1, 1, 0]) * (CROP / 2) for one in points)
    placed = (to_square(one, square, subject.size, depth=0).astype(np.float32) for one in inside)
    return (cut.astype(np.float32), *placed)


def _of_quality(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The crop at a lower resolution, blurred, or compressed."""
    cv2 = load_opencv()
    if random.random() < 0.5:
        side = max(16, int(CROP * random.uniform(0.2, 0.8)))
        small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (CROP, CROP), interpolation=cv2.INTER_CUBIC)
    if random.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.5, 2.0))
    if random.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.uniform(15, 80))]
        picture = np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR))
    return picture


def _in_light(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The picture in other light and colours, in grey, or with noise; 0 to 255."""
    side = len(picture)
    picture = (picture - 128) * math.exp(random.normal(0, 0.25)) + 128 + random.normal(0, 20)
    picture = picture + random.normal(0, 5, 3)
    if random.random() < 0.2:
        picture = picture.mean(axis=2, keepdims=True).repeat(3, axis=2)
    if random.random() < 0.3:
        across, down = random.normal(0, 0.4, 2)
        line = np.linspace(-1, 1, side)
        picture = picture * np.exp(across * line[None] + down * line[:, None])[..., None]
    if random.random() < 0.3:
        picture = picture + random.normal(0, random.uniform(1, 10), picture.shape)
    return np.clip(picture, 0, 255).astype(np.float32)
