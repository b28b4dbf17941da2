"""The folder that holds a prepared video of one person, and what is read from it.

meta.json          what the folder was made from and how, and which stages are finished
source.mp4         the video as it was given (the ending is its own)
audio.wav          its sound on the clock of the frames, 16 kHz, one channel; absent where there is none
speech.npz         speech features of that sound, one row for each frame; absent where there is no sound
mouth.safetensors  the mouth network whose states they are; absent where they are others
track.npz          the person's landmarks in every frame
usable.npy         which frames show the person's face
crops/000000.png   the face's square part of each frame, scaled to one size
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...models.array_file import read_array, read_arrays
from ...models.speech.mouth_network import load_mouth_network
from ..audio.mouth_states import NAME, MouthEncoder
from ..errors import TalkingPortraitError, reason_of
from ..files.input_paths import existing_folder
from ..files.sound import read_audio
from ..files.video import open_video
from ..image.affine_sampling import box_map
from ..timing import MAX_FPS, MIN_FPS, as_fraction
from ..types import Audio, Crop, FaceTrack, SpeechFeatures

VERSION = 1
META, SOURCE, SOUND, SPEECH, ENCODER, TRACK, USABLE, CROPS = (
    "meta.json", "source", "audio.wav", "speech.npz", "mouth.safetensors", "track.npz", "usable.npy", "crops"
)  # fmt: skip
LARGEST, LARGEST_CROP = 2**31, 4096
"""Beyond all frames and pixels of a video, and beyond the side of all crops."""
LARGEST_VALUE = 1e6
STAGES = ("source", "track", "sound", "crops", "speech")
"""In the order in which they are made."""


@dataclass(frozen=True)
class CropBox:
    """A square of a frame in whole pixels, which may reach beyond the frame; there the frame's edge is repeated."""

    left: int
    top: int
    side: int

    def map(self, size: int) -> np.ndarray:
        """The map (2, 3) from pixels of a square of `size` pixels to pixels of the frame."""
        return box_map(self.left, self.top, self.side, self.side, (size, size))


