"""What a person's SyncAnimation training is set to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import torch

from ....models.syncanimation.networks import NetworksConfig
from ...errors import TalkingPortraitError, quoted
from ...syncanimation.person_model import STAGES
from ..core.trainer import PRECISIONS, Plan

Size = Literal["auto", "small", "published"]
CHOICES: dict[str, tuple[str, ...]] = {
    "size": ("auto", "small", "published"),
    "stage": ("all", *STAGES),
    "precision": ("auto", *PRECISIONS),
}
MOST_MINUTES = 10_000.0
SHARES = {"small": (0.08, 0.72, 0.2), "published": (150 / 310, 120 / 310, 40 / 310)}
"""Parts of the renderer's time, or steps, that the three stages take; the latter are the published steps."""
_RAYS = {"small": 2048, "published": 65536}
_PATCH = {"small": 24, "published": 64}
_TORSO_PIXELS = {"small": 4096, "published": 65536}
BETAS = (0.0, 0.99)
GRID_RATE, NET_RATE, ATTENTION_RATE = 1e-2, 1e-3, 5e-3
"""Published."""


@dataclass(frozen=True)
class Settings:
    """`size` of the steps, not of the networks, which are the published ones: "small" for a CPU.

    `stage`: all, or the one to train now; each needs those before it. `minutes` of training of the renderer in all
    stages, or `steps` of it where they are not 0. `rays` 0 and `precision` "auto" are chosen by the size and the
    device. `syncer_steps`: of each of the two syncers, which are trained alone and before the renderer. `joint` trains
    them on with the renderer, as published. `held_out` is the share of the video at its end that is not trained on, but
    measured. `lpips` is a file of LPIPS' weights; without one a difference of gradients and structure takes its place.

    Raises TalkingPortraitError for a value outside its range.
    """

    size: Size = "auto"
    stage: str = "all"
    minutes: float = 20.0
    steps: int = 0
    rays: int = 0
    precision: str = "auto"
    syncer_steps: int = 300
    held_out: float = 0.1
    seed: int = 42
    save_every: int = 200
    picture_every: int = 100

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise TalkingPortraitError(
                    f"The {name} is {quoted(getattr(self, name))}, but one of {', '.join(choices)} is expected."
                )
        if not 0 < self.minutes <= MOST_MINUTES:
            raise TalkingPortraitError(
                f"Training for {self.minutes} minutes was requested, but more than 0 and at most {MOST_MINUTES:g} are "
                "expected."
            )
        if not 0 <= self.held_out <= 0.5:
            raise TalkingPortraitError(
                f"The share {self.held_out} of the video is to be held out, but 0 to 0.5 is expected."
            )
        if self.steps < 0 or self.rays < 0 or self.syncer_steps < 1:
            raise TalkingPortraitError(
                f"Training with {self.steps} steps, {self.rays} rays and {self.syncer_steps} steps of the syncers was "
                "requested, but numbers from 0 on are expected, of the syncers from 1 on; 0 leaves the choice to the "
                "program."
            )

    def resolved(self, device: torch.device) -> Settings:
        """With all that is left to the program chosen for this device, but the steps."""
        size = self.size if self.size != "auto" else ("small" if device.type == "cpu" else "published")
        precision = self.precision if self.precision != "auto" else ("bf16" if device.type == "cuda" else "fp32")
        return Settings(**asdict(self) | {"size": size, "precision": precision, "rays": self.rays or _RAYS[size]})

    def networks(self, channels: int, values: int) -> NetworksConfig:
        raise NotImplementedError
