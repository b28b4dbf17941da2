"""What the nodes of systems that are trained for one person share: folders, inputs, the way to load, train and drive.

Prepared persons, their trainings and their drivers lie in folders of their own inside the output folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from ..pipelines.errors import TalkingPortraitError, quoted
from ..pipelines.person.person import Person
from ..pipelines.types import Audio
from ..pipelines.workflow.result_names import plain_name
from . import host
from .checked_node import checked_node
from .frames import check_memory, even_sides, new_clip
from .host import io
from .inputs import seed_input
from .model_paths import Fingerprint, files_fingerprint, own_model, verdict
from .renderer_node import RendererNode, streamed_video, video_of
from .sockets import PersonSocket, SpeechEncoderSocket

Model = TypeVar("Model")
PERSONS, RUNS, DRIVERS = "persons", "runs", "drivers"


def person_folder(name: str) -> Path:
    """The folder of the person of that name. Raises TalkingPortraitError for what is no plain name."""
    return host.output_folder() / PERSONS / _plain(name, "person", "anna")


def run_folder(person: Person, name: str) -> Path:
    """The folder of a training of that name, in the person's. Raises as `person_folder`."""
    return person.folder / RUNS / _plain(name, "run", "audiodvp")


def driver_file(name: str) -> Path:
    """The file of a person's driver of that name. Raises as `person_folder`."""
    return host.output_folder() / DRIVERS / f"{_plain(name, 'driver', 'anna')}.safetensors"


def _plain(name: str, what: str, example: str) -> str:
    if not name or plain_name(name) != name:
        raise TalkingPortraitError(
            f"The {what}'s name is {quoted(name)}, but a plain one that a folder can have is expected, such as "
            f"{example}."
        )
    return name


class PersonModelLoader(io.ComfyNode):
    """A file to the model of one person, of one `SYSTEM`."""

    NODE_ID: ClassVar[str]
    """In full, so that a search for it finds the node."""
    SYSTEM: ClassVar[str]
    SOCKET: ClassVar[Any]
    ALIASES: ClassVar[tuple[str, ...]]
    """Other words to search the node by."""
    FILE: ClassVar[str] = "A run's person.safetensors"
    OUTPUT: ClassVar[str] = "model"
    USE: ClassVar[str] = ""
    """What the output is for; by default the system's Drive."""

    @classmethod
    def opened(cls, path: Path) -> Any:
        """What goes on the socket. Raises TalkingPortraitError for a file of something else."""
        raise NotImplementedError

    @classmethod
    def define_schema(cls) -> io.Schema:
        name = cls.SYSTEM
        return host.schema(
            node_id=cls.NODE_ID,
            display_name=f"Load {name}",
            category="Talking Portrait/person",
            description=f"Loads a person's {name} model, as Train {name} or the command train "
            f"{name.lower().replace(' ', '-')} writes it.",
            search_aliases=list(cls.ALIASES),
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.model_names(host.OWN_CATEGORY, (".safetensors",)),
                    tooltip=f"{cls.FILE}, copied to models/talking_portrait under any name.",
                )
            ],
            outputs=[cls.SOCKET.Output(display_name=cls.OUTPUT, tooltip=f"For {cls.USE or f'{name} Drive'}.")],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return verdict(cls._path, file)

    @classmethod
    def fingerprint_inputs(cls, file: Any = None, **_: Any) -> Fingerprint:
        return files_fingerprint(host.OWN_CATEGORY, file)

    @classmethod
    @checked_node
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(cls.opened(cls._path(file)))

    @classmethod
    def _path(cls, file: str) -> Path:
        advice = f"train one with Train {cls.SYSTEM} and copy it there"
        return own_model(file, f"a person's {cls.SYSTEM} model", advice)


# --- inputs of training ---


def minutes_input(tooltip: str) -> io.Input:
    return io.Float.Input("minutes", default=20.0, min=0.1, max=10000.0, step=1.0, round=0.1, tooltip=tooltip)


def training_size_input(tooltip: str) -> io.Input:
    return io.Combo.Input("size", options=["auto", "small", "published"], default="auto", tooltip=tooltip)


def run_input(default: str) -> io.Input:
    return io.String.Input(
        "run",
        default=default,
        tooltip="A name for this training; a run of the same name and person is gone on with.",
    )


def steps_input(tooltip: str) -> io.Input:
    return host.advanced(io.Int.Input("steps", default=0, min=0, max=10_000_000, tooltip=tooltip))


def held_out_input() -> io.Input:
    return host.advanced(
        io.Float.Input(
            "held_out",
            default=0.1,
            min=0.0,
            max=0.5,
            step=0.05,
            round=0.01,
            tooltip="Share of the video, at its end, that is measured and not trained on.",
        )
    )


def training_seed_input() -> io.Input:
    return host.advanced(seed_input("Same seed, same run on the same machine.", default=42))


def training_outputs(socket: Any, system: str) -> list[io.Output]:
    return [
        socket.Output(
            display_name="model", tooltip=f"The person's model, for {system} Drive; its file lies in the run."
        ),
        io.String.Output(display_name="report", tooltip="How good it is on what it was not trained on."),
    ]


def trained(
    train: Callable[..., tuple[Model, Path]], person: Person, run: str, settings: Any, **options: Any
) -> tuple[Model, str]:
    """The model that `train` makes of a person in the folder of a run, and a report with its file's path."""
    report: list[str] = []
    progress = host.progress()
    host.unload_networks()
    # The host runs nodes without gradients.
    with torch.inference_mode(False), torch.enable_grad():
        model, path = train(
            person.folder, run_folder(person, run), settings, progress=progress, say=report.append, **options
        )
    return model, "\n".join([str(path), *report])


# --- driving ---


def speech_input() -> io.Input:
    return io.Audio.Input("audio", tooltip="The speech; it decides how long the video is.")


def head_inputs(person_tooltip: str) -> list[io.Input]:
    """The person whose video's frames are used, or that video."""
    return [
        PersonSocket.Input("person", optional=True, tooltip=person_tooltip),
        io.Video.Input("video", optional=True, tooltip="In place of it, the video that the person was prepared from."),
    ]


def own_encoder_input() -> io.Input:
    return SpeechEncoderSocket.Input(
        "speech_encoder", optional=True, tooltip="The one that the person was prepared with, if any."
    )


def driven(
    node: type[RendererNode],
    pieces: Iterable[tuple[torch.Tensor, torch.Tensor]],
    count: int,
    size: tuple[int, int],
    fps: Fraction,
    sound: Audio | None,
) -> io.NodeOutput:
    """IMAGE, MASK, frame rate and VIDEO of `count` frames (1, H, W, 3) uint8 with masks (1, H, W), as they come.

    `size` is their height and width. Frames are kept only where the node's outputs need them.
    """
    if not node.keeps_frames():
        stream = (frames for frames, _ in pieces)
        return io.NodeOutput(None, None, float(fps), streamed_video(stream, fps, sound))
    height, width = (side + side % 2 for side in size)
    check_memory(count, height, width, 4, smaller="use shorter audio")
    images, masks = new_clip(count, height, width, 3), new_clip(count, height, width)
    for number, (frame, mask) in enumerate(pieces):
        images[number], masks[number] = even_sides(frame)[0] / 255, even_sides(mask)[0]
    return io.NodeOutput(images, masks, float(fps), video_of(images, fps, sound))
