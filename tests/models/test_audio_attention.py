"""The audio block, which projects output layers and convolutions in one, beside its plain formula."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.models.diffusion.audio_attention import AudioBlock
from torch import nn

CHANNELS, HEADS, AUDIO, GEOMETRY = 32, 4, 24, 16
HEIGHT, WIDTH, ROWS = 3, 5, 6
WEIGHTS = (0.7, 1.3, -0.4, 2.0)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(geometry: bool, learnt_weights: bool) -> AudioBlock:
    """With weights of its own in every layer, the zero convolutions too."""
    block = AudioBlock(
        CHANNELS, HEADS, AUDIO, geometry=GEOMETRY if geometry else 0, learnt_weights=learnt_weights
    ).requires_grad_(False)
    for number, parameter in enumerate(block.parameters()):
        parameter.copy_(0.3 * noise(*parameter.shape, seed=number))
    return block.eval()


def plain(
    block: AudioBlock, tokens: torch.Tensor, speech: torch.Tensor, mesh: torch.Tensor | None, mask: torch.Tensor
) -> torch.Tensor:
    """As Hallo's and APasco's papers have it: attention, its output layer, the mask, the convolution, the weight."""
    tokens = tokens + block.attn1(block.norm1(tokens))
    normed = block.norm2(tokens)
    full, face, lip = mask.flatten(2)[..., None].expand(-1, len(tokens), -1, -1)
    total = torch.zeros_like(tokens)
    for index, (attention_name, convolution_name) in enumerate(block.branches):
        attention, convolution = getattr(block, attention_name), getattr(block, convolution_name)
        context = speech if index < 3 else mesh
        attended = attention.to_out(attention.attend(attention.queries(normed), *attention.keys_values(context)))
        masked = (full, face, lip, face + lip)[index] * attended
        pixels = masked.transpose(1, 2).unflatten(2, (HEIGHT, WIDTH))
        weight = WEIGHTS[index] * (block.alpha[index] if hasattr(block, "alpha") and index < 3 else 1)
        total = total + weight * nn.functional.conv2d(pixels, convolution.weight, convolution.bias).flatten(2).mT
    tokens = tokens + total
    return tokens + block.ff(block.norm3(tokens))


@pytest.mark.parametrize("geometry", [False, True], ids=["speech", "speech and mesh"])
@pytest.mark.parametrize("learnt_weights", [False, True], ids=["fixed", "learnt"])
@pytest.mark.parametrize("masks", ["one", "each"])
@pytest.mark.parametrize("silent", [0, 2, ROWS])
def test_the_block_in_one_is_the_plain_formula(geometry: bool, learnt_weights: bool, masks: str, silent: int) -> None:
    block = trained(geometry, learnt_weights)
    tokens, audio, mesh = noise(ROWS, HEIGHT * WIDTH, CHANNELS), noise(ROWS, 7, AUDIO), noise(ROWS, 3, GEOMETRY)
    mask = noise(3, 1 if masks == "one" else ROWS, HEIGHT, WIDTH).sigmoid()
    contexts = [audio[silent:], *([mesh[silent:]] if geometry else [])]
    branches = block.project_audio(contexts, WEIGHTS)
    quiet = [torch.cat([torch.zeros_like(context[:silent]), context[silent:]]) for context in (audio, mesh)]
    expected = plain(block, tokens, quiet[0], quiet[1] if geometry else None, mask)
    torch.testing.assert_close(block(tokens, branches, mask), expected, atol=1e-4, rtol=1e-4)


def test_the_formula_changes_with_each_of_its_parts() -> None:
    """So that the comparison could fail."""
    tokens, audio, mesh = noise(ROWS, HEIGHT * WIDTH, CHANNELS), noise(ROWS, 7, AUDIO), noise(ROWS, 3, GEOMETRY)
    mask = noise(3, 1, HEIGHT, WIDTH).sigmoid()
    block = trained(geometry=True, learnt_weights=True)
    before = plain(block, tokens, audio, mesh, mask)
    for name in (
        "attn2_0.to_v.weight",
        "attn2_geo.to_out.0.bias",
        "zero_conv_lip.weight",
        "zero_conv_geo.bias",
        "alpha",
    ):
        parameter = block.get_parameter(name)
        kept = parameter.clone()
        parameter.add_(0.5)
        assert (plain(block, tokens, audio, mesh, mask) - before).abs().max() > 1e-2
        parameter.copy_(kept)
