"""Prepares a video of one person: the folder that `person.open_person` reads, made stage by stage.

A stage is written whole or not at all; one that was interrupted is done again in the next run, those before it are not.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ...models.speech.mouth_network import save_mouth_network
from ..audio.mouth_states import MouthEncoder, shipped_encoder
from ..audio.waveform import SPEECH_RATE
from ..errors import TalkingPortraitError, check_kind, quoted, reason_of
from ..face.crop_boxes import PRESETS, portrait_boxes
from ..face.face import Landmarker
from ..face.landmarks import open_landmarker
from ..files.images import from_uint8, to_uint8, write_frame
from ..files.output_paths import as_path, folder_for_results, put_in_place, remove_own, rename_durably, replacing
from ..files.scratch import clear_abandoned, interruptions_held, scratch_folder
from ..files.sound import NoSoundError, read_speech, write_wav
from ..files.video import VideoFile, open_video
from ..image.affine_sampling import sample_picture
from ..progress import share
from ..timing import as_rate, frame_end
from ..types import Audio, FaceTrack, Progress, no_progress
from .fingerprint import fingerprint_of
from .person import (
    CROP_NAMES,
    CROPS,
    ENCODER,
    META,
    SOUND,
    SOURCE,
    SPEECH,
    STAGES,
    TRACK,
    USABLE,
    VERSION,
    CropBox,
    Person,
    crop_name,
    described_video,
    open_person,
    read_meta,
    report_of,
)
from .speech import Encoder, encoder_name, is_silent, needs_no_file, speech_features
from .tracking import TrackedPerson, track_person

CROP = "head"
"""Of `crop_boxes.PRESETS`: how much around the face the crops show."""
ROOM = 1.25
"""The crops' side is at least this multiple of the place that the face takes up in all frames together."""
SMALL_FACE = 0.35
"""Part of the crops' side below which the face is small in them, which is said."""
_LOCK = ".person.lock"
_PREVIEW_SECONDS = 2


@dataclass(frozen=True)
class Settings:
    """How a video is prepared.

    `crop_size` is the side of the crops in pixels, `fps` the frame rate, by default the video's own. `silent` also
    takes a video without speech, which can be driven but not trained on.
    """

    crop_size: int = 256
    fps: Fraction | None = None
    silent: bool = False

    def __post_init__(self) -> None:
        check_kind("silent", self.silent, False)
        if not (isinstance(self.crop_size, int) and 128 <= self.crop_size <= 1024 and self.crop_size % 64 == 0):
            raise TalkingPortraitError(
                f"Crops of {quoted(self.crop_size)} pixels were requested, but a multiple of 64 from 128 to 1024 is "
                "expected; AudioDVP was published with 256."
            )
        if self.fps is not None:
            as_rate(self.fps)


