"""LoRA files in the common naming schemes."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.models.diffusion.lora import merge_lora
from talking_portrait.models.diffusion.unet import UNet, UNetConfig
from talking_portrait.models.errors import TalkingPortraitError

CONFIG = UNetConfig(channels=(32, 64), attention=(True, False), layers=1, context=24)
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONVOLUTION = "down_blocks.0.resnets.0.conv1"
POINTWISE = "down_blocks.0.attentions.0.proj_in"


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(CONFIG).requires_grad_(False)


def changes(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [
        torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + i)) for i, shape in enumerate(shapes)
    ]


def test_kohyas_spelling_scales_by_alpha() -> None:
    unet, before = network(), network().state_dict()
    down, up, conv_down, conv_up = changes((4, 32), (32, 4), (4, 32, 3, 3), (32, 4, 1, 1))
    state = {
        f"lora_unet_{LINEAR.replace('.', '_')}.lora_down.weight": down,
        f"lora_unet_{LINEAR.replace('.', '_')}.lora_up.weight": up,
        f"lora_unet_{LINEAR.replace('.', '_')}.alpha": torch.tensor(2.0),
        f"lora_unet_{CONVOLUTION.replace('.', '_')}.lora_down.weight": conv_down,
        f"lora_unet_{CONVOLUTION.replace('.', '_')}.lora_up.weight": conv_up,
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": down,
    }
    assert merge_lora(unet, state, path="a.safetensors", strength=0.5) == 2
    after = unet.state_dict()
    torch.testing.assert_close(after[f"{LINEAR}.weight"], before[f"{LINEAR}.weight"] + 0.5 * 0.5 * up @ down)
    expected = before[f"{CONVOLUTION}.weight"] + 0.5 * torch.einsum("orxy,rihw->oihw", conv_up, conv_down)
    torch.testing.assert_close(after[f"{CONVOLUTION}.weight"], expected)
    untouched = [name for name in before if name not in (f"{LINEAR}.weight", f"{CONVOLUTION}.weight")]
    assert all(torch.equal(before[name], after[name]) for name in untouched)


@pytest.mark.parametrize(
    ("down_name", "up_name"),
    [
        (f"unet.{LINEAR}.lora_A.weight", f"unet.{LINEAR}.lora_B.weight"),
        (f"unet.{LINEAR}.lora.down.weight", f"unet.{LINEAR}.lora.up.weight"),
        (
            f"{LINEAR.removesuffix('.to_out.0')}.processor.to_out_lora.down.weight",
            f"{LINEAR.removesuffix('.to_out.0')}.processor.to_out_lora.up.weight",
        ),
    ],
)
def test_diffusers_spellings(down_name: str, up_name: str) -> None:
    unet, before = network(), network().state_dict()
    down, up = changes((4, 32), (32, 4))
    assert merge_lora(unet, {down_name: down, up_name: up}, path="a.safetensors") == 1
    torch.testing.assert_close(unet.state_dict()[f"{LINEAR}.weight"], before[f"{LINEAR}.weight"] + up @ down)


def test_a_linear_change_fits_a_convolution_of_one_pixel() -> None:
    unet, before = network(), network().state_dict()
    down, up = changes((4, 32), (32, 4))
    merge_lora(unet, {f"unet.{POINTWISE}.lora_A.weight": down, f"unet.{POINTWISE}.lora_B.weight": up}, path="a")
    found = unet.state_dict()[f"{POINTWISE}.weight"]
    torch.testing.assert_close(found, before[f"{POINTWISE}.weight"] + (up @ down)[:, :, None, None])


def test_the_weights_keep_their_precision() -> None:
    unet = network().bfloat16()
    down, up = changes((4, 32), (32, 4))
    merge_lora(unet, {f"unet.{LINEAR}.lora_A.weight": down, f"unet.{LINEAR}.lora_B.weight": up}, path="a")
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv_in.weight": torch.zeros(1)}, "x.safetensors holds no LoRA of a UNet"),
        (
            {
                "unet.down_blocks.7.conv.lora_A.weight": torch.zeros(4, 32),
                "unet.down_blocks.7.conv.lora_B.weight": torch.zeros(32, 4),
            },
            r"changes 1 layers that this UNet lacks \(down_blocks_7_conv",
        ),
        (
            {
                f"unet.{LINEAR}.lora_A.weight": torch.zeros(4, 64),
                f"unet.{LINEAR}.lora_B.weight": torch.zeros(32, 4),
            },
            "changes 1 layers that this UNet lacks",
        ),
        ({f"unet.{LINEAR}.lora_A.weight": torch.zeros(4, 32)}, "changes 1 layers"),
        *(
            (
                {
                    f"unet.{LINEAR}.lora_A.weight": torch.ones(4, 32),
                    f"unet.{LINEAR}.lora_B.weight": torch.ones(32, 4),
                    name: torch.ones(32),
                },
                "is no plain LoRA but DoRA, LoHa, LoKr or the like",
            )
            for name in (
                f"unet.{LINEAR}.lora_magnitude_vector",
                f"lora_unet_{LINEAR.replace('.', '_')}.dora_scale",
                f"lora_unet_{LINEAR.replace('.', '_')}.hada_w1_a",
                f"lora_unet_{LINEAR.replace('.', '_')}.diff_b",
            )
        ),
    ],
)
def test_files_that_do_not_fit_are_named(state: dict, message: str) -> None:
    unet, before = network(), network().state_dict()
    with pytest.raises(TalkingPortraitError, match=message):
        merge_lora(unet, state, path="x.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
