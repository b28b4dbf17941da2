"""The model of one person in one file: networks, statistics of the labels, background and camera.

Tensors have the published names where there are any. Beside the networks' own: `stats.` averages, deviations and
limits of the labels and of the speech features; `mouth_network.` what computes those, where that is one; `bg.image`;
`cam.intrinsics`; `video.` poses, expressions, outlines of the face and speech of the video's frames. The metadata
`talking_portrait.syncanimation` is JSON: see `_describe`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...models.checkpoints import State
from ...models.syncanimation.audio_nets import AUDIO_CODE
from ...models.syncanimation.labels import BROWS, POSE, UPPER_FACE, Statistics, measure, raw_labels
from ...models.syncanimation.loading import build_networks
from ...models.syncanimation.networks import Networks
from ...models.syncanimation.rendering.camera import Camera
from ...models.weight_files import save_tensors
from ..audio.mouth_states import MouthEncoder
from ..errors import TalkingPortraitError, quoted
from ..person.head_video import HeadVideo
from ..person.model_file import ModelFormat
from ..person.person import Person
from ..timing import frame_count
from ..types import Audio
from .avatar import Avatar
from .blinks import Blinks
from .speech import SpeechScale

VERSION = 1
METADATA = "talking_portrait.syncanimation"
FORMAT = ModelFormat("syncanimation", "SyncAnimation", "train syncanimation", METADATA, VERSION)
MOUTH_NETWORK = "mouth_network."
STAGES = ("torso", "face", "lips")
"""In the order in which they are trained."""
ROOM = 0.15
"""How far beyond the range of the labels that were trained on a label may go, in parts of that range."""
LEAST_ROOM = torch.tensor([0.02] * 3 + [0.005] * 3 + [0.02] * 7)
"""The same at least: radians, metres and blendshapes."""
_STATISTICS = {
    "label_mean": "mean",
    "label_std": "std",
    "avg_euler": "average_euler",
    "avg_trans": "average_translation",
    "avg_bs": "average_expression",
}
"""Names in the file, where each is a row, and in `Statistics`."""


@dataclass(frozen=True)
class Labels:
    """What is known of each frame of the person's video.

    `c2w` (N, 4, 4), `expressions` (N, 7), `oval` (N, 36, 2) around the face in pixels of the avatar's pictures, `audio`
    (N, 256) as the syncers take it.
    """

    c2w: torch.Tensor
    expressions: torch.Tensor
    oval: torch.Tensor
    audio: torch.Tensor


@dataclass(frozen=True)
class PersonModel:
    """`first` (13,) are the normalised labels of the first frame, `limits` (2, 13) the least and largest labels.

    `rest_expression` (7,) is the expression most of the time, `blink_maximum` (2,) lids shut; `background` (S, S, 3)
    uint8; `stage` is the last one of STAGES that was trained, for `steps` steps. `closed_code` (32,) is the speech code
    of the closed mouth, see `closed_speech_code`; None in a file of before it was measured.
    """

    networks: Networks
    statistics: Statistics
    first: torch.Tensor
    limits: torch.Tensor
    rest_expression: torch.Tensor
    blink_maximum: torch.Tensor
    blinks: Blinks
    speech: SpeechScale
    camera: Camera
    background: torch.Tensor
    labels: Labels
    video: HeadVideo
    stage: str
    steps: int
    closed_code: torch.Tensor | None = None

    @classmethod
    def untrained(
        cls,
        networks: Networks,
        person: Person,
        avatar: Avatar,
        speech: SpeechScale,
        audio: torch.Tensor,
        frames: np.ndarray,
    ) -> PersonModel:
        """With the statistics of the `frames` that are to be trained on; `audio` (N, 256) is of all frames."""
        expressions = avatar.blendshapes[:, list(UPPER_FACE)].float()
        labels, rows = Labels(avatar.c2w.float(), expressions, avatar.oval.float(), audio), torch.from_numpy(frames)
        c2w, expressions = labels.c2w[rows], expressions[rows]
        statistics = measure(c2w, expressions)
        raw = raw_labels(c2w, expressions)
        low, high = raw.min(0).values, raw.max(0).values
        room = torch.maximum(ROOM * (high - low), LEAST_ROOM)
        return cls(
            networks=networks,
            statistics=statistics,
            first=statistics.normalise(c2w[:1], expressions[:1])[0],
            limits=torch.stack([low - room, high + room]),
            rest_expression=expressions.median(0).values,
            blink_maximum=high[POSE + BROWS :],
            blinks=Blinks(high[POSE + BROWS :], high[POSE + BROWS :]),
            speech=speech,
            camera=Camera(avatar.focal, avatar.focal, avatar.cx, avatar.cy, avatar.size, avatar.size),
            background=torch.from_numpy(avatar.background().copy()),
            labels=labels,
            video=HeadVideo(
                person.source.name,
                person.fingerprint,
                person.fps,
                person.size,
                avatar.box,
                avatar.usable,
                person.shots,
            ),
            stage="",
            steps=0,
        )

    @property
    def size(self) -> int:
        """Side in pixels of the pictures that it was trained on."""
        return self.camera.height

    def frames_for(self, audio: Audio) -> int:
        """How many frames the speech makes."""
        return frame_count(audio.samples, audio.sample_rate, self.video.fps)

    def check_trained(self) -> None:
        """Raises TalkingPortraitError where no head was trained yet."""
        if self.stage not in STAGES[1:]:
            raise TalkingPortraitError(
                f"The model of {self.video.name} was trained to the first stage ({self.stage}) only and has no head "
                "yet; go on with the run with stage all (train syncanimation --resume --stage all)."
            )

    def tensors(self) -> State:
        """By their names in the file."""
        stats = {name: getattr(self.statistics, own)[None] for name, own in _STATISTICS.items()}
        stats |= {
            "first_pose": self.first[None, :POSE],
            "first_bs": self.first[None, POSE:],
            "limits": self.limits,
            "rest_bs": self.rest_expression[None],
            "blink_maximum": self.blink_maximum[None],
            "blink_threshold": self.blinks.threshold[None],
            "blink_closed": self.blinks.closed[None],
            "speech_mean": self.speech.mean,
            "speech_scale": self.speech.scale,
        }
        if self.closed_code is not None:
            stats["closed_code"] = self.closed_code[None]
        camera, encoder = self.camera, self.speech.mouth_encoder
        return {
            **self.networks.tensors(),
            **{f"stats.{name}": tensor for name, tensor in stats.items()},
            "bg.image": self.background,
            "cam.intrinsics": torch.tensor([camera.focal_x, camera.focal_y, camera.centre_x, camera.centre_y]),
            "video.c2w": self.labels.c2w,
            "video.expressions": self.labels.expressions,
            "video.oval": self.labels.oval,
            "video.audio": self.labels.audio.half(),
            "video.usable": torch.from_numpy(self.video.usable),
            **{MOUTH_NETWORK + name: tensor for name, tensor in (encoder.weights if encoder else {}).items()},
        }

    def save(self, path: str | Path) -> None:
        """Writes one .safetensors. Raises OSError or SafetensorError where that fails."""
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.tensors().items()}
        save_tensors(tensors, path, {METADATA: json.dumps(self._describe())})

    def _describe(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            **self.video.notes(),
            "speech": self.speech.model,
            "mouth_network": self.speech.mouth_encoder.config if self.speech.mouth_encoder else None,
            "blendshapes": list(UPPER_FACE),
            "picture_size": self.size,
            "stage": self.stage,
            "steps": self.steps,
        }


def open_model(path: str | Path) -> PersonModel:
    """Reads the file that `train_syncanimation` writes; its networks are for inference, on the CPU.

    Raises TalkingPortraitError for a file of another system, of another version, or that is damaged.
    """
    return FORMAT.read(path, lambda state, notes: _build(state, notes, path))


def _build(state: Mapping[str, torch.Tensor], notes: Mapping[str, Any], path: str | Path) -> PersonModel:
    own = ("stats.", "bg.", "cam.", "video.", MOUTH_NETWORK)
    networks = build_networks({k: v for k, v in state.items() if not k.startswith(own)}, path=path)
    stats = {name.removeprefix("stats."): value for name, value in state.items() if name.startswith("stats.")}
    rows = {name: stats[name][0] for name in stats if stats[name].ndim == 2}
    size, stage = int(notes["picture_size"]), str(notes["stage"])
    labels = Labels(*(state[f"video.{name}"].float() for name in ("c2w", "expressions", "oval", "audio")))
    encoder = None
    if notes["mouth_network"] is not None:
        weights = {k.removeprefix(MOUTH_NETWORK): v for k, v in state.items() if k.startswith(MOUTH_NETWORK)}
        encoder = MouthEncoder.of_weights(weights, notes["mouth_network"])
    focal_x, focal_y, centre_x, centre_y = state["cam.intrinsics"].tolist()
    model = PersonModel(
        networks=networks.eval(),
        statistics=Statistics(**{own: rows[name] for name, own in _STATISTICS.items()}),
        first=torch.cat([rows["first_pose"], rows["first_bs"]]),
        limits=stats["limits"],
        rest_expression=rows["rest_bs"],
        blink_maximum=rows["blink_maximum"],
        blinks=Blinks(rows["blink_threshold"], rows["blink_closed"]),
        speech=SpeechScale(str(notes["speech"]), stats["speech_mean"], stats["speech_scale"], encoder),
        camera=Camera(focal_x, focal_y, centre_x, centre_y, size, size),
        background=state["bg.image"],
        labels=labels,
        video=HeadVideo.of_notes(notes, state["video.usable"].bool().numpy()),
        stage=stage,
        steps=int(notes["steps"]),
        closed_code=rows.get("closed_code"),
    )
    frames = len(model.video.usable)
    shapes = {
        "limits": (model.limits, (2, POSE + len(UPPER_FACE))),
        "first labels": (model.first, (POSE + len(UPPER_FACE),)),
        "background": (model.background, (size, size, 3)),
        "poses": (labels.c2w, (frames, 4, 4)),
        "expressions": (labels.expressions, (frames, len(UPPER_FACE))),
        "outlines": (labels.oval, (frames, 36, 2)),
        "speech": (labels.audio, (frames, networks.config.pose.audio)),
        "speech scale": (model.speech.scale, model.speech.mean.shape),
    }
    if model.closed_code is not None:
        shapes["closed mouth"] = (model.closed_code, (AUDIO_CODE,))
    wrong = [name for name, (tensor, shape) in shapes.items() if tuple(tensor.shape) != tuple(shape)]
    if wrong or stage not in STAGES or model.background.dtype != torch.uint8:
        raise FORMAT.unfit(path, f"its parts do not belong together ({', '.join(wrong) or quoted(stage)})")
    return model
