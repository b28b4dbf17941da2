"""FaceTrack to and from FACE_LANDMARKS, the payload of ComfyUI's own MediaPipe nodes.

Layout (ComfyUI, comfy_extras/nodes_mediapipe.py): {"frames": for each frame a list of faces, "image_size": (height,
width), "connection_sets": name -> set of point pairs}. A face has `bbox_xyxy` (4,), `landmarks_xy` (478, 2) in
pixels, `landmarks_3d` (478, 3) in units of the network's crop, `blendshapes` name -> score, `presence`, `score` and
`transformation_matrix` (4, 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from ...models.face.face_mesh import (
    BLENDSHAPES,
    FACE_OVAL,
    LEFT_BROW,
    LEFT_EYE,
    LIPS_INNER,
    LIPS_OUTER,
    RIGHT_BROW,
    RIGHT_EYE,
    VERTICES,
    face_mesh,
)
from ..errors import TalkingPortraitError, quoted
from ..types import FaceTrack
from .face import Face
from .face_tracking import Choice, FacePicker, Missing, track_of

POINTS = 478
"""Points of a payload's face: the mesh, then five of the right and five of the left iris."""
MIN_SIZE = 1e-3
FARTHEST = 10.0
"""How far from the picture's corner points may lie, over its longest side; beyond it they are of another scale."""
"""A face lower or narrower than so many pixels is none."""
NOSE_LINES = ((168, 6, 197, 195, 5, 4, 1, 19, 94, 2), (2, 97, 98, 64, 48, 115, 220, 45, 4, 275, 440, 344, 278, 294, 327, 326, 2))  # fmt: skip  # noqa: E501
IRIS_RINGS = ((469, 470, 471, 472), (474, 475, 476, 477))
IRIS_RADIUS = 0.2
"""Over the width of the eye; only for tracks without irises."""

Payload = dict[str, Any]


def to_payload(track: FaceTrack) -> Payload:
    """The payload of a track, one face in every frame; held frames have presence and score 0.

    A track of 468 points gets irises in the middle of the eyes, as ComfyUI's nodes expect 478 points.
    """
    frames = []
    for index in range(track.frames):
        points = _with_irises(track.points[index])
        found = bool(track.found[index])
        score = 1.0 if track.score is None else float(track.score[index])
        scores = {}
        if track.blendshapes is not None:
            scores = {name: float(value) for name, value in zip(BLENDSHAPES, track.blendshapes[index], strict=True)}
        box = np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])
        face = {
            "bbox_xyxy": box.astype(np.float32),
            "blendshapes": scores,
            "landmarks_xy": points[:, :2].astype(np.float32),
            # In pixels, so that the affine map to landmarks_xy, which gives the depth its scale, is the identity.
            "landmarks_3d": points.astype(np.float32),
            "presence": score if found else 0.0,
            "score": score if found else 0.0,
            "transformation_matrix": track.matrix[index].astype(np.float32),
        }
        frames.append([face])
    return {"frames": frames, "image_size": track.image_size, "connection_sets": connection_sets()}


