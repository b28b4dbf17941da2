"""The networks of Hallo and APasco, one at a time, and both UNets together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from talking_portrait.models.apasco.face_locator import FaceLocator
from talking_portrait.models.apasco.projections import AudioProjection, ImageProjection
from talking_portrait.models.checkpoints import strict_load
from talking_portrait.models.diffusion.attention import Bank, Reference
from talking_portrait.models.diffusion.audio_attention import AudioTransformer, Speech
from talking_portrait.models.diffusion.layout import REGIONS
from talking_portrait.models.diffusion.loading import load_unet
from talking_portrait.models.diffusion.motion_module import MotionModule
from talking_portrait.models.diffusion.unet import UNetConfig

from .goldens import Golden, runner


def state_of(golden: Golden, keys: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The weights that a golden was computed with; tables of positions are left out."""
    filled = golden.weights.make_all(golden.meta["weight_seed"], keys, prefix)
    return {name: torch.from_numpy(np.asarray(value)) for name, value in filled.items()}


def unet_config(config: Mapping[str, Any], *, output: bool) -> UNetConfig:
    """A golden's sizes, in diffusers' terms."""
    base = config["base"]
    extra = config["extra"] if output else {}
    motion = extra.get("motion_module_kwargs") if extra.get("use_motion_module") else None
    return UNetConfig(
        channels=tuple(base["block_out_channels"]),
        attention=tuple(name.startswith("CrossAttn") for name in config["down"]),
        layers=base["layers_per_block"],
        heads=base["attention_head_dim"],
        groups=base["norm_num_groups"],
        context=base["cross_attention_dim"],
        latent=base["in_channels"],
        motion_frames=motion["temporal_position_encoding_max_len"] if motion else 0,
        motion_heads=motion["num_attention_heads"] if motion else 8,
        output=output,
        audio=extra["audio_attention_dim"] if extra.get("use_audio_module") else 0,
    )


def loaded(module: torch.nn.Module, golden: Golden) -> torch.nn.Module:
    strict_load(module, state_of(golden, golden.meta["keys"], golden.meta["prefix"]), path=golden.path)
    return module.eval()


def rows(video: torch.Tensor) -> torch.Tensor:
    """(b, c, f, h, w) to (b f, c, h, w)."""
    return video.transpose(1, 2).flatten(0, 1)


