"""The trainer of the neural face renderer: renders of the lower face to the photographic one.

Published: a GAN with 100 times the absolute difference, 250 epochs. Ours has an option without the GAN for a CPU. What
lies outside the mask is black in the target, and is never shown; here the network is spared learning that, which takes
a tanh long: its images are masked before they are compared. The loss also compares the images' gradients, and the
mouth, a small part of the picture and most of what is looked at, counts more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....models.audiodvp.discriminator import Discriminator
from ....models.audiodvp.losses import adversarial_loss, discriminator_loss
from ....models.audiodvp.neural_renderer import NeuralRenderer
from ....models.face.face_mesh import LIPS_OUTER
from ...audiodvp.composite import eroded
from ...audiodvp.fitted_face import FittedFace
from ...audiodvp.renders import Part, RenderWindows, covered_part, cut, draw_lower_faces, normalised
from ...errors import TalkingPortraitError
from ...person.person import Person
from ..core.trainer import Batch, Objective, Trainer, trainable
from ..data.datasets import Item

GENERATOR = "generator"
"""Name of the renderer's objective in the log."""
L1_WEIGHT = 100.0
"""Published."""
HELD_RENDERS = 20_000
"""Renders that a process keeps, compressed: about 350 MB."""
PART_FRAMES = 100
_MOUTH_MARGIN = 0.35
"""Of the lips' box, in parts of its width, that counts as mouth too."""


