"""Networks of APasco and Hallo: their file loads strictly, and what APasco adds changes nothing until it is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from talking_portrait.models.apasco.loading import build_net, derive_config, load_net
from talking_portrait.models.apasco.mesh_encoder import MeshEncoder, nearest_vertices, thinned_vertices
from talking_portrait.models.apasco.networks import Networks, NetworksConfig
from talking_portrait.models.checkpoints import identify
from talking_portrait.models.diffusion.loading import load_unet
from talking_portrait.models.diffusion.unet import UNet
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.face.face_mesh import VERTICES

from ..published import published_tensors
from ..tiny_weights.apasco import CONFIG, net_state, write_net

PATH = "net.pth"
FRAMES, SIDE = 3, 8


def test_every_tensor_of_the_published_file_has_its_place():
    with torch.device("meta"):
        own = Networks().state_dict()
    assert len(own) == 2656
    published = published_tensors("apasco/hallo_net")
    assert {name: tensor.shape for name, tensor in own.items()} == {n: t.shape for n, t in published.items()}


@pytest.mark.parametrize("spelling", ["hallo", "apasco"])
def test_both_projects_names_load(spelling):
    state = published = net_state()
    if spelling == "apasco":
        state = {
            k.replace("imageproj.", "image_proj.").replace("audioproj.", "audio_proj."): v for k, v in state.items()
        }
    networks = build_net(state, path=PATH)
    assert all(torch.equal(tensor, published[name]) for name, tensor in networks.state_dict().items())


def test_the_file_is_recognised_and_its_sizes_are_read_from_shapes(tmp_path):
    path = write_net(tmp_path)
    assert identify(net_state()).name == "hallo_net"
    assert derive_config(net_state(), PATH) == CONFIG
    assert load_net(path, dtype=torch.bfloat16).denoising_unet.conv_in.weight.dtype == torch.bfloat16


def test_derived_sizes_of_geometry_and_learnt_weights():
    config = CONFIG.with_geometry(6, learnt_weights=True)
    networks = build_net(net_state(config), path=PATH)
    assert networks.config == config
    assert networks.mesh_encoder.vertex_ids.tolist() == thinned_vertices().tolist()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda state: {k: v for k, v in state.items() if ".audio_modules." not in k}, "no audio modules"),
        (lambda state: {k: v for k, v in state.items() if not k.startswith("imageproj")}, "lacks imageproj"),
        (lambda state: {**state, "denoising_unet.more": torch.zeros(1)}, "1 unknown"),
        (lambda state: {k: v for k, v in state.items() if k != "denoising_unet.conv_in.bias"}, "1 missing"),
        (lambda state: {**state, "audioproj.norm.bias": torch.zeros(3)}, "of another shape"),
    ],
)
def test_another_file_is_refused_in_one_sentence(broken, message):
    with pytest.raises(TalkingPortraitError, match=message) as caught:
        build_net(broken(net_state()), path=PATH)
    assert "net.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layers", [(), ("conv_out",), ("conv_norm_out", "conv_out")])
def test_net_loads_from_deepspeeds_wrapper_and_with_output_layers(tmp_path, layers):
    state = net_state()
    extra = {f"reference_unet.{layer}.{part}": torch.ones(4) for layer in layers for part in ("weight", "bias")}
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in {**state, **extra}.items()}
    torch.save({"module": wrapped, "optimizer": None, "lr_scheduler": {}}, tmp_path / "net.pth")
    assert load_net(tmp_path / "net.pth").state_dict().keys() == state.keys()


def test_a_file_of_another_system_is_refused(tmp_path):
    path = tmp_path / "reference_unet.pth"
    torch.save(
        {k.removeprefix("reference_unet."): v for k, v in net_state().items() if k.startswith("reference")}, path
    )
    with pytest.raises(TalkingPortraitError, match="a reference UNet of AniPortrait or Hallo, but net.pth"):
        load_net(path)


class Case:
    """A tiny denoising UNet with everything it takes."""

    def __init__(self, config: NetworksConfig = CONFIG) -> None:
        own = {k: v.clone() for k, v in net_state(config).items() if k.startswith("denoising_unet.")}
        state = {k.removeprefix("denoising_unet."): v for k, v in own.items()}
        self.unet: UNet = load_unet(state, path=PATH, config=config.denoising_unet)
        torch.manual_seed(0)
        sizes = config.denoising_unet
        self.sample = torch.randn(2, 4, FRAMES, SIDE, SIDE)
        self.context = torch.randn(2, 4, sizes.context)
        self.audio = torch.randn(FRAMES, 8, sizes.audio)
        self.mesh = torch.randn(FRAMES, 5, sizes.audio)
        self.masks = [torch.rand(3, 1, max(SIDE >> i, 1), max(SIDE >> i, 1)) for i in range(4)]

    def run(self, *, mesh: torch.Tensor | None = None, **options):
        return self.unet(self.sample, 500, self.context, speech=self.project_audio(mesh=mesh, **options))

    def project_audio(self, **options):
        return self.unet.project_audio(self.audio, self.masks, **options)


@torch.no_grad()
def test_unconditional_rows_attend_to_audio_tokens_of_zeros():
    """Computed once from the bias; with the zeros spelt out the numbers are the same."""
    case = Case()
    short = case.run()
    both = case.unet.project_audio(torch.cat([torch.zeros_like(case.audio), case.audio]), case.masks)
    assert torch.allclose(case.unet(case.sample, 500, case.context, speech=both), short, atol=1e-5)
    alone = case.unet(case.sample[:1], 500, case.context[:1], speech=case.project_audio().silent())
    assert torch.allclose(alone, short[:1], atol=1e-3)


@torch.no_grad()
def test_geometry_changes_nothing_until_its_last_layer_learns():
    config = CONFIG.with_geometry(5)
    state = {**net_state(config), **net_state()}
    for name in state:
        if ".zero_conv_geo." in name:
            state[name] = torch.zeros_like(state[name])
    hallo, case = Case(), Case(config)
    case.unet = build_net(state, path=PATH).denoising_unet
    expected = hallo.run()
    torch.testing.assert_close(case.run(mesh=case.mesh), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(case.run(), expected, atol=1e-5, rtol=1e-4)
    for block in case.unet.audio_blocks().values():
        block.zero_conv_geo.bias += 0.1
    assert not torch.allclose(case.run(mesh=case.mesh), expected, atol=1e-2)
    without = case.run(mesh=case.mesh, weights=(1.0, 1.0, 1.0, 0.0))
    torch.testing.assert_close(without, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_new_modules_begin_as_hallo_and_learnt_weights_at_one():
    sizes = replace(CONFIG.with_geometry(5, learnt_weights=True).denoising_unet, channels=(32, 32, 32, 32))
    unet = UNet(sizes)
    for block in unet.audio_blocks().values():
        assert torch.equal(block.alpha, torch.ones(3))
        assert not block.zero_conv_geo.weight.any()
        assert not block.zero_conv_geo.bias.any()
    plain, case = Case(), Case(replace(CONFIG, denoising_unet=replace(CONFIG.denoising_unet, learnt_weights=True)))
    own = case.unet.state_dict()
    case.unet.load_state_dict({**{k: v for k, v in own.items() if "alpha" in k}, **plain.unet.state_dict()})
    for block in case.unet.audio_blocks().values():
        block.alpha.fill_(1.0)
    torch.testing.assert_close(case.run(), plain.run(), atol=1e-5, rtol=1e-4)
    next(iter(case.unet.audio_blocks().values())).alpha[2] = 2.0
    assert not torch.allclose(case.run(), plain.run(), atol=1e-3)


@torch.no_grad()
def test_speech_moves_only_where_its_masks_are():
    case = Case()
    case.masks = [torch.zeros_like(mask) for mask in case.masks]
    other = case.unet.project_audio(case.audio + 1, case.masks)
    changed = case.unet(case.sample, 500, case.context, speech=other)
    torch.testing.assert_close(changed, case.run(), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_motion_modules_without_attention_are_loaded_and_never_run():
    case = Case()
    before = case.run()
    for name, parameter in case.unet.named_parameters():
        if name.startswith(("down_blocks.3.motion_modules", "up_blocks.0.motion_modules")):
            parameter += 1
    torch.testing.assert_close(case.run(), before, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_masks_of_another_size_and_clips_that_are_too_long_are_refused():
    case = Case()
    case.masks = [mask[..., :-1, :] for mask in case.masks]
    with pytest.raises(TalkingPortraitError, match="masks are made for latents of 8 x 7, but these are 8 x 8"):
        case.run()
    case = Case()
    before = {name: torch.zeros(2, 2, 1, 1) for name in case.unet.transformer_blocks()}
    reference = case.unet.read_bank(
        {n: torch.zeros(1, 1, b.norm1.weight.numel()) for n, b in case.unet.transformer_blocks().items()}
    )
    with pytest.raises(TalkingPortraitError, match="33 frames, but the motion modules have 32"):
        case.unet(torch.randn(2, 4, 31, 8, 8), 1, case.context, reference=replace(reference, motion=before))


def test_the_mesh_is_thinned_evenly_with_each_vertex_near_itself():
    chosen = thinned_vertices()
    assert len(set(chosen.tolist())) == 128
    assert chosen.max() < VERTICES
    near = nearest_vertices(chosen)
    assert (near[:, 0] == torch.arange(128).numpy()).all()


@torch.no_grad()
def test_mesh_tokens_follow_shape_and_time():
    torch.manual_seed(0)
    encoder, rest = MeshEncoder(24, 6), torch.randn(1, 478, 3)
    still = encoder(rest[:, None].expand(1, 4, -1, -1), rest)
    assert still.shape == (1, 4, 6, 24)
    moved = rest[:, None].repeat(1, 4, 1, 1)
    moved[:, 2] += 0.1 * torch.randn(478, 3)
    changed = (encoder(moved, rest) - still).abs().amax(dim=(0, 2, 3))
    assert (changed > 0).all(), "frames attend to each other"
    assert changed[2] == changed.max()
    assert 100_000 < sum(p.numel() for p in MeshEncoder().parameters()) < 500_000