@dataclass(frozen=True)
class Person:
    """A prepared person. Make one with `open_person`.

    `size` (height, width) of the video's frames; `box` is the part of them that the crops show, `crop_size` the side
    of the crops in pixels. `usable` (frames,) bool: the frame shows the person's face, not turned away. `shots` are
    (first frame, end) of segments without a cut in which the face is found.
    """

    folder: Path
    source: Path
    fingerprint: str
    fps: Fraction
    frames: int
    size: tuple[int, int]
    box: CropBox
    crop_size: int
    usable: np.ndarray = field(repr=False)
    shots: tuple[tuple[int, int], ...]

    @property
    def crop(self) -> Crop:
        """Where the crops lie in the frames."""
        return Crop(self.box.map(self.crop_size)[None], (self.crop_size, self.crop_size), self.size)

    def track(self) -> FaceTrack:
        """The landmarks of all frames in the frames' pixels; frames without the face have interpolated ones."""
        path = self.folder / TRACK
        arrays = _arrays(path)
        try:
            size = tuple(int(side) for side in arrays["image_size"])
            points, found, matrix = arrays["points"], arrays["found"], arrays["matrix"]
        except (KeyError, ValueError, TypeError, OverflowError):
            raise damaged(path) from None
        rows = {name: arrays[name] for name in ("blendshapes", "score") if name in arrays}
        lengths = {len(array) if array.ndim else 0 for array in (points, found, matrix, *rows.values())}
        numbers = all(_possible(array) for array in (points, matrix, *rows.values()))
        shapes = (points.ndim, *points.shape[2:]) == (3, 3) and matrix.shape[1:] == (4, 4) and found.ndim == 1
        if lengths != {self.frames} or not numbers or not shapes or found.dtype != bool or size != self.size:
            raise damaged(path)
        return FaceTrack(points, found, self.size, matrix, rows.get("blendshapes"), rows.get("score"))

    def crops(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The crops (n, crop_size, crop_size, 3) uint8 RGB of these frames."""
        crops = np.empty((len(indices), self.crop_size, self.crop_size, 3), np.uint8)
        for place, index in enumerate(indices):
            crops[place] = self._crop(int(index))
        return crops

    def _crop(self, index: int) -> np.ndarray:
        return read_square(self.folder / CROPS / crop_name(index), self.crop_size, "RGB")

    def full_frames(self) -> Iterator[np.ndarray]:
        """The video's frames (H, W, 3) uint8 RGB, one at a time."""
        video = open_video(self.source)
        if video.size != self.size:
            raise damaged(self.source)
        count = 0
        for frame in replace(video, fps=self.fps).frames():
            if count == self.frames:
                return
            yield frame
            count += 1
        if count < self.frames:
            raise damaged(self.source)

    def audio(self) -> Audio | None:
        """The video's sound on the clock of its frames, one channel at 16 kHz; None where it has none."""
        path = self.folder / SOUND
        return read_audio(path) if path.is_file() else None

    def speech(self) -> SpeechFeatures:
        """Speech features with one row for each frame. Raises TalkingPortraitError where the video has no speech."""
        path = self.folder / SPEECH
        if not path.is_file():
            raise TalkingPortraitError(
                f"The video that {self.folder.name} was prepared from has no speech, which training needs; prepare a "
                "video in which the person is heard speaking."
            )
        arrays = _arrays(path)
        try:
            states, timing = arrays["states"], str(arrays["timing"])
            features = SpeechFeatures(
                torch.from_numpy(states),
                as_fraction(str(arrays["fps"])),
                str(arrays["model"]),
                timing,  # type: ignore[arg-type]
            )
        except (KeyError, ValueError, TypeError, ArithmeticError):
            raise damaged(path) from None
        if states.ndim != 3 or len(states) != self.frames or not _possible(states):
            raise damaged(path)
        return features

    def mouth_encoder(self) -> MouthEncoder | None:
        """The encoder of `speech`, which goes with a trained model; None where the features are not a mouth network's.

        Raises TalkingPortraitError where it is not the one that the features were computed with.
        """
        from safetensors import SafetensorError

        model, path = self.speech().model, self.folder / ENCODER
        if not model.startswith(f"{NAME}-"):
            return None
        try:
            encoder = MouthEncoder(load_mouth_network(path))
        except TalkingPortraitError:  # of a file that ships
            raise
        except (OSError, SafetensorError, LookupError, ValueError, TypeError, RuntimeError):
            raise damaged(path) from None
        if encoder.name != model:
            raise damaged(path)
        return encoder


def crop_name(index: int) -> str:
    """The file name of a frame's crop."""
    return f"{index:06}.png"


CROP_NAMES = re.compile(r"\d{6,}\.png")
"""The names that `crop_name` gives."""


def open_person(folder: str | Path) -> Person:
    """Opens a folder that `prepare_person` has made.

    Raises TalkingPortraitError for a folder that is not there, holds something else, is unfinished or damaged.
    """
    folder = existing_folder(folder, "person's")
    meta = read_meta(folder)
    if meta is None:
        raise TalkingPortraitError(
            f"The folder {folder} holds no prepared person ({META} is missing); make one of a video with Prepare "
            "Person, or on the command line with person prepare."
        )
    missing = [stage for stage in STAGES if stage not in meta["finished"]]
    if missing:
        raise TalkingPortraitError(
            f"The person in {folder} was not prepared to the end (still to do: {', '.join(missing)}); run the "
            "preparation again, which goes on where it stopped."
        )
    usable = _usable(folder / USABLE)
    described = described_video(folder, meta)
    person = Person(
        folder=folder,
        source=folder / Path(str(meta["source"].get("file", ""))).name,
        fingerprint=str(meta["source"].get("fingerprint", "")),
        usable=usable,
        **described,
    )
    if person.usable.shape != (person.frames,):
        raise damaged(folder / USABLE)
    for path in (person.source, folder / TRACK, folder / CROPS):
        if path == folder or not os.path.exists(path):  # False, and not an error, for what no file can be called
            raise damaged(folder / META if path == folder else path)
    return person


def report_of(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The sentences that a description keeps for whoever prepares again; none where they are something else."""
    report = meta.get("report")
    return tuple(str(line) for line in report) if isinstance(report, list) else ()


def described_video(folder: Path, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Rate, frames, sizes and shots as a description has them once the person is tracked, by `Person`'s names.

    Raises TalkingPortraitError for a damaged one.
    """
    try:
        crop = meta["crop"]
        box = CropBox(int(crop["left"]), int(crop["top"]), int(crop["side"]))
        fps, frames, crop_size = as_fraction(meta["fps"]), int(meta["frames"]), int(meta["crop_size"])
        height, width = (int(side) for side in meta["size"])
        shots = tuple((int(start), int(stop)) for start, stop in meta["shots"])
    except (KeyError, ValueError, TypeError, ArithmeticError):
        raise damaged(folder / META) from None
    counts = (frames, height, width, box.side, crop_size)
    possible = min(counts) > 0 and max(map(abs, (*counts, box.left, box.top))) < LARGEST
    inside = all(0 <= start < stop <= frames for start, stop in shots)
    if not (possible and crop_size <= LARGEST_CROP and MIN_FPS <= fps <= MAX_FPS and shots and inside):
        raise damaged(folder / META)
    size = (height, width)
    return {"fps": fps, "frames": frames, "size": size, "box": box, "crop_size": crop_size, "shots": shots}


def read_description(path: Path) -> dict[str, Any] | None:
    """What a file of JSON describes, nothing ({}) for another file, None where there is none.

    Raises TalkingPortraitError for a file that can't be read.
    """
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise TalkingPortraitError(
            f"{path} can't be read ({reason_of(error)}); check its permissions, or give another folder."
        ) from None
    except (ValueError, RecursionError):
        return {}
    return described if isinstance(described, dict) else {}


def read_meta(folder: Path) -> dict[str, Any] | None:
    """What meta.json says, None where there is none. Raises TalkingPortraitError for a file of something else."""
    path = folder / META
    meta = read_description(path)
    if meta is None:
        return None
    finished = meta.get("finished")
    known = isinstance(finished, list) and all(isinstance(stage, str) for stage in finished)
    if not (known and "version" in meta and isinstance(meta.get("source"), dict)):
        raise TalkingPortraitError(
            f"{path} is no description of a prepared person, so the folder was left alone; give another folder."
        )
    if meta["version"] != VERSION:
        raise TalkingPortraitError(
            f"The person in {folder} was prepared by another version of this pack (format {str(meta['version'])[:20]}, "
            f"but {VERSION} is expected); prepare the video again in another folder."
        )
    return meta


def damaged(path: Path) -> TalkingPortraitError:
    """The error for a file of a prepared person that is gone, cut short or changed."""
    return TalkingPortraitError(
        f"{path} is missing or damaged; prepare the person again in another folder, from the same video."
    )


def read_square(path: Path, size: int, mode: str) -> np.ndarray:
    """A picture of a prepared person, (size, size) pixels of Pillow's `mode`, with its channels.

    Raises TalkingPortraitError for a damaged file, and for one of another form or size before it is decoded.
    """
    from PIL import Image

    try:
        if not path.is_file():  # opening a pipe would wait for somebody to write into it
            raise damaged(path)
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.mode != mode or picture.size != (size, size):
                raise damaged(path)
            return np.asarray(picture)
    except Exception:  # decoders have their own for a damaged file
        raise damaged(path) from None


def _possible(array: np.ndarray) -> bool:
    """Whether an array holds numbers, none of them far beyond all pixels, centimetres, scores and features."""
    return array.dtype.kind in "fiu" and bool((np.abs(array) < LARGEST_VALUE).all())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_arrays(path)
    except ValueError:
        raise damaged(path) from None


def _usable(path: Path) -> np.ndarray:
    try:
        usable = read_array(path)
    except ValueError:
        raise damaged(path) from None
    if usable.dtype != bool:
        raise damaged(path)
    return usable
