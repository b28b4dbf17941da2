"""What nodes hold of models: handles of networks whose place in memory the host decides, each made from files.

A loader node finds its files, raises for those that are missing or another system's, and puts a handle on its socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..pipelines.aniportrait.settings import Networks
from ..pipelines.errors import TalkingPortraitError
from . import host
from .host import io
from .model_paths import (
    Fingerprint,
    fingerprint,
    known_model,
    missing_model,
    optional_file_input,
    optional_own_model,
)

if TYPE_CHECKING:
    from ..models.audiodvp.expression_regressor import ExpressionRegressor
    from ..models.audiodvp.face_model import FaceModel
    from ..models.speech.encoder import SpeechEncoder
    from ..models.speech.mouth_network import MouthNetwork
    from ..pipelines.audiodvp.person_model import PersonModel
    from ..pipelines.evaluation.networks import Networks as EvaluationNetworks
    from ..pipelines.face.landmarker_mediapipe import MediaPipeLandmarker
    from ..pipelines.face.landmarker_opencv import TFLiteLandmarker
    from ..pipelines.person.speech import Encoder
    from ..pipelines.syncanimation.person_model import PersonModel as SyncAnimationModel

LANDMARKER = "face_landmarker"


@dataclass(frozen=True)
class LoadedSpeechEncoder:
    """SPEECH_ENCODER: the encoder, and its network where the host keeps it."""

    encoder: SpeechEncoder
    memory: host.ManagedModule


@dataclass(frozen=True)
class LoadedAniTalker:
    """ANITALKER: its renderer, and one of its motion models."""

    stage1: host.ManagedModule
    stage2: host.ManagedModule


@dataclass(frozen=True)
class LoadedFaceRestorer:
    """FACE_RESTORER: a GFPGAN."""

    network: host.ManagedModule


@dataclass(frozen=True)
class LoadedAniPortrait:
    """ANIPORTRAIT: the diffusion's networks and those for speech, each read when it is first needed."""

    networks: Networks
    audio2mesh: host.ManagedModule
    audio2pose: host.ManagedModule


@dataclass(frozen=True)
class LoadedAudioDVP:
    """AUDIODVP: the model of one person, and its renderer where the host keeps it."""

    person: PersonModel
    renderer: host.ManagedModule

    @classmethod
    def of(cls, person: PersonModel) -> LoadedAudioDVP:
        return cls(person, host.ManagedModule(person.renderer))


@dataclass(frozen=True)
class LoadedDriver:
    """DRIVER: the mouth network of one person, small enough to stay in memory."""

    network: MouthNetwork


@dataclass(frozen=True)
class LoadedSyncAnimation:
    """SYNCANIMATION: the model of one person, and its renderer where the host keeps it."""

    person: SyncAnimationModel
    renderer: host.ManagedModule

    @classmethod
    def of(cls, person: SyncAnimationModel) -> LoadedSyncAnimation:
        return cls(person, host.ManagedModule(person.networks.renderer))


def landmarker(engine: Any = "auto") -> MediaPipeLandmarker | TFLiteLandmarker:
    """The landmark engine, with the model file that the host has for it."""
    from ..pipelines.face.landmarks import open_landmarker

    task = known_model(LANDMARKER)
    if task is None and engine == "mediapipe":
        raise missing_model(LANDMARKER)
    return open_landmarker(task, engine, command=host.models_command)


def evaluation_networks() -> EvaluationNetworks:
    """Those that the host has the files of."""
    from ..pipelines.evaluation.networks import load_networks

    return load_networks(known_model)


def evaluation_fingerprint() -> Fingerprint:
    """For `fingerprint_inputs` of a node that uses `evaluation_networks`."""
    from ..pipelines.evaluation.networks import FILES

    return fingerprint(map(known_model, FILES))


def landmarker_fingerprint(engine: Any = "auto") -> Fingerprint:
    """For `fingerprint_inputs` of nodes that detect faces: they choose the engine's file themselves."""
    return () if engine == "opencv" else fingerprint([known_model(LANDMARKER)])


def atnet_input(tooltip: str) -> io.Input:
    """The choice of ATnet's file."""
    return optional_file_input("atnet", (".pth", ".safetensors"), tooltip)


def chosen_encoder(speech_encoder: LoadedSpeechEncoder | None, atnet: str) -> Encoder | None:
    """The encoder of a socket, or ATnet of a file in our own folder; None for neither.

    Raises TalkingPortraitError for both, for a file that is not there and for one of something else.
    """
    path = optional_own_model(
        atnet, "ATVGnet's atnet_lstm_18.pth", "take it from https://github.com/lelechen63/ATVGnet, or choose none"
    )
    if path is None:
        if speech_encoder is None:
            return None
        speech_encoder.memory.load()
        return speech_encoder.encoder
    if speech_encoder is not None:
        raise TalkingPortraitError(
            "A speech encoder is connected and an ATnet is chosen, but one of them is expected; disconnect the encoder "
            "or choose none."
        )
    from ..models.audiodvp.loading import load_audio_features
    from ..pipelines.audiodvp.atnet import Atnet

    return Atnet(load_audio_features(path))


def chosen_face_model(face_model: str, regressor: str) -> tuple[FaceModel | None, ExpressionRegressor | None]:
    """A morphable face model and the network to fit it with, of files in our own folder.

    Raises TalkingPortraitError for files that are not there or of something else, and for a regressor alone.
    """
    from ..pipelines.audiodvp.morphable.regressor import load_models

    page = "https://github.com/cydonia999/VGGFace2-pytorch"
    return load_models(
        optional_own_model(
            face_model, "a face model", "make one with the command person face-model, put it there, or choose none"
        ),
        optional_own_model(regressor, "VGGFace2's resnet50_ft_weight.pkl", f"take it from {page}, or choose none"),
    )
