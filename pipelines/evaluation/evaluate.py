"""Measures a talking video: how lips go with the sound, how steady the picture is, and how near it is to a reference.

Nothing is downloaded. The video is read twice, once for the face, once for the pictures around it, and once more for
each network that compares its pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ..errors import TalkingPortraitError
from ..face.face import Landmarker
from ..face.face_tracking import NoFaceError
from ..files.sound import NoSoundError, read_audio
from ..files.video import VideoFile, open_video
from ..image.curve_plot import Curve, plot_curves
from ..progress import share
from ..timing import frame_count
from ..types import Audio, Progress, no_progress
from .likeness import likeness
from .lip_sync import lip_sync
from .measures import KINDS, Measure
from .networks import Networks
from .picture_distance import picture_distance
from .report import Report
from .speech_lips import RATE, SoundCurves, at_rate, correlation, silence_movement, sound_curves, speech_correlation
from .steadiness import Steadiness, steadiness
from .watched_face import WatchedFace, watch_face

MAX_WINDOW = 10_000
LEAST_FRAMES = 10
LEAST_IDENTITIES = 3
CURVES_SIZE = (960, 1280)

STILL = 0.002
"""Eye distances: lips whose opening has a smaller standard deviation do not move; landmarks of a still picture tremble
by 0.0001, lips of speakers move by 0.02 and more."""

_NO_SOUND = "no sound"
_SILENT = "the sound is silent"
_STILL = "the lips do not move"
_UNCLEAR = "several lags fit about as well; needs more speech, or these lips' own"
_NO_REFERENCE = "needs a reference video"
_GET = "(models get evaluation)"
Values = dict[str, float | str]
"""Of a measure by name: its number, or why there is none."""


def evaluate(
    path: str | Path,
    audio: str | Path | Audio | None,
    landmarker: Landmarker,
    *,
    reference: str | Path | None = None,
    window: int = 0,
    networks: Networks | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Measures the video at `path` against its sound.

    `audio` is the speech, any sound or video file or one in memory; None takes the video's own. `reference` is a video
    of a real speaker who says the same. `window` frames are what the renderer makes at once, where it has such windows.
    `networks` are those that are here. Raises TalkingPortraitError for files that can't be read, and for a video
    without a face or with too few frames.
    """
    if not 0 <= window <= MAX_WINDOW:
        raise TalkingPortraitError(f"The window is {window} frames, but 0 (not known) to {MAX_WINDOW} is expected.")
    video = open_video(path)
    other = open_video(reference) if reference is not None else None
    sound = _sound(audio, video.path)
    networks = networks or Networks()
    synced = networks.syncnet is not None and sound is not None
    compared = networks.lpips is not None and other is not None
    steps = _steps(progress, 2 + (other is not None) + synced + compared)
    face = _watched(video, landmarker, networks, next(steps))
    if face.frames < LEAST_FRAMES:
        raise TalkingPortraitError(
            f"The video {video.path.name} is too short to measure its movement: it has {face.frames} of at least "
            f"{LEAST_FRAMES} frames; give a longer one."
        )
    steady = steadiness(
        video,
        face.box(),
        window=window or max(1, round(video.fps)),
        expected=face.frames,
        progress=next(steps),
    )
    synchrony = _synchrony(video, face, sound, networks, steps)
    truth = _watched(other, landmarker, Networks(), next(steps)) if other else None
    curves = None if sound is None else sound_curves(sound)
    values: Values = {
        **_counts(face, sound),
        **_lips(face, curves),
        **synchrony,
        **_movement(face),
        **_steadiness(steady, window),
        **_identity(face, networks),
        **_likeness(face, truth),
        **_pictures(video, face, other, truth, networks, steps),
    }
    facts = {"video": str(path), "landmarks": landmarker.name}
    return Report(facts, _measures(values), _curves(face, steady, curves, sound))


def _steps(progress: Progress, count: int) -> Iterator[Progress]:
    """The progress of each step of as many, in order."""
    return (share(progress, number / count, (number + 1) / count) for number in range(count))


def _sound(audio: str | Path | Audio | None, video: Path) -> Audio | None:
    if isinstance(audio, Audio):
        return audio
    if audio is not None:
        return read_audio(audio)
    try:
        return read_audio(video)
    except NoSoundError:
        return None


