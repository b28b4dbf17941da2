"""The folder that training reads: clips of one face each, cut out, with landmarks and speech.

    FOLDER/manifest.json                  the recipe, and the state of each video
    FOLDER/clips/NAME/clip.json           what `Clip` holds; what lies in clips/ without it is none of ours
    FOLDER/clips/NAME/frames/000000.jpg   pictures, all of one size
    FOLDER/clips/NAME/points.npy          (frames, 478, 3) pixels of the cut pictures, as FaceTrack has them
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
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ...errors import TalkingPortraitError

MANIFEST, CLIPS, FRAMES, DESCRIPTION = "manifest.json", "clips", "frames", "clip.json"
Array = Literal["points", "matrix", "vertices", "blendshapes", "speech", "speech_features", "identity"]
_FORMER_NAMES: dict[Array, str] = {"speech_features": "heard"}
"""What the files of arrays were called in folders that were prepared earlier."""
_ARRAY_FILES = tuple(f"{name}.npy" for name in (*get_args(Array), *_FORMER_NAMES.values()))
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
        """(size, size, 3) uint8."""
        from PIL import Image

        with Image.open(self.picture_path(frame)) as file:
            return np.array(file.convert("RGB"))

    def picture_path(self, frame: int) -> Path:
        return self.folder / FRAMES / f"{frame:06d}.jpg"

    def array(self, name: Array) -> np.ndarray:
        """One of the arrays, mapped from the disk."""
        return np.load(self._path(name), mmap_mode="r", allow_pickle=False)

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
    """Removes a clip that `prepare` made. What others have put into its folder stays; any other folder stays whole."""
    if not is_own_clip(folder):
        return
    frames = folder / FRAMES
    if not frames.is_symlink():
        for path in frames.iterdir() if frames.is_dir() else ():
            if _PICTURE.fullmatch(path.name):
                path.unlink()
    for name in _ARRAY_FILES:
        (folder / name).unlink(missing_ok=True)
    (folder / DESCRIPTION).unlink()
    for place in (frames, folder):
        with suppress(OSError):  # something else is in it
            place.rmdir()


def read_clip(folder: Path) -> Clip:
    """Raises TalkingPortraitError for a folder that holds no clip."""
    try:
        values: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
        return Clip(folder, **{**values, "fps": Fraction(values["fps"])})
    except (OSError, ValueError, KeyError, TypeError):
        raise TalkingPortraitError(
            f"{folder} is no prepared clip; remove it from the folder, or prepare its video again."
        ) from None


def read_clips(folder: str | Path) -> list[Clip]:
    """All clips of a prepared folder, by name. Raises TalkingPortraitError where there are none, or for a damaged one.

    What else lies beside them is passed over.
    """
    place = Path(folder) / CLIPS
    folders = sorted(filter(_looks_like_a_clip, place.iterdir())) if place.is_dir() else []
    if not folders:
        raise TalkingPortraitError(
            f"{folder} holds no prepared clips; make some with: python -m talking_portrait prepare VIDEO --out {folder}"
        )
    return [read_clip(path) for path in folders]


def _looks_like_a_clip(path: Path) -> bool:
    """True for what has a description, and for what has lost it."""
    if path.name.startswith(".") or not path.is_dir():
        return False
    arrays = (path / name for name in _ARRAY_FILES)
    return os.path.lexists(path / DESCRIPTION) or bool(_NAME.fullmatch(path.name) and any(map(Path.exists, arrays)))
