"""A film whose person speaks other words: the mouth follows a motion, all else stays as filmed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, repeat
from typing import Literal, get_args

import numpy as np
import torch

from ....models.face.face_mesh import VERTICES
from ...errors import TalkingPortraitError, one_line, quoted
from ...face.landmarks import Landmarker
from ...files.images import in_unit_range
from ...files.video import VideoFile
from ...image.frame_workers import FrameWorkers, read_ahead
from ...large_arrays import give_memory_back
from ...person.head_frames import forwards_and_backwards, read_frames
from ...types import FaceMotion, FaceTrack, Progress, no_progress
from ..renderer.renderer import BATCH_PIXELS
from .filmed_face import FilmedFace, filmed_face
from .follow import FilmPicker, follow_film
from .foreground import Foreground, with_foreground
from .lower_face import changed_box, draw_mouth
from .mouth_motion import MouthMotion, mouth_motions
from .mouth_view import skin_light
from .mouth_views import MouthViews, Reader, film_views
from .skin.filmed_textures import FilmedTextures

End = Literal["back and forth", "hold", "cut"]
"""What follows the film's last frame where the sound is longer: the film backwards, that frame, or nothing."""

BATCH = 8
PREVIEW_SIDE = 512
LIGHT_SECONDS, LIGHT_STEP = 0.25, 0.05
"""Time constant with which the inside's brightness follows that of the face, and the part of the brightness by which a
change is followed at once: that is light which swings or another shot, not a landmark's jitter."""


@dataclass(frozen=True)
class Film:
    """A film prepared for dubbing: its `face`, the `inside` of its mouth, its rate, and how frames are read.

    `read` takes frame numbers, each of which is more than that before, one less or the same, and yields frames
    (H, W, 3), bytes or floats in 0..1.
    """

    face: FilmedFace
    inside: MouthViews
    fps: Fraction
    read: Reader

    @property
    def frames(self) -> int:
        return self.face.frames


def open_film(
    video: VideoFile,
    landmarker: Landmarker,
    frames: int,
    *,
    picker: FilmPicker | None = None,
    progress: Progress = no_progress,
) -> Film:
    """The first `frames` frames of a video, or all that there are, ready to be dubbed.

    `picker` chooses the face, by default the largest. Raises TalkingPortraitError where it is in none of them.
    """
    picker = picker or FilmPicker(video.size)
    face = follow_film(video, landmarker, picker, frames=frames, progress=progress)

    def read(numbers: np.ndarray) -> Iterator[np.ndarray]:
        return read_frames(video, numbers)

    return Film(face, film_views(face, read), video.fps, read)


def film_of_pictures(images: torch.Tensor, track: FaceTrack, fps: Fraction) -> Film:
    """A batch of pictures (F, H, W, 3) in 0..1 with landmarks for each as a film of a rate.

    Raises TalkingPortraitError where pictures and landmarks do not belong together or hold no face.
    """
    track.check_pictures(images)
    if track.frames != len(images):
        raise TalkingPortraitError(
            f"There are {len(images)} pictures but landmarks for one; run Detect Landmarks on all of them."
        )
    if not track.found.any():
        raise TalkingPortraitError(
            f"A face is found in none of the {len(images)} pictures; use pictures that show a face of at least 64 "
            "pixels, with its mouth."
        )
    textures = FilmedTextures(track.frames)
    for number in np.flatnonzero(track.found).tolist():
        textures.add(number, images[number].cpu().numpy(), track.points[number])
    points, looks = textures.aligned(track.points[:, :VERTICES], track.found)
    sharpness = textures.sharpness(track.frames)
    face = filmed_face(points, track.found, (0,), track.image_size, smoothing=0, textures=looks, sharpness=sharpness)

    def read(numbers: np.ndarray) -> Iterator[np.ndarray]:
        return (images[int(number)].cpu().numpy() for number in numbers)

    return Film(face, film_views(face, read), fps, read)


def frame_order(count: int, frames: int, end: End) -> np.ndarray:
    """Numbers (n,) of a film of `count` frames that `frames` frames of speech are spoken over; n is less for "cut"."""
    if end == "cut":
        return np.arange(min(count, frames))
    if end == "hold":
        return np.minimum(np.arange(frames), count - 1)
    return forwards_and_backwards(count, frames)


