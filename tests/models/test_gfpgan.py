"""GFPGAN's network and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.gfpgan import GFPGAN, GFPGANConfig, build_gfpgan, load_gfpgan

TINY = GFPGANConfig(unet=(4, 8, 8, 8), decoder=(8, 16, 16, 16), style=12)


@pytest.fixture
def network() -> GFPGAN:
    torch.manual_seed(0)
    network = GFPGAN(TINY).eval().requires_grad_(False)
    for tensor in network.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) * 0.2)
    return network


def test_it_has_the_published_names_and_sizes() -> None:
    with torch.device("meta"):
        state = GFPGAN().state_dict()
    assert len(state) == 285
    assert GFPGANConfig().size == 512
    assert state["final_linear.weight"].shape == (8192, 4096)
    assert state["stylegan_decoder.noises.noise14"].shape == (1, 1, 512, 512)


def test_a_file_in_the_published_wrapper_gives_the_same_network(network: GFPGAN, tmp_path: Path) -> None:
    faces = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.save({"params_ema": network.state_dict()}, tmp_path / "GFPGANv1.4.pth")
    loaded = load_gfpgan(tmp_path / "GFPGANv1.4.pth")
    assert loaded.config == TINY
    torch.testing.assert_close(loaded(faces), network(faces), atol=1e-4, rtol=1e-4)
    save_file(network.state_dict(), tmp_path / "restorer.safetensors")
    again = load_gfpgan(tmp_path / "restorer.safetensors")
    torch.testing.assert_close(again(faces), network(faces), atol=1e-4, rtol=1e-4)


def test_faces_of_a_batch_are_independent_and_deterministic(network: GFPGAN) -> None:
    faces = torch.rand(3, 3, 32, 32) * 2 - 1
    together = network(faces)
    assert together.shape == faces.shape
    for face, result in zip(faces, together, strict=True):
        torch.testing.assert_close(network(face[None])[0], result, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_the_noise_of_the_file_is_used(network: GFPGAN) -> None:
    faces = torch.rand(1, 3, 32, 32) * 2 - 1
    before = network(faces)
    network.stylegan_decoder.noises.get_buffer("noise6").mul_(-1)
    assert not torch.allclose(network(faces), before, atol=1e-3)


def test_another_file_and_a_damaged_one_are_distinguished(network: GFPGAN) -> None:
    state = network.state_dict()
    with pytest.raises(TalkingPortraitError, match=r"x\.pth is a GFPGAN face restorer that does not fit GFPGAN: 1 mis"):
        build_gfpgan({k: v for k, v in state.items() if k != "final_conv.bias"}, path="x.pth")
    with pytest.raises(TalkingPortraitError, match="of another shape"):
        build_gfpgan({**state, "final_linear.weight": torch.zeros(3, 3)}, path="x.pth")


def test_a_file_of_another_system_is_named(tmp_path: Path) -> None:
    save_file({"vision_model.embeddings.class_embedding": torch.zeros(3)}, tmp_path / "clip.safetensors")
    with pytest.raises(TalkingPortraitError, match="is a CLIP vision encoder, but a GFPGAN face restorer is expected"):
        load_gfpgan(tmp_path / "clip.safetensors")
