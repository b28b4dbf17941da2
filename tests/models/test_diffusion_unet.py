"""The UNet: its names, its agreement with Stable Diffusion's own, references, pose features, motion, odd sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.models.aniportrait.loading import load_denoising_unet, load_reference_unet
from talking_portrait.models.diffusion.attention import Attention
from talking_portrait.models.diffusion.loading import derive_unet_config, load_unet
from talking_portrait.models.diffusion.motion_module import MotionModule, attend_in_groups, sinusoidal_table
from talking_portrait.models.diffusion.unet import UNet, UNetConfig
from talking_portrait.models.errors import TalkingPortraitError

SMALL = UNetConfig(channels=(32, 64, 64, 64), context=24)
VIDEO = replace(SMALL, motion_frames=12)
PICTURE = replace(SMALL, output=False)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def unet(config: UNetConfig, seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(config).eval()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("config", "names", "parameters"),
    [
        (UNetConfig(), 686, 859_520_964),
        (UNetConfig(output=False), 682, 859_508_800),
        (UNetConfig(motion_frames=32), 686 + 588, 859_520_964 + 454_417_600),
    ],
)
def test_real_sizes_have_the_published_names_and_sizes(config: UNetConfig, names: int, parameters: int) -> None:
    with torch.device("meta"):
        state = UNet(config).state_dict()
    assert len(state) == names
    assert sum(tensor.numel() for tensor in state.values()) == parameters
    assert derive_unet_config(state) == config


def test_without_motion_it_is_stable_diffusions_own() -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    theirs = UNet2DConditionModel(
        block_out_channels=SMALL.channels,
        cross_attention_dim=SMALL.context,
        attention_head_dim=SMALL.heads,
        norm_num_groups=SMALL.groups,
    ).eval()
    ours = load_unet(theirs.state_dict(), path="diffusers")
    for height, width, tokens in ((16, 24, 5), (13, 10, 1)):
        sample, context = noise(2, 4, height, width), noise(2, tokens, SMALL.context, seed=2)
        timesteps = torch.tensor([7, 981])
        expected = theirs(sample, timesteps, context).sample
        torch.testing.assert_close(
            ours(sample[:, :, None], timesteps, context)[:, :, 0], expected, atol=2e-5, rtol=1e-4
        )


def test_frames_without_motion_modules_are_single_pictures() -> None:
    network = unet(SMALL)
    sample, context = noise(2, 4, 3, 8, 8), noise(2, 2, SMALL.context, seed=2)
    together = network(sample, 500, context)
    for frame in range(3):
        alone = network(sample[:, :, frame : frame + 1], 500, context)
        torch.testing.assert_close(together[:, :, frame : frame + 1], alone, atol=1e-4, rtol=1e-4)


def test_one_context_token_counts_as_often_as_it_is_repeated() -> None:
    network, sample, token = unet(SMALL), noise(1, 4, 1, 8, 8), noise(1, 1, SMALL.context, seed=2)
    twice = network(sample, 500, token.repeat(1, 2, 1))
    torch.testing.assert_close(network(sample, 500, token), twice, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(network(sample, 500, 2 * token), twice, atol=1e-3)


def test_a_bank_holds_what_each_block_attends_with_and_leaves_no_trace() -> None:
    reference, token = unet(PICTURE), noise(1, 1, SMALL.context)
    picture = noise(1, 4, 1, 8, 12)
    bank = reference.write_bank(picture, token)
    assert list(bank) == list(reference.transformer_blocks())
    assert len(bank) == 16
    assert bank["down_blocks.0.attentions.0.transformer_blocks.0"].shape == (1, 8 * 12, 32)
    assert bank["mid_block.attentions.0.transformer_blocks.0"].shape == (1, 1 * 2, 64)
    other = reference.write_bank(noise(1, 4, 1, 8, 12, seed=5), token)
    again = reference.write_bank(picture, token)
    for name, tokens in bank.items():
        torch.testing.assert_close(tokens, again[name], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(tokens, other[name], atol=1e-2)


def test_only_conditional_rows_attend_to_the_reference() -> None:
    network, context = unet(VIDEO), noise(2, 1, SMALL.context)
    sample = noise(2, 4, 3, 8, 8)
    banks = [unet(PICTURE, seed=1).write_bank(noise(1, 4, 1, 8, 8, seed=s), context[1:]) for s in (3, 4)]
    one, two = (
        network(sample, 500, context, reference=network.read_bank(bank, unconditional_rows=1)) for bank in banks
    )
    plain = network(sample, 500, context)
    torch.testing.assert_close(one[:1], plain[:1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one[:1], two[:1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(one[1:], two[1:], atol=1e-3)
    assert not torch.allclose(one[1:], plain[1:], atol=1e-3)
    conditional = network(sample[1:], 500, context[1:], reference=network.read_bank(banks[0]))
    torch.testing.assert_close(conditional, one[1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 4, 77])
def test_attention_to_a_few_tokens_is_attention(count: int) -> None:
    attention = unet(SMALL).transformer_blocks()["mid_block.attentions.0.transformer_blocks.0"].attn2
    rows, context = noise(6, 5, 64), noise(2, count, 24, seed=2)
    keys, values = attention.keys_values(context.repeat_interleave(3, 0))
    expected = attention.to_out(attention.attend(attention.queries(rows), keys, values))
    torch.testing.assert_close(attention.to_few(rows, context), expected, atol=1e-6, rtol=1e-5)


def test_pictures_keep_their_order_in_memory() -> None:
    """Norms and convolutions would put another one right every time; and backwards torch crashes on some CPUs."""
    network = unet(VIDEO)
    orders = []
    for block in (*network.down_blocks, network.mid_block, *network.up_blocks):
        for layer in (*block.attentions, *block.motion_modules):
            layer.register_forward_hook(lambda _, given, made: orders.append(made.is_contiguous()))
    network(noise(2, 4, 3, 8, 8), 500, noise(2, 4, 24))
    assert len(orders) == 16 + 21
    assert all(orders)


def test_reading_a_bank_attends_to_own_and_reference_tokens_at_once() -> None:
    block = unet(SMALL).transformer_blocks()["mid_block.attentions.0.transformer_blocks.0"]
    tokens, bank = noise(3, 6, 64), noise(1, 5, 64, seed=2)
    keys_values = block.attn1.keys_values(bank)
    found = block._attend_to_reference(tokens, keys_values, 1)
    for row in range(3):
        conditional = tokens[row : row + 1] if row < 1 else torch.cat([tokens[row : row + 1], bank], dim=1)
        expected = block.attn1.to_out(
            block.attn1.attend(block.attn1.queries(tokens[row : row + 1]), *block.attn1.keys_values(conditional))
        )
        torch.testing.assert_close(found[row : row + 1], expected, atol=1e-6, rtol=1e-5)


def test_a_bank_is_rounded_as_published_by_default() -> None:
    network, token = unet(VIDEO), noise(1, 1, SMALL.context)
    bank = unet(PICTURE, seed=1).write_bank(noise(1, 4, 1, 8, 8), token)
    rounded, exact = network.read_bank(bank), network.read_bank(bank, rounding=None)
    name = next(iter(bank))
    block = network.transformer_blocks()[name]
    expected = block.attn1.keys_values(bank[name])[0]
    torch.testing.assert_close(exact.keys_values[name][0], expected, atol=1e-6, rtol=1e-5)
    halved = block.attn1.keys_values(bank[name].half().float())[0]
    torch.testing.assert_close(rounded.keys_values[name][0], halved, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(halved, expected, atol=1e-5, rtol=1e-5)


def test_a_bank_of_another_network_is_refused() -> None:
    shallow = replace(PICTURE, attention=(True, True, False, False))
    bank = unet(shallow).write_bank(noise(1, 4, 1, 8, 8), noise(1, 1, SMALL.context))
    with pytest.raises(TalkingPortraitError, match="11 blocks and the denoising UNet 16"):
        unet(VIDEO).read_bank(bank)


def pose_for(samples: int, frames: int, side: int) -> list[torch.Tensor]:
    widths, divisors = (32, 32, 64, 64, 64), (1, 2, 4, 8, 8)
    return [
        noise(samples, width, frames, -(-side // divisor), -(-side // divisor), seed=width + divisor)
        for width, divisor in zip(widths, divisors, strict=True)
    ]


def test_pose_features_are_taken_in_turn_by_the_samples() -> None:
    network, sample, context = unet(VIDEO), noise(4, 4, 3, 8, 8), noise(4, 1, SMALL.context)
    pose = pose_for(2, 3, 8)
    together = network(sample, 500, context, pose=pose)
    for row in range(4):
        own = [feature[row % 2 : row % 2 + 1] for feature in pose]
        alone = network(sample[row : row + 1], 500, context[row : row + 1], pose=own)
        torch.testing.assert_close(together[row : row + 1], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("level", range(5))
def test_every_pose_feature_counts(level: int) -> None:
    network, sample, context = unet(VIDEO), noise(1, 4, 2, 8, 8), noise(1, 1, SMALL.context)
    pose = pose_for(1, 2, 8)
    changed = list(pose)
    changed[level] = pose[level] + 1
    before, after = (network(sample, 500, context, pose=features) for features in (pose, changed))
    assert not torch.allclose(before, after, atol=1e-3)


def test_sizes_that_halve_unevenly_keep_their_size() -> None:
    network = unet(VIDEO)
    out = network(noise(1, 4, 2, 10, 7), 500, noise(1, 1, SMALL.context), pose=[])
    assert out.shape == (1, 4, 2, 10, 7)
    assert out.isfinite().all()


def test_more_frames_than_positions_are_refused_in_words() -> None:
    with pytest.raises(TalkingPortraitError, match="13 frames, but the motion modules have 12"):
        unet(VIDEO)(noise(1, 4, 13, 8, 8), 0, noise(1, 1, SMALL.context))


def test_half_precision_flows_through() -> None:
    network = unet(VIDEO).bfloat16()
    context = noise(1, 1, SMALL.context).bfloat16()
    bank = unet(PICTURE, seed=1).bfloat16().write_bank(noise(1, 4, 1, 8, 8).bfloat16(), context)
    out = network(noise(1, 4, 2, 8, 8).bfloat16(), 999, context, reference=network.read_bank(bank))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


@torch.enable_grad()
def test_computing_layers_anew_gives_the_same_gradients() -> None:
    network, picture, context = unet(VIDEO), unet(PICTURE, seed=1), noise(2, 1, SMALL.context)

    def gradients() -> list[torch.Tensor | None]:
        bank = picture.write_bank(noise(2, 4, 1, 8, 8), context)
        reference = network.read_bank(bank, rounding=None)
        out = network(noise(2, 4, 3, 8, 8, seed=2), torch.tensor([3, 700]), context, reference=reference)
        weights = [*network.parameters(), *picture.parameters()]
        return list(torch.autograd.grad(out.square().mean(), weights, allow_unused=True))

    expected, layers = gradients(), []
    network.recompute()
    picture.recompute()
    hook = network.mid_block.resnets[0].register_forward_hook(lambda *_: layers.append(1))
    found = gradients()
    hook.remove()
    assert len(layers) == 2
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_motion_modules_depend_on_frame_order_and_treat_pixels_separately() -> None:
    torch.manual_seed(0)
    module = MotionModule(32, frames=8)
    hidden = noise(2 * 4, 32, 3, 5)
    out = module(hidden, 4)
    moved = hidden.clone()
    moved[1, :, 0, 0] += 1  # in frame 1 of the first sample, which also moves that frame's norm
    difference = (module(moved, 4) - out).abs().amax(dim=1)
    assert (difference[:4, 0, 0] > 1e-4).all()
    assert difference[4:].max() < 1e-5
    backwards = module(hidden[:4].flip(0), 4).flip(0)
    assert not torch.allclose(backwards, out[:4], atol=1e-3)


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoidal_table(40, 16)[0].double()
    for place, channel in ((0, 0), (0, 1), (3, 0), (39, 7), (39, 14)):
        angle = torch.tensor(place / 10000 ** ((channel // 2 * 2) / 16), dtype=torch.float64)
        expected = angle.cos() if channel % 2 else angle.sin()
        assert float(table[place, channel]) == pytest.approx(float(expected), abs=1e-5)


# --- files ---


def saved(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def split(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    motion = {name: tensor for name, tensor in state.items() if ".motion_modules." in name}
    return {name: tensor for name, tensor in state.items() if name not in motion}, motion


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_published_files_load_as_they_were_saved(tmp_path: Path, ending: str) -> None:
    network, reference = unet(VIDEO), unet(PICTURE, seed=1)
    spatial, motion = split(network.state_dict())
    loaded = load_denoising_unet(
        saved(spatial, tmp_path / f"denoising_unet{ending}"), saved(motion, tmp_path / f"motion_module{ending}")
    )
    whole = load_denoising_unet(saved(network.state_dict(), tmp_path / f"whole{ending}"))
    picture = load_reference_unet(saved(reference.state_dict(), tmp_path / f"reference_unet{ending}"))
    assert (loaded.config, whole.config, picture.config) == (VIDEO, VIDEO, PICTURE)
    sample, context = noise(1, 4, 2, 16, 16), noise(1, 1, SMALL.context)
    for copy, original in ((loaded, network), (whole, network), (picture, reference)):
        torch.testing.assert_close(copy(sample, 3, context), original(sample, 3, context), atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_tables_of_positions_may_be_missing_from_a_file(tmp_path: Path) -> None:
    spatial, motion = split(unet(replace(SMALL, motion_frames=32)).state_dict())
    bare = {name: tensor for name, tensor in motion.items() if not name.endswith(".pe")}
    assert len(bare) == len(motion) - 42
    paths = saved(spatial, tmp_path / "d.pth"), saved(bare, tmp_path / "m.pth")
    loaded = load_denoising_unet(*paths, dtype=torch.float16)
    assert loaded.config.motion_frames == 32
    tables = {name: tensor for name, tensor in loaded.state_dict().items() if name.endswith(".pe")}
    assert all(torch.equal(tensor, motion[name].half()) for name, tensor in tables.items())


@pytest.mark.parametrize("prefix", ["", "module.", "reference_unet."])
@pytest.mark.parametrize("layers", [("conv_out",), ("conv_norm_out", "conv_out")])
def test_a_reference_unet_with_output_layers_loads_without_them(tmp_path: Path, prefix: str, layers) -> None:
    plain = unet(PICTURE).state_dict()
    extra = {f"{layer}.{part}": torch.ones(4) for layer in layers for part in ("weight", "bias")}
    state = {prefix + name: tensor for name, tensor in {**plain, **extra}.items()}
    network = load_reference_unet(saved({"module": state}, tmp_path / "reference_unet.pth"))
    assert network.state_dict().keys() == plain.keys()
    if len(layers) == 2:
        with pytest.raises(TalkingPortraitError, match=r"a name with reference_unet in it"):
            load_reference_unet(saved(state, tmp_path / "x.pth"))


def test_wrong_and_incomplete_files_are_named(tmp_path: Path) -> None:
    spatial, motion = split(unet(VIDEO).state_dict())
    reference = saved(unet(PICTURE).state_dict(), tmp_path / "reference_unet.pth")
    denoising, module = saved(spatial, tmp_path / "d.pth"), saved(motion, tmp_path / "m.pth")
    for call, words in (
        (lambda: load_reference_unet(denoising), "d.pth is an SD 1.5 UNet, but AniPortrait's reference_unet"),
        (lambda: load_denoising_unet(reference, module), "reference_unet.pth is a reference UNet"),
        (lambda: load_denoising_unet(denoising), "d.pth is an SD 1.5 UNet, but a UNet with motion modules"),
        (lambda: load_denoising_unet(denoising, reference), "but AniPortrait's motion_module"),
    ):
        with pytest.raises(TalkingPortraitError, match=words):
            call()
    del spatial["mid_block.resnets.0.norm1.bias"]
    spatial["surplus.weight"] = torch.zeros(1)
    with pytest.raises(
        TalkingPortraitError, match=r"1 missing \(mid_block.resnets.0.norm1.bias\); 1 unknown \(surplus"
    ):
        load_denoising_unet(saved(spatial, tmp_path / "d.pth"), module)


@pytest.mark.parametrize(("frames", "keys"), [(16, 16), (4, 8)])
def test_attention_in_groups_is_attention_row_by_row(frames: int, keys: int) -> None:
    queries = noise(12, 2, frames, 8)
    others = [noise(12, 2, keys, 8, seed=seed) for seed in (2, 3)]
    expected = Attention(8, 2).attend(queries, *others)
    torch.testing.assert_close(attend_in_groups(queries, *others, group=4), expected, atol=1e-6, rtol=1e-5)
