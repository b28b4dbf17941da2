"""A training step of each stage: prediction, loss and gradients."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import torch
from talking_portrait.models.apasco.face_locator import FaceLocator
from talking_portrait.models.apasco.projections import ImageProjection
from talking_portrait.models.checkpoints import strict_load
from talking_portrait.models.diffusion.loading import complete_tables
from talking_portrait.models.diffusion.unet import UNet
from talking_portrait.pipelines.training.apasco.diffusion import clip_loss, clip_velocity, picture_velocity
from talking_portrait.pipelines.training.diffusion.loss import min_snr_weights, training_schedule, velocity_loss

from .apasco_networks import audio_projection, masks_of, state_of, unet_config
from .goldens import Golden, runner

_NORM = {"rtol": 1e-3}
_AUDIO_AND_MOTION = (".audio_modules.", ".motion_modules.")


def parts_of(golden: Golden, stage: str) -> SimpleNamespace:
    """The networks of a stage. Sizes of projections, which the golden does not state, are those of its set's clips."""
    config = golden.meta[stage]["config"]
    beside = [*sorted(golden.path.parent.glob("*_clip*.json")), golden.kit("goldens/one_clip.json")]
    sizes = json.loads(beside[0].read_text())["config"]
    face = sizes["image_proj"]
    base = config["base"]
    parts = SimpleNamespace(
        reference_unet=UNet(unet_config(config, output=False)),
        denoising_unet=UNet(unet_config(config, output=True)),
        face_locator=FaceLocator(base["block_out_channels"][0]),
        imageproj=ImageProjection(face["clip_embeddings_dim"], base["cross_attention_dim"], face["tokens"]),
        audioproj=audio_projection(sizes["audio_proj"]),
    )
    for name, module in vars(parts).items():
        shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
        strict_load(module, complete_tables(module, state_of(golden, shapes, f"{name}.")), path=golden.path)
    return parts


def named_parameters(parts: SimpleNamespace) -> dict[str, torch.nn.Parameter]:
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in vars(parts).items()
        for name, parameter in module.named_parameters()
    }


def check_gradients(golden: Golden, stage: str, parts: SimpleNamespace) -> None:
    meta, parameters = golden.meta[stage], named_parameters(parts)
    norms = {name: p.grad.norm() for name, p in parameters.items() if p.grad is not None}
    without = [name for name in parameters if name not in norms]
    golden.check(f"{stage} with gradient", len(norms), meta["n_params_with_grad"])
    golden.check(f"{stage} without gradient", len(without), meta["params_without_grad_count"])
    assert first_components(without) == set(meta["params_without_grad_first_component"])
    total = torch.stack(list(norms.values())).square().sum().sqrt()
    golden.check(f"{stage} total norm", total, meta["total_grad_norm"], **_NORM)
    for name, norm in meta["sample_grad_norms"].items():
        golden.check(f"{stage} {name}", norms[name], norm, **_NORM, atol=1e-7)


def first_components(names: Iterable[str]) -> set[str]:
    return {".".join(name.split(".")[:2]) for name in names}


def compare(golden: Golden, name: str, *values: Any) -> None:
    for part, value in zip(("noisy", "target", "pred"), values, strict=True):
        golden.compare(f"out.{name}.{part}", value)


@runner("apasco", "train_forward")
def train_forward(golden: Golden) -> None:
    with torch.enable_grad():
        stage1(golden)
        stage2(golden)


def stage1(golden: Golden) -> None:
    meta, schedule = golden.meta["stage1"], training_schedule()
    times = torch.tensor(golden.meta["timesteps"])
    parts = parts_of(golden, "stage1")
    clean, noise = golden.tensor("in.s1.latents"), golden.tensor("in.s1.noise")
    noisy = schedule.add_noise(clean, noise, times)
    prediction = picture_velocity(
        parts,  # type: ignore[arg-type]
        noisy,
        times,
        golden.tensor("in.s1.mask_u8").float() / 255,
        golden.tensor("in.s1.face_emb"),
        golden.tensor("in.s1.ref_latents"),
    )
    compare(golden, "s1", noisy, schedule.velocity(clean, noise, times), prediction)
    golden.check("stage1 weights", min_snr_weights(schedule, times), meta["snr_weight"], rtol=1e-4)
    loss = velocity_loss(prediction, clean, noise, times, schedule)
    golden.check("stage1 loss", loss, meta["loss"], rtol=1e-4)
    loss.backward()
    check_gradients(golden, "stage1", parts)


def stage2(golden: Golden) -> None:
    meta, schedule = golden.meta["stage2"], training_schedule()
    times = torch.tensor(golden.meta["timesteps"])
    parts = parts_of(golden, "stage2")
    for name, parameter in named_parameters(parts).items():
        learns = name.startswith("denoising_unet.") and any(part in name for part in _AUDIO_AND_MOTION)
        parameter.requires_grad_(learns or name.startswith("audioproj."))
    clean, noise = golden.tensor("in.s2.latents"), golden.tensor("in.s2.noise")
    noisy = schedule.add_noise(clean, noise, times)
    levels = len(meta["config"]["base"]["block_out_channels"])
    prediction = clip_velocity(
        parts,  # type: ignore[arg-type]
        noisy,
        times,
        golden.tensor("in.s2.mask_u8").float() / 255,
        golden.tensor("in.s2.face_emb"),
        golden.tensor("in.s2.ref_latents").unflatten(0, (len(clean), -1)),
        golden.tensor("in.s2.audio_window"),
        masks_of(golden, "in.s2.{region}_{level}", tuple(clean.shape[-2:]), levels),
        mixed_rows=True,
    )
    compare(golden, "s2", noisy, schedule.velocity(clean, noise, times), prediction)
    golden.check("stage2 weights", min_snr_weights(schedule, times), meta["snr_weight"], rtol=1e-4)
    loss = clip_loss(prediction, clean, noise, times, schedule)
    golden.check("stage2 loss", loss, meta["loss"], rtol=1e-4)
    loss.backward()
    check_gradients(golden, "stage2", parts)
