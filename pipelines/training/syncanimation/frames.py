"""The pixels of a person's frames that the renderer is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ....models.syncanimation.audio_nets import speech_windows
from ....models.syncanimation.rendering.camera import renderer_pose
from ...errors import TalkingPortraitError
from ...files.images import from_uint8
from ...syncanimation.avatar import HEAD_PART, Avatar
from ..data.datasets import Item

AROUND_HEAD = 0.12
"""How much around the head's box its rays are cast, in parts of the box's larger side."""
ELSEWHERE, EYES, LIPS, LIPS_AT_LAST = 0.1, 0.15, 0.3, 0.5
"""Parts of the rays that are cast anywhere, at the eyes and at the lips; in the last stage more are at the lips."""
RARE_PART, MOST_REPEATS = 0.2, 5
"""Part of the training that frames with shut eyes, and those with a wide mouth, are repeated up to, and how often at
most: in pictures of the usual state alone, neither lids nor lips learn to move."""
HELD_BYTES = 2_000_000_000
"""Of pictures that are held in memory; the others are read when they are needed."""


@dataclass(frozen=True)
class Pixels:
    """How many of a frame are trained on at once: `rays` single ones and `patches` squares of `side` pixels."""

    rays: int
    patches: int = 0
    side: int = 0


class AvatarFrames(torch.utils.data.Dataset):
    """An endless dataset over frames; every frame comes once before any comes again.

    Raises TalkingPortraitError where there is no frame.
    """

    def __init__(self, avatar: Avatar, frames: Sequence[int], seed: int) -> None:
        self.avatar, self.frames, self.seed = avatar, list(frames), seed
        if not self.frames:
            raise TalkingPortraitError("No usable frame is there to train on; prepare a longer video.")
        self.poses = renderer_pose(avatar.c2w.float())
        self.background = from_uint8(avatar.background()).reshape(-1, 3)
        self._pictures: dict[tuple[str, int], np.ndarray] = {}

    def __getitem__(self, number: int) -> Item:
        turn, place = divmod(number, len(self.frames))
        order = np.random.default_rng([self.seed, 0, turn]).permutation(len(self.frames))
        frame = self.frames[order[place]]
        item = self.item(frame, np.random.default_rng([self.seed, 1, number]), number)
        return item if number else item | self.whole(frame)  # the first is shown in pictures of the training

    def whole(self, frame: int) -> Item:
        """The frame as it is to be, `whole`, and what is `behind` it, (S, S, 3) each in 0..1."""
        raise NotImplementedError

    def item(self, frame: int, rng: np.random.Generator, number: int) -> Item:
        raise NotImplementedError

    def picture(self, kind: str, frame: int) -> np.ndarray:
        """One of frames, parts and torso."""
        held = self._pictures.get((kind, frame))
        if held is None:
            held = getattr(self.avatar, kind)([frame])[0]
            if (len(self._pictures) + 1) * held.nbytes <= HELD_BYTES:
                self._pictures[kind, frame] = held
        return held

    def square(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.view(self.avatar.size, self.avatar.size, 3)

    def pixels_of(self, kind: str, frame: int, chosen: torch.Tensor | None) -> torch.Tensor:
        """The chosen pixels (n, C) of one of the pictures in 0..1, by default all. A large picture has far more than
        are chosen, so only these are converted."""
        picture = torch.from_numpy(self.picture(kind, frame)).flatten(0, 1)
        return (picture if chosen is None else picture[chosen]).float() / 255

    def torso(self, frame: int, chosen: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Neck and torso over the clean background (n, 3) in 0..1 in these pixels, and their alpha (n, 1)."""
        picture = self.pixels_of("torso", frame, chosen)
        background = self.background if chosen is None else self.background[chosen]
        alpha = picture[:, 3:]
        return picture[:, :3] * alpha + background * (1 - alpha), alpha


def with_rare(frames: np.ndarray, *values: np.ndarray) -> np.ndarray:
    """The numbers of `frames`, and again those in which one of the `values` of all frames (N,) is large.

    Large is what is nearer to the largest value than to the median of these frames.
    """
    repeated = [frames]
    for value in values:
        median, largest = np.quantile(value[frames], [0.5, 0.99])
        rare = frames[value[frames] > (median + largest) / 2]
        wanted = round(RARE_PART * len(frames) / max(len(rare), 1))
        repeated += [rare] * min(max(wanted - 1, 0), MOST_REPEATS)
    return np.concatenate(repeated)


