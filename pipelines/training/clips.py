"""The folder that training reads: clips of one face each, cut out, with landmarks and speech.

    FOLDER/manifest.json                  settings, and what has become of each video
    FOLDER/clips/NAME/clip.json           what `Clip` holds
    FOLDER/clips/NAME/frames/000000.jpg   pictures, all of one size
    FOLDER/clips/NAME/points.npy          (frames, 478, 3) pixels of the cut pictures, as FaceTrack has them
    FOLDER/clips/NAME/matrix.npy          (frames, 4, 4) head matrices
    FOLDER/clips/NAME/vertices.npy        (frames, 468, 3) the metric face in its head's frame, cm
    FOLDER/clips/NAME/blendshapes.npy     (frames, 52)
    FOLDER/clips/NAME/speech.npy          (samples,) 16 kHz; missing where the video has no sound

and, for some systems, what `enrich.py` adds. All these arrays are float32. They are read in parts, so that clips may be
long.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import TalkingPortraitError

MANIFEST, CLIPS, FRAMES = "manifest.json", "clips", "frames"
Array = Literal["points", "matrix", "vertices", "blendshapes", "speech", "heard", "identity"]


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
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def has(self, name: Array) -> bool:
        return (self.folder / f"{name}.npy").is_file()

    @property
    def has_speech(self) -> bool:
        return self.has("speech")

    def describe(self) -> None:
        """Writes clip.json."""
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / "clip.json").write_text(json.dumps(values | {"fps": str(self.fps)}))


def read_clip(folder: Path) -> Clip:
    """Raises TalkingPortraitError for a folder that holds no clip."""
    try:
        values: dict[str, Any] = json.loads((folder / "clip.json").read_text())
        return Clip(folder, **{**values, "fps": Fraction(values["fps"])})
    except (OSError, ValueError, KeyError, TypeError):
        raise TalkingPortraitError(
            f"{folder} is no prepared clip; remove it from the folder, or prepare its video again."
        ) from None


def read_clips(folder: str | Path) -> list[Clip]:
    """All clips of a prepared folder, by name. Raises TalkingPortraitError where there are none."""
    place = Path(folder) / CLIPS
    folders = sorted(path for path in place.iterdir() if not path.name.startswith(".")) if place.is_dir() else []
    if not folders:
        raise TalkingPortraitError(
            f"{folder} holds no prepared clips; make some with: python -m talking_portrait prepare VIDEO --out {folder}"
        )
    return [read_clip(path) for path in folders]
