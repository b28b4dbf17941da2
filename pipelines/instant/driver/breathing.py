"""Breathing: quickly in before a phrase and slowly out while it is spoken, evenly at rest.

Quiet breaths take about four seconds, of which somewhat less than half goes in; speakers take a breath in about half a
second and spend it over the phrase (Hixon 1973).
"""

from __future__ import annotations

import numpy as np

from ...motion.random_streams import stream
from .prosody import RATE, Prosody, gaussian

MAX_BREATH = 1.6

_CYCLE, _IN_SHARE = 4.0, 0.42
_GASP = (0.35, 0.7)
"""Seconds that a breath before a phrase takes, as its pause allows."""
_SPARE = 0.25
"""Seconds of a pause below which no breath is taken."""
_DEEPER = 0.12
"""How much deeper a breath is for each second of the phrase that follows."""
_NOD_DEGREES, _LIFT_CM = 0.22, 0.05
"""What a breath in does to the head's pitch and height."""


def breath_curve(prosody: Prosody, seed: int) -> np.ndarray:
    """Air in the chest (T,), 0 after a quiet breath out, 1 after a quiet breath in."""
    random = stream(seed, "breath")
    seconds = prosody.frames / RATE
    times, air = [0.0], [0.3]
    for start, end in prosody.phrases:
        _idle(times, air, start - _GASP[1], random)
        pause = start - times[-1]
        if pause > _SPARE:
            begin = max(times[-1], start - min(_GASP[1], max(_GASP[0], 0.8 * pause)))
            deep = (0.8 + _DEEPER * min(end - start, 5.0)) * random.uniform(0.9, 1.1)
            times += [begin, max(start - 0.05, begin + 0.05)]
            air += [0.85 * air[-1], deep]
        times.append(max(end, times[-1] + 0.05))
        air.append(max(air[-1] - 0.3 * (end - start), 0.05))
    _idle(times, air, seconds, random)
    rows = np.interp(np.arange(prosody.frames) / RATE, times, air)
    return np.clip(gaussian(rows, 0.12 * RATE), 0, MAX_BREATH)


def moved_by_breath(breath: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What breath (F,) does to the head: rotation (F, 3) degrees and translation (F, 3) cm."""
    rotation, translation = np.zeros((len(breath), 3)), np.zeros((len(breath), 3))
    rotation[:, 0] = -_NOD_DEGREES * breath
    translation[:, 1] = _LIFT_CM * breath
    return rotation, translation


def _idle(times: list[float], air: list[float], until: float, random: np.random.Generator) -> None:
    """Quiet breaths from the last of `times` to `until`, as corners that are joined by lines."""
    while until - times[-1] > 1.5:
        cycle = _CYCLE * np.exp(0.2 * np.clip(random.standard_normal(), -2, 2))
        inward = cycle * _IN_SHARE
        times += [times[-1] + inward, times[-1] + 0.85 * cycle, times[-1] + cycle]
        air += [random.uniform(0.85, 1.1), 0.08, 0.0]
