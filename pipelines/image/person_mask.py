"""Where a picture shows a person, by the segmentation network that ships with the pack.

It is MediaPipe's selfie segmentation (models/face/mediapipe_networks; Apache-2.0, see the NOTICE there), a MobileNetV3
with a decoder, for pictures of 256 x 256.
"""

from __future__ import annotations

import numpy as np

from ..errors import TalkingPortraitError
from ..packages import load_opencv
from .tflite_network import FOLDER, TFLiteNetwork

FILE = FOLDER / "selfie_segmentation.tflite"
SIDE = 256
SURELY = 0.003
"""The network's least probability in log odds."""


class PersonSegmenter:
    """The network. Raises TalkingPortraitError where OpenCV can't be loaded, and for a file that is damaged."""

    def __init__(self) -> None:
        self._network = TFLiteNetwork(FILE, SIDE, {"activation_10": (SIDE, SIDE)})

    def mask(self, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """How likely (rows, columns) of `size` in 0..1 each place of a picture (H, W, 3) in 0..1 shows a person.

        The mean over the picture and its mirror image: they differ where the network is unsure.
        """
        cv2 = load_opencv()
        small = cv2.resize(picture.astype(np.float32, copy=False), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        both = (self._run(small) + self._run(small[:, ::-1])[:, ::-1]) / 2
        mask: np.ndarray = cv2.resize(both, (size[1], size[0]), interpolation=cv2.INTER_LINEAR).astype(np.float64)
        return mask

    def _run(self, picture: np.ndarray) -> np.ndarray:
        self._network.set_input(picture)
        return self._network.output("activation_10").copy()


def log_odds(mask: np.ndarray) -> np.ndarray:
    """Log odds of a person (rows, columns), within 5.8, of a `mask` in 0..1."""
    odds: np.ndarray = np.log((mask + SURELY) / (1 - mask + SURELY))
    return odds


def person_mask(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`PersonSegmenter.mask` of one picture; without OpenCV 0 everywhere, as if there were no person."""
    try:
        load_opencv()
    except TalkingPortraitError:
        return np.zeros(size)
    return PersonSegmenter().mask(picture, size)
