"""AniPortrait's audio networks: speech to head movement and to the shape of the face, at 30 frames a second."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from ...models.aniportrait.audio2mesh import FPS, Audio2Mesh
from ...models.aniportrait.audio2pose import IDENTITIES, Audio2Pose
from ...models.speech.encoder import SAMPLE_RATE, resample_time
from ..audio.speech_features import encode
from ..audio.waveform import check_audio, mono, resample
from ..errors import TalkingPortraitError
from ..face.head_pose import smooth_poses
from ..timing import frame_count
from ..types import Audio, Progress, no_progress

CHUNK_SAMPLES, CHUNK_FRAMES = 80000, 150
"""Audio2Pose runs on five seconds at a time, at 16 kHz and 30 frames a second."""


@dataclass(frozen=True)
class Chunk:
    """`samples` of audio that become `frames` of head poses."""

    samples: int
    frames: int


def plan_chunks(samples: int, frames: int) -> list[Chunk]:
    """Pieces of `samples` at 16 kHz and `frames` poses that Audio2Pose makes one after the other.

    Pieces of five seconds, the last two joined. The published plan is the same but for two mishaps that are mended
    here: it fails where there is one piece only, and where the last frame completes a piece, that piece gets no poses.
    """
    pieces = max(-(-samples // CHUNK_SAMPLES), 1)
    whole = max(pieces - 2, 0)
    return [
        *[Chunk(CHUNK_SAMPLES, CHUNK_FRAMES)] * whole,
        Chunk(samples - whole * CHUNK_SAMPLES, frames - whole * CHUNK_FRAMES),
    ]


@torch.no_grad()
def predict_offsets(audio: Audio, model: Audio2Mesh, *, progress: Progress = no_progress) -> np.ndarray:
    """How the face moves from its rest shape: (frames, 468, 3) cm at 30 frames a second.

    The whole clip is encoded at once, up to the length that `pipelines/audio/speech_features.py` sets for that.
    """
    features = encode(audio, model.encoder, fps=FPS, layers="last", progress=progress)
    return model(features.states[:, 0].to(model.in_fn.weight)).cpu().numpy()


def check_style(identity: int) -> None:
    """Raises TalkingPortraitError for what is no speaker of the training data."""
    if not 0 <= identity < IDENTITIES:
        raise TalkingPortraitError(
            f"The head movement style is {identity}, but a whole number from 0 to {IDENTITIES - 1} is expected."
        )


@torch.no_grad()
def predict_poses(
    audio: Audio, model: Audio2Pose, identity: int, *, progress: Progress = no_progress
) -> tuple[np.ndarray, np.ndarray]:
    """Head movement from the portrait's own pose: rotation (frames, 3) in degrees and translation (frames, 3) in cm.

    Args:
        identity: 0..99, which speaker of the training data to move like. The published program draws it at random.
        progress: called for each frame, and between the parts of what comes before.

    The published program's treatment: chunks that each begin anew from rest, rotation halved, a moving average of seven
    frames over all.
    """
    check_style(identity)
    audio = check_audio(audio)
    encoder = model.encoder
    wave = encoder.prepare(mono(resample(audio, SAMPLE_RATE)))
    frames = frame_count(audio.samples, audio.sample_rate, Fraction(FPS))
    poses: list[torch.Tensor] = []
    done = 0

    def check() -> None:
        progress(done, frames)

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, frames)

    for chunk in plan_chunks(len(wave), frames):
        piece, wave = wave[: chunk.samples], wave[chunk.samples :]
        features = resample_time(encoder.convolve(piece, step=check), chunk.frames)
        states = encoder.transform(features, every_layer=False, step=check)[0]
        poses.append(model(states.to(model.in_fn.weight), identity, step=count).cpu())
    raw = torch.cat(poses).numpy()
    smooth = smooth_poses(raw * np.array([0.5] * 3 + [1.0] * 3), 7)
    return smooth[:, :3], smooth[:, 3:]
