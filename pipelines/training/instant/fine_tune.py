"""Trains the mouth network on measured lips in few steps: its acoustic head alone, then all layers but the encoder.

What is compared are curves of the mouth, not controls: the opening, its width, the jaw's drop and the rounding that the
controls make on the mesh. In the second part each crop is predicted twice, the second time over a sound without speech
or with silence beside it, and the second prediction is held to the first; speech activity and lip press are held to
those of the first part, so that what no recording teaches stays. When the lips close is learned last, and apart
(`closures.py`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ....models.speech.acoustic_encoder import AcousticEncoder
from ....models.speech.mouth_network import (
    CONTROLS,
    PRESS,
    AcousticHead,
    MouthNetwork,
    add_acoustic_logits,
    normalise,
)
from ...audio.mouth_states import mouth_logits
from ...errors import MOST, TalkingPortraitError
from ...types import Progress, no_progress
from .crops import LipsCrop, Twin, lips_crop, other_sound, twin
from .lips import CURVES, SpokenLips, mouth_measures
from .mouth import masked, training_copy

UNIT = (0.05, 0.05, 0.03, 0.3)
"""Usual deviation of each of CURVES."""
WEIGHT = {"opening": 1.0, "width": 1.5, "jaw": 0.4, "pucker": 0.4}
SQUARED = {"opening": 1.0, "width": 0.2, "jaw": 0.5, "pucker": 0.3}
SPREAD = {"opening": 0.25, "width": 1.0, "jaw": 0.15, "pucker": 0.1}
"""By curve: its weight in the loss; in it, of the squared error, and of the deviation's own error. A network that only
minimises squared errors moves the less the less it can predict."""
CORRELATION = 0.5
ALIKE, SURE, PRESSED = 2.0, 20.0, 1.0
"""Weights, in the second part, of the difference of both predictions' curves and of the squared change of the logits of
speech activity and of lip press."""
FIRMER = 0.5
"""Added to the logit of lip press after the first part, which weakens it."""
OTHERS = 2
"""Sounds without speech beside each batch of the second part."""


@dataclass(frozen=True)
class Settings:
    """`head_steps` of the head alone at a learning rate of `rate`, then `steps` of all layers but the encoder: the head
    at half of it, the others at `slower` with `dropout`. Steps take `batch` crops, whose sound is varied in a share of
    `varied`. `closure_steps` are those of `learn_closures`."""

    head_steps: int = 80
    steps: int = 240
    batch: int = 6
    rate: float = 2e-3
    slower: float = 4e-4
    dropout: float = 0.15
    varied: float = 0.8
    closure_steps: int = 600
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
    """`start`, which has an acoustic encoder, trained on `clips`; the moving averages of the weights.

    `backgrounds` (`make_backgrounds`) are the sounds without speech.
    `watch` is called with the number of steps of the second part and the network so far, at the end too.
    """
    random = np.random.default_rng([settings.seed, 2])
    torch.manual_seed(settings.seed)
    steps = settings.head_steps + settings.steps
    network = training_copy(start, settings.dropout, 0).eval()
    encoder, head = _acoustic_layers(network)

    def crops() -> list[LipsCrop]:
        return [lips_crop(clips, backgrounds, settings.varied, random) for _ in range(settings.batch)]

    def first_part() -> torch.Tensor:
        power, bands, curves, known = _stacked(crops())
        with torch.no_grad():
            logits, _ = network(masked(normalise(power, network.average)))
            states = encoder(bands)
        return lips_loss(add_acoustic_logits(logits, head(states)), curves, known)

    head.train()
    rates = [(list(head.parameters()), settings.rate)]
    average = optimised(network, rates, settings.head_steps, first_part, lambda step, _: progress(step, steps))
    before = _with_weights(network, average)
    with torch.no_grad():
        _press_bias(before).add_(FIRMER)
    taught = copy.deepcopy(before).train()
    encoder, head = _acoustic_layers(taught)
    encoder.eval()

    def second_part() -> torch.Tensor:
        shown = crops()
        twins = [twin(crop, backgrounds, random) for crop in shown]
        return _loss_of_twins(before, taught, shown, twins, [other_sound(backgrounds, random) for _ in range(OTHERS)])

    def watched(step: int, average: dict[str, torch.Tensor]) -> None:
        progress(settings.head_steps + step, steps)
        if watch is not None and (step % watch_every == 0 or step == settings.steps):
            watch(step, _with_weights(taught, average))

    fast, fixed = set(head.parameters()), set(encoder.parameters())
    slow = [weight for weight in taught.parameters() if weight not in fast | fixed]
    rates = [(list(head.parameters()), settings.rate / 2), (slow, settings.slower)]
    return _with_weights(taught, optimised(taught, rates, settings.steps, second_part, watched))


def _acoustic_layers(network: MouthNetwork) -> tuple[AcousticEncoder, AcousticHead]:
    assert isinstance(network.acoustic_encoder, AcousticEncoder)
    assert network.acoustic_head is not None
    return network.acoustic_encoder, network.acoustic_head


def _press_bias(network: MouthNetwork) -> torch.Tensor:
    bias = _acoustic_layers(network)[1].out.bias
    assert bias is not None
    return bias[PRESS]


def optimised(
    network: torch.nn.Module,
    rates: list[tuple[list[torch.nn.Parameter], float]],
    steps: int,
    loss: Callable[[], torch.Tensor],
    watched: Callable[[int, dict[str, torch.Tensor]], None],
) -> dict[str, torch.Tensor]:
    """Takes `steps` that lower the `loss` of a batch, with the rates of weights; the moving average of all weights."""
    groups = [{"params": weights, "lr": rate} for weights, rate in rates]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(steps):
        for group, (_, rate) in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * _schedule(step, steps)
        optimiser.zero_grad()
        loss().backward()
        for weights, _ in rates:
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        kept = min(0.97, (step + 1) / (step + 5))
        for name, value in network.state_dict().items():
            average[name].lerp_(value, 1 - kept)
        watched(step + 1, average)
    return average


def _loss_of_twins(
    before: MouthNetwork,
    network: MouthNetwork,
    crops: Sequence[LipsCrop],
    twins: Sequence[Twin],
    others: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    """How far the mouth of the crops is from measured lips, that of their twins from theirs, and press and activity
    from what they were before. Measured lips teach no press: it is held, and would only weaken."""
    _, _, curves, known = _stacked(crops)
    power, bands = _stacked([sound[:2] for sound in (*crops, *twins, *others)])
    shared = torch.stack([same for _, _, same in twins])
    mel = masked(normalise(power, network.average))
    encoder, head = _acoustic_layers(network)
    with torch.no_grad():
        states = encoder(bands)
        old = add_acoustic_logits(before(mel)[0], _acoustic_layers(before)[1](states))
        unsure = 4 * torch.sigmoid(old[..., -1]) * torch.sigmoid(-old[..., -1]) + 0.05
    new = add_acoustic_logits(network(mel)[0], head(states))
    sure = (new[..., -1] - old[..., -1]).square() * unsure
    one, two = new[: len(crops)], new[len(crops) : 2 * len(crops)]
    pressed = [(logits[..., PRESS] - old[: len(crops), :, PRESS]).square() for logits in (one, two)]
    taught = torch.cat([one[..., :PRESS], one[..., [PRESS]].detach(), one[..., PRESS + 1 :]], dim=-1)
    return (
        lips_loss(taught, curves, known)
        + ALIKE * _mean(_difference(one.detach(), two), shared)
        + SURE * sure.mean()
        + PRESSED * (pressed[0].mean() + _mean(pressed[1], shared))
    )


def _difference(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """How far apart the curves of two mouths are, squared and weighed, (batch, frames)."""
    weights = torch.tensor([WEIGHT[name] * SQUARED[name] / unit**2 for name, unit in zip(CURVES, UNIT, strict=True)])
    return (_made(one) - _made(two)).square() @ weights


def _made(logits: torch.Tensor) -> torch.Tensor:
    """CURVES (..., 4) of the mouth that logits (..., 7) make."""
    return mouth_measures(torch.sigmoid(logits[..., : len(CONTROLS)]))


def _mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1)


def lips_loss(logits: torch.Tensor, curves: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """How far the mouth that logits (batch, frames, 7) make is from curves (batch, frames, 4) where `known` is 1.

    Squared error, what is missing of the correlation within a crop, and the ratio of deviations.
    """
    made = _made(logits)
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
    made = _made(logits)
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


def _stacked(crops: Sequence[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.stack(part) for part in zip(*crops, strict=True))


def _correlation(
    one: torch.Tensor, other: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Correlation (batch,) over frames with `weight` (batch, frames) 1, and both deviations."""
    count = weight.sum(1, keepdim=True).clamp(min=1)
    one, other = ((rows - (rows * weight).sum(1, keepdim=True) / count) * weight for rows in (one, other))
    variances = [(rows.square()).sum(1) / count[:, 0] for rows in (one, other)]
    alike = (one * other).sum(1) / count[:, 0] / (variances[0] * variances[1] + 1e-9).sqrt()
    return alike, variances[0].clamp(min=1e-9).sqrt(), variances[1].clamp(min=1e-9).sqrt()


def _with_weights(network: MouthNetwork, weights: dict[str, torch.Tensor]) -> MouthNetwork:
    """A copy of the network with these weights."""
    taught = copy.deepcopy(network)
    taught.load_state_dict(weights)
    return taught.eval()
