"""Audio to face motion: the mouth by a small network, head, brows and blinks by the prosody of the speech."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ....models.face.face_mesh import BLENDSHAPES, VERTICES
from ....models.face.mouth_shapes import mouth_blendshapes, mouth_vertices, neutral_vertices
from ....models.face.upper_face_shapes import upper_face_shapes
from ....models.instant.mouth_network import CONTROLS
from ...audio.waveform import as_speech, check_audio
from ...errors import TalkingPortraitError
from ...face.head_pose import about_neck
from ...motion.blinks import BLINK_RATE, blink_times, blink_weights
from ...progress import share
from ...timing import as_rate, frame_count
from ...types import Audio, FaceMotion, Progress, no_progress
from .head_motion import resting_drift, speech_rotation
from .mouth_controls import mouth_controls
from .prosody import RATE, Prosody, analyse
from .upper_face import brow_weights

MAX_AMOUNT = 3.0
MAX_BLINK_RATE = 60.0
_CHUNK = 512  # frames whose vertices are made at once


def drive(
    audio: Audio,
    *,
    fps: float | int | Fraction | str = 25,
    seed: int = 0,
    mouth: float = 1.0,
    head: float = 1.0,
    nod: float = 1.0,
    brows: float = 1.0,
    blinks: float = 1.0,
    blink_rate: float = BLINK_RATE,
    drift: float = 1.0,
    progress: Progress = no_progress,
) -> FaceMotion:
    """The motion of a face that speaks `audio`, on the canonical head.

    Args:
        audio: speech of any rate and number of channels.
        fps: frames a second of the motion; its frames cover the audio exactly (pipelines/timing.py).
        seed: same audio, amounts and seed give the same motion. Each of the things below draws from a stream of its
            own, so changing one amount leaves the others as they were.
        mouth: size of the mouth's movement. 1 is as predicted, 0 keeps it shut.
        head: head movement that belongs to the speech, about +-8 degrees at most at 1. `nod` is the part of it that
            nods on stressed syllables.
        brows: brows that rise and fall with the voice.
        blinks: how far eyes close, 0..1. `blink_rate` is blinks a minute while speaking, 0..60; in silence there are
            a quarter fewer.
        drift: slow movement of a head at ease, in speech and in silence.
            Each amount lies in 0..3; 0 is exactly still.

    Returns FaceMotion with pose "head" and blendshapes. Raises TalkingPortraitError for unusable audio or amounts.
    """
    rate = as_rate(fps)
    audio = as_speech(check_audio(audio), rate)
    amounts = {"mouth": mouth, "head": head, "nod": nod, "brows": brows, "blinks": blinks, "drift": drift}
    for name, amount in amounts.items():
        _check_number(name, amount, MAX_AMOUNT)
    _check_number("blink rate", blink_rate, MAX_BLINK_RATE)

    frames = frame_count(audio.samples, audio.sample_rate, rate)
    controls = mouth_controls(audio, progress=share(progress, 0.0, 0.6))
    prosody = analyse(audio, controls.activity, controls.rate, share(progress, 0.6, 0.8))

    rotation, translation = _head_motion(prosody, frames, rate, seed, amounts)
    weights = _upper_face(prosody, frames, rate, seed, amounts, blink_rate)
    shape = controls.at(rate)
    vertices, blendshapes = _shape(shape, weights, mouth, share(progress, 0.8, 1.0))
    curves = {
        "tongue": np.minimum(np.float32(mouth) * shape[:, CONTROLS.index("tongue")], 1),
        "pucker": np.minimum(np.float32(mouth) * shape[:, CONTROLS.index("round")], 1),
        "lip_press": np.float32(min(mouth, 1.0)) * shape[:, CONTROLS.index("press")],
    }
    return FaceMotion(vertices, neutral_vertices(), rotation, translation, rate, blendshapes, **curves)


def _check_number(name: str, value: float, highest: float) -> None:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= highest):
        raise TalkingPortraitError(
            f"The driver's {name} is {value}, but a number from 0 to {highest:g} is expected; 0 keeps it still."
        )


def _at_frames(rows: np.ndarray, frames: int, fps: Fraction) -> np.ndarray:
    """Prosody rows (T,) or (T, N) at the start of each video frame."""
    times = np.arange(frames) * (RATE / float(fps))
    if rows.ndim == 1:
        return np.interp(times, np.arange(len(rows)), rows)
    return np.stack([np.interp(times, np.arange(len(rows)), column) for column in rows.T], axis=-1)


def _head_motion(
    prosody: Prosody, frames: int, fps: Fraction, seed: int, amounts: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    speech = speech_rotation(prosody, seed, amounts["nod"])
    drift_rotation, drift_translation = resting_drift(prosody.frames, seed)
    rotation = _at_frames(amounts["head"] * speech + amounts["drift"] * drift_rotation, frames, fps)
    shift = _at_frames(amounts["drift"] * drift_translation, frames, fps)
    return rotation.astype(np.float32), (about_neck(rotation) + shift).astype(np.float32)


def _upper_face(
    prosody: Prosody, frames: int, fps: Fraction, seed: int, amounts: dict[str, float], blink_rate: float
) -> dict[str, np.ndarray]:
    """Blendshape weights (F,) by name."""
    weights = {
        name: np.minimum(amounts["brows"] * _at_frames(rows, frames, fps), 1.5)
        for name, rows in brow_weights(prosody, seed).items()
    }
    times = blink_times(frames / float(fps), prosody.phrases, blink_rate, seed)
    closed = np.minimum(amounts["blinks"] * blink_weights(times, frames, fps, seed), 1.0)
    for side in ("Left", "Right"):
        weights[f"eyeBlink{side}"] = closed
        weights[f"eyeWide{side}"] = weights[f"eyeWide{side}"] * (1 - closed)  # shut is shut
    return weights


def _shape(
    controls: np.ndarray, weights: dict[str, np.ndarray], mouth: float, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (F, 468, 3) and blendshapes (F, 52) float32 of mouth controls (F, 6) and upper-face weights."""
    frames = len(controls)
    shapes = upper_face_shapes()
    names = list(weights)
    columns = [BLENDSHAPES.index(name) for name in names]
    upper = np.stack([weights[name] for name in names], axis=1).astype(np.float32)
    basis = np.stack([shapes[name] for name in names]).reshape(len(names), -1)
    neutral = neutral_vertices()
    vertices = np.empty((frames, VERTICES, 3), np.float32)
    blendshapes = np.empty((frames, len(BLENDSHAPES)), np.float32)
    for start in range(0, frames, _CHUNK):
        piece = slice(start, min(start + _CHUNK, frames))
        spoken = np.float32(mouth) * mouth_vertices(controls[piece])
        vertices[piece] = neutral + spoken + (upper[piece] @ basis).reshape(-1, VERTICES, 3)
        blendshapes[piece] = np.minimum(np.float32(mouth) * mouth_blendshapes(controls[piece]), 1)
        blendshapes[piece, columns] = np.minimum(upper[piece], 1)
        progress(piece.stop, frames)
    return vertices, blendshapes
