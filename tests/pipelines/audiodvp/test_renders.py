"""Windows of renders, and the part of the crops that the neural renderer works on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.pipelines.audiodvp.renders import ROOM, RenderWindows, covered_part, cut


def test_a_window_is_seven_frames_and_grey_beyond_the_ends() -> None:
    def draw(numbers: Sequence[int]) -> np.ndarray:
        return np.stack([np.full((2, 3, 3), number, np.uint8) for number in numbers])

    windows = RenderWindows(draw, held=100).windows([10, 13], 8, 15)
    assert windows.shape == (2, 21, 2, 3)
    shown = (windows[:, ::3, 0, 0] + 1) * 127.5
    grey = 127.5
    expected = torch.tensor([[grey, 8, 9, 10, 11, 12, 13], [10, 11, 12, 13, 14, grey, grey]])
    torch.testing.assert_close(shown, expected, atol=0.01, rtol=0)


def test_each_frame_is_drawn_once_while_it_is_held_and_no_more_are_held() -> None:
    drawn: list[int] = []

    def draw(numbers: Sequence[int]) -> np.ndarray:
        drawn.extend(numbers)
        return np.zeros((len(numbers), 4, 4, 3), np.uint8)

    windows = RenderWindows(draw, held=7)
    for frame in range(20):
        windows.windows([frame], 0, 20)
    assert drawn == list(range(20))
    windows.windows([0], 0, 20)
    assert drawn[20:] == [0, 1, 2, 3]


@given(st.integers(0, 90), st.integers(1, 40), st.integers(0, 90), st.integers(1, 40), st.sampled_from([8, 16, 32]))
def test_the_part_holds_all_masks_in_steps_of_the_networks_halvings(
    top: int, height: int, left: int, width: int, multiple: int
) -> None:
    masks = np.zeros((2, 128, 128), np.uint8)
    masks[0, top : top + height, left] = 255
    masks[1, top, left : left + width] = 255
    part = covered_part([masks[:1], masks[1:]], 128, multiple)
    first, end, begin, stop = part
    assert (end - first) % multiple == (stop - begin) % multiple == 0
    assert 0 <= first < end <= 128
    assert 0 <= begin < stop <= 128
    assert (cut(masks, part) > 0).sum() == (masks > 0).sum()
    inside = min(top, 128 - top - height)
    if inside >= ROOM + multiple:  # where the crop has room for it
        assert first <= top - ROOM + multiple
        assert end - first < height + 2 * ROOM + multiple


def test_without_a_mask_it_is_all_of_the_crop() -> None:
    assert covered_part([np.zeros((1, 96, 96), np.uint8)], 96, 32) == (0, 96, 0, 96)