def face_boxes(payload: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The boxes of a payload's faces in the form of ComfyUI's BOUNDING_BOX: for each picture a list.

    A box has x, y, width and height in pixels, a label and a score. A picture
    whose landmarks are held or interpolated has none.
    """
    frames = []
    for faces in payload["frames"]:
        boxes = []
        for face in faces:
            left, top, right, bottom = map(float, face["bbox_xyxy"])
            box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            if face["score"] > 0:
                boxes.append({**box, "label": "face", "score": float(face["score"])})
        frames.append(boxes)
    return frames


def from_payload(
    payload: Payload,
    *,
    choose: Choice = "largest",
    index: int = 0,
    missing: Missing = "hold",
    smoothing: float = 0.0,
) -> FaceTrack:
    """The track of one of a payload's faces; what is chosen and held is as in `landmarks.detect`.

    Head matrices are computed anew from the points, so that they agree with the metric mesh.
    Raises TalkingPortraitError for another object than such a payload, and for one without a single face.
    """
    frames, size = _checked(payload)
    picker = FacePicker(size, choose, index)
    faces: list[Face | None] = []
    for frame in frames:
        faces.append(picker.pick([_read_face(face, size) for face in frame]))
    held = np.array([face is not None and face.score == 0 for face in faces])
    track = track_of(faces, size, missing, smoothing)
    return FaceTrack(**{**vars(track), "found": track.found & ~held})


def _checked(payload: Any) -> tuple[list[Any], tuple[int, int]]:
    """The frames, each a list of faces, and the picture's (height, width)."""
    if not isinstance(payload, Mapping) or not {"frames", "image_size"} <= payload.keys():
        what = "nothing" if payload is None else f"of the type {type(payload).__name__}"
        if isinstance(payload, Mapping):
            what = f"an object with {quoted(list(payload))}"
        raise _refusal(f"The face landmarks are {what}, but FACE_LANDMARKS with frames and an image size is expected")
    frames, size = payload["frames"], payload["image_size"]
    if not isinstance(frames, Sequence) or not all(isinstance(frame, Sequence) for frame in frames):
        raise _refusal("The frames of the face landmarks are no lists of faces, as FACE_LANDMARKS has them")
    if not frames:
        raise _refusal("The face landmarks have no frames, but at least one is expected")
    try:
        height, width = (int(side) for side in size)
    except (TypeError, ValueError, OverflowError):
        height = width = 0
    if height < 1 or width < 1:
        raise _refusal(f"The face landmarks are of a picture of {quoted(size)}, but its height and width are expected")
    return list(frames), (height, width)


def _read_face(face: Any, size: tuple[int, int]) -> Face:
    try:
        flat = np.asarray(face["landmarks_xy"], dtype=np.float64)
        solid = np.asarray(face["landmarks_3d"], dtype=np.float64)
        scores = {name: float(value) for name, value in (face.get("blendshapes") or {}).items()}
        score = float(face.get("score", 1.0))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _refusal(
            "A face of the face landmarks can't be read, but landmarks_xy, landmarks_3d, blendshapes and a score are "
            f"expected ({type(error).__name__}: {quoted(str(error))})"
        ) from None
    if flat.ndim != 2 or flat.shape[0] < VERTICES or flat.shape[1] != 2 or solid.shape != (len(flat), 3):
        raise _refusal(
            f"A face has landmarks of the shapes {flat.shape} and {solid.shape}, but (478, 2) and (478, 3) are expected"
        )
    if not (np.isfinite(flat).all() and np.isfinite(solid).all() and np.isfinite([score, *scores.values()]).all()):
        raise _refusal("A face has landmarks or scores that are NaN or infinite, but numbers are expected")
    if (farthest := np.abs(flat).max()) > FARTHEST * max(size):
        raise _refusal(
            f"A face has landmarks {farthest:.0f} pixels from the corner of a picture of {size[1]} x {size[0]}, but "
            "pixels of that picture are expected"
        )
    if np.ptp(flat, axis=0).min() < MIN_SIZE or np.ptp(solid[:, :2], axis=0).min() == 0:
        raise _refusal("All landmarks of a face lie in one spot or line, but a face is expected")
    # The network's crop may be turned and of any size; the map from it to the picture gives the depth of a unit.
    crop = np.column_stack([solid[:, :2], np.ones(len(solid))])
    to_picture, *_ = np.linalg.lstsq(crop, flat, rcond=None)
    scale = float(np.linalg.norm(to_picture[0]))
    blendshapes = np.array([scores.get(name, 0.0) for name in BLENDSHAPES], dtype=np.float32) if scores else None
    return Face(
        points=np.column_stack([flat, solid[:, 2] * scale]),
        blendshapes=blendshapes,
        score=score,
    )


def _refusal(problem: str) -> TalkingPortraitError:
    return TalkingPortraitError(f"{problem}; connect Detect Landmarks or ComfyUI's own MediaPipe Face Landmarker.")


def _with_irises(points: np.ndarray) -> np.ndarray:
    if len(points) >= POINTS:
        return points[:POINTS]
    irises = []
    for ring in (RIGHT_EYE, LEFT_EYE):
        eye = points[list(ring)]
        middle = eye.mean(axis=0)
        across = (eye[len(ring) // 2] - eye[0]) * IRIS_RADIUS
        up = np.array([across[1], -across[0], 0.0])
        irises += [middle, middle + across, middle + up, middle - across, middle - up]
    return np.concatenate([points, irises])


@cache
def connection_sets() -> dict[str, frozenset[tuple[int, int]]]:
    """MediaPipe's lines between points, by the names that ComfyUI's nodes use."""
    sets = {
        "face_oval": _ring(FACE_OVAL),
        "lips": _ring(LIPS_OUTER) | _ring(LIPS_INNER),
        "left_eye": _ring(LEFT_EYE),
        "right_eye": _ring(RIGHT_EYE),
        "left_eyebrow": _line(LEFT_BROW[:5]) | _line(LEFT_BROW[5:]),
        "right_eyebrow": _line(RIGHT_BROW[:5]) | _line(RIGHT_BROW[5:]),
        "irises": _ring(IRIS_RINGS[0]) | _ring(IRIS_RINGS[1]),
        "nose": _line(NOSE_LINES[0]) | _line(NOSE_LINES[1]),
        "tesselation": _tesselation(),
    }
    contours = ("face_oval", "left_eye", "right_eye", "left_eyebrow", "right_eyebrow", "lips")
    sets["contours"] = frozenset[tuple[int, int]]().union(*(sets[name] for name in contours))
    sets["all"] = sets["contours"] | sets["irises"] | sets["nose"]
    return sets


def _line(points: tuple[int, ...]) -> frozenset[tuple[int, int]]:
    return frozenset(zip(points[:-1], points[1:], strict=True))


def _ring(points: tuple[int, ...]) -> frozenset[tuple[int, int]]:
    return _line((*points, points[0]))


def _tesselation() -> frozenset[tuple[int, int]]:
    """The edges of the mesh's triangles but those that fill the mouth and the eyes."""
    holes = [set(LIPS_INNER), set(LEFT_EYE), set(RIGHT_EYE)]
    edges = set()
    for triangle in face_mesh().triangles.tolist():
        if not any(hole.issuperset(triangle) for hole in holes):
            a, b, c = triangle
            edges |= {(a, b), (b, c), (c, a)}
    return frozenset(edges)
