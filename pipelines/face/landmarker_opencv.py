"""The two face networks of older mediapipe packages (BlazeFace and the 468-point mesh) run by OpenCV's dnn module.

They ship with the pack, for places where the `.task` file or the mediapipe package is not at hand. The networks are
MediaPipe's (models/face/mediapipe_networks; Apache-2.0, see the NOTICE there); anchors, overlap suppression, crop and
projection back follow the figures in MediaPipe's published graphs. Papers: BlazeFace (arXiv 1907.05047), Real-time
Facial Surface Geometry (arXiv 1907.06724). Expression scores come from distances between the points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..image.affine_sampling import apply_map, box_map, turned_map
from ..image.byte_sampling import cut_out
from ..image.tflite_network import FOLDER, TFLiteNetwork
from ..packages import load_opencv
from .expression_scores import scores_from_shape
from .face import Face
from .face_search import same_face
from .metric_mesh import metric_mesh
from .part_points import PartPoints, shipped_networks

DETECTOR_FILE = FOLDER / "face_detection_short_range.tflite"
MESH_FILE = FOLDER / "face_landmark.tflite"
DETECTOR_SIZE, MESH_SIZE = 128, 192
ANCHOR_GRIDS = ((16, 2), (8, 6))
"""Cells along a side and anchors in a cell, for the two layers with detections."""
OVERLAP = 0.3
LOOK_SIZE, SAME_LOOK = 24, 6.0
"""The mesh network's picture in so many blocks along a side, and by how many of 255 levels they may differ on average
for a face to look as before. Half of a talking face's frames differ by
2 to 3 from the one before, those after a cut by 30 and more."""
MARGIN = 1.5
"""Side of the mesh network's input square over the longer side of the face's box."""

SETTLED, MOST_PASSES = 0.04, 6
"""Mean movement of the points, over the face's size, from one square to the next below which they stay; and passes."""


class TFLiteLandmarker:
    """468 points and presence scores for every face that the short-range detector finds."""

    name = "OpenCV"

    def __init__(self, hint: str = "", networks: Sequence[PartPoints] | None = None) -> None:
        """`hint` is a sentence on how to get a better engine, or "". `networks` correct the mesh; None, the shipped.

        Raises TalkingPortraitError where OpenCV can't be loaded, and for a network that is damaged.
        """
        self.hint = hint
        self._detector = TFLiteNetwork(
            DETECTOR_FILE, DETECTOR_SIZE, {"classificators": (896, 1), "regressors": (896, 16)}
        )
        self._mesh = TFLiteNetwork(MESH_FILE, MESH_SIZE, {"conv2d_21": (1404, 1), "conv2d_31": (1, 1)})
        self._corrections = shipped_networks() if networks is None else networks
        self._anchors = _anchors()
        self._seen = np.zeros((LOOK_SIZE, LOOK_SIZE, 3), dtype=np.float32)
        self._certain: tuple[np.ndarray | None, float] = (None, 0.0)

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        """Every face in `picture` (H, W, 3) uint8 RGB, points in its pixels."""
        squares = self._detect(picture, min_confidence)
        if not squares:
            return []
        faces: list[Face] = []
        for square in squares:
            points = self._points(picture, square)
            # Again in the square that the points themselves give: steadier than the detector's, which of faces that are
            # small in the picture can be far too large.
            for _ in range(MOST_PASSES):
                face = self._face(picture, _square_of(points), min_confidence)
                if face is None or np.linalg.norm(face.points - points, axis=1).mean() < SETTLED * face.size:
                    break
                points = face.points
            if face is not None and same_face(face, faces) is None:
                faces.append(face)
        return faces

    def track(self, picture: np.ndarray, last: Face, min_confidence: float) -> Face | None:
        """The face that was `last` in the frame before, in `picture` (H, W, 3) uint8 RGB; None where it is gone."""
        return self._face(picture, _square_of(last.points), min_confidence, tracked=True)

    def _face(
        self, picture: np.ndarray, square: np.ndarray, min_confidence: float, tracked: bool = False
    ) -> Face | None:
        """The face in a square; None where its presence is less than asked."""
        points = self._points(picture, square)
        presence = self._presence(tracked)
        if presence < min_confidence:
            return None
        for network in self._corrections:
            points = network.correct(picture, points)
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

    def _presence(self, tracked: bool) -> float:
        """How certain it is that the square of the last `_points` shows a face.

        It takes a second run of the mesh network, so a tracked face that looks as where it was last certain has it
        from there.
        """
        seen, presence = self._certain
        if tracked and seen is not None and np.abs(self._seen - seen).mean() < SAME_LOOK:
            return presence
        presence = float(_sigmoid(self._mesh.output("conv2d_31")).item())
        self._certain = (self._seen, presence)
        return presence

    def _points(self, picture: np.ndarray, square: np.ndarray) -> np.ndarray:
        """The points (468, 3) in the picture of the face in a square."""
        cut = cut_out(picture, square, MESH_SIZE)
        cv2 = load_opencv()
        self._seen = cv2.resize(cut, (LOOK_SIZE, LOOK_SIZE), interpolation=cv2.INTER_AREA).astype(np.float32)
        self._mesh.set_input(cut / np.float32(255))
        return apply_map(square, self._mesh.output("conv2d_21").reshape(468, 3).astype(np.float64))


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


def _square_of(points: np.ndarray) -> np.ndarray:
    face = Face(points=points, blendshapes=None, score=None)
    return turned_map(
        (float(face.centre[0]), float(face.centre[1])), face.size * MARGIN, face.roll, (MESH_SIZE, MESH_SIZE)
    )


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values.astype(np.float64), -100, 100)))
