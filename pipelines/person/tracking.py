"""Which frames of a video show one person's face, and its landmarks in all of them.

The video is read twice: once to count its frames, to find its cuts and the person who is in most of it, and once to
follow that person's face. Nothing is kept of a frame but its landmarks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from ..errors import TalkingPortraitError
from ..face.face import Face, Landmarker
from ..face.face_search import ImagePyramid, detect_in_whole
from ..face.face_tracking import track_of
from ..face.head_pose import split_matrix
from ..face.landmarks import USUAL_CONFIDENCE, follow
from ..face.shots import Frame, find_clips, find_cuts, thumbnail
from ..files.images import from_uint8
from ..files.video import VideoFile
from ..progress import share
from ..types import FaceTrack, Progress
from .same_person import Look, PersonPicker, look_of, main_person

SHORTEST_VIDEO = 2
"""Seconds, of the video and of what is usable in it."""
SHORTEST_SHOT = 1
"""Seconds; shorter segments are left out."""
LEAST_USABLE = 0.5
"""Part of the frames that must show the person's face."""
MOST_TURNED = 60.0
"""Degrees to the side from which on a face counts as turned away."""
LOOKS_A_SECOND = 2
"""So often the first reading looks for faces."""
PREVIEW_SECONDS = 2


@dataclass(frozen=True)
class TrackedPerson:
    """`track` of all frames, `usable` (frames,) bool, `shots` (first frame, end), and why the rest is `left_out`.

    `accompanied` is the part of the video, in 0..1, in which other faces are seen too.
    """

    track: FaceTrack
    usable: np.ndarray
    shots: list[tuple[int, int]]
    left_out: list[tuple[int, int, str]]
    accompanied: float


def track_person(
    video: VideoFile, landmarker: Landmarker, *, shortest: float = SHORTEST_VIDEO, progress: Progress
) -> TrackedPerson:
    """Follows the person who is in most of a video.

    Raises TalkingPortraitError for a video that shows no person's face for at least half of it and `shortest` seconds.
    """
    fps = float(video.fps)
    changes, reference, accompanied = _first_reading(video, landmarker, share(progress, 0, 0.2))
    seconds = len(changes) / fps
    if seconds < shortest:
        raise TalkingPortraitError(
            f"The video {video.path.name} lasts {seconds:.1f} s, but at least {shortest:g} s, and better some "
            "minutes, of a person who speaks are needed; give a longer one."
        )
    if reference is None:
        raise TalkingPortraitError(
            f"The video {video.path.name} shows no face that can be found; give one in which a person speaks."
        )
    cuts = find_cuts([Frame(change) for change in changes], fps)
    picker = PersonPicker(video.size, reference=reference)
    faces = _follow(video, landmarker, picker, cuts, len(changes), share(progress, 0.2, 1))
    return _judged(video, faces, changes, accompanied, shortest)


def _first_reading(
    video: VideoFile, landmarker: Landmarker, progress: Progress
) -> tuple[list[float], Look | None, float]:
    """The change of each frame from the one before, the look of the person who is in most of the video, and the part
    of the looks that find several faces."""
    look_every, stated = max(1, round(video.fps / LOOKS_A_SECOND)), video.stated_frames
    changes: list[float] = []
    seen: list[tuple[Look, float]] = []
    several: list[bool] = []
    before: np.ndarray | None = None
    for number, frame in enumerate(video.frames()):
        small = thumbnail(frame)
        changes.append(0.0 if before is None else float(np.abs(small - before).mean()))
        before = small
        if number % look_every == 0:
            picture = ImagePyramid(torch.from_numpy(frame))
            faces = detect_in_whole(picture, landmarker, USUAL_CONFIDENCE)
            several.append(len(faces) > 1)
            seen += [(look_of(face, frame), face.size / max(video.size)) for face in faces]
        progress(min(number + 1, stated), max(stated, 1))
    return changes, main_person(seen), sum(several) / max(len(several), 1)


def _follow(
    video: VideoFile, landmarker: Landmarker, picker: PersonPicker, cuts: Sequence[int], total: int, progress: Progress
) -> list[Face | None]:
    """The person's face in each frame, None where it is not found. After a cut it is searched anew."""
    first_of_shot = set(cuts)
    preview_every = max(1, round(PREVIEW_SECONDS * video.fps))
    current = np.zeros((1, 1, 3), np.uint8)

    def pictures() -> Iterator[torch.Tensor]:
        nonlocal current
        for number, current in enumerate(video.frames()):
            picker.show(current, is_cut=number in first_of_shot)
            yield torch.from_numpy(current)

    faces: list[Face | None] = []
    for face in follow(pictures(), video.size, landmarker, picker=picker):
        faces.append(face and replace(face, points=face.points.astype(np.float32)))
        preview = None if len(faces) % preview_every else _with_points(current, face)
        progress(len(faces), max(total, len(faces)), preview)
    for start, end in picker.others():
        faces[start:end] = [None] * (end - start)
    return faces


def _judged(
    video: VideoFile, faces: list[Face | None], changes: list[float], accompanied: float, shortest: float
) -> TrackedPerson:
    """Shots of the person, and the frames in them that show the face."""
    fps, count = float(video.fps), len(faces)
    frames = [
        Frame(change, (float(face.centre[0]), float(face.centre[1])), face.size) if face else Frame(change)
        for change, face in zip(changes, faces, strict=False)
    ]
    segments = find_clips(frames, find_cuts(frames, fps), 1, count)
    shots, left_out = [], []
    for start, stop in segments:
        if stop - start < SHORTEST_SHOT * fps:
            left_out.append((start, stop, "the shot is too short"))
        else:
            shots.append((start, stop))
    edges = [0, *(edge for segment in segments for edge in segment), count]
    left_out += [
        (start, stop, "the person's face is not found") for start, stop in list(pairwise(edges))[::2] if stop > start
    ]
    usable = np.zeros(count, bool)
    for start, stop in shots:
        usable[start:stop] = True
    if usable.any():
        track = track_of(
            [face if ok else None for face, ok in zip(faces, usable, strict=True)], video.size, "interpolate"
        )
        usable &= track.found & (np.abs(split_matrix(track.matrix)[0][:, 1]) <= MOST_TURNED)
    if usable.mean() < LEAST_USABLE or usable.sum() < shortest * fps:
        raise TalkingPortraitError(
            f"The person's face is seen in {usable.sum() / fps:.1f} of the {count / fps:.1f} s of {video.path.name}, "
            f"but in at least half of them, and {shortest:g} s, it is needed; cut the video to the parts in which "
            "the person speaks to the camera."
        )
    return TrackedPerson(track, usable, shots, sorted(left_out), accompanied)


def _with_points(frame: np.ndarray, face: Face | None) -> torch.Tensor:
    """A frame (H, W, 3) uint8 as a picture in 0..1 with the landmarks of the face marked."""
    marked = frame.copy()
    if face is not None:
        x, y = face.points[:, :2].T.round().astype(int)
        inside = (x >= 0) & (y >= 0) & (x < frame.shape[1]) & (y < frame.shape[0])
        marked[y[inside], x[inside]] = (0, 255, 0)
    return from_uint8(marked)
