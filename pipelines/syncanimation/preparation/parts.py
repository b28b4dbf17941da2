"""Background, head, neck and torso in every frame of a video, from the video and the segmenter that ships alone.

A small network is trained on some frames that `keyframes` has labelled, and labels all of them: what the labels of
single frames get wrong at random it averages out, and its edges don't flicker from frame to frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from ....models.face.parts_network import PartsNetwork
from ...packages import load_opencv
from ...types import Progress, no_progress
from ..avatar import BACKGROUND_PART, HEAD_PART, NECK_PART, TORSO_PART
from .guided_filter import GuidedFilter
from .head_place import HeadPlace
from .keyframes import label_frames

CLASSES = 4
WORK_SIZE = 128
"""Side of the pictures that are labelled; their edges are then fitted to the frames' own."""
KEYFRAMES = 27
STEPS, BATCH, LEARNING_RATE = 250, 2, 6e-3
LABEL_SMOOTHING, RAREST = 0.05, 0.005
"""Parts that take up less count as if they took up so much, when all are made to count alike."""
CHANNELS = 10
SPECK = 0.002
"""Parts of the picture that are smaller than this part of it are no parts of a person."""

Place = Callable[[int, float], HeadPlace]
"""Where the head is in a frame, in pictures that are shrunk by a factor."""


class Parser(Protocol):
    """Says which part each pixel shows."""

    @property
    def name(self) -> str:
        """What is used, for people to read."""

    def parts(self, frame: np.ndarray, number: int) -> np.ndarray:
        """The parts (S, S) uint8 of a frame (S, S, 3) uint8, which is the `number`th of its video."""


class LearntParser:
    """A parser trained on frames of one video."""

    name = "landmarks and colours"

    def __init__(self, network: PartsNetwork, plate: np.ndarray, place: Place) -> None:
        self.network, self.plate, self.place = network.eval(), plate, place

    @torch.no_grad()
    def parts(self, frame: np.ndarray, number: int) -> np.ndarray:
        size = len(frame)
        small = _resized(frame, WORK_SIZE)
        place = self.place(number, WORK_SIZE / size)
        logits = self.network(_channels(small, place, self.plate)[None])[0].permute(1, 2, 0)
        shares = load_opencv().resize(logits.softmax(-1).numpy(), (size, size), interpolation=1)
        if size > WORK_SIZE:
            shares = GuidedFilter(frame, round(size / WORK_SIZE))(shares)
        return cleaned(shares.argmax(axis=-1).astype(np.uint8))


def learn_parts(
    frames: Sequence[np.ndarray], numbers: Sequence[int], place: Place, progress: Progress = no_progress
) -> LearntParser:
    """A parser of the video that these frames (S, S, 3) uint8 are from; `numbers` are theirs."""
    size = len(frames[0])
    small = np.stack([_resized(frame, WORK_SIZE) for frame in frames])
    places = [place(number, WORK_SIZE / size) for number in numbers]
    labels = label_frames(small, places)
    plate = _plate(small, labels)
    inputs = torch.stack([_channels(frame, at, plate) for frame, at in zip(small, places, strict=True)])
    targets = torch.from_numpy(labels.astype(np.int64))
    common = np.bincount(labels.ravel(), minlength=CLASSES) / labels.size
    weights = torch.from_numpy(1 / np.sqrt(np.maximum(common, RAREST))).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PartsNetwork(CHANNELS, CLASSES)
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
        order = torch.cat([torch.randperm(len(inputs)) for _ in range(-(-STEPS * BATCH // len(inputs)))])
        for step in range(STEPS):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            loss = torch.nn.functional.cross_entropy(
                network(inputs[chosen]), targets[chosen], weights, label_smoothing=LABEL_SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress(step + 1, STEPS)
    return LearntParser(network, plate, place)


def _plate(frames: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What is behind the person, as far as these frames show it: colours in 0..1 and how often it is seen (w, w, 4)."""
    seen = np.where((labels == BACKGROUND_PART)[..., None], frames, np.nan)
    often = (labels == BACKGROUND_PART).mean(axis=0)
    hidden = often < 0.15
    colours = np.zeros(frames.shape[1:], np.float32)
    colours[~hidden] = np.nanmedian(seen[:, ~hidden], axis=0) / 255
    return np.dstack([colours, np.where(hidden, 0, often)]).astype(np.float32)


def _channels(frame: np.ndarray, place: HeadPlace, plate: np.ndarray) -> torch.Tensor:
    """The network's input for a frame (w, w, 3) uint8: colours, where the head is, difference from the plate."""
    size = len(frame)
    picture = frame.astype(np.float32) / 255
    across, height = place.coordinates(size)
    rows, columns = np.mgrid[:size, :size] / size * 2 - 1
    changed = np.abs(picture - plate[..., :3]).max(axis=-1) * (plate[..., 3] > 0)
    planes = [
        *picture.transpose(2, 0, 1) * 2 - 1,
        np.clip(across / 15, -3, 3),
        np.clip(height / 15, -3, 3),
        place.face(size),
        rows,
        columns,
        np.minimum(5 * changed, 2),
        plate[..., 3],
    ]
    return torch.from_numpy(np.stack([np.asarray(plane, np.float32) for plane in planes]))


def cleaned(parts: np.ndarray) -> np.ndarray:
    """`parts` (S, S) without specks and holes: each part is what hangs together, the rest becomes what is around it."""
    from scipy.ndimage import binary_fill_holes, distance_transform_edt, label

    smallest = SPECK * parts.size
    kept = np.zeros(parts.shape, bool)
    person = _main_pieces(parts != BACKGROUND_PART, smallest)
    person = binary_fill_holes(person)
    for part in (HEAD_PART, NECK_PART, TORSO_PART):
        kept |= _main_pieces((parts == part) & person, smallest if part != HEAD_PART else parts.size)
    kept |= ~person
    pieces, count = label(~kept)
    if not count:
        return np.where(person, parts, BACKGROUND_PART).astype(np.uint8)
    nearest = distance_transform_edt(~(kept & person), return_distances=False, return_indices=True)
    filled = parts[tuple(nearest)] if (kept & person).any() else parts
    return np.where(person, np.where(kept, parts, filled), BACKGROUND_PART).astype(np.uint8)


def _main_pieces(mask: np.ndarray, smallest: float) -> np.ndarray:
    """The pieces of a mask that have so many pixels, and in any case the largest one."""
    from scipy.ndimage import label

    pieces, count = label(mask)
    if not count:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.isin(pieces, np.flatnonzero((sizes >= smallest) | (sizes == sizes.max()))) & mask


def _resized(frame: np.ndarray, size: int) -> np.ndarray:
    cv2 = load_opencv()
    if len(frame) == size:
        return frame
    return cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA if len(frame) > size else cv2.INTER_CUBIC)
