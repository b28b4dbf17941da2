"""What the mouth controls do to the canonical face mesh.

Controls are (jaw, width, round, press, upper, tongue), each 0..1, and all zero is the neutral face with closed lips:
jaw    the lower jaw turns about its hinge; lower lip, chin and cheeks follow, and the upper lip rises a little
width  the mouth corners are drawn outwards, as in "ee"
round  the corners come in and the lips forward, as in "oo"; the gap between the lips narrows
press  the lips meet whatever the jaw does: 0.85 and more seals them ("p"), about 0.7 touches ("f")
upper  the lips part without the jaw: the upper lip rises by a third of the opening
tongue moves no vertex of this mesh; a renderer may draw it
Lengths are cm in MediaPipe's canonical head frame; lip openings are fractions of the distance between the outer eye
corners (8.9 cm).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..curves import smoothstep
from .face_mesh import (
    BLENDSHAPES,
    CHIN,
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LIPS_INNER,
    NOSE_TIP,
    VERTICES,
    eye_distance,
    face_mesh,
    mouth_opening,
)

JAW_OPENING = 0.34
"""Lip opening of jaw = 1."""
UPPER_OPENING = 0.096
"""Lip opening of upper = 1."""
ROUND_NARROWING = 0.55
"""Share of the opening that full rounding takes away."""
_PRESS_FROM, _PRESS_FULL = 0.25, 0.85

_GAP_OF_CHIN = 1.3
"""Lip opening per drop of the chin, as the jaw turns on this mesh."""
_TELLING_GAP = (0.01, 0.04)
"""Openings of the jaw, in eye distances, from which on closed lips count as pressed."""

_HINGE = np.array([0.0, -1.5, -2.0])
"""Effective axis of the jaw: the joint lies higher, but the jaw slides forward as it opens."""
_LIP_LINE = -4.3
_RISE_OF_JAW, _RISE_OF_UPPER = 0.07, 0.33
"""Parts of an opening by the jaw, and without it, that the upper lip rises: with the driver's controls it does so as
recorded speakers' lips do, from half of small openings to a fifth of wide ones."""
_UPPER_SHARE = 0.45
"""Of a gap that closes, the part the upper lip comes down."""
_PAIRS = tuple(zip(LIPS_INNER[1:10], LIPS_INNER[:10:-1], strict=True))
"""Points of the inner lips that meet: (upper, lower), from the right corner to the left."""


def lip_seal(press: Any) -> Any:
    """0..1: how much of the gap lip press takes away (NumPy or torch)."""
    return smoothstep(_PRESS_FROM, _PRESS_FULL, press)


def sealing_press(seal: np.ndarray) -> np.ndarray:
    """The least lip press that takes away `seal`, 0..1, of the gap: the inverse of `lip_seal`."""
    x = 0.5 - np.sin(np.arcsin(1 - 2 * np.asarray(seal)) / 3)
    return np.where(np.asarray(seal) > 0, _PRESS_FROM + x * (_PRESS_FULL - _PRESS_FROM), 0.0)


def lip_opening(controls: Any) -> Any:
    """Opening (...) in eye distances that controls (..., 6), NumPy or torch, make on the mesh with `mouth_vertices`."""
    jaw, _, rounded, press, upper = (controls[..., index] for index in range(5))
    return (JAW_OPENING * jaw + UPPER_OPENING * upper) * (1 - ROUND_NARROWING * rounded) * (1 - lip_seal(press))


@dataclass(frozen=True)
class _Basis:
    """`jaw` (468,) share of the jaw's turn, below 0 where that raises; `width`, `round`, `upper` (468, 3) cm; `close`
    (468, 9) shares of the nine inner-lip gaps (upper to lower point) by which each vertex moves when the lips meet."""

    neutral: np.ndarray
    jaw: np.ndarray
    jaw_angle: float
    width: np.ndarray
    round: np.ndarray
    upper: np.ndarray
    close: np.ndarray


def _lower_side(vertices: np.ndarray) -> np.ndarray:
    """(468,) bool: below the line where the lips meet."""
    below = vertices[:, 1] < _LIP_LINE
    below[[upper for upper, _ in _PAIRS]] = False
    below[[lower for _, lower in _PAIRS]] = True
    return below


def _closing(vertices: np.ndarray, below: np.ndarray) -> np.ndarray:
    close = np.zeros((VERTICES, len(_PAIRS)))
    x, y = vertices[:, 0], vertices[:, 1]
    for side, share, ring in (
        (~below, _UPPER_SHARE, [upper for upper, _ in _PAIRS]),
        (below, _UPPER_SHARE - 1, [lower for _, lower in _PAIRS]),
    ):
        along = np.exp(-(((x[:, None] - x[ring][None]) / 0.4) ** 2) / 2)
        along /= along.sum(1, keepdims=True) + 1e-9
        away = np.abs(y - np.interp(x, x[ring], y[ring]))
        fade = np.exp(-((away / 1.1) ** 2) / 2) * (1 - smoothstep(1.7, 2.6, np.abs(x)))
        fade *= 1 - smoothstep(-2.9, -2.1, y)
        close += share * (side * fade)[:, None] * along
        close[ring] = share * np.eye(len(ring))
    return close


