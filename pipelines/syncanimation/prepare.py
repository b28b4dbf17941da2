"""Prepares a person for SyncAnimation: the folder that `avatar.open_avatar` reads, made stage by stage.

A stage is written whole or not at all; one that was interrupted is done again in the next run, those before it are not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...models.face.face_mesh import FACE_OVAL
from ...models.face.landmarks_68 import landmarks_68
from ...models.weight_files import save_tensors
from ..errors import TalkingPortraitError, reason_of
from ..face.expression_scores import scores_from_shape
from ..face.metric_mesh import metric_mesh
from ..files.images import from_uint8, to_uint8, write_frame
from ..files.output_paths import put_in_place, remove_own, replacing
from ..files.scratch import clear_abandoned, interruptions_held, scratch_folder
from ..image.affine_sampling import apply_map, invert_map, sample_picture
from ..person.over_frames import between_known, smooth_within
from ..person.person import CROP_NAMES, CropBox, Person, crop_name, read_square, report_of
from ..person.prepare import locked
from ..progress import share
from ..types import FaceTrack, Progress, no_progress
from .avatar import (
    BACKGROUND,
    FOLDER,
    FRAMES,
    HEAD_PART,
    LABELS,
    META,
    METRES,
    NECK_PART,
    PARTS,
    SIZES,
    STAGES,
    TORSO,
    TORSO_PART,
    VERSION,
    Avatar,
    open_avatar,
    read_labels,
    read_meta,
)
from .preparation.background import MOST_FRAMES, clean_background
from .preparation.camera_motion import MOVES, STEPS_A_SECOND, CameraMotion, Views
from .preparation.head_place import HeadPlace
from .preparation.head_tracking import HeadShape, HeadTrack, track_head
from .preparation.parts import KEYFRAMES, LearntParser, Parser, learn_parts
from .preparation.previews import drawn_head, overlaid
from .preparation.torso import torso_picture

AROUND = 3.6
"""The square's side in sizes of the face, where the frame has the room."""
ABOVE = 0.42
"""Part of the square that is above the middle of the face."""
SMOOTHING = (5, 3)
"""Window and order of the Savitzky-Golay filter over blendshapes, as published; here lids are left out of it. They fall
in one frame: with the filter the frame before is labelled half shut, and what is rendered never shuts."""
LIDS = slice(8, 10)
"""Columns of the blendshapes."""
PREVIEW_SECONDS = 2
LITTLE_TORSO = 0.04
"""Part of the picture that neck and torso take up at least where the upper body is seen."""


@dataclass(frozen=True)
class Settings:
    """`size` is the side of the pictures in pixels, by default the largest that the video fills."""

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size not in SIZES:
            raise TalkingPortraitError(
                f"Pictures of {self.size} pixels were requested for SyncAnimation, but {', '.join(map(str, SIZES))} "
                "are the sizes that it takes."
            )


def prepare_avatar(
    person: Person,
    settings: Settings | None = None,
    *,
    parser: Parser | None = None,
    shape: HeadShape | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = no_progress,
) -> Avatar:
    """Makes what SyncAnimation is trained on in a prepared person's folder, or goes on where an earlier run stopped.

    Args:
        parser: what tells head, neck and torso from the background; by default one that is trained on the video.
        shape: a model of faces that gives the tracker of the head its shape; by default that is the canonical face. A
            person who is finished stays as it is where none is given.
        say: gets a sentence for each thing worth knowing.
        progress: called after each frame with previews; may raise to stop, which loses the stage at hand alone.

    Raises TalkingPortraitError where that can't be done, or was done with other settings.
    """
    try:
        with locked(person.folder):
            (person.folder / FOLDER).mkdir(exist_ok=True)
            clear_abandoned(person.folder / FOLDER)
            _Preparation(person, settings or Settings(), parser, shape, say, progress).run()
    except OSError as error:
        raise TalkingPortraitError(
            f"The person can't be prepared for SyncAnimation in {person.folder} ({reason_of(error)}); check that the "
            "folder is there and has room, and run it again, which goes on where it stopped."
        ) from None
    return open_avatar(person)


