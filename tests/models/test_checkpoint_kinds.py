"""Naming a file from its tensors: every published file of the systems."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.models.checkpoint_kinds import KINDS, describe, identify

from ..published import published_files, published_tensors

PUBLISHED = {
    "aniportrait/audio2mesh.pt": "audio2mesh",
    "aniportrait/audio2pose.pt": "audio2pose",
    "aniportrait/denoising_unet.pth": "sd_unet",
    "aniportrait/denoising_unet_full_model": "motion_unet",
    "aniportrait/motion_module.pth": "motion_module",
    "aniportrait/pose_guider.pth": "pose_guider",
    "aniportrait/reference_unet.pth": "reference_unet",
    "anitalker/chinese-hubert-large": "speech_encoder",
    "anitalker/stage1": "anitalker_stage1",
    "anitalker/stage2_audio_only_hubert": "anitalker_stage2",
    "anitalker/stage2_full_control_hubert": "anitalker_stage2",
    "anitalker/stage2_full_control_mfcc": "anitalker_stage2",
    "anitalker/stage2_pose_only_hubert": "anitalker_stage2",
    "anitalker/stage2_pose_only_mfcc": "anitalker_stage2",
    "apasco/apasco_net_head_spelling": "hallo_net",
    "apasco/hallo_net": "hallo_net",
    "apasco/motion_module_mm_sd_v15_v2": "motion_module",
    "apasco/stage1_denoising_unet": "sd_unet",
    "apasco/stage1_face_locator": "face_locator",
    "apasco/stage1_imageproj": "image_projection",
    "apasco/stage1_reference_unet": "reference_unet",
    "evaluation/lpips_alex": "lpips",
    "evaluation/syncnet_v2": "syncnet",
    "gfpgan/GFPGANv1.4": "gfpgan",
    "personal/audiodvp_a2e": "audio_to_expression",
    "personal/audiodvp_atnet": "atnet",
    "personal/audiodvp_patchgan": "patch_discriminator",
    "personal/audiodvp_resnet_face": "face_regressor",
    "personal/audiodvp_unet256_refine": "neural_renderer",
    "personal/sa_emotion_syncer": "sa_emotion_syncer",
    "personal/sa_pose_syncer": "sa_pose_syncer",
    "personal/syncanimation_full_hubert": "syncanimation",
    "personal/synctalk_ave_encoder": "synctalk_audio",
    "personal/synctalk_head_hubert_au45": "synctalk",
    "personal/synctalk_torso": "synctalk_torso",
}


KINDS_BY_NAME = {kind.name: kind for kind in KINDS}
_BLOCK = "down_blocks.0.motion_modules.0"


def test_every_published_file_is_named_here() -> None:
    assert published_files() == set(PUBLISHED)


@pytest.mark.parametrize(("file", "kind"), PUBLISHED.items())
def test_published_files_are_distinguished(file: str, kind: str) -> None:
    state = published_tensors(file)
    found = identify(state)
    assert found is not None
    assert found.name == kind
    prefixed = identify({f"some.prefix.{k}": v for k, v in state.items()})
    assert prefixed is not None
    assert prefixed.name == kind


def test_names_are_unique_and_every_kind_has_conditions() -> None:
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names))
    assert all(kind.has for kind in KINDS)


def test_every_kind_is_reached_by_its_own_conditions() -> None:
    """Nothing earlier in the table hides a kind whose tensors are exactly what it requires."""
    for kind in KINDS:
        state = {name: torch.zeros(1) for name in kind.has}
        state |= {name: torch.zeros([size or 1 for size in shape]) for name, shape in kind.shapes.items()}
        state |= {f"filler{i}.x": torch.zeros(1) for i in range((kind.count or len(state)) - len(state))}
        assert identify(state) is kind, f"{kind.name} is taken for {identify(state)}"


@pytest.mark.parametrize(
    ("added", "title"),
    [
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", "a LoRA and no whole network"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA and no whole network"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.hada_w1_a", "a LoRA and no whole network"),
        (f"{_BLOCK}.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora.down.weight",
         "a LoRA and no whole network"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        ("add_embedding.linear_1.weight", "an SDXL UNet"),
    ],
)  # fmt: skip
def test_what_is_added_to_a_unet_is_not_taken_for_one(added: str, title: str) -> None:
    unet = {name: torch.zeros(1) for name in (*KINDS_BY_NAME["reference_unet"].has, added)}
    assert describe(unet) == title


@pytest.mark.parametrize(
    ("name", "shape", "title"),
    [
        ("down_blocks.0.attentions.0.proj_in.weight", (320, 320), "a UNet of Stable Diffusion 2"),
        ("down_blocks.0.attentions.0.proj_in.weight", (320, 320, 1, 1), "an SD 1.5 UNet"),
        ("conv_in.weight", (320, 9, 3, 3), "a UNet that takes 9 channels, as for inpainting"),
        ("conv_in.weight", (320, 8, 3, 3), "a UNet that takes 8 channels, as InstructPix2Pix's"),
        ("conv_in.weight", (320, 4, 3, 3), "an SD 1.5 UNet"),
    ],
)
def test_other_unets_are_distinguished_by_their_shapes(name: str, shape: tuple[int, ...], title: str) -> None:
    unet = {name: torch.zeros(1) for name in KINDS_BY_NAME["sd_unet"].has}
    assert describe({**unet, name: torch.empty(shape, device="meta")}) == title


def test_motion_modules_of_other_versions_and_spellings_are_no_versions_2() -> None:
    published = published_tensors("apasco/motion_module_mm_sd_v15_v2")
    others = {name: tensor for name, tensor in published.items() if not name.startswith("mid_block.")}
    assert describe(others) == "a motion module without the middle block's, as AnimateDiff's of versions 1 and 3"
    name = f"{_BLOCK}.transformer_blocks.0.attn1.to_q.weight"
    assert describe({name: torch.zeros(1)}) == "AnimateDiff's motion modules in diffusers' spelling"


def test_an_unknown_file_is_described_by_its_first_names() -> None:
    assert describe({f"layer{i}.w": torch.zeros(1) for i in range(5)}) == (
        "an unknown file with 5 tensors (layer0.w, layer1.w, layer2.w ...)"
    )
