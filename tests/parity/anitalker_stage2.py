"""AniTalker's motion diffusion: the conformer, the five variants, the sampler."""

from __future__ import annotations

import re

import torch
from talking_portrait.models.anitalker.conformer import Conformer, relative_positions
from talking_portrait.models.anitalker.loading import build_stage2
from talking_portrait.models.anitalker.stage2 import Controls, Stage2
from talking_portrait.pipelines.anitalker.noise import published_noise
from talking_portrait.pipelines.anitalker.sampling import (
    Predict,
    Schedule,
    possible_steps,
    sample,
    strided_schedule,
)

from .anitalker_stage1 import filled, given
from .goldens import Golden, runner

FILES = {"hubert_audio_only": "audio_only_hubert", "hubert_pose_only": "pose_only_hubert",
         "hubert_full_control": "full_control_hubert", "mfcc_pose_only": "pose_only_mfcc",
         "mfcc_full_control": "full_control_mfcc"}  # fmt: skip


def stage2_of(golden: Golden, variant: str) -> Stage2:
    keys = golden.keys(f"stage2_{FILES[variant]}.inner")["keys"]
    state = golden.weights.fill(keys, golden.meta["seed"])
    model = build_stage2({name: torch.from_numpy(value) for name, value in state.items()}, path=golden.path)
    assert model.config.variant == variant
    return model


@runner("anitalker", "conformer")
def conformer(golden: Golden) -> None:
    shapes = golden.meta["manifest"]
    prefix = next(iter(shapes)).partition(".")[0]
    block = f"{prefix}.encoders.0."
    inner, width = shapes[block + "feed_forward.w_1.weight"]
    model = Conformer(
        width,
        inner=inner,
        heads=shapes[block + "self_attn.pos_bias_u"][0],
        kernel=shapes[block + "conv_module.depthwise_conv.weight"][-1],
        blocks=1 + max(int(name.split(".")[2]) for name in shapes),
    )
    model = filled(golden, model, prefix, "plain")
    x = given(golden, f"{prefix}_x")
    frames, scaled = x.shape[1], x * width**0.5
    golden.compare("pos_emb", relative_positions(frames, width)[None])
    golden.compare("x_scaled", scaled)
    first, places = model.encoders[0], model.place_keys(frames)
    golden.compare("attn0_on_scaled", first.self_attn(scaled, places[0]))
    golden.compare("attn0_probs", first.self_attn.scores(scaled, places[0]).softmax(-1))
    golden.compare("block0", first(scaled, places[0]))
    for name, module in (("conv0", first.conv_module), ("ff0", first.feed_forward)):
        golden.compare(name, module(x))
    golden.compare("out", model(x))


@runner("anitalker", "stage2_")
def stage2(golden: Golden) -> None:
    model = stage2_of(golden, golden.kind.removeprefix("stage2_"))
    for case, timesteps in golden.meta["timesteps"].items():
        if f"{case}_audio" not in golden.meta["inputs"]:
            continue
        audio, start, code, location, scale, pose, noisy = (
            given(golden, f"{case}_{name}") for name in ("audio", "start", "dir0", "loc", "scale", "pose", "x")
        )
        if model.config.layers:
            audio = torch.einsum("n,bnfc->bfc", model.mix, audio)
        down = model.listen(audio)
        heard = model.understand(down)
        for name, value in (("mix", audio), ("down", down), ("speech", heard)):
            if f"{case}_{name}" in golden:
                golden.compare(f"{case}_{name}", value)
        for flag, controls in (("ctl0", None), ("ctl1", Controls(pose, location, scale))):
            if f"{case}_{flag}_eps" not in golden:
                continue
            told, used = model.direct(heard, controls)
            noise = model.predict(model.scene(told, start, code), noisy, torch.tensor(timesteps))
            golden.compare(f"{case}_{flag}_eps", noise)
            for name, stored in (("pose", "pose"), ("location", "loc"), ("face_scale", "scale")):
                if f"{case}_{flag}_pred_{stored}" in golden:
                    golden.compare(f"{case}_{flag}_pred_{stored}", used[name])


@runner("anitalker", "ddim")
def ddim(golden: Golden) -> None:
    meta, noise = golden.meta, given(golden, "ddim_noise")
    golden.check("possible steps", sorted({possible_steps(n) for n in range(2, 1001)}), meta["valid_step_T"])
    tolerance = meta["tol_fake"]
    for steps, stored in meta["stored_iterations"].items():
        schedule = strided_schedule(int(steps))
        golden.compare(f"fake_{steps}_timesteps", torch.tensor(schedule.timesteps))
        golden.compare(f"fake_{steps}_abar", schedule.kept)
        golden.compare(f"fake_{steps}_abar_prev", schedule.before)

        def fake(x: torch.Tensor, timestep: int) -> torch.Tensor:
            return 0.9 * torch.tanh(0.7 * x + 0.001 * timestep) + 0.1 * torch.cos(3 * x)

        xs, cleans = traced(fake, noise, schedule)
        golden.compare(f"fake_{steps}_x", xs[stored], **tolerance)
        golden.compare(f"fake_{steps}_x0", cleans[stored], **tolerance)
    model = stage2_of(golden, "hubert_audio_only")
    heard = model.understand(model.listen(torch.einsum("n,bnfc->bfc", model.mix, given(golden, "ddim_audio"))))
    scene = model.scene(heard, given(golden, "ddim_start"), given(golden, "ddim_dir0"))
    schedule = strided_schedule(len(golden.tensors["net_x"]))
    xs, cleans = traced(lambda x, timestep: model.predict(scene, x, torch.tensor([timestep])), noise, schedule)
    golden.compare("net_x", xs)
    golden.compare("net_x0", cleans)


def traced(predict: Predict, noise: torch.Tensor, schedule: Schedule) -> tuple[torch.Tensor, torch.Tensor]:
    """The sample and the clean one it foresees, after each step."""
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    sample(predict, noise, schedule, callback=lambda done, x, clean: steps.append((x, clean)))
    return torch.stack([x for x, _ in steps]), torch.stack([clean for _, clean in steps])


@runner("anitalker", "noise_legacy")
def noise_legacy(golden: Golden) -> None:
    seed = re.search(r"seed (\d+)", golden.meta["config"])
    assert seed, "the configuration does not say which seed"
    for variant, stored in golden.tensors.items():
        with torch.device("meta"):  # only how many numbers there are counts
            model = stage2_of(golden, variant)
        # torch.randn itself rounds otherwise on other processors, by more than the golden's 1e-6.
        golden.compare(variant, published_noise(model, stored.shape[1], int(seed[1])), atol=2e-6, rtol=2e-6)
