"""VAE and CLIP_VISION as diffusion pipelines use them, and the loaders that stand in for ComfyUI's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from talking_portrait.nodes import vae_and_clip
from talking_portrait.nodes.standalone import core_nodes as core_stand_ins
from talking_portrait.pipelines.aniportrait.pictures import clip_pixels
from talking_portrait.pipelines.errors import TalkingPortraitError

from ..tiny_weights.aniportrait import write_clip_vision, write_vae

LOADERS = {
    "VAELoader": ("vae_name", "sd-vae-ft-mse.safetensors", "sd_vae_ft_mse"),
    "CLIPVisionLoader": ("clip_name", "sd-image-variations-image-encoder.bin", "sd_image_variations_encoder"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_vae(folder)
    write_clip_vision(folder)
    return folder


@pytest.fixture
def loaded(models, monkeypatch):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(models))
    return {name: core_stand_ins.STAND_INS[name].execute(file).args[0] for name, (_, file, _) in LOADERS.items()}


def test_pictures_become_latents_and_back(loaded):
    vae = loaded["VAELoader"]
    codec = vae_and_clip.codec(vae)
    pictures = torch.rand(2, 24, 16, 3)
    latents = codec.encode(pictures)
    assert latents.shape == (2, 4, 3, 2)
    torch.testing.assert_close(latents, 0.18215 * vae.encode(pictures), atol=1e-4, rtol=1e-4)
    frames = codec.decode(latents)
    assert frames.shape == pictures.shape
    assert frames.dtype == torch.float32
    assert 0 <= frames.min() < frames.max() <= 1
    torch.testing.assert_close(frames, vae.decode(vae.encode(pictures)), atol=1e-5, rtol=1e-4)


def test_clip_encodes_the_whole_portrait_resized_as_published(loaded):
    clip = loaded["CLIPVisionLoader"]
    portrait = torch.rand(90, 60, 3)
    embedding = vae_and_clip.picture_encoder(clip).embed(portrait)
    assert embedding.shape == (1, 24)
    with torch.no_grad():
        expected = clip.memory.module(pixel_values=clip_pixels(portrait)).image_embeds
    torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LOADERS)
def test_loaders_list_what_is_there(models, loaded, name):
    entry, file, _ = LOADERS[name]
    info = core_stand_ins.STAND_INS[name].GET_NODE_INFO_V1()
    assert info["input"]["required"][entry][1]["options"] == [file]


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_file_is_reported_with_the_way_to_get_it(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    _, file, known = LOADERS[name]
    with pytest.raises(TalkingPortraitError, match=f"{file} is missing; .*https://.* models get {known}$"):
        core_stand_ins.STAND_INS[name].execute(file)


class ThreeChannels:
    latent_channels = 16
    encode = decode = print


class WithoutProjection:
    def encode_image(self, image):
        return {"image_embeds": None}


def test_what_is_no_vae_or_no_clip_is_reported():
    for value in (None, 5, "vae", object()):
        with pytest.raises(TalkingPortraitError, match='The input "vae" is .*, but a VAE is expected'):
            vae_and_clip.codec(value)
        with pytest.raises(TalkingPortraitError, match='The input "clip_vision" is .*, but a CLIP vision encoder is'):
            vae_and_clip.picture_encoder(value)
    with pytest.raises(TalkingPortraitError, match="makes latents of 16 channels"):
        vae_and_clip.codec(ThreeChannels())
    with pytest.raises(TalkingPortraitError, match="has no projection"):
        vae_and_clip.picture_encoder(WithoutProjection()).embed(torch.rand(8, 8, 3))


@pytest.mark.parametrize("given", [None, {"samples": 1}, torch.zeros(1, 2, 3, 2), torch.zeros(1, 4, 3)])
def test_a_vae_that_gives_something_else_is_named(given):
    vae = SimpleNamespace(encode=lambda _: given, decode=lambda _: given)
    codec = vae_and_clip.codec(vae)
    with pytest.raises(TalkingPortraitError, match=r"The VAE gives latents of .* but the shape \(1, 4, 3, 2\)"):
        codec.encode(torch.zeros(1, 24, 16, 3))
    with pytest.raises(
        TalkingPortraitError, match=r"The VAE gives pictures of .* \(1, 24, 16, 3\) .* load sd-vae-ft-mse"
    ):
        codec.decode(torch.zeros(1, 4, 3, 2))


@pytest.mark.parametrize("given", [None, {}, SimpleNamespace()])
def test_a_clip_vision_that_gives_no_embedding_is_named(given):
    encoder = vae_and_clip.picture_encoder(SimpleNamespace(encode_image=lambda _: given))
    with pytest.raises(TalkingPortraitError, match="The CLIP vision encoder has no projection"):
        encoder.embed(torch.zeros(8, 8, 3))
