"""The checkpoint of a regressor's training, one file in the person's folder.

weights/NAME      the network's weights and statistics
adam/NAME/KEY     what Adam keeps of a parameter
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from ....models.audiodvp.expression_regressor import ExpressionRegressor
from ....models.audiodvp.face_model import FaceModel
from ....models.weight_files import save_tensors
from ...errors import TalkingPortraitError, reason_of
from ...files.output_paths import replacing
from ...person.person import Person

FILE = "regressor_checkpoint.safetensors"


@dataclass(frozen=True)
class RegressorCheckpoint:
    """`run` names what is trained, on what and how long: a checkpoint of another run is not gone on with."""

    path: Path
    run: str

    @classmethod
    def of(cls, person: Person, model: FaceModel, network: ExpressionRegressor, schedule: str) -> RegressorCheckpoint:
        """Of a network that has not been trained yet."""
        digest = hashlib.sha256(schedule.encode())
        digest.update(person.usable.tobytes())
        for tensor in (*model.tensors().values(), *network.state_dict().values()):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return cls(person.folder / FILE, digest.hexdigest())

    def save(self, network: ExpressionRegressor, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Raises TalkingPortraitError where the folder can't be written."""
        from safetensors import SafetensorError

        tensors = {f"weights/{name}": tensor for name, tensor in network.state_dict().items()}
        for name, weight in network.named_parameters():
            tensors |= {f"adam/{name}/{key}": torch.as_tensor(value) for key, value in optimiser.state[weight].items()}
        try:
            with replacing(self.path) as partial:
                flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
                save_tensors(flat, partial, {"run": self.run, "step": str(step)})
        except (OSError, SafetensorError) as error:
            raise TalkingPortraitError(
                f"The face model's fit can't be written to {self.path.parent} ({reason_of(error)}); check that the "
                "folder is there and has room, and run it again: it goes on from the checkpoint before."
            ) from None

    def restore(self, network: ExpressionRegressor, optimiser: torch.optim.Optimizer) -> int:
        """Steps that are done: 0 where there is no checkpoint of this run that can be read."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "pt") as file:
                notes = file.metadata() or {}
                if notes.get("run") != self.run:
                    return 0
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return 0
        prefix = "weights/"
        network.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        for name, weight in network.named_parameters():
            kept = f"adam/{name}/"
            optimiser.state[weight] = {n.removeprefix(kept): t for n, t in tensors.items() if n.startswith(kept)}
        return int(notes["step"])
