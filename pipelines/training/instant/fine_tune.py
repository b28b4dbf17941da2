"""Trains the mouth network's acoustic head on measured lips, in few steps, chosen by leaving speakers out.

What is compared are curves of the mouth, not controls: the opening, its width, the jaw's drop and the rounding that the
controls make on the mesh. The other layers stay as they are, and with them speech activity.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from ....models.speech.acoustic_encoder import acoustic_filters, acoustic_input
from ....models.speech.mouth_network import (
    CONTROLS,
    MouthNetwork,
    add_acoustic_logits,
    frame_level,
    mel_filters,
    normalise,
    speech_level,
)
from ...audio.mouth_states import mouth_logits
from ...errors import MOST, TalkingPortraitError
from ...types import Progress, no_progress
from .corpus import vary
from .lips import CURVES, SpokenLips, mouth_measures
from .mouth import masked

CROP = 300
"""Control frames in a crop: six seconds."""
UNIT = (0.05, 0.05, 0.03, 0.3)
"""Usual deviation of each of CURVES."""
WEIGHT = {"opening": 1.0, "width": 1.5, "jaw": 0.4, "pucker": 0.4}
SQUARED = {"opening": 1.0, "width": 0.2, "jaw": 0.5, "pucker": 0.3}
SPREAD = {"opening": 0.15, "width": 1.0, "jaw": 0.15, "pucker": 0.1}
"""By curve: its weight in the loss; in it, of the squared error, and of the deviation's own error. A network that only
minimises squared errors moves the less the less it can predict."""
CORRELATION = 0.5


@dataclass(frozen=True)
class Settings:
    """`steps` of `batch` crops at a learning rate of `rate`; `varied` is the share of crops whose sound is varied."""

    steps: int = 80
    batch: int = 6
    rate: float = 2e-3
    varied: float = 0.8
    seed: int = 0


def fine_tune(
    start: MouthNetwork,
    clips: Sequence[SpokenLips],
    settings: Settings,
    backgrounds: list[np.ndarray],
    *,
    progress: Progress = no_progress,
    watch: Callable[[int, MouthNetwork], None] | None = None,
    watch_every: int = 20,
) -> MouthNetwork:
    """`start`, which has an acoustic encoder, with a head trained on `clips`; the moving average of the weights.

    `backgrounds` (`make_backgrounds`) are laid under the varied crops.
    `watch` is called with the number of steps and the network so far, at the end too.
    """
    random = np.random.default_rng([settings.seed, 2])
    torch.manual_seed(settings.seed)
    network = copy.deepcopy(start).eval()
    head, encoder = network.acoustic_head, network.acoustic_encoder
    assert head is not None
    assert encoder is not None
    optimiser = torch.optim.AdamW(head.train().parameters(), settings.rate, betas=(0.9, 0.98), weight_decay=0.01)
    average = {name: value.clone() for name, value in head.state_dict().items()}
    for step in range(settings.steps):
        optimiser.param_groups[0]["lr"] = settings.rate * _schedule(step, settings.steps)
        crops = [_crop(clips, backgrounds, settings.varied, random) for _ in range(settings.batch)]
        power, bands, curves, known = (torch.stack(part) for part in zip(*crops, strict=True))
        with torch.no_grad():
            logits, _ = network(masked(normalise(power, network.average)))
            states = encoder(bands)
        loss = lips_loss(add_acoustic_logits(logits, head(states)), curves, known)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        kept = min(0.97, (step + 1) / (step + 5))
        for name, value in head.state_dict().items():
            average[name].lerp_(value, 1 - kept)
        progress(step + 1, settings.steps)
        if watch is not None and ((step + 1) % watch_every == 0 or step + 1 == settings.steps):
            watch(step + 1, _with_head(network, average))
    return _with_head(network, average)


def lips_loss(logits: torch.Tensor, curves: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """How far the mouth that logits (batch, frames, 7) make is from curves (batch, frames, 4) where `known` is 1.

    Squared error, what is missing of the correlation within a crop, and the ratio of deviations.
    """
    made = mouth_measures(torch.sigmoid(logits[..., : len(CONTROLS)]))
    total = logits.new_zeros(())
    for index, (name, unit) in enumerate(zip(CURVES, UNIT, strict=True)):
        wanted = curves[..., index]
        there = known * torch.isfinite(wanted)
        if not there.any():
            continue
        wanted = torch.nan_to_num(wanted)
        squared = ((made[..., index] - wanted) ** 2 * there).sum() / there.sum() / unit**2
        alike, deviation, usual = _correlation(made[..., index], wanted, there)
        spread = (deviation / usual.clamp(min=0.3 * unit)).log().square().clamp(max=4).mean()
        one = SQUARED[name] * squared + CORRELATION * (1 - alike).mean() + SPREAD[name] * spread
        total = total + WEIGHT[name] * one
    return total


def agreement(network: MouthNetwork, clips: Sequence[SpokenLips]) -> dict[str, float]:
    """Correlation of opening and width with those of the clips, each a mean over clips."""
    found: dict[str, list[float]] = {"opening": [], "width": []}
    for clip in clips:
        with torch.inference_mode():
            logits = mouth_logits(network, clip.sound)[None]
        curves, known = torch.from_numpy(clip.curves)[None], torch.from_numpy(clip.known)[None]
        for name, value in agreement_of(logits, curves, known).items():
            found[name].append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def agreement_of(logits: torch.Tensor, curves: torch.Tensor, known: torch.Tensor) -> dict[str, float]:
    """The same of one clip's logits (1, frames, 7) where `known` (1, frames) is 1."""
    made = mouth_measures(torch.sigmoid(logits[..., : len(CONTROLS)]))
    return {
        name: float(_correlation(made[..., index], curves[..., index], known)[0])
        for index, name in enumerate(("opening", "width"))
    }


