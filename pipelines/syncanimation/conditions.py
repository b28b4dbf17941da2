"""From speech to what each frame is rendered from: the camera's pose, the upper face and the speech around the frame.

Piece by piece, so that memory does not grow with the length. Two things that the public program does are done on
request only: the emotion syncer's speech is the training's, not that which is to be spoken, and its reference are the
labels of the training's frames one after the other, not the first frame's. With the autoregressive reference the pose
syncer gets what it predicted for the frame before, as in its training it gets that frame's pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ...models.syncanimation.audio_nets import speech_windows
from ...models.syncanimation.labels import (
    BROWS,
    POSE,
    euler_to_matrix,
    raw_labels,
    smooth_expressions,
    smooth_poses,
)
from ..person.head_frames import forwards_and_backwards
from ..person.speech import Encoder
from ..types import Audio
from .blinks import whole_blinks
from .closed_lips import closing
from .person_model import PersonModel
from .speech import SpeechPiece, speech_pieces

Reference = Literal["first frame", "noise", "published", "autoregressive"]
REFERENCES: tuple[Reference, ...] = ("first frame", "noise", "published", "autoregressive")
Smoothing = Literal["centred", "causal", "none"]
SMOOTHINGS: tuple[Smoothing, ...] = ("centred", "causal", "none")
"""Of poses: over the 11 frames around each; over the 17 up to each (published), by which the head lags 0.3 s."""
ROUNDING = 1e-4
"""Radians or metres by which a pose may lie outside of the limits."""
DRAW_FRAMES = 25
"""Frames between two draws of the noise, which turns from one to the next: drawn anew in each, it would tremble."""


@dataclass(frozen=True)
class Conditions:
    """Of consecutive frames: camera-to-world matrices `c2w` (n, 4, 4), `expressions` (n, 7), `windows` (n, 8, C, S).

    `closed` (n,) in 0..1 is how far the mouth is closed for silence.
    """

    c2w: torch.Tensor
    expressions: torch.Tensor
    windows: torch.Tensor
    closed: torch.Tensor


@dataclass(frozen=True)
class PoseLabels:
    """Normalised poses `labels` (n, 6) of consecutive frames from number `first` on."""

    first: int
    labels: torch.Tensor


@torch.no_grad()
def conditions(
    model: PersonModel,
    audio: Audio,
    encoder: Encoder | None = None,
    *,
    poses: torch.Tensor | None = None,
    expressions: torch.Tensor | None = None,
    reference: Reference = "first frame",
    smoothing: Smoothing = "centred",
    seed: int = 0,
    close_in_silence: bool = True,
) -> Iterator[Conditions]:
    """Those of all frames of the speech; `poses` (F, 4, 4) and `expressions` (F, 7) replace the predicted ones."""
    labels: PoseLabels | None = None
    silence = closing(model, audio, wanted=close_in_silence)
    for piece in speech_pieces(audio, model.video.fps, model.speech, encoder):
        here = slice(piece.start, piece.stop)
        numbers = torch.arange(piece.start - piece.first, piece.stop - piece.first)
        if poses is None:
            labels = pose_labels(model, piece, reference, seed, labels)
            c2w = smoothed_poses(model, piece, labels, smoothing)
        else:
            c2w, _ = limited_poses(model, poses[here])
        yield Conditions(
            c2w,
            predicted_expressions(model, piece, reference, seed)
            if expressions is None
            else limited_expressions(model, expressions[here]),
            speech_windows(piece.features, numbers),
            silence[here],
        )


def predicted_poses(model: PersonModel, piece: SpeechPiece, smoothing: Smoothing = "centred") -> torch.Tensor:
    """Poses (n, 4, 4) of the frames of a piece, from its speech and the first frame of the training."""
    return smoothed_poses(model, piece, pose_labels(model, piece), smoothing)


def pose_labels(
    model: PersonModel,
    piece: SpeechPiece,
    reference: Reference = "first frame",
    seed: int = 0,
    before: PoseLabels | None = None,
) -> PoseLabels:
    """What the pose syncer predicts for the features of a piece; `before` is what it did for the piece before."""
    audio = model.networks.speech_map(piece.features.flatten(1))
    numbers = piece.first + np.arange(len(audio))
    syncer = model.networks.pose_syncer
    noise = held_noise(numbers, syncer.config.code, seed, "pose")
    first = model.first[:POSE]
    if reference != "autoregressive":
        return PoseLabels(
            piece.first, syncer(audio, _reference(first, numbers, reference, seed, "pose reference"), noise)
        )
    low, high = model.statistics.normalise_raw(model.limits)[:, :POSE]
    previous = (first if before is None or not piece.first else before.labels[piece.first - 1 - before.first])[None]
    labels = []
    for one, code in zip(audio.split(1), noise.split(1), strict=True):
        previous = syncer(one, previous, code).clamp(low, high)
        labels.append(previous)
    return PoseLabels(piece.first, torch.cat(labels))


def smoothed_poses(model: PersonModel, piece: SpeechPiece, predicted: PoseLabels, smoothing: Smoothing) -> torch.Tensor:
    """Poses (n, 4, 4) of the frames of a piece, within the limits."""
    poses, _ = limited_poses(model, model.statistics.poses(predicted.labels))
    if smoothing != "none":
        poses = smooth_poses(poses, causal=smoothing == "causal")
    return poses[piece.start - piece.first : piece.stop - piece.first]


def predicted_expressions(
    model: PersonModel, piece: SpeechPiece, reference: Reference = "first frame", seed: int = 0
) -> torch.Tensor:
    """Expressions (n, 7) of the frames of a piece: brows smoothed, blinks whole."""
    labels = expression_labels(model, piece.features, piece.first, reference, seed)
    expressions = smooth_expressions(model.statistics.expressions(labels))
    rest = model.rest_expression[BROWS:]
    blinks = whole_blinks(expressions[:, BROWS:], model.blinks, rest, model.video.fps)
    expressions = limited_expressions(model, torch.cat([expressions[:, :BROWS], blinks], 1))
    return expressions[piece.start - piece.first : piece.stop - piece.first]


def expression_labels(
    model: PersonModel, features: torch.Tensor, first: int = 0, reference: Reference = "first frame", seed: int = 0
) -> torch.Tensor:
    """Normalised labels (N, 7) that the emotion syncer predicts for features (N, C, S) of frames from `first` on."""
    syncer = model.networks.emotion_syncer
    audio = model.networks.speech_map(features.flatten(1))
    numbers = first + np.arange(len(audio))
    average = model.statistics.average_expression.expand(len(audio), -1)
    # The network knows the frames of the training by number, and no later ones.
    trained = torch.from_numpy(forwards_and_backwards(len(model.video.usable), len(audio), first))
    if reference == "published":
        audio = model.labels.audio[trained]
        reference_labels = model.statistics.normalise(model.labels.c2w, model.labels.expressions)[trained, POSE:]
    else:
        reference_labels = _reference(model.first[POSE:], numbers, reference, seed, "expression reference")
    code = held_noise(numbers, syncer.config.code, seed, "expression")
    return syncer(audio, average, reference_labels, trained, code)


def limited_poses(model: PersonModel, c2w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses (n, 4, 4) within what was trained, and which of them (n,) were outside."""
    raw = raw_labels(c2w, c2w.new_zeros(len(c2w), 1))[:, :POSE]
    low, high = model.limits[:, :POSE]
    inside = raw.clamp(low, high)
    limited = c2w.clone()
    limited[:, :3, :3], limited[:, :3, 3] = euler_to_matrix(inside[:, :3]), inside[:, 3:]
    outside = ((inside - raw).abs() > ROUNDING).any(1)
    return torch.where(outside[:, None, None], limited, c2w), outside


