"""A face in a film that is to speak other words: where it is in each frame, and its shape at rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ....models.face.face_mesh import LIPS_OUTER, VERTICES, eye_distance, face_mesh
from ...face.head_pose import split_matrix
from ...face.metric_mesh import metric_mesh, similarity
from ...face.smoothing import smooth_points
from ...large_arrays import give_memory_back, large_array
from ...types import Camera
from .filmed_movement import OVERLAP as MOVEMENT_OVERLAP
from .filmed_movement import steadied, with_chin_below_lip
from .occlusion import Appearance
from .resting_face import RestingFace, closed_gap_of, resting_face, spread_over
from .skin.face_texture import Texture
from .skin.lip_landmarks import LipLandmarks

BLOCK, OVERLAP = 250, 8
"""Frames that are worked on together, and how many of the neighbouring ones are smoothed with them."""
TAKEN_TOGETHER = 32
"""Frames that are taken from a film's points before memory is given back."""
RIGID_ABOVE = -1.0
"""Height in cm in the canonical head from which on a vertex tells the head's pose: from the tip of the nose up."""
NOSE_SIDE, NOSE_TOP, NOSE_BOTTOM = 4.5, 1.0, -2.2
"""Cm in the canonical head of the skin by which poses are corrected: no word moves it."""
POSE_ERROR, SIZE_ERROR, PLACE_ERROR, POINT_ERROR = np.array([1.5, 1.0, 0.5]), 0.004, 0.006, 0.0009
"""Standard deviations by which poses are wrong, in degrees about each axis, in parts of the size and in eye distances,
and in eye distances of the mean of this skin, given its landmarks."""
FADE = 3
"""Frames over which the new mouth comes and goes where a face is lost."""
TURNED_FROM, TURNED_TO = 35.0, 50.0
"""Degrees to the side between which the new mouth fades away: the far lip corner is no longer in the picture."""


