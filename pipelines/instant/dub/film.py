"""A film whose person speaks other words: the mouth follows a motion, all else stays as filmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice, repeat
from typing import Literal, get_args

import numpy as np
import torch

from ....models.face.face_mesh import eye_distance, mouth_opening
from ...errors import TalkingPortraitError, one_line, quoted
from ...face.head_pose import split_matrix
from ...face.landmarks import Landmarker
from ...files.images import from_uint8
from ...files.video import VideoFile
from ...image.frame_workers import FrameWorkers, read_ahead
from ...large_arrays import give_memory_back
from ...person.head_frames import forwards_and_backwards, read_frames
from ...types import FaceMotion, FaceTrack, Progress, no_progress
from ..renderer.mouth_shape import MOUTH_CORNERS, distance
from ..renderer.renderer import BATCH_PIXELS, InstantRenderer
from .face_texture import texture_of
from .filmed_face import FilmedFace, blocks, filmed_face
from .follow import FilmPicker, follow_film
from .foreground import Foreground, with_foreground
from .lower_face import changed_box, draw_mouth
from .mouth_motion import MouthMotion, mouth_motions
from .mouth_view import MouthView, skin_light
from .occlusion import TextureKeeper, hidden_lips
from .resting_face import held_mouths

End = Literal["back and forth", "hold", "cut"]
"""What follows the film's last frame where the sound is longer: the film backwards, that frame, or nothing."""

WIDE_ENOUGH = 0.22
"""Eye distances; wider mouths are no better to take the inside from."""
LEAST_OPENING = 0.07
"""Eye distances; where the film shows no wider mouth, the inside is drawn by Instant's renderer."""
STILL_VALUE, FRONTAL_VALUE, TURNED = 0.5, 0.004, 12.0
"""Of an open mouth, in eye distances of opening: what is lost for each eye distance that the face moves from the frame
before, and for each degree beyond TURNED that it looks aside."""
TEETH_VALUE, MOST_TEETH, LIKE_VALUE = 0.15, 0.6, 0.5
"""What is won for the part that is teeth, up to the second: behind a smile that shows nothing else no mouth opens. What
is won if the film's other mouths show just what would be drawn there: one that is pursed, puts out its tongue or has
its landmarks off shows something else. Chosen on films of 15 people; a difference of colours in place of the
correlation prefers blurred mouths."""
WIDTH_VALUE = 0.3
"""What is won for each eye distance of width: beside a narrow mouth is lip, which a wider one would have within."""
MOST_HIDDEN = 0.1
"""Part of the lips from which on something in front of an open mouth hides too much of its inside."""
COMPARED, APART = 8, Fraction(2, 5)
"""Open mouths that are compared, and the seconds between them, at least."""
DRAWN_MOUTH = (0.5, 0.25, 0.0, 0.0, 0.35, 0.0)
"""Mouth controls of the drawn inside."""
BATCH = 8
PREVIEW_SIDE = 512
LIGHT_SECONDS, LIGHT_STEP = 0.25, 0.05
"""Time constant with which the inside's brightness follows that of the face, and the part of the brightness by which a
change is followed at once: that is light which swings or another shot, not a landmark's jitter."""


@dataclass(frozen=True)
class Film:
    """A film prepared for dubbing: its `face`, the `inside` of the mouth, its rate, and how frames are read.

    `inside_drawn` says that the film shows no open mouth.

    `read` takes frame numbers, each of which is more than that before, one less or the same, and yields frames
    (H, W, 3), bytes or floats in 0..1.
    """

    face: FilmedFace
    inside: MouthView
    inside_drawn: bool
    fps: Fraction
    read: Callable[[np.ndarray], Iterator[np.ndarray]]

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
    return _film(face, video.fps, lambda numbers: read_frames(video, numbers))


def film_of_pictures(images: torch.Tensor, track: FaceTrack, fps: Fraction) -> Film:
    """A batch of pictures (F, H, W, 3) in 0..1 with landmarks for each as a film of a rate.

    Raises TalkingPortraitError where pictures and landmarks do not belong together or hold no face.
    """
    track.check_pictures(images)
    if track.frames != len(images):
        raise TalkingPortraitError(
            f"There are {len(images)} pictures but landmarks for one; run Detect Landmarks on all of them."
        )
    textures = TextureKeeper()
    for number in np.flatnonzero(track.found).tolist():
        textures.add(number, images[number].cpu().numpy(), track.points[number])
    looks = list(textures.kept.values())
    face = filmed_face(track.points, track.found, (0,), track.image_size, smoothing=0, textures=looks)
    return _film(face, fps, lambda numbers: (images[int(number)].cpu().numpy() for number in numbers))


