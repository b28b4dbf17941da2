"""Clips of speakers whose lips are measured: videos, prepared persons, and landmarks beside a sound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ....models.array_file import read_arrays
from ....models.face.mouth_shapes import lip_opening
from ....models.speech.mouth_network import FRAME_RATE, MouthNetwork
from ...audio.phrase_level import levelled_sound
from ...audio.waveform import check_audio
from ...errors import TalkingPortraitError, quoted
from ...face.face import Landmarker
from ...files.input_paths import existing_folder
from ...files.sound import read_audio, read_speech
from ...files.video import VIDEO_ENDINGS, open_video
from ...instant.driver.mouth_controls import mouth_controls
from ...person.person import META, Person, open_person
from ...person.tracking import track_person
from ...progress import share
from ...types import Audio, FaceTrack, Progress, no_progress
from .lips import SpokenLips, at_control_rate, measured_curves, usual_curves

MANIFEST = "manifest.json"
SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".ogg")
MOST_OFFSET = 0.24
"""Seconds that picture and sound of a recording may lie apart; they are searched in steps of one control frame."""
LEAST_SECONDS = 4.0


@dataclass(frozen=True)
class Recording:
    """`points` (F, P, 3) landmarks, `fps`, `found` (F,), scores (F, 52) or None, and the sound spoken with them."""

    name: str
    points: np.ndarray
    fps: float
    found: np.ndarray
    blendshapes: np.ndarray | None
    audio: Audio
    speaker: str
    offset: float | None = None
    """Seconds by which the picture is late against the sound; None where it is to be estimated."""


def recordings(folder: Path, landmarker: Landmarker, progress: Progress = no_progress) -> Iterator[Recording]:
    """What a folder holds: one prepared person, or any number of videos, persons and NAME.npz beside NAME.wav.

    An .npz has `landmarks` (F, 468 or 478, 3) and `fps`, and may have `blendshapes` (F, 52). A manifest.json may list
    `clips` with `id`, `speaker` and `av_offset_ms`; without it each file is another speaker.
    Raises TalkingPortraitError for a folder without any of these.
    """
    existing_folder(folder, "recordings'")
    found = [folder] if (folder / META).is_file() else sorted(folder.iterdir())
    kinds = [path for path in found if _kind(path)]
    if not kinds:
        raise TalkingPortraitError(
            f"{folder} holds no video, prepared person or landmarks (.npz beside a sound); give a folder with a video "
            "of 20 seconds or more in which one person speaks."
        )
    known = _manifest(folder)
    for number, path in enumerate(kinds):
        part = share(progress, number / len(kinds), (number + 1) / len(kinds))
        recording = _read(path, landmarker, part)
        entry = known.get(path.stem, {})
        offset = entry.get("av_offset_ms")
        yield replace(
            recording,
            speaker=str(entry.get("speaker", path.stem)),
            offset=None if offset is None else float(offset) / 1000,
        )


def of_video(path: Path, landmarker: Landmarker, progress: Progress = no_progress) -> Recording:
    """A video of one person who speaks."""
    video = open_video(path)
    audio, _ = read_speech(path, video.fps)
    tracked = track_person(video, landmarker, shortest=LEAST_SECONDS, progress=progress)
    return _of_track(path.stem, tracked.track, float(video.fps), tracked.usable, audio)


def of_person(person: Person) -> Recording:
    """A prepared person. Raises TalkingPortraitError where the video had no sound."""
    return _of_track(person.folder.name, person.track(), float(person.fps), person.usable, check_audio(person.audio()))


def spoken_lips(recording: Recording, network: MouthNetwork, *, own: bool) -> SpokenLips:
    """The recording as training data. With `own` the speaker's range stays as it is, else it becomes a usual one.

    Raises TalkingPortraitError for less than four seconds of a visible face.
    """
    curves = measured_curves(recording.points.astype(np.float32), recording.blendshapes)
    sound = levelled_sound(network, recording.audio)
    frames = (len(sound.power) + 1) // 2
    offset = recording.offset
    if offset is None:
        offset = estimated_offset(curves[:, 0], recording, network)
    places = (np.arange(frames) / FRAME_RATE + offset) * recording.fps
    inside = (places >= 0) & (places <= len(curves) - 1)
    nearest = np.clip(np.round(places).astype(int), 0, len(curves) - 1)
    known = (inside & recording.found[nearest]).astype(np.float32)
    if known.sum() < LEAST_SECONDS * FRAME_RATE:
        raise TalkingPortraitError(
            f"{recording.name} shows a speaking face for {known.sum() / FRAME_RATE:.1f} s, but at least "
            f"{LEAST_SECONDS:g} s, and better 20, are needed; give a longer video."
        )
    rows = at_control_rate(curves, recording.fps, frames, offset)
    return SpokenLips(sound, usual_curves(rows, known > 0, own=own), known, recording.speaker)


def estimated_offset(opening: np.ndarray, recording: Recording, network: MouthNetwork) -> float:
    """Seconds by which the picture is late: where the measured opening (F,) is most like the predicted one."""
    from scipy.ndimage import gaussian_filter1d

    controls = mouth_controls(recording.audio, weights=network)
    predicted: np.ndarray = lip_opening(controls.values)
    times = np.arange(len(predicted)) / FRAME_RATE
    steps = round(MOST_OFFSET * FRAME_RATE)
    scores = []
    for step in range(-steps, steps + 1):
        seen = np.interp((times + step / FRAME_RATE) * recording.fps, np.arange(len(opening)), opening)
        cut = slice(steps, len(seen) - steps)
        scores.append(np.corrcoef(seen[cut], predicted[cut])[0, 1] if seen[cut].std() * predicted[cut].std() else 0.0)
    best = int(np.argmax(gaussian_filter1d(np.nan_to_num(scores), 1.0)))
    return (best - steps) / FRAME_RATE


def _kind(path: Path) -> str:
    if path.is_dir():
        return "person" if (path / META).is_file() else ""
    if path.suffix.lower() in VIDEO_ENDINGS:
        return "video"
    return "landmarks" if path.suffix.lower() == ".npz" and _sound_beside(path) else ""


def _sound_beside(path: Path) -> Path | None:
    return next((path.with_suffix(ending) for ending in SOUNDS if path.with_suffix(ending).is_file()), None)


def _read(path: Path, landmarker: Landmarker, progress: Progress) -> Recording:
    kind = _kind(path)
    if kind == "video":
        return of_video(path, landmarker, progress)
    if kind == "person":
        return of_person(open_person(path))
    sound = _sound_beside(path)
    assert sound is not None
    try:
        stored = read_arrays(path, ("landmarks", "fps", "blendshapes"))
        points, fps = stored["landmarks"].astype(np.float32), float(stored["fps"])
        scores = stored["blendshapes"].astype(np.float32) if "blendshapes" in stored else None
        if points.ndim != 3 or points.shape[1] < 468 or points.shape[2] != 3 or not 1 <= fps <= 240:
            raise ValueError(f"landmarks of shape {points.shape} at {fps:g} frames a second")
        if scores is not None and scores.shape != (len(points), 52):
            raise ValueError(f"blendshapes of shape {scores.shape}")
        if not np.isfinite(points).all():
            raise ValueError("landmarks that are NaN or infinite")
    except Exception as error:  # zip and NumPy each have their own for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise TalkingPortraitError(
            f"{path.name} holds no landmarks of a speaker ({reason}); landmarks (F, 478, 3) and fps are expected."
        ) from None
    return Recording(path.stem, points, fps, np.ones(len(points), bool), scores, check_audio(read_audio(sound)), "")


def _of_track(name: str, track: FaceTrack, fps: float, usable: np.ndarray, audio: Audio) -> Recording:
    return Recording(name, track.points, fps, usable & track.found, track.blendshapes, audio, name)


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        clips = json.loads(path.read_text(encoding="utf-8"))["clips"]
        return {str(clip["id"]): clip for clip in clips if clip.get("use", True)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TalkingPortraitError(
            f'{quoted(str(path))} is no list of clips; {{"clips": [{{"id": ..., "speaker": ...}}]}} is expected.'
        ) from None