def prepare_person(
    video: str | Path,
    folder: str | Path,
    *,
    settings: Settings | None = None,
    landmarker: Landmarker | None = None,
    encoder: Encoder | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = no_progress,
) -> Person:
    """Prepares a video in a new or empty folder, or goes on where an earlier run stopped; what is done stays.

    Args:
        landmarker: by default the best engine that is there.
        encoder: what computes the speech features; by default the shipped mouth network, or that which a finished
            person was prepared with.
        say: gets a sentence for each thing worth knowing, such as segments that are left out.
        progress: called after each frame; may raise to stop, which loses the stage at hand alone.

    Raises TalkingPortraitError for a video that can't be used, a folder of something else, or one that another process
    is working on.
    """
    settings = settings or Settings()
    folder = as_path(folder, "person's folder")
    given = open_video(video)
    try:
        with folder_for_results(folder), locked(folder):
            clear_abandoned(folder)
            _Preparation(given, folder, settings, landmarker, encoder, say, progress).run()
    except OSError as error:
        raise TalkingPortraitError(
            f"The person can't be prepared in {folder} ({reason_of(error)}); check that the folder is there and has "
            "room, and run it again, which goes on where it stopped."
        ) from None
    return open_person(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; takes the lock's file away again where nothing was begun."""
    lock = FileLock(folder / _LOCK, timeout=0)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except Timeout:
            raise TalkingPortraitError(
                f"The person in {folder} is just being prepared by another program; wait until it is done, or give "
                "another folder."
            ) from None
        except NotImplementedError:  # where files can't be locked
            pass
        try:
            yield
        finally:
            if not (folder / META).exists():
                (folder / _LOCK).unlink(missing_ok=True)


class _Preparation:
    """One run over the stages."""

    def __init__(
        self,
        video: VideoFile,
        folder: Path,
        settings: Settings,
        landmarker: Landmarker | None,
        encoder: Encoder | None,
        say: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self.folder, self.settings, self.say, self.progress = folder, settings, say, progress
        self.given, self.landmarker = video, landmarker
        self.by_default, self.encoder = encoder is None, encoder or shipped_encoder()
        self.video = replace(video, fps=settings.fps or video.fps)
        self.meta = self._begun()

    def run(self) -> None:
        speech = None if "sound" in self.meta["finished"] else self._read_speech()
        stages: dict[str, Callable[[Progress], None]] = {
            "source": self._copy_source,
            "track": self._track,
            "sound": lambda progress: self._write_sound(speech),
            "crops": self._cut,
            "speech": self._encode_speech,
        }
        ends = {"source": 0.02, "track": 0.7, "sound": 0.71, "crops": 0.95, "speech": 1.0}
        self._write_meta()
        start = 0.0
        for name in STAGES:
            if name not in self.meta["finished"]:
                stages[name](share(self.progress, start, ends[name]))
                self.meta["finished"].append(name)
                self._write_meta()
            if name == "track":
                for line in report_of(self.meta):
                    self.say(line)
            start = ends[name]

    def _begun(self) -> dict[str, Any]:
        """The description on the disk where it is of the same work, else a new one."""
        fingerprint = fingerprint_of(self.given.path, step=lambda: self.progress(0, 100))
        how = {
            "crop_size": self.settings.crop_size,
            "fps": str(self.video.fps),
            "silent": self.settings.silent,
            "speech": encoder_name(self.encoder),
        }
        name = self.given.path.name
        source = {
            "file": SOURCE + (self.given.path.suffix.lower() or ".mp4"),
            "name": name,
            "size": self.given.path.stat().st_size,
            "fingerprint": fingerprint,
        }
        meta = read_meta(self.folder)
        if meta is not None:
            if meta["source"].get("fingerprint") == fingerprint and self._is_like(meta, how):
                if "source" not in meta["finished"]:
                    meta["source"] = source
                if "speech" not in meta["finished"]:
                    meta["settings"] = how
                if "track" in meta["finished"]:
                    described_video(self.folder, meta)
                return meta
            if set(meta["finished"]) >= set(STAGES):
                raise TalkingPortraitError(
                    f"{self.folder} holds a person who was prepared from {meta['source'].get('name')} with "
                    f"{_words(meta.get('settings'))}, not from this video with {_words(how)}; give another folder."
                )
            self._discard(meta["source"])
        elif others := sorted(name for name in os.listdir(self.folder) if not name.startswith(".")):
            raise TalkingPortraitError(
                f"The folder {self.folder} holds other files ({others[0]}), so nothing was written to it; give a new "
                "or an empty folder."
            )
        return {"version": VERSION, "source": source, "settings": how, "finished": []}

    def _is_like(self, meta: dict[str, Any], how: dict[str, Any]) -> bool:
        """Whether what is finished was made as it would be made now; the encoder counts once speech is encoded.

        Where none is given, those of earlier versions will do, whose default was another one.
        """
        before = meta.get("settings")
        if not isinstance(before, dict):
            return False
        before, now = dict(before), dict(how)
        speech, expected = str(before.pop("speech", "")), now.pop("speech")
        will_do = "speech" not in meta["finished"] or speech == expected or (self.by_default and needs_no_file(speech))
        return before == now and will_do

    def _discard(self, source: Mapping[str, Any]) -> None:
        """Takes away what an unfinished run has made from `source`; the description, which tells whose it is, last."""
        remove_own(self.folder / CROPS, CROP_NAMES)
        copy = str(source.get("file", ""))
        copies = [copy] if Path(copy).name == copy and copy.startswith(f"{SOURCE}.") else []
        for name in (SOUND, SPEECH, ENCODER, TRACK, USABLE, *copies, META):
            (self.folder / name).unlink(missing_ok=True)

    def _write_meta(self) -> None:
        with replacing(self.folder / META) as partial:
            partial.write_text(json.dumps(self.meta, indent=1), encoding="utf-8")

    def _read_speech(self) -> Audio | None:
        """The video's sound, None where it has none and may have none."""
        try:
            speech, _ = read_speech(self.given.path, self.video.fps)
            if not is_silent(speech):
                return speech
            problem = "is silent"
        except NoSoundError:
            problem = "has no sound"
        if self.settings.silent:
            return None
        raise TalkingPortraitError(
            f"The video {self.given.path.name} {problem}, but training needs a person's speech; give a video with its "
            "sound."
        )

    def _copy_source(self, progress: Progress) -> None:
        target = self.folder / str(self.meta["source"]["file"])
        with scratch_folder(self.folder, SOURCE) as scratch:
            partial = scratch / target.name
            shutil.copyfile(self.given.path, partial)
            rename_durably(partial, target)
        progress(1, 1)

    def _track(self, progress: Progress) -> None:
        landmarker = self.landmarker or open_landmarker()
        try:
            person = track_person(self.video, landmarker, progress=progress)
        except TalkingPortraitError:
            self._discard(self.meta["source"])  # no other run would go on with such a video
            raise
        track = person.track
        with replacing(self.folder / TRACK) as partial:
            arrays: dict[str, Any] = {
                "points": track.points.astype(np.float32),
                "found": track.found,
                "matrix": track.matrix.astype(np.float32),
                "blendshapes": track.blendshapes,
                "score": track.score,
                "image_size": np.array(track.image_size),
            }
            np.savez(partial, **{name: array for name, array in arrays.items() if array is not None})
        with replacing(self.folder / USABLE) as partial:
            np.save(partial, person.usable)
        box = crop_box(track, person.usable)
        self.meta |= {
            "fps": str(self.video.fps),
            "frames": track.frames,
            "size": list(self.video.size),
            "crop": {"left": box.left, "top": box.top, "side": box.side},
            "crop_size": self.settings.crop_size,
            "shots": [list(shot) for shot in person.shots],
            "landmarks": landmarker.name,
            "report": self._report(person, box),
        }

    def _report(self, person: TrackedPerson, box: CropBox) -> list[str]:
        """Sentences on what of the video is usable."""
        fps, usable = float(self.video.fps), person.usable
        lines = [f"The person's face is usable in {usable.sum() / fps:.1f} of {len(usable) / fps:.1f} s."]
        if person.accompanied:
            lines.append(
                f"Other faces are seen in {person.accompanied:.0%} of the video; the person is who is in most of it."
            )
        for start, stop, why in person.left_out:
            lines.append(f"{start / fps:.2f} to {stop / fps:.2f} s are left out: {why}.")
        part = _face_size(person.track, usable) / box.side
        if part < SMALL_FACE:
            lines.append(
                f"The face takes up only {part:.0%} of the crops' height, as the head moves over much of the picture; "
                "a video in which it moves less shows it better."
            )
        return lines

    def _write_sound(self, speech: Audio | None) -> None:
        if speech is None:
            return
        samples = frame_end(self.meta["frames"], SPEECH_RATE, self.video.fps)
        wave = torch.zeros(1, samples)
        length = min(samples, speech.samples)  # sound may end before the picture, or after it
        wave[:, :length] = speech.waveform[:, :length]
        with replacing(self.folder / SOUND) as partial:
            write_wav(partial, Audio(wave, SPEECH_RATE))

    def _cut(self, progress: Progress) -> None:
        size, frames = self.meta["crop_size"], self.meta["frames"]
        matrix = CropBox(**self.meta["crop"]).map(size)
        preview_every = max(1, round(_PREVIEW_SECONDS * self.video.fps))
        with scratch_folder(self.folder, CROPS) as scratch:
            made = scratch / CROPS
            made.mkdir()
            for number, frame in zip(range(frames), self.video.frames(), strict=False):
                crop = sample_picture(from_uint8(frame), matrix, (size, size))
                write_frame(made / crop_name(number), to_uint8(crop))
                progress(number + 1, frames, None if number % preview_every else crop)
            with interruptions_held():
                put_in_place(made, self.folder / CROPS, CROP_NAMES)  # others are of a killed run

    def _encode_speech(self, progress: Progress) -> None:
        if not (self.folder / SOUND).is_file():
            return
        speech, _ = read_speech(self.folder / SOUND, self.video.fps)
        features = speech_features(speech, self.video.fps, self.meta["frames"], self.encoder, progress=progress)
        if isinstance(self.encoder, MouthEncoder):
            with replacing(self.folder / ENCODER) as partial:
                save_mouth_network(self.encoder.network, partial, {}, whole=True)
        with replacing(self.folder / SPEECH) as partial:
            np.savez(
                partial,
                states=features.states.numpy(),
                fps=str(features.fps),
                model=features.model,
                timing=features.timing,
            )


def crop_box(track: FaceTrack, usable: np.ndarray) -> CropBox:
    """The square that holds the head in all usable frames, inside of the frame as far as the face allows."""
    points = track.points[usable]
    seen = replace(track, points=points, found=track.found[usable], matrix=track.matrix[usable])
    flat = points[..., :2].reshape(-1, 2)
    place = float((flat.max(axis=0) - flat.min(axis=0)).max())
    scale = max(1.0, ROOM * place / (_face_size(track, usable) * PRESETS[CROP][0]))
    matrices, (height, _) = portrait_boxes(seen, None, PRESETS[CROP], scale, upright=False, follow=False, inside=True)
    (step, _, left), (_, _, top) = matrices[0]
    return CropBox(round(float(left)), round(float(top)), round(float(step * height)))


def _face_size(track: FaceTrack, usable: np.ndarray) -> float:
    """The longer side of the face in pixels of the frame, in the median of the usable frames."""
    points = track.points[usable, :, :2]
    return float(np.median((points.max(axis=1) - points.min(axis=1)).max(axis=1)))


def _words(settings: Any) -> str:
    if not isinstance(settings, dict):
        return "other settings"
    return ", ".join(f"{name} {value}" for name, value in settings.items())