class _Preparation:
    """One run over the stages."""

    def __init__(
        self,
        person: Person,
        settings: Settings,
        parser: Parser | None,
        shape: HeadShape | None,
        say: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self.person, self.parser, self.shape, self.say, self.progress = person, parser, shape, say, progress
        self.folder = person.folder / FOLDER
        self.track = person.track()
        self.box = square_box(self.track, person.usable)
        self.size = settings.size or max(size for size in SIZES if size == SIZES[0] or size <= self.box.side)
        self.to_square = invert_map(self.box.map(self.size))
        self.preview_every = max(1, round(PREVIEW_SECONDS * person.fps))
        self.meta = self._begun()

    def run(self) -> None:
        stages: dict[str, tuple[Callable[[Progress], None], float]] = {
            FRAMES: (self._cut, 0.2),
            "head": (self._track, 0.3),
            PARTS: (self._parse, 0.85),
            "background": (self._clean, 0.88),
            TORSO: (self._draw_torsos, 1.0),
        }
        start = 0.0
        for name in STAGES:
            stage, end = stages[name]
            if name not in self.meta["finished"]:
                stage(share(self.progress, start, end))
                self.meta["finished"].append(name)
                self._write_meta()
            start = end
        for line in report_of(self.meta):
            self.say(line)

    def _begun(self) -> dict[str, Any]:
        """The description on the disk where it is of the same work, else a new one."""
        how = {"size": self.size, "parser": self.parser.name if self.parser else LearntParser.name}
        meta = read_meta(self.folder)
        before = {} if meta is None else meta.get("settings")
        was = before if isinstance(before, dict) else {}
        finished = meta is not None and set(meta["finished"]) >= set(STAGES)
        if self.shape is not None:
            how["shape"] = self.shape.name
        elif finished and "shape" in was:
            how["shape"] = was["shape"]
        if meta is not None and was == how:
            return {**meta, "report": list(report_of(meta))}
        if finished:
            raise TalkingPortraitError(
                f"The person in {self.person.folder} was prepared for SyncAnimation with "
                f"{', '.join(f'{name} {value}' for name, value in was.items())}, but "
                f"{', '.join(f'{name} {value}' for name, value in how.items())} is requested; prepare the video again "
                "in another folder."
            )
        for name in (FRAMES, PARTS, TORSO):
            remove_own(self.folder / name, CROP_NAMES)
        for name in (LABELS, BACKGROUND, META):
            (self.folder / name).unlink(missing_ok=True)
        box = {"left": self.box.left, "top": self.box.top, "side": self.box.side}
        return {
            "version": VERSION,
            "settings": how,
            "size": self.size,
            "crop": box,
            "report": [],
            "finished": [],
        }

    def _write_meta(self) -> None:
        with replacing(self.folder / META) as partial:
            partial.write_text(json.dumps(self.meta, indent=1), encoding="utf-8")

    @contextmanager
    def _folder_of(self, name: str) -> Iterator[Path]:
        """Where to write a stage's pictures; they take their place when the block is done."""
        with scratch_folder(self.folder, name) as scratch:
            made = scratch / name
            made.mkdir()
            yield made
            with interruptions_held():
                put_in_place(made, self.folder / name, CROP_NAMES)  # others are of a killed run

    def _shown(self, number: int, picture: np.ndarray) -> torch.Tensor | None:
        """A picture (H, W, 3) uint8 for the progress, for one frame of many."""
        return None if number % self.preview_every else from_uint8(picture)

    def _frame(self, number: int) -> np.ndarray:
        return read_square(self.folder / FRAMES / crop_name(number), self.size, "RGB")

    def _parts(self, number: int) -> np.ndarray:
        return read_square(self.folder / PARTS / crop_name(number), self.size, "L")

    def _cut(self, progress: Progress) -> None:
        person, size = self.person, self.size
        matrix, total = self.box.map(size), person.frames
        step = max(1, round(person.fps / STEPS_A_SECOND))
        first_of_shot = {start for start, _ in person.shots}
        camera, views, shot = CameraMotion(), Views(), -1
        with self._folder_of(FRAMES) as made:
            for number, frame in enumerate(person.full_frames()):
                if number in first_of_shot:
                    camera.begin_shot()
                    shot += 1
                if person.usable[number] and (number % step == 0 or number in first_of_shot):
                    camera.add(frame, _box_of(self.track.points[number]))
                    views.add(shot, frame, _box_of(self.track.points[number]))
                square = to_uint8(sample_picture(from_uint8(frame), matrix, (size, size)))
                write_frame(made / crop_name(number), square)
                progress(number + 1, total, self._shown(number, square))
        others = views.others({number: stop - start for number, (start, stop) in enumerate(person.shots)})
        self.meta["other views"] = [list(person.shots[number]) for number in others]
        amount = camera.amount
        self.meta["camera motion"] = amount
        if amount is not None and amount > MOVES:
            self.meta["report"].append(
                f"The camera moves by up to {amount:.1%} of the picture's width, which blurs the background behind the "
                "person; film with a still camera or steady the video first."
            )
        if person.fps > 30:
            self.meta["report"].append(
                f"The video has {float(person.fps):g} frames a second, but SyncAnimation was published with 25, which "
                "also halves the time and the space; prepare it with 25 in another folder if that matters."
            )

    def _track(self, progress: Progress) -> None:
        person, shots = self.person, self.person.shots
        points = apply_map(self.to_square, self.track.points)
        fps = float(person.fps)
        head = track_head(points, person.usable, shots, self.size, fps, self.shape, share(progress, 0, 0.9))
        oval = points[:, list(FACE_OVAL), :2]
        usable = head.usable & self._whole(oval)
        lost = int((person.usable & ~usable).sum())
        for start, stop in self.meta["other views"]:
            usable[start:stop] = False
            self.meta["report"].append(
                f"{start / float(person.fps):.2f} to {stop / float(person.fps):.2f} s are not used for SyncAnimation: "
                "the camera stands elsewhere than in the rest."
            )
        if not usable.any():
            raise TalkingPortraitError(
                f"No frame of {person.source.name} shows the whole head with a certain pose, so the person can't be "
                "prepared for SyncAnimation; give a video in which the head stays inside the picture."
            )
        labels = {
            "c2w": head.c2w(METRES),
            "focal": torch.tensor(head.focal),
            "cx": torch.tensor(head.centre),
            "cy": torch.tensor(head.centre),
            "blendshapes": published_blendshapes(self.track, usable, shots),
            "landmarks": landmarks_68(points).astype(np.float32),
            "oval": oval.astype(np.float32),
            "usable": usable,
        }
        with replacing(self.folder / LABELS) as partial:
            save_tensors({name: torch.as_tensor(value).contiguous() for name, value in labels.items()}, partial)
        shape = "canonical face" if self.shape is None else self.shape.name
        tracker = {"name": "bundle adjustment", "shape": shape, "error": head.error}
        self.meta |= {"focal": head.focal, "tracker": tracker}
        if lost:
            self.meta["report"].append(
                f"{lost} frames ({lost / float(person.fps):.1f} s) are not used for SyncAnimation, as the head leaves "
                "the picture or its pose is uncertain."
            )
        self._preview_mesh(head, points, progress)

    def _whole(self, oval: np.ndarray) -> np.ndarray:
        """In which frames (N,) all of the face is inside the picture."""
        return np.all((oval >= 0) & (oval <= self.size), axis=(1, 2))

    def _preview_mesh(self, head: HeadTrack, points: np.ndarray, progress: Progress) -> None:
        number = int(np.flatnonzero(head.usable)[0])
        progress(1, 1, from_uint8(drawn_head(self._frame(number), head, number)))

    def _parse(self, progress: Progress) -> None:
        total = self.person.frames
        labels = read_labels(self.folder / LABELS, total)
        parser = self.parser or self._learnt(labels, share(progress, 0, 0.3))
        start = 0.0 if self.parser else 0.3
        covered = []
        with self._folder_of(PARTS) as made:
            for number in range(total):
                frame = self._frame(number)
                parts = parser.parts(frame, number)
                covered.append([float((parts == part).mean()) for part in (HEAD_PART, NECK_PART, TORSO_PART)])
                write_frame(made / crop_name(number), parts)
                share(progress, start, 1)(number + 1, total, self._shown(number, overlaid(frame, parts)))
        self.meta["parser"] = parser.name
        if float(np.median(np.sum(covered, axis=1) - np.array(covered)[:, 0])) < LITTLE_TORSO:
            self.meta["report"].append(
                "The video hardly shows the upper body, so mostly the head can be driven; a video down to the chest "
                "shows more."
            )

    def _learnt(self, labels: dict[str, torch.Tensor], progress: Progress) -> Parser:
        place = places(labels)
        numbers = _spread(labels["usable"].numpy(), KEYFRAMES)
        return learn_parts([self._frame(number) for number in numbers], numbers, place, progress)

    def _clean(self, progress: Progress) -> None:
        usable = read_labels(self.folder / LABELS, self.person.frames)["usable"].numpy()
        numbers = _spread(usable, MOST_FRAMES)
        background, hidden = clean_background((self._frame(number), self._parts(number)) for number in numbers)
        with replacing(self.folder / BACKGROUND) as partial:
            write_frame(partial, background)
        self.meta["background never seen"] = hidden
        progress(1, 1, from_uint8(background))

    def _draw_torsos(self, progress: Progress) -> None:
        total = self.person.frames
        with self._folder_of(TORSO) as made:
            for number in range(total):
                torso = torso_picture(self._frame(number), self._parts(number))
                write_frame(made / crop_name(number), torso)
                progress(number + 1, total, self._shown(number, torso[..., :3]))


def square_box(track: FaceTrack, usable: np.ndarray) -> CropBox:
    """The square of the frames that shows head and upper body, inside of them."""
    height, width = track.image_size
    boxes = np.array([_box_of(points) for points in track.points[usable]])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    face = float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))
    side = min(height, width, round(max(AROUND * face, 1.2 * float((high - low).max()))))
    middle = np.median((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0)
    left = np.clip(round(float(middle[0]) - side / 2), 0, width - side)
    top = np.clip(round(float(middle[1]) - ABOVE * side), 0, height - side)
    return CropBox(int(left), int(top), int(side))


def published_blendshapes(track: FaceTrack, usable: np.ndarray, shots: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Blendshapes (N, 52) float32 without `_neutral`, with a zero at the end, all but lids smoothed within shots."""
    scores = track.blendshapes
    if scores is None:
        scores = np.stack([scores_from_shape(metric_mesh(points, track.image_size)[0]) for points in track.points])
    scores = between_known(scores[:, 1:], np.flatnonzero(usable))
    smoothed = smooth_within(scores, shots, *SMOOTHING)
    smoothed[:, LIDS] = scores[:, LIDS]
    return np.clip(np.pad(smoothed, ((0, 0), (0, 1))), 0, 1).astype(np.float32)


def places(labels: dict[str, torch.Tensor]) -> Callable[[int, float], HeadPlace]:
    """Where the head is in each frame of these labels, see `parts.Place`."""
    c2w, oval = labels["c2w"].double().numpy(), labels["oval"].double().numpy()
    focal, centre = float(labels["focal"]), float(labels["cx"])
    return lambda number, shrink: HeadPlace.of_camera(c2w[number], focal, centre, oval[number], METRES, shrink)


def _spread(usable: np.ndarray, count: int) -> list[int]:
    """At most so many usable frames, evenly spaced."""
    known = np.flatnonzero(usable)
    return known[np.linspace(0, len(known) - 1, min(count, len(known))).astype(int)].tolist()


def _box_of(points: np.ndarray) -> np.ndarray:
    """(left, top, right, bottom) of landmarks (P, 3)."""
    return np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])
