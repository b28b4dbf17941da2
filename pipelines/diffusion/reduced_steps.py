"""Settings of denoising steps that cost less than others: without guidance, or with deep layers of a step before."""

from __future__ import annotations

import math

from ..errors import TalkingPortraitError


def is_guided(step: int, steps: int, cfg: float, guided: tuple[float, float]) -> bool:
    """Whether guidance is used in a step, counted from 0; `guided` is the part of the steps, in 0..1, that have it."""
    share = step / max(steps - 1, 1)
    return cfg > 1 and guided[0] <= share <= guided[1]


def check_reduced_steps(cfg: float, guided: tuple[float, float], deep_every: int) -> None:
    """Raises TalkingPortraitError for settings that no sampler takes."""
    if deep_every < 1:
        raise TalkingPortraitError(
            f"The setting deep_every is {deep_every}, but 1 or more is expected; 1 is always right."
        )
    if not math.isfinite(cfg) or not 0 <= guided[0] <= guided[1] <= 1:
        raise TalkingPortraitError(
            f"Guidance of {cfg} from {guided[0]} to {guided[1]} of the steps is requested, but a number, and a "
            "beginning before its end in 0 to 1, are expected."
        )
