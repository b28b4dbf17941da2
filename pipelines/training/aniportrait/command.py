"""AniPortrait's trainers on the command line: which files they begin from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import TalkingPortraitError
from ..diffusion.starting_weights import find_file, reference_from

if TYPE_CHECKING:
    from ..core.trainer import Trainer


class _Diffusion:
    """What both stages take."""

    defaults: dict[str, Any]

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        command.add_argument("--vae", type=Path, required=True, help="sd-vae-ft-mse, or another SD 1.x VAE")
        command.add_argument("--clip-vision", type=Path, required=True, help="sd-image-variations' image encoder")
        command.add_argument("--recompute", action="store_true", help="less memory, more time (gradient checkpointing)")
        command.add_argument("--unconditional", type=float, default=0.1, help="share of steps without the reference")
        command.add_argument(
            "--blank-token", action="store_true", help="zeros for CLIP's token there, as sampling has it"
        )

    def options_of(self, options: argparse.Namespace) -> dict[str, Any]:
        if not 0 <= options.unconditional <= 1:
            raise TalkingPortraitError(
                f"--unconditional {options.unconditional} was given, but a share from 0 to 1 is expected."
            )
        return {name: getattr(options, name) for name in ("recompute", "unconditional", "blank_token")}

    def encoders_of(self, options: argparse.Namespace) -> tuple[Any, Any]:
        from ....models.diffusion.clip_vision import load_clip_vision
        from ....models.diffusion.vae import load_vae

        return load_vae(options.vae), load_clip_vision(options.clip_vision)


class Stage1(_Diffusion):
    name = "aniportrait-stage1"
    help = "AniPortrait, first stage: reference UNet, denoising UNet and pose guider, on single pictures"
    defaults = {"steps": 30000, "batch": 2, "rate": 1e-5, "precision": "fp16", "workers": 2}

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        command.add_argument("--unet", type=Path, required=True, help="SD 1.5's UNet, or AniPortrait's denoising_unet")
        command.add_argument("--reference-unet", type=Path, help="AniPortrait's (default: begins as --unet)")
        command.add_argument("--pose-guider", type=Path, help="AniPortrait's (default: begins anew)")
        super().add_arguments(command)

    def open(self, options: argparse.Namespace) -> tuple[Trainer, Any]:
        from ....models.aniportrait.loading import load_pose_guider, load_reference_unet
        from ....models.checkpoints import expect_kind, read_checkpoint
        from ....models.diffusion.loading import load_unet
        from ..data.clips import read_clips
        from .datasets import PortraitVideos
        from .stage1 import AniPortraitStage1, new_pose_guider

        dataset = PortraitVideos(read_clips(options.data), options.seed)
        state = expect_kind(
            read_checkpoint(options.unet), ("sd_unet",), "an SD 1.5 UNet in diffusers' spelling", options.unet
        )
        denoising = load_unet(state, path=options.unet)
        if options.reference_unet:
            reference = load_reference_unet(options.reference_unet)
        else:
            reference = reference_from(state, options.unet)
        width = denoising.config.channels[0]
        guider = load_pose_guider(options.pose_guider) if options.pose_guider else new_pose_guider(width)
        networks = (reference, denoising, guider, *self.encoders_of(options))
        return AniPortraitStage1(*networks, **self.options_of(options)), dataset


class Stage2(_Diffusion):
    name = "aniportrait-stage2"
    help = "AniPortrait, second stage: motion modules, on clips"
    defaults = {"steps": 40000, "batch": 1, "rate": 1e-5, "precision": "fp16", "workers": 2}

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--stage1",
            type=Path,
            required=True,
            metavar="FOLDER",
            help="where the first stage's three networks lie",
        )
        command.add_argument("--motion-module", type=Path, help="AnimateDiff's or AniPortrait's (default: begins anew)")
        command.add_argument("--frames", type=int, default=16, help="of a clip (default 16)")
        super().add_arguments(command)

    def open(self, options: argparse.Namespace) -> tuple[Trainer, Any]:
        from ....models.aniportrait.loading import load_denoising_unet, load_pose_guider, load_reference_unet
        from ..data.clips import read_clips
        from .datasets import PortraitVideos
        from .stage2 import STRIDES, AniPortraitStage2, with_new_motion

        dataset = PortraitVideos(read_clips(options.data), options.seed, options.frames, STRIDES)
        reference = load_reference_unet(find_file(options.stage1, "reference_unet"))
        path = find_file(options.stage1, "denoising_unet")
        denoising = load_denoising_unet(path, options.motion_module) if options.motion_module else with_new_motion(path)
        guider = load_pose_guider(find_file(options.stage1, "pose_guider"))
        networks = (reference, denoising, guider, *self.encoders_of(options))
        return AniPortraitStage2(*networks, **self.options_of(options)), dataset


class _Speech:
    """What both speech networks take."""

    defaults = {"steps": 20000, "batch": 4, "rate": 1e-5, "warmup": 500, "picture_every": 0, "workers": 2}

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        begin = command.add_mutually_exclusive_group(required=True)
        begin.add_argument("--speech-encoder", type=Path, help="wav2vec2-base-960h, to begin anew from")
        begin.add_argument("--start", type=Path, help="a trained network, to continue from with other data")
        command.add_argument("--frames", type=int, default=150, help="of a slice (default 150, five seconds)")


class Mesh(_Speech):
    name = "audio2mesh"
    help = "AniPortrait's Audio2Mesh: speech to the moving shape of a face"

    def open(self, options: argparse.Namespace) -> tuple[Trainer, Any]:
        from ....models.aniportrait.loading import load_audio2mesh
        from ....models.speech.loading import load_speech_encoder
        from ..data.clips import read_clips
        from .datasets import SpokenShapes
        from .mesh import Audio2MeshTrainer, new_audio2mesh

        dataset = SpokenShapes(read_clips(options.data), options.seed, options.frames)
        if options.start:
            return Audio2MeshTrainer(load_audio2mesh(options.start)), dataset
        return Audio2MeshTrainer(new_audio2mesh(load_speech_encoder(options.speech_encoder).model)), dataset


class Pose(_Speech):
    name = "audio2pose"
    help = "AniPortrait's Audio2Pose: speech to head movement"

    def open(self, options: argparse.Namespace) -> tuple[Trainer, Any]:
        from ....models.aniportrait.audio2pose import Audio2Pose
        from ....models.aniportrait.loading import load_audio2pose
        from ....models.speech.loading import load_speech_encoder
        from ..data.clips import read_clips
        from .datasets import SpokenPoses
        from .pose import Audio2PoseTrainer

        dataset = SpokenPoses(read_clips(options.data), options.seed, options.frames)
        if options.start:
            return Audio2PoseTrainer(load_audio2pose(options.start)), dataset
        return Audio2PoseTrainer(Audio2Pose(load_speech_encoder(options.speech_encoder).model)), dataset


TRAINERS = (Stage1(), Stage2(), Mesh(), Pose())
