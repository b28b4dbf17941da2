"""AniTalker, whole: speech or a video to motion codes, motion codes and a portrait to frames.

motion = motion_from_speech(stage1, stage2, features, picture, MotionSettings())
for frames in animate(stage1, picture, motion):      # (n, size, size, 3), as they are finished
    ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import torch

from ...models.anitalker.stage2 import Stage2
from ..memory import Managed
from ..types import FaceMotion, FaceTrack, MotionLatents, Progress, SpeechFeatures, no_progress
from .controls import Control, Curve, HeadControls, head_controls
from .motion import generate_motion, motion_frames
from .noise import published_noise
from .portrait import check_landmarks, motion_from_video, prepare_portrait
from .rendering import render
from .sampling import possible_steps

__all__ = ["HeadControls", "MotionSettings", "animate", "motion_from_speech", "motion_from_video", "prepare_portrait"]


@dataclass(frozen=True)
class MotionSettings:
    """How motion is sampled.

    control: what moves the head: "none" the voice alone, "numbers" `head`, `curves` and `drawn`, "face motion" another
        motion.
    head, curves, drawn: see `controls.py`.
    steps: the next number that a whole stride through the time steps gives is taken.
    seed: of the noise; `noise` "own" is the same on every machine, "published" what the published program draws.
    seconds: length of windows, see `generate_motion`.
    """

    control: Control = "none"
    head: HeadControls = field(default_factory=HeadControls.constant)
    curves: str = ""
    drawn: Mapping[str, Curve] = field(default_factory=dict)
    steps: int = 50
    seed: int = 0
    noise: Literal["own", "published"] = "own"
    seconds: float | None = None


def motion_from_speech(
    stage1: Managed,
    stage2: Managed,
    features: SpeechFeatures,
    picture: torch.Tensor,
    settings: MotionSettings,
    *,
    motion: FaceMotion | None = None,
    track: FaceTrack | None = None,
    progress: Progress = no_progress,
) -> MotionLatents:
    """Motion codes for the portrait `picture` (H, W, 3) in 0..1, a square, that says what `features` hold.

    Args:
        motion: what the head follows with the control "face motion".
        track: landmarks of this very picture, so that such a motion starts from the portrait's own pose.

    Raises TalkingPortraitError for inputs and settings that do not fit the networks or each other.
    """
    network = cast(Stage2, stage2.module)
    frames = motion_frames(network.config, features)
    if track is not None:
        check_landmarks(picture, track)
    controls = head_controls(settings.control, settings.head, settings.curves, settings.drawn, frames, motion, track)
    return generate_motion(
        stage2,
        features,
        prepare_portrait(stage1, picture),
        controls=controls,
        steps=possible_steps(settings.steps),
        seed=settings.seed,
        noise=published_noise(network, frames, settings.seed) if settings.noise == "published" else None,
        seconds=settings.seconds,
        progress=progress,
    )


def animate(
    stage1: Managed,
    picture: torch.Tensor,
    motion: MotionLatents,
    *,
    batch: int = 8,
    progress: Progress = no_progress,
) -> Iterator[torch.Tensor]:
    """Frames (n, size, size, 3) of the portrait `picture` (H, W, 3) in 0..1, a square, as they are finished.

    Raises TalkingPortraitError for a picture that is no square and for codes of another model.
    """
    yield from render(stage1, prepare_portrait(stage1, picture), motion, batch=batch, progress=progress)
