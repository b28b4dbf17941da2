"""Networks that tell head, neck and torso from the background, for users who have the file of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ....models.face.bisenet import DEVIATION, INPUT_SIZE, MEAN, BiSeNet, load_bisenet
from ...errors import TalkingPortraitError
from ...files.input_paths import existing_file
from ...memory import closed_with
from ...packages import first_line, load_opencv, pip_install
from ..avatar import BACKGROUND_PART, HEAD_PART, NECK_PART, TORSO_PART
from .parts import Parser, cleaned

BISENET_PARTS = np.array(
    [BACKGROUND_PART, *[HEAD_PART] * 13, NECK_PART, NECK_PART, TORSO_PART, HEAD_PART, HEAD_PART], np.uint8
)
"""For each of BiSeNet's 19 classes: ears, hair and hat belong to the head, a necklace to the neck."""
BODY_SKIN, FACE_SKIN, OTHERS = 2, 3, 5
SEGMENTER_PARTS = np.array([BACKGROUND_PART, HEAD_PART, NECK_PART, HEAD_PART, TORSO_PART, TORSO_PART], np.uint8)
"""For MediaPipe's classes background, hair, body skin, face skin, clothes and others (glasses, a microphone)."""


def open_parser(path: str | Path) -> Parser:
    """BiSeNet's face parsing, or MediaPipe's selfie multiclass segmenter from a file that ends with .tflite.

    Raises TalkingPortraitError for a file that is not there or holds something else.
    """
    file = existing_file(Path(path), "face parser")
    if file.suffix.lower() == ".tflite":
        return MediaPipeSegmenter(file)
    return BiSeNetParser(load_bisenet(file))


class BiSeNetParser:
    """Parts by BiSeNet's classes."""

    name = "BiSeNet"

    def __init__(self, network: BiSeNet) -> None:
        self.network = network

    @torch.no_grad()
    def parts(self, frame: np.ndarray, number: int) -> np.ndarray:
        """The parts (S, S) uint8 of a frame (S, S, 3) uint8."""
        cv2 = load_opencv()
        picture = cv2.resize(frame, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        normalised = (picture - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
        classes = self.network(torch.from_numpy(normalised).permute(2, 0, 1)[None])[0].argmax(dim=0).numpy()
        return _at_size(BISENET_PARTS[classes], len(frame))


class MediaPipeSegmenter:
    """Parts by the classes of MediaPipe's selfie multiclass segmenter, with the mediapipe package."""

    name = "MediaPipe's selfie multiclass segmenter"

    def __init__(self, path: Path) -> None:
        try:
            from mediapipe import Image, ImageFormat, tasks
        except Exception as error:  # a package beside it that doesn't fit, or a library of the system that is missing
            raise TalkingPortraitError(
                f"{path.name} needs the mediapipe package, which can't be loaded ({first_line(error)}); run: "
                + pip_install("mediapipe")
            ) from None
        options = tasks.vision.ImageSegmenterOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=path.read_bytes()),
            running_mode=tasks.vision.RunningMode.IMAGE,
            output_category_mask=True,
            output_confidence_masks=False,
        )
        try:
            self._task = tasks.vision.ImageSegmenter.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:
            raise TalkingPortraitError(
                f"{path.name} is no segmenter that mediapipe can open ({first_line(error)}), but "
                "selfie_multiclass_256x256.tflite is expected."
            ) from None
        self._wrap = lambda picture: Image(image_format=ImageFormat.SRGB, data=picture)
        # Closed before the interpreter takes mediapipe apart, else it complains at exit.
        closed_with(self, self._task.close)

    def parts(self, frame: np.ndarray, number: int) -> np.ndarray:
        """The parts (S, S) uint8 of a frame (S, S, 3) uint8."""
        result = self._task.segment(self._wrap(np.ascontiguousarray(frame)))
        classes = result.category_mask.numpy_view().reshape(frame.shape[0], -1)
        if classes.max() >= len(SEGMENTER_PARTS):
            raise TalkingPortraitError(
                f"The segmenter has more than {len(SEGMENTER_PARTS)} classes, but selfie_multiclass_256x256.tflite is "
                "expected."
            )
        return _at_size(parts_of_segmenter(classes), len(frame))


def parts_of_segmenter(classes: np.ndarray) -> np.ndarray:
    """Parts (h, w) uint8 of MediaPipe's classes: things above the chin belong to the head, hands to the torso."""
    from scipy.ndimage import label

    parts = SEGMENTER_PARTS[classes]
    face = np.flatnonzero((classes == FACE_SKIN).any(axis=1))
    if not len(face):
        return parts
    chin = int(face[-1])
    above = np.zeros(classes.shape, bool)
    above[: chin + 1] = True
    parts[(classes == OTHERS) & above] = HEAD_PART
    pieces, count = label(classes == BODY_SKIN)
    near = np.zeros(count + 1, bool)
    near[np.unique(pieces[max(0, chin - 2) : chin + 1 + len(classes) // 10])] = True
    parts[(classes == BODY_SKIN) & ~near[pieces]] = TORSO_PART
    return parts


def _at_size(parts: np.ndarray, size: int) -> np.ndarray:
    cv2 = load_opencv()
    return cleaned(cv2.resize(parts, (size, size), interpolation=cv2.INTER_NEAREST))
