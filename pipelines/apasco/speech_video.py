"""APasco and Hallo from their files: a portrait and speech become frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ...models.apasco.loading import load_net
from ...models.diffusion.vae import load_vae
from ...models.speech.loading import load_speech_encoder
from ..audio.speech_features import encode
from ..diffusion.latents import DTYPES, precision
from ..diffusion.vae import LoadedVae, VaeCodec
from ..face.identity import FaceRecogniser, identify
from ..memory import Resident
from ..speech_video import FRAMINGS, SPEED, SpeechVideo, Stage, framed, option
from ..timing import as_rate
from ..types import Audio, FaceMotion, FaceTrack
from .animate import Inputs, Networks, Settings, animate
from .masks import region_masks
from .settings import SCHEDULES, check_settings

FILES: Mapping[str, str] = {
    "net": "hallo_net",
    "speech_encoder": "wav2vec2_base_960h",
    "vae": "sd_vae_ft_mse",
    "face_detector": "antelope_scrfd_10g_bnkps",
    "face_recogniser": "antelope_glintr100",
}
"""Names in the table of models."""
TAKES_MOTION = False
"""Whether a face motion can take the place of the speech."""
FPS = 25


@dataclass(frozen=True)
class Options:
    """What can be set; defaults are the published ones."""

    framing: str = option("head", "the square that is animated, or none for all of the picture", FRAMINGS)
    size: int = option(512, "side of the square video; of the whole picture, the longer side")
    fps: str = option(str(FPS), "frames a second")
    steps: int = option(40, "denoising steps")
    cfg: float = option(3.5, "how strictly face and speech are followed; 1 goes without guidance")
    seed: int = option(42, "chooses the noise")
    schedule: str = option("linear", "how noise is taken away", SCHEDULES)
    clip_length: int = option(16, "frames that are sampled together")
    overlap: int = option(0, "frames that fade from one clip into the next")
    pose_weight: float = option(1.0, "how much speech moves the head and what is around the face")
    face_weight: float = option(1.0, "how much speech moves the face")
    lip_weight: float = option(1.0, "how much speech moves the lips")
    guide_from: float = option(*SPEED["guide_from"])
    guide_to: float = option(*SPEED["guide_to"])
    deep_every: int = option(*SPEED["deep_every"])
    compiled: bool = option(*SPEED["compiled"])
    dtype: str = option("auto", "precision of the weights", ("auto", *DTYPES))


def is_spare(option: str, found: Mapping[str, Path], motion: bool) -> bool:
    """Whether a file is not needed; all are."""
    return False


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

    Raises TalkingPortraitError for settings that cannot work, before anything large is read, for a picture without a
    face, and for wrong files.
    """
    assert speech is not None
    assert motion is None
    dtype = precision(options.dtype, device)
    portrait = framed(picture, track, options.framing, options.size)
    settings = Settings(
        size=portrait.size,
        clip=options.clip_length,
        steps=options.steps,
        cfg=options.cfg,
        seed=options.seed,
        schedule=options.schedule,  # type: ignore[arg-type]
        weights=(options.pose_weight, options.face_weight, options.lip_weight),
        overlap=options.overlap,
        guided=(options.guide_from, options.guide_to),
        deep_every=options.deep_every,
        compiled=options.compiled,
    )
    check_settings(settings)
    identity = identify(FaceRecogniser(files["face_detector"], files["face_recogniser"]), portrait.picture)
    encoder = load_speech_encoder(files["speech_encoder"])
    features = encode(
        speech,
        encoder,
        fps=as_rate(options.fps),
        device=Resident(encoder.model, device).load(),
        progress=stage("reading the speech", "parts"),
    )
    del encoder
    networks = Networks.of(load_net(files["net"], dtype=dtype), lambda network: Resident(network, device))
    animation = animate(
        networks,
        VaeCodec(LoadedVae(Resident(load_vae(files["vae"]), device))),
        Inputs(
            portrait.picture,
            identity.embedding,
            region_masks(portrait.track.points[0], portrait.track.image_size),
            features,
        ),
        settings,
        progress=stage("rendering", "steps"),
    )
    return SpeechVideo(animation.pictures(), animation.frames, features.fps)