def _jaw_share(vertices: np.ndarray, below: np.ndarray, parting: np.ndarray) -> np.ndarray:
    across, y = np.abs(vertices[:, 0]), vertices[:, 1]
    cheek = 1 - smoothstep(-7.5, -3.4, y)
    lower = cheek + (1 - cheek) * (1 - smoothstep(0.8, 2.6, across))
    upper = cheek * smoothstep(1.0, 2.8, across)
    return np.where(below, lower, upper - _RISE_OF_JAW * parting)


def _turn(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Offsets of points (..., 3) turned about the jaw's axis by angle (...) in radians, opening downwards."""
    y, z = points[..., 1] - _HINGE[1], points[..., 2] - _HINGE[2]
    sine, cosine = np.sin(angle), np.cos(angle) - 1
    return np.stack([np.zeros_like(y * angle), cosine * y - sine * z, sine * y + cosine * z], axis=-1)


def _jaw_angle(point: np.ndarray, gap: float) -> float:
    """The angle that moves `point` by `gap` cm: chord of a circle about the hinge."""
    radius = float(np.hypot(point[1] - _HINGE[1], point[2] - _HINGE[2]))
    return 2 * float(np.arcsin(gap / (2 * radius)))


@cache
def _basis() -> _Basis:
    mesh = face_mesh().vertices.astype(np.float64)
    below = _lower_side(mesh)
    close = _closing(mesh, below)
    gaps = np.stack([mesh[lower] - mesh[upper] for upper, lower in _PAIRS])
    neutral = mesh + close @ gaps

    x, y, z = neutral.T
    lips_x, lips_y = x / 2.46, y - _LIP_LINE
    eyes = float(eye_distance(mesh))
    # One smooth hill over the mouth; everything the lips do to the skin fades with it.
    near = np.exp(-((x / 3.0) ** 2) / 2 - (lips_y / 1.5) ** 2 / 2) * smoothstep(1.0, 3.5, z)
    near *= 1 - smoothstep(-2.9, -1.7, y)

    pull = np.tanh(1.3 * lips_x) * near
    width = np.stack([0.62 * pull, 0.10 * np.abs(pull) - 0.05 * near * np.tanh(lips_y), -0.30 * np.abs(pull)], axis=-1)
    inward = np.stack([-0.85 * pull, -0.12 * near * lips_y, 0.75 * near * np.exp(-(lips_x**2) / 2)], axis=-1)

    # All of it in the middle and nothing at the corners, which lie on either side of the line where lips meet. A lip
    # that rises grows thinner: its border goes by little more than half of what its edge does.
    parting = np.exp(-((x / 1.6) ** 2) / 2) * (1 - smoothstep(1.6, 2.5, np.abs(x)))
    parting *= np.exp(-((lips_y / np.where(below, 1.6, 0.66)) ** 2) / 2)
    parting *= np.where(below, 1, 1 - smoothstep(-3.4, -1.7, y))
    rise = np.where(below, _RISE_OF_UPPER - 1, _RISE_OF_UPPER) * parting
    upper = np.zeros((VERTICES, 3))
    upper[:, 1] = UPPER_OPENING * eyes * rise / (rise[INNER_UPPER_LIP] - rise[INNER_LOWER_LIP])
    upper[:, 2] = 0.15 * np.abs(upper[:, 1])

    return _Basis(
        neutral=neutral,
        jaw=_jaw_share(neutral, below, parting),
        jaw_angle=_jaw_angle(neutral[INNER_LOWER_LIP], JAW_OPENING * eyes / (1 + _RISE_OF_JAW)),
        width=width,
        round=inward,
        upper=upper,
        close=close,
    )


def neutral_vertices() -> np.ndarray:
    """The canonical mesh (468, 3) float32 in cm with its lips brought together: the rest of every Instant motion."""
    return _basis().neutral.astype(np.float32)


def close_lips(vertices: np.ndarray, amount: np.ndarray | float = 1.0) -> np.ndarray:
    """Any mesh (..., 468, 3) with `amount` (...) of the gap between its inner lips closed, and the skin drawn along."""
    return vertices + closing_offsets(lip_gaps(vertices) * np.asarray(amount)[..., None, None]).astype(vertices.dtype)


def lip_gaps(vertices: np.ndarray) -> np.ndarray:
    """Ways (..., 9, 3) from the upper to the lower inner lip, from the right corner to the left."""
    above, under = ([pair[side] for pair in _PAIRS] for side in (0, 1))
    return vertices[..., under, :] - vertices[..., above, :]


def closing_offsets(gaps: np.ndarray) -> np.ndarray:
    """Offsets (..., 468, 3) that bring the inner lips nearer by `gaps` (..., 9, 3), as `lip_gaps` gives them."""
    return _basis().close @ gaps


def lip_curves(vertices: np.ndarray, neutral: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lip press and rounding (F,), (F,) in 0..1, as the controls have them, of any mesh (F, 468, 3) over its rest.

    Rounding is where the corners come in and the lips forward; lips press where the chin is lower than their gap says.
    """
    offsets = (vertices - neutral).astype(np.float64)
    right, left = LIPS_INNER[0], LIPS_INNER[10]
    basis = _basis()
    narrowed = (offsets[:, right, 0] - offsets[:, left, 0]) / (basis.round[right, 0] - basis.round[left, 0])
    middle = [INNER_UPPER_LIP, INNER_LOWER_LIP]
    forward = offsets[:, middle, 2].mean(axis=1) - offsets[:, [right, left], 2].mean(axis=1)
    protruded = forward / (basis.round[middle, 2].mean() - basis.round[[right, left], 2].mean())
    rounded = np.clip((narrowed + protruded) / 2, 0, 1)
    dropped = (offsets[:, NOSE_TIP, 1] - offsets[:, CHIN, 1]) / eye_distance(neutral)
    gap = dropped * _GAP_OF_CHIN * (1 - ROUND_NARROWING * rounded)
    closed = np.clip(1 - mouth_opening(vertices) / np.maximum(gap, 1e-6), 0, 1)
    press = sealing_press(closed * smoothstep(*_TELLING_GAP, gap))
    return press.astype(np.float32), rounded.astype(np.float32)


def mouth_vertices(controls: np.ndarray) -> np.ndarray:
    """Offsets (F, 468, 3) float32 in cm from `neutral_vertices` for controls (F, 6) in 0..1."""
    controls = np.clip(np.asarray(controls, np.float64), 0, 1)
    basis = _basis()
    jaw, _, rounded, press, _ = (controls[:, index, None] for index in range(5))
    moved = np.stack([basis.width, basis.round, basis.upper]).reshape(3, -1)
    offsets = (controls[:, [1, 2, 4]] @ moved).reshape(-1, VERTICES, 3)
    turned = basis.jaw != 0
    offsets[:, turned] += _turn(basis.neutral[None, turned], jaw * basis.jaw_angle * basis.jaw[None, turned])
    # Rounding narrows the gap and press closes it: each vertex gives back its share of what is open.
    taken = 1 - (1 - ROUND_NARROWING * rounded) * (1 - lip_seal(press))
    above = [pair[0] for pair in _PAIRS]
    under = [pair[1] for pair in _PAIRS]
    gaps = offsets[:, under] - offsets[:, above] + (basis.neutral[under] - basis.neutral[above])[None]
    return (offsets + basis.close @ (taken[..., None] * gaps)).astype(np.float32)


def mouth_blendshapes(controls: np.ndarray) -> np.ndarray:
    """The same movement as 52 ARKit scores (F, 52) float32 in 0..1, in MediaPipe's order; all but the mouth are 0."""
    controls = np.clip(np.asarray(controls, np.float64), 0, 1)
    jaw, width, rounded, press, upper, _ = controls.T
    seal = lip_seal(press)
    scores = np.zeros((len(controls), len(BLENDSHAPES)), np.float32)
    values = {
        "jawOpen": jaw,
        # ARKit's mouthClose closes the lips over an open jaw, so it never exceeds jawOpen.
        "mouthClose": jaw * (1 - (1 - ROUND_NARROWING * rounded) * (1 - seal)),
        "mouthFunnel": rounded * np.clip(jaw * 2, 0, 1) * 0.7,
        "mouthPucker": rounded * (1 - 0.7 * np.clip(jaw * 2, 0, 1)),
        "mouthPress": 0.5 * seal,
        "mouthRollLower": 0.4 * seal,
        "mouthRollUpper": 0.25 * seal,
        "mouthStretch": 0.6 * width,
        "mouthSmile": 0.2 * width,
        "mouthUpperUp": 0.5 * upper * (1 - seal),
        "mouthLowerDown": 0.4 * upper * (1 - seal),
    }
    for index, name in enumerate(BLENDSHAPES):
        for known, value in values.items():
            if name in (known, f"{known}Left", f"{known}Right"):
                scores[:, index] = np.clip(value, 0, 1)
    return scores