def masks_of(golden: Golden, names: str, size: tuple[int, int], levels: int = 4) -> list[torch.Tensor]:
    """(3, n, height, width) for each level; `names` completes the tensors' names, as in "in.{region}_mask_{level}"."""
    masks = []
    for level in range(levels):
        flat = [golden.tensor(names.format(region=region, level=level)) for region in REGIONS]
        height, width = (-(-side // 2**level) for side in size)
        masks.append(torch.stack([mask.reshape(-1, height, width) for mask in flat]))
    return masks


@runner("apasco", "image_proj")
def image_proj(golden: Golden) -> None:
    config = golden.meta["config"]
    tokens, width = config["clip_extra_context_tokens"], config["cross_attention_dim"]
    module = loaded(ImageProjection(config["clip_embeddings_dim"], width, tokens), golden)
    golden.compare("out.tokens", module(golden.tensor("in.face_emb")))
    zero = torch.zeros(1, config["clip_embeddings_dim"])
    golden.compare("out.tokens_for_zero_embedding", module(zero))


def audio_projection(config: Mapping[str, int]) -> AudioProjection:
    inputs = config["seq_len"] * config["blocks"] * config["channels"]
    return AudioProjection(inputs, config["intermediate_dim"], config["output_dim"], config["context_tokens"])


@runner("apasco", "audio_proj")
def audio_proj(golden: Golden) -> None:
    module = loaded(audio_projection(golden.meta["config"]), golden)
    golden.compare("out.tokens", module(golden.tensor("in.audio_window")))


@runner("apasco", "face_locator")
def face_locator(golden: Golden) -> None:
    config = golden.meta["config"]
    locator = FaceLocator(config["conditioning_embedding_channels"], tuple(config["block_out_channels"]))
    module = loaded(locator, golden)
    golden.compare("out.feature", module(golden.tensor("in.mask_uint8").float() / 255))


@runner("apasco", "audio_block")
def audio_block(golden: Golden) -> None:
    config, x, audio = golden.meta["config"], golden.tensor("in.x"), golden.tensor("in.audio")
    transformer = AudioTransformer(
        config["in_channels"],
        config["inner_dim"],
        config["num_attention_heads"],
        config["norm_num_groups"],
        config["cross_attention_dim"],
    )
    module = loaded(transformer, golden)
    block = transformer.transformer_blocks[0]
    masks = masks_of(golden, "in.{region}_mask", x.shape[-2:], levels=1)
    scale = golden.meta["motion_scale"]
    frames = x.shape[2]

    def run(weights: Any) -> torch.Tensor:
        speech = Speech({"": block.project_audio([audio.flatten(0, 1)], weights)}, masks)
        return module(rows(x), speech, 0).unflatten(0, (-1, frames)).transpose(1, 2)

    golden.compare("out.scaled", run(scale))
    golden.compare("out.no_scale", run((1.0, 1.0, 1.0)))
    golden.compare("out.pose_only", run((1.0, 0.0, 0.0)))


@runner("apasco", "motion_module")
def motion_module(golden: Golden) -> None:
    config, x = golden.meta["config"], golden.tensor("in.x")
    module = MotionModule(config["in_channels"], config["heads"], config["pe_len"])
    state = state_of(golden, golden.meta["keys"], golden.meta["prefix"])
    left = module.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(name.endswith(".pe") for name in left.missing_keys)
    frames = x.shape[2]
    result = module.eval()(rows(x), frames)
    golden.compare("out.y", result.unflatten(0, (-1, frames)).transpose(1, 2))
    # The same with the first frames handed over as those before the clip: only the others come back.
    if frames > 2:
        tokens = x[:, :, :2].permute(0, 2, 3, 4, 1).flatten(2, 3)
        attended = module(rows(x[:, :, 2:]), frames - 2, tokens).unflatten(0, (-1, frames - 2)).transpose(1, 2)
        golden.check("frames before", attended, golden.tensors["out.y"][:, :, 2:], **golden.allowed)
    table = module.state_dict()["temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"]
    for name in golden.tensors:
        if name.startswith("out.pe_first"):
            golden.compare(name, table[0, :frames, : int(name.removeprefix("out.pe_first"))])


def picked(bank: Bank, index: list[int]) -> Bank:
    return {name: tokens[index] for name, tokens in bank.items()}


def guided_reference(unet: Any, bank: Bank, frames: int, motion: int, rounding: torch.dtype | None) -> Reference:
    """A bank of the rows [picture, frames before ...] of two samples, as the published program mixes them up."""
    each = 1 + motion
    reference = unet.read_bank(
        picked(bank, [0, each]),
        unconditional_rows=1,
        order=tuple((frames + k) % 2 for k in range(frames)),
        rounding=rounding,
    )
    before = [row for row in range(2 * each) if row % each]
    return Reference(
        reference.keys_values,
        reference.unconditional_rows,
        reference.order,
        unet.read_motion(picked(bank, before), motion, rounding=rounding),
    )


@runner("apasco", "unet3d")
def unet3d(golden: Golden) -> None:
    meta = golden.meta
    config, time, motion = meta["config"], meta["timestep"], meta["n_motion_frames"]
    denoising, reference = (
        load_unet(
            state_of(golden, meta[f"keys_{name}"], f"{name}_unet."),
            path=golden.path,
            config=unet_config(config, output=name == "denoising"),
        )
        for name in ("denoising", "reference")
    )
    tokens, sample = golden.tensor("in.ehs"), golden.tensor("in.sample")
    latents = golden.tensor("in.ref_latents").repeat(2, 1, 1, 1)[:, :, None]
    tiled = tokens.repeat(1 + motion, 1, 1)
    golden.compare("out.reference_unet_last_hidden", reference(latents, 0, tiled)[:, :, 0])
    bank = reference.write_bank(latents, tiled)
    for name in golden.tensors:
        if name.startswith("out.bank."):
            kept = golden.tensors[name].shape[1]  # the first tokens
            golden.compare(name, bank[name.removeprefix("out.bank.")][:, :kept])

    frames, size = sample.shape[2], tuple(sample.shape[-2:])
    masks = masks_of(golden, "in.{region}_mask_{level}", size, len(config["base"]["block_out_channels"]))
    audio, feature = golden.tensor("in.audio").flatten(0, 1), golden.tensor("in.face_feature")

    def run(weights: Any = meta["motion_scale"], *, empty: bool = False, bank_dtype: Any = None) -> torch.Tensor:
        speech = denoising.project_audio(audio, masks, weights=(*weights, 1.0))
        read = None if empty else guided_reference(denoising, bank, frames, motion, bank_dtype)
        return denoising(sample, time, tokens, pose=[feature], reference=read, speech=speech)

    main = run()
    golden.compare("out.main", main)
    for name in golden.tensors:
        if name.startswith("trap."):
            golden.differs(name, main)
    golden.compare("out.bank_rounded_to_fp16", run(bank_dtype=torch.float16), atol=1e-3, rtol=1e-4)
    golden.compare("out.motion_scale_none", run((1.0, 1.0, 1.0)))
    golden.compare("out.empty_bank_no_cfg", run((1.0, 1.0, 1.0), empty=True))
