"""The trainers of what follows speech: head poses, the upper face, and the speech code that opens the lips.

All three see all training frames in each step, as their batch norm wants (published). Published: both syncers get the
true labels, through an autoencoder and as the frame before, and are driven without either; a network that leans on
those follows speech badly. So half of the loss here comes from the way that it is driven, with the squared error of the
published figure, and in the end the batch norms' statistics are those of driving. The speech code is published to be
trained by pictures alone, which takes long; here it first learns to say how the mouth is open, and is scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ....models.face.face_mesh import BLENDSHAPES
from ....models.syncanimation.audio_nets import AUDIO_CODE, speech_windows
from ....models.syncanimation.labels import POSE, previous_labels
from ....models.syncanimation.losses import syncer_loss
from ....models.syncanimation.syncers import EmotionSyncer, PoseSyncer, SyncerOutput
from ..core.trainer import Batch, Trainer
from ..data.datasets import Item

if TYPE_CHECKING:
    from ....models.syncanimation.rendering.fields import HeadField

NOISE = 0.3
"""Standard deviation of what is added to the speech, whose largest part has about ten times that; found by trying."""
CODE_NOISE = 1.0
"""The same of the speech features that the speech code is computed from, which have a deviation of 1."""
PREVIOUS_NOISE = 0.01
"""Published."""
CALIBRATIONS = 10
"""Passes over the training frames that the batch norms' statistics come from."""
MOUTH_COLUMNS = [place - 1 for place, name in enumerate(BLENDSHAPES) if name.startswith(("jaw", "mouth"))]
"""Of the blendshapes that follow `_neutral`."""


@dataclass(frozen=True)
class Speech:
    """Consecutive frames: `audio` (N, 256) and normalised `labels` (N, 13), of which those that `usable` (N,) count.

    `first` (13,) are the labels that driving starts from, `average` (7,) the average expression.
    """

    audio: torch.Tensor
    labels: torch.Tensor
    usable: torch.Tensor
    first: torch.Tensor
    average: torch.Tensor


class Steps(torch.utils.data.Dataset):
    """A dataset for trainers that have all data at hand: item n is n."""

    def __getitem__(self, number: int) -> Item:
        return {"number": torch.tensor(number)}


class _SyncerTrainer(Trainer):
    audio: torch.Tensor
    labels: torch.Tensor
    usable: torch.Tensor
    first: torch.Tensor
    average: torch.Tensor

    def __init__(self, network: nn.Module, speech: Speech, columns: slice) -> None:
        super().__init__()
        self.network = network
        buffers = {"audio": speech.audio, "usable": speech.usable, "average": speech.average}
        buffers |= {"labels": speech.labels[:, columns], "first": speech.first[columns]}
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        return self.predicted()[1]

    def predicted(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels (N, D) of all frames as they are driven, and the loss of a step."""
        audio = self.audio + NOISE * torch.randn_like(self.audio)
        output = self._published(audio)
        counted = SyncerOutput(*(part[self.usable] for part in output))
        labels = self.driven(audio)
        difference = (labels - self.labels)[self.usable]
        return labels, syncer_loss(counted, self.labels[self.usable]) + difference.square().mean()

    def _published(self, audio: torch.Tensor) -> SyncerOutput:
        raise NotImplementedError

    def driven(self, audio: torch.Tensor) -> torch.Tensor:
        """Labels as they are predicted when nothing but the first frame's is known."""
        raise NotImplementedError

    @torch.no_grad()
    def calibrate(self) -> None:
        """Gives the batch norms the statistics that they have in driving."""
        self.eval()
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm1d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for _ in range(CALIBRATIONS):
            self.driven(self.audio)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


class PoseTrainer(_SyncerTrainer):
    """Of the AudioPose syncer."""

    title = "syncanimation-pose"
    network: PoseSyncer

    def __init__(self, network: PoseSyncer, speech: Speech) -> None:
        super().__init__(network, speech, slice(0, POSE))

    def _published(self, audio: torch.Tensor) -> SyncerOutput:
        before = previous_labels(self.labels, PREVIOUS_NOISE * torch.randn_like(self.labels))
        return self.network.training_pass(audio, before, self.labels, self._noise())

    def driven(self, audio: torch.Tensor) -> torch.Tensor:
        return self.network(audio, self.first.expand(len(audio), -1), self._noise())

    def _noise(self) -> torch.Tensor:
        return torch.randn(len(self.audio), self.network.config.code, device=self.audio.device)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"pose_syncer": self.network.state_dict()}


