"""AniTalker's encoder and renderer, whole and in parts."""

from __future__ import annotations

import json
import re

import torch
import torch.nn.functional as F
from talking_portrait.models.anitalker import layers
from talking_portrait.models.anitalker.encoder import Decoupling, Encoded, WeightedSum
from talking_portrait.models.anitalker.loading import build_stage1
from talking_portrait.models.anitalker.renderer import (
    Direction,
    Renderer,
    RendererConfig,
    ToFlow,
    ToRGB,
    sampled,
    sampling_grid,
)
from talking_portrait.models.anitalker.stage1 import Stage1
from talking_portrait.pipelines.anitalker.portrait import portrait_pixels

from .goldens import Golden, runner

RULE = re.compile(r"weights\.tensor\(seed, '([^']+)', (\[[^\]]*\])(?:, ([-+.e\d]+))?\)")


def given(golden: Golden, name: str) -> torch.Tensor:
    """An input that the golden describes by its recipe; maps of a decoder are drawn small and enlarged."""
    described = golden.meta["inputs"][name]
    rule = RULE.match(described["how"])
    assert rule, described["how"]
    drawn = golden.weights.tensor(golden.meta["seed"], rule[1], json.loads(rule[2]), float(rule[3] or 1))
    for sum_name in ("sha256", "sha256_low"):
        if sum_name in described:
            assert golden.weights.checksum(drawn) == described[sum_name], f"{name}: NumPy draws other numbers"
    value = torch.from_numpy(drawn)
    if "bilinear" in described["how"]:
        value = F.interpolate(value, described["shape"][2:], mode="bilinear")
    return value


def stage1_of(golden: Golden) -> Stage1:
    """The whole stage at the published size."""
    keys = golden.keys("stage1")["keys"]
    state = golden.weights.fill(keys, golden.meta["seed"], "stage1")
    return build_stage1({name: torch.from_numpy(value) for name, value in state.items()}, path=golden.path)


def filled(golden: Golden, module: torch.nn.Module, prefix: str, family: str = "stage1") -> torch.nn.Module:
    """A part with the weights of the golden's manifest; what the part has beyond that is never read."""
    make, seed = golden.weights.value, golden.meta["seed"]
    own = module.state_dict()
    for name, shape in golden.meta["manifest"].items():
        local = name.removeprefix(prefix + ".")
        if local != name and local in own:
            own[local] = torch.from_numpy(make(seed, name, shape, family))
    return module.load_state_dict(own) and module.eval()


@runner("anitalker", "stage1_primitives")
def primitives(golden: Golden) -> None:
    shapes = golden.meta["manifest"]
    x, style, skip, feat = (given(golden, f"prim_{name}") for name in ("x", "style", "skip3", "feat"))
    width = style.shape[1]

    def part(module: torch.nn.Module, name: str, family: str = "stage1") -> torch.nn.Module:
        return filled(golden, module, f"prim_{name}", family)

    def sizes(name: str) -> tuple[int, int, int]:
        """Channels in and out and the kernel's side of a convolution."""
        outputs, inputs, kernel = shapes[f"prim_{name}.weight"][-4:-1]
        return inputs, outputs, kernel

    for name, weight, options in (
        ("conv3", "conv3.0", {}),
        ("conv1", "conv1.0", {}),
        ("conv3_down", "conv3_down.1", {"down": True}),
        ("conv1_down_plain", "conv1_down_plain.1", {"down": True, "activate": False}),
    ):
        golden.compare(name, part(layers.ConvLayer(*sizes(weight), **options), name)(x))
    block = layers.ResBlock(sizes("resblock.conv1.0")[0], sizes("resblock.conv2.1")[1])
    golden.compare("resblock", part(block, "resblock")(x))
    golden.compare("valid4", part(layers.EqualConv(*sizes("valid4")), "valid4")(x))
    golden.compare("upsample2", part(layers.Upsample(), "torgb.upsample")(x))
    outputs, inputs = shapes["prim_linear.weight"]
    golden.compare("equal_linear", part(layers.EqualLinear(inputs, outputs), "linear")(style))

    for name, options in (("mod3", {}), ("mod3_up", {"up": True}), ("mod1_nodemod", {"demodulate": False})):
        module = part(layers.ModulatedConv(*sizes(name), width, **options), name)
        golden.compare(name, module(x, style))
        alone = [module(a[None], b[None]) for a, b in zip(x, style, strict=True)]
        golden.compare(name, torch.cat(alone))
    inputs, outputs, _ = sizes("styled_up.conv")
    golden.compare("styled_up", part(layers.StyledConv(inputs, outputs, width, up=True), "styled_up")(x, style))
    to_rgb = part(ToRGB(x.shape[1]), "torgb")
    golden.compare("torgb_noskip", to_rgb(to_rgb.mixed(x), None))
    golden.compare("torgb_skip", to_rgb(to_rgb.mixed(x), skip))
    to_flow = part(ToFlow(x.shape[1], width), "toflow")
    for name, previous in (("noskip", None), ("skip", skip)):
        raw = to_flow(x, style, previous)
        visibility = raw[:, 2:].sigmoid()
        warped = sampled(feat, sampling_grid(raw)) * visibility
        golden.compare(f"toflow_{name}_raw", raw)
        golden.compare(f"toflow_{name}_warp", warped)
        golden.compare(f"toflow_{name}_out", warped + x * (1 - visibility))
    still = feat.new_zeros(len(feat), 3, *feat.shape[2:])
    golden.compare("zero_flow_sample", sampled(feat, sampling_grid(still)))
    basis = part(Direction(*shapes["prim_direction.weight"]), "direction").basis()
    golden.compare("direction_Q", basis)
    golden.compare("direction_out", given(golden, "prim_code") @ basis.T)
    (count,) = shapes["prim_ws.weights"]
    mixed = part(WeightedSum(count), "ws")([given(golden, f"prim_ws{i}") for i in range(count)])
    golden.compare("weighted_sum", mixed)
    vectors = given(golden, "prim_dec_x")
    parts = part(Decoupling(vectors.shape[1]), "dec", "plain")
    identity = parts.identity_net(vectors)
    golden.compare("decouple_id", identity)
    golden.compare("decouple_motion", parts.identity_excluded_net(vectors))
    golden.compare("decouple_density", parts.identity_net_density(identity))


