"""Where the skin of a film's lower face lies beside its landmarks, frame by frame, from the pixels.

Landmarkers place lips and chins anew in each frame: wrong by about one pixel, which changes from frame to frame, and by
a part of each opening. Laid out flat by the landmarks, the same skin would lie at the same texels in all frames. What
brings each frame to the median of all is found by Gauss-Newton steps on differences of brightness, with the median's
own derivatives (inverse compositional alignment, Baker and Matthews 2004), and given back to the landmarks.

Numbers were chosen on ten renders whose movements are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from .....models.face.face_mesh import VERTICES, face_mesh
from .....models.face.mouth_regions import LOWER_CHAIN, LOWER_INNER_LIP, UPPER_CHAIN, UPPER_INNER_LIP
from ....image.frame_workers import FrameWorkers
from ....image.luma import LUMA
from ....large_arrays import give_memory_back, large_array
from ....packages import load_opencv
from .face_texture import Texture, texture_grid

DARKNESS = 8.0
"""Of 255; what is added before the logarithm, as dark colours are mostly noise."""
FINE, COARSE = 0.8, 10.0
"""Texels; standard deviations of the blurs whose difference is compared: light changes slowly, noise quickly."""
SIDE, TOP, BOTTOM = 5.2, 0.6, -8.3
"""Cm in the canonical head within which texels are compared."""
BETWEEN_LIPS = 3
"""Texels across around what is between the lips that are not compared: it is seen in some frames only."""
NODES_SIDE, NODES_TOP, NODES_BOTTOM, NODES_STEP = 4.8, 0.2, -8.3, (1.6, 1.28)
"""Cm; the nodes of the field and the distances between them, across and down."""
REACH = 1.6
"""Cm over which the field changes, as a standard deviation."""
MOVES = 0.77
"""Texels by which skin lies beside its landmarks, as a standard deviation."""
MOVES_APART = 0.2
"""The same of what both lips do against each other: they roll in and out, and openings stay the landmarks'."""
LIP_SIDE, LIP_SIDE_FADE, LIP_HEIGHT, LIP_FAR, LIP_FAR_FADE = 1.9, 1.2, -4.3, 1.2, 1.5
"""Cm from the middle and from the line where lips meet within which the skin of both lips moves apart, and over which
that fades."""
CERTAINTY, NOISE = 0.15, 0.05
"""Part of the texels that say something of their own, as neighbours are blurred alike, and the least noise of one."""
OUTLIER = 2.0
"""Standard deviations from which on a difference counts no more."""
STEPS = 4
"""Gauss-Newton steps."""
FRAMES, LEAST_FRAMES, SHARPENED = 60, 12, 2
"""Frames of which the median is taken, the fewest of which it is, and how often they are aligned before it is."""
AROUND = 1.2
"""Cm of the canonical head, a standard deviation, from whose landmarks it is said how far a cm goes in a picture."""
TOGETHER = 8
"""Frames that a worker aligns together."""
BLOCK = 256
"""Frames that are read together."""


