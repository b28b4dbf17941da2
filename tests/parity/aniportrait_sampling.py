"""AniPortrait's sampling: pictures in, schedules, windows, the whole denoising loop, frames in between, training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from talking_portrait.models.aniportrait.loading import build_pose_guider
from talking_portrait.models.checkpoints import strict_load
from talking_portrait.pipelines.aniportrait.denoising import Denoiser, denoise
from talking_portrait.pipelines.aniportrait.pictures import clip_pixels, pose_pixels, reference_pixels
from talking_portrait.pipelines.aniportrait.pose import PoseGuidance, WindowFeatures
from talking_portrait.pipelines.diffusion.context_windows import uniform_windows
from talking_portrait.pipelines.diffusion.latents import LATENT_SCALE
from talking_portrait.pipelines.diffusion.samplers import NoiseSchedule, ddim_step, scheduled_betas, trailing_timesteps
from talking_portrait.pipelines.image.frame_interpolation import fill_gap
from talking_portrait.pipelines.memory import Resident
from talking_portrait.pipelines.training.diffusion.loss import min_snr_weights, velocity_loss

from .aniportrait_networks import reference_unet_of, state_of, unet_of
from .goldens import Golden, runner


def schedule_of(options: dict[str, Any]) -> NoiseSchedule:
    assert options["prediction_type"] == "v_prediction"
    assert options["timestep_spacing"] == "trailing"
    betas = scheduled_betas(
        options["beta_schedule"],
        start=options["beta_start"],
        end=options["beta_end"],
        steps=options.get("num_train_timesteps", 1000),
        zero_terminal_snr=options["rescale_betas_zero_snr"],
    )
    return NoiseSchedule.of(betas)


@runner("aniportrait", "ddim")
def ddim(golden: Golden) -> None:
    options, steps = golden.meta["scheduler_kwargs"], golden.meta["steps"]
    schedule = schedule_of(options)
    golden.compare("betas", schedule.betas)
    golden.compare("alphas_cumprod", schedule.alphas_cumprod)
    for count, timesteps in golden.meta["timesteps"].items():
        golden.check(f"timesteps of {count}", trailing_timesteps(int(count), schedule.steps), timesteps)
    sample = golden.tensor("x0")
    for i, timestep in enumerate(trailing_timesteps(steps, schedule.steps)):
        sample, _ = ddim_step(golden.tensor(f"v{i}"), sample, timestep, schedule, steps)
        golden.compare(f"x{i + 1}", sample)


@runner("aniportrait", "context_uniform")
def context_uniform(golden: Golden) -> None:
    for case in golden.meta["cases"]:
        windows = uniform_windows(
            case["frames"], case["context"], case["overlap"], stride=case["stride"], step=case["step"]
        )
        name = ", ".join(f"{key} {value}" for key, value in case.items() if key != "windows")
        golden.check(name, windows, case["windows"])


@runner("aniportrait", "image_preprocess")
def image_preprocess(golden: Golden) -> None:
    from PIL import Image

    size = golden.meta["H"], golden.meta["W"]
    picture = Image.open(golden.file(golden.meta["input_png"])).convert("RGB")

    def pixels(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)

    drawing = picture.resize(size[::-1])
    results = {
        "ref_pixels": reference_pixels(pixels(picture), size),
        "pose_u8": torch.from_numpy(np.array(drawing)),
        "pose_tensor": pose_pixels(pixels(drawing)[None], size)[:, :, 0],
        "pose_resized": pose_pixels(pixels(picture)[None], size)[:, :, 0],
        "clip_pixels": clip_pixels(pixels(picture)),
    }
    for name in golden.tensors:
        result = golden.thinned(name, results[name.rpartition("_s")[0]])
        allowed = golden.meta["tolerance"].get(name)
        if allowed:  # Pillow's passes differ between versions, and single pixels with them
            golden.compare_overall(name, result, mean=allowed["mean_abs"])
        else:
            golden.compare(name, result)


class Case:
    """Networks and inputs of the whole loop."""

    def __init__(self, golden: Golden) -> None:
        from diffusers import AutoencoderKL
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        meta = golden.meta
        self.golden, self.config = golden, meta["config"]
        config, manifests, seeds = self.config, meta["manifests"], meta["weight_seeds"]
        self.reference_unet = reference_unet_of(
            golden, config["unet"], manifests["reference_unet"], seeds["reference_unet"]
        )
        self.denoising_unet = unet_of(
            golden,
            config["unet"],
            manifests["denoising_unet"],
            seeds["denoising_unet"],
            output=True,
            motion=config["unet_additional_kwargs"]["motion_module_kwargs"],
        )
        self.vae = AutoencoderKL(**config["vae"])
        strict_load(self.vae, state_of(golden, manifests["vae"], seeds["vae"]), path=golden.path)
        self.clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**config["clip"]))
        unused = [r".*position_ids$"]  # a buffer in older libraries
        strict_load(self.clip, state_of(golden, manifests["clip"], seeds["clip"]), path=golden.path, unused=unused)
        self.size = config["H"], config["W"]
        self.windows = uniform_windows(config["F"], config["ctx"], config["ov"])
        self._features: dict[tuple[str, str], Any] = {}

    def picture(self, name: str) -> torch.Tensor:
        from PIL import Image

        pixels = np.asarray(Image.open(self.golden.file(name)).convert("RGB"), dtype=np.float32)
        return torch.from_numpy(pixels / 255)

    def features(self, norm: str, pixels: str) -> Any:
        """What the pose guider makes of the drawings, once for all variants alike."""
        if (norm, pixels) not in self._features:
            meta = self.golden.meta
            state = state_of(self.golden, meta["manifests"]["pose_guider"], meta["weight_seeds"]["pose_guider"])
            guider = Resident(build_pose_guider(state, path=self.golden.path))
            drawings = self.picture(meta["pose_png"]).unflatten(0, (-1, self.size[0]))[: self.config["F"]]
            guidance = PoseGuidance(
                guider,
                drawings,
                self.size,
                batch_statistics=norm == "train",
                published_range=pixels == "2*u8-1",
            )
            self._features[norm, pixels] = WindowFeatures(guidance, 2**30)
        return self._features[norm, pixels]

    def denoiser(self, variant: dict[str, Any], latents: torch.Tensor, token: torch.Tensor, **options: Any) -> Denoiser:
        return Denoiser(
            Resident(self.denoising_unet),
            self.reference_unet.write_bank(latents[:, :, None], token),
            token,
            self.features(variant["pose_bn"], variant["pose_input"]),
            cfg=variant["guidance_scale"],
            bank_rounding=torch.float16 if variant["bank_dtype"] == "torch.float16" else None,
            sum_overlaps=True,
            **options,
        )


@runner("aniportrait", "pipeline_e2e")
def pipeline_e2e(golden: Golden) -> None:
    case, steps, variants = Case(golden), golden.meta["config"]["steps"], golden.meta["variants"]
    schedule, noise = schedule_of(golden.meta["config"]["scheduler"]), golden.tensor("noise")
    portrait = case.picture(golden.meta["ref_png"])
    encoded = case.vae.encode(reference_pixels(portrait, case.size)).latent_dist.mean * LATENT_SCALE
    golden.compare("ref_latents", encoded)
    embedding = case.clip(clip_pixels(portrait)).image_embeds
    golden.compare("clip_embed", embedding)
    golden.check("windows", case.windows, golden.meta["windows"])

    results = {}
    for name, variant in variants.items():
        denoiser, runs = case.denoiser(variant, encoded, embedding[:, None]), []
        for window in range(len(case.windows)):
            if (stored := f"{name}.pred_step0_win{window}") in golden:
                predicted = denoiser.predict(noise, trailing_timesteps(steps)[0], case.windows[window : window + 1])
                golden.compare(stored, predicted)

        def compare(done: int, sample: torch.Tensor, clean: torch.Tensor, name: str = name) -> None:
            golden.compare(f"{name}.latents{done}", sample)

        def count(done: int, total: int, preview: torch.Tensor | None = None, runs: list[int] = runs) -> None:
            if preview is None:
                runs.append(total)

        results[name] = denoise(
            denoiser, noise, lambda step: case.windows, steps, schedule=schedule, callback=compare, progress=count
        )
        golden.check(f"{name} UNet calls", runs, [variant["unet_calls"]] * variant["unet_calls"])

    for name in golden.tensors:
        variant, _, kind = name.partition(".")
        if kind.startswith("video"):  # of the first and the last frame
            frames = results[variant][0].transpose(0, 1)[[0, -1]]
            video = (case.vae.decode(frames / LATENT_SCALE).sample / 2 + 0.5).clamp(0, 1)
            golden.compare(name, golden.thinned(name, video.transpose(0, 1)[None]))


@runner("aniportrait", "film_order")
def film_order(golden: Golden) -> None:
    """The golden's network is a straight line between its two frames, in half precision."""
    tolerance = golden.meta["tolerance"]
    for row in golden.meta["rows"]:
        count, calls = row["inter_frames"], []

        def between(first: torch.Tensor, last: torch.Tensor, time: float, calls: list[Any] = calls) -> torch.Tensor:
            time_half = torch.tensor(time, dtype=torch.float16)
            calls.append([first.item(), last.item(), time_half.item()])
            return first + (last - first) * time_half

        values = golden.matched("note", r"constant frames ([-.\d]+(?:, [-.\d]+)*)")[1].split(", ")
        keys = [torch.tensor(float(value), dtype=torch.float16) for value in values]
        frames = [frame for a, b in zip(keys, keys[1:], strict=False) for frame in fill_gap(a, b, count, between)]
        frames.append(keys[-1])
        golden.check(f"calls for {count}", calls[:count], row["calls_first_gap"], atol=tolerance)
        golden.check(f"length for {count}", len(frames), row["out_frames"])
        golden.check(f"frames for {count}", torch.stack(frames), row["out_values"], atol=tolerance)


@runner("aniportrait", "train_math")
def train_math(golden: Golden) -> None:
    schedule = schedule_of(golden.meta["scheduler_kwargs"])
    clean, noise, times = (golden.tensor(name) for name in ("latents", "noise", "timesteps"))
    gamma = golden.meta["snr_gamma"]
    golden.compare("alphas_cumprod", schedule.alphas_cumprod)
    golden.compare("noisy", schedule.add_noise(clean, noise, times))
    golden.compare("velocity", schedule.velocity(clean, noise, times))
    golden.compare("snr_plus_1", schedule.snr(times) + 1)
    golden.compare("weight", min_snr_weights(schedule, times, gamma))
    loss = velocity_loss(golden.tensor("pred"), clean, noise, times, schedule, gamma=gamma)
    golden.compare("loss", loss[None])
