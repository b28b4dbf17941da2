"""Prepares videos for training: a folder of clips of one face, cut out, with landmarks and speech.

Each video is read twice, once to track the face and once to cut it out, so memory stays the same for any length.
A video is written whole or not at all; what is done is skipped in the next run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from ....models.speech.encoder import SAMPLE_RATE
from ...errors import TalkingPortraitError, reason_of
from ...face.crop import track_in_crop
from ...face.crop_boxes import PRESETS, portrait_boxes
from ...face.face import Face, Landmarker
from ...face.face_tracking import track_of
from ...face.landmarks import follow
from ...face.metric_mesh import metric_mesh
from ...face.shots import Frame, find_clips, find_cuts, thumbnail
from ...files.images import from_uint8, to_uint8, write_frame
from ...files.output_paths import cut_to_bytes, folder_for_results, replacing
from ...files.scratch import clear_abandoned, interruptions_held, scratch_folder
from ...files.sound import read_speech
from ...files.video import VIDEO_ENDINGS, VideoFile, open_video
from ...image.affine_sampling import sample_picture
from ...timing import sample_index
from ...types import Crop, FaceTrack, Progress, no_progress
from .clips import CLIPS, FRAMES, MANIFEST, Clip, clip_name, remove_clip

LONGEST = 86_400
"""Seconds of the longest clips, a day."""
_BLENDSHAPES = 52
_LOCK = ".manifest.lock"
"""Held while the list of videos changes; it stays, as another process may just be waiting for it."""


@dataclass(frozen=True)
class Recipe:
    """How videos become clips; one for all of a folder.

    `fps` of the clips (AniPortrait learns at 30, Hallo and APasco at 25), `size` of their pictures in pixels, `crop`
    a name in `crop_boxes.PRESETS`, `shortest` and `longest` clip in seconds.
    """

    fps: Fraction = Fraction(30)
    size: int = 512
    crop: str = "head"
    shortest: float = 2.0
    longest: float = 60.0

    def __post_init__(self) -> None:
        if self.size < 128 or self.size % 8:
            raise TalkingPortraitError(
                f"Pictures of {self.size} pixels were requested, but a multiple of 8 from 128 on is expected."
            )
        if self.crop not in PRESETS:
            raise TalkingPortraitError(f'The crop is "{self.crop}", but one of {", ".join(PRESETS)} is expected.')
        if not 0 < self.shortest <= self.longest <= LONGEST:
            raise TalkingPortraitError(
                f"Clips of {self.shortest} to {self.longest} s were requested, but the first must be above 0 and not "
                f"above the second, which is at most {LONGEST}."
            )


def prepare(
    videos: Sequence[str | Path],
    folder: str | Path,
    landmarker: Landmarker,
    recipe: Recipe | None = None,
    *,
    person: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    failed: Callable[[Path], None] = lambda video: None,
    progress: Progress = no_progress,
) -> int:
    """Adds the clips of these videos to a training folder; returns how many clips it holds then.

    Args:
        person: who speaks, the same name for all these videos; by default each video shows a person of its own.
        say, failed: get a sentence for each video on what was kept or why nothing was, and each that can't be read.
        progress: called after each frame; may raise to stop, which loses the work on the video at hand alone.

    Raises TalkingPortraitError for a folder that was prepared by another recipe or can't be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_for_results(Path(folder) / CLIPS))
            clip_folder = _ClipFolder(Path(folder), recipe or Recipe())
            clear_abandoned(Path(folder))
        except OSError as error:
            raise _no_training_folder(folder, error) from None
        for video in map(Path, videos):
            if clip_folder.has(video):
                say(f"{video.name}: done before.")
                continue
            try:
                with scratch_folder(clip_folder.folder, "clips") as scratch:
                    work = _Video(open_video(video), clip_folder, scratch, landmarker, person or video.stem, progress)
                    line = clip_folder.add(video, list(work.clips()))
            except OSError as error:
                raise _no_training_folder(folder, error) from None
            except TalkingPortraitError as error:
                line = f"{video.name}: left out. {error}"
                failed(video)
            say(line)
        return clip_folder.clip_count


def _no_training_folder(folder: str | Path, error: OSError) -> TalkingPortraitError:
    return TalkingPortraitError(
        f"{folder} can't be a training folder ({reason_of(error)}); check that it is there and has room, or "
        "give another one."
    )


def find_videos(places: Sequence[Path]) -> list[Path]:
    """The given files, and all videos in the given folders and below, by name."""
    found: list[Path] = []
    for place in places:
        is_folder = os.path.isdir(place)
        inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS) if is_folder else []
        if is_folder and not inside:
            raise TalkingPortraitError(
                f"The folder {place} holds no video ({', '.join(VIDEO_ENDINGS)}); give another one."
            )
        found += inside or [place]
    return found


