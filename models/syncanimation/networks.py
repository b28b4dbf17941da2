"""All networks of one person, and the names that their tensors have in a file."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from .rendering.fields import HeadConfig, HeadField, TorsoConfig, TorsoField
from .rendering.renderer import Renderer
from .syncers import EmotionSyncer, EmotionSyncerConfig, PoseSyncer, PoseSyncerConfig

CODES = ("individual_codes", "individual_codes_torso")
POSE_PREFIX, EMOTION_PREFIX, SPEECH_PREFIX = "au2PoseNet.", "au2BsNet.", "speech_map."
GRID_DENSITY, GRID_TORSO = "grid.density", "grid.torso"


@dataclass(frozen=True)
class NetworksConfig:
    """Sizes of all networks.

    `speech` is how many values a frame's speech features have for the syncers; None where they are the 256 already
    that the syncers take.
    """

    head: HeadConfig = field(default_factory=HeadConfig)
    torso: TorsoConfig = field(default_factory=TorsoConfig)
    pose: PoseSyncerConfig = field(default_factory=PoseSyncerConfig)
    emotion: EmotionSyncerConfig = field(default_factory=EmotionSyncerConfig)
    speech: int | None = None


class Networks(nn.Module):
    """The renderer, the two syncers, and the map of speech features to the syncers' 256 values."""

    def __init__(self, config: NetworksConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworksConfig()
        self.renderer = Renderer(HeadField(config.head), TorsoField(config.torso))
        self.pose_syncer, self.emotion_syncer = PoseSyncer(config.pose), EmotionSyncer(config.emotion)
        self.speech_map = nn.Identity() if config.speech is None else nn.Linear(config.speech, config.pose.audio)

    @torch.no_grad()
    def fit_speech_map(self, features: torch.Tensor) -> None:
        """Starts the speech map with the principal components of features (N, D), each of deviation 1.

        Where there are fewer components than outputs the others start at 0. Without a map nothing is done.
        """
        if not isinstance(self.speech_map, nn.Linear):
            return
        mean = features.mean(0)
        _, sizes, axes = torch.linalg.svd((features - mean).double(), full_matrices=False)
        deviations = sizes / max(len(features) - 1, 1) ** 0.5
        useful = deviations > 1e-6 * deviations.max().clamp(min=1e-12)
        rows = (axes[useful] / deviations[useful, None])[: self.speech_map.out_features].to(features.dtype)
        self.speech_map.weight.zero_()
        self.speech_map.weight[: len(rows)] = rows
        self.speech_map.bias.copy_(-self.speech_map.weight @ mean)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a person's file holds, under the published names where there are such.

        Of the individual codes the first, which driving uses, and the mean; the head's grid in float16.
        """
        renderer = self.renderer
        named = {**renderer.head.state_dict(), **renderer.torso.state_dict()}
        for name in CODES:
            named[name] = torch.stack([named[name][0], named[name].mean(0)])
        parts = (
            (POSE_PREFIX, self.pose_syncer),
            (EMOTION_PREFIX, self.emotion_syncer),
            (SPEECH_PREFIX, self.speech_map),
        )
        for prefix, network in parts:
            named |= {prefix + name: tensor for name, tensor in network.state_dict().items()}
        largest = torch.finfo(torch.float16).max
        named[GRID_DENSITY] = renderer.occupancy.density.clamp(max=largest).half()
        named[GRID_TORSO] = renderer.torso_occupancy.density
        return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
