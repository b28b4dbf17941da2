"""Whole blinks where blinks are predicted: how many a person makes, and how far the lids close.

Speech says little about a person's blinks, so that a prediction rises where one is likely, but by far not to shut lids:
with the true pictures of two speakers the largest one of a minute reached half of them. The published program closes
the lids of frames 2.5 deviations above the mean. Here it is as many peaks as the person makes blinks in the same time,
each of which becomes a blink of a usual course.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F

COURSE_SECONDS, COURSE = (-0.08, -0.04, 0.0, 0.04, 0.08, 0.16, 0.24), (0.0, 0.6, 1.0, 1.0, 0.55, 0.2, 0.0)
"""How far lids are shut around a blink's peak: they fall in one or two frames and rise in about five."""
APART_SECONDS = 0.24
"""Around a peak there is no higher one for so long."""
LEAST_PEAK = 0.2
"""Part of the way from the usual state to shut lids that a peak reaches at least."""
SHUT_SHARE = 0.9
"""Quantile, of the frames with shut lids, that says how far they close."""


@dataclass(frozen=True)
class Blinks:
    """Peaks of predicted blinks above `threshold` (2,) shut the lids to `closed` (2,), both by eye."""

    threshold: torch.Tensor
    closed: torch.Tensor


def is_shut(values: torch.Tensor) -> torch.Tensor:
    """Which frames' blinks (N, 2) are nearer to shut lids than to the usual state, (N,) bool."""
    both = values.mean(1)
    median, largest = both.quantile(torch.tensor([0.5, 0.99])).tolist()
    return both > (median + largest) / 2


def measure_blinks(true: torch.Tensor, predicted: torch.Tensor, fps: Fraction) -> Blinks:
    """From the true blinks (N, 2) of a video, and those that are predicted for other speech (N, 2) as long."""
    shut = is_shut(true)
    count = int((shut[1:] & ~shut[:-1]).sum())
    closed = true[shut].quantile(SHUT_SHARE, dim=0) if count else true.max(0).values
    least = float(true.mean(1).median()) * (1 - LEAST_PEAK) + float(closed.mean()) * LEAST_PEAK
    both = predicted.mean(1)
    peaks = both[_peaks(both, fps)].sort(descending=True).values
    reached = peaks[:count].min() if 0 < count <= len(peaks) else both.max()
    return Blinks(reached.clamp(min=least).expand(2).clone(), closed)


def whole_blinks(predicted: torch.Tensor, blinks: Blinks, rest: torch.Tensor, fps: Fraction) -> torch.Tensor:
    """Predicted blinks (N, 2) with the lids shut at their peaks; `rest` (2,) are lids as they are most of the time."""
    both = predicted.mean(1)
    at_peak = _peaks(both, fps) & (both >= blinks.threshold.mean())
    offsets = torch.arange(round(COURSE_SECONDS[0] * fps), round(COURSE_SECONDS[-1] * fps) + 1)
    course = _course(offsets / float(fps))
    before, after = -int(offsets[0]), int(offsets[-1])
    around = F.pad(at_peak.float(), (after, before)).unfold(0, len(offsets), 1)
    shut = (around * course.flip(0)).amax(1)[:, None]
    return torch.maximum(predicted, rest + shut * (blinks.closed - rest))


def _peaks(values: torch.Tensor, fps: Fraction) -> torch.Tensor:
    """Which of the values (N,) are the first highest ones around them."""
    reach = max(1, round(APART_SECONDS * fps))
    highest, place = F.max_pool1d(values[None, None], 2 * reach + 1, 1, reach, return_indices=True)
    return (place[0, 0] == torch.arange(len(values))) & (highest[0, 0] == values)


def _course(seconds: torch.Tensor) -> torch.Tensor:
    """How far lids are shut so long after a blink's peak, 0..1, between the points of COURSE."""
    from numpy import interp

    return torch.from_numpy(interp(seconds.numpy(), COURSE_SECONDS, COURSE)).float()
