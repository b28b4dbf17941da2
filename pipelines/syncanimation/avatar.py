"""What SyncAnimation is trained on: the folder `syncanimation` inside a prepared person's, and what is read from it.

meta.json             what it was made with, and which stages are finished
frames/000000.png     a square of each frame that shows head and upper body, scaled to one size
parts/000000.png      one byte for each pixel: 0 background, 1 head with its hair, 2 neck, 3 torso
torso/000000.png      RGBA: neck and torso, also where the head covers them
background.png        what is behind the person
labels.safetensors    camera and head pose, blendshapes and landmarks of each frame
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...models.checkpoints import State, read_checkpoint
from ..errors import TalkingPortraitError
from ..packages import load_opencv
from ..person.person import CropBox, Person, crop_name, damaged, read_description, read_square, report_of

VERSION = 1
FOLDER = "syncanimation"
META, LABELS, BACKGROUND = "meta.json", "labels.safetensors", "background.png"
FRAMES, PARTS, TORSO = "frames", "parts", "torso"
STAGES = (FRAMES, "head", PARTS, "background", TORSO)
"""In the order in which they are made."""
BACKGROUND_PART, HEAD_PART, NECK_PART, TORSO_PART = range(4)
SIZES = (128, 256, 512)
METRES = 0.01
"""The unit of camera positions, in cm."""
_RECTS = {
    "face": (range(68), range(68)),
    "upper face": ((*range(27), 30), range(68)),
    "eyes": (range(36, 48), range(36, 48)),
}
_BLURRED_AT = 512
"""Side of the pictures for which the mask's blur of 9 pixels with sigma 4 was published."""

Indices = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Avatar:
    """A person prepared for SyncAnimation. Make one with `open_avatar`.

    `size` is the side S of all pictures in pixels, `box` the part of the person's frames that they show.
    `c2w` (N, 4, 4) float32 are the camera's positions in the head's frame (x to the face's left, y up, z out of the
    face), in metres; the camera looks along its -z and its y points up: the inverse of MediaPipe's head matrix, whose
    unit is cm. A point (X, Y, Z) before the camera is seen at `focal` * (-X, Y) / Z + (`cx`, `cy`), in pixels.
    `blendshapes` (N, 52) are MediaPipe's without `_neutral` and with a zero at the end; `landmarks` (N, 68, 2) and the
    ring around the face `oval` (N, 36, 2) are in pixels of the pictures; `usable` (N,) bool are frames to train on.
    """

    folder: Path
    size: int
    box: CropBox
    focal: float
    cx: float
    cy: float
    c2w: torch.Tensor
    blendshapes: torch.Tensor
    landmarks: torch.Tensor
    oval: torch.Tensor
    usable: np.ndarray
    report: tuple[str, ...]

    def frames(self, indices: Indices) -> np.ndarray:
        """Pictures (n, S, S, 3) uint8 of these frames."""
        return self._pictures(FRAMES, indices, "RGB")

    def parts(self, indices: Indices) -> np.ndarray:
        """What each pixel shows (n, S, S) uint8: 0 background, 1 head, 2 neck, 3 torso."""
        return self._pictures(PARTS, indices, "L")

    def torso(self, indices: Indices) -> np.ndarray:
        """Neck and torso (n, S, S, 4) uint8 with alpha, continued under the head."""
        return self._pictures(TORSO, indices, "RGBA")

    def background(self) -> np.ndarray:
        """What is behind the person (S, S, 3) uint8."""
        return read_square(self.folder / BACKGROUND, self.size, "RGB")

    def face_masks(self, indices: Indices) -> np.ndarray:
        """Soft masks (n, S, S) float32 in 0..1 of the face in these frames, without ears and hair."""
        return np.stack([face_mask(self.oval[int(index)].numpy(), self.size) for index in indices])

    def rects(self, indices: Indices) -> dict[str, np.ndarray]:
        """Rectangles (n, 4) of parts of the face, as first row, end row, first column and end column.

        Names are face, upper face, lower face, lower half, eyes and lips; the last is a square. They end at the
        pictures' edges.
        """
        return face_rects(self.landmarks[torch.as_tensor(np.asarray(indices))].numpy(), self.size)

    def _pictures(self, kind: str, indices: Indices, mode: str) -> np.ndarray:
        return np.stack([read_square(self.folder / kind / crop_name(int(i)), self.size, mode) for i in indices])