class _ClipFolder:
    """The folder and its manifest. Others may put things there too: only what `prepare` made is removed."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self._recipe = asdict(recipe) | {"fps": str(recipe.fps)}
        self.manifest = self._stored() or {"recipe": self._recipe, "videos": {}}

    def _stored(self) -> dict[str, Any] | None:
        """The manifest on the disk, None where there is none."""
        manifest = _read_manifest(self.folder / MANIFEST)
        if manifest is not None and manifest["recipe"] != self._recipe:
            raise TalkingPortraitError(
                f"{self.folder} was prepared by another recipe ({_words(manifest['recipe'])}) than now requested "
                f"({_words(self._recipe)}); use the same one, or another folder."
            )
        return manifest

    @property
    def clip_count(self) -> int:
        return sum(len(video["clips"]) for video in self.manifest["videos"].values())

    def has(self, video: Path) -> bool:
        return _same_file(self.manifest["videos"].get(str(video.absolute())), video)

    def clip_name(self, video: Path, number: int) -> str:
        """Neither two videos of one name in different folders nor two states of one video get the same."""
        identity = os.fsencode(video.absolute()) + f" {json.dumps(_identity(video))}".encode()
        start = cut_to_bytes(video.stem, 80) or "video"
        return clip_name(start, hashlib.sha256(identity).hexdigest()[:6], number)

    def add(self, video: Path, clips: list[Clip]) -> str:
        """Moves a finished video's clips into the folder and enters it in the manifest; returns the report's line."""
        report = _report(video, clips, self.recipe)
        places = [self.folder / CLIPS / clip.folder.name for clip in clips]
        with ExitStack() as stack, interruptions_held():
            with suppress(OSError, NotImplementedError):  # where files can't be locked
                stack.enter_context(FileLock(self.folder / _LOCK))
            (self.folder / CLIPS).mkdir(exist_ok=True)  # another process takes away what it made, when it is ended
            for place in places:
                remove_clip(place)  # of a run that ended before the video was entered, or of one at the same time
                if os.path.lexists(place):
                    raise TalkingPortraitError(
                        f"{place} is in the way, but no clip of this program; move it elsewhere."
                    )
            for clip, place in zip(clips, places, strict=True):
                clip.folder.replace(place)
            self._enter(video, places, report)
        return report

    def _enter(self, video: Path, places: list[Path], report: str) -> None:
        """Enters a video into the manifest as it is on the disk, where another process may have added to it.

        The clips of the file as it was when it was prepared last go before that: when this is interrupted, the next run
        finds the video changed, and their names.
        """
        self.manifest = self._stored() or self.manifest
        before = self.manifest["videos"].get(str(video.absolute()), {"clips": []})["clips"]
        for name in before:
            place = self.folder / CLIPS / Path(name).name
            if place not in places:
                remove_clip(place)
        self.manifest["videos"][str(video.absolute())] = {
            **_identity(video),
            "clips": [place.name for place in places],
            "report": report,
        }
        with replacing(self.folder / MANIFEST) as partial:
            partial.write_text(json.dumps(self.manifest, indent=1))


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """A manifest, None where there is none. Raises TalkingPortraitError for a file of something else."""
    if not os.path.lexists(path):
        return None
    try:
        manifest = json.loads(path.read_text())
        known = isinstance(manifest["recipe"], dict) and all(
            isinstance(name, str) for video in manifest["videos"].values() for name in video["clips"]
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        known = False
    if not known:
        raise TalkingPortraitError(
            f"{path} is no list of prepared videos, so it was left alone; move it elsewhere or give another folder."
        )
    return manifest


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _identity(video: Path) -> dict[str, int]:
    status = video.stat()
    return {"bytes": status.st_size, "modified": int(status.st_mtime)}


def _same_file(entry: dict[str, Any] | None, video: Path) -> bool:
    return entry is not None and video.is_file() and _identity(video).items() <= entry.items()


def _report(video: Path, clips: list[Clip], recipe: Recipe) -> str:
    if not clips:
        return f"{video.name}: no face is seen for {recipe.shortest:g} s on end without a cut, so nothing was kept."
    seconds = sum(clip.frames / clip.fps for clip in clips)
    kept = "1 clip" if len(clips) == 1 else f"{len(clips)} clips (the picture is cut, the face is lost, or it is long)"
    mute = "" if clips[0].has_speech else ", without sound"
    return f"{video.name}: {kept} of {float(seconds):.1f} s in all{mute}."


class _Video:
    """One video while its clips are made."""

    def __init__(
        self,
        video: VideoFile,
        clip_folder: _ClipFolder,
        scratch: Path,
        landmarker: Landmarker,
        person: str,
        progress: Progress,
    ) -> None:
        self.video = replace(video, fps=clip_folder.recipe.fps)  # ffmpeg repeats or drops frames to get there
        self.name, self.clip_folder, self.landmarker, self.person = video.path, clip_folder, landmarker, person
        self.recipe, self.scratch, self.progress = clip_folder.recipe, scratch, progress
        self.rows = _Rows(scratch)
        self.done = 0

    def clips(self) -> Iterator[Clip]:
        """Clips, each in a folder of its name in the scratch folder."""
        fps = float(self.recipe.fps)
        frames = self._track_face()
        shortest, longest = round(self.recipe.shortest * fps), round(self.recipe.longest * fps)
        spans = find_clips(frames, find_cuts(frames, fps), max(shortest, 1), longest)
        if spans:
            yield from self._cut(spans, self._read_speech())

    def _read_speech(self) -> np.ndarray | None:
        """The sound (samples,) at 16 kHz, None where the video has none."""
        try:
            speech, _ = read_speech(self.name, self.recipe.fps)
            return speech.waveform[0].numpy()
        except TalkingPortraitError:
            return None

    def _track_face(self) -> list[Frame]:
        """Tracks the face through the video; its landmarks are written to the disk."""
        frames: list[Frame] = []
        before: np.ndarray | None = None
        changes: list[float] = []

        def pictures() -> Iterator[torch.Tensor]:
            nonlocal before
            for picture in self.video.frames():
                small = thumbnail(picture)
                changes.append(0.0 if before is None else float(np.abs(small - before).mean()))
                before = small
                yield torch.from_numpy(picture)

        for face in follow(pictures(), self.video.size, self.landmarker):
            self.rows.append(face)
            change = changes[-1]
            frames.append(Frame(change, tuple(face.centre), face.size) if face else Frame(change))
            self._tick()
        return frames

    def _cut(self, spans: list[tuple[int, int]], speech: np.ndarray | None) -> Iterator[Clip]:
        """Reads the video again and writes the clips."""
        numbered = enumerate(self.video.frames())
        for number, (start, end) in enumerate(spans):
            name = self.clip_folder.clip_name(self.name, number)
            track = track_of(self.rows.faces(start, end), self.video.size, "interpolate")
            matrices, size = portrait_boxes(
                track, self.recipe.size, PRESETS[self.recipe.crop], 1.0, upright=False, follow=False, inside=True
            )
            folder = self.scratch / name
            (folder / FRAMES).mkdir(parents=True)
            clip = Clip(folder, end - start, self.recipe.fps, self.recipe.size, self.person, self.name.name, start)
            for index, picture in numbered:
                self._tick()
                if index >= start:
                    part = sample_picture(from_uint8(picture), matrices[0], size)
                    write_frame(clip.picture_path(index - start), to_uint8(part))
                if index == end - 1:
                    break
            _write_face(folder, track_in_crop(track, Crop(matrices, size, self.video.size)))
            if speech is not None:
                first, last = (sample_index(i, SAMPLE_RATE, self.recipe.fps) for i in (start, end))
                samples = np.zeros(last - first, np.float32)  # sound may end before the picture
                spoken = speech[first:last]
                samples[: len(spoken)] = spoken
                np.save(folder / "speech.npy", samples)
            clip.describe()
            yield clip

    def _tick(self) -> None:
        self.done += 1
        self.progress(self.done, 2 * max(self.rows.count, 1))


class _Rows:
    """Landmarks of a whole video, kept on the disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "faces.raw"
        self.count = 0
        self._points = 0
        self._waiting = 0

    def append(self, face: Face | None) -> None:
        """A row of zeros stands for no face. The first ones wait for the first face, which sets a row's length."""
        if face is None and not self._points:
            self._waiting += 1
        else:
            if face is not None and not self._points:
                self._points = len(face.points)
                self._write(np.zeros((self._waiting, self._width), np.float32))
            row = np.zeros(self._width, np.float32)
            if face is not None:
                row[0] = 1 if face.blendshapes is None else 2
                row[1 : 1 + 3 * self._points] = face.points.ravel()
                if face.blendshapes is not None:
                    row[1 + 3 * self._points :] = face.blendshapes
            self._write(row)
        self.count += 1

    def faces(self, start: int, end: int) -> list[Face | None]:
        rows = np.memmap(self.path, np.float32, "r").reshape(-1, self._width)[start:end]
        return [self._face(np.array(row)) if row[0] else None for row in rows]

    def _face(self, row: np.ndarray) -> Face:
        points, scores = np.split(row[1:], [3 * self._points])
        return Face(points.reshape(-1, 3).astype(np.float64), scores if row[0] == 2 else None, None)

    @property
    def _width(self) -> int:
        return 1 + 3 * self._points + _BLENDSHAPES

    def _write(self, rows: np.ndarray) -> None:
        with self.path.open("ab") as file:
            rows.tofile(file)


def _write_face(folder: Path, track: FaceTrack) -> None:
    vertices, _ = metric_mesh(track.points, track.image_size)
    blendshapes = track.blendshapes if track.blendshapes is not None else np.zeros((track.frames, _BLENDSHAPES))
    arrays = {"points": track.points, "matrix": track.matrix, "vertices": vertices, "blendshapes": blendshapes}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array.astype(np.float32))
