"""AniTalker's motion diffusion: the conformer, the five variants, the sampler."""

from __future__ import annotations

import torch
from talking_portrait.models.anitalker.conformer import Conformer, relative_positions
from talking_portrait.models.anitalker.loading import build_stage2
from talking_portrait.models.anitalker.stage2 import Controls, Stage2
from talking_portrait.pipelines.anitalker.noise import published_noise
from talking_portrait.pipelines.anitalker.sampling import Predict, Schedule, possible_steps, sample, strided_schedule

from .anitalker_stage1 import filled, given
from .goldens import Golden, runner

VARIANT = r"\b((?:hubert|mfcc)_(?:audio_only|pose_only|full_control))\b"


def stage2_of(golden: Golden, variant: str) -> Stage2:
    speech, controls = variant.split("_", 1)
    keys = golden.keys(f"stage2_{controls}_{speech}.inner")["keys"]
    state = golden.weights.fill(keys, golden.meta["seed"])
    model = build_stage2({name: torch.from_numpy(value) for name, value in state.items()}, path=golden.path)
    assert model.config.variant == variant
    return model


def mixed(model: Stage2, audio: torch.Tensor) -> torch.Tensor:
    """Speech features as the network takes them: HuBERT's states (B, layers, rows, C) mixed, MFCC as they are."""
    return torch.einsum("n,bnfc->bfc", model.mix, audio) if model.config.layers else audio


def controls_of(golden: Golden, case: str) -> Controls:
    return Controls(*(given(golden, f"{case}_{name}") for name in ("pose", "loc", "scale")))


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
    (name,) = golden.meta["inputs"]
    x = given(golden, name)
    frames, scaled = x.shape[1], x * width**0.5
    golden.compare("pos_emb", relative_positions(frames, width)[None])
    golden.compare("x_scaled", scaled)
    first, places = model.encoders[0], model.place_keys(frames)
    golden.compare("attn0_on_scaled", first.self_attn(scaled, places[0]))
    query, key = first.self_attn.queries_and_keys(scaled)
    scores = first.self_attn.scores(query, key, places[0], 0, frames)
    golden.compare("attn0_probs", scores.softmax(-1))
    inner = scaled
    for i, (layer, place) in enumerate(zip(model.encoders, places, strict=True)):
        inner = layer(inner, place)
        golden.compare(f"block{i}", inner)
    for name, module in (("conv0", first.conv_module), ("ff0", first.feed_forward)):
        golden.compare(name, module(x))
    golden.compare("out", model(x))


@runner("anitalker", "stage2_")
def stage2(golden: Golden) -> None:
    model = stage2_of(golden, golden.matched("config", VARIANT)[1])
    for case, timesteps in golden.meta["timesteps"].items():
        if f"{case}_audio" not in golden.meta["inputs"]:
            continue
        audio, start, code, noisy = (given(golden, f"{case}_{name}") for name in ("audio", "start", "dir0", "x"))
        audio = mixed(model, audio)
        down = model.encode_audio(audio)
        encoded = model.encode_sequence(down)
        for name, value in (("mix", audio), ("down", down), ("speech", encoded)):
            golden.compare(f"{case}_{name}", value)
        for flag in ("ctl0", "ctl1"):
            if f"{case}_{flag}_eps" not in golden:
                continue
            given_controls = flag == "ctl1" and model.config.pose
            controlled_audio, used = model.apply_controls(
                encoded, controls_of(golden, case) if given_controls else None
            )
            noise = model.predict(model.condition(controlled_audio, start, code), noisy, torch.tensor(timesteps))
            golden.compare(f"{case}_{flag}_eps", noise)
            for name, stored in (("pose", "pose"), ("location", "loc"), ("face_scale", "scale")):
                if name in used:
                    golden.compare(f"{case}_{flag}_pred_{stored}", used[name])


@runner("anitalker", "ddim")
def ddim(golden: Golden) -> None:
    meta, noise = golden.meta, given(golden, "ddim_noise")
    golden.check("possible steps", sorted({possible_steps(n) for n in range(2, 1001)}), meta["valid_step_T"])
    formula = golden.matched("config", r"eps = (\S+) tanh\((\S+)x \+ (\S+) t\) \+ (\S+) cos\((\S+)x\)")
    height, slope, per_step, ripple, rate = map(float, formula.groups())

    def fake(x: torch.Tensor, timestep: int) -> torch.Tensor:
        return height * torch.tanh(slope * x + per_step * timestep) + ripple * torch.cos(rate * x)

    for steps, stored in meta["stored_iterations"].items():
        schedule = strided_schedule(int(steps))
        golden.compare(f"fake_{steps}_timesteps", torch.tensor(schedule.timesteps))
        golden.compare(f"fake_{steps}_abar", schedule.alphas_cumprod)
        golden.compare(f"fake_{steps}_abar_prev", schedule.alphas_cumprod_prev)
        xs, cleans = traced(fake, noise, schedule)
        golden.compare(f"fake_{steps}_x", xs[stored], **meta["tol_fake"])
        golden.compare(f"fake_{steps}_x0", cleans[stored], **meta["tol_fake"])

    model = stage2_of(golden, golden.matched("config", VARIANT)[1])
    encoded = model.encode_sequence(model.encode_audio(mixed(model, given(golden, "ddim_audio"))))
    controlled = {"ddim_pose", "ddim_loc", "ddim_scale"} <= set(meta["inputs"])
    controlled_audio, _ = model.apply_controls(encoded, controls_of(golden, "ddim") if controlled else None)
    condition = model.condition(controlled_audio, given(golden, "ddim_start"), given(golden, "ddim_dir0"))

    def predict(x: torch.Tensor, timestep: int) -> torch.Tensor:
        return model.predict(condition, x, torch.full((len(x),), timestep))

    steps = int(golden.matched("config", r"step_T (\d+)")[1])
    xs, cleans = traced(predict, noise, strided_schedule(steps))
    golden.compare("net_x", xs)
    golden.compare("net_x0", cleans)


def traced(predict: Predict, noise: torch.Tensor, schedule: Schedule) -> tuple[torch.Tensor, torch.Tensor]:
    """The sample and the clean one it foresees, after each step."""
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    sample(predict, noise, schedule, callback=lambda done, x, clean: steps.append((x, clean)))
    return torch.stack([x for x, _ in steps]), torch.stack([clean for _, clean in steps])


@runner("anitalker", "noise_legacy")
def noise_legacy(golden: Golden) -> None:
    seed = int(golden.matched("config", r"seed (\d+)")[1])
    for variant, stored in golden.tensors.items():
        with torch.device("meta"):  # only how many numbers there are counts
            model = stage2_of(golden, variant)
        # torch.randn itself rounds otherwise on other processors, by more than the golden's 1e-6.
        golden.compare(variant, published_noise(model, stored.shape[1], seed), atol=2e-6, rtol=2e-6)
