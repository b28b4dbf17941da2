"""AniPortrait's networks of the diffusion stage, one at a time."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import torch
from talking_portrait.models.aniportrait.loading import build_pose_guider
from talking_portrait.models.aniportrait.pose_guider import PoseGuider
from talking_portrait.models.diffusion.attention import Bank, Reference
from talking_portrait.models.diffusion.loading import load_unet
from talking_portrait.models.diffusion.motion_module import MotionModule
from talking_portrait.models.diffusion.unet import UNet, UNetConfig
from talking_portrait.pipelines.aniportrait.pictures import pose_pixels

from .goldens import Golden, runner


def state_of(golden: Golden, manifest: str | dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """The weights that a golden was computed with."""
    names = golden.keys(manifest) if isinstance(manifest, str) else manifest
    return {name: torch.from_numpy(np.asarray(value)) for name, value in golden.weights.fill(names, seed).items()}


def unet_of(golden: Golden, config: dict[str, Any], manifest: str, seed: int, *, output: bool, motion: Any) -> UNet:
    """A UNet with the golden's configuration, in diffusers' terms; `motion` are its motion modules' options."""
    down = config.get("down_block_types", ["CrossAttn"] * 3 + ["Down"])
    sizes = UNetConfig(
        channels=tuple(config["block_out_channels"]),
        attention=tuple(name.startswith("CrossAttn") for name in down),
        layers=config["layers_per_block"],
        heads=config["attention_head_dim"],
        groups=config["norm_num_groups"],
        context=config["cross_attention_dim"],
        latent=config["in_channels"],
        motion_frames=motion["temporal_position_encoding_max_len"] if motion else 0,
        motion_heads=motion["num_attention_heads"] if motion else 8,
        output=output,
    )
    return load_unet(state_of(golden, manifest, seed), path=golden.path, config=sizes)


def reference_unet_of(golden: Golden, config: dict[str, Any], manifest: str, seed: int) -> UNet:
    return unet_of(golden, config, manifest, seed, output=False, motion=None)


@runner("aniportrait", "motion_module")
def motion_module(golden: Golden) -> None:
    x, config = golden.tensor("x"), golden.meta["config"]
    frames = x.shape[2]
    module = MotionModule(x.shape[1], config["num_attention_heads"], config["temporal_position_encoding_max_len"])
    state = state_of(golden, golden.meta["manifest"], golden.meta["weight_seed"])
    left = module.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(name.endswith(".pe") for name in left.missing_keys)
    rows = module.eval()(x.transpose(1, 2).flatten(0, 1), frames)
    golden.compare("y", rows.unflatten(0, (-1, frames)).transpose(1, 2))


@runner("aniportrait", "reference_unet")
def reference_unet(golden: Golden) -> None:
    meta = golden.meta
    unet = reference_unet_of(golden, meta["config"], meta["manifest"], meta["weight_seed"])
    latents, token = golden.tensor("ref_latents")[:, :, None], golden.tensor("clip")
    bank = unet.write_bank(latents, token)
    golden.check("blocks", len(bank), len(meta["pairing_order"]))
    for name in meta["pairing_order"]:
        golden.compare(f"bank.{name}", bank[name])
    golden.compare("out", unet(latents, 0, token)[:, :, 0])
    golden.compare("out_plain", unet(latents, 0, token)[:, :, 0])
    golden.compare("odd_out", unet(golden.tensor("odd_latents")[:, :, None], 0, token)[:, :, 0])


class DenoisingCase:
    """Networks and inputs of the denoising UNet's golden, which the traces share."""

    def __init__(self, golden: Golden) -> None:
        meta = golden.meta
        config = meta["config"]
        motion = config["motion_module_kwargs"]
        self.meta = meta
        self.unet = unet_of(golden, config, meta["manifest"], meta["weight_seed"], output=True, motion=motion)
        self.reference_unet = reference_unet_of(golden, config, meta["ref_manifest"], meta["ref_weight_seed"])
        self.latents, self.token = golden.tensor("latents"), golden.tensor("clip")
        self.reference_latents = golden.tensor("ref_latents")[:, :, None]
        self.pose = [
            torch.from_numpy(golden.weights.inputs(meta["input_seed"], name, shape, float(rule.rsplit(",")[-1][:-1])))
            for name, (shape, rule) in meta["pose_features"].items()
        ]

    def bank(self) -> Bank:
        return self.reference_unet.write_bank(self.reference_latents, self.token)

    def guided(self, reference: Reference) -> torch.Tensor:
        context = torch.cat([torch.zeros_like(self.token), self.token])
        sample = torch.cat([self.latents, self.latents])
        return self.unet(sample, self.meta["timestep"], context, pose=self.pose, reference=reference)


