"""A face model fitted to a prepared person: its files in the person's folder, and images of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...models.audiodvp.face_model import Coefficients, FaceModel, load_face_model
from ...models.checkpoints import State, read_checkpoint
from ...models.weight_files import save_tensors
from ..errors import TalkingPortraitError
from .composite import lower_face_masks, old_chins

FOLDER = "audiodvp"
MODEL_FILE, COEFFICIENTS_FILE = "face_model.safetensors", "coefficients.safetensors"
COEFFICIENTS = ("identity", "expression", "rotation", "translation", "light", "opened", "crop_size")


@dataclass(frozen=True)
class FittedFace:
    """A person's face model with the coefficients of each of N frames, float32.

    `identity` (N, J) is what the shape owes to the head's pose, see `person_shape`; `expression` (N, K) is in standard
    deviations; `rotation` (N, 3), `translation` (N, 3) and `light` (N, 27) are as the face model's `Coefficients` have
    them; `opened` (K,) is the expression of the mouth wide open.
    Images have `crop_size` pixels on either side, those of the person's crops.
    """

    face_model: FaceModel
    identity: torch.Tensor
    expression: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor
    light: torch.Tensor
    opened: torch.Tensor
    crop_size: int

    @property
    def frames(self) -> int:
        return len(self.expression)

    @classmethod
    def read(cls, folder: str | Path) -> FittedFace:
        """From the folder of a prepared person. Raises TalkingPortraitError where `fit_face` has made none there."""
        place = Path(folder) / FOLDER
        if not (place / MODEL_FILE).is_file() or not (place / COEFFICIENTS_FILE).is_file():
            raise TalkingPortraitError(
                f"The person in {folder} has no fitted face ({MODEL_FILE} and {COEFFICIENTS_FILE} in {FOLDER}); "
                "prepare the person to the end."
            )
        model = load_face_model(place / MODEL_FILE)
        return cls.of_tensors(model, read_checkpoint(place / COEFFICIENTS_FILE), place / COEFFICIENTS_FILE)

    @classmethod
    def of_tensors(cls, model: FaceModel, tensors: State, path: str | Path) -> FittedFace:
        """From a face model and what `tensors` gives; `path` names the file in errors."""
        if not _fits(model, tensors):
            raise TalkingPortraitError(
                f"{Path(path).name} holds no coefficients of this face model; fit the face to the person again."
            )
        values = {name: tensors[name].float() for name in COEFFICIENTS[:-1]}
        return cls(model, **values, crop_size=int(tensors["crop_size"]))

    def tensors(self) -> State:
        """Name to tensor of all but the face model, for a file."""
        values = {name: getattr(self, name).cpu() for name in COEFFICIENTS[:-1]}
        return values | {"crop_size": torch.tensor(self.crop_size)}

    def save(self, folder: str | Path) -> None:
        """Writes both files into a folder that is there. Raises OSError where that fails."""
        self.face_model.save(Path(folder) / MODEL_FILE)
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors().items()}
        save_tensors(tensors, Path(folder) / COEFFICIENTS_FILE)

    def to(self, device: torch.device) -> FittedFace:
        moved = {name: getattr(self, name).to(device) for name in COEFFICIENTS[:-1]}
        return replace(self, face_model=self.face_model.to(device), **moved)

    def coefficients(self, indices: Sequence[int] | np.ndarray, expression: torch.Tensor | None = None) -> Coefficients:
        """Those of these frames, with another expression (n or 1, K) where one is given."""
        rows = torch.as_tensor(np.asarray(indices, dtype=np.int64), device=self.expression.device)
        delta = self.expression[rows] if expression is None else expression.to(self.expression)
        return Coefficients(
            alpha=self.identity[rows, :, None],
            delta=delta.expand(len(rows), -1)[..., None],
            beta=delta.new_zeros(1, self.face_model.tex_base.shape[1], 1),
            gamma=self.light[rows, :, None],
            rotation=self.rotation[rows, :, None],
            translation=self.translation[rows, :, None],
        )

    @torch.no_grad()
    def render(
        self, indices: Sequence[int] | np.ndarray, expression: torch.Tensor | None = None, *, lower: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (n, S, S, 3) in 0..1 on black and alpha (n, S, S) of these frames, S the `crop_size`.

        `expression` (n or 1, K) takes the place of the frames' own; `lower` draws the lower face only.
        """
        size = (self.crop_size, self.crop_size)
        face = self.face_model.render(self.coefficients(indices, expression), size, lower=lower)
        return face.image.permute(0, 2, 3, 1), face.alpha[:, 0]

    def masks(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Masks (n, S, S) uint8, 0 or 255, of all that the lower face covers in these frames, open or closed."""
        size = (self.crop_size, self.crop_size)
        return lower_face_masks(self.face_model, self.coefficients(indices), size, self.opened)

    @torch.no_grad()
    def old_chins(self, indices: Sequence[int] | np.ndarray, expression: torch.Tensor) -> np.ndarray:
        """Masks (n, S, S) uint8, 0 or 255, of the lower face of these frames that another expression uncovers."""
        size = (self.crop_size, self.crop_size)
        return old_chins(self.face_model, self.coefficients(indices), self.coefficients(indices, expression), size)


def _fits(model: FaceModel, tensors: State) -> bool:
    if set(tensors) != set(COEFFICIENTS) or tensors["expression"].ndim != 2 or tensors["crop_size"].numel() != 1:
        return False
    frames, expressions = len(tensors["expression"]), model.exp_base.shape[1]
    shapes = {
        "identity": (frames, model.id_base.shape[1]),
        "expression": (frames, expressions),
        "rotation": (frames, 3),
        "translation": (frames, 3),
        "light": (frames, 27),
        "opened": (expressions,),
    }
    fitting = all(
        tensors[name].shape == shape and tensors[name].is_floating_point() and bool(tensors[name].isfinite().all())
        for name, shape in shapes.items()
    )
    return fitting and frames > 0 and 0 < int(tensors["crop_size"]) <= 4096
