"""Movement of the upper face during speech: blinks and brows, as blendshape weights over time."""

from __future__ import annotations

import numpy as np

from ...motion.random_streams import stream
from .prosody import RATE, Prosody, gaussian


def brow_weights(prosody: Prosody, seed: int) -> dict[str, np.ndarray]:
    """Blendshape weights (T,) of the brows, and of the eyes that widen with them; 0 in silence.

    Brows go up where the voice does: a little with every rise, clearly on some high accents and some beginnings of
    phrases. Now and then a loud, low accent draws them down instead.
    """
    random = stream(seed, "brows")
    up, tilt, down = np.zeros(prosody.frames), np.zeros(prosody.frames), np.zeros(prosody.frames)
    last = -1.0
    for seconds, strength in prosody.accents:
        chance, size, lean = random.random(), np.exp(0.25 * random.standard_normal()), random.normal(0, 0.12)
        index = min(prosody.frames - 1, max(0, round((seconds - 0.04) * RATE)))
        if seconds - last < 0.9:
            continue
        high = prosody.pitch[index] > 1.0
        if chance < (0.65 if high else 0.15):
            up[index], tilt[index] = (0.2 + 0.35 * strength) * size, lean
            last = seconds
        elif not high and chance > 0.85:
            down[index] = 0.4 * strength * size
            last = seconds
    for start, _ in prosody.phrases:
        if random.random() < 0.4:
            index = min(prosody.frames - 1, round((start + 0.1) * RATE))
            up[index] = max(up[index], random.uniform(0.15, 0.35))
    talking = gaussian(prosody.speech.astype(np.float64), 0.12 * RATE)
    follow = np.minimum(0.05 * np.maximum(gaussian(prosody.pitch, 0.2 * RATE), 0), 0.3)
    t = np.arange(-100, 101) / RATE
    shape = np.exp(-0.5 * (t / np.where(t < 0, 0.12, 0.3)) ** 2)
    lift, side, lower = (np.convolve(hits, shape)[100 : 100 + prosody.frames] for hits in (up, tilt, down))
    lift = np.tanh(lift + follow * talking)
    side = np.clip(side, -0.3, 0.3)
    return {
        "browInnerUp": lift,
        "browOuterUpLeft": np.maximum(lift * (0.85 + side), 0),
        "browOuterUpRight": np.maximum(lift * (0.85 - side), 0),
        "browDownLeft": np.tanh(lower),
        "browDownRight": np.tanh(lower),
        "eyeWideLeft": 0.4 * lift,
        "eyeWideRight": 0.4 * lift,
    }
