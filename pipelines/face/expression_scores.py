"""Expression scores from the shape of a face, for landmark engines without a network for them.

An approximation: eleven kinds of the 52 ARKit scores, each a straight line through a few distances, cut off at 0 and 1.
The lines were fitted to the scores that MediaPipe's own network gives four portraits (photo, drawing, painting) whose
mesh was deformed a thousand ways by the mouth, lid and brow shapes of this pack. Correlation with that network's
scores over these: eyeBlink 0.99, eyeWide 0.96, browInnerUp 0.91, jawOpen 0.90, browOuterUp 0.89, browDown 0.87,
mouthPress 0.82, mouthSmile 0.79, mouthFunnel 0.74, mouthPucker 0.60, mouthLowerDown 0.59. Scores not named here are 0.
"""

from __future__ import annotations

import numpy as np

from ...models.face.face_mesh import (
    BLENDSHAPES,
    CHIN,
    INNER_EYE_CORNERS,
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    NOSE_BASE,
    OUTER_EYE_CORNERS,
    OUTER_LOWER_LIP,
    OUTER_MOUTH_CORNERS,
    OUTER_UPPER_LIP,
    eye_distance,
)

# For the right and the left side of the face.
_LIDS = (((160, 159, 158), (144, 145, 153)), ((387, 386, 385), (373, 374, 380)))
_EYE_CORNERS = tuple(zip(INNER_EYE_CORNERS, OUTER_EYE_CORNERS, strict=True))
_INNER_BROW = ((55, 107, 65, 66), (285, 336, 295, 296))
_OUTER_BROW = ((46, 70, 53, 63), (276, 300, 283, 293))

_LINES: dict[str, tuple[dict[str, float], float]] = {
    "eyeBlink": ({"eye": -8.12}, 0.844),
    "eyeWide": ({"eye": 5.53}, -0.573),
    "jawOpen": ({"gap": 1.75, "chin": 0.02}, -0.092),
    "mouthFunnel": ({"gap": 1.71, "width": -0.86, "forward": 1.99}, 0.416),
    "mouthPucker": ({"gap": -0.38, "width": -4.21, "forward": -1.76}, 2.453),
    "mouthSmile": ({"width": 7.31, "corner": 1.42}, -4.18),
    "mouthPress": ({"lips": -2.72, "gap": -0.22, "corner": 2.03}, 0.621),
    "mouthLowerDown": ({"gap": 0.59}, -0.03),
    "browInnerUp": ({"inner brow": 20.34, "outer brow": -11.8}, -2.013),
    "browDown": ({"inner brow": -1.59, "outer brow": -1.73}, 0.739),
    "browOuterUp": ({"inner brow": 0.93, "outer brow": 10.83}, -2.216),
}
"""Score -> (measure -> slope, offset). Measures are in distances of the outer eye corners."""


def scores_from_shape(vertices: np.ndarray) -> np.ndarray:
    """Scores (..., 52) float32 in 0..1, in MediaPipe's order, of metric meshes (..., 468, 3) in the head frame."""
    measures = _measures(np.asarray(vertices, dtype=np.float64))
    scores = np.zeros((*vertices.shape[:-2], len(BLENDSHAPES)), dtype=np.float32)
    for index, name in enumerate(BLENDSHAPES):
        side = next((side for side in ("Right", "Left") if name.endswith(side)), "")
        line = _LINES.get(name.removesuffix(side))
        if line:
            slopes, offset = line
            value = sum(slope * _measure(measures[what], side) for what, slope in slopes.items()) + offset
            scores[..., index] = np.clip(value, 0, 1)
    return scores


def _measure(pair: np.ndarray, side: str) -> np.ndarray:
    """A measure (..., 2) of the right and the left side: one of them, or their mean where a score has no side."""
    if side:
        return pair[..., ("Right", "Left").index(side)]
    return pair.mean(axis=-1)


def _measures(points: np.ndarray) -> dict[str, np.ndarray]:
    unit = eye_distance(points)[..., None]

    def distance(first: int, second: int) -> np.ndarray:
        return np.repeat(np.linalg.norm(points[..., first, :] - points[..., second, :], axis=-1)[..., None], 2, axis=-1)

    def height(*group: int) -> np.ndarray:
        return points[..., list(group), 1].mean(axis=-1)

    def above(groups: tuple[tuple[int, ...], ...], below: tuple[tuple[int, ...], ...]) -> np.ndarray:
        pairs = zip(groups, below, strict=True)
        return np.stack([height(*group) - height(*under) for group, under in pairs], axis=-1)

    lids = [
        np.linalg.norm(points[..., list(up), :] - points[..., list(low), :], axis=-1).mean(axis=-1) for up, low in _LIDS
    ]
    lips = (INNER_UPPER_LIP, INNER_LOWER_LIP)
    outer = points[..., [OUTER_UPPER_LIP, OUTER_LOWER_LIP], 2].mean(axis=-1)
    measures = {
        "eye": np.stack(lids, axis=-1),
        "gap": distance(*lips),
        "width": distance(*OUTER_MOUTH_CORNERS),
        "chin": np.repeat((height(NOSE_BASE) - height(CHIN))[..., None], 2, axis=-1),
        "corner": above(tuple((corner,) for corner in OUTER_MOUTH_CORNERS), (lips, lips)),
        "lips": distance(OUTER_UPPER_LIP, INNER_UPPER_LIP) + distance(INNER_LOWER_LIP, OUTER_LOWER_LIP),
        "forward": np.repeat((outer - points[..., NOSE_BASE, 2])[..., None], 2, axis=-1),
        "inner brow": above(_INNER_BROW, _EYE_CORNERS),
        "outer brow": above(_OUTER_BROW, _EYE_CORNERS),
    }
    return {name: value / unit for name, value in measures.items()}
