"""Predicted blinks become whole ones, as many as the person makes."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from talking_portrait.pipelines.syncanimation.blinks import Blinks, measure_blinks, whole_blinks

FPS, REST = Fraction(25), torch.tensor([0.1, 0.12])


def blinking(peaks: list[int], height: float, frames: int = 500, width: int = 2) -> torch.Tensor:
    """Blinks (frames, 2) with lids at rest, but at these frames."""
    values = torch.zeros(frames)
    for peak in peaks:
        for offset in range(-width, width + 1):
            values[peak + offset] = max(float(values[peak + offset]), height * (1 - abs(offset) / (width + 1)))
    return REST + values[:, None]


def test_as_many_peaks_as_the_person_blinks_shut_the_lids() -> None:
    """The prediction hardly rises, and more often than the person blinks."""
    true = blinking([50, 150, 290, 400], 0.6)
    predicted = blinking([30, 120, 200, 310, 440], 0.14, width=6)
    predicted[[30, 200, 310, 440]] += torch.tensor([[0.01], [0.02], [0.03], [0.04]])
    blinks = measure_blinks(true, predicted, FPS)
    torch.testing.assert_close(blinks.closed, REST + 0.6, atol=0.02, rtol=0)
    shut = whole_blinks(predicted, blinks, REST, FPS).mean(1) > 0.6
    assert (shut[1:] & ~shut[:-1]).sum() == 4
    assert not shut[110:130].any(), "the lowest peak is none"
    lids = whole_blinks(predicted, blinks, REST, FPS)[195:210].mean(1)
    assert lids[5:7].min() == pytest.approx(float(blinks.closed.mean()), abs=0.02)
    assert lids[2] < 0.3 < lids[4]
    assert lids[12] < 0.3, "after a third of a second the eyes are open"


def test_a_prediction_that_shuts_the_lids_stays() -> None:
    true = blinking([50, 150, 290, 400], 0.6, width=6)
    blinks = measure_blinks(true, true, FPS)
    torch.testing.assert_close(whole_blinks(true, blinks, REST, FPS), true, atol=0.1, rtol=0)


def test_nobody_blinks_where_nothing_says_so() -> None:
    still = blinking([], 0)
    for true in (still, blinking([50, 150, 290], 0.6)):
        blinks = measure_blinks(true, still, FPS)
        torch.testing.assert_close(whole_blinks(still, blinks, REST, FPS), still)


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(60)])
def test_a_blink_takes_as_long_at_any_rate(fps: Fraction) -> None:
    predicted = blinking([200], 0.3, width=round(0.1 * fps))
    lids = whole_blinks(predicted, Blinks(torch.full((2,), 0.3), torch.tensor([0.8, 0.8])), REST, fps).mean(1)
    seconds = int((lids > 0.45).sum()) / float(fps)
    assert 0.08 < seconds < 0.2
    assert lids.max() == pytest.approx(0.8, abs=0.01)
    torch.testing.assert_close(lids[:150], predicted[:150].mean(1))
