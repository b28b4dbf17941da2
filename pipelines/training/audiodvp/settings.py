"""What a person's training is set to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import torch

from ....models.audiodvp.neural_renderer import NeuralRendererConfig
from ....models.audiodvp.speech_to_expression import KINDS, Kind
from ...errors import TalkingPortraitError
from ..core.person_settings import CHOICES as SHARED_CHOICES
from ..core.person_settings import check_settings, resolved_precision, resolved_size
from ..core.trainer import Plan

Size = Literal["auto", "small", "published"]
CHOICES: dict[str, tuple[str, ...]] = {
    **SHARED_CHOICES,
    "gan": ("auto", "on", "off"),
    "expression": KINDS,
}
_NETWORKS = {
    "small": NeuralRendererConfig(base_channels=24, downs=5, refine=False, residual=True, continued=True),
    "published": NeuralRendererConfig(),
}
_SMALL_RATE, _RATE = 1e-3, 2e-4
"""The former was found by trying on a synthetic person, the latter is published."""


@dataclass(frozen=True)
class Settings:
    """`size`: the neural renderer's; "auto" is the published one on an accelerator and the small one on a CPU.

    `minutes` of training of the renderer, or `steps` where they are not 0. `batch` 0, `rate` 0 and `precision` "auto"
    are chosen by the size and the device. `gan`: "auto" trains with a discriminator at the published size only.
    `expression`: the network from speech to expression, `expression_steps` its training. `held_out` is the share of the
    video at its end that is not trained on, but measured. `flip` mirrors half of the samples, as published, which a
    face that is lit or combed to one side does not gain from.

    Raises TalkingPortraitError for a value outside its range.
    """

    size: Size = "auto"
    minutes: float = 20.0
    steps: int = 0
    batch: int = 0
    rate: float = 0.0
    precision: str = "auto"
    gan: Literal["auto", "on", "off"] = "auto"
    expression: Kind = "temporal"
    expression_steps: int = 250
    held_out: float = 0.1
    flip: bool = False
    seed: int = 42
    save_every: int = 500
    picture_every: int = 200

    def __post_init__(self) -> None:
        check_settings(self, CHOICES)
        if self.batch < 0 or self.steps < 0 or self.expression_steps < 1 or not 0 <= self.rate < 1:
            raise TalkingPortraitError(
                f"Training with batch {self.batch}, {self.steps} and {self.expression_steps} steps and rate "
                f"{self.rate} was requested, but numbers from 0 on are expected, of the steps of the expression from 1 "
                "on, and a rate below 1; 0 leaves the choice to the program."
            )

    def resolved(self, device: torch.device) -> Settings:
        """With all that is left to the program chosen for this device, but the steps."""
        size = resolved_size(self.size, device)
        gan = self.gan if self.gan != "auto" else ("on" if size == "published" else "off")
        precision = resolved_precision(self.precision, device)
        batch = self.batch or (16 if size == "published" else 4)
        rate = self.rate or (_SMALL_RATE if gan == "off" else _RATE)
        changed = {"size": size, "gan": gan, "precision": precision, "batch": batch, "rate": rate}
        return Settings(**asdict(self) | changed)

    def renderer_config(self, crop_size: int) -> NeuralRendererConfig:
        """Raises TalkingPortraitError for crops that the network can't halve so often, or a batch it can't train on."""
        config = _NETWORKS[self.size]
        if crop_size % 2**config.downs:
            raise TalkingPortraitError(
                f"The person's crops have {crop_size} pixels, but the {self.size} renderer takes a multiple of "
                f"{2**config.downs}; prepare the person again with crops of 256 pixels."
            )
        if config.refine and self.batch == 1:
            raise TalkingPortraitError(
                f"The {self.size} renderer can't be trained on single pictures, as its batch norm needs several; use a "
                "batch of at least 2."
            )
        return config

    def expression_plan(self) -> Plan:
        """Found by trying on a synthetic person."""
        return Plan(
            steps=self.expression_steps,
            batch=16,
            rate=2e-3 if self.expression == "temporal" else 1e-3,
            warmup=20,
            decay="cosine",
            weight_decay=0.05,
            average=_average(self.expression_steps),
            save_every=self.save_every,
            picture_every=self.expression_steps,
            seed=self.seed,
        )

    def renderer_plan(self) -> Plan:
        """Adam as published; its rate falls where there is no GAN to be kept in balance."""
        return Plan(
            steps=max(self.steps, 1),
            batch=self.batch,
            rate=self.rate,
            warmup=min(20, self.steps // 10),
            decay="cosine" if self.gan == "off" else "none",
            clip=1000.0,
            precision=self.precision,  # type: ignore[arg-type]
            betas=(0.5, 0.999),
            weight_decay=0.0,
            average=_average(self.steps),
            save_every=self.save_every,
            picture_every=self.picture_every,
            seed=self.seed,
        )


def _average(steps: int) -> float:
    """The decay of a moving average over the last tenth of a short run, of a thousand steps at most."""
    return min(0.999, max(0.0, 1 - 10 / max(steps, 1)))
