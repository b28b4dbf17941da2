"""MediaPipe's TFLite networks that ship with the pack, run by OpenCV's dnn module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TalkingPortraitError
from ..packages import PACK, first_line, load_opencv

FOLDER = PACK / "models" / "face" / "mediapipe_networks"


class TFLiteNetwork:
    """One of the shipped networks; its outputs by name, with their shapes. Not to be shared by threads."""

    def __init__(self, path: Path, size: int, outputs: dict[str, tuple[int, int]]) -> None:
        """`size` is the side of the input.

        Raises TalkingPortraitError where OpenCV can't be loaded, and for a file that is damaged.
        """
        cv2 = load_opencv()
        try:
            # Bytes, not a path: OpenCV can't open paths beyond ASCII on every system.
            self._net: Any = cv2.dnn.readNetFromTFLite(np.frombuffer(path.read_bytes(), dtype=np.uint8))
            self._shapes = outputs
            self.set_input(np.zeros((size, size, 3), dtype=np.float32))
            for name in outputs:
                self.output(name)
        except (cv2.error, ValueError) as error:
            raise TalkingPortraitError(
                f"{path} is not the network that its name promises ({first_line(error)}); install the pack again."
            ) from error

    def set_input(self, picture: np.ndarray) -> None:
        """Sets the input, (size, size, 3) float32."""
        self._net.setInput(np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32))

    def output(self, name: str) -> np.ndarray:
        """One output for the input that was set; OpenCV 5 gives a network no more than one at a time."""
        values: np.ndarray = self._net.forward(name).reshape(self._shapes[name])
        return values
