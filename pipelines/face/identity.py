"""Whose face it is: the largest face of a picture, as InsightFace's recogniser describes it.

Hallo was trained with the "antelopev2" files: scrfd_10g_bnkps.onnx finds faces, glintr100.onnx describes them. Nothing
is downloaded here.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ...models.checkpoints import check_file
from ..errors import TalkingPortraitError
from ..packages import load_opencv

NoFace = Literal["stop", "nobody"]
"""What becomes of a picture without a face: an error, or an embedding of zeros, the unconditional one."""
DETECTION_SIDE = 640
EMBEDDING = 512


@dataclass(frozen=True)
class FoundFace:
    """`box` (4,) x and y from, x and y to, in pixels; `embedding` (512,) as the recogniser gives it, not normalised."""

    box: np.ndarray
    embedding: np.ndarray


@dataclass(frozen=True)
class FaceIdentity:
    """`embedding` (1, 512) float32 on the CPU; `box` as in `FoundFace`, of the whole picture where there is no face."""

    embedding: torch.Tensor
    box: tuple[float, float, float, float]
    found: bool = True

    def mask(self, image_size: tuple[int, int]) -> torch.Tensor:
        """(H, W), 1 in the box, for the picture's (height, width)."""
        left, top, right, bottom = (max(round(side), 0) for side in self.box)
        mask = torch.zeros(image_size)
        mask[top:bottom, left:right] = 1
        return mask


class FaceRecogniser:
    """InsightFace's detector and recogniser, from their ONNX files, on the CPU."""

    def __init__(self, detector: str | Path, recogniser: str | Path) -> None:
        """Raises TalkingPortraitError for files that are not those networks."""
        self._detector = _model(detector, "detection", "a face detector (scrfd_10g_bnkps.onnx)")
        self._recogniser = _model(recogniser, "recognition", "a face recogniser (glintr100.onnx)")
        self._detector.prepare(-1, input_size=(DETECTION_SIDE, DETECTION_SIDE), det_thresh=0.5)

    def faces(self, picture: torch.Tensor) -> list[FoundFace]:
        """All faces of a picture (H, W, 3) in 0..1."""
        from insightface.app.common import Face

        pixels = (picture * 255).round().clamp(0, 255).byte().numpy()[..., ::-1].copy()
        boxes, points = self._detector.detect(pixels)
        found = []
        for box, own in zip(boxes, points, strict=True):
            with warnings.catch_warnings():  # of what insightface takes from scikit-image
                warnings.simplefilter("ignore", FutureWarning)
                embedding = self._recogniser.get(pixels, Face(bbox=box[:4], kps=own, det_score=box[4]))
            found.append(FoundFace(box[:4], np.asarray(embedding, dtype=np.float32)))
        return found


def _model(path: str | Path, task: str, wanted: str) -> Any:
    check_file(Path(path))
    load_opencv()  # which insightface imports
    from insightface import model_zoo

    try:
        model = model_zoo.get_model(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime and insightface have many for a damaged or unknown file
        raise TalkingPortraitError(
            f"{Path(path).name} cannot be read as an ONNX network ({type(error).__name__}), but {wanted} is expected; "
            "download it again."
        ) from None
    found = getattr(model, "taskname", None)
    if found != task:
        raise TalkingPortraitError(
            f"{Path(path).name} is {f'a network for {found}' if found else 'another network'}, but {wanted} is "
            "expected; choose that file."
        )
    return model


def largest_face(faces: Sequence[FoundFace]) -> FoundFace:
    """The face of the largest box."""
    return max(faces, key=lambda face: float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1])))


def identify(recogniser: FaceRecogniser, picture: torch.Tensor, no_face: NoFace = "stop") -> FaceIdentity:
    """The largest face of a picture (H, W, 3) in 0..1.

    Raises TalkingPortraitError when there is none and `no_face` is "stop".
    """
    faces = recogniser.faces(picture)
    if faces:
        face = largest_face(faces)
        left, top, right, bottom = (float(side) for side in face.box)
        return FaceIdentity(torch.from_numpy(face.embedding)[None], (left, top, right, bottom))
    height, width = picture.shape[:2]
    if no_face == "stop":
        raise TalkingPortraitError(
            f"No face was found in the picture of {width} x {height} pixels; take one that shows it larger and from "
            'the front, or let the node go on as "nobody".'
        )
    return FaceIdentity(torch.zeros(1, EMBEDDING), (0.0, 0.0, float(width), float(height)), found=False)
