"""Hallo's sampling: the schedule, and one or two clips from pictures to pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from talking_portrait.models.apasco.networks import Networks, NetworksConfig
from talking_portrait.models.checkpoints import strict_load
from talking_portrait.models.diffusion.loading import complete_tables
from talking_portrait.pipelines.apasco import settings as apasco
from talking_portrait.pipelines.apasco.animate import Run
from talking_portrait.pipelines.apasco.masks import RegionMasks
from talking_portrait.pipelines.diffusion.latents import LATENT_SCALE
from talking_portrait.pipelines.diffusion.samplers import NoiseSchedule, ddim_step, scheduled_betas, trailing_timesteps
from talking_portrait.pipelines.memory import Resident
from talking_portrait.pipelines.training.diffusion.loss import min_snr_weights
from talking_portrait.pipelines.types import SpeechFeatures, no_progress

from .apasco_networks import masks_of, state_of, unet_config
from .goldens import Golden, runner


@runner("apasco", "scheduler")
def scheduler(golden: Golden) -> None:
    meta = golden.meta
    make, seed = golden.weights.make_input, meta["weight_seed"]
    probes, count = torch.tensor(meta["probe_timesteps"]), len(meta["timesteps"])
    golden.check("timesteps", trailing_timesteps(count), meta["timesteps"])
    places = {"n//2": count // 2, "n-2": count - 2, "n-1": count - 1}
    saved = [places[place] if place in places else int(place) for place in meta["saved_steps"].split(",")]
    paths = "out.traj_"
    for kind in [name.removeprefix(paths) for name in golden.tensors if name.startswith(paths)]:
        shape = tuple(golden.tensors[f"{paths}{kind}"].shape[1:])
        drawn = tuple(golden.tensors[f"out.add_noise_{kind}"].shape)
        clean, noise = (torch.from_numpy(make(seed, name, drawn)) for name in ("sched_a", "sched_e"))
        schedule = NoiseSchedule.of(scheduled_betas(kind))
        golden.compare(f"out.alphas_cumprod_{kind}", schedule.alphas_cumprod, atol=1e-6, rtol=0)
        sample = torch.from_numpy(make(seed, "sched_x", shape))
        path = []
        for i, timestep in enumerate(trailing_timesteps(count)):
            velocity = torch.from_numpy(make(seed, f"sched_v{i}", shape))
            sample, _ = ddim_step(velocity, sample, timestep, schedule, count)
            path.append(sample)
        golden.compare(f"out.traj_{kind}", torch.stack([path[i] for i in saved]))
        golden.compare(f"out.add_noise_{kind}", schedule.add_noise(clean, noise, probes))
        golden.compare(f"out.velocity_{kind}", schedule.velocity(clean, noise, probes))
        golden.compare(f"out.snr_{kind}", schedule.snr(probes))
        golden.compare(f"out.minsnr5_weight_{kind}", min_snr_weights(schedule, probes))


def networks_config(meta: Mapping[str, Any]) -> NetworksConfig:
    face, audio = meta["image_proj"], meta["audio_proj"]
    return NetworksConfig(
        reference_unet=unet_config(meta["unet"], output=False),
        denoising_unet=unet_config(meta["unet"], output=True),
        face_embedding=face["clip_embeddings_dim"],
        face_tokens=face["tokens"],
        audio_inputs=audio["seq_len"] * audio["blocks"] * audio["channels"],
        audio_inner=audio["intermediate_dim"],
        audio_tokens=audio["context_tokens"],
    )


def networks_of(golden: Golden, config: NetworksConfig) -> Networks:
    """All networks with the weights that the golden was computed with."""
    networks = Networks(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in networks.state_dict().items()}
    strict_load(networks, complete_tables(networks, state_of(golden, shapes, "")), path=golden.path)
    return networks.eval().requires_grad_(False)


class GoldenCodec:
    """diffusers' own VAE, with the golden's weights."""

    def __init__(self, golden: Golden) -> None:
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL(**golden.meta["config"]["vae"])
        strict_load(self.vae, state_of(golden, golden.meta["keys_vae"], "vae."), path=golden.path)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(2 * pictures.permute(0, 3, 1, 2) - 1).latent_dist.mean * LATENT_SCALE

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return (self.vae.decode(latents / LATENT_SCALE).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class GivenMasks(RegionMasks):
    """Masks whose levels the golden gives itself."""

    given: tuple[torch.Tensor, ...] = ()

    def levels(self, size: tuple[int, int], count: int = 4) -> list[torch.Tensor]:
        return list(self.given)


class RecordedRun(Run):
    """Keeps the latents after each step, and the noise that each clip begins with."""

    def begin(self) -> None:
        self.samples: list[torch.Tensor] = []
        self.noises: list[torch.Tensor] = []

    def stepped(self, step: int, sample: torch.Tensor, clean: torch.Tensor) -> None:
        self.samples.append(sample[0])

    def noise(self, state: apasco.AnimationState | None) -> tuple[torch.Tensor, torch.Generator]:
        noise, generator = super().noise(state)
        self.noises.append(noise)
        return noise, generator


@runner("apasco", "full sampling loop")
def clips(golden: Golden) -> None:
    meta = golden.meta
    source, region = golden.tensor("in.source_u8"), golden.array("in.face_region_u8")
    size = tuple(source.shape[:2])
    latent_size = tuple(side // 8 for side in size)
    networks = apasco.Networks.of(networks_of(golden, networks_config(meta["config"])), Resident)
    levels = len(meta["config"]["unet"]["base"]["block_out_channels"])
    given = masks_of(golden, "in.{region}_{level}", latent_size, levels)
    blank = region[:0]
    inputs = apasco.Inputs(
        portrait=source.float() / 255,
        embedding=golden.tensor("in.face_emb"),
        masks=GivenMasks(region, blank, blank, blank, given=tuple(given)),
        speech=SpeechFeatures(golden.tensor("in.audio_emb"), Fraction(25), "golden", "resampled"),
    )
    seed = re.search(r"manual_seed\((\d+)\)", meta["rng"])
    assert seed
    settings = apasco.Settings(
        size=size,
        clip=meta["frames_per_clip"],
        steps=meta["steps"],
        cfg=meta["guidance_scale"],
        seed=int(seed[1]),
        weights=tuple(meta["motion_scale"]),
        past_frames=meta["n_motion_frames"],
        rounded_bank=False,
    )
    golden.check("timesteps", trailing_timesteps(meta["steps"]), meta["timesteps"])
    codec = GoldenCodec(golden)

    def run(settings: apasco.Settings) -> tuple[list[torch.Tensor], RecordedRun]:
        recorded = RecordedRun(networks, codec, inputs, settings, inputs.speech.states, no_progress)
        recorded.begin()
        made = list(recorded.clips(0, inputs.speech.frames, None))
        assert len(made) == meta["clips"]
        return [clip.frames for clip in made], recorded

    frames, exact = run(settings)
    _, rounded = run(replace(settings, rounded_bank=True))
    for clip in range(meta["clips"]):
        # torch.randn itself rounds otherwise on other processors.
        golden.compare(f"in.noise_clip{clip}", exact.noises[clip], atol=2e-6, rtol=2e-6)
        steps = slice(clip * meta["steps"], (clip + 1) * meta["steps"])
        golden.compare(f"out.latents_clip{clip}_all_steps", torch.stack(exact.samples[steps]))
        golden.compare(f"out.latents_clip{clip}_final_bank_fp16", rounded.samples[steps][-1], atol=1e-2, rtol=1e-2)
    video = (torch.cat(frames).permute(3, 0, 1, 2) * 255).to(torch.uint8)
    golden.compare("out.video_u8", video, atol=2, rtol=0)
    difference = (video.int() - golden.tensors["out.video_u8"].int()).abs()
    golden.check("share of pixels off by two levels", (difference > 1).float().mean(), 0.0, atol=1e-4)
    for clip in range(1, meta["clips"]):
        name = f"out.motion_frames_clip{clip}"
        before = 2 * torch.cat(frames[:clip])[-meta["n_motion_frames"] :].permute(0, 3, 1, 2) - 1
        golden.compare(name, golden.thinned(name, before))