@runner("aniportrait", "denoising_unet")
def denoising_unet(golden: Golden) -> None:
    case = DenoisingCase(golden)
    unet, time = case.unet, golden.meta["timestep"]
    golden.compare("out_plain", unet(case.latents, time, case.token))
    first_pose = [feature[:1] for feature in case.pose]
    golden.compare("out_pose", unet(case.latents, time, case.token, pose=first_pose))
    golden.compare("odd_out", unet(golden.tensor("odd_latents"), time, case.token))
    bank = case.bank()
    exact = unet.read_bank(bank, rounding=None)
    golden.compare("out_ref_nocfg_fp32", unet(case.latents, time, case.token, pose=first_pose, reference=exact))
    exact_out = case.guided(unet.read_bank(bank, unconditional_rows=1, rounding=None))
    rounded_out = case.guided(unet.read_bank(bank, unconditional_rows=1))
    golden.compare("out_cfg_bank_fp32", exact_out)
    golden.compare("out_cfg_bank_fp16", rounded_out)
    # Both pass either tolerance, so the rounding itself is compared: it moves the output by some 1e-4.
    rounding = golden.tensors["out_cfg_bank_fp16"] - golden.tensors["out_cfg_bank_fp32"]
    golden.check("effect of the bank's rounding", rounded_out - exact_out, rounding, atol=5e-5)


@runner("aniportrait", "unet_traces")
def unet_traces(golden: Golden) -> None:
    """Statistics of every part's output; the inputs are those of the denoising UNet's golden beside it."""
    beside = [
        Golden(golden.system, path, json.loads(path.read_text()))
        for path in sorted(golden.path.parent.glob("denoising_unet*.json"))
    ]
    size = golden.meta["denoise_plain"]["conv_in"][0]["shape"][2:]
    owners = [other for other in beside if list(other.tensors["latents"].shape[2:]) == size]
    assert owners, f"{golden}: no golden of a denoising UNet of {size} latents lies beside it"
    case = DenoisingCase(owners[0])
    unet, time = case.unet, case.meta["timestep"]
    context = torch.cat([torch.zeros_like(case.token), case.token])
    pair = torch.cat([case.reference_latents, case.reference_latents])
    runs = {
        "denoise_plain": (unet, partial(unet, case.latents, time, case.token)),
        "denoise_cfg_bank_fp16": (unet, partial(case.guided, unet.read_bank(case.bank(), unconditional_rows=1))),
        "reference_cfg": (case.reference_unet, partial(case.reference_unet, pair, 0, context)),
    }
    for run, traced in golden.meta.items():
        if isinstance(traced, dict) and "conv_in" in traced:
            check_trace(golden, run, *runs[run], **owners[0].allowed)


def check_trace(golden: Golden, run: str, network: torch.nn.Module, call: Any, **allowed: float) -> None:
    traced = golden.meta[run]
    outputs: dict[str, list[torch.Tensor]] = {name: [] for name in traced}

    def keep(name: str, module: torch.nn.Module, args: Any, output: Any) -> None:
        outputs[name].append(output[0] if isinstance(output, tuple) else output)

    modules = dict(network.named_modules())
    hooks = [modules[name].register_forward_hook(partial(keep, name)) for name in traced]
    call()
    for hook in hooks:
        hook.remove()
    for name, calls in traced.items():
        for output, expected in zip(outputs[name], calls, strict=True):
            shape, first = expected["shape"], expected["first"]
            if output.shape != torch.Size(shape):  # rows of (samples, frames) where the trace keeps frames third
                output = output.unflatten(0, (shape[0], -1)).transpose(1, 2)
            golden.check(f"{run} {name} shape", np.array(output.shape), shape)
            values = output.flatten()
            statistics = torch.stack([values.mean(), values.std(), *values[: len(first)], values[-1]])
            stored = torch.tensor([expected["mean"], expected["std"], *first, expected["last"]])
            golden.check(f"{run} {name}", statistics, stored, **allowed)


@runner("aniportrait", "pose_guider")
def pose_guider(golden: Golden) -> None:
    from PIL import Image

    meta, tolerance = golden.meta, golden.meta["tolerance"]
    guider = build_pose_guider(state_of(golden, meta["manifest"], meta["weight_seed"]), path=golden.path)
    stacked = np.asarray(Image.open(golden.file(meta["input_png"])).convert("RGB"), dtype=np.float32) / 255
    size = meta["H"], meta["W"]
    drawings = torch.from_numpy(stacked).unflatten(0, (-1, size[0]))[: meta["frames"]]
    published, unit = pose_pixels(drawings, size), pose_pixels(drawings, size, published_range=False)

    def features(model: PoseGuider, frames: torch.Tensor, **options: bool) -> list[torch.Tensor]:
        return [x[:, ::n] for x, n in zip(model(frames, **options), meta["channel_stride"], strict=True)]

    results = {
        "train_u8": features(guider, published),
        "train_u8_cfg": features(guider, published.repeat(2, 1, 1, 1, 1)),
        "train_unit": features(guider, unit),
        "eval_unit": features(guider, unit, batch_statistics=False),
        "train_u8_f64": features(guider.double(), published.double()),
    }
    for name in golden.tensors:
        variant, level = name.split(".fea")
        result = results[variant][int(level)]
        if variant in ("eval_unit", "train_u8_f64"):
            allowed = tolerance["eval" if variant == "eval_unit" else variant]
            golden.compare(name, result, atol=allowed["atol"], rtol=allowed["rtol"])
        else:
            # Rounding is amplified in channels that are nearly constant.
            golden.compare_overall(name, result, rms=tolerance["train_fp32"]["rms_relative"])