class EmotionTrainer(_SyncerTrainer):
    """Of the AudioEmotion syncer."""

    title = "syncanimation-emotion"
    network: EmotionSyncer

    def __init__(self, network: EmotionSyncer, speech: Speech) -> None:
        super().__init__(network, speech, slice(POSE, None))

    def _published(self, audio: torch.Tensor) -> SyncerOutput:
        return self.network.training_pass(audio, self._average(), self.labels, self._frames(), self._noise())

    def driven(self, audio: torch.Tensor) -> torch.Tensor:
        reference = self.first.expand(len(audio), -1)
        return self.network(audio, self._average(), reference, self._frames(), self._noise())

    def _average(self) -> torch.Tensor:
        return self.average.expand(len(self.audio), -1)

    def _frames(self) -> torch.Tensor:
        return torch.arange(len(self.audio), device=self.audio.device)

    def _noise(self) -> torch.Tensor:
        return torch.randn(len(self.audio), self.network.config.code, device=self.audio.device)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"emotion_syncer": self.network.state_dict()}


class SpeechCodeTrainer(Trainer):
    """Of the part of the head's field that turns speech into its code: the code is to say how the mouth is open."""

    title = "syncanimation-speech"

    features: torch.Tensor
    mouth: torch.Tensor
    usable: torch.Tensor

    def __init__(self, head: HeadField, features: torch.Tensor, mouth: torch.Tensor, usable: torch.Tensor) -> None:
        """`features` (N, C, S) of consecutive frames, `mouth` (N, K) standardised, `usable` (N,) those that count."""
        super().__init__()
        self.audio_net, self.audio_att_net = head.audio_net, head.audio_att_net
        self.readout = nn.Linear(AUDIO_CODE, mouth.shape[1])
        for name, tensor in {"features": features, "mouth": mouth, "usable": usable}.items():
            self.register_buffer(name, tensor, persistent=False)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        codes = self.audio_net(self.features + CODE_NOISE * torch.randn_like(self.features))
        predicted = self.readout(self.audio_att_net(speech_windows(codes)))
        return (predicted - self.mouth)[self.usable].square().mean()

    @torch.no_grad()
    def calibrate(self) -> None:
        """Scales the code to a deviation of 1, so that it counts from the first step of the head's training on."""
        codes = self.audio_att_net(speech_windows(self.audio_net(self.features)))[self.usable]
        deviation = (codes - codes.mean(0)).square().mean().sqrt().clamp(min=1e-6)
        last, attention = self.audio_net.encoder_fc1[-1], self.audio_att_net.attentionConvNet[0]
        assert isinstance(last, nn.Linear)
        assert isinstance(attention, nn.Conv1d)
        last.weight.div_(deviation)
        last.bias.div_(deviation)
        attention.weight.mul_(deviation)  # attends as before

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"speech_code": self.state_dict()}


def over_face_height(landmarks: torch.Tensor, one: int, other: int) -> torch.Tensor:
    """The distance (N,) of two of the landmarks (N, 68, 2) over the face's height."""
    height = (landmarks[:, 8] - landmarks[:, 27]).norm(dim=1)
    return (landmarks[:, one] - landmarks[:, other]).norm(dim=1) / height


def mouth_labels(blendshapes: torch.Tensor, landmarks: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """How the mouth is open (N, K), with mean 0 and deviation 1 over the `usable` frames (N,).

    Blendshapes (N, 52) of jaw and mouth, and from landmarks (N, 68, 2) the lips' opening and width over the face's
    height. What hardly changes is left out.
    """
    opening = over_face_height(landmarks, 66, 62)[:, None]
    width = over_face_height(landmarks, 54, 48)[:, None]
    # The opening is what lips are judged by: it counts as much as four of the others.
    values = torch.cat([blendshapes[:, MOUTH_COLUMNS], opening.expand(-1, 4), width], 1)
    deviation = values[usable].std(0)
    kept = deviation > 1e-3
    return ((values - values[usable].mean(0)) / deviation.clamp(min=1e-6))[:, kept]
