"""AniPortrait from its files: a portrait and speech, or a motion, become frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ...models.aniportrait.loading import (
    load_audio2mesh,
    load_audio2pose,
    load_denoising_unet,
    load_pose_guider,
    load_reference_unet,
)
from ...models.diffusion.clip_vision import load_clip_vision
from ...models.diffusion.vae import load_vae
from ..diffusion.latents import DTYPES, precision
from ..diffusion.vae import LoadedVae, VaeCodec
from ..memory import Resident
from ..speech_video import FRAMINGS, SPEED, FramedPortrait, SpeechVideo, Stage, framed, option
from ..timing import as_rate
from ..types import Audio, FaceMotion, FaceTrack
from .animate import Networks, Settings, animate
from .clip_encoder import ClipEncoder, LoadedClipVision
from .face_motion import motion_of_offsets, offsets_of, predicted_poses
from .pose_drawings import PoseDrawings
from .settings import MODES, SCHEDULERS, check_settings

FILES: Mapping[str, str] = {
    "reference_unet": "aniportrait_reference_unet",
    "denoising_unet": "aniportrait_denoising_unet",
    "motion_module": "aniportrait_motion_module",
    "pose_guider": "aniportrait_pose_guider",
    "audio2mesh": "aniportrait_audio2mesh",
    "audio2pose": "aniportrait_audio2pose",
    "vae": "sd_vae_ft_mse",
    "clip_vision": "sd_image_variations_encoder",
}
"""Names in the table of models."""
TAKES_MOTION = True
"""Whether a face motion can take the place of the speech."""
FPS = 30


@dataclass(frozen=True)
class Options:
    """What can be set; defaults are the published ones, but for the mode, which is the one in constant memory."""

    framing: str = option("AniPortrait app", "the square that is animated, or none for all of the picture", FRAMINGS)
    size: int = option(512, "side of the square video; of the whole picture, the longer side")
    fps: str = option(str(FPS), "frames a second")
    steps: int = option(25, "denoising steps")
    cfg: float = option(3.5, "how strictly the portrait is followed; 1 goes without guidance")
    seed: int = option(42, "chooses the noise")
    scheduler: str = option("ddim", "ddim as published; others need fewer steps", SCHEDULERS)
    mode: str = option("seamless", "reference: as published, memory grows with the length", MODES)
    window: int = option(16, "frames that the network processes together")
    overlap: int = option(4, "frames that neighbouring windows share")
    style: int = option(0, "whose way of moving the head, of the hundred people in the training")
    guide_from: float = option(*SPEED["guide_from"])
    guide_to: float = option(*SPEED["guide_to"])
    deep_every: int = option(*SPEED["deep_every"])
    compiled: bool = option(*SPEED["compiled"])
    dtype: str = option("auto", "precision of the weights", ("auto", *DTYPES))


def is_spare(option: str, found: Mapping[str, Path], motion: bool) -> bool:
    """Whether a file is not needed: where a motion is given, one that makes it."""
    return motion and option in ("audio2mesh", "audio2pose")


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
    """The picture (H, W, 3) in 0..1 with one frame of landmarks speaks, or does what the `motion` says.

    Raises TalkingPortraitError for settings that cannot work, before anything large is read, and for wrong files.
    """
    portrait = framed(picture, track, options.framing, options.size)
    settings = Settings(
        size=portrait.size,
        steps=options.steps,
        cfg=options.cfg,
        seed=options.seed,
        scheduler=options.scheduler,  # type: ignore[arg-type]
        mode=options.mode,  # type: ignore[arg-type]
        window=options.window,
        overlap=options.overlap,
        guided=(options.guide_from, options.guide_to),
        deep_every=options.deep_every,
        compiled=options.compiled,
    )
    check_settings(settings)
    dtype = precision(options.dtype, device)
    if motion is None:
        assert speech is not None
        motion = _motion(files, portrait, speech, options, device, stage)
    drawings = PoseDrawings(motion, portrait.size, portrait.track)
    networks = Networks(
        Resident(load_reference_unet(files["reference_unet"], dtype=dtype), device),
        Resident(load_denoising_unet(files["denoising_unet"], files["motion_module"], dtype=dtype), device),
        Resident(load_pose_guider(files["pose_guider"], dtype=dtype), device),
        dtype,
    )
    animation = animate(
        networks,
        VaeCodec(LoadedVae(Resident(load_vae(files["vae"]), device))),
        ClipEncoder(LoadedClipVision(Resident(load_clip_vision(files["clip_vision"]), device))),
        portrait.picture,
        drawings,
        settings,
        progress=stage("rendering", "steps"),
    )
    return SpeechVideo(animation, animation.frames, motion.fps, motion)


def _motion(
    files: Mapping[str, Path],
    portrait: FramedPortrait,
    speech: Audio,
    options: Options,
    device: torch.device,
    stage: Stage,
) -> FaceMotion:
    """The motion of this face for the speech, by AniPortrait's two audio networks, which go again afterwards."""
    offsets = offsets_of(
        speech, Resident(load_audio2mesh(files["audio2mesh"]), device), progress=stage("reading the speech", "parts")
    )
    poses = predicted_poses(
        speech,
        Resident(load_audio2pose(files["audio2pose"]), device),
        options.style,
        progress=stage("moving the head", "frames"),
    )
    return motion_of_offsets(offsets, portrait.track, poses, fps=as_rate(options.fps), sound=speech)
