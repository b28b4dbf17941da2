"""Small networks and small clips for tests of training: the real structure, a fraction of the size."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from talking_portrait.models.aniportrait.pose_guider import PoseGuider, PoseGuiderConfig
from talking_portrait.models.diffusion.unet import UNet, UNetConfig
from talking_portrait.pipelines.face.metric_mesh import metric_mesh
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.training.core.trainer import Batch, Trainer, trainable
from talking_portrait.pipelines.training.data.clips import CLIPS, FRAMES, Clip

from .halted_training import HALTED

CONTEXT = 16
PICTURE = UNetConfig(channels=(32, 64, 128, 128), layers=1, context=CONTEXT)
VIDEO = replace(PICTURE, motion_frames=16)
REFERENCE = replace(PICTURE, output=False)
ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 32,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def make_clip(folder: Path, name: str, *, frames: int, fps: int = 30, size: int = 64, person: str = "ann") -> Clip:
    """The shipped portrait, drifting to the right and opening its mouth, with a tone that rises."""
    place = folder / CLIPS / name
    (place / FRAMES).mkdir(parents=True)
    picture, track = example_portrait()
    small = np.asarray(Image.fromarray((picture * 255).byte().numpy()).resize((size, size)))
    rng = np.random.default_rng(len(name))
    points = np.repeat(track.points * size / 512, frames, axis=0)
    points[:, :, 0] += np.arange(frames)[:, None] * 0.1
    points[:, [14, 17], 1] += rng.random((frames, 1)) * size / 40
    vertices, matrix = metric_mesh(points, (size, size))
    arrays = {
        "points": points,
        "vertices": vertices,
        "matrix": matrix,
        "blendshapes": rng.random((frames, 52)),
        "speech": np.sin(np.arange(frames * 16000 // fps) ** 1.2 / 40) * 0.3,
    }
    for kind, array in arrays.items():
        np.save(place / f"{kind}.npy", array.astype(np.float32))
    clip = Clip(place, frames, Fraction(fps), size, person, f"{name}.mp4", 0)
    for i in range(frames):
        Image.fromarray(np.roll(small, i // 4, axis=1)).save(clip.picture_path(i), quality=95)
    clip.describe()
    return clip


def make_work(folder: Path) -> Path:
    """Clips for both systems (`data`, `data25`), and the files that training begins from."""
    make_clip(folder / "data", "a", frames=70, size=128)
    clip = make_clip(folder / "data25", "b", frames=24, fps=25, size=128)
    rng = np.random.default_rng(0)
    np.save(clip.folder / "speech_features.npy", rng.standard_normal((24, 2, 32)).astype(np.float16))
    np.save(clip.folder / "identity.npy", rng.standard_normal(512).astype(np.float32))
    torch.manual_seed(0)
    # The pose guider's real inner width would be most of the work.
    networks = {
        "unet": UNet(PICTURE),
        "vae": vae(),
        "clip": image_encoder(),
        "speech_encoder": speech_encoder(),
        "guider": pose_guider(),
    }
    for name, network in networks.items():
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    return folder


def vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32,) * 4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, patch_size=112, projection_dim=CONTEXT))


def speech_encoder() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**ENCODER))


def pose_guider() -> PoseGuider:
    return PoseGuider(PoseGuiderConfig(channels=32, inner=32))


def portrait_networks(*, motion: bool, seed: int = 0) -> tuple[Any, ...]:
    """Reference UNet, denoising UNet, pose guider, VAE and CLIP, as AniPortrait's trainers take them."""
    torch.manual_seed(seed)
    guider = pose_guider()
    return UNet(REFERENCE), UNet(VIDEO if motion else PICTURE), guider, vae(), image_encoder()


def gradients(trainer: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradient of every parameter that the loss depends on, be it one that only rounding keeps from zero."""
    trainer.train()
    trainer.zero_grad()
    torch.manual_seed(0)
    trainer.loss(batch, 0).backward()
    found = {name: weight.grad for name, weight in trainer.named_parameters() if weight.grad is not None}
    trainer.zero_grad()
    return found


def falls(trainer: Trainer, batch: Batch, rate: float, steps: int) -> float:
    """How many times smaller the loss of one noisy batch has become."""
    trainer.train()
    optimiser = torch.optim.AdamW(trainable(trainer).values(), lr=rate)
    losses = []
    for _ in range(steps):
        torch.manual_seed(0)
        loss = trainer.loss(batch, 0)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    return losses[0] / losses[-1]


def kill(*command: Any) -> None:
    """Runs `python COMMAND`, which halts at a moment as `halted_training.py` does, and kills it there."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        said = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        assert said.strip() == HALTED, process.stderr.read()
    assert process.returncode == -signal.SIGKILL


def in_two_processes(*command: Any) -> None:
    """Runs `python COMMAND` as two processes that train together, and on one thread each."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*start, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def assert_same_log(found: list[dict[str, Any]], expected: list[dict[str, Any]], *, rel: float = 1e-3) -> None:
    """The same steps, and the same rates and losses within rounding, which every step of training enlarges.

    Lengths of gradients are held to a tenth: noise of a weight's last bit moved them by 0.9 % within ten steps of
    SyncAnimation, and losses by 0.004 %; a run that had lost its optimiser's state moved them by 4.5 % and 0.3 %.
    """
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for one, other in zip(found, expected, strict=True):
        for name, value in other.items():
            within = max(rel, 0.1) if name.endswith("gradient") else rel
            assert one[name] == pytest.approx(value, rel=within), f"{name}: {one} is not {other}"
        assert one.keys() == other.keys()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Lines of the log without what time they took."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
