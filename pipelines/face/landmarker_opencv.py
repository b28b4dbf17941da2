"""The two face networks of older mediapipe packages (BlazeFace and the 468-point mesh) run by OpenCV's dnn module.

They ship with the pack, for places where the `.task` file or the mediapipe package is not at hand. The networks are
MediaPipe's (models/face/landmark_networks; Apache-2.0, see the NOTICE there); anchors, overlap suppression, crop and
projection back follow the figures in MediaPipe's published graphs. Papers: BlazeFace (arXiv 1907.05047), Real-time
Facial Surface Geometry (arXiv 1907.06724). Expression scores come from distances between the points.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TalkingPortraitError
from ..image.affine_sampling import apply_map, box_map, map_corners, map_scale, turned_map
from ..packages import PACK, first_line, load_opencv
from .expression_scores import scores_from_shape
from .face import Face
from .face_search import same_face
from .metric_mesh import metric_mesh

FOLDER = PACK / "models" / "face" / "landmark_networks"
DETECTOR_FILE = FOLDER / "face_detection_short_range.tflite"
MESH_FILE = FOLDER / "face_landmark.tflite"
DETECTOR_SIZE, MESH_SIZE = 128, 192
ANCHOR_GRIDS = ((16, 2), (8, 6))
"""Cells along a side and anchors in a cell, for the two layers with detections."""
OVERLAP = 0.3
MOST_DENSE = 2
"""Samples along a side of each of the mesh network's pixels; where twice as many are needed, the picture is first made
smaller."""
MARGIN = 1.5
"""Side of the mesh network's input square over the longer side of the face's box."""


class TFLiteLandmarker:
    """468 points and presence scores for every face that the short-range detector finds."""

    name = "OpenCV"

    def __init__(self, hint: str = "") -> None:
        """`hint` is a sentence on how to get a better engine, or "".

        Raises TalkingPortraitError where OpenCV can't be loaded, and for a network that is damaged.
        """
        self.hint = hint
        self._detector = _Network(DETECTOR_FILE, DETECTOR_SIZE, {"classificators": (896, 1), "regressors": (896, 16)})
        self._mesh = _Network(MESH_FILE, MESH_SIZE, {"conv2d_21": (1404, 1), "conv2d_31": (1, 1)})
        self._anchors = _anchors()

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        """Every face in `picture` (H, W, 3) uint8 RGB, points in its pixels."""
        squares = self._detect(picture, min_confidence)
        if not squares:
            return []
        faces: list[Face] = []
        for square in squares:
            points = self._points(picture, square)
            # Once more in the square that the points themselves give: steadier than the detector's.
            face = self._face(picture, _square_of(points), min_confidence)
            if face is not None and same_face(face, faces) is None:
                faces.append(face)
        return faces

    def track(self, picture: np.ndarray, last: Face, min_confidence: float) -> Face | None:
        """The face that was `last` in the frame before, in `picture` (H, W, 3) uint8 RGB; None where it is gone."""
        return self._face(picture, _square_of(last.points), min_confidence)

    def _face(self, picture: np.ndarray, square: np.ndarray, min_confidence: float) -> Face | None:
        """The face in a square; None where its presence is less than asked."""
        points = self._points(picture, square)
        presence = float(_sigmoid(self._mesh.output("conv2d_31")).item())
        if presence < min_confidence:
            return None
        vertices, _ = metric_mesh(points, picture.shape[:2])
        return Face(points=points, blendshapes=scores_from_shape(vertices), score=presence)

    def _detect(self, picture: np.ndarray, min_confidence: float) -> list[np.ndarray]:
        """Maps (2, 3) of squares round faces, the most certain first."""
        cv2 = load_opencv()
        height, width = picture.shape[:2]
        side = max(height, width)
        matrix = box_map((width - side) / 2, (height - side) / 2, side, side, (DETECTOR_SIZE, DETECTOR_SIZE))
        inner = (max(1, round(width / side * DETECTOR_SIZE)), max(1, round(height / side * DETECTOR_SIZE)))
        padded = np.zeros((DETECTOR_SIZE, DETECTOR_SIZE, 3), dtype=np.float32)
        top, left = (DETECTOR_SIZE - inner[1]) // 2, (DETECTOR_SIZE - inner[0]) // 2
        padded[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA)
        self._detector.set_input(padded / 127.5 - 1)
        scores = _sigmoid(self._detector.output("classificators")[:, 0])
        chosen = scores >= min_confidence
        if not chosen.any():
            return []
        values = self._detector.output("regressors")
        raw, anchors, scores = values[chosen], self._anchors[chosen], scores[chosen]
        # Centre, size, then six key points (right eye, left eye, ...), in pixels from the anchor.
        pairs = raw.reshape(len(raw), -1, 2)
        place = np.concatenate(
            [pairs[:, :1] + anchors[:, None], pairs[:, 1:2], pairs[:, 2:] + anchors[:, None]], axis=1
        )
        squares = []
        for centre, size, right_eye, left_eye in _merged(place, scores)[:, :4]:
            turned = np.degrees(np.arctan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0]))
            middle = apply_map(matrix, centre)
            length = float(size.max()) * side / DETECTOR_SIZE * MARGIN
            squares.append(
                turned_map((float(middle[0]), float(middle[1])), length, float(turned), (MESH_SIZE, MESH_SIZE))
            )
        return squares

    def _points(self, picture: np.ndarray, square: np.ndarray) -> np.ndarray:
        """The points (468, 3) in the picture of the face in a square."""
        self._mesh.set_input(_cut_out(picture, square) / np.float32(255))
        return apply_map(square, self._mesh.output("conv2d_21").reshape(468, 3).astype(np.float64))


class _Network:
    """One TFLite network in OpenCV; its outputs by name, with their shapes."""

    def __init__(self, path: Path, size: int, outputs: dict[str, tuple[int, int]]) -> None:
        cv2 = load_opencv()
        try:
            # Bytes, not a path: OpenCV can't open paths beyond ASCII on every system.
            self._net: Any = cv2.dnn.readNetFromTFLite(np.frombuffer(path.read_bytes(), dtype=np.uint8))
            self._shapes = outputs
            self.set_input(np.zeros((size, size, 3), dtype=np.float32))
            for name in outputs:
                self.output(name)
        except (cv2.error, ValueError) as error:
            raise TalkingPortraitError(
                f"{path} is not the network that its name promises ({first_line(error)}); install the pack again."
            ) from error

    def set_input(self, picture: np.ndarray) -> None:
        """Sets the input, (size, size, 3) float32."""
        self._net.setInput(np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32))

    def output(self, name: str) -> np.ndarray:
        """One output for the input that was set; OpenCV 5 gives a network no more than one at a time."""
        return self._net.forward(name).reshape(self._shapes[name])


def _anchors() -> np.ndarray:
    """Anchor centres (896, 2) in pixels of the detector's input."""
    centres = []
    for cells, count in ANCHOR_GRIDS:
        line = (np.arange(cells) + 0.5) * DETECTOR_SIZE / cells
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 1, 2)
        centres.append(np.repeat(grid, count, axis=1).reshape(-1, 2))
    return np.concatenate(centres)


