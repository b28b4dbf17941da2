"""AniTalker from its files: a portrait and speech become frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...models.anitalker.loading import load_stage1, load_stage2
from ...models.anitalker.stage2 import Stage2
from ...models.speech.loading import load_speech_encoder
from ..audio.mfcc import mfcc
from ..audio.speech_features import encode
from ..memory import Resident
from ..speech_video import FRAMINGS, SpeechVideo, Stage, framed, option
from ..timing import frame_count
from ..types import Audio, FaceMotion, FaceTrack, MotionLatents, SpeechFeatures
from .animate import MotionSettings, animate, motion_from_speech
from .motion import RATE, layer_mix

FILES: Mapping[str, str] = {
    "stage1": "anitalker_stage1",
    "stage2": "anitalker_audio_only_hubert",
    "speech_encoder": "chinese_hubert_large",
}
"""Names in the table of models."""
TAKES_MOTION = False
"""Whether a face motion can take the place of the speech."""
FPS = RATE
CROP_SIDE = 512
"""Pixels of the square that is cut out; stage 1 takes its own size of it."""


@dataclass(frozen=True)
class Options:
    """What can be set; defaults are the published ones. The video has the size of stage 1, 25 frames a second."""

    framing: str = option("AniTalker", "the square of the picture that is animated; none: the picture is one", FRAMINGS)
    steps: int = option(50, "of the motion's diffusion")
    seed: int = option(0, "chooses the motion")
    batch: int = option(8, "frames that are computed together")


def is_spare(option: str, found: Mapping[str, Path], motion: bool) -> bool:
    """Whether a file is not needed: the speech encoder, for a model that takes MFCC."""
    return option == "speech_encoder" and "stage2" in found and not load_stage2(found["stage2"]).config.layers


def speech_video(
    files: Mapping[str, Path],
    picture: torch.Tensor,
    track: FaceTrack,
    speech: Audio | None,
    motion: FaceMotion | None,
    options: Options,
    *,
    device: torch.device,
    stage: Stage,
) -> SpeechVideo:
    """The picture (H, W, 3) in 0..1 with one frame of landmarks speaks.

    Raises TalkingPortraitError for a picture that cannot be cut to a square, and for wrong files.
    """
    assert speech is not None
    assert motion is None
    portrait = framed(picture, track, options.framing, CROP_SIDE)
    renderer = Resident(load_stage1(files["stage1"]), device)
    codes = _codes(files, renderer, portrait.picture, speech, options, device, stage)
    frames = animate(renderer, portrait.picture, codes, batch=options.batch, progress=stage("rendering", "frames"))
    return SpeechVideo(frames, codes.frames, codes.fps)


def _codes(
    files: Mapping[str, Path],
    renderer: Resident,
    picture: torch.Tensor,
    speech: Audio,
    options: Options,
    device: torch.device,
    stage: Stage,
) -> MotionLatents:
    """Motion codes for all of the speech; the networks that make them go again afterwards."""
    network = load_stage2(files["stage2"])
    codes = motion_from_speech(
        renderer,
        Resident(network, device),
        _features(files, network, speech, device, stage),
        picture,
        MotionSettings(steps=options.steps, seed=options.seed),
        progress=stage("moving the face", "steps"),
    )
    # The encoder's last rows may end a frame before the sound does.
    chosen = torch.arange(frame_count(speech.samples, speech.sample_rate, codes.fps)).clamp(max=codes.frames - 1)
    return replace(codes, codes=codes.codes[chosen])


def _features(
    files: Mapping[str, Path], network: Stage2, speech: Audio, device: torch.device, stage: Stage
) -> SpeechFeatures:
    """HuBERT's, mixed for this model, or MFCC, whichever the model takes."""
    progress = stage("reading the speech", "parts")
    if not network.config.layers:
        return mfcc(speech, recipe="anitalker", progress=progress)
    encoder = load_speech_encoder(files["speech_encoder"])
    place = Resident(encoder.model, device).load()
    return encode(speech, encoder, timing="paired", mix=layer_mix(network), device=place, progress=progress)
