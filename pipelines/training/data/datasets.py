"""Datasets of prepared clips, for the trainers.

A dataset is endless: item n is always the same, whatever was read before, so that a resumed run gets the same items.
Every clip comes once before any comes again. Nothing is mirrored: the drawings of faces mark left and right by colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...errors import TalkingPortraitError
from .clips import Clip

Item = dict[str, torch.Tensor]


class Clips(torch.utils.data.Dataset):
    """An endless dataset over clips; `shortest` frames are needed of each."""

    def __init__(self, clips: Sequence[Clip], seed: int, shortest: int = 1) -> None:
        self.clips = [clip for clip in clips if clip.frames >= shortest]
        self.seed = seed
        if not self.clips:
            raise TalkingPortraitError(
                f"None of the {len(clips)} clips has the {shortest} frames that are needed; prepare longer ones."
            )

    def __getitem__(self, number: int) -> Item:
        turn, place = divmod(number, len(self.clips))
        order = np.random.default_rng([self.seed, 0, turn]).permutation(len(self.clips))
        return self.item(self.clips[order[place]], np.random.default_rng([self.seed, 1, number]))

    def item(self, clip: Clip, rng: np.random.Generator) -> Item:
        raise NotImplementedError


def check_frames(frames: int) -> None:
    """Raises TalkingPortraitError for samples that would have no frame."""
    if frames < 1:
        raise TalkingPortraitError(f"Samples of {frames} frames were requested, but at least 1 is expected.")


def check_rate(clips: Sequence[Clip], fps: int) -> None:
    """Raises TalkingPortraitError for clips at another frame rate than a network works at."""
    wrong = next((clip for clip in clips if clip.fps != fps), None)
    if wrong:
        raise TalkingPortraitError(
            f"The clips have {float(wrong.fps):g} frames a second, but this network works at {fps}; "
            f"prepare the videos again with --fps {fps}, into another folder."
        )