def _merged(place: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Detections (N, 8, 2) with overlapping ones averaged by their scores, the most certain first."""
    left_top = place[:, 0] - place[:, 1] / 2
    right_bottom = place[:, 0] + place[:, 1] / 2
    area = np.prod(np.maximum(place[:, 1], 0), axis=1)
    rest = np.argsort(-scores)
    merged = []
    while len(rest):
        best = rest[0]
        common = np.minimum(right_bottom[rest], right_bottom[best]) - np.maximum(left_top[rest], left_top[best])
        inter = np.prod(np.maximum(common, 0), axis=1)
        same = inter > OVERLAP * (area[rest] + area[best] - inter)
        same[0] = True
        merged.append(np.average(place[rest[same]], axis=0, weights=scores[rest[same]]))
        rest = rest[~same]
    return np.array(merged)


def _cut_out(picture: np.ndarray, square: np.ndarray) -> np.ndarray:
    """The input (192, 192, 3) uint8 of the mesh network, as `sample_picture` has it, several times as fast."""
    cv2 = load_opencv()
    # Several samples for each pixel where the picture is shrunk, then their mean; a large face is shrunk before.
    dense = max(1, math.ceil(map_scale(square)))
    if dense >= 2 * MOST_DENSE:
        picture, square = _smaller(picture, square, dense // MOST_DENSE)
        dense = max(1, math.ceil(map_scale(square)))
    side = MESH_SIZE * dense
    matrix = square / [dense, dense, 1]
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV's pixel centres are whole numbers
    way = (cv2.INTER_CUBIC if dense == 1 else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    samples = cv2.warpAffine(picture, matrix, (side, side), flags=way, borderMode=cv2.BORDER_REPLICATE)
    return samples if dense == 1 else cv2.resize(samples, (MESH_SIZE, MESH_SIZE), interpolation=cv2.INTER_AREA)


def _smaller(picture: np.ndarray, square: np.ndarray, times: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture around a square, so many times smaller, and the map of the square to it."""
    cv2 = load_opencv()
    whole = np.array(picture.shape[1::-1])
    corners = map_corners(square, (MESH_SIZE, MESH_SIZE))
    first = np.clip(np.floor(corners.min(axis=0)).astype(int) - times, 0, whole - 1)
    last = np.clip(np.ceil(corners.max(axis=0)).astype(int) + times, first + 1, whole)
    # Blocks lie on a grid of the picture's own, so that they don't shimmer when the square moves.
    first = first // times * times
    part = picture[first[1] : last[1], first[0] : last[0]]
    right, below = (-(last - first) % times).tolist()
    part = cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_REPLICATE)
    size = (part.shape[1] // times, part.shape[0] // times)
    moved = np.column_stack([square[:, :2], square[:, 2] - first]) / times
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA), moved


def _square_of(points: np.ndarray) -> np.ndarray:
    face = Face(points=points, blendshapes=None, score=None)
    return turned_map(
        (float(face.centre[0]), float(face.centre[1])), face.size * MARGIN, face.roll, (MESH_SIZE, MESH_SIZE)
    )


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values.astype(np.float64), -100, 100)))
