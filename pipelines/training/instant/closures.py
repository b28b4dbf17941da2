"""Trains when the lips close: a head for lip press on the acoustic encoder's states, and the network's own last layer.

Two kinds of speech teach it: synthetic speech, whose p, b, m, f and v have exact times, and measured lips, which close
less often than an accurate list of phones says, and more softly.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ....models.speech.mouth_network import FRAME_RATE, PRESS, MouthNetwork, add_acoustic_logits, normalise
from ...audio.mouth_states import SpeechSound, in_chunks, in_segments
from ...progress import share
from ...types import Progress, no_progress
from .crops import FRAMES, with_background
from .fine_tune import optimised
from .lips import SpokenLips
from .synthetic.corpus import Spoken
from .synthetic.targets import mouth_targets, stress

BATCH = 3
"""Crops of each kind of speech in a step."""
RATE = 2e-3
OVER_SOUND = 0.5
"""Share of the utterances that have a sound without speech below them."""
CLOSED, UNSURE = 0.15, 0.3
"""Shares of a speaker's range: lips less open are closed, and up to the second it is uncertain whether they are."""
LONGEST = 0.3
"""Seconds: lips that stay closed for longer rest, which is no closure of speech."""
HALF_SURE = 0.3
"""Weight of uncertain frames."""
LESS = 0.55
"""Taken from the logit of lip press afterwards: what synthetic speech closes, real lips may only bring near. Chosen so
that 95 % of p, b, m close, and a recording that is 50 dB too quiet closes the lips where the normal one does."""


@dataclass(frozen=True)
class _Taught:
    """Speech as the closures' layers take it: the network's `logits` (frames,) of lip press before, its `hidden` states
    (frames, channels) and those of its acoustic encoder, `states` (frames, channels); lip `press` (frames,) in 0..1 and
    its `weight`."""

    logits: torch.Tensor
    hidden: torch.Tensor
    states: torch.Tensor
    press: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(cls, network: MouthNetwork, sound: SpeechSound, press: np.ndarray, weight: np.ndarray) -> _Taught:
        with torch.no_grad():
            mel = normalise(sound.power, network.average)
            hidden = in_chunks(network, mel, lambda network, mel: network.last_state(mel))
            states = in_segments(network, sound, lambda states: states)
            logits = add_acoustic_logits(network.head(hidden), network.acoustic_logits(states[None])[0])
        return cls(
            logits[:, PRESS], hidden, states.half(), torch.from_numpy(press).float(), torch.from_numpy(weight).float()
        )

    def crop(self, random: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """FRAMES of it, zeros after its end."""
        start = int(random.integers(max(1, len(self.press) - FRAMES + 1)))
        rows = (self.logits, self.hidden, self.states, self.press, self.weight)
        parts = (each[start : start + FRAMES] for each in rows)
        return tuple(torch.cat([part.float(), part.new_zeros(FRAMES - len(part), *part.shape[1:])]) for part in parts)


class _Layers(nn.Module):
    """What is added to the logits of lip press: a row to that of the network's last layer, and the closure head."""

    def __init__(self, network: MouthNetwork) -> None:
        super().__init__()
        assert network.closure_head is not None
        self.own = nn.Linear(network.head.in_features, 1)
        for parameter in self.own.parameters():
            nn.init.zeros_(parameter)
        self.head = copy.deepcopy(network.closure_head)

    def forward(self, logits: torch.Tensor, hidden: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        closed: torch.Tensor = logits + (self.own(hidden) + self.head(states))[..., 0]
        return closed

    def put_into(self, network: MouthNetwork) -> None:
        assert network.closure_head is not None
        with torch.no_grad():
            network.head.weight[PRESS] += self.own.weight[0]
            network.head.bias[PRESS] += self.own.bias[0] - LESS
        network.closure_head.load_state_dict(self.head.state_dict())


def learn_closures(
    start: MouthNetwork,
    clips: Sequence[SpokenLips],
    corpus: Sequence[Spoken],
    backgrounds: list[np.ndarray],
    *,
    steps: int,
    seed: int = 0,
    progress: Progress = no_progress,
) -> MouthNetwork:
    """`start`, which has an acoustic encoder, with a closure head that `clips` and the `corpus` of synthetic speech,
    which has `acoustic` bands, have taught; of all else nothing changes. Without a corpus the clips alone teach it.
    """
    random = np.random.default_rng([seed, 3])
    torch.manual_seed(seed)
    network = with_closure_head(start)
    encoding = share(progress, 0.0, 0.5)
    measured = [_Taught.of(network, clip.sound, *measured_closures(clip)) for clip in clips]
    spoken = []
    for number, one in enumerate(corpus):
        sound, press = _spoken_sound(one, backgrounds, random)
        spoken.append(_Taught.of(network, sound, press, np.ones_like(press)))
        encoding(number + 1, len(corpus))
    layers = _Layers(network).train()

    def loss() -> torch.Tensor:
        total = torch.zeros(())
        for kind in (measured, spoken):
            if not kind:
                continue
            crops = [kind[int(random.integers(len(kind)))].crop(random) for _ in range(BATCH)]
            *given, press, weight = (torch.stack(part) for part in zip(*crops, strict=True))
            entropy = nn.functional.binary_cross_entropy_with_logits(layers(*given), press, reduction="none")
            total = total + (entropy * weight).sum() / weight.sum().clamp(min=1)
        return total

    training = share(progress, 0.5, 1.0)
    rates = [(list(layers.parameters()), RATE)]
    layers.load_state_dict(optimised(layers, rates, steps, loss, lambda step, _: training(step, steps)))
    layers.put_into(network)
    return network


def with_closure_head(start: MouthNetwork) -> MouthNetwork:
    """A copy of the network with a new closure head, which adds nothing yet."""
    network = MouthNetwork(replace(start.config, closure_head=True, dropout=0.0, phones=0))
    others = ("phone_head.", "closure_head.")
    weights = {name: value for name, value in start.state_dict().items() if not name.startswith(others)}
    network.load_state_dict(weights, strict=False)
    return network.eval()


def measured_closures(clip: SpokenLips) -> tuple[np.ndarray, np.ndarray]:
    """Lip press (frames,), 1 where measured lips close for a moment of speech, and how much each frame tells of it."""
    from scipy.ndimage import label

    known = clip.known > 0
    opening = clip.curves[:, 0]
    span = float(np.quantile(opening[known], 0.95))
    closed = opening < CLOSED * span
    weight = clip.known * np.where(~closed & (opening < UNSURE * span), HALF_SURE, 1.0)
    runs, count = label(closed)
    lengths = np.bincount(runs, minlength=count + 1)
    resting = closed & (lengths[runs] > LONGEST * FRAME_RATE)
    return (closed & ~resting).astype(np.float32), np.where(resting, 0.0, weight).astype(np.float32)


def _spoken_sound(
    spoken: Spoken, backgrounds: list[np.ndarray], random: np.random.Generator
) -> tuple[SpeechSound, np.ndarray]:
    """An utterance as the network takes it, and its lip press (frames at 50 Hz,)."""
    assert spoken.acoustic is not None
    power, acoustic = (torch.from_numpy(10 ** rows.astype(np.float32)) for rows in (spoken.mel, spoken.acoustic))
    if random.random() < OVER_SOUND:
        power, acoustic = with_background(power, acoustic, backgrounds, random)
    stressed = stress(spoken.mel, spoken.phones, spoken.edges)
    controls, _, _ = mouth_targets(spoken.phones, spoken.edges, stressed, len(spoken.mel))
    return SpeechSound(power, acoustic), controls[::2, PRESS]