def open_avatar(person: Person) -> Avatar:
    """Opens what `prepare_avatar` has made in a person's folder.

    Raises TalkingPortraitError where the person was not prepared for SyncAnimation, or not to the end, and for damaged
    files.
    """
    folder = person.folder / FOLDER
    meta = read_meta(folder)
    if meta is None:
        raise TalkingPortraitError(
            f"The person in {person.folder} is not prepared for SyncAnimation; choose SyncAnimation in Prepare Person, "
            "or on the command line person prepare with --for syncanimation."
        )
    missing = [stage for stage in STAGES if stage not in meta["finished"]]
    if missing:
        raise TalkingPortraitError(
            f"The person in {person.folder} was not prepared for SyncAnimation to the end (still to do: "
            f"{', '.join(missing)}); run the preparation again, which goes on where it stopped."
        )
    try:
        box, size = CropBox(**{name: int(meta["crop"][name]) for name in ("left", "top", "side")}), int(meta["size"])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        raise damaged(folder / META) from None
    if size not in SIZES or box.side <= 0:
        raise damaged(folder / META)
    labels = read_labels(folder / LABELS, person.frames)
    for path in (folder / FRAMES, folder / PARTS, folder / TORSO, folder / BACKGROUND):
        if not path.exists():
            raise damaged(path)
    return Avatar(
        folder=folder,
        size=size,
        box=box,
        focal=float(labels["focal"]),
        cx=float(labels["cx"]),
        cy=float(labels["cy"]),
        c2w=labels["c2w"],
        blendshapes=labels["blendshapes"],
        landmarks=labels["landmarks"],
        oval=labels["oval"],
        usable=labels["usable"].numpy(),
        report=report_of(meta),
    )


def read_meta(folder: Path) -> dict[str, Any] | None:
    """What the description says, None where there is none. Raises TalkingPortraitError for one that can't be read."""
    path = folder / META
    meta = read_description(path)
    if meta is None:
        return None
    if not isinstance(meta.get("finished"), list) or "version" not in meta:
        raise damaged(path)
    if meta["version"] != VERSION:
        raise TalkingPortraitError(
            f"{folder} was prepared by another version of this pack (format {str(meta['version'])[:20]}, but {VERSION} "
            "is expected); prepare the video again in another folder."
        )
    return meta


def read_labels(path: Path, frames: int) -> State:
    """Camera, poses, blendshapes and landmarks of all frames. Raises TalkingPortraitError for a damaged file."""
    if not path.is_file():
        raise damaged(path)
    labels = read_checkpoint(path)
    shapes = {
        "c2w": (frames, 4, 4),
        "blendshapes": (frames, 52),
        "landmarks": (frames, 68, 2),
        "oval": (frames, 36, 2),
        "usable": (frames,),
        "focal": (),
        "cx": (),
        "cy": (),
    }
    if {name: tuple(value.shape) for name, value in labels.items()} != shapes or labels["usable"].dtype != torch.bool:
        raise damaged(path)
    if not all(value.isfinite().all() for value in labels.values()) or not labels["focal"] > 0:
        raise damaged(path)
    return labels


def face_mask(oval: np.ndarray, size: int) -> np.ndarray:
    """A soft mask (size, size) float32 in 0..1 of the inside of the ring `oval` (P, 2) in pixels.

    The published one is that of the parsed face; in both, the chin's edge lies about 5 of 512 pixels lower.
    """
    cv2 = load_opencv()
    scale = size / _BLURRED_AT
    mask = np.zeros((size, size), np.float32)
    ring = np.where(oval[:, 1:] > oval[:, 1].mean() + 0.3 * np.ptp(oval[:, 1]), oval + [0, 5 * scale], oval)
    cv2.fillPoly(mask, [np.round(ring * 16).astype(np.int32)], 1.0, shift=4)
    kernel = 2 * max(1, round(4 * scale)) + 1
    return cv2.GaussianBlur(mask, (kernel, kernel), 4 * scale)


def face_rects(landmarks: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Rectangles (n, 4), see `Avatar.rects`, of 68 landmarks (n, 68, 2)."""
    x, y = np.clip(landmarks[..., 0], 0, size), np.clip(landmarks[..., 1], 0, size)

    def rect(first: np.ndarray, last: np.ndarray, columns: np.ndarray) -> np.ndarray:
        rows_and_columns = [first, last, columns.min(1), columns.max(1)]
        edges = np.stack(rows_and_columns, axis=1).astype(int)
        edges[:, 1::2] = np.maximum(edges[:, 1::2], np.minimum(edges[:, ::2] + 1, size))
        return edges

    top, bottom = y.min(axis=1), y.max(axis=1)
    lips = rect(y[:, 48:60].min(axis=1), y[:, 48:60].max(axis=1), x[:, 48:60])
    half = np.maximum(lips[:, 1] - lips[:, 0], lips[:, 3] - lips[:, 2])[:, None] // 2
    middle = np.stack([(lips[:, 0] + lips[:, 1]) // 2, (lips[:, 2] + lips[:, 3]) // 2], axis=1)
    half = np.clip(half, 1, size // 2)
    middle = np.clip(middle, half, size - half)
    return {
        "face": rect(top, bottom, x),
        "upper face": rect(top, y[:, 30], x),
        "lower face": rect(y[:, 30], bottom, x),
        "lower half": rect(y[:, 31:36].min(axis=1), bottom, x),
        "eyes": rect(y[:, 36:48].min(axis=1), y[:, 36:48].max(axis=1), x[:, 36:48]),
        "lips": np.stack([middle - half, middle + half], axis=2).reshape(-1, 4),
    }
