"""Audio2Pose: speech to head movement, one frame after the other (AniPortrait, section 3.1).

A transformer decoder whose step i attends to all earlier head poses, nearer ones more (ALiBi, Press et al. 2022), and
of the speech to frame i alone. Attention to a single frame needs no query: it is that frame's value. So the speech
enters each layer as one tensor computed for all frames at once, and, as the poses' attention is causal, keys and values
of past frames are kept: the numbers of running the decoder anew for each frame, at a cost that grows as they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..diffusion.motion_module import sinusoidal_table
from ..speech.encoder import SpeechEncoder

HEADS = 8
IDENTITIES = 100
"""Speakers of the training data, whose ways of moving can be chosen from."""
POSE = 6
"""Euler angles x, y, z in degrees and a translation x, y, z in cm."""


def distance_bias(position: int, heads: int = HEADS) -> torch.Tensor:
    """What attention of frame `position` to frames 0..position is lowered by: (heads, 1, position + 1)."""
    slopes = 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1))
    return slopes[:, None, None] * torch.arange(-position, 1)


class DecoderLayer(nn.Module):
    """One layer of torch's own TransformerDecoderLayer (norms last, ReLU): a step at a time, or whole to learn."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(channels, HEADS)
        self.multihead_attn = nn.MultiheadAttention(channels, HEADS)
        self.linear1 = nn.Linear(channels, inner)
        self.linear2 = nn.Linear(inner, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def project_audio(self, speech: torch.Tensor) -> torch.Tensor:
        """(frames, C) to what attention to each single frame gives, (frames, C)."""
        attention = self.multihead_attn
        channels = speech.shape[-1]
        weight, bias = attention.in_proj_weight[2 * channels :], attention.in_proj_bias[2 * channels :]
        return attention.out_proj(F.linear(speech, weight, bias))

    def step(self, x: torch.Tensor, audio: torch.Tensor, past: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """The next frame (C,). Its key and value go to the last place of `past` (2, heads, frames so far, C / 8)."""
        attention = self.self_attn
        query, key, value = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).view(3, HEADS, -1)
        past[0, :, -1], past[1, :, -1] = key, value
        attended = F.scaled_dot_product_attention(query[:, None], past[0], past[1], attn_mask=bias)
        x = self.norm1(x + attention.out_proj(attended.flatten()))
        x = self.norm2(x + audio)
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))

    def forward(self, x: torch.Tensor, audio: torch.Tensor, bias: torch.Tensor, dropout: float) -> torch.Tensor:
        """All frames (B, frames, C) at once; `bias` (heads, frames, frames) keeps each from those after it."""
        attention = self.self_attn

        def drop(values: torch.Tensor) -> torch.Tensor:
            return F.dropout(values, dropout, self.training)

        projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = rearrange(projected, "b f (three h d) -> three b h f d", three=3, h=HEADS)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        x = self.norm1(x + drop(attention.out_proj(rearrange(attended, "b h f d -> b f (h d)"))))
        x = self.norm2(x + drop(audio))
        return self.norm3(x + drop(self.linear2(drop(F.relu(self.linear1(x))))))


class Decoder(nn.Module):
    """The layers, kept one level down as the published names have them."""

    def __init__(self, channels: int, inner: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(channels, inner) for _ in range(layers)])


class Audio2Pose(nn.Module):
    """A fine-tuned wav2vec2 and the decoder; `audio_encoder` is a wav2vec2 of transformers."""

    def __init__(self, audio_encoder: Any, width: int = 512, inner: int = 1024, layers: int = 8) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        self.in_fn = nn.Linear(audio_encoder.config.hidden_size, width)
        self.pose_map = nn.Linear(POSE, width)
        self.pose_map_r = nn.Linear(width, POSE)
        self.id_embed = nn.Embedding(IDENTITIES, width)
        self.transformer_decoder = Decoder(width, inner, layers)

    @property
    def encoder(self) -> SpeechEncoder:
        """Its speech encoder, ready to be run at 30 frames a second."""
        return SpeechEncoder(self.audio_encoder, "aniportrait-audio2pose")

    def forward(self, states: torch.Tensor, identity: int, *, step: Callable[[], None] = lambda: None) -> torch.Tensor:
        """Head poses (frames, 6), the first three Euler angles in degrees, then cm; any number of frames.

        Args:
            states: the encoder's last hidden states (frames, channels).
            identity: 0..99, whose way of moving.
            step: called after each frame; may raise to stop.

        The published program stops at 600 frames, the length of its stored table of positions; the table goes on here.
        """
        frames = len(states)
        speech = self.in_fn(states)
        layers = cast("list[DecoderLayer]", list(self.transformer_decoder.layers))
        projected = [layer.project_audio(speech) for layer in layers]
        width = speech.shape[-1]
        places = sinusoidal_table(frames, width)[0].to(speech) + self.id_embed.weight[identity]
        past = speech.new_zeros(len(layers), 2, HEADS, frames, width // HEADS)
        poses = speech.new_zeros(frames, POSE)
        previous = speech.new_zeros(POSE)
        for i in range(frames):
            x = self.pose_map(previous) + places[i]
            bias = distance_bias(i).to(speech)
            for layer, audio, cache in zip(layers, projected, past, strict=True):
                x = layer.step(x, audio[i], cache[:, :, : i + 1], bias)
            previous = poses[i] = self.pose_map_r(x)
            step()
        return poses

    def teach(
        self, states: torch.Tensor, poses: torch.Tensor, identities: torch.Tensor, *, dropout: float = 0.0
    ) -> torch.Tensor:
        """What `forward` would give for each frame if the poses before it had been these; with gradients, all at once.

        Args:
            states: the encoder's last hidden states (B, frames, channels).
            poses: (B, frames, 6), the true ones.
            identities: (B,) 0..99.
            dropout: in training mode.
        """
        frames, width = poses.shape[1], self.in_fn.out_features
        speech = self.in_fn(states)
        before = F.pad(poses[:, :-1], (0, 0, 1, 0))
        x = self.pose_map(before) + sinusoidal_table(frames, width).to(poses) + self.id_embed(identities)[:, None]
        x = F.dropout(x, dropout, self.training)
        bias = torch.full((HEADS, frames, frames), -torch.inf)
        for i in range(frames):
            bias[:, i, : i + 1] = distance_bias(i)[:, 0]
        bias = bias.to(poses.device)
        for layer in cast("list[DecoderLayer]", list(self.transformer_decoder.layers)):
            x = layer(x, layer.project_audio(speech), bias, dropout)
        return self.pose_map_r(x)
