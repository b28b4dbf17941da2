"""Files that APasco's training also needs for every clip: speech features and a face embedding.

CLIP/speech_features.npy   (frames, layers, channels) float16, the speech encoder's hidden states of all layers
CLIP/identity.npy          (512,) float32, the face recogniser's embedding
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ....models.speech.encoder import SAMPLE_RATE, SpeechEncoder
from ...audio.speech_features import encode
from ...face.identity import FaceRecogniser, largest_face
from ...files.images import from_uint8
from ...files.output_paths import replacing
from ...files.scratch import clear_abandoned
from ...types import Audio, Progress, no_progress
from .clips import Clip

_TRIED_FRAMES = 5
"""Frames, spread over a clip, in which its face is searched for until it is found."""


def add_speech_features(clips: Sequence[Clip], encoder: SpeechEncoder, progress: Progress = no_progress) -> int:
    """Writes speech_features.npy where there is speech and no such file; returns how many clips still lack it."""
    for done, clip in enumerate(clips, 1):
        clear_abandoned(clip.folder)
        if clip.has_speech and not clip.has("speech_features"):
            speech = torch.from_numpy(np.array(clip.array("speech")))
            states = encode(Audio(speech[None], SAMPLE_RATE), encoder, fps=clip.fps).states[: clip.frames, 1:]
            _write(clip.folder / "speech_features.npy", states.half().numpy())
        progress(done, len(clips))
    return sum(not clip.has("speech_features") for clip in clips)


def add_identity(clips: Sequence[Clip], recogniser: FaceRecogniser, progress: Progress = no_progress) -> int:
    """Writes identity.npy where the recogniser finds a face; returns how many clips still lack it."""
    for done, clip in enumerate(clips, 1):
        clear_abandoned(clip.folder)
        if not clip.has("identity"):
            _identify(clip, lambda picture: recogniser.faces(from_uint8(picture)))
        progress(done, len(clips))
    return sum(not clip.has("identity") for clip in clips)


def _identify(clip: Clip, faces_of: Callable[[np.ndarray], list]) -> None:
    for frame in dict.fromkeys(np.linspace(0, clip.frames - 1, _TRIED_FRAMES).astype(int).tolist()):
        faces = faces_of(clip.picture(frame))
        if faces:
            _write(clip.folder / "identity.npy", largest_face(faces).embedding.astype(np.float32))
            return


def _write(path: Path, array: np.ndarray) -> None:
    with replacing(path) as partial:
        np.save(partial, array)