@runner("anitalker", "stage1_encoder")
def encoder(golden: Golden) -> None:
    model = stage1_of(golden)
    faces = portrait_pixels(golden.tensor("portrait_u8").float()[None] / 255, model.size)
    encoded = model.enc(faces)
    golden.compare("start", encoded.start)
    golden.compare("dir0", encoded.code)
    for i, features in enumerate(encoded.maps):
        golden.compare(f"skip{i}", features)
    app, parts = model.enc.net_app, model.enc.net_decouping
    for i, level in enumerate(app.levels(faces)):
        golden.compare(f"pool{i}", level.mean((2, 3)))
    identity = parts.identity_net(encoded.start)
    golden.compare("identity_emb", identity)
    golden.compare("motion_emb", parts.identity_excluded_net(encoded.start))
    golden.compare("density_emb", parts.identity_net_density(identity))
    golden.compare("Q", model.dec.direction.basis())


@runner("anitalker", "stage1_decoder")
def decoder(golden: Golden) -> None:
    model = stage1_of(golden).dec
    start, codes = given(golden, "dec_start"), given(golden, "dec_codes")
    for zeroed in re.findall(r"codes\[(\d+)\] is overwritten with zeros", str(golden.meta.get("config"))):
        codes[int(zeroed)] = 0
    maps = [given(golden, f"dec_skip{i}") for i in range(len(model.to_flows))]
    golden.compare("latent_dir", codes @ model.direction.basis().T)
    levels: list[tuple[torch.Tensor, torch.Tensor]] = []
    hooks = [m.register_forward_hook(lambda m, a, out: levels.append((a[0], out))) for m in model.to_flows]
    scene = model.prepare(Encoded(start, codes, maps))
    pictures = torch.cat([model(scene, code[None]) for code in codes])
    for hook in hooks:
        hook.remove()
    for i, picture in enumerate(pictures):
        golden.compare(f"img{i}", picture[None])
    for name in golden.tensors:
        if thin := re.fullmatch(r"img(\d+)_ds\d+", name):
            golden.compare(name, golden.thinned(name, pictures[int(thin[1])][None]))
    kept = int(golden.matched("note", r"\(code (\d+)\)")[1])
    for i, features in enumerate(maps):
        x, raw = levels[kept * len(maps) + i]
        visibility = raw[:, 2:].sigmoid()
        golden.compare(f"flowraw{i}", raw)
        golden.compare(f"x{i}", sampled(features, sampling_grid(raw)) * visibility + x * (1 - visibility))
    # All codes at once, as frames of a video are painted.
    golden.check("together", model(scene, codes), pictures, **golden.allowed)


@runner("anitalker", "stage1_synthesis")
def synthesis(golden: Golden) -> None:
    prefix = next(iter(golden.meta["manifest"])).partition(".")[0]
    shapes = golden.meta["manifest"]
    style, motion = shapes[f"{prefix}.direction.weight"]
    widths = [shapes[f"{prefix}.input.input"][1]]
    while (name := f"{prefix}.to_flows.{len(widths) - 1}.conv.weight") in shapes:
        widths.append(shapes[name][2])
    model = filled(golden, Renderer(RendererConfig(tuple(widths), style, motion)), prefix)
    maps = [given(golden, f"syn_skip{i}") for i in range(len(model.to_flows))]
    codes = given(golden, "syn_code")
    pictures = model(model.prepare(Encoded(given(golden, "syn_start"), codes, maps)), codes)
    golden.compare("img", pictures)