class NeuralRendererTrainer(Trainer):
    """See the module. Without a discriminator there is no GAN."""

    title = "audiodvp-renderer"

    def __init__(
        self,
        renderer: NeuralRenderer,
        discriminator: Discriminator | None = None,
        *,
        gradient: float = 1.0,
        mouth: float = 5.0,
    ) -> None:
        """`gradient` weighs the difference of the images' gradients beside that of the images themselves (published:
        0), `mouth` that of the mouth's pixels beside that of all (published: 0)."""
        super().__init__()
        self.renderer, self.discriminator = renderer, discriminator
        self.gradient, self.mouth = gradient, mouth
        self._generated: list[torch.Tensor] = []

    def objectives(self) -> list[Objective]:
        generator = Objective(_named("renderer", self.renderer), self.loss, GENERATOR)
        if self.discriminator is None:
            return [generator]
        # The published program moves the discriminator first; this way the step's images serve both.
        rival = Objective(_named("discriminator", self.discriminator), self.discriminator_loss, "discriminator")
        return [generator, rival]

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        image = self._masked(batch)
        difference = self._difference(image, batch)
        if self.discriminator is None:
            return difference
        self._generated.append(image.detach())
        fooled = adversarial_loss(self.discriminator(batch["windows"], image).float(), real=True)
        return fooled + L1_WEIGHT * difference

    def discriminator_loss(self, batch: Batch, step: int) -> torch.Tensor:
        assert self.discriminator is not None
        windows, fake = batch["windows"], self._generated.pop(0)
        return discriminator_loss(
            self.discriminator(windows, fake).float(), self.discriminator(windows, batch["target"]).float()
        )

    def _masked(self, batch: Batch) -> torch.Tensor:
        """Generated images (B, 3, S, S) in -1..1, black outside the mask."""
        return (self.renderer(batch["windows"]).float() + 1) * batch["mask"] - 1

    def _difference(self, image: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean over the mask, with more weight in the mouth, of images in -1..1 and of their gradients."""
        error, weight = image - batch["target"], batch["mask"] * (1 + self.mouth * batch["mouth"])
        loss = (error.abs() * weight).sum() / (3 * weight.sum()).clamp(min=1)
        if self.gradient:
            steps = error.diff(dim=2).abs().sum() + error.diff(dim=3).abs().sum()
            loss = loss + self.gradient * steps / (6 * batch["mask"].sum()).clamp(min=1)
        return loss

    def picture(self, batch: Batch) -> torch.Tensor:
        """The render, the result and the video's lower face beside each other."""
        image = self._masked(batch)
        middle = batch["windows"].unflatten(1, (-1, 3))[:, batch["windows"].shape[1] // 6]
        row = torch.cat([middle, image, batch["target"]], dim=3)[0]
        return (row.permute(1, 2, 0) / 2 + 0.5).clamp(0, 1)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"renderer": self.renderer.state_dict()}


def _named(prefix: str, network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {f"{prefix}.{name}": weight for name, weight in trainable(network).items()}


class LowerFaces(torch.utils.data.Dataset):
    """Windows of a person's renders with the video's lower face in the middle frame, from the frames given.

    Every frame comes once before any comes again. `flip` mirrors half of them (published). Raises TalkingPortraitError
    where there is no frame.
    """

    def __init__(
        self, person: Person, face: FittedFace, frames: Sequence[int], part: Part, seed: int, *, flip: bool = False
    ) -> None:
        self.person, self.frames, self.part, self.seed, self.flip = person, list(frames), part, seed, flip
        if not self.frames:
            raise TalkingPortraitError("No frame with a usable face is there to train on; prepare a longer video.")
        self._renders = RenderWindows(lambda numbers: draw_lower_faces(face, numbers, part), HELD_RENDERS)
        self._masks = RenderWindows(lambda numbers: cut(face.masks(numbers), part)[..., None], HELD_RENDERS)
        self._mouths = mouth_boxes(person)

    def __getitem__(self, number: int) -> Item:
        turn, place = divmod(number, len(self.frames))
        order = np.random.default_rng([self.seed, 0, turn]).permutation(len(self.frames))
        item = self.item(self.frames[order[place]])
        if self.flip and np.random.default_rng([self.seed, 1, number]).random() < 0.5:
            return {name: tensor.flip(-1) for name, tensor in item.items()}
        return item

    def item(self, frame: int) -> Item:
        """`windows` (21, h, w), `target` (3, h, w) in -1..1, black outside the mask, `mask` and `mouth` (1, h, w)."""
        start, stop = next(
            ((start, stop) for start, stop in self.person.shots if start <= frame < stop), (0, self.person.frames)
        )
        mask = self._masks.images([frame])[0]
        target = cut(self.person.crops([frame]), self.part)[0] & mask
        left, top, right, bottom = self._mouths[frame]
        mouth = torch.zeros(1, self.person.crop_size, self.person.crop_size)
        mouth[:, top:bottom, left:right] = 1
        return {
            "windows": self._renders.windows([frame], start, stop)[0],
            "target": normalised(target),
            "mask": torch.from_numpy(mask).movedim(-1, 0).float() / 255,
            "mouth": cut(mouth, self.part),
        }


def lower_face_part(face: FittedFace, frames: np.ndarray, multiple: int) -> Part:
    """The part of the crops that the lower face covers in any of these frames, some of which are looked at."""
    chosen = frames[:: max(1, len(frames) // PART_FRAMES)].tolist()
    batches = (face.masks(chosen[start : start + 16]) for start in range(0, len(chosen), 16))
    return covered_part(batches, face.crop_size, multiple)


def mouth_boxes(person: Person) -> np.ndarray:
    """(frames, 4) left, top, right, bottom of the mouth in each crop, in pixels."""
    scale = person.crop_size / person.box.side
    lips = (person.track().points[:, LIPS_OUTER, :2] - [person.box.left, person.box.top]) * scale
    low, high = lips.min(axis=1), lips.max(axis=1)
    margin = _MOUTH_MARGIN * (high - low)[:, :1]
    boxes = np.concatenate([np.floor(low - margin), np.ceil(high + margin)], axis=1)
    return boxes.clip(0, person.crop_size).astype(int)


@torch.no_grad()
def evaluate_renderer(network: NeuralRenderer, faces: LowerFaces, frames: Sequence[int]) -> dict[str, float]:
    """Of the part that is shown, on frames that it was not trained on: the PSNR, and the mean absolute difference in
    levels of 255."""
    device = next(network.parameters()).device
    absolute = squared = pixels = 0.0
    for frame in frames:
        item = faces.item(frame)
        image = network(item["windows"][None].to(device))[0].float().cpu()
        shown = torch.from_numpy(eroded((item["mask"][0] * 255).byte().numpy()) > 0)
        error = (image - item["target"])[:, shown] * 127.5
        absolute += float(error.abs().sum())
        squared += float(error.square().sum())
        pixels += error.numel()
    return {
        "lower face psnr": float(10 * np.log10(255**2 / max(squared / max(pixels, 1), 1e-9))),
        "lower face difference": absolute / max(pixels, 1),
    }
