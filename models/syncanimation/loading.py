"""SyncAnimation's and SyncTalk's files, recognised by what they hold and loaded strictly.

A person's file of this pack has the published names; in place of the published program's grid in Morton order and the
bits made of it, it holds the grid itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..checkpoints import State, expect_kind, layer_count, read_checkpoint, sizes_of, strict_load
from ..errors import TalkingPortraitError
from .audio_visual_encoder import AudioVisualEncoder
from .networks import (
    EMOTION_PREFIX,
    GRID_DENSITY,
    GRID_TORSO,
    POSE_PREFIX,
    SPEECH_PREFIX,
    Networks,
    NetworksConfig,
)
from .rendering.fields import HeadConfig, HeadField, TorsoConfig, TorsoField
from .rendering.hash_grid import HashGrid, grid_offsets
from .rendering.marching import BOX
from .rendering.occupancy import GRID, from_morton
from .rendering.renderer import Renderer
from .syncers import EmotionSyncer, EmotionSyncerConfig, PoseSyncer, PoseSyncerConfig

Network = TypeVar("Network", bound=nn.Module)

_BESIDE = (
    r"(aabb_train|aabb_infer|density_grid|density_grid_torso|density_bitfield|step_counter)$",
    r"(grid|stats|bg|cam)\.",
)
"""Buffers of the renderer, which are converted or follow from others, and what else a person's file holds."""
_SYNCERS = (r"au2PoseNet\.", r"au2BsNet\.", r"speech_map\.")
_HEAD = (
    r"individual_codes$",
    r"(audio_net|audio_att_net|encoder_(xy|yz|xz)|(sigma|color|unc|aud_ch_att|eye_att)_net)\.",
)
_TORSO = (r"individual_codes_torso$", r"anchor_points$", r"torso_(deform_net|encoder|net)\.")


def load_networks(path: str | Path) -> Networks:
    """A person's networks, from this pack's training or the published one.

    Raises TalkingPortraitError for another file; so do all functions here.
    """
    wanted = "a SyncAnimation model of one person"
    return build_networks(expect_kind(read_checkpoint(path), ("syncanimation",), wanted, path), path=path)


def build_networks(state: Mapping[str, torch.Tensor], *, path: str | Path) -> Networks:
    """From named tensors, on the CPU, for inference, with sizes read off the tensors; so do all `build_` functions."""
    speech = _part(state, SPEECH_PREFIX)
    renderer = build_renderer(state, path=path)
    pose = build_pose_syncer(_part(state, POSE_PREFIX), path=path)
    emotion = build_emotion_syncer(_part(state, EMOTION_PREFIX), path=path)
    with sizes_of(state, path), torch.device("meta"):
        inputs = speech["weight"].shape[1] if speech else None
        networks = Networks(
            NetworksConfig(renderer.head.config, renderer.torso.config, pose.config, emotion.config, inputs)
        )
    networks.renderer, networks.pose_syncer, networks.emotion_syncer = renderer, pose, emotion
    strict_load(networks.speech_map, speech, path=path)
    return _ready(networks)


def load_renderer(path: str | Path) -> Renderer:
    """Head, torso and grids: a SyncAnimation model, or a SyncTalk torso model, which holds a head too."""
    wanted = "a SyncAnimation model, or a SyncTalk torso model, of one person"
    return build_renderer(
        expect_kind(read_checkpoint(path), ("syncanimation", "synctalk_torso"), wanted, path), path=path
    )


def build_renderer(state: Mapping[str, torch.Tensor], *, path: str | Path) -> Renderer:
    with torch.device("meta"):
        renderer = Renderer()
    renderer.head, renderer.torso = build_head(state, path=path), build_torso(state, path=path)
    _check_box(state, path)
    strict_load(renderer.occupancy, {"density": _density(state, path)}, path=path)
    strict_load(renderer.torso_occupancy, {"density": _torso_density(state, path)}, path=path)
    return _ready(renderer)


def load_head(path: str | Path) -> HeadField:
    """The head's networks without a grid, from any of these systems' models of one person."""
    wanted = "a SyncTalk or SyncAnimation model of one person"
    kinds = ("syncanimation", "synctalk_torso", "synctalk")
    return build_head(expect_kind(read_checkpoint(path), kinds, wanted, path), path=path)


def build_head(state: Mapping[str, torch.Tensor], *, path: str | Path) -> HeadField:
    with sizes_of(state, path), torch.device("meta"):
        linear = "audio_net.encoder_conv.0.weight" not in state
        first = state["audio_net.encoder_fc1.0.weight" if linear else "audio_net.encoder_conv.0.weight"]
        eyes = state.get("eye_att_net.net.1.weight")
        config = HeadConfig(
            channels=first.shape[1],
            linear_audio=linear,
            expressions=0 if eyes is None else len(eyes),
            codes=len(state["individual_codes"]),
            hidden=len(state["sigma_net.net.0.weight"]),
            geometry=len(state["sigma_net.net.2.weight"]) - 1,
            expression_hidden=0 if eyes is None else eyes.shape[1],
            uncertainty_hidden=len(state["unc_net.net.0.weight"]),
        )
        head = HeadField(config)
    strict_load(head, state, path=path, unused=(*_BESIDE, *_SYNCERS, *_TORSO))
    for name in ("encoder_xy", "encoder_yz", "encoder_xz"):
        _check_offsets(getattr(head, name), f"{name}.offsets", path)
    return _ready(head)


