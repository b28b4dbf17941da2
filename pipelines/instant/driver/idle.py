"""What a face does while nothing is said, and how its sides differ: faint movement of brows and lips, asymmetry."""

from __future__ import annotations

import numpy as np

from ....models.face.face_mesh import BLENDSHAPES, face_mesh
from ....models.speech.mouth_network import CONTROLS
from ...motion.random_streams import stream, wandering
from .prosody import RATE, Prosody, gaussian

MOVED = ("browInnerUp", "browOuterUpLeft", "browOuterUpRight", "browDownLeft", "browDownRight")
"""Blendshapes that move at rest."""
_BROW, _LIPS = 0.09, 0.10
"""Weights of brows, and of the lips' width and rounding, that are passed now and then."""
_UNEVEN, _UNEVEN_WANDERS = 0.09, 0.05
"""By which part one side of the face moves more than the other, always and for some seconds."""


def idle_brows(prosody: Prosody, seed: int) -> dict[str, np.ndarray]:
    """Blendshape weights (T,) of brows that are never quite still."""
    random = stream(seed, "idle brows")
    slow = _slow(random, prosody.frames, 3.0, 3)
    lift, side, lower = slow.T
    up = _BROW * (1 + np.tanh(lift))
    down = 0.6 * _BROW * np.maximum(lower - 0.3, 0)
    values = (up, up * (1 + 0.4 * side), up * (1 - 0.4 * side), down, down)
    return {name: np.maximum(rows, 0) for name, rows in zip(MOVED, values, strict=True)}


def idle_lips(prosody: Prosody, seed: int) -> np.ndarray:
    """Controls (T, 6) of closed lips that move faintly where nothing is said."""
    slow = _slow(stream(seed, "idle lips"), prosody.frames, 1.6, 2)
    quiet = 1 - gaussian(prosody.speech.astype(np.float64), 0.25 * RATE)
    controls = np.zeros((prosody.frames, len(CONTROLS)))
    controls[:, CONTROLS.index("width")] = _LIPS * np.maximum(slow[:, 0], 0) * quiet
    controls[:, CONTROLS.index("round")] = 0.8 * _LIPS * np.maximum(slow[:, 1], 0) * quiet
    return controls


def unevenness(frames: int, seed: int) -> np.ndarray:
    """(T,) by which part the left side of the face moves more, the right one less."""
    random = stream(seed, "asymmetry")
    side = random.choice([-1.0, 1.0]) * random.uniform(0.6, 1.0)
    return side * _UNEVEN + _UNEVEN_WANDERS * _slow(random, frames, 2.5, 1)[:, 0]


def uneven_shares(uneven: np.ndarray) -> np.ndarray:
    """What movement is multiplied by, (F, 468, 1), for unevenness (F,)."""
    across = np.tanh(face_mesh().vertices[:, 0] / 1.5)
    return (1 + uneven[:, None] * across).astype(np.float32)[..., None]


def uneven_scores(uneven: np.ndarray) -> np.ndarray:
    """The same for blendshapes, (F, 52)."""
    sides = np.array([name.endswith("Left") * 1.0 - name.endswith("Right") * 1.0 for name in BLENDSHAPES])
    # Lids close together.
    sides[[index for index, name in enumerate(BLENDSHAPES) if name.startswith("eye")]] = 0
    return (1 + uneven[:, None] * sides).astype(np.float32)


def _slow(random: np.random.Generator, frames: int, seconds: float, columns: int) -> np.ndarray:
    return 2 * np.tanh(gaussian(wandering(random, frames, RATE, seconds, columns), 0.25 * RATE) / 2)
