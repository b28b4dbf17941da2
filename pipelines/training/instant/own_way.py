"""One person's own way of speaking: the mouth network's last layer, fitted to a short recording, as far as that helps.

Half a minute of lips is little: a fit of the whole network follows the recording and nothing else. So the body stays as
it is, and of the way from the old layer to the fitted one at most half is gone: the share that helped most where it
helped least, of the parts of the recording that a fit had not been shown. That share can be 0.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ....models.speech.mouth_network import CONTROLS, MouthNetwork, normalise
from ...types import Progress, no_progress
from .fine_tune import agreement_of, lips_loss
from .lips import SpokenLips
from .mouth import PRESS

PARTS = 3
"""Parts of each recording, of which one at a time is left out."""
SHARES = (0.0, 0.125, 0.25, 0.375, 0.5)
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
        head = _fitted(start.head, [(one, one.known * (one.part != part)) for one in seen], steps)
        for place, share in enumerate(SHARES):
            mixed = _mixed(start.head, head, share)
            scores[part, place] = sum(one.score(mixed, one.known * (one.part == part)) for one in seen)
        progress(part + 1, PARTS + 1)
    share = SHARES[int((scores - scores[:, :1]).min(axis=0).argmax())]
    network = copy.deepcopy(start)
    network.head = _mixed(start.head, _fitted(start.head, [(one, one.known) for one in seen], steps), share)
    progress(PARTS + 1, PARTS + 1)
    return network.eval(), share


class _Seen:
    """A clip as the last layer takes it: `hidden` (1, frames, channels), and which of PARTS each frame is in."""

    def __init__(self, network: MouthNetwork, clip: SpokenLips) -> None:
        rows: list[torch.Tensor] = []
        hook = network.head.register_forward_pre_hook(lambda _, given: rows.append(given[0]))
        with torch.no_grad():
            logits, _ = network(normalise(torch.from_numpy(clip.power), network.average)[None])
        hook.remove()
        self.hidden, self.sure = rows[0], torch.sigmoid(logits)
        self.curves, self.known = torch.from_numpy(clip.curves)[None], torch.from_numpy(clip.known)[None]
        # Equal parts of what is known: a face may be seen in the end of a recording alone.
        known = self.known.cumsum(dim=1)
        self.part = ((known - 1).clamp(min=0) * PARTS / known[:, -1:].clamp(min=1)).long().clamp(max=PARTS - 1)

    def score(self, head: nn.Linear, known: torch.Tensor) -> float:
        if not known.any():
            return 0.0
        with torch.no_grad():
            found = agreement_of(head(self.hidden), self.curves, known)
        return found["opening"] + WIDTH * found["width"]


def _fitted(old: nn.Linear, shown: Sequence[tuple[_Seen, torch.Tensor]], steps: int) -> nn.Linear:
    """The layer after `steps` on clips with what is `known` of them; press and speech activity stay near the old."""
    head = copy.deepcopy(old)
    weight = old.weight.detach().clone()
    optimiser = torch.optim.Adam(head.parameters(), RATE)
    kept = [PRESS, len(CONTROLS)]
    entropy = nn.functional.binary_cross_entropy_with_logits
    for _ in range(steps):
        loss = NEAR * (head.weight - weight).square().mean()
        for one, known in shown:
            logits = head(one.hidden)
            loss = loss + lips_loss(logits, one.curves, known) + entropy(logits[..., kept], one.sure[..., kept])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return head


def _mixed(old: nn.Linear, new: nn.Linear, share: float) -> nn.Linear:
    mixed = copy.deepcopy(old)
    with torch.no_grad():
        for target, end in zip(mixed.parameters(), new.parameters(), strict=True):
            target.lerp_(end, share)
    return mixed
