"""Audio to mouth controls: the Instant driver's mouth network, run in chunks at its own fixed rate.

The threshold from which a closure becomes a contact was chosen on three recordings of real speech, the pauses in which
the mouth goes on moving are those of measured speakers (docs/instant-driver.md). What other numbers were tuned on is
not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ....models.curves import smoothstep
from ....models.face.mouth_shapes import lip_seal, mouth_vertices, sealing_press
from ....models.speech.mouth_network import CONTROLS, FRAME_RATE, PRESS, SAMPLE_RATE, MouthNetwork
from ...audio.mouth_states import CHUNK, mouth_logits, readings
from ...audio.mouth_weights import DEFAULT_WEIGHTS, open_mouth
from ...audio.phrase_level import levelled_sound
from ...audio.speech_activity import SPOKEN, certain_activity
from ...audio.waveform import check_audio, mono_at
from ...timing import as_rate, frame_count
from ...types import Audio, Progress, no_progress

_HINT, _BELIEVED = 0.18, 0.28
"""A peak of lip press up to the first is left alone, from the second on it is raised to a touch."""
_TOUCH = 0.76
_APPROACH = 0.04
"""Standard deviation in seconds of the way to and from a closure: lips have mass."""
_PAUSE, _TRAIL, _BREATH = 0.7, 0.2, 0.4
"""Seconds of the longest pause in which the mouth goes on moving, and how long it does after and before longer ones."""
_FADE = 0.06
"""Standard deviation in seconds with which it comes to rest and begins to move."""
_STILL = 0.05
"""How much of its movement is too little to be any: what fades ends, and a mouth at rest is exactly still."""


@dataclass(frozen=True)
class MouthControls:
    """`values` (T, 6) float32 in 0..1 in the order of `names`; `activity` (T,) 0..1 speech; `rate` frames a second.

    Frame j belongs to the time j / rate; `seconds` is the audio's length.
    """

    values: np.ndarray
    activity: np.ndarray
    rate: int
    seconds: Fraction
    names: tuple[str, ...] = CONTROLS

    def at(self, fps: float | Fraction) -> np.ndarray:
        """Controls (F, 6) for frames of a video of `fps`, frame i at the time i / fps, F covering all of the audio.

        Movement is averaged over a frame's duration, but lip press takes its highest value within it, so that no
        closure falls between two frames.
        """
        rate = as_rate(fps)
        frames = frame_count(self.seconds.numerator, self.seconds.denominator, rate)
        interpolated = readings(self.values, self.rate, rate, range(frames))  # (F, places, 6)
        controls = interpolated.mean(axis=1)
        controls[:, PRESS] = interpolated[..., PRESS].max(axis=1)
        return controls.astype(np.float32)

    def vertices_at(self, fps: float | Fraction) -> np.ndarray:
        """Offsets (F, 468, 3) in cm from the neutral mesh, for frames of a video of `fps`."""
        return mouth_vertices(self.at(fps))


def _gate(activity: np.ndarray) -> np.ndarray:
    """How far (T,) the mouth moves at all: 0 without speech, 1 within it, its short unsure moments and pauses included.

    It also moves shortly after a word, and before one, as speakers breathe in.
    """
    from scipy.ndimage import gaussian_filter1d, grey_closing, maximum_filter1d

    spoken = smoothstep(*SPOKEN, activity)
    reach = round(_PAUSE * FRAME_RATE)
    filled = grey_closing(np.pad(spoken, reach), reach)[reach:-reach]
    before, after = round(_BREATH * FRAME_RATE), round(_TRAIL * FRAME_RATE)
    wider = maximum_filter1d(filled, before + after + 1, origin=(after - before) // 2, mode="constant")
    faded = np.maximum(filled, gaussian_filter1d(wider, _FADE * FRAME_RATE, mode="nearest"))
    return np.clip((faded - _STILL) / (1 - _STILL), 0, 1)


def _commit(press: np.ndarray) -> np.ndarray:
    """Lip press (T,) whose peaks within 80 ms, if believed, reach a touch; each keeps its shape in time."""
    from scipy.ndimage import maximum_filter1d

    peak = maximum_filter1d(press, 9, mode="nearest")
    believed = np.clip((peak - _HINT) / (_BELIEVED - _HINT), 0, 1)
    raised = np.maximum(1, _TOUCH / np.maximum(peak, 1e-3))
    return np.clip(press * (1 + believed * (raised - 1)), 0, 1)


def _approach(press: np.ndarray) -> np.ndarray:
    """Lip press (T,) whose lips near each other before they meet and part no faster; closures stay complete."""
    from scipy.ndimage import gaussian_filter1d

    gap = 1 - lip_seal(press)
    slow = gaussian_filter1d(gap, _APPROACH * FRAME_RATE, mode="nearest")
    return np.maximum(press, sealing_press(np.clip(1 - slow, 0, 1)))


@torch.inference_mode()
def mouth_controls(
    audio: Audio,
    *,
    weights: str | Path | MouthNetwork = DEFAULT_WEIGHTS,
    progress: Progress = no_progress,
    chunk: int = CHUNK,
) -> MouthControls:
    """Predicts how the mouth moves in speech `audio` (any rate and channels): controls at 50 frames a second.

    Silence, noise and music without speech leave the mouth closed and still. `chunk` (control frames) changes nothing
    but memory: each piece is computed with all the context its frames depend on.
    `weights` are those of `open_mouth`.
    Raises TalkingPortraitError for audio that `check_audio` refuses, and for weights that are none.
    """
    given = check_audio(audio)
    network = open_mouth(weights)
    speech = mono_at(given, SAMPLE_RATE)
    sound = levelled_sound(network, speech)
    predicted = torch.sigmoid(mouth_logits(network, sound, chunk=chunk, progress=progress)).numpy()
    predicted[:, -1] = certain_activity(predicted[:, -1], speech)
    return as_controls(predicted, given.seconds)


def as_controls(predicted: np.ndarray, seconds: Fraction) -> MouthControls:
    """The network's output (T, 7), controls and speech activity in 0..1, as controls with definite closures.

    Without speech everything rests. Lips do not hover half closed as an unsure network does: `_commit` lets them touch
    once a closure is more than a hint.
    """
    activity = predicted[:, -1]
    controls = predicted[:, : len(CONTROLS)].copy()
    controls[:, PRESS] = _approach(_commit(controls[:, PRESS]))
    controls *= _gate(activity)[:, None]
    return MouthControls(controls.astype(np.float32), activity.astype(np.float32), FRAME_RATE, seconds)
