"""One person's own way of speaking: the mouth network's last layers, fitted to a short recording, as far as that helps.

Half a minute of lips is little: a fit of the whole network follows the recording and nothing else. So the body stays as
it is, and of the way from the old layers to the fitted ones at most three quarters are gone: the share that helped most
where it helped least, of the parts of the recording that a fit had not been shown. That share can be 0.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ....models.speech.mouth_network import CONTROLS, PRESS, MouthNetwork, add_acoustic_logits, normalise
from ...audio.mouth_states import in_segments
from ...types import Progress, no_progress
from .fine_tune import agreement_of, lips_loss
from .lips import SpokenLips

PARTS = 3
"""Parts of each recording, of which one at a time is left out."""
SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
RATE = 2e-3
NEAR = 30.0
"""Weight of the distance from the old layer."""
WIDTH = 0.5
"""Weight of the width's correlation beside the opening's, where shares are compared."""


def fit_own_way(
    start: MouthNetwork, clips: Sequence[SpokenLips], steps: int, progress: Progress = no_progress
) -> tuple[MouthNetwork, float]:
    """The network of a person whose recordings are `clips`, and the share of the fit that is in it."""
    seen = [_Seen(start, clip) for clip in clips]
    scores = np.zeros((PARTS, len(SHARES)))
    for part in range(PARTS):
        fitted = _fitted(start, [(one, one.known * (one.part != part)) for one in seen], steps)
        for place, share in enumerate(SHARES):
            mixed = _mixed(LastLayers(start), fitted, share)
            scores[part, place] = sum(one.score(mixed, one.known * (one.part == part)) for one in seen)
        progress(part + 1, PARTS + 1)
    share = SHARES[int((scores - scores[:, :1]).min(axis=0).argmax())]
    network = copy.deepcopy(start)
    last = _mixed(LastLayers(start), _fitted(start, [(one, one.known) for one in seen], steps), share)
    network.head = last.head
    if network.acoustic_head is not None and last.out is not None:
        network.acoustic_head.out = last.out
    progress(PARTS + 1, PARTS + 1)
    return network.eval(), share


class LastLayers(nn.Module):
    """Copies of the last layers of a network and of its acoustic head; they return the logits of a clip."""

    def __init__(self, network: MouthNetwork) -> None:
        super().__init__()
        self.head = copy.deepcopy(network.head)
        self.out = None if network.acoustic_head is None else copy.deepcopy(network.acoustic_head.out)

    def forward(self, seen: _Seen) -> torch.Tensor:
        logits: torch.Tensor = self.head(seen.hidden)
        return logits if self.out is None else add_acoustic_logits(logits, self.out(seen.acoustic).transpose(1, 2))


class _Seen:
    """A clip as the last layers take it: `hidden` (1, frames, channels), `acoustic` (1, channels, frames), and
    which of PARTS each frame is in."""

    def __init__(self, network: MouthNetwork, clip: SpokenLips) -> None:
        with torch.no_grad():
            mel = normalise(clip.sound.power, network.average)[None]
            self.hidden = network.last_state(mel)
            head = network.acoustic_head
            self.acoustic = None
            if head is not None:
                acoustic = in_segments(network, clip.sound, lambda states: head.hidden(states).transpose(1, 2))
                self.acoustic = acoustic.T[None]
            self.sure = torch.sigmoid(LastLayers(network)(self))
        self.curves, self.known = torch.from_numpy(clip.curves)[None], torch.from_numpy(clip.known)[None]
        # Equal parts of what is known: a face may be seen in the end of a recording alone.
        known = self.known.cumsum(dim=1)
        self.part = ((known - 1).clamp(min=0) * PARTS / known[:, -1:].clamp(min=1)).long().clamp(max=PARTS - 1)

    def score(self, last: LastLayers, known: torch.Tensor) -> float:
        if not known.any():
            return 0.0
        with torch.no_grad():
            found = agreement_of(last(self), self.curves, known)
        return found["opening"] + WIDTH * found["width"]


def _fitted(start: MouthNetwork, shown: Sequence[tuple[_Seen, torch.Tensor]], steps: int) -> LastLayers:
    """The layers after `steps` on clips with what is `known` of them; press and speech activity stay near the old."""
    old, last = LastLayers(start), LastLayers(start)
    optimiser = torch.optim.Adam(last.parameters(), RATE)
    kept = [PRESS, len(CONTROLS)]
    entropy = nn.functional.binary_cross_entropy_with_logits
    weights = [(new, before.detach()) for new, before in zip(last.parameters(), old.parameters(), strict=True)]
    for _ in range(steps):
        far = [(new - before).square().mean() for new, before in weights if new.ndim > 1]
        loss = NEAR * torch.stack(far).sum()
        for one, known in shown:
            logits = last(one)
            loss = loss + lips_loss(logits, one.curves, known) + entropy(logits[..., kept], one.sure[..., kept])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return last


def _mixed(old: LastLayers, new: LastLayers, share: float) -> LastLayers:
    """The old layers, moved in place to the new ones by a share of the way."""
    with torch.no_grad():
        for target, end in zip(old.parameters(), new.parameters(), strict=True):
            target.lerp_(end, share)
    return old