def check_dubbing(end: End, jaw: float) -> None:
    """Raises TalkingPortraitError for what `dub` can't take; for those who follow a face through a film before."""
    if end not in get_args(End):
        raise TalkingPortraitError(
            f'The end of the film is "{one_line(end)}", but one of {", ".join(get_args(End))} is expected.'
        )
    if isinstance(jaw, bool) or not isinstance(jaw, int | float) or not 0 <= jaw <= 1:
        raise TalkingPortraitError(
            f"The jaw's amount is {quoted(jaw)}, but a number from 0 to 1 is expected; 1 suits most uses."
        )


def dub(
    film: Film,
    motion: FaceMotion,
    *,
    end: End = "back and forth",
    jaw: float = 1.0,
    batch: int = BATCH,
    progress: Progress = no_progress,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Frames (n, H, W, 3), bytes or floats as the film's, and masks (n, H, W) of how much of each pixel is new.

    Where a mask is 0 a frame is the film's, unchanged. `jaw` in 0..1 is how far chin and cheeks follow the new words
    instead of the old. The motion's rate is the film's; only its mouth is used.
    """
    check_dubbing(end, jaw)
    if motion.fps != film.fps:
        raise TalkingPortraitError(
            f"The motion has {float(motion.fps):g} frames a second and the film {float(film.fps):g}; make the motion "
            "at the film's rate."
        )
    numbers = frame_order(film.frames, motion.frames, end)
    height, width = film.face.size
    batch = max(1, min(batch, BATCH_PIXELS // (height * width)))
    light: np.ndarray | None = None
    done = 0
    ahead = read_ahead(_batches(film.read(numbers), batch))
    with FrameWorkers(torch.device("cpu")) as workers, closing(ahead) as batches:
        for frames, foregrounds in with_foreground(film.face, numbers, batches, workers):
            shown = np.arange(done, done + len(frames))
            moves = mouth_motions(film.face, numbers[shown], motion, shown, jaw)
            lights = []
            for frame, move in zip(frames, moves, strict=True):
                now = skin_light(frame, move.points)
                light = now if light is None else _followed(light, now, film.fps)
                lights.append(light)
            masks = np.zeros(frames.shape[:3], np.float32)
            amounts = film.face.amount[numbers[shown]].tolist()
            workers.map(_draw, frames, masks, moves, amounts, lights, repeat(film.inside), foregrounds)
            yield torch.from_numpy(frames), torch.from_numpy(masks)
            done += len(frames)
            give_memory_back(film.face.points, motion.vertices)
            progress(done, len(numbers), _preview(frames[-1]))


def _followed(light: np.ndarray, now: np.ndarray, fps: Fraction) -> np.ndarray:
    """The light (3,) on the inside of a mouth, one frame later, when that on the cheeks is `now` (3,)."""
    change = float(np.abs(now / light - 1).max())
    part = max(1 - float(np.exp(-1 / (LIGHT_SECONDS * float(fps)))), min(change / LIGHT_STEP, 1.0))
    return light + part * (now - light)


def _batches(frames: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) as batches (n, H, W, 3) of their own memory."""
    while batch := list(islice(frames, size)):
        yield np.stack(batch)


def _draw(
    frame: np.ndarray,
    mask: np.ndarray,
    move: MouthMotion,
    amount: float,
    light: np.ndarray,
    inside: MouthViews,
    foreground: Foreground | None,
) -> None:
    """Moves the mouth in a frame (H, W, 3) behind what is in front of it, and says where in `mask` (H, W)."""
    if foreground is not None:
        amount *= 1 - foreground.filmed
    if amount == 0:
        return
    box = changed_box(move, frame.shape[:2])
    if foreground is None:
        mask[box] = draw_mouth(frame, box, move, inside, light, amount)
        return
    filmed = frame[box].copy()
    front = foreground.over(move.points, move.eye_distance, box)
    front.hide(frame[box])
    new = draw_mouth(frame, box, move, inside, light, amount)
    mask[box] = front.put_back(frame[box], filmed, new)


def _preview(frame: np.ndarray) -> torch.Tensor:
    step = max(1, max(frame.shape[:2]) // PREVIEW_SIDE)
    return in_unit_range(frame[::step, ::step])
