"""The portrait and the speech that ship with the pack, so that everything can be tried at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..types import Audio, FaceTrack
from .images import read_image
from .sound import read_audio

_FOLDER = Path(__file__).parent / "example_data"
SPEECH_FILE = _FOLDER / "speech.flac"


def example() -> tuple[torch.Tensor, FaceTrack, Audio]:
    """The shipped portrait with its landmarks, and the shipped speech."""
    return *example_portrait(), example_speech()


def example_portrait() -> tuple[torch.Tensor, FaceTrack]:
    """The shipped portrait (512, 512, 3) in 0..1 and its `example_track`."""
    return read_image(_FOLDER / "portrait.png"), example_track()


def example_track() -> FaceTrack:
    """The landmarks that were found in the shipped portrait (478 points, one frame)."""
    with np.load(_FOLDER / "landmarks.npz") as table:
        return FaceTrack(
            points=table["points"],
            found=np.ones(1, bool),
            image_size=(512, 512),
            matrix=table["matrix"],
            blendshapes=table["blendshapes"],
            score=np.ones(1, np.float32),
        )


def example_speech() -> Audio:
    """The shipped speech: 16 seconds of synthetic voice, one channel at 16 kHz."""
    return read_audio(SPEECH_FILE)
