"""Audio to face motion: the mouth by a small network, all else by the prosody of the speech and by chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from ....models.face.face_mesh import BLENDSHAPES, VERTICES
from ....models.face.mouth_shapes import mouth_blendshapes, mouth_vertices, neutral_vertices
from ....models.face.upper_face_shapes import upper_face_shapes
from ....models.speech.mouth_network import CONTROLS, MouthNetwork
from ...audio.mouth_weights import DEFAULT_WEIGHTS
from ...audio.waveform import as_speech, check_audio
from ...errors import TalkingPortraitError, check_seed, quoted
from ...face.head_pose import about_neck
from ...large_arrays import give_memory_back, large_array
from ...motion.blinks import BLINK_RATE, blink_times, blink_weights
from ...progress import share
from ...timing import as_rate, frame_count
from ...types import Audio, FaceMotion, Progress, no_progress
from .breathing import breath_curve, moved_by_breath
from .gaze import gaze_of, gaze_weights, saccades
from .head_motion import resting_drift, speech_rotation
from .idle import idle_brows, idle_lips, uneven_scores, uneven_shares, unevenness
from .mouth_controls import mouth_controls
from .prosody import RATE, Prosody, analyse
from .upper_face import brow_weights

AMOUNTS = ("mouth", "head", "nod", "brows", "blinks", "drift", "gaze", "breath", "idle", "asymmetry")
MAX_AMOUNT = 3.0
MAX_BLINK_RATE = 60.0
MAX_UNEVEN = 0.4
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
    gaze: float = 1.0,
    breath: float = 1.0,
    idle: float = 1.0,
    asymmetry: float = 1.0,
    weights: str | Path | MouthNetwork = DEFAULT_WEIGHTS,
    progress: Progress = no_progress,
) -> FaceMotion:
    """The motion of a face that speaks `audio`, on the canonical head.

    Args:
        audio: speech of any rate and number of channels.
        fps: frames a second of the motion; its frames cover the audio exactly (pipelines/timing.py).
        seed: same audio, amounts and seed give the same motion. Each of the things below draws from a stream of its
            own, so changing one amount leaves the others as they were.
        mouth: size of the mouth's movement. 1 is as predicted, 0 keeps it shut.
        head: head movement that belongs to the speech, postures included, +-11 degrees at most at 1. `nod` is the part
            of it that nods on stressed syllables.
        brows: brows that rise and fall with the voice.
        blinks: how far eyes close, 0..1. `blink_rate` is blinks a minute while speaking, 0..60; in silence there are
            a quarter fewer.
        drift: slow movement of a head at ease, in speech and in silence.
        gaze: turns of the eyes: between places, and against those of the head.
        breath: breathing, with which the drifting head rises a little.
        idle: faint movement of brows, and of lips while nothing is said, as parts of theirs.
        asymmetry: how much more one side of the face moves than the other.
            Each amount lies in 0..3; 0 is exactly still.
        weights: the network that predicts the mouth: the name of a shipped one (WEIGHTS), a file that
            `train instant-driver` wrote, or what was loaded from one.

    Returns FaceMotion with pose "head" and blendshapes. Raises TalkingPortraitError for unusable audio or amounts.
    """
    rate = as_rate(fps)
    audio = as_speech(check_audio(audio), rate)
    amounts = {"mouth": mouth, "head": head, "nod": nod, "brows": brows, "blinks": blinks, "drift": drift}
    amounts |= {"gaze": gaze, "breath": breath, "idle": idle, "asymmetry": asymmetry}
    check_choices({**amounts, "blink_rate": blink_rate, "seed": seed})

    frames = frame_count(audio.samples, audio.sample_rate, rate)
    controls = mouth_controls(audio, weights=weights, progress=share(progress, 0.0, 0.6))
    prosody = analyse(audio, controls.activity, controls.rate, share(progress, 0.6, 0.8))

    at = partial(_at_frames, frames=frames, fps=rate)
    air = np.minimum(breath * at(breath_curve(prosody, seed)), MAX_AMOUNT)
    rotation, translation = _head_motion(prosody, at, air, seed, amounts)
    eyes = gaze * gaze_of(rotation, at(saccades(prosody, seed)))
    brow, lids = _upper_face(prosody, at, frames, rate, seed, amounts, blink_rate)
    shape = controls.at(rate)
    uneven = asymmetry * at(unevenness(prosody.frames, seed))
    face = _Face(
        shape, mouth, idle * at(idle_lips(prosody, seed)), brow, lids | gaze_weights(eyes),
        np.clip(uneven, -MAX_UNEVEN, MAX_UNEVEN),
    )  # fmt: skip
    vertices, blendshapes = face.shaped(share(progress, 0.8, 1.0))
    spoken = np.minimum(np.float32(mouth) * shape, 1)
    return FaceMotion(
        vertices, neutral_vertices(), rotation, translation, rate, blendshapes,
        tongue=spoken[:, CONTROLS.index("tongue")],
        pucker=spoken[:, CONTROLS.index("round")],
        lip_press=np.float32(min(mouth, 1.0)) * shape[:, CONTROLS.index("press")],
        gaze=eyes.astype(np.float32),
        breath=air.astype(np.float32),
    )  # fmt: skip


def check_choices(given: Mapping[str, object]) -> None:
    """Raises TalkingPortraitError for an amount, a blink rate or a seed that `drive` does not take; others pass.

    For callers that have long work before they drive.
    """
    for name, value in given.items():
        if name in AMOUNTS:
            _check_number(name, value, MAX_AMOUNT)
    _check_number("blink rate", given.get("blink_rate", 0.0), MAX_BLINK_RATE)
    check_seed(given.get("seed", 0))


def _check_number(name: str, value: object, highest: float) -> None:
    if not (isinstance(value, (int, float)) and 0 <= value <= highest):
        raise TalkingPortraitError(
            f"The driver's {name} is {quoted(value)}, but a number from 0 to {highest:g} is expected; 0 keeps it still."
        )


def _at_frames(rows: np.ndarray, frames: int, fps: Fraction) -> np.ndarray:
    """Prosody rows (T,) or (T, N) at the start of each video frame."""
    times = np.arange(frames) * (RATE / float(fps))
    if rows.ndim == 1:
        return np.interp(times, np.arange(len(rows)), rows)
    return np.stack([np.interp(times, np.arange(len(rows)), column) for column in rows.T], axis=-1)


def _head_motion(
    prosody: Prosody, at: Callable[[np.ndarray], np.ndarray], air: np.ndarray, seed: int, amounts: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    speech = speech_rotation(prosody, seed, amounts["nod"])
    drift_rotation, drift_translation = resting_drift(prosody.frames, seed)
    breath_rotation, breath_translation = moved_by_breath(air)
    rotation = at(amounts["head"] * speech) + amounts["drift"] * (at(drift_rotation) + breath_rotation)
    shift = amounts["drift"] * (at(drift_translation) + breath_translation)
    return rotation.astype(np.float32), (about_neck(rotation) + shift).astype(np.float32)


def _upper_face(
    prosody: Prosody,
    at: Callable[[np.ndarray], np.ndarray],
    frames: int,
    fps: Fraction,
    seed: int,
    amounts: dict[str, float],
    blink_rate: float,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Blendshape weights (F,) by name, of the brows and of the lids."""
    idle = {name: amounts["idle"] * at(rows) for name, rows in idle_brows(prosody, seed).items()}
    weights = {
        name: np.minimum(amounts["brows"] * (at(rows) + idle.get(name, 0.0)), 1.5)
        for name, rows in brow_weights(prosody, seed).items()
    }
    lids = {name: weights.pop(name) for name in list(weights) if name.startswith("eye")}
    times = blink_times(frames / float(fps), prosody.phrases, blink_rate, seed)
    closed = np.minimum(amounts["blinks"] * blink_weights(times, frames, fps, seed), 1.0)
    for side in ("Left", "Right"):
        lids[f"eyeBlink{side}"] = closed
        lids[f"eyeWide{side}"] = lids[f"eyeWide{side}"] * (1 - closed)  # shut is shut
    return weights, lids


