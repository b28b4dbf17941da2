"""The order in which frames are put in between."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.pipelines.image.frame_interpolation import fill_gap, insertion_order, interpolated


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 11, 16])
def test_every_frame_is_made_once_of_frames_that_are_there(count: int) -> None:
    known = {0, count + 1}
    for insertion in insertion_order(count):
        assert insertion.before in known
        assert insertion.after in known
        assert not known & set(range(insertion.before + 1, insertion.after))
        share = (insertion.place - insertion.before) / (insertion.after - insertion.before)
        assert insertion.time == pytest.approx(share, abs=1e-6)
        known.add(insertion.place)
    assert known == set(range(count + 2))


def test_the_middle_comes_first() -> None:
    assert [insertion.place for insertion in insertion_order(3)] == [2, 1, 3]
    assert {insertion.time for insertion in insertion_order(7)} == {0.5}


def test_two_frames_are_a_tie_that_rounding_decides() -> None:
    """1/3 and 2/3 are equally far from the middle; in float32 the second is nearer."""
    second, first = insertion_order(2)
    assert (second.place, second.before, second.after) == (2, 0, 3)
    assert (first.place, first.before, first.after) == (1, 0, 2)


@pytest.mark.parametrize(
    ("count", "places"),
    [
        (4, [2, 1, 4, 3]),
        (8, [4, 2, 1, 3, 7, 8, 5, 6]),
        (12, [6, 3, 9, 11, 10, 12, 8, 7, 5, 4, 2, 1]),
        (13, [7, 10, 12, 11, 13, 3, 5, 4, 6, 2, 1, 9, 8]),
        (14, [7, 11, 13, 12, 14, 9, 10, 8, 4, 2, 1, 3, 6, 5]),
    ],
)
def test_ties_are_decided_alike_on_every_processor(count: int, places: list[int]) -> None:
    """As the published program decides them where there is fused multiply-add; elsewhere it differs from 8 on."""
    assert [insertion.place for insertion in insertion_order(count)] == places


def test_a_straight_line_stays_straight() -> None:
    frames = fill_gap(torch.tensor(10.0), torch.tensor(16.0), 5, lambda a, b, time: a + (b - a) * time)
    torch.testing.assert_close(torch.stack(frames), torch.tensor([10.0, 11, 12, 13, 14, 15]))


@pytest.mark.parametrize(("frames", "count"), [(1, 2), (2, 1), (4, 2), (3, 5)])
def test_a_video_gets_its_frames_in_between(frames: int, count: int) -> None:
    images, reports = 10.0 * torch.arange(frames)[:, None], []
    made = torch.cat(
        list(interpolated(images, count, lambda a, b, time: a + (b - a) * time, lambda *done: reports.append(done)))
    )
    assert made.shape == ((frames - 1) * (count + 1) + 1, 1)
    torch.testing.assert_close(made[:, 0], torch.linspace(0, 10.0 * (frames - 1), len(made)))
    assert reports == [(n, frames - 1) for n in range(1, frames)]
