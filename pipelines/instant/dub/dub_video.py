"""A video file whose person speaks other words, from end to end, in constant memory but for landmarks and motion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ...errors import TalkingPortraitError
from ...face.face import Landmarker
from ...face.face_tracking import Choice
from ...files.sound import SoundTrack
from ...files.video import VideoFile, open_video
from ...motion.edit import lasting_as, resample, said_of_length, scale_mouth
from ...progress import share
from ...timing import as_rate
from ...types import Audio, FaceMotion, Progress, no_progress
from ..driver.driver import drive
from .film import BATCH, End, Film, check_dubbing, dub, open_film
from .follow import FilmPicker

FOLLOWING = 0.45
"""Part of the work that following the face is, about."""


@dataclass(frozen=True)
class DubbedVideo:
    """`pieces` yields frames (n, H, W, 3) uint8 and masks (n, H, W), `frames` in all at `fps`; `report` in words."""

    pieces: Iterator[tuple[torch.Tensor, torch.Tensor]]
    frames: int
    fps: Fraction
    size: tuple[int, int]
    motion: FaceMotion
    report: str

    def heard(self, sound: Audio | SoundTrack | None) -> Audio | SoundTrack | None:
        """As much of the new words' sound as there are frames: a film that is cut ends before it."""
        if sound is None or self.frames == self.motion.frames:
            return sound
        seconds = self.frames / self.fps
        if isinstance(sound, Audio):
            return Audio(sound.waveform[:, : round(seconds * sound.sample_rate)], sound.sample_rate)
        return replace(sound, seconds=seconds)


@dataclass(frozen=True)
class FaceChoice:
    """Which of several faces speaks, in the first frame that shows any.

    As `FacePicker` has it, or by the `place` (x, y) in pixels that it is nearest to, or by the `mask` (H, W) around it.
    """

    choose: Choice = "largest"
    index: int = 0
    place: tuple[float, float] | None = None
    mask: torch.Tensor | None = None

    def picker(self, size: tuple[int, int]) -> FilmPicker:
        """For frames of (height, width). Raises TalkingPortraitError for what lies outside them."""
        if self.mask is not None:
            return FilmPicker(size, mask=_mask_of(self.mask, size))
        if self.place is not None:
            x, y = self.place
            if not (0 <= x < size[1] and 0 <= y < size[0]):
                raise TalkingPortraitError(
                    f"The face at {x:g}, {y:g} was requested, but the video has {size[1]} x {size[0]} pixels; give a "
                    "place within them."
                )
            return FilmPicker(size, place=self.place)
        return FilmPicker(size, self.choose, self.index)


def dub_video(
    path: str | Path,
    motion_at: Callable[[Fraction], FaceMotion],
    landmarker: Landmarker,
    *,
    face: FaceChoice | None = None,
    fps: float | str | Fraction | None = None,
    end: End = "back and forth",
    jaw: float = 1.0,
    batch: int = BATCH,
    progress: Progress = no_progress,
) -> DubbedVideo:
    """The video `path` with the mouth of a motion.

    `motion_at` gives the motion at a frame rate, which is the video's own unless `fps` is given. `face` is which of
    several faces; `end` and `jaw` as for `dub`. The face is followed through the video here; frames are drawn as they
    are taken. Raises TalkingPortraitError for a file that is no video, and where the face is in none of its frames.
    """
    check_dubbing(end, jaw)
    video = open_video(path)
    if fps is not None:
        video = replace(video, fps=as_rate(fps))
    motion = motion_at(video.fps)
    if motion.fps != video.fps:
        motion = resample(motion, video.fps)
    picker = (face or FaceChoice()).picker(video.size)
    film = open_film(video, landmarker, motion.frames, picker=picker, progress=share(progress, 0, FOLLOWING))
    frames = min(film.frames, motion.frames) if end == "cut" else motion.frames
    pieces = dub(film, motion, end=end, jaw=jaw, batch=batch, progress=share(progress, FOLLOWING, 1))
    return DubbedVideo(pieces, frames, video.fps, video.size, motion, _report(video, film, motion, end, picker))


def dub_speech(
    path: str | Path,
    speech: Audio,
    landmarker: Landmarker,
    *,
    motion: FaceMotion | None = None,
    mouth: float = 1.0,
    face: FaceChoice | None = None,
    end: End = "back and forth",
    jaw: float = 1.0,
    progress: Progress = no_progress,
) -> DubbedVideo:
    """The video `path` whose person speaks the words of `speech`, as Instant's driver predicts the mouth.

    A `motion` takes the place of the prediction and is cut, or held at its end, where the speech ends, which the report
    says. `mouth` scales the opening. The rest as for `dub_video`.
    """

    def motion_at(fps: Fraction) -> FaceMotion:
        if motion is None:
            return drive(speech, fps=fps, mouth=mouth)
        return scale_mouth(lasting_as(speech, motion, fps), mouth)

    video = dub_video(path, motion_at, landmarker, face=face, end=end, jaw=jaw, progress=progress)
    remark = "" if motion is None else said_of_length(motion, speech)
    return replace(video, report=f"{video.report} {remark}".strip())


def _report(video: VideoFile, film: Film, motion: FaceMotion, end: End, picker: FilmPicker) -> str:
    """What was found in a video, and what happens where its length is not that of the speech."""
    found = int(film.face.found.sum())
    sentences = [f"The face is found in {found} of {film.frames} frames{_left(found, film.frames)}."]
    if choice := picker.choice_among("speaks"):
        sentences.append(f"Of several faces {choice}; face, face_at or a mask around it chooses another.")
    if film.frames < motion.frames:
        then = {
            "back and forth": "it is played back and forth",
            "hold": "its last frame is held",
            "cut": "the result ends with it",
        }[end]
        lasts = film.frames / video.fps
        sentences.append(
            f"The video lasts {float(lasts):.2f} s and the speech {float(motion.seconds):.2f} s, so {then}."
        )
    if video.transparent:
        sentences.append("What is transparent in it shows white, as a dubbed video is opaque.")
    outside = int(film.face.mouth_outside.sum())
    if outside > found / 2:
        sentences.append(
            f"The mouth, or most of it, lies outside the picture in {'all' if outside == found else outside} of them, "
            "which stay as they are filmed too; give a video that shows the mouth."
        )
    if film.inside.drawn and outside < found:
        sentences.append("It shows no open mouth that is not covered, so the inside is drawn.")
    return " ".join(sentences)


def _left(found: int, frames: int) -> str:
    return "" if found == frames else "; the others stay as they are filmed"


def _mask_of(mask: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W), or the first of several, as bool at the size of a frame."""
    first = mask.reshape(-1, *mask.shape[-2:])[:1].float()
    if tuple(first.shape[1:]) != size:
        first = torch.nn.functional.interpolate(first[None], size=size, mode="nearest")[0]
    whole = first[0].numpy() > 0.5
    if not whole.any():
        raise TalkingPortraitError("The mask is empty, so no face lies in it; paint it over the face that is to speak.")
    return whole