def _watched(
    video: VideoFile,
    landmarker: Landmarker,
    networks: Networks,
    progress: Progress,
) -> WatchedFace:
    try:
        return watch_face(video, landmarker, recogniser=networks.recogniser, progress=progress)
    except NoFaceError as error:
        raise TalkingPortraitError(
            f"The video {video.path.name} shows no face that can be found, so there is nothing to measure; give one of "
            "a person who speaks."
        ) from error


def _measures(values: Mapping[str, float | str]) -> tuple[Measure, ...]:
    """All kinds in order; a number that is not finite counts as missing."""
    measures = []
    for kind in KINDS:
        value = values[kind.name]
        if isinstance(value, str):
            measures.append(Measure(kind, None, value))
        else:
            number = float(value)
            measures.append(Measure(kind, number) if math.isfinite(number) else Measure(kind, None, "not defined here"))
    return tuple(measures)


def _counts(face: WatchedFace, sound: Audio | None) -> Values:
    values: Values = {"frames": face.frames, "frames without a face": 100 * (1 - face.found / face.frames)}
    if sound is None:
        return {**values, "missing frames": _NO_SOUND, "duration difference": _NO_SOUND}
    missing = frame_count(sound.samples, sound.sample_rate, face.fps) - face.frames
    longer = Fraction(face.frames) / face.fps - sound.seconds
    return {**values, "missing frames": missing, "duration difference": 1000 * float(longer)}


def _is_still(face: WatchedFace) -> bool:
    return float(face.opening.std()) < STILL


def _lips(face: WatchedFace, curves: SoundCurves | None) -> Values:
    names = ("audio-lip correlation", "audio-lip lag", "movement in silence")
    if curves is None:
        return dict.fromkeys(names, _NO_SOUND)
    if not curves.loudness.any():
        return dict.fromkeys(names, _SILENT)
    if _is_still(face):
        return dict.fromkeys(names, _STILL)
    opening = at_rate(face.opening, face.fps, face.seconds)
    found = speech_correlation(opening, curves.syllables)
    still = silence_movement(opening, curves.loudness)
    short = "needs 2 seconds of sound"
    pause = "needs a pause and speech" if still is None else still
    if found is None:
        return dict(zip(names, (short, short, pause), strict=True))
    return dict(zip(names, (found.best, 1000 * found.lag if found.clear else _UNCLEAR, pause), strict=True))


def _synchrony(
    video: VideoFile, face: WatchedFace, sound: Audio | None, networks: Networks, steps: Iterator[Progress]
) -> Values:
    names = ("SyncNet distance", "SyncNet confidence", "SyncNet offset")
    if networks.syncnet is None:
        return dict.fromkeys(names, f"needs SyncNet's file {_GET}")
    if sound is None:
        return dict.fromkeys(names, _NO_SOUND)
    if not sound.waveform.any():
        return dict.fromkeys(names, _SILENT)
    found = lip_sync(video, face, sound, networks.syncnet, progress=next(steps))
    if found is None:
        return dict.fromkeys(names, "needs 2 seconds of picture and sound")
    return dict(zip(names, (found.distance, found.confidence, found.offset), strict=True))


def _movement(face: WatchedFace) -> Values:
    opening, width = face.opening, face.width
    moves = not _is_still(face)
    pitch, yaw, roll = (float(value) for value in face.angles.std(axis=0))
    never_open = "the lips are never open wide enough"
    return {
        "opening deviation": float(opening.std()),
        "opening speed": float(np.percentile(np.abs(np.diff(opening)), 95) * float(face.fps)),
        "width deviation": float(width.std() / max(float(width.mean()), 1e-6)),
        "opening and width": correlation(opening, width) if moves else _STILL,
        "jaw slope": float(np.polyfit(opening, face.chin, 1)[0]) if moves else _STILL,
        "dark inside the mouth": float(np.mean(face.dark)) if face.dark else never_open,
        "teeth": float(np.mean(face.teeth)) if face.teeth else never_open,
        "pitch deviation": pitch,
        "yaw deviation": yaw,
        "roll deviation": roll,
        "jitter": "needs more frames" if face.jitter is None else face.jitter,
    }


