"""APasco's trainers on the command line: which files they begin from."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import TalkingPortraitError
from ..diffusion.starting_weights import find_file, reference_from

if TYPE_CHECKING:
    from ....models.apasco.networks import Networks
    from ..core.trainer import Trainer

_DEFAULTS = {"steps": 30000, "rate": 1e-5, "precision": "fp16", "workers": 2}


class Stage1:
    name = "apasco-stage1"
    help = "APasco and Hallo, first stage: both UNets, face locator and image projection, on single pictures"
    defaults = _DEFAULTS | {"batch": 8}

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        command.add_argument("--unet", type=Path, required=True, help="SD 1.5's UNet")
        command.add_argument("--vae", type=Path, required=True, help="sd-vae-ft-mse, or another SD 1.x VAE")
        command.add_argument("--recompute", action="store_true", help="less memory, more time (gradient checkpointing)")

    def open(self, options: argparse.Namespace) -> tuple[Trainer, Any]:
        from ....models.apasco.face_locator import FaceLocator
        from ....models.apasco.projections import ImageProjection
        from ....models.checkpoints import expect_kind, read_checkpoint
        from ....models.diffusion.loading import load_unet
        from ....models.diffusion.vae import load_vae
        from ..data.clips import read_clips
        from .datasets import FacePictures
        from .stage1 import APascoStage1

        dataset = FacePictures(read_clips(options.data), options.seed)
        state = expect_kind(
            read_checkpoint(options.unet), ("sd_unet",), "an SD 1.5 UNet in diffusers' spelling", options.unet
        )
        denoising = load_unet(state, path=options.unet)
        config = denoising.config
        trainer = APascoStage1(
            reference_from(state, options.unet),
            denoising,
            FaceLocator(config.channels[0]),
            ImageProjection(width=config.context),
            load_vae(options.vae),
            recompute=options.recompute,
        )
        return trainer, dataset


class Stage2:
    name = "apasco-stage2"
    help = "APasco and Hallo, second stage: audio and motion modules and the audio projection, on clips"
    defaults = _DEFAULTS | {"batch": 4}

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        begin = command.add_mutually_exclusive_group(required=True)
        begin.add_argument("--stage1", type=Path, metavar="FOLDER", help="where the first stage's four networks lie")
        begin.add_argument("--net", type=Path, help="net.pth of Hallo or APasco, to continue from with other data")
        command.add_argument("--motion-module", type=Path, help="AnimateDiff's, with --stage1 (default: begins anew)")
        command.add_argument("--geometry", action="store_true", help="with a mesh encoder (APasco's dense geometry)")
        command.add_argument("--learnt-weights", action="store_true", help="regions' weights learn too (APasco)")
        command.add_argument("--mixed-rows", action="store_true", help="faces in the batch mixed up, as published")
        command.add_argument("--vae", type=Path, required=True, help="sd-vae-ft-mse, or another SD 1.x VAE")
        command.add_argument("--recompute", action="store_true", help="less memory, more time (gradient checkpointing)")
        command.add_argument("--frames", type=int, default=14, help="of a clip (default 14)")

    def open(self, options: argparse.Namespace) -> tuple[Trainer, Any]:
        from ....models.diffusion.vae import load_vae
        from ..data.clips import read_clips
        from .datasets import SpokenVideos
        from .stage2 import APascoStage2

        dataset = SpokenVideos(read_clips(options.data), options.seed, options.frames)
        networks = _networks(options, dataset.audio_shape)
        dataset.levels = len(networks.config.denoising_unet.channels)
        trainer = APascoStage2(
            networks, load_vae(options.vae), mixed_rows=options.mixed_rows, recompute=options.recompute
        )
        return trainer, dataset


def _networks(options: argparse.Namespace, audio_shape: tuple[int, ...]) -> Networks:
    """The second stage's initial networks: every network of net.pth, untrained ones initialised."""
    from ....models.apasco.loading import build_net, load_net
    from ....models.apasco.networks import Networks, NetworksConfig
    from ....models.apasco.projections import WINDOW
    from ....models.checkpoints import expect_kind, read_checkpoint
    from ....models.diffusion.loading import POSITIONS, derive_unet_config
    from ..diffusion.starting_weights import begin_motion

    if options.net:
        networks = load_net(options.net)
        trained, path = networks.state_dict(), options.net
        config = networks.config
    else:
        parts = {
            name: read_checkpoint(find_file(options.stage1, name))
            for name in ("reference_unet", "denoising_unet", "face_locator", "imageproj")
        }
        if options.motion_module:
            motion = expect_kind(
                read_checkpoint(options.motion_module),
                ("motion_module",),
                "AnimateDiff's motion module",
                options.motion_module,
            )
            parts["denoising_unet"] = parts["denoising_unet"] | motion
        unet = derive_unet_config(parts["denoising_unet"])
        config = NetworksConfig(
            reference_unet=derive_unet_config(parts["reference_unet"]),
            denoising_unet=replace(unet, motion_frames=unet.motion_frames or POSITIONS, audio=unet.context),
            audio_inputs=WINDOW * audio_shape[0] * audio_shape[1],
        )
        trained = {f"{name}.{key}": tensor for name, state in parts.items() for key, tensor in state.items()}
        path = options.stage1
    if options.geometry and not config.mesh_tokens:
        config = config.with_geometry(learnt_weights=options.learnt_weights)
    elif options.learnt_weights:
        config = replace(config, denoising_unet=replace(config.denoising_unet, learnt_weights=True))
    if config.audio_inputs != WINDOW * audio_shape[0] * audio_shape[1]:
        raise TalkingPortraitError(
            f"The clips' speech features are of {audio_shape[0]} layers of {audio_shape[1]} numbers, but {path} takes "
            f"{config.audio_inputs // WINDOW} numbers a frame; prepare them with wav2vec2-base-960h."
        )
    anew = Networks(config)
    begin_motion(anew.denoising_unet)
    return build_net(anew.state_dict() | trained, path=path, config=config)


TRAINERS = (Stage1(), Stage2())
