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

RULE = re.compile(r"weights\.tensor\(seed, '([^']+)', (\[[^\]]*\])(?:, ([0-9.]+))?\)")


def given(golden: Golden, name: str) -> torch.Tensor:
    """An input that the golden describes by its recipe."""
    rule = RULE.match(golden.meta["inputs"][name]["how"])
    assert rule, golden.meta["inputs"][name]["how"]
    shape, scale = json.loads(rule[2]), float(rule[3] or 1)
    return torch.from_numpy(golden.weights.tensor(golden.meta["seed"], rule[1], shape, scale))


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


def pixels(golden: Golden) -> torch.Tensor:
    return portrait_pixels(golden.tensor("portrait_u8").float()[None] / 255, 256)


@runner("anitalker", "stage1_primitives")
def primitives(golden: Golden) -> None:
    x, style, skip, feat = (given(golden, f"prim_{name}") for name in ("x", "style", "skip3", "feat"))
    cin, cout = golden.meta["manifest"]["prim_conv3.0.weight"][1::-1]
    width = style.shape[1]

    def part(module: torch.nn.Module, name: str, family: str = "stage1") -> torch.nn.Module:
        return filled(golden, module, f"prim_{name}", family)

    golden.compare("conv3", part(layers.ConvLayer(cin, cout, 3), "conv3")(x))
    golden.compare("conv1", part(layers.ConvLayer(cin, cout, 1), "conv1")(x))
    golden.compare("conv3_down", part(layers.ConvLayer(cin, cout, 3, down=True), "conv3_down")(x))
    plain = layers.ConvLayer(cin, cout, 1, down=True, activate=False)
    golden.compare("conv1_down_plain", part(plain, "conv1_down_plain")(x))
    golden.compare("resblock", part(layers.ResBlock(cin, cout), "resblock")(x))
    valid = golden.meta["manifest"]["prim_valid4.weight"]
    golden.compare("valid4", part(layers.EqualConv(valid[1], valid[0], valid[2]), "valid4")(x))
    up = part(layers.Upsample(), "torgb.upsample")
    golden.compare("upsample2", up(x))
    linear = golden.meta["manifest"]["prim_linear.weight"]
    golden.compare("equal_linear", part(layers.EqualLinear(linear[1], linear[0]), "linear")(style))

    wide = golden.meta["manifest"]["prim_mod3.weight"][1]
    for name, kernel, options in (
        ("mod3", 3, {}),
        ("mod3_up", 3, {"up": True}),
        ("mod1_nodemod", 1, {"demodulate": False}),
    ):
        module = part(layers.ModulatedConv(cin, wide, kernel, width, **options), name)
        golden.compare(name, module(x, style))
        alone = [module(a[None], b[None]) for a, b in zip(x, style, strict=True)]
        golden.compare(name, torch.cat(alone))
    golden.compare("styled_up", part(layers.StyledConv(cin, wide, width, up=True), "styled_up")(x, style))
    to_rgb = part(ToRGB(cin), "torgb")
    golden.compare("torgb_noskip", to_rgb(to_rgb.mixed(x), None))
    golden.compare("torgb_skip", to_rgb(to_rgb.mixed(x), skip))
    to_flow = part(ToFlow(cin, width), "toflow")
    for name, previous in (("noskip", None), ("skip", skip)):
        raw = to_flow(x, style, previous)
        shown = raw[:, 2:].sigmoid()
        warped = sampled(feat, sampling_grid(raw)) * shown
        golden.compare(f"toflow_{name}_raw", raw)
        golden.compare(f"toflow_{name}_warp", warped)
        golden.compare(f"toflow_{name}_out", warped + x * (1 - shown))
    golden.compare("zero_flow_sample", sampled(feat, sampling_grid(torch.zeros_like(feat[:, :3]))))
    rows = golden.meta["manifest"]["prim_direction.weight"]
    basis = part(Direction(*rows), "direction").basis()
    golden.compare("direction_Q", basis)
    golden.compare("direction_out", given(golden, "prim_code") @ basis.T)
    count = golden.meta["manifest"]["prim_ws.weights"][0]
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
    faces = pixels(golden)
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
    codes[0] = 0  # as the golden's configuration says
    maps = [
        F.interpolate(
            given(golden, f"dec_skip{i}"), golden.meta["inputs"][f"dec_skip{i}"]["shape"][2:], mode="bilinear"
        )
        for i in range(len(model.to_flows))
    ]
    basis = model.direction.basis()
    golden.compare("latent_dir", codes @ basis.T)
    levels: list[tuple[torch.Tensor, torch.Tensor]] = []
    flows = [m.register_forward_hook(lambda m, a, out: levels.append((a[0], out))) for m in model.to_flows]
    scene = model.prepare(Encoded(start, codes, maps))
    pictures = model(scene, codes)
    for hook in flows:
        hook.remove()
    for i, picture in enumerate(pictures):
        golden.compare(f"img{i}", picture[None])
        golden.compare(f"img{i}_ds4", picture[None, :, ::4, ::4])
    for i, (features, raw) in enumerate(levels[: len(maps)]):  # frames that are painted apart come later
        shown = raw[:1, 2:].sigmoid()
        warped = sampled(maps[i], sampling_grid(raw[:1])) * shown
        golden.compare(f"flowraw{i}", raw[:1])
        golden.compare(f"x{i}", warped + features[:1] * (1 - shown))


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
