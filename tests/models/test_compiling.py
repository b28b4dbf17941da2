"""Compiled blocks compute what the others compute."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.models.diffusion.compiling import set_compiled
from talking_portrait.models.diffusion.unet import UNet, UNetConfig


@pytest.mark.slow
def test_compiled_blocks_give_the_same_numbers() -> None:
    torch.manual_seed(0)
    config = UNetConfig(channels=(32, 64), attention=(True, False), layers=1, context=24, motion_frames=8, audio=16)
    unet = UNet(config).eval().requires_grad_(False)
    for block in unet.audio_blocks().values():
        for _, convolution in block.branches:
            torch.nn.init.normal_(getattr(block, convolution).weight)
    sample, token = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 1, 24)
    masks = [torch.rand(3, 1, 8, 8), torch.rand(3, 1, 4, 4)]
    for spoken in (sample[:1], sample):  # of both samples the second alone has speech, as in guided steps; then one
        speech = unet.project_audio(torch.randn(3, 5, 16), masks)
        set_compiled(unet, False)
        plain = unet(spoken, 500, token[: len(spoken)], speech=speech)
        set_compiled(unet, True)
        set_compiled(unet, True)
        torch.testing.assert_close(unet(spoken, 500, token[: len(spoken)], speech=speech), plain, atol=1e-5, rtol=1e-4)
