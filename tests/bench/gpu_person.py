"""The rows of the graphics card benchmark for systems that are trained for one person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..models.audiodvp import face
from ..models.syncanimation.networks import POSE, conditions

if TYPE_CHECKING:
    from .gpu import Bench, Row

FACE_SIDE = 189
"""Vertices along each side of a mesh with as many as AudioDVP's face model, 35709, or nearly."""
TRAINING_RAYS = 65536
"""Of a published training step."""


def renderer(bench: Bench) -> Any:
    """SyncAnimation's renderer of the published sizes; its head is an ellipsoid in a third of the picture."""
    from talking_portrait.models.syncanimation.rendering.fields import HeadConfig, HeadField, TorsoConfig, TorsoField
    from talking_portrait.models.syncanimation.rendering.occupancy import GRID, cell_places
    from talking_portrait.models.syncanimation.rendering.renderer import Renderer

    torch.manual_seed(0)
    made = Renderer(HeadField(HeadConfig(codes=2)), TorsoField(TorsoConfig(codes=2)))
    for name, tensor in made.named_parameters():
        if name.endswith("embeddings"):
            tensor.normal_(0, 0.5)
    x, y, z = cell_places(torch.arange(GRID**3)).unbind(1)
    distance = (x / 0.7) ** 2 + (y / 0.45) ** 2 + (z / 0.6) ** 2
    made.occupancy.density.copy_(((distance < 1) & (distance > 0.2)).view(GRID, GRID, GRID) * 20.0)
    made.torso_occupancy.density[:, GRID // 2 :] = 1.0
    return made.to(bench.device)


def camera(side: int) -> Any:
    from talking_portrait.models.syncanimation.rendering.camera import Camera

    return Camera(1.2 * side, 1.2 * side, side / 2, side / 2, side, side)


def syncanimation_march(bench: Bench, row: Row) -> None:
    """Head and torso over a background, the head's networks in half precision, as a long speech is driven."""
    from talking_portrait.models.syncanimation.rendering.tri_plane import can_compile

    made, view = renderer(bench).requires_grad_(False), camera(48 if bench.tiny else 512)
    row.frames = 2 if bench.tiny else 16
    made.head.compiled = can_compile(bench.device, made.head.config.grid)
    pose = POSE.to(bench.device)
    audio, expression = (values.to(bench.device) for values in conditions())
    background = torch.rand(view.height, view.width, 3).to(bench.device)

    def run() -> None:
        for _ in range(row.frames):
            made.render_frame(view, pose, audio, expression, background, dtype=bench.dtype).image.cpu()

    bench.measure(row, run)


def syncanimation_step(bench: Bench, row: Row) -> None:
    """Forward, backward and the optimiser's step for the rays of one frame; a frame a second is a step a second."""
    from talking_portrait.models.syncanimation.losses import head_loss
    from talking_portrait.models.syncanimation.rendering.camera import rays
    from talking_portrait.models.syncanimation.rendering.tri_plane import can_compile

    count = 256 if bench.tiny else TRAINING_RAYS
    made, view = renderer(bench), camera(48 if bench.tiny else 512)
    made.head.compiled = can_compile(bench.device, made.head.config.grid)
    row.frames = 1 if bench.tiny else 8
    row.precision = "float32" if bench.tiny else "float32, networks bfloat16"
    optimiser = torch.optim.AdamW(made.head.parameter_groups(), betas=(0.0, 0.99), eps=1e-8)
    pose = POSE.to(bench.device)
    _, expression = (values.to(bench.device) for values in conditions())
    speech = torch.randn(1, 8, 1024, 2).to(bench.device)

    def step() -> None:
        pixels = torch.randint(view.pixels, (count,), device=bench.device)
        target = torch.rand(count, 3, device=bench.device)
        face_pixels = torch.rand(count, device=bench.device) > 0.5
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=not bench.tiny):
            audio = made.head.encode_audio(speech).float()
            noise = torch.rand(count, device=bench.device)
            shown = made.render_head(rays(view, pose, pixels), audio, expression, target, noise=noise)
        loss = head_loss(shown, target, face_pixels, face_pixels, 0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def run() -> None:
        with torch.enable_grad():
            for _ in range(row.frames):
                step()

    bench.measure(row, run)


def audiodvp(bench: Bench, row: Row) -> None:
    """The rasteriser draws the lower face of each frame; the neural renderer takes seven of them for one."""
    from talking_portrait.models.audiodvp.neural_renderer import NeuralRenderer, NeuralRendererConfig

    from .gpu_rows import fill

    side, row.frames, batch = (32, 4, 2) if bench.tiny else (256, 64, 16)
    config = NeuralRendererConfig(base_channels=8, downs=4) if bench.tiny else NeuralRendererConfig()
    with torch.device("meta"):
        network = NeuralRenderer(config)
    network = fill(network, bench.device, bench.dtype)
    rows = 9 if bench.tiny else FACE_SIDE
    model = face.face_model(rows, rows).to(bench.device)
    poses = face.coefficients(row.frames + 6)
    moved = type(poses)(**{name: value.to(bench.device) for name, value in vars(poses).items()})
    row.precision = f"float32, U-Net {str(bench.dtype).removeprefix('torch.')}"

    def drawn(first: int) -> torch.Tensor:
        last = first + batch + 6
        values = {name: value[first:last] if len(value) > 1 else value for name, value in vars(moved).items()}
        return model.render(type(moved)(**values), (side, side), lower=True).image

    def run() -> None:
        for first in range(0, row.frames, batch):
            images = (drawn(first) * 2 - 1).to(bench.dtype)
            windows = torch.cat([images[number : number + batch] for number in range(7)], 1)
            network(windows).cpu()

    bench.measure(row, run)
