"""AudioDVP's networks: audio, expression regressor, neural renderer and discriminator."""

from __future__ import annotations

import json
import re

import torch
from talking_portrait.models.audiodvp.audio_to_expression import feature_windows
from talking_portrait.models.audiodvp.expression_regressor import CHANNEL_MEANS
from talking_portrait.models.audiodvp.loading import (
    build_audio_features,
    build_audio_to_expression,
    build_discriminator,
    build_expression_regressor,
    build_neural_renderer,
)
from talking_portrait.models.audiodvp.losses import adversarial_loss

from .goldens import SHARED_GOLDENS, Golden, runner


def state_of(golden: Golden) -> dict[str, torch.Tensor]:
    """The weights that a golden was computed with."""
    meta = golden.meta
    prefix, gain = meta["weight_prefix"], meta.get("gain", 1.0)
    return {
        name: torch.from_numpy(golden.weights.tensor(meta["seed"], prefix + name, shape, gain))
        for name, shape in golden.keys(meta["keys"]).items()
    }


def drawn_input(golden: Golden) -> torch.Tensor:
    """The first inputs(seed, name, shape, kind) in the JSON's text."""
    drawn = golden.matched("input", r"inputs\(seed,\s*'(\w+)',\s*\(([\d, ]+)\),\s*'(\w+)'\)")
    shape = [int(side) for side in drawn[2].split(",") if side.strip()]
    return torch.from_numpy(golden.weights.inputs(golden.meta["seed"], drawn[1], shape, drawn[3]))


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


@runner("personal", "dvp_a2e")
def dvp_a2e(golden: Golden) -> None:
    network = build_audio_to_expression(state_of(golden), path=golden.path)
    frames = [int(frame) for frame in golden.matched("notes", r"windows of frames ([\d,\s]+) of")[1].split(",")]
    windows = feature_windows(golden.tensor("features"), network.config.channels[0])[frames]
    golden.compare("windows", windows)
    golden.compare("delta", network(windows)[..., 0])


@runner("personal", "dvp_atnet")
def dvp_atnet(golden: Golden) -> None:
    network = build_audio_features(state_of(golden), path=golden.path)
    golden.compare("features", network(golden.tensor("mfcc_windows")))


@runner("personal", "dvp_resnet")
def dvp_resnet(golden: Golden) -> None:
    pictures = drawn_input(golden)
    darker = re.search(r"second image times ([\d.]+)", golden.meta["input"])
    if darker:
        pictures[1] *= float(darker[1])
    means = numbers(golden.matched("input", r"minus \[([^]]+)\]")[1])
    golden.check("channel means", torch.tensor(CHANNEL_MEANS), means, atol=1e-6)
    pictures -= torch.tensor(CHANNEL_MEANS)[:, None, None]
    network = build_expression_regressor(state_of(golden), path=golden.path)
    stem = network.pretrained_model.stem(pictures)
    golden.compare("stem_mean", stem.mean((2, 3)))
    _, channels, height, width = golden.tensors["stem_corner"].shape
    golden.compare("stem_corner", stem[:, :channels, -height:, -width:])  # where partial windows are pooled
    golden.compare("feature", network.pretrained_model(pictures))
    found = network(pictures)
    golden.compare("coef", torch.cat(found, 1)[..., 0])
    for name, value in found._asdict().items():
        golden.compare(name, value[..., 0])


def generated(golden: Golden) -> tuple[torch.Tensor, torch.Tensor]:
    """A U-Net golden's input and output."""
    windows = drawn_input(golden)
    return windows, build_neural_renderer(state_of(golden), path=golden.path)(windows)


@runner("personal", "dvp_unet")
def dvp_unet(golden: Golden) -> None:
    _, image = generated(golden)
    first, last = (int(n) for n in golden.matched("notes", r"centre = rows/cols (\d+):(\d+)").groups())
    golden.compare("centre", image[0, :, first:last, first:last])
    if "pooled8" in golden:
        golden.compare("pooled8", torch.nn.functional.avg_pool2d(image[0], 8))
    _, height, width = golden.tensors["corner"].shape
    golden.compare("corner", image[0, :, :height, :width])


def golden_beside(golden: Golden, name: str) -> Golden:
    """The golden of this name in the same set, by its file or by what it calls itself; else the kit's own."""
    for folder in (golden.path.parent, SHARED_GOLDENS / golden.system / "goldens"):
        for path in (folder / f"{name}.json", *sorted(folder.glob("*.json"))):
            if path.is_file():
                other = Golden(golden.system, path, json.loads(path.read_text()))
                if name in (other.name, other.kind):
                    return other
    raise FileNotFoundError(f"{golden} needs the golden {name} beside it")


@runner("personal", "dvp_patchgan")
def dvp_patchgan(golden: Golden) -> None:
    """Of the image that the U-Net of the golden beside this one gives with this golden's seed."""
    unet = golden_beside(golden, golden.kind.replace("patchgan", "unet"))
    unet.meta["seed"] = golden.meta["seed"]
    logits = build_discriminator(state_of(golden), path=golden.path)(*generated(unet))
    golden.compare("logits", logits[0])
    golden.compare("bce_real", adversarial_loss(logits, real=True)[None])
    golden.compare("bce_fake", adversarial_loss(logits, real=False)[None])
