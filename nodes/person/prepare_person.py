"""Prepares a video of one person for the systems that are trained for a person."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedSpeechEncoder, landmarker, landmarker_fingerprint
from ..model_paths import Fingerprint
from ..person_folder import person_folder
from ..sockets import PersonSocket, SpeechEncoderSocket
from ..video_input import video_file


class PreparePerson(io.ComfyNode):
    """VIDEO to PERSON, a folder inside the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitPreparePerson",
            display_name="Prepare Person",
            category="Talking Portrait/person",
            description="Prepares a video in which one person speaks, for training on this person: tracks the face, "
            "crops it, fits a 3D face model and extracts speech features.",
            search_aliases=["audiodvp", "train person", "talking head training", "3d face fit"],
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
            ],
            outputs=[
                PersonSocket.Output(display_name="person", tooltip="The prepared person, for training and driving."),
                io.String.Output(display_name="report", tooltip="What of the video is usable and what is left out."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, engine: Any = "auto", **_: Any) -> Fingerprint:
        return landmarker_fingerprint(engine)

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
    ) -> io.NodeOutput:
        from ...pipelines.audiodvp.prepare import Settings, prepare_fitted_person

        found_by = landmarker(engine)
        if speech_encoder is not None:
            speech_encoder.memory.load()
        report: list[str] = []
        with video_file(video) as path:
            person = prepare_fitted_person(
                path,
                person_folder(name),
                settings=Settings(crop_size, silent=silent),
                landmarker=found_by,
                encoder=None if speech_encoder is None else speech_encoder.encoder,
                say=report.append,
                progress=host.progress(),
            )
        return io.NodeOutput(person, "\n".join([*report, found_by.hint]).strip())
