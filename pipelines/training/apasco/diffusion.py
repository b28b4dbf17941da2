"""What the networks of APasco and Hallo predict in training, and the loss: one picture, then clips with speech.

The published program lays out the pictures of a batch one after the other, but gives face tokens and references to rows
in turn, so that in a batch of several people identities are mixed up. `mixed_rows` does the same, for comparison
with it; without, every row gets its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from ....models.diffusion.attention import Reference
from ....models.diffusion.unet import UNet
from ...diffusion.samplers import NoiseSchedule
from ..diffusion.loss import min_snr_weights


class Parts(Protocol):
    """The networks that a stage needs, by their names in net.pth."""

    @property
    def reference_unet(self) -> UNet: ...

    @property
    def denoising_unet(self) -> UNet: ...

    @property
    def face_locator(self) -> nn.Module: ...

    @property
    def imageproj(self) -> nn.Module: ...

    @property
    def audioproj(self) -> nn.Module: ...


def picture_velocity(
    parts: Parts,
    noisy: torch.Tensor,
    times: torch.Tensor,
    region: torch.Tensor,
    embedding: torch.Tensor,
    reference: torch.Tensor | None,
) -> torch.Tensor:
    """Stage 1: the velocity of single pictures (B, 4, 1, h, w) at time steps (B,).

    Args:
        region: of the face (B, 3, 1, H, W) in 0..1.
        embedding: of the face (B, 512), zeros for unconditional samples.
        reference: latents (B, 4, h, w) of another picture of the same person, None for unconditional steps.
    """
    tokens, pose = parts.imageproj(embedding), [parts.face_locator(region)]
    read = None
    if reference is not None:
        bank = parts.reference_unet.write_bank(reference[:, :, None], tokens)
        read = parts.denoising_unet.read_bank(bank, rounding=None)
    return parts.denoising_unet(noisy, times, tokens, pose=pose, reference=read)


def clip_velocity(
    parts: Parts,
    noisy: torch.Tensor,
    times: torch.Tensor,
    region: torch.Tensor,
    embedding: torch.Tensor,
    pictures: torch.Tensor | None,
    windows: torch.Tensor,
    masks: Sequence[torch.Tensor],
    *,
    mesh: torch.Tensor | None = None,
    silent: bool = False,
    unconditional: bool = False,
    mixed_rows: bool = False,
) -> torch.Tensor:
    """Stage 2: the velocity of clips (B, 4, F, h, w) at time steps (B,).

    Args:
        region: of the face (B, 3, F or 1, H, W) in 0..1.
        embedding: of the face (B, 512).
        pictures: latents (B, 1 + n, 4, h, w) of the reference picture and the n frames before the clip; None for
            unconditional steps.
        windows: speech features around each frame (B, F, WINDOW, layers, channels).
        masks: (3, B * F or B, h', w') in 0..1 for each resolution.
        mesh: tokens of the mesh encoder (B, F, n, width).
        silent: audio tokens of zeros, as unconditional samples have them.
        unconditional: as in sampling: silent, an embedding and a region of zeros, and of the pictures only those before
            the clip are attended to.
    """
    frames = noisy.shape[2]
    tokens = parts.imageproj(torch.zeros_like(embedding) if unconditional else embedding)
    audio = parts.audioproj(windows).flatten(0, 1)
    if silent or unconditional:
        audio = torch.zeros_like(audio)
    feature = parts.face_locator(region).expand(-1, -1, frames, -1, -1)
    pose = [torch.zeros_like(feature) if unconditional else feature]
    speech = parts.denoising_unet.project_audio(audio, masks, mesh=None if mesh is None else mesh.flatten(0, 1))
    read = None if pictures is None else _read_pictures(parts, pictures, tokens, frames, mixed_rows)
    if read is not None and unconditional:
        read = replace(read, unconditional_rows=len(noisy))
    return parts.denoising_unet(noisy, times, tokens, pose=pose, reference=read, speech=speech)


def _read_pictures(
    parts: Parts, pictures: torch.Tensor, tokens: torch.Tensor, frames: int, mixed_rows: bool
) -> Reference:
    samples, each = pictures.shape[:2]
    faces = tokens.repeat(each, 1, 1) if mixed_rows else tokens.repeat_interleave(each, 0)
    bank = parts.reference_unet.write_bank(pictures.flatten(0, 1)[:, :, None], faces)
    rows = {name: x.unflatten(0, (samples, each)) for name, x in bank.items()}
    order = tuple(row % samples for row in range(samples * frames)) if mixed_rows else ()
    unet = parts.denoising_unet
    read = unet.read_bank({name: x[:, 0] for name, x in rows.items()}, order=order, rounding=None)
    before = {name: x[:, 1:].flatten(0, 1) for name, x in rows.items()}
    return replace(read, motion=unet.read_motion(before, each - 1, rounding=None))


def clip_loss(
    prediction: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor, schedule: NoiseSchedule
) -> torch.Tensor:
    """The second stage's loss: the mean squared error of all velocities, times the mean weight of their time steps.

    Published so; `velocity_loss` weighs each sample by its own.
    """
    target = schedule.velocity(clean, noise, times)
    error = F.mse_loss(prediction.float(), target.float())
    return error * min_snr_weights(schedule, times).to(error.device).mean()
