"""A speech encoder's features, mixed during encoding for a motion model of AniTalker where one is given."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import cast

import torch

from ...models.anitalker.stage2 import Stage2
from ...models.speech.encoder import SpeechEncoder
from ..audio.speech_features import encode
from ..memory import Managed
from ..types import Audio, Progress, SpeechFeatures, Timing, no_progress
from .motion import layer_mix

_log = logging.getLogger(__name__)


def encode_speech(
    audio: Audio,
    encoder: SpeechEncoder,
    stage2: Managed | None = None,
    *,
    fps: float | Fraction = 25,
    timing: Timing = "resampled",
    frame_multiple: int = 1,
    chunk_seconds: float | None = None,
    device: torch.device | None = None,
    progress: Progress = no_progress,
) -> SpeechFeatures:
    """As `encode`; with a motion model `stage2`, its mix of the layers in the paired timing, whatever `timing` is.

    Raises TalkingPortraitError as `encode` does, and for a model that takes MFCC.
    """
    mix = None if stage2 is None else layer_mix(cast(Stage2, stage2.module))
    if mix is not None and timing != "paired":
        _log.warning(
            'Encode Speech: the timing "%s" is not used, as the connected AniTalker takes paired; choose paired, or '
            "disconnect it.",
            timing,
        )
        timing = "paired"
    return encode(
        audio,
        encoder,
        fps=fps,
        timing=timing,
        mix=mix,
        frame_multiple=frame_multiple,
        chunk_seconds=chunk_seconds,
        device=device,
        progress=progress,
    )
