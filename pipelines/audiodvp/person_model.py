"""The model of one person in one file: all that driving needs but the head video's frames.

Tensors: `a2e.` speech to expression, `nfr.` the neural renderer, `face.` the face model, `coefficients.` those of each
frame of the head video, and which frames are usable, `speech.` the mouth network whose states are the speech features,
unless they are others. The metadata `talking_portrait.audiodvp` is JSON: see `_describe`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...models.audiodvp.face_model import build_face_model
from ...models.audiodvp.loading import build_neural_renderer
from ...models.audiodvp.neural_renderer import NeuralRenderer
from ...models.audiodvp.speech_to_expression import SpeechToExpression, build_speech_to_expression
from ...models.checkpoints import State
from ...models.weight_files import save_tensors
from ..audio.mouth_states import NAME, MouthEncoder
from ..person.head_video import HeadVideo
from ..person.model_file import ModelFormat
from ..timing import frame_count
from ..types import Audio
from .fitted_face import FittedFace
from .renders import Part

VERSION = 1
METADATA = "talking_portrait.audiodvp"
FORMAT = ModelFormat("audiodvp_person", "AudioDVP", "train audiodvp", METADATA, VERSION)
EXPRESSION, RENDERER, FACE, COEFFICIENTS, SPEECH = "a2e.", "nfr.", "face.", "coefficients.", "speech."
USABLE = "usable"


@dataclass(frozen=True)
class PersonModel:
    """`face` has the coefficients of every frame of `video`; `speech` is the name of the features that
    `speech_to_expression` takes, and `mouth_encoder` computes them where they are a mouth network's; `part` is the part
    of the crops that the renderer works on."""

    speech_to_expression: SpeechToExpression
    renderer: NeuralRenderer
    face: FittedFace
    video: HeadVideo
    speech: str
    part: Part
    mouth_encoder: MouthEncoder | None = None

    def frames_for(self, audio: Audio) -> int:
        """How many frames the speech makes."""
        return frame_count(audio.samples, audio.sample_rate, self.video.fps)

    def tensors(self) -> State:
        """By their names in the file."""
        parts = {
            EXPRESSION: self.speech_to_expression.state_dict(),
            RENDERER: self.renderer.state_dict(),
            FACE: self.face.face_model.tensors(),
            COEFFICIENTS: self.face.tensors() | {USABLE: torch.from_numpy(self.video.usable)},
            SPEECH: self.mouth_encoder.weights if self.mouth_encoder else {},
        }
        return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}

    def save(self, path: str | Path) -> None:
        """Writes one .safetensors. Raises OSError or SafetensorError where that fails."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors().items()}
        save_tensors(tensors, path, {METADATA: json.dumps(self._describe())})

    def _describe(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            **self.video.notes(),
            "crop_size": self.face.crop_size,
            "speech": self.speech,
            "mouth_network": self.mouth_encoder.config if self.mouth_encoder else None,
            "part": list(self.part),
            "speech_to_expression": self.speech_to_expression.config,
            "renderer": asdict(self.renderer.config),
            "camera": asdict(self.face.face_model.camera),
            "mirrored": self.face.face_model.mirrored,
        }


def open_model(path: str | Path) -> PersonModel:
    """Reads the file that `train_audiodvp` writes; its networks are for inference, on the CPU.

    Raises TalkingPortraitError for a file of another system, of another version, or that is damaged.
    """
    return FORMAT.read(path, lambda state, notes: _build(state, notes, path))


def _build(state: Mapping[str, torch.Tensor], notes: Mapping[str, Any], path: str | Path) -> PersonModel:
    coefficients = _part(state, COEFFICIENTS)
    usable = coefficients.pop(USABLE)
    model_notes = {name: json.dumps(notes[name]) for name in ("camera", "mirrored")}
    face = FittedFace.of_tensors(build_face_model(_part(state, FACE), model_notes, path=path), coefficients, path)
    video = HeadVideo.of_notes(notes, usable.bool().numpy())
    network = build_speech_to_expression(_part(state, EXPRESSION), notes["speech_to_expression"], path=path)
    renderer = build_neural_renderer(_part(state, RENDERER), path=path)
    if len(video.usable) != face.frames or network.network.config.expressions != face.expression.shape[1]:
        raise FORMAT.unfit(path, "its parts do not belong together")
    encoder, speech = _mouth_encoder(_part(state, SPEECH), notes), str(notes["speech"])
    if speech.startswith(f"{NAME}-") and (encoder is None or encoder.name != speech):
        raise FORMAT.unfit(path, "the mouth network that it was trained with is not in it")
    top, bottom, left, right = map(int, notes["part"])
    step = 2**renderer.config.downs
    sides = ((top, bottom), (left, right))
    if not all(0 <= low < high <= face.crop_size and (high - low) % step == 0 for low, high in sides):
        raise ValueError("a part of the crops that the renderer can't work on")
    return PersonModel(network, renderer, face, video, speech, (top, bottom, left, right), encoder)


def _mouth_encoder(weights: State, notes: Mapping[str, Any]) -> MouthEncoder | None:
    """None where the features are others. Raises ValueError for weights that do not fit their description."""
    if notes.get("mouth_network") is None:  # files of earlier versions say nothing
        return None
    try:
        return MouthEncoder.of_weights(weights, notes["mouth_network"])
    except RuntimeError:
        raise ValueError("mouth_network") from None


def _part(state: Mapping[str, torch.Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
