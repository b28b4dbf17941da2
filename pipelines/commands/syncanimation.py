"""A person's SyncAnimation on the command line: `person drive` for its files, and `live`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TalkingPortraitError
from .shared.progress_bar import ProgressBar
from .shared.renderer_options import add_no_mark_option
from .shared.terminal import note, say
from .shared.weight_options import find_weights

if TYPE_CHECKING:
    import torch

    from ..syncanimation.person_model import PersonModel


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds `live`."""
    text = "speech drives a person's SyncAnimation, written as it is rendered; says the rate that this machine holds"
    command = commands.add_parser("live", help=text, description=text)
    command.add_argument("--model", type=Path, required=True, help="person.safetensors of train syncanimation")
    command.add_argument("--audio", type=Path, required=True, help="the speech, any sound or video file")
    command.add_argument("--out", type=Path, required=True, help="the video to write, .mp4")
    command.add_argument("--speech-encoder", type=Path, help="the one that the person was prepared with, if any")
    command.add_argument("--crf", type=int, default=18, help="H.264 quality, 0 lossless to 51 (default 18)")
    add_no_mark_option(command)
    add_drive_options(command)
    command.set_defaults(run=_live)


def add_drive_options(command: Any) -> None:
    from ..syncanimation.conditions import REFERENCES, SMOOTHINGS

    command.add_argument("--torso-scale", type=float, default=1.0, metavar="S", help="above 1 a smaller person (1)")
    command.add_argument("--seed", type=int, default=0, help="same seed, same head and expression")
    command.add_argument("--pose", type=Path, metavar="MOTION", help="a motion file, .npz, that moves the head")
    command.add_argument("--expression", type=Path, metavar="MOTION", help="one that moves brows and lids")
    command.add_argument("--reference", choices=REFERENCES, default=REFERENCES[0], help="what the prediction begins at")
    command.add_argument("--smoothing", choices=SMOOTHINGS, default=SMOOTHINGS[0], help="of the head's movement")
    text = "lips in long silence stay as in the pauses of the training, as published; without it they close"
    command.add_argument("--open-in-silence", action="store_true", help=text)


def drive_person(options: argparse.Namespace) -> None:
    """`person drive` with a SyncAnimation model."""
    from ..person.person import open_person

    if options.portrait and not options.video and not options.person:
        raise TalkingPortraitError(
            "A portrait puts the face into the person's video, but none was given; give the prepared person by "
            "--person, or its video by --video."
        )
    if not options.portrait and (options.video or options.person):
        given = "--video" if options.video else "--person"
        note(f"{given} has no effect without --portrait: the whole picture is made of the model.")
    head = (options.video or open_person(options.person)) if options.portrait else None
    model, frames, _ = _write(options, head, ProgressBar("driving"))
    say(f"{options.out}: {frames} frames at {float(model.video.fps):g} fps")


def _live(options: argparse.Namespace) -> None:
    find_weights(options)
    _, frames, clock = _write(options, None, ProgressBar("live"), live=True)
    say(f"{options.out}: {frames} frames; {clock.report()}")


class _Clock:
    """When frames come: `first` in seconds after the beginning, then the `rate` in frames a second.

    After `EARLY` seconds of them the rate is printed, once.
    """

    EARLY = 2.0

    def __init__(self, fps: Fraction, *, prints: bool) -> None:
        self._begun = self._latest = time.monotonic()
        self.first = 0.0
        self._frames = 0
        self._fps, self._prints = float(fps), prints

    def timed(self, frames: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        for frame in frames:
            self._latest = time.monotonic()
            self._frames += len(frame)
            self.first = self.first or self._latest - self._begun
            if self._prints and self._frames > 1 and self._latest - self._begun - self.first >= self.EARLY:
                self._prints = False
                say(f"frames so far: {self.report()}")
            yield frame

    def report(self) -> str:
        held = "faster" if self.rate >= self._fps else "slower"
        return (
            f"the first after {self.first:.2f} s, then {self.rate:.1f} frames a second, {held} than the "
            f"{self._fps:g} of real time"
        )

    @property
    def rate(self) -> float:
        return (self._frames - 1) / max(self._latest - self._begun - self.first, 1e-9) if self._frames > 1 else 0.0


def _write(
    options: argparse.Namespace, head: Any, progress: ProgressBar, *, live: bool = False
) -> tuple[PersonModel, int, _Clock]:
    """Writes the video; returns the model, the number of frames and when they came.

    `live`: the file's name is printed before the first frame, and the rate soon.
    """
    import torch

    from ..audiodvp.atnet import load_encoder
    from ..files.frame_stream import write_stream
    from ..files.motion_file import load_motion
    from ..files.output_paths import file_to_write, keep_inputs
    from ..files.sound import read_speech
    from ..files.video import check_video_name
    from ..memory import Resident
    from ..syncanimation.animate import Drive, frames_of, open_model

    check_video_name(options.out, options.crf)
    source = getattr(head, "source", head)
    inputs = (options.model, options.audio, options.pose, options.expression, source)
    keep_inputs(file_to_write(options.out), *(path for path in inputs if path is not None))
    model = open_model(options.model)
    model.check_trained()
    drive = Drive(
        pose=load_motion(options.pose) if options.pose else None,
        expression=load_motion(options.expression) if options.expression else None,
        reference=options.reference,
        smoothing=options.smoothing,
        torso_scale=options.torso_scale,
        seed=options.seed,
        close_in_silence=not options.open_in_silence,
    )
    encoder = load_encoder(options.speech_encoder)
    speech, sound = read_speech(options.audio, model.video.fps)
    if live:
        say(f"{options.out}: {model.frames_for(speech)} frames are being rendered; the last one completes the file")
    clock = _Clock(model.video.fps, prints=live)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    pictures = frames_of(
        model,
        speech,
        drive,
        head=head,
        renderer=Resident(model.networks.renderer, device),
        encoder=encoder,
        say=note,
        progress=progress,
    )
    frames = write_stream(
        options.out, clock.timed(pictures), model.video.fps, sound, crf=options.crf, mark=options.mark
    )
    return model, frames, clock
