"""Compiled blocks compute what the others compute."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.models.diffusion.compiling import set_compiled
from talking_portrait.models.diffusion.unet import UNet, UNetConfig


@pytest.mark.slow
def test_compiled_blocks_give_the_same_numbers() -> None:
    torch.manual_seed(0)
    unet = UNet(UNetConfig(channels=(32, 64), attention=(True, False), layers=1, context=24, motion_frames=8))
    unet.eval().requires_grad_(False)
    sample, token = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 1, 24)
    plain = unet(sample, 500, token)
    set_compiled(unet, True)
    set_compiled(unet, True)
    torch.testing.assert_close(unet(sample, 500, token), plain, atol=1e-5, rtol=1e-4)