def _steadiness(steady: Steadiness, window: int) -> Values:
    return {
        "flicker outside the face": steady.flicker.jitter,
        "background change": "the person fills the picture" if steady.background is None else steady.background,
        "colour drift": steady.flicker.drift,
        "contrast drift": steady.flicker.spread_drift,
        "largest seam": steady.seam,
        "window seams": steady.flicker.borders if window else "needs the window of the renderer",
    }


def _identity(face: WatchedFace, networks: Networks) -> Values:
    if networks.recogniser is None:
        return {"identity drift": f"needs InsightFace's files {_GET}"}
    if len(face.identities) < LEAST_IDENTITIES:
        return {"identity drift": "needs a face over 3 seconds"}
    each = np.array(face.identities)
    each /= np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-6)
    third = len(each) // 3
    first, last = each[:third].mean(axis=0), each[-third:].mean(axis=0)
    return {"identity drift": 1 - float(first @ last / max(float(np.linalg.norm(first) * np.linalg.norm(last)), 1e-6))}


def _likeness(face: WatchedFace, truth: WatchedFace | None) -> Values:
    names = ("landmark distance", "mouth landmark distance", "opening correlation", "closure recall", "closure F1")
    if truth is None:
        return dict.fromkeys(names, _NO_REFERENCE)
    found = likeness(face, truth)
    if found is None:
        return dict.fromkeys(names, "needs a second in common with the reference")
    never = "the reference's lips never close"
    closed = found.closures
    return {
        "landmark distance": found.landmarks,
        "mouth landmark distance": found.mouth,
        "opening correlation": _STILL if _is_still(face) else found.opening,
        "closure recall": never if closed is None else closed.recall,
        "closure F1": never if closed is None else closed.f1,
    }


def _pictures(
    video: VideoFile,
    face: WatchedFace,
    reference: VideoFile | None,
    truth: WatchedFace | None,
    networks: Networks,
    steps: Iterator[Progress],
) -> Values:
    names = ("LPIPS", "mouth LPIPS")
    if networks.lpips is None:
        return dict.fromkeys(names, f"needs LPIPS' files {_GET}")
    if reference is None or truth is None:
        return dict.fromkeys(names, _NO_REFERENCE)
    found = picture_distance(video, face, reference, truth, networks.lpips, progress=next(steps))
    other_shape = "the reference's pictures have other proportions"
    return {"LPIPS": other_shape if found.whole is None else found.whole, "mouth LPIPS": found.mouth}


def _curves(face: WatchedFace, steady: Steadiness, curves: SoundCurves | None, sound: Audio | None) -> torch.Tensor:
    pitch, yaw, roll = face.angles.T - np.median(face.angles.T, axis=1, keepdims=True)
    sheet = [
        Curve("opening", "eye distances", face.opening, (0.0, 0.3), (236, 112, 126)),
        Curve("width", "eye distances", face.width, (0.4, 0.8), (242, 150, 96)),
        Curve("pitch", "degrees", pitch, (-5.0, 5.0), (134, 214, 150)),
        Curve("yaw", "degrees", yaw, (-5.0, 5.0), (206, 160, 250)),
        Curve("roll", "degrees", roll, (-5.0, 5.0), (242, 210, 104)),
        Curve("change", "levels of 255", np.append(0.0, steady.changes), (0.0, 4.0), (120, 190, 255)),
    ]
    if curves is not None:
        count = round(face.seconds * RATE)
        loud = np.zeros(max(count, 1))
        loud[: len(curves.syllables)] = curves.syllables[:count]
        sheet.insert(1, Curve("syllables", "amplitude", loud, (0.0, 1.0), (150, 160, 190)))
    return plot_curves(sheet, face.seconds, _lasting(sound, face.seconds), CURVES_SIZE)


def _lasting(sound: Audio | None, seconds: float) -> Audio | None:
    """Sound for as long as the frames last, so that the waveform lies under their curves."""
    if sound is None:
        return None
    samples = round(seconds * sound.sample_rate)
    wave = sound.waveform[:, :samples]
    return Audio(torch.nn.functional.pad(wave, (0, samples - wave.shape[1])), sound.sample_rate)