def limited_expressions(model: PersonModel, expressions: torch.Tensor) -> torch.Tensor:
    low, high = model.limits[:, POSE:]
    return expressions.clamp(low, high)


def _reference(first: torch.Tensor, numbers: np.ndarray, kind: Reference, seed: int, name: str) -> torch.Tensor:
    if kind == "noise":
        return held_noise(numbers, len(first), seed, name)
    return first.expand(len(numbers), -1)


def held_noise(numbers: np.ndarray, size: int, seed: int, name: str) -> torch.Tensor:
    """Normal noise (n, size) of frames with these numbers, which turns slowly from one draw to the next.

    It depends on the frame's number, the seed and the name alone, whatever piece the frame is in.
    """
    low, stop = int(numbers[0]) // DRAW_FRAMES, int(numbers[-1]) // DRAW_FRAMES + 2
    key = [ord(letter) for letter in name]
    draws = np.stack([np.random.default_rng([seed, *key, draw]).standard_normal(size) for draw in range(low, stop)])
    place, part = np.divmod(numbers - low * DRAW_FRAMES, DRAW_FRAMES)
    angle = np.pi / 2 * part[:, None] / DRAW_FRAMES
    return torch.from_numpy(np.cos(angle) * draws[place] + np.sin(angle) * draws[place + 1]).float()
