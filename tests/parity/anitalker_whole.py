"""AniTalker from a portrait and speech features to frames, and the pictures at both ends."""

from __future__ import annotations

import re
from fractions import Fraction

import torch
from talking_portrait.pipelines.anitalker.controls import HeadControls
from talking_portrait.pipelines.anitalker.motion import generate_motion
from talking_portrait.pipelines.anitalker.portrait import portrait_pixels, prepare_portrait
from talking_portrait.pipelines.anitalker.rendering import render
from talking_portrait.pipelines.audio.mfcc import mfcc
from talking_portrait.pipelines.image.resizing import resized_on_bytes
from talking_portrait.pipelines.memory import Resident
from talking_portrait.pipelines.types import Audio, SpeechFeatures

from .anitalker_stage1 import given, stage1_of
from .anitalker_stage2 import stage2_of
from .goldens import Golden, runner


@runner("anitalker", "preprocess")
def preprocess(golden: Golden) -> None:
    picture = golden.tensor("src_u8").float() / 255
    size = golden.tensors["resized_u8"].shape[:2]
    resized = resized_on_bytes(picture, (size[0], size[1]), "BICUBIC")[0].permute(1, 2, 0)
    golden.compare("resized_u8", (resized * 255).round().byte(), atol=0, rtol=0)
    golden.compare("tensor", portrait_pixels(picture[None], size[0]))
    golden.compare("frame_u8", published_bytes(golden.tensor("frame_float")), atol=0, rtol=0)


def published_bytes(frames: torch.Tensor) -> torch.Tensor:
    """As the published program, and ComfyUI's own Save Image, round: down."""
    return (frames.clamp(-1, 1) + 1).div(2).mul(255).byte()


@runner("anitalker", "e2e")
def whole(golden: Golden) -> None:
    config, allowed = golden.meta["config"], golden.meta["tol_codes"]
    stage1, stage2 = Resident(stage1_of(golden)), Resident(stage2_of(golden, config["infer_type"]))
    frames, size = config["F"], stage1.module.size
    # The published program squeezes a picture that is no square, which `prepare_portrait` refuses.
    squeezed = resized_on_bytes(golden.tensor("portrait_u8").float() / 255, (size, size), "BICUBIC")
    portrait = prepare_portrait(stage1, squeezed[0].permute(1, 2, 0))
    golden.compare("start", portrait.start, **allowed)
    golden.compare("dir0", portrait.code, **allowed)
    if "wave" in golden:
        features = mfcc(Audio(golden.tensor("wave")[None], 16000), recipe="anitalker")
        golden.compare("audio_driven", features.states[:, 0][None])
    else:
        states = given(golden, "e2e_audio")[0].transpose(0, 1)
        features = SpeechFeatures(states, Fraction(50), "hubert-large", "paired")
    controls = None
    if config["control_flag"] and config["infer_type"] != "hubert_audio_only":  # which ignores them
        pose = (-90 * config["yaw"], 90 * config["pitch"], 90 * config["roll"])
        controls = HeadControls.constant(*pose, config["face_location"], config["face_scale"]).signals(frames)
    trace: list[torch.Tensor] = []
    motion = generate_motion(
        stage2,
        features,
        portrait,
        controls=controls,
        steps=config["step_T"],
        noise=given(golden, "e2e_noise"),
        callback=lambda done, x, clean: trace.append(x),
    )
    golden.check("frames", len(motion.codes), frames)
    golden.compare("codes", motion.codes[None], **allowed)
    golden.compare("x_iters", torch.stack(trace), **allowed)
    pictures = torch.cat(list(render(stage1, portrait, motion))).permute(0, 3, 1, 2)
    for index, picture in enumerate(pictures):
        golden.compare(f"frame{index}", 2 * picture[None] - 1)
    for name in golden.tensors:
        if thin := re.fullmatch(r"frame(\d+)_u8(_ds\d+)?", name):
            thinned, limits = golden.thinned(name, pictures[int(thin[1])].mul(255).byte()), golden.meta["tol_u8"]
            golden.compare(name, thinned, atol=limits["max"])
            golden.compare_overall(name, thinned, mean=limits["mean"])
