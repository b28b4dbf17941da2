"""Landmarks of the mouth and the eyes, corrected in pictures of them alone by networks that ship with the pack.

The mesh network takes a whole face at 192 pixels, in which lips that just part are less than one pixel apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch

from ...models.errors import TalkingPortraitError
from ...models.face.face_mesh import (
    LEFT_EYE,
    LIPS_INNER,
    LIPS_OUTER,
    OUTER_EYE_CORNERS,
    RIGHT_EYE,
    mirror_index,
)
from ...models.face.part_points import PartPointsNetwork, load_part_points
from ..image.affine_sampling import apply_map, invert_map, turned_map
from ..image.byte_sampling import cut_out
from ..image.frame_workers import one_thread
from ..packages import PACK

FOLDER = PACK / "models" / "face"


@dataclass(frozen=True)
class Part:
    """A part of the face: the square round the mean of the points `middle` has the side `side`.

    The side is over the distance of the outer eye corners in space. `mirrored` says that the part is mirrored for the
    network, which was trained on the other side of the face.
    """

    middle: tuple[int, ...]
    side: float
    mirrored: bool = False

    def square(self, points: np.ndarray, size: int, around: float = 1.0) -> np.ndarray:
        """The map (2, 3) of its square, `size` pixels wide and upright as the eyes are, for `points` (P, 3).

        `around` makes the square larger.
        """
        right, left = (points[corner] for corner in OUTER_EYE_CORNERS)
        across = left - right
        middle = points[list(self.middle), :2].mean(axis=0)
        turned = float(np.degrees(np.arctan2(across[1], across[0])))
        side = around * self.side * float(np.linalg.norm(across))
        square = turned_map((float(middle[0]), float(middle[1])), side, turned, (size, size))
        return _mirrored_map(square, size) if self.mirrored else square

    def depth(self, points: np.ndarray) -> float:
        """The mean depth of its middle."""
        return float(points[list(self.middle), 2].mean())

    def numbers(self, landmarks: np.ndarray) -> np.ndarray:
        """The points of this side of the face for those (N,) that the network names."""
        return mirror_index()[landmarks] if self.mirrored else landmarks


MOUTH = Part((*LIPS_OUTER, *LIPS_INNER), 1.2)
EYES = (Part(RIGHT_EYE, 0.75), Part(LEFT_EYE, 0.75, mirrored=True))
MOUTH_FILE = FOLDER / "mouth_points.safetensors"
EYES_FILE = FOLDER / "eye_points.safetensors"


@dataclass(frozen=True)
class PartPoints:
    """The network in the file `path`, which is read when it is first needed, and the parts of the face that it is for.

    Raises TalkingPortraitError for a file that holds something else.
    """

    path: Path
    parts: tuple[Part, ...]

    @cached_property
    def network(self) -> PartPointsNetwork:
        from safetensors import SafetensorError

        try:
            # As the pictures lie in memory, which is faster.
            return load_part_points(self.path).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise TalkingPortraitError(
                f"{self.path} is not the network that its name promises ({type(error).__name__}); "
                "install the pack again."
            ) from error

    @torch.inference_mode()
    def correct(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        """`points` (468, 3) of a face in `picture` (H, W, 3) uint8 RGB, those of its parts corrected."""
        size = self.network.config.size
        landmarks = self.network.landmarks.numpy()
        squares = [part.square(points, size) for part in self.parts]
        pictures = np.stack([cut_out(picture, square, size) for square in squares])
        coarse = np.stack(
            [
                to_square(points[part.numbers(landmarks)], square, size, part.depth(points))
                for part, square in zip(self.parts, squares, strict=True)
            ]
        )
        with one_thread():
            values = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
            fine = self.network(values, torch.from_numpy(coarse).float())
        corrected = points.copy()
        for part, square, inside in zip(self.parts, squares, fine.double().numpy(), strict=True):
            corrected[part.numbers(landmarks)] = from_square(inside, square, size, part.depth(points))
        return corrected


@cache
def shipped_networks() -> tuple[PartPoints, ...]:
    """Those of the mouth and of the eyes, read once."""
    return PartPoints(MOUTH_FILE, (MOUTH,)), PartPoints(EYES_FILE, EYES)


def to_square(points: np.ndarray, square: np.ndarray, size: int, depth: float) -> np.ndarray:
    """Points (N, 3) of the picture in half sides from the middle of the square, their depth from `depth`."""
    return apply_map(invert_map(square), points - [0, 0, depth]) / (size / 2) - [1, 1, 0]


def from_square(inside: np.ndarray, square: np.ndarray, size: int, depth: float) -> np.ndarray:
    """Points (N, 3) of the square in the picture; undoes `to_square`."""
    return apply_map(square, (inside + [1, 1, 0]) * (size / 2)) + [0, 0, depth]


def _mirrored_map(square: np.ndarray, size: int) -> np.ndarray:
    """The map of the square (2, 3) with left and right exchanged."""
    return np.column_stack([-square[:, 0], square[:, 1], square[:, 2] + square[:, 0] * size])