@dataclass(frozen=True)
class FilmedFace:
    """One face of F frames.

    `points` (F, 468, 3) float32 landmarks in pixels, held where the face is not found, and `matrix` (F, 4, 4) float32
    the pose of the head, to the camera. `found` (F,) bool.
    `starts` numbers of the frames that begin a shot, with 0. `size` (height, width) of a frame. `amount` (F,) in 0..1
    is how far a frame may be changed, and `mouth_outside` (F,) bool says where the picture's edge cuts off most of the
    mouth, so that it is not. `reference` (468, 3) cm is the median shape, by which heads are posed, `rest`
    says what it is like at rest, and `appearance` how the lower face usually looks, if enough is seen of it.
    `sharpness` (F,) is the logarithm of how much fine detail frames show, nan where that is not known.
    """

    points: np.ndarray
    matrix: np.ndarray
    found: np.ndarray
    starts: tuple[int, ...]
    size: tuple[int, int]
    amount: np.ndarray
    mouth_outside: np.ndarray
    reference: np.ndarray
    rest: RestingFace
    appearance: Appearance | None
    sharpness: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.points)

    def shapes(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (n, 468, 3) in cm in the head frame, and head to camera (n, 4, 4), of frames."""
        vertices, _ = _posed(*metric_mesh(self.points[numbers], self.size), self.reference)
        return vertices, self.matrix[numbers].astype(np.float64)


def filmed_face(
    points: np.ndarray,
    found: np.ndarray,
    starts: tuple[int, ...],
    size: tuple[int, int],
    *,
    smoothing: float = 1.0,
    textures: Sequence[Texture] = (),
    sharpness: np.ndarray | None = None,
) -> FilmedFace:
    """The face of landmarks (F, P, 3) that are valid where `found` (F,); the film's shots begin at `starts`.

    `textures` of some of its frames say how the lower face looks, and where the edges of its lips lie; `sharpness` (F,)
    is as in FilmedFace.
    """
    points = _held(points[:, :VERTICES], found, starts)
    if smoothing > 0:
        points = _smoothed(points, starts, smoothing)
    seen = np.flatnonzero(found)
    some = seen[spread_over(len(seen))]
    told = _taken(points, some)[..., :2]
    lips = LipLandmarks.of([texture.steps for texture in textures if texture.steps is not None], told)
    closed_gap = closed_gap_of(told)
    for part in blocks(len(points)):
        points[part] = lips.at_edges(points[part], closed_gap)
        give_memory_back(points)
    vertices, matrix = metric_mesh(_taken(points, some), size)
    reference = np.median(vertices, axis=0)
    rest = resting_face(*_posed(vertices, matrix, reference), size, lips.rims)
    turned, outside = np.empty(len(points)), np.empty(len(points), bool)
    poses = large_array((len(points), 4, 4))
    for part in blocks(len(points)):
        vertices, matrix = metric_mesh(points[part], size)
        turned[part] = np.abs(split_matrix(matrix)[0][:, 1])
        outside[part] = found[part] & _is_outside(points[part][:, list(LIPS_OUTER), :2].mean(axis=1), size)
        poses[part] = _posed(vertices, matrix, reference)[1]
        give_memory_back(points, poses)
    for part in blocks(len(points)):
        poses[part] = _with_skin_in_place(poses[part].astype(np.float64), points[part], size, rest)
        give_memory_back(points, poses)
    points = _moving_plainly(points, poses, starts, size, rest)
    wanted = (found & ~outside) * (1 - np.clip((turned - TURNED_FROM) / (TURNED_TO - TURNED_FROM), 0, 1))
    amount = _faded(wanted, starts)
    if sharpness is None:
        sharpness = np.full(len(points), np.nan)
    looks = Appearance.of(textures)
    return FilmedFace(points, poses, found, starts, size, amount, outside, reference, rest, looks, sharpness)


def pixels_per_cm(matrix: np.ndarray, size: tuple[int, int], rest: np.ndarray) -> np.ndarray:
    """(n, 2, 3): pixels by which a movement in cm in the head frame moves the mouth, at the distance of the face.

    As in all of Instant, a movement towards the camera does not magnify.
    """
    camera = Camera()
    middle = rest[[0, 17]].mean(axis=0)
    depth = -(matrix[:, 2, :3] @ middle + matrix[:, 2, 3])
    scale = camera.focal * size[0] / 2 / np.maximum(depth, camera.near)
    return matrix[:, :2, :3] * scale[:, None, None] * np.array([1.0, -1.0])[:, None]


def eye_pixels(basis: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Pixels (n,) between the eyes of a shape (468, 3), with `basis` (n, 2, 3) pixels per cm."""
    return np.linalg.norm(basis, axis=-1).max(axis=-1) * float(eye_distance(shape))


def _posed(vertices: np.ndarray, matrix: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shapes (n, 468, 3) and poses (n, 4, 4) for which what no word moves lies where `reference` (468, 3) has it.

    The metric mesh's own pose is fitted to all of the face, so that it nods a little with an opening mouth.
    """
    in_camera = vertices @ np.swapaxes(matrix[:, :3, :3], 1, 2) + matrix[:, None, :3, 3]
    rigid = np.flatnonzero(face_mesh().vertices[:, 1] > RIGID_ABOVE)
    posed = similarity(reference[rigid], in_camera[:, rigid], np.ones(len(rigid)))
    back = np.linalg.inv(posed)
    return in_camera @ np.swapaxes(back[:, :3, :3], 1, 2) + back[:, None, :3, 3], posed


def _with_skin_in_place(matrix: np.ndarray, points: np.ndarray, size: tuple[int, int], rest: RestingFace) -> np.ndarray:
    """Poses (n, 4, 4) a little changed, so that nose and cheeks of landmarks (n, 468, 3) lie where they usually do.

    Depths that landmarkers report turn heads by a degree or two from frame to frame, which is seen at the chin.
    """
    from scipy.spatial.transform import Rotation

    basis = pixels_per_cm(matrix, size, rest.shape)
    eyes = eye_pixels(basis, rest.shape)
    beside = np.flatnonzero(_nose_and_cheeks())
    away = (points[:, beside, :2] - rest.usual_places(matrix, size)[:, beside]) / eyes[:, None, None]
    middle = rest.usual[beside].mean(axis=0)
    shape = rest.usual[beside] - middle
    turns = np.cross(np.radians(POSE_ERROR)[:, None, None] * np.eye(3)[:, None], shape)
    changes = np.concatenate([turns, SIZE_ERROR * shape[None]]) / eyes[:, None, None, None]
    changes = np.einsum("nij,nkvj->nkvi", basis, changes)
    shifts = np.broadcast_to(PLACE_ERROR * np.eye(2)[:, None], (len(points), 2, len(beside), 2))
    ways = np.concatenate([changes, shifts], axis=1).reshape(len(points), 6, -1)
    told = ways @ ways.swapaxes(1, 2) / (POINT_ERROR**2 * len(beside)) + np.eye(6)
    found = np.linalg.solve(told, ways @ away.reshape(len(points), -1, 1) / (POINT_ERROR**2 * len(beside)))[..., 0]
    turned = Rotation.from_rotvec(found[:, :3] * POSE_ERROR, degrees=True).as_matrix()
    turned *= 1 + SIZE_ERROR * found[:, 3, None, None]
    result = matrix.copy()
    result[:, :3, :3] = matrix[:, :3, :3] @ turned
    result[:, :3, 3] += np.einsum("nij,j->ni", matrix[:, :3, :3] - result[:, :3, :3], middle)
    cm = np.linalg.norm(basis, axis=-1).max(axis=-1)
    result[:, :2, 3] += PLACE_ERROR * found[:, 4:] * (eyes / cm)[:, None] * [1, -1]
    return result


@cache
def _nose_and_cheeks() -> np.ndarray:
    x, y, _ = face_mesh().vertices.T
    return (np.abs(x) < NOSE_SIDE) & (y < NOSE_TOP) & (y > NOSE_BOTTOM)


def _held(points: np.ndarray, found: np.ndarray, starts: tuple[int, ...]) -> np.ndarray:
    """Points with those of the nearest found frame of the same shot where there are none."""
    source = np.arange(len(points))
    for start, end in zip(starts, [*starts[1:], len(points)], strict=True):
        known = np.flatnonzero(found[start:end]) + start
        if len(known):
            numbers = np.arange(start, end)
            after = np.searchsorted(known, numbers).clip(max=len(known) - 1)
            before = (after - 1).clip(min=0)
            nearer = np.where(np.abs(known[before] - numbers) <= np.abs(known[after] - numbers), before, after)
            source[start:end] = known[nearer]
        elif found.any():
            source[start:end] = np.flatnonzero(found)[0]
    return _taken(points, source)


def _taken(points: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The points of some frames, which may lie far apart: the system reads a megabyte around each."""
    result = large_array((len(numbers), *points.shape[1:]))
    for start in range(0, len(numbers), TAKEN_TOGETHER):
        part = slice(start, start + TAKEN_TOGETHER)
        result[part] = points[numbers[part]]
        give_memory_back(points, result)
    return result


def _smoothed(points: np.ndarray, starts: tuple[int, ...], strength: float) -> np.ndarray:
    result = large_array(points.shape)
    for near, part, within in _parts_of_shots(len(points), starts, OVERLAP):
        result[part] = smooth_points(points[near].astype(np.float64), strength)[within]
        give_memory_back(points, result)
    return result


def _moving_plainly(
    points: np.ndarray, matrix: np.ndarray, starts: tuple[int, ...], size: tuple[int, int], rest: RestingFace
) -> np.ndarray:
    """Points (F, 468, 3) of heads posed by `matrix` (F, 4, 4) without jitter and with chins that follow wide mouths.

    What the new words take back is the way from where these heads usually have their points, so that the jitter of
    points and of poses counts together.
    """
    result = large_array(points.shape)
    for near, part, within in _parts_of_shots(len(points), starts, MOVEMENT_OVERLAP):
        posed = matrix[near].astype(np.float64)
        usual = rest.usual_places(posed, size)
        basis = pixels_per_cm(posed, size, rest.shape)
        eyes = eye_pixels(basis, rest.shape)[:, None, None]
        moved = steadied((points[near][..., :2] - usual) / eyes)
        moved = with_chin_below_lip(moved, -basis[..., 1] / np.linalg.norm(basis[..., 1], axis=-1, keepdims=True))
        result[part] = points[part]
        result[part][..., :2] = (usual + eyes * moved)[within]
        give_memory_back(points, matrix, result)
    return result


def _parts_of_shots(count: int, starts: tuple[int, ...], overlap: int) -> Iterator[tuple[slice, slice, slice]]:
    """Frames with their neighbours in the same shot, the frames without those, and where these are in the former."""
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        for part in blocks(end - start):
            first, last = start + part.start, start + part.stop
            low, high = max(first - overlap, start), min(last + overlap, end)
            yield slice(low, high), slice(first, last), slice(first - low, last - low)


def _is_outside(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Whether (n,) places (n, 2) in pixels lie outside a picture of (height, width)."""
    x, y = places.T
    return (x < 0) | (y < 0) | (x > size[1]) | (y > size[0])


def _faded(wanted: np.ndarray, starts: tuple[int, ...]) -> np.ndarray:
    """Amounts (F,) float32 that never exceed `wanted` and change by 1 / (FADE + 1) a frame at most, within a shot."""
    result = wanted.astype(np.float32)
    first_of_shot = set(starts)
    step = 1 / (FADE + 1)
    for number in range(1, len(result)):
        if number not in first_of_shot:
            result[number] = min(result[number], result[number - 1] + step)
    for number in range(len(result) - 2, -1, -1):
        if number + 1 not in first_of_shot:
            result[number] = min(result[number], result[number + 1] + step)
    return result


def blocks(count: int) -> Iterator[slice]:
    """Parts of so many frames that are worked on together."""
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))
