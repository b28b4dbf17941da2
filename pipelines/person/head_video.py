"""The video that a person was prepared from, as a model of that person describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TalkingPortraitError
from ..timing import as_fraction
from .fingerprint import fingerprint_of
from .person import CropBox, Person


@dataclass(frozen=True)
class HeadVideo:
    """The video that the person was prepared from, without its frames.

    `fingerprint` and `name` are those of the file, `size` (height, width) of its frames; `box` is the part of them that
    is generated. `usable` (frames,) bool and `shots` as in `Person`.
    """

    name: str
    fingerprint: str
    fps: Fraction
    size: tuple[int, int]
    box: CropBox
    usable: np.ndarray
    shots: tuple[tuple[int, int], ...]

    @classmethod
    def of_person(cls, person: Person) -> HeadVideo:
        name = person.source.name
        return cls(name, person.fingerprint, person.fps, person.size, person.box, person.usable, person.shots)

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any], usable: np.ndarray) -> HeadVideo:
        """From what `notes` returned and a model's file kept.

        Raises LookupError, TypeError, ValueError or ArithmeticError for anything else.
        """
        crop, (height, width) = notes["crop"], notes["size"]
        video = cls(
            name=str(notes["video"]["name"]),
            fingerprint=str(notes["video"]["fingerprint"]),
            fps=as_fraction(notes["fps"]),
            size=(int(height), int(width)),
            box=CropBox(int(crop["left"]), int(crop["top"]), int(crop["side"])),
            usable=usable,
            shots=tuple((int(start), int(stop)) for start, stop in notes["shots"]),
        )
        if not (video.fps > 0 and video.box.side > 0 and min(video.size) > 0):
            raise ValueError("a rate or a size of 0")
        if not all(0 <= start < stop <= len(usable) for start, stop in video.shots):
            raise ValueError("shots that reach beyond the video")
        return video

    def notes(self) -> dict[str, Any]:
        """All but `usable`, as JSON can hold it."""
        return {
            "video": {"name": self.name, "fingerprint": self.fingerprint},
            "fps": str(self.fps),
            "size": list(self.size),
            "crop": asdict(self.box),
            "shots": [list(shot) for shot in self.shots],
        }

    def check_file(self, path: Path) -> None:
        """Raises TalkingPortraitError for another file than the person was prepared from."""
        if fingerprint_of(path) != self.fingerprint:
            raise TalkingPortraitError(
                f"The head video {path.name} is another file than the one that the person was prepared from, so the "
                "face would not fit to its frames; give that one unchanged, or the prepared person."
            )

    def check_person(self, person: Person) -> None:
        """Raises TalkingPortraitError for another person than the model was trained on."""
        if person.fingerprint != self.fingerprint:
            raise TalkingPortraitError(
                f"The person in {person.folder} was prepared from another video than the model was trained on "
                f"({self.name}); give the person, or the video, of the model."
            )