def _film(face: FilmedFace, fps: Fraction, read: Callable[[np.ndarray], Iterator[np.ndarray]]) -> Film:
    opened: list[tuple[float, MouthView]] = []
    others: list[tuple[float, int, np.ndarray]] = []
    chosen = sorted(_open_mouths(face, max(1, round(APART * fps))))
    for (number, value), frame in zip(chosen, read(np.array([number for number, _ in chosen])), strict=True):
        hidden = 0.0
        if face.appearance is not None:
            hidden = hidden_lips([face.appearance.oddness(texture_of(frame, face.points[number]))])
        opening = float(mouth_opening(face.points[number].astype(np.float64)))
        if opening >= LEAST_OPENING and hidden < MOST_HIDDEN:
            view = MouthView.of(frame, _as_filmed(face, number))
            value += TEETH_VALUE * min(view.teeth_share(), MOST_TEETH) + WIDTH_VALUE * _width(face, number) - hidden
            opened.append((value, view))
        else:
            others.append((value - hidden, number, frame))
    if opened:
        inside = _best([value for value, _ in opened], [view for _, view in opened])
    else:
        _, number, frame = max(others, key=lambda entry: entry[0])
        inside = MouthView.of(*_drawn(face, number, frame))
    return Film(face, inside, not opened, fps, read)


def _width(face: FilmedFace, number: int) -> float:
    """Eye distances from corner to corner of the mouth in a frame."""
    points = face.points[number].astype(np.float64)
    return distance(points, *MOUTH_CORNERS) / float(eye_distance(points))


def _best(values: Sequence[float], views: Sequence[MouthView]) -> MouthView:
    """Of open mouths the one of the highest value that shows what those of the others show too."""
    if len(views) == 1:
        return views[0]
    likeness = [np.mean([view.likeness(other) for other in views if other is not view]) for view in views]
    return views[int(np.argmax(np.array(values) + LIKE_VALUE * np.array(likeness)))]


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
    with FrameWorkers(torch.device("cpu")) as workers:
        batches = read_ahead(_batches(film.read(numbers), batch))
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
    inside: MouthView,
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


def _open_mouths(face: FilmedFace, apart: int) -> list[tuple[int, float]]:
    """Frames that show the inside of the mouth best, the best first, and how well: open, from the front, and still.

    They lie `apart` frames from one another, at least.
    """
    value = np.concatenate([_shown(face, part) for part in blocks(face.frames)])
    shown = face.found & ~face.mouth_outside
    value[~(shown if shown.any() else face.found)] = -np.inf
    chosen: list[tuple[int, float]] = []
    while len(chosen) < COMPARED and np.isfinite(value.max()):
        number = int(value.argmax())
        chosen.append((number, float(value[number])))
        value[max(0, number - apart) : number + apart + 1] = -np.inf
    return chosen


def _shown(face: FilmedFace, part: slice) -> np.ndarray:
    """How well (n,) some frames show the inside of the mouth."""
    numbers = np.arange(part.start, part.stop)
    points = face.points[numbers].astype(np.float64)
    opening = np.minimum(mouth_opening(points), WIDE_ENOUGH)
    travel = np.linalg.norm(points - face.points[np.maximum(numbers - 1, 0)], axis=-1).mean(axis=1)
    travel /= eye_distance(points)
    turned = np.abs(split_matrix(face.shapes(numbers)[1])[0][:, 1])
    give_memory_back(face.points)
    return opening - STILL_VALUE * travel - FRONTAL_VALUE * np.maximum(turned - TURNED, 0)


def _as_filmed(face: FilmedFace, number: int) -> MouthMotion:
    """Where the mouth of a frame is."""
    return mouth_motions(face, np.array([number]), held_mouths(np.zeros((1, 6))), np.array([0]), 1.0)[0]


def _drawn(face: FilmedFace, number: int, frame: np.ndarray) -> tuple[np.ndarray, MouthMotion]:
    """The frame with its mouth opened by Instant's renderer, and where the lips are then."""
    points = face.points[number : number + 1].astype(np.float64)
    _, matrix = face.shapes(np.array([number]))
    picture = _in_unit_range(frame)
    renderer = InstantRenderer(picture, FaceTrack(points, np.ones(1, bool), face.size, matrix))
    speaking = held_mouths(np.array([DRAWN_MOUTH]))
    drawn = renderer.render(speaking)[0][0].numpy()
    moved = renderer.mesh.move(speaking, np.array([0]), renderer.mesh.mouth.speaking(speaking)).expression
    if frame.dtype == np.uint8:
        drawn = np.rint(drawn * 255).astype(np.uint8)
    here = _as_filmed(face, number)
    return drawn, replace(here, points=here.points + moved[0].numpy())


def _preview(frame: np.ndarray) -> torch.Tensor:
    step = max(1, max(frame.shape[:2]) // PREVIEW_SIDE)
    return _in_unit_range(frame[::step, ::step])


def _in_unit_range(frame: np.ndarray) -> torch.Tensor:
    return from_uint8(frame) if frame.dtype == np.uint8 else torch.from_numpy(frame)
