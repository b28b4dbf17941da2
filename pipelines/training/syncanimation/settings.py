"""What a person's SyncAnimation training is set to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

import torch

from ....models.syncanimation.rendering.fields import NET_RATE
from ...errors import TalkingPortraitError
from ...syncanimation.person_model import STAGES
from ..core.person_settings import CHOICES as SHARED_CHOICES
from ..core.person_settings import check_settings, resolved_precision, resolved_size
from ..core.run_settings import LATER
from ..core.trainer import Plan
from .frames import Pixels

Size = Literal["auto", "small", "published"]
CHOICES: dict[str, tuple[str, ...]] = {
    **SHARED_CHOICES,
    "stage": ("all", *STAGES),
}
SHARES = {
    "small": {"torso": 0.2, "face": 0.4, "lips": 0.4},
    "published": {"torso": 150 / 310, "face": 120 / 310, "lips": 40 / 310},
}
"""Parts of the renderer's steps, or minutes, that a stage takes; the latter are those of the published steps."""
RAYS = {"small": 2048, "published": 65536}
PATCHES = {"small": (2, 24), "published": (16, 64)}
"""How many, and their side in pixels."""
UPDATED_PART = {"small": 1 / 8, "published": 1.0}
"""Of the cells' densities, at each update of the head's grid."""
GRID_UPDATES = {"small": 4, "published": 16}
"""Steps between these updates."""
SPEECH_TRAINED = {"small": False, "published": True}
"""Whether pictures train the speech code on (published). In a short training they lose it: at its beginning, when the
head is still a blur, what the speech says only disturbs. At the published rate the code keeps its size, and what it
says of the mouth comes back within 400 steps."""
RATES = {
    "small": {"torso": 5e-3, "face": 3e-3, "lips": 1.5e-3},
    "published": {"torso": NET_RATE, "face": NET_RATE, "lips": NET_RATE},
}
"""Of the networks; grids have ten times that. A short training learns more at higher ones, found by trying."""


@dataclass(frozen=True)
class Settings:
    """`size` of the steps, not of the networks, which are the published ones: "small" for a CPU.

    `stage`: the last one that is trained; "all" trains all three. `minutes` of the renderer's training in all stages,
    or `steps` where they are not 0; `torso_steps`, `face_steps` and `lips_steps` overrule both for one stage. `rays` 0
    and `precision` "auto" are chosen by the size and the device. `syncer_steps`: of each of the two syncers and of the
    speech code, which are trained alone, before the renderer. `held_out` is the share of the video at its end that is
    not trained on, but measured. `lpips`: a file of LPIPS' weights for patches, with AlexNet's or, where those are in
    the model folder, without them; without a file gradients and SSIM of patches are compared. `joint`: torso and face
    are rendered by what the syncers predict, and train them too, as published; a step then takes all frames through a
    syncer.

    Raises TalkingPortraitError for a value outside its range.
    """

    size: Size = "auto"
    stage: str = "all"
    minutes: float = 20.0
    steps: int = 0
    torso_steps: int = 0
    face_steps: int = 0
    lips_steps: int = 0
    rays: int = 0
    precision: str = "auto"
    syncer_steps: int = 150
    held_out: float = 0.1
    seed: int = 42
    save_every: int = 500
    picture_every: int = 200
    lpips: str = ""
    joint: bool = field(default=False, metadata={LATER: True})

    def __post_init__(self) -> None:
        check_settings(self, CHOICES)
        counts = (self.steps, self.torso_steps, self.face_steps, self.lips_steps, self.rays)
        if min(counts) < 0 or self.syncer_steps < 1:
            raise TalkingPortraitError(
                f"Training with {self.steps} steps (stages: {', '.join(map(str, counts[1:4]))}), {self.rays} rays and "
                f"{self.syncer_steps} steps of the syncers was requested, but numbers from 0 on are expected, of the "
                "syncers from 1 on; 0 leaves the choice to the program."
            )

    def resolved(self, device: torch.device) -> Settings:
        """With all that is left to the program chosen for this device, but the steps that follow from minutes."""
        size = resolved_size(self.size, device)
        precision = resolved_precision(self.precision, device)
        changed = {"size": size, "precision": precision, "rays": self.rays or RAYS[size]}
        return Settings(**asdict(self) | changed | _stage_steps(self, size))

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that are trained."""
        return STAGES if self.stage == "all" else STAGES[: STAGES.index(self.stage) + 1]

    def stage_steps(self, stage: str) -> int:
        """0 where they are yet to be found from the minutes."""
        return int(getattr(self, f"{stage}_steps"))

    def stage_minutes(self, stage: str) -> float:
        return self.minutes * SHARES[self.size][stage]

    def pixels(self, stage: str) -> list[Pixels]:
        """What steps of a stage of the head are made on, in turn.

        Published: patches alone for the face; for the lips, patches and rays in turn.
        """
        patches, side = PATCHES[self.size]
        alone = Pixels(self.rays)
        with_patches = Pixels(max(self.rays - patches * side**2, 0), patches, side)
        if self.size == "published":
            return [with_patches] if stage == "face" else [alone, with_patches]
        return [alone, alone, alone, with_patches] if stage == "face" else [alone, with_patches]

    def syncer_plan(self, name: str) -> Plan:
        """Of pose, emotion or speech; found by trying, the last one's rate on a filmed person too."""
        return Plan(
            steps=self.syncer_steps,
            rate=1e-2 if name == "speech" else 2e-3,
            warmup=min(10, self.syncer_steps // 10),
            decay="cosine",
            clip=10.0,
            weight_decay=1e-2,
            save_every=self.save_every,
            picture_every=0,
            seed=self.seed,
        )

    def renderer_plan(self, stage: str) -> Plan:
        """The published optimiser; a short training's rate falls to a tenth, a published one's by about half."""
        steps = max(self.stage_steps(stage), 1)
        small = self.size == "small"
        return Plan(
            steps=steps,
            rate=RATES[self.size][stage],
            warmup=min(10, steps // 10),
            decay="cosine" if small else "linear",
            floor=0.1 if small else (0.05 if stage == "lips" else 0.5),
            clip=1000.0,
            precision=self.precision,  # type: ignore[arg-type]
            betas=(0.0, 0.99),
            weight_decay=0.0,
            average=min(0.995, max(0.0, 1 - 20 / steps)),
            save_every=self.save_every,
            picture_every=self.picture_every,
            seed=self.seed,
        )


def _stage_steps(settings: Settings, size: str) -> dict[str, int]:
    """The steps of each stage that follow from the steps of all."""
    found = {}
    for stage, share in SHARES[size].items():
        own = settings.stage_steps(stage)
        found[f"{stage}_steps"] = own or (max(1, round(settings.steps * share)) if settings.steps else 0)
    return found