@dataclass(frozen=True)
class _Face:
    """What the parts of the face do in each frame: mouth `controls` (F, 6) at the size of `mouth`, and lips at rest.

    `brows` and `eyes` are blendshape weights (F,) by name, `uneven` (F,) by which part the left side moves more.
    """

    controls: np.ndarray
    mouth: float
    resting: np.ndarray
    brows: dict[str, np.ndarray]
    eyes: dict[str, np.ndarray]
    uneven: np.ndarray

    def shaped(self, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (F, 468, 3) and blendshapes (F, 52) float32."""
        frames, neutral, size = len(self.controls), neutral_vertices(), np.float32(self.mouth)
        vertices = large_array((frames, VERTICES, 3))
        blendshapes = np.zeros((frames, len(BLENDSHAPES)), np.float32)
        for start in range(0, frames, _CHUNK):
            piece = slice(start, min(start + _CHUNK, frames))
            spoken, resting = self.controls[piece], self.resting[piece]
            moved = size * (mouth_vertices(spoken) + mouth_vertices(resting)) + _moved(self.brows, piece)
            vertices[piece] = neutral + moved * uneven_shares(self.uneven[piece]) + _moved(self.eyes, piece)
            scores = size * (mouth_blendshapes(spoken) + mouth_blendshapes(resting))
            for name, rows in (self.brows | self.eyes).items():
                scores[:, BLENDSHAPES.index(name)] = rows[piece]
            blendshapes[piece] = np.clip(scores * uneven_scores(self.uneven[piece]), 0, 1)
            give_memory_back(vertices)
            progress(piece.stop, frames)
        return vertices, blendshapes


def _moved(weights: dict[str, np.ndarray], piece: slice) -> np.ndarray:
    """Offsets (F, 468, 3) of those of the blendshapes that move vertices."""
    shapes = upper_face_shapes()
    names = [name for name in weights if name in shapes]
    rows = np.stack([weights[name][piece] for name in names], axis=1).astype(np.float32)
    return np.tensordot(rows, np.stack([shapes[name] for name in names]), axes=1)
