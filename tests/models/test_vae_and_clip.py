"""Stable Diffusion's VAE and CLIP's image encoder from files, in every common naming scheme."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.models.diffusion.clip_vision import derive_clip_config, load_clip_vision
from talking_portrait.models.diffusion.vae import derive_vae_config, load_vae
from talking_portrait.models.errors import TalkingPortraitError


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def autoencoder(**changes):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    sizes = {"block_out_channels": (32, 32, 64), "layers_per_block": 2, **levels}
    return AutoencoderKL(**{**sizes, **changes}).eval()


def image_encoder(**changes):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 96}
    config = CLIPVisionConfig(**{**sizes, "patch_size": 14, "image_size": 56, "projection_dim": 20, **changes})
    return CLIPVisionModelWithProjection(config).eval()


def first_spelling(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return {re.sub(r"(attentions\.0\.)(to_\w+(?:\.0)?)", lambda m: m[1] + names[m[2]], k): v for k, v in state.items()}


def original_spelling(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the first Stable Diffusion named it: levels of the decoder from the finest, attention by convolutions."""
    levels = 3
    renamed = {}
    for name, tensor in state.items():
        if ".attentions.0.to_" in name and tensor.ndim == 2:
            tensor = tensor[:, :, None, None].contiguous()
        name = re.sub(r"decoder\.up_blocks\.(\d)", lambda m: f"decoder.up.{levels - 1 - int(m[1])}", name)
        for new, old in (
            ("down_blocks", "down"),
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
            ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
            ("mid_block.attentions.0.to_", "mid.attn_1."),
            ("resnets", "block"),
            ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"),
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
        ):
            name = name.replace(new, old)
        renamed[name] = tensor
    return renamed


def whole_checkpoint(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    inside = {f"first_stage_model.{name}": tensor for name, tensor in original_spelling(state).items()}
    return {**inside, "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1), "alphas": torch.zeros(2)}


@pytest.mark.parametrize("spelling", [dict, first_spelling, original_spelling, whole_checkpoint])
def test_a_vae_loads_in_every_spelling(tmp_path: Path, spelling) -> None:
    vae = autoencoder()
    path = tmp_path / "vae.safetensors"
    save_file(spelling(vae.state_dict()), path)
    loaded = load_vae(path)
    pixels = torch.rand(1, 3, 16, 24) * 2 - 1
    mean = vae.encode(pixels).latent_dist.mean
    assert mean.shape == (1, 4, 4, 6)
    torch.testing.assert_close(loaded.encode(pixels).latent_dist.mean, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loaded.decode(mean).sample, vae.decode(mean).sample, atol=1e-5, rtol=1e-4)


def test_the_published_sizes_are_recognised() -> None:
    from diffusers import AutoencoderKL
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    published = {**blocks, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    large |= {"patch_size": 14, "image_size": 224, "projection_dim": 768, "hidden_act": "quick_gelu"}
    with torch.device("meta"):
        assert derive_vae_config(AutoencoderKL(**published).state_dict()) == published
        clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**large))
    assert derive_clip_config(clip.state_dict()) == large


def test_clip_loads_as_it_was_saved(tmp_path: Path) -> None:
    clip = image_encoder()
    old = {"vision_model.embeddings.position_ids": torch.arange(17)[None], "logit_scale": torch.zeros(())}
    torch.save({**clip.state_dict(), **old}, tmp_path / "clip.bin")
    loaded = load_clip_vision(tmp_path / "clip.bin")
    pixels = torch.randn(2, 3, 56, 56)
    embedding = clip(pixel_values=pixels).image_embeds
    assert embedding.shape == (2, 20)
    torch.testing.assert_close(loaded(pixel_values=pixels).image_embeds, embedding, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    vae, clip = autoencoder(), image_encoder()
    save_file(vae.state_dict(), tmp_path / "vae.safetensors")
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    save_file(autoencoder(latent_channels=16).state_dict(), tmp_path / "flux.safetensors")
    short = {name: tensor for name, tensor in clip.state_dict().items() if not name.startswith("visual")}
    save_file(short, tmp_path / "short.safetensors")
    part = vae.state_dict()
    del part["decoder.mid_block.resnets.1.conv2.bias"]
    save_file(part, tmp_path / "part.safetensors")
    for load, name, words in (
        (load_vae, "clip", "is a CLIP vision encoder, but an image VAE"),
        (load_clip_vision, "vae", "is an image VAE, but a CLIP image encoder is expected"),
        (load_vae, "flux", "a VAE with 16 latent channels, but one with 4"),
        (load_clip_vision, "short", "without its projection"),
        (load_vae, "part", r"1 missing \(decoder.mid_block.resnets.1.conv2.bias\)"),
    ):
        with pytest.raises(TalkingPortraitError, match=words):
            load(tmp_path / f"{name}.safetensors")
