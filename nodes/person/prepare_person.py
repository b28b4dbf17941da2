"""Prepares a video of one person for the systems that are trained for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...pipelines.errors import TalkingPortraitError, quoted
from ...pipelines.person_systems import PERSON_SYSTEMS
from ...pipelines.syncanimation.avatar import SIZES
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import (
    LoadedSpeechEncoder,
    atnet_input,
    chosen_encoder,
    chosen_face_model,
    landmarker,
    landmarker_fingerprint,
)
from ..model_paths import NO_FILE, Fingerprint, files_fingerprint, optional_file_input
from ..person_nodes import person_folder
from ..sockets import PersonSocket, SpeechEncoderSocket
from ..video_input import video_file

CATEGORY = "detection"


class PreparePerson(io.ComfyNode):
    """VIDEO to PERSON, a folder inside the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitPreparePerson",
            display_name="Prepare Person",
            category="Talking Portrait/person",
            description="Prepares a video in which one person speaks, for training on this person: tracks the face, "
            "crops it, fits a 3D face model and extracts speech features; for SyncAnimation also "
            "separates head, torso and background.",
            search_aliases=["audiodvp", "syncanimation", "train person", "talking head training", "3d face fit"],
            inputs=[
                io.Video.Input(
                    "video", tooltip="A video of one person who speaks to the camera: some minutes, at least 2 seconds."
                ),
                io.String.Input(
                    "name",
                    default="person",
                    tooltip="A name for the person; the folder persons/<name> of the output folder keeps what is "
                    "prepared, and what is finished there is not done again.",
                ),
                SpeechEncoderSocket.Input(
                    "speech_encoder",
                    optional=True,
                    tooltip="From Load Speech Encoder: its features describe the speech; without one those of the "
                    "shipped mouth network do.",
                ),
                host.advanced(
                    io.Int.Input(
                        "crop_size",
                        default=256,
                        min=128,
                        max=1024,
                        step=64,
                        tooltip="Side of the cropped face pictures in pixels; AudioDVP was published with 256.",
                    )
                ),
                host.advanced(
                    io.Boolean.Input(
                        "silent",
                        default=False,
                        tooltip="Also accept a video without speech; its person can be driven, but not trained on.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "engine",
                        options=["auto", "mediapipe", "opencv"],
                        default="auto",
                        tooltip="What detects the landmarks, as in Detect Landmarks; auto uses the first that is "
                        "installed.",
                    )
                ),
                io.Combo.Input(
                    "prepare_for",
                    options=list(PERSON_SYSTEMS),
                    default="audiodvp",
                    optional=True,
                    tooltip="Which system will be trained on the person; what a person lacks for another one is added "
                    "when it is prepared again for that.",
                ),
                host.advanced(
                    io.Combo.Input(
                        "avatar_size",
                        options=["auto", *map(str, SIZES)],
                        default="auto",
                        optional=True,
                        tooltip="Side of SyncAnimation's pictures in pixels; auto takes the largest that the video "
                        "fills. Training time grows with its square.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "parser",
                        options=[NO_FILE, *host.model_names(CATEGORY, (".tflite", ".pth", ".safetensors"))],
                        default=NO_FILE,
                        optional=True,
                        tooltip="For SyncAnimation: BiSeNet's face parsing (.pth) or MediaPipe's selfie multiclass "
                        "segmenter (.tflite) in models/detection separates head, neck and torso; without a file "
                        "a small network is trained on the video.",
                    )
                ),
                optional_file_input(
                    "face_model",
                    (".safetensors",),
                    "A morphable face model in models/talking_portrait, as the command person face-model makes it of "
                    "the Basel Face Model's files: AudioDVP fits it, SyncAnimation tracks the head with its shape; "
                    "with none, neither needs a file.",
                ),
                optional_file_input(
                    "regressor",
                    (".pkl", ".pth", ".safetensors"),
                    "For AudioDVP with a face model: VGGFace2's resnet50_ft_weight.pkl in models/talking_portrait, to "
                    "fit the face model as published, by training it, which takes hours on a CPU.",
                ),
                atnet_input(
                    "In place of a speech encoder: ATVGnet's atnet_lstm_18.pth in models/talking_portrait, the "
                    "published speech features of AudioDVP.",
                ),
            ],
            outputs=[
                PersonSocket.Output(display_name="person", tooltip="The prepared person, for training and driving."),
                io.String.Output(display_name="report", tooltip="What of the video is usable and what is left out."),
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls,
        engine: Any = "auto",
        parser: Any = NO_FILE,
        face_model: Any = NO_FILE,
        regressor: Any = NO_FILE,
        atnet: Any = NO_FILE,
        **_: Any,
    ) -> Fingerprint:
        own = files_fingerprint(host.OWN_CATEGORY, face_model, regressor, atnet)
        return landmarker_fingerprint(engine) + files_fingerprint(CATEGORY, parser) + own

    @classmethod
    @checked_node
    def execute(
        cls,
        video: Any,
        name: str,
        speech_encoder: LoadedSpeechEncoder | None = None,
        crop_size: int = 256,
        silent: bool = False,
        engine: Any = "auto",
        prepare_for: Any = "audiodvp",
        avatar_size: Any = "auto",
        parser: Any = NO_FILE,
        face_model: Any = NO_FILE,
        regressor: Any = NO_FILE,
        atnet: Any = NO_FILE,
    ) -> io.NodeOutput:
        from ...pipelines.person.prepare import Settings
        from ...pipelines.person_systems import prepare_person_for

        found_by = landmarker(engine)
        encoder = chosen_encoder(speech_encoder, atnet)
        morphable, network = chosen_face_model(face_model, regressor)
        report: list[str] = []
        with video_file(video) as path:
            person = prepare_person_for(
                prepare_for,
                path,
                person_folder(name),
                avatar_size=None if avatar_size == "auto" else int(avatar_size),
                parser=_parser_file(parser),
                settings=Settings(crop_size, silent=silent),
                landmarker=found_by,
                encoder=encoder,
                face_model=morphable,
                regressor=network,
                say=report.append,
                progress=host.progress(),
            )
        return io.NodeOutput(person, "\n".join([*report, found_by.hint]).strip())


def _parser_file(name: str) -> Path | None:
    """The chosen file, None for none. Raises TalkingPortraitError where it is not there."""
    if name == NO_FILE:
        return None
    path = host.model_path((CATEGORY, host.OWN_CATEGORY), name)
    if path is None:
        folder = host.model_folders(CATEGORY)[0]
        raise TalkingPortraitError(
            f"There is no {quoted(name)} in {folder}, but a face parser is expected; choose one that is there, or none."
        )
    return path
