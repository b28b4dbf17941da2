"""The folder that training reads: clips of one face each, cut out, with landmarks and speech.

    FOLDER/manifest.json                  the recipe, and the state of each video
    FOLDER/clips/NAME/clip.json           what `Clip` holds; what lies in clips/ without it is none of ours
    FOLDER/clips/NAME/frames/000000.jpg   pictures, all of one size
    FOLDER/clips/NAME/points.npy          (frames, 468 or 478, 3) pixels of the cut pictures, as FaceTrack has them
    FOLDER/clips/NAME/matrix.npy          (frames, 4, 4) head matrices
    FOLDER/clips/NAME/vertices.npy        (frames, 468, 3) the metric face in its head's frame, cm
    FOLDER/clips/NAME/blendshapes.npy     (frames, 52)
    FOLDER/clips/NAME/speech.npy          (samples,) 16 kHz; missing where the video has no sound

and, for some systems, what `clip_features.py` adds. These arrays are float32. They are read in parts, so that clips
may be long.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ....models.array_file import map_array
from ....models.speech.encoder import SAMPLE_RATE
from ...errors import TalkingPortraitError, reason_of
from ...files.output_paths import shortened
from ...files.scratch import clear_abandoned
from ...timing import MAX_FPS, MIN_FPS, as_fraction, sample_index

MANIFEST, CLIPS, FRAMES, DESCRIPTION = "manifest.json", "clips", "frames", "clip.json"
Array = Literal["points", "matrix", "vertices", "blendshapes", "speech", "speech_features", "identity"]
_FORMER_NAMES: dict[Array, str] = {"speech_features": "heard"}
"""What the files of arrays were called in folders that were prepared earlier."""
_ARRAY_FILES = tuple(f"{name}.npy" for name in (*get_args(Array), *_FORMER_NAMES.values()))
_FORMS: dict[Array, tuple[tuple[int, ...], ...]] = {
    "points": ((478, 3), (468, 3)),
    "matrix": ((4, 4),),
    "vertices": ((468, 3),),
    "blendshapes": ((52,),),
    "speech": ((),),
    "identity": ((),),
}
"""What may follow the length; landmarks are without irises where the shipped networks found them."""
_LARGEST = 1e6
"""Far beyond all pixels, centimetres, scores and features."""
_NAME = re.compile(r".+-[0-9a-f]{6}-\d{3,}", re.DOTALL)
_PICTURE = re.compile(r"\d{6,}\.jpg")


@dataclass(frozen=True)
class Clip:
    """`frames` pictures of `size` x `size` pixels at `fps`, of a `person`, from frame `start` of the video `source`."""

    folder: Path
    frames: int
    fps: Fraction
    size: int
    person: str
    source: str
    start: int

    def picture(self, frame: int) -> np.ndarray:
        """(size, size, 3) uint8. Raises TalkingPortraitError for one that is missing, damaged or of another size."""
        from PIL import Image

        path = self.picture_path(frame)
        try:
            with Image.open(path, formats=("JPEG",)) as file:
                if file.size != (self.size, self.size):
                    raise ValueError(f"it is {file.width} x {file.height} pixels, not {self.size} x {self.size}")
                return np.array(file.convert("RGB"))
        except Exception as error:  # decoders have their own for a damaged file
            raise _damaged(path, error) from None

    def picture_path(self, frame: int) -> Path:
        return self.folder / FRAMES / f"{frame:06d}.jpg"

    def array(self, name: Array) -> np.ndarray:
        """One of the arrays, mapped from the disk; TalkingPortraitError for one that is missing or damaged."""
        path = self._path(name)
        try:
            array = map_array(path)
            if array.dtype.kind != "f":
                raise ValueError("it holds no array of fractional numbers")
            self._check_shape(name, array.shape)
            if not _in_range(path, path.stat().st_mtime_ns):
                raise ValueError("some of its values are no numbers, or far too large")
        except Exception as error:  # NumPy has many for a damaged file
            raise _damaged(path, error) from None
        return array

    def _check_shape(self, name: Array, shape: tuple[int, ...]) -> None:
        """Raises ValueError for an array too short for the clip, or of another form; speech features have any."""
        forms = _FORMS.get(name)
        if forms is None:
            return
        length = {"speech": sample_index(self.frames, SAMPLE_RATE, self.fps), "identity": 512}.get(name, self.frames)
        long_enough = shape[:1] == (length,) or (name != "identity" and shape[:1] > (length,))
        if not long_enough or shape[1:] not in forms:
            raise ValueError(f"its form is {shape}, but {(length, *forms[0])} is expected")

    def has(self, name: Array) -> bool:
        return self._path(name).is_file()

    def _path(self, name: Array) -> Path:
        path = self.folder / f"{name}.npy"
        if name in _FORMER_NAMES and not path.is_file():
            former = self.folder / f"{_FORMER_NAMES[name]}.npy"
            return former if former.is_file() else path
        return path

    @property
    def has_speech(self) -> bool:
        return self.has("speech")

    def describe(self) -> None:
        """Writes clip.json."""
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / DESCRIPTION).write_text(json.dumps(values | {"fps": str(self.fps)}))


def clip_name(start: str, mark: str, number: int) -> str:
    """The folder of clip `number` of a video that has the six hexadecimal digits `mark`."""
    return f"{start}-{mark}-{number:03d}"


def is_own_clip(folder: Path) -> bool:
    """Whether `prepare` made this folder: it has the form of a clip's name and holds a clip's description."""
    if folder.is_symlink() or not _NAME.fullmatch(folder.name):
        return False
    try:
        read_clip(folder)
    except TalkingPortraitError:
        return False
    return True


def remove_clip(folder: Path) -> None:
    """Removes a clip that `prepare` made. What others have put into its folder stays; any other folder stays whole.

    Its description goes last, and an empty folder is one whose removal was interrupted after that.
    """
    if not is_own_clip(folder):
        if _NAME.fullmatch(folder.name):
            with suppress(OSError):  # there is none, or something else is in it
                folder.rmdir()
        return
    clear_abandoned(folder)
    frames = folder / FRAMES
    if not frames.is_symlink():
        for path in frames.iterdir() if frames.is_dir() else ():
            if _PICTURE.fullmatch(path.name):
                path.unlink()
    for name in _ARRAY_FILES:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it
        frames.rmdir()
    (folder / DESCRIPTION).unlink()
    with suppress(OSError):
        folder.rmdir()


def read_clip(folder: Path) -> Clip:
    """Raises TalkingPortraitError for a folder that holds no clip."""
    try:
        values: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
        clip = Clip(folder, **{**values, "fps": as_fraction(values["fps"])})
        numbers = ((clip.frames, 1), (clip.size, 1), (clip.start, 0))
        if not all(type(number) is int and least <= number < 2**31 for number, least in numbers):
            raise ValueError
        if not (isinstance(clip.person, str) and isinstance(clip.source, str) and MIN_FPS <= clip.fps <= MAX_FPS):
            raise ValueError
        return clip
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        raise TalkingPortraitError(
            f"{folder} is no prepared clip; remove it from the folder, or prepare its video again."
        ) from None


def read_clips(folder: str | Path) -> list[Clip]:
    """All clips of a prepared folder, by name. Raises TalkingPortraitError where there are none, or for a damaged one.

    What else lies beside them is passed over.
    """
    place = Path(folder) / CLIPS
    try:
        folders = sorted(filter(_looks_like_a_clip, place.iterdir())) if place.is_dir() else []
    except OSError as error:
        raise TalkingPortraitError(
            f"The folder {shortened(place)} can't be read ({reason_of(error)}); check its name and permissions."
        ) from None
    if not folders:
        raise TalkingPortraitError(
            f"{folder} holds no prepared clips; make some with: python -m talking_portrait prepare VIDEO --out {folder}"
        )
    return [read_clip(path) for path in folders]


@lru_cache(maxsize=65536)
def _in_range(path: Path, changed: int) -> bool:
    """Whether an array holds numbers alone that can be; looked at once, until the file has `changed`."""
    return bool((np.abs(map_array(path), dtype=np.float32) < _LARGEST).all())


def _damaged(path: Path, error: Exception) -> TalkingPortraitError:
    return TalkingPortraitError(
        f"{path} can't be used ({reason_of(error)}); remove its clip's folder, or prepare the video again."
    )


def _looks_like_a_clip(path: Path) -> bool:
    """True for what has a description, and for what has lost it."""
    if path.name.startswith(".") or not path.is_dir():
        return False
    arrays = (path / name for name in _ARRAY_FILES)
    return os.path.lexists(path / DESCRIPTION) or bool(_NAME.fullmatch(path.name) and any(map(Path.exists, arrays)))