def build_torso(state: Mapping[str, torch.Tensor], *, path: str | Path) -> TorsoField:
    with sizes_of(state, path), torch.device("meta"):
        torso = TorsoField(
            TorsoConfig(codes=len(state["individual_codes_torso"]), hidden=len(state["torso_net.net.0.weight"]))
        )
    strict_load(torso, state, path=path, unused=(*_BESIDE, *_SYNCERS, *_HEAD))
    _check_offsets(torso.torso_encoder, "torso_encoder.offsets", path)
    return _ready(torso)


def load_pose_syncer(path: str | Path) -> PoseSyncer:
    """AudioPose Syncer alone."""
    wanted = "SyncAnimation's pose syncer"
    return build_pose_syncer(expect_kind(read_checkpoint(path), ("sa_pose_syncer",), wanted, path), path=path)


def build_pose_syncer(state: Mapping[str, torch.Tensor], *, path: str | Path) -> PoseSyncer:
    with sizes_of(state, path), torch.device("meta"):
        hidden, audio = state["audio_first.fc.weight"].shape
        autoencoder, code = state["autoencoder.decoder.block1.fc.weight"].shape
        syncer = PoseSyncer(
            PoseSyncerConfig(
                audio=audio,
                hidden=hidden,
                code=code,
                autoencoder=autoencoder,
                condition=len(state["label_mapp.fc.weight"]),
                layers=_audio_layers(state),
            )
        )
    strict_load(syncer, state, path=path)
    return _ready(syncer)


def load_emotion_syncer(path: str | Path) -> EmotionSyncer:
    """AudioEmotion Syncer alone."""
    wanted = "SyncAnimation's emotion syncer"
    return build_emotion_syncer(expect_kind(read_checkpoint(path), ("sa_emotion_syncer",), wanted, path), path=path)


def build_emotion_syncer(state: Mapping[str, torch.Tensor], *, path: str | Path) -> EmotionSyncer:
    with sizes_of(state, path), torch.device("meta"):
        hidden, audio, _ = state["audio_first.0.weight"].shape
        embedding, expressions = state["autoencoder.encoder.bsEmbedding.weight"].shape
        syncer = EmotionSyncer(
            EmotionSyncerConfig(
                audio=audio,
                audio_hidden=hidden,
                width=len(state["unet_bs.e0.fc.weight"]),
                code=len(state["autoencoder.encoder.block7.fc.weight"]) // 2,
                autoencoder=len(state["autoencoder.encoder.block1.fc.weight"]),
                expressions=expressions,
                embedding=embedding,
                time=len(state["autoencoder.encoder.timeEmbedding.weight"]),
                brow_condition=len(state["bs_mapp.fc.weight"]),
                blink_condition=len(state["blink_mapp.fc.weight"]),
                layers=_audio_layers(state),
            )
        )
    strict_load(syncer, state, path=path)
    return _ready(syncer)


def load_audio_visual_encoder(path: str | Path) -> AudioVisualEncoder:
    """audio_visual_encoder.pth of SyncTalk."""
    wanted = "SyncTalk's audio-visual encoder (audio_visual_encoder.pth)"
    state = expect_kind(read_checkpoint(path), ("synctalk_audio",), wanted, path)
    return build_audio_visual_encoder(state, path=path)


def build_audio_visual_encoder(state: Mapping[str, torch.Tensor], *, path: str | Path) -> AudioVisualEncoder:
    with torch.device("meta"):
        encoder = AudioVisualEncoder()
    bare = _part(state, "audio_encoder.") or state  # the published file has the names alone
    strict_load(encoder, {f"audio_encoder.{name}": tensor for name, tensor in bare.items()}, path=path)
    return _ready(encoder)


# --- parts of a file ---


def _ready(network: Network) -> Network:
    return network.eval().requires_grad_(False)


def _part(state: Mapping[str, torch.Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _audio_layers(state: Mapping[str, torch.Tensor]) -> int:
    numbered = {name.replace("audio_encoder", "audio_encoder.", 1): tensor for name, tensor in state.items()}
    return layer_count(numbered, "audio_encoder.")


def _check_offsets(grid: HashGrid, name: str, path: str | Path) -> None:
    if not grid.offsets.is_meta and grid.offsets.tolist() != grid_offsets(grid.config):
        raise TalkingPortraitError(
            f"{Path(path).name} has a grid whose levels ({name}) begin elsewhere than those of the published sizes; "
            "take a file that was trained with the published settings."
        )


def _check_box(state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """The published program writes the box that it renders; ours has the published one."""
    box = state.get("aabb_infer")
    if box is not None and not box.is_meta and (box.shape != (6,) or (box - torch.tensor(BOX)).abs().max() > 1e-3):
        raise TalkingPortraitError(
            f"{Path(path).name} was trained for the box {[round(edge, 3) for edge in box.flatten().tolist()[:6]]} of "
            f"space, but {list(BOX)} is expected; take a file that was trained with --bound 1."
        )


def _density(state: Mapping[str, torch.Tensor], path: str | Path) -> torch.Tensor:
    if GRID_DENSITY in state:
        return state[GRID_DENSITY]
    with sizes_of(state, path):
        density = state["density_grid"]
    if density.numel() != GRID**3:
        raise TalkingPortraitError(
            f"{Path(path).name} has a density grid of {density.numel()} cells, but {GRID**3} are expected; take a file "
            "that was trained with --bound 1."
        )
    return from_morton(density)


def _torso_density(state: Mapping[str, torch.Tensor], path: str | Path) -> torch.Tensor:
    if GRID_TORSO in state:
        return state[GRID_TORSO]
    with sizes_of(state, path):
        return state["density_grid_torso"].view(GRID, GRID)