def validated(
    start: MouthNetwork,
    clips: Sequence[SpokenLips],
    settings: Settings,
    folds: int,
    backgrounds: list[np.ndarray],
    *,
    progress: Progress = no_progress,
) -> dict[int, dict[str, float]]:
    """Agreement with speakers that were left out, by the number of steps: each speaker is in one of `folds` groups.

    Raises TalkingPortraitError for one group and for more groups than speakers.
    """
    speakers = sorted({clip.speaker for clip in clips})
    if not 2 <= folds <= len(speakers):
        raise TalkingPortraitError(
            f"The speakers are to be left out in {folds} groups, but of {len(speakers)} speakers 2 to {len(speakers)} "
            "groups are possible; give another --folds, or more speakers."
            if len(speakers) > 1
            else "There is one speaker, and none can be left out; leave out --folds, or give more speakers."
        )
    np.random.default_rng(settings.seed).shuffle(speakers)
    rows: dict[int, list[dict[str, float]]] = {}
    for fold in range(folds):
        left_out = set(speakers[fold::folds])
        inside = [clip for clip in clips if clip.speaker not in left_out]
        outside = [clip for clip in clips if clip.speaker in left_out]

        def note(step: int, network: MouthNetwork, outside: list[SpokenLips] = outside) -> None:
            rows.setdefault(step, []).append(agreement(network, outside))

        own = replace(settings, seed=(settings.seed + fold) % (MOST + 1))
        fine_tune(start, inside, own, backgrounds, watch=note)
        progress(fold + 1, folds)
    return {
        step: {name: float(np.mean([row[name] for row in found])) for name in found[0]} for step, found in rows.items()
    }


def _schedule(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 10) * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * step / steps)))


def _crop(
    clips: Sequence[SpokenLips], backgrounds: list[np.ndarray], varied: float, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of a random clip, longer ones more often, with CROP control frames: mel power (2 CROP, mels), encoder input
    (2 CROP, 80), curves (CROP, 4) and known (CROP,)."""
    sizes = np.sqrt([min(len(clip.curves), 1500) for clip in clips])
    clip = clips[random.choice(len(clips), p=sizes / sizes.sum())]
    start = int(random.integers(0, max(1, len(clip.curves) - CROP + 1)))
    rows = slice(2 * start, 2 * (start + CROP))
    power, curves = clip.sound.power[rows].numpy(), clip.curves[start : start + CROP]
    assert clip.sound.acoustic_power is not None
    acoustic, level = clip.sound.acoustic_power[rows], speech_level(frame_level(clip.sound.power))
    if random.random() < varied:
        noise = _noise(power, backgrounds, random)
        power = vary(power + noise, backgrounds, random, True)
        acoustic = acoustic + torch.from_numpy(noise @ _acoustic_bands(power.shape[1]))
        level = level + random.normal(0, 3)
    bands = acoustic_input(acoustic, level)
    quiet = float(np.quantile(power.mean(axis=1), 0.02))
    lacking = 2 * CROP - len(power)
    power = np.pad(power, ((0, lacking), (0, 0)), constant_values=quiet).astype(np.float32)
    bands = torch.nn.functional.pad(bands, (0, 0, 0, lacking), value=float(bands.quantile(0.02)))
    missing = CROP - len(curves)
    known = np.pad(clip.known[start : start + CROP], (0, missing))
    curves = np.pad(curves, ((0, missing), (0, 0)))
    return torch.from_numpy(power), bands, torch.from_numpy(curves), torch.from_numpy(known)


def _noise(power: np.ndarray, backgrounds: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """One time in five a sound near power (frames, mels) in level, else 0: clean recordings teach no noise."""
    if random.random() < 0.8:
        return np.zeros_like(power)
    background = backgrounds[int(random.integers(len(backgrounds)))]
    rows = (int(random.integers(len(background))) + np.arange(len(power))) % len(background)
    loud = np.quantile(power.mean(axis=1), 0.9) / max(float(background[rows].mean()), 1e-9)
    noise: np.ndarray = background[rows] * np.float32(loud * 10 ** -random.uniform(0.6, 2.0))
    return noise


@cache
def _acoustic_bands(mels: int) -> np.ndarray:
    """What takes power in the network's bands to that in the encoder's, (mels, 80): between the centres of bands."""
    own, acoustic = mel_filters(mels).numpy(), acoustic_filters().numpy()
    centres = [filters @ np.linspace(0, 1, filters.shape[1]) / filters.sum(1) for filters in (own, acoustic)]
    return np.stack([np.interp(centres[1], centres[0], one) for one in np.eye(mels)]).astype(np.float32) * acoustic.sum(
        1
    )


def _correlation(
    one: torch.Tensor, other: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Correlation (batch,) over frames with `weight` (batch, frames) 1, and both deviations."""
    count = weight.sum(1, keepdim=True).clamp(min=1)
    one, other = ((rows - (rows * weight).sum(1, keepdim=True) / count) * weight for rows in (one, other))
    variances = [(rows.square()).sum(1) / count[:, 0] for rows in (one, other)]
    alike = (one * other).sum(1) / count[:, 0] / (variances[0] * variances[1] + 1e-9).sqrt()
    return alike, variances[0].clamp(min=1e-9).sqrt(), variances[1].clamp(min=1e-9).sqrt()


def _with_head(network: MouthNetwork, weights: dict[str, torch.Tensor]) -> MouthNetwork:
    """A copy of the network whose acoustic head has these weights."""
    taught = copy.deepcopy(network)
    assert taught.acoustic_head is not None
    taught.acoustic_head.load_state_dict(weights)
    return taught.eval()