class FilmedSkin:
    """The brightness of the lower face's texels in a film's frames, which may be many.

    A byte each, whose lowest bit says whether the texel is seen.
    """

    def __init__(self, frames: int) -> None:
        """For at most so many `frames`."""
        height, width = self._shape = texture_grid().on_face.shape
        self._values = large_array((frames, -(-height * width // 4)))
        self._bytes = self._values.view(np.uint8)[:, : height * width].reshape(frames, height, width)

    def add(self, number: int, texture: Texture) -> None:
        """The texture of a frame."""
        self._bytes[number] = (texture.colours @ LUMA.astype(np.float32)).astype(np.uint8) & 254 | texture.visible
        if number % BLOCK == 0:
            give_memory_back(self._values)

    def aligned(self, points: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Landmarks (F, 468, 3) in pixels, those of the frames `numbers` (n,), whose textures were added, at the skin.

        The rest stay, and all of them where there are too few frames.
        """
        result = large_array(points.shape)
        for start in range(0, len(points), BLOCK):
            result[start : start + BLOCK] = points[start : start + BLOCK]
            give_memory_back(points, result)
        if len(numbers) < LEAST_FRAMES:
            return result
        some = numbers[np.linspace(0, len(numbers) - 1, min(FRAMES, len(numbers))).round().astype(int)]
        reference = Reference.of(*self._read(some))
        with FrameWorkers(torch.device("cpu")) as workers:

            def align(chosen: np.ndarray) -> None:
                result[chosen, :, :2] += _in_pixels(points[chosen], reference.fields(*self._read(chosen)))

            for start in range(0, len(numbers), BLOCK):
                block = numbers[start : start + BLOCK]
                workers.map(align, [block[first : first + TOGETHER] for first in range(0, len(block), TOGETHER)])
                give_memory_back(points, result, self._values)
        return result

    def _read(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Brightness (n, H, W) of frames, without light, and where it is seen."""
        cv2 = load_opencv()
        values = self._bytes[numbers]
        logarithms = np.log(values.astype(np.float32) + DARKNESS)
        bands = [cv2.GaussianBlur(one, (0, 0), FINE) - cv2.GaussianBlur(one, (0, 0), COARSE) for one in logarithms]
        return np.stack(bands), values & 1 > 0


@dataclass(frozen=True)
class Reference:
    """The usual brightness of a film's lower face, and what says how frames lie beside it.

    `usual` (N,) at the texels that are compared, `outlier` (N,) the difference that counts at most; `pull` (N, 2 K)
    weighted derivatives by the nodes' values across, then down, and `inverse` (2 K, 2 K) of the normal equations.
    """

    usual: np.ndarray
    outlier: np.ndarray
    weight: torch.Tensor
    pull: torch.Tensor
    inverse: torch.Tensor

    @classmethod
    def of(cls, bands: np.ndarray, seen: np.ndarray) -> Reference:
        """From some frames' brightness (n, H, W) and where it is `seen`: their median, once they are aligned."""
        texels = _field()
        reference = cls._of_aligned(bands)
        for _ in range(SHARPENED):
            moves = reference.solved(bands, seen) @ texels.everywhere.T
            reference = cls._of_aligned(np.stack([_moved(*one) for one in zip(bands, moves.numpy(), strict=True)]))
        return reference

    @classmethod
    def _of_aligned(cls, bands: np.ndarray) -> Reference:
        cv2 = load_opencv()
        field = _field()
        usual = np.median(bands, axis=0)
        variance = (1.4826 * np.median(np.abs(bands - usual), axis=0)) ** 2
        variance = (cv2.GaussianBlur(variance, (0, 0), 1.0) + NOISE**2)[field.compared]
        slopes = [torch.from_numpy(slope[field.compared]) for slope in np.gradient(usual)[::-1]]
        derivatives = torch.cat([slope[:, None] * field.compared_by for slope in slopes], dim=1)
        weight = CERTAINTY / torch.from_numpy(variance)
        pull = weight[:, None] * derivatives
        inverse = torch.linalg.inv(derivatives.T @ pull + torch.block_diag(field.prior, field.prior))
        return cls(usual[field.compared], OUTLIER * np.sqrt(variance), weight, pull, inverse)

    def fields(self, bands: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Cm (n, 468, 2) of the canonical head, to the right and down, by which the landmarks of frames are to move."""
        moves = self.solved(bands, seen) @ _field().landmarks_by.T
        return moves.transpose(1, 2).numpy() / texture_grid().per_cm

    def solved(self, bands: np.ndarray, seen: np.ndarray) -> torch.Tensor:
        """The values (n, 2, K) of the nodes, 0 for frames that these do not make more like the usual."""
        field = _field()
        seen = seen[:, field.compared]
        values = torch.zeros(len(bands), 2, field.prior.shape[0])
        for _ in range(STEPS):
            difference = self._difference(bands, seen, values)
            slope = (difference @ self.pull).view_as(values) + values @ field.prior
            values = values - (slope.flatten(1) @ self.inverse).view_as(values)
        better = self._cost(bands, seen, values) < self._cost(bands, seen, torch.zeros_like(values))
        return values * better[:, None, None]

    def _cost(self, bands: np.ndarray, seen: np.ndarray, values: torch.Tensor) -> torch.Tensor:
        unlike = self._difference(bands, seen, values) ** 2 @ self.weight
        return unlike + ((values @ _field().prior) * values).sum(dim=(1, 2))

    def _difference(self, bands: np.ndarray, seen: np.ndarray, values: torch.Tensor) -> torch.Tensor:
        """What frames have more than is usual (n, N) where the field brings it, at most so much, and 0 if not seen."""
        cv2 = load_opencv()
        field = _field()
        moves = (values @ field.compared_by.T).numpy()
        places = [(field.column + move[0], field.row + move[1]) for move in moves]
        found = [cv2.remap(one, *place, cv2.INTER_LINEAR)[0] for one, place in zip(bands, places, strict=True)]
        return torch.from_numpy(np.clip(np.stack(found) - self.usual, -self.outlier, self.outlier) * seen)


@dataclass(frozen=True)
class _Field:
    """A smooth field by the values of K nodes, whose precision is `prior` (K, K).

    `compared` (H, W) bool marks N texels, whose `row` and `column` (1, N) these are. The matrices give the field there,
    (N, K), at all texels (H W, K) and at the landmarks (468, K).
    """

    compared: np.ndarray
    row: np.ndarray
    column: np.ndarray
    compared_by: torch.Tensor
    everywhere: torch.Tensor
    landmarks_by: torch.Tensor
    prior: torch.Tensor


@cache
def _field() -> _Field:
    cv2 = load_opencv()
    grid = texture_grid()
    between = cv2.dilate(grid.between_lips.astype(np.uint8), np.ones((BETWEEN_LIPS, BETWEEN_LIPS), np.uint8)) > 0
    compared = grid.on_face & ~between & (np.abs(grid.x) < SIDE) & (grid.y < TOP) & (grid.y > BOTTOM)
    across = np.arange(-NODES_SIDE, NODES_SIDE + 0.01, NODES_STEP[0])
    nodes = np.stack(np.meshgrid(across, np.arange(NODES_TOP, NODES_BOTTOM, -NODES_STEP[1])), axis=-1).reshape(-1, 2)

    def near(places: np.ndarray) -> np.ndarray:
        square = ((places[:, None] - nodes) ** 2).sum(axis=-1)
        return np.exp(-0.5 * square / REACH**2)

    def by_nodes(places: np.ndarray, below: np.ndarray) -> torch.Tensor:
        """What both lips' skin does alike, then what it does against each other."""
        x, y = np.abs(places).T
        apart = 1 - np.clip((x - LIP_SIDE) / LIP_SIDE_FADE, 0, 1)
        apart *= np.exp(-0.5 * (np.maximum(np.abs(y + LIP_HEIGHT) - LIP_FAR, 0) / LIP_FAR_FADE) ** 2)
        alike = near(places)
        return torch.from_numpy(np.concatenate([alike, (np.where(below, -apart, apart))[:, None] * alike], 1)).float()

    canonical = face_mesh().vertices.astype(np.float64)
    texels = np.stack([grid.x, grid.y], axis=-1).reshape(-1, 2).astype(np.float64)
    line = (canonical[UPPER_CHAIN] + canonical[LOWER_CHAIN])[:, :2] / 2
    everywhere = by_nodes(texels, texels[:, 1] < np.interp(texels[:, 0], *line.T))
    lower = canonical[:, 1] < LIP_HEIGHT
    lower[list(UPPER_INNER_LIP)], lower[list(LOWER_INNER_LIP)] = False, True
    alike = torch.from_numpy(near(nodes) + 1e-4 * np.eye(len(nodes))).float() / MOVES**2
    row, column = (index[None].astype(np.float32) for index in np.nonzero(compared))
    return _Field(
        compared,
        row,
        column,
        everywhere[torch.from_numpy(compared.ravel())],
        everywhere,
        by_nodes(canonical[:, :2], lower),
        torch.block_diag(alike, alike * (MOVES / MOVES_APART) ** 2),
    )


def _moved(band: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Brightness (H, W) from where a field (2, H W) says."""
    cv2 = load_opencv()
    row, column = np.indices(band.shape, np.float32)
    across, down = move.reshape(2, *band.shape)
    return cv2.remap(band, column + across, row + down, cv2.INTER_LINEAR)


def _in_pixels(points: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Pixels (n, 468, 2) that `moves` (n, 468, 2) in cm of the canonical head are, beside landmarks (n, 468, 3)."""
    count = len(points)
    places = np.ascontiguousarray(points[..., :2].transpose(0, 2, 1), dtype=np.float32)
    across = torch.from_numpy(places).reshape(-1, VERTICES)
    pixels = (across @ _pixels_by()).view(count, 2, VERTICES, 2).numpy()
    return np.einsum("nkvj,nvj->nvk", pixels, moves)


@cache
def _pixels_by() -> torch.Tensor:
    """(468, 936): what landmarks' places say of how far a cm to the right, and one down, goes in pixels at each.

    By least squares on the landmarks around.
    """
    places = face_mesh().vertices.astype(np.float64) * [1, -1, 1]
    square = ((places[:, None] - places) ** 2).sum(axis=-1)
    weight = np.exp(-0.5 * square / AROUND**2)
    weight /= weight.sum(axis=1, keepdims=True)
    beside = places[None, :, :2] - (weight @ places[:, :2])[:, None]
    spread = np.einsum("vw,vwi,vwj->vij", weight, beside, beside)
    told = np.einsum("vw,vwi,vij->wvj", weight, beside, np.linalg.inv(spread))
    return torch.from_numpy(told.reshape(VERTICES, -1)).float()
