"""AniPortrait's audio side."""

from __future__ import annotations

from talking_portrait.models.speech.encoder import resample_time

from .goldens import Golden, runner


@runner("aniportrait", "linear_interp")
def linear_interp(golden: Golden) -> None:
    for i, (_, frames) in enumerate(golden.meta["cases"]):
        golden.compare(f"y{i}", resample_time(golden.tensor(f"x{i}"), frames))
