"""Fine-tunes Instant's driver on one person's own way of speaking."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from ...pipelines.errors import TalkingPortraitError
from ...pipelines.person.person import Person
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedDriver, landmarker, landmarker_fingerprint
from ..model_paths import Fingerprint
from ..person_nodes import driver_file
from ..sockets import DriverSocket, PersonSocket
from ..video_input import video_file


class TrainInstantDriver(io.ComfyNode):
    """PERSON or VIDEO to DRIVER, and a file with its weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitTrainInstantDriver",
            display_name="Train Instant Driver",
            category="Talking Portrait/person",
            description="Learns how one person moves the mouth, from 20 seconds or more of video; takes about a minute "
            "on a CPU.",
            search_aliases=["lip sync training", "personal driver", "own voice", "fine-tune"],
            inputs=[
                io.Video.Input("video", optional=True, tooltip="A video of one person who speaks, 20 seconds or more."),
                PersonSocket.Input(
                    "person", optional=True, tooltip="From Prepare Person, in place of a video; its face is tracked."
                ),
                io.String.Input(
                    "name",
                    default="driver",
                    tooltip="The weights are written to drivers/<name>.safetensors of the output folder, for Load "
                    "Instant Driver and for the command line's --weights.",
                ),
                host.advanced(
                    io.Int.Input(
                        "steps",
                        default=80,
                        min=1,
                        max=2000,
                        tooltip="More steps fit the video more closely, and other speech less.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "engine",
                        options=["auto", "mediapipe", "opencv"],
                        default="auto",
                        tooltip="What detects the landmarks in a video, as in Detect Landmarks.",
                    )
                ),
            ],
            outputs=[
                DriverSocket.Output(display_name="driver", tooltip="For the driver input of Instant Driver."),
                io.String.Output(display_name="report", tooltip="What was learned, and where the weights lie."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, engine: Any = "auto", **_: Any) -> Fingerprint:
        return landmarker_fingerprint(engine)

    @classmethod
    @checked_node
    def execute(
        cls,
        name: str,
        video: Any = None,
        person: Person | None = None,
        steps: int = 80,
        engine: Any = "auto",
    ) -> io.NodeOutput:
        from ...pipelines.training.instant.people import train_person_driver

        if (video is None) == (person is None):
            given = "Neither a video nor a person" if video is None else "A video and a person"
            raise TalkingPortraitError(f"{given} is connected, but one of the two is expected; connect one.")
        path = driver_file(name)
        # The host runs nodes without gradients.
        with ExitStack() as stack, torch.inference_mode(False), torch.enable_grad():
            source = stack.enter_context(video_file(video)) if person is None else person
            learned = train_person_driver(
                source,
                path,
                landmarker(engine) if person is None else None,
                steps=steps,
                progress=host.progress(),
            )
        return io.NodeOutput(LoadedDriver(learned.network), "\n".join([str(path), *learned.report]))