class TorsoFrames(AvatarFrames):
    """Random pixels of neck and torso over the clean background."""

    def __init__(self, avatar: Avatar, frames: Sequence[int], seed: int, pixels: int) -> None:
        super().__init__(avatar, frames, seed)
        self.pixels = pixels

    def item(self, frame: int, rng: np.random.Generator, number: int) -> Item:
        count = self.avatar.size**2
        chosen = torch.from_numpy(rng.choice(count, min(self.pixels, count), replace=False))
        target, alpha = self.torso(frame, chosen)
        return {
            "pixels": chosen,
            "target": target,
            "alpha": alpha,
            "background": self.background[chosen],
            "pose": self.poses[frame],
            "frame": torch.tensor(frame),
        }

    def whole(self, frame: int) -> Item:
        return {"whole": self.square(self.torso(frame)[0]), "behind": self.square(self.background)}


class HeadFrames(AvatarFrames):
    """Pixels of the head, the patches' first, before the frame's torso, with the frame's speech and expression."""

    def __init__(
        self,
        avatar: Avatar,
        frames: Sequence[int],
        seed: int,
        features: torch.Tensor,
        expressions: torch.Tensor,
        kinds: Sequence[Pixels],
        *,
        lips: bool = False,
    ) -> None:
        """`features` (N, C, S) of the speech, `expressions` (N, 7). The steps take the `kinds` of pixels in turn.

        `lips`: the last stage, whose first patch lies around the lips.
        """
        super().__init__(avatar, frames, seed)
        self.features, self.expressions, self.kinds, self.lips = features, expressions, kinds, lips

    def item(self, frame: int, rng: np.random.Generator, number: int) -> Item:
        kind = self.kinds[number % len(self.kinds)]
        rects = {name: rect[0] for name, rect in self.avatar.rects([frame]).items()}
        pixels = self._pixels(frame, kind, rects, rng)
        chosen = torch.from_numpy(pixels)
        return {
            "pixels": chosen,
            "target": self.pixels_of("frames", frame, chosen),
            "background": self.torso(frame, chosen)[0],
            "face": torch.from_numpy(_within(pixels, rects["face"], self.avatar.size)),
            "outside": torch.from_numpy(~_within(pixels, rects["lower face"], self.avatar.size)),
            "pose": self.poses[frame],
            "windows": speech_windows(self.features, [frame])[0],
            "expression": self.expressions[frame],
            "frame": torch.tensor(frame),
            "patch": torch.tensor([kind.patches, kind.side]),
        }

    def whole(self, frame: int) -> Item:
        return {
            "whole": self.square(self.pixels_of("frames", frame, None)),
            "behind": self.square(self.torso(frame)[0]),
        }

    def _pixels(self, frame: int, kind: Pixels, rects: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        size = self.avatar.size
        head = self._head_box(frame)
        rows: list[np.ndarray] = []
        for patch in range(kind.patches):
            box = rects["lips"] if self.lips and patch == 0 else head
            rows.append(_patch(box, kind.side, size, rng))
        lips = round(kind.rays * (LIPS_AT_LAST if self.lips else LIPS))
        eyes, elsewhere = round(kind.rays * EYES), round(kind.rays * ELSEWHERE)
        for box, count in (
            (rects["lips"], lips),
            (rects["eyes"], eyes),
            (np.array([0, size, 0, size]), elsewhere),
            (head, kind.rays - lips - eyes - elsewhere),
        ):
            rows.append(rng.integers(box[0], box[1], count) * size + rng.integers(box[2], box[3], count))
        return np.concatenate(rows)

    def _head_box(self, frame: int) -> np.ndarray:
        """Rows and columns of the head and some pixels around it."""
        head, size = self.picture("parts", frame) == HEAD_PART, self.avatar.size
        if not head.any():
            return np.array([0, size, 0, size])
        edges = [ends for axis in (1, 0) for ends in np.flatnonzero(head.any(axis))[[0, -1]]]
        room = max(1, round(AROUND_HEAD * max(edges[1] - edges[0], edges[3] - edges[2])))
        return np.clip(np.array(edges) + [-room, room + 1, -room, room + 1], 0, size)


def _within(pixels: np.ndarray, rect: np.ndarray, size: int) -> np.ndarray:
    row, column = pixels // size, pixels % size
    return (row >= rect[0]) & (row < rect[1]) & (column >= rect[2]) & (column < rect[3])


def _patch(box: np.ndarray, side: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Pixels of a square around a random place of a box."""
    corner = [int(np.clip(rng.integers(low, high) - side // 2, 0, size - side)) for low, high in (box[:2], box[2:])]
    rows, columns = np.mgrid[:side, :side]
    return ((corner[0] + rows) * size + corner[1] + columns).ravel()
