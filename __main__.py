"""The command line: python -m talking_portrait animate | motion | run | models."""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
import signal
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    # Run as `python path/to/this/folder`, for example from ComfyUI's custom_nodes: give the folder its package name.
    _folder = Path(__file__).absolute().parent  # not where a link leads: what lies around it says whose it is
    _spec = importlib.util.spec_from_file_location(
        "talking_portrait", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["talking_portrait"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["talking_portrait"])
    runpy.run_module("talking_portrait", run_name="__main__", alter_sys=True)
    sys.exit()

from typing import TYPE_CHECKING, Any

from .pipelines.errors import TalkingPortraitError, is_out_of_memory, shown

if TYPE_CHECKING:
    from fractions import Fraction

    import torch

    from .pipelines.types import Audio, FaceMotion, FaceTrack


class ProgressBar:
    """One line on the error stream: share done, speed and time left; silent where nobody watches."""

    def __init__(self, label: str, unit: str = "frames") -> None:
        self.label, self.unit = label, unit
        self.start = time.monotonic()
        self.shown = 0.0

    def __call__(self, done: int, total: int, preview: torch.Tensor | None = None) -> None:
        now = time.monotonic()
        if not sys.stderr.isatty() or (now - self.shown < 0.1 and done < total):
            return
        self.shown = now
        rate = done / max(now - self.start, 1e-6)
        left = (total - done) / max(rate, 1e-6)
        filled = 24 * done // max(total, 1)
        bar = "#" * filled + "." * (24 - filled)
        line = f"\r{self.label} [{bar}] {done}/{total} {self.unit}, {rate:.1f}/s, {left:.0f} s left "
        sys.stderr.write(line + ("\n" if done >= total else ""))
        sys.stderr.flush()


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns 0, 2 for input that can't be used, 130 when interrupted, 141 when nobody reads what it
    prints any more, or the command's own code."""
    asked = _end_cleanly_when_asked()
    try:
        options = _parser().parse_args(arguments)
        code = options.run(options) or 0
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        return _tell(error, interrupted=bool(asked))


def _tell(error: BaseException, *, interrupted: bool) -> int:
    """Says in one line how a command ended, and returns its code; a fault of the program itself is raised again."""
    # An interruption may come out as any other error, when it hits a library that was just being loaded.
    if interrupted or isinstance(error, KeyboardInterrupt):
        print("\ninterrupted", file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError):
        # Else the interpreter would complain at its end of what it could not flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if is_out_of_memory(error):
        print("error: This needs more memory than there is; choose a smaller --size or shorter audio.", file=sys.stderr)
        return 2
    if isinstance(error, (TalkingPortraitError, OSError)):
        print(f"error: {error}", file=sys.stderr)
        return 2
    raise error


def _end_cleanly_when_asked() -> list[int]:
    """Makes a polite request to end, or the end of the terminal, an interruption, so that what was begun is cleaned up.

    Returns a list that is filled with the signals that come.
    """
    asked: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores the last
            signal.signal(number, interrupt)
    return asked


def _parser() -> argparse.ArgumentParser:
    from .nodes.standalone import command as workflow_commands
    from .pipelines.commands import train as training_commands
    from .pipelines.model_files import store as model_files

    parser = argparse.ArgumentParser(prog="talking_portrait", description="One portrait, one voice, one talking video.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_animate(commands)
    _add_motion(commands)
    workflow_commands.add_commands(commands)
    model_files.add_commands(commands)
    training_commands.add_commands(commands, ProgressBar)
    return parser


_DRIVER_DEFAULTS: dict[str, Any] = {
    "fps": "25",
    "seed": 0,
    "mouth": 1.0,
    "head": 1.0,
    "nod": 1.0,
    "brows": 1.0,
    "blinks": 1.0,
    "blink_rate": 20.0,
    "drift": 1.0,
}
"""Of the driver's options, which the parser leaves at None where they are not given."""


def _add_driver_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("driver: what the face does (amounts: 1 is natural, 0 is still)")
    group.add_argument("--fps", help="frames a second of the video, e.g. 25, 30 or 30000/1001 (default 25)")
    group.add_argument("--seed", type=int, help="same seed, same motion")
    group.add_argument("--mouth", type=float, help="how far the mouth opens")
    group.add_argument("--head", type=float, help="head motion that goes with the speech")
    group.add_argument("--nod", type=float, help="nods on stressed syllables")
    group.add_argument("--brows", type=float, help="brow motion")
    group.add_argument("--blinks", type=float, help="blinks: 0 none, 1 full")
    group.add_argument("--blink-rate", type=float, metavar="N", help="blinks a minute (default 20)")
    group.add_argument("--drift", type=float, help="slow wandering of the head")


def _add_animate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("animate", help="a portrait and a voice become a video, on a plain CPU")
    command.add_argument("--image", type=Path, help="the portrait (default: the shipped one)")
    command.add_argument("--audio", type=Path, help="the voice, any sound or video file (default: the shipped one)")
    command.add_argument("--out", type=Path, required=True, help="the video to write, .mp4")
    command.add_argument(
        "--size", type=int, help="longer side of the video in pixels (default: the picture's own, up to 1920)"
    )
    command.add_argument(
        "--motion",
        type=Path,
        help="move as this saved motion (.npz) says, not as the audio does; "
        "with --audio the video lasts as long as the sound",
    )
    command.add_argument("--save-motion", type=Path, metavar="M.npz", help="also keep the motion")
    command.add_argument("--face", type=int, help="which face, counted from the left (default: the largest)")
    command.add_argument("--crf", type=int, default=18, help="H.264 quality, 0 lossless to 51 (default 18)")
    command.add_argument("--device", default="cpu", help="where frames are computed: cpu, cuda, mps ... (default cpu)")
    _add_driver_options(command)
    command.set_defaults(run=_animate)


def _add_motion(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("motion", help="what a voice does to a face, as an .npz file")
    command.add_argument("--audio", type=Path, help="the voice, any sound or video file (default: the shipped one)")
    command.add_argument("--out", type=Path, required=True, metavar="M.npz", help="the motion to write")
    _add_driver_options(command)
    command.set_defaults(run=_motion)


def _driver_option(options: argparse.Namespace, name: str) -> Any:
    value = getattr(options, name)
    return _DRIVER_DEFAULTS[name] if value is None else value


def _drive(options: argparse.Namespace, speech: Audio, fps: Fraction) -> FaceMotion:
    from .pipelines.instant.driver.driver import drive

    amounts = {name: _driver_option(options, name) for name in _DRIVER_DEFAULTS if name != "fps"}
    return drive(speech, fps=fps, progress=ProgressBar("listening", "parts"), **amounts)


def _say_what_has_no_effect(options: argparse.Namespace, motion: FaceMotion) -> None:
    """A line about driver options that were given with a motion, which is taken as it is."""
    given = [f"--{name.replace('_', '-')}" for name in _DRIVER_DEFAULTS if getattr(options, name) is not None]
    if given:
        print(
            f"{', '.join(given)} {'have' if len(given) > 1 else 'has'} no effect with --motion: the motion is taken as "
            f"it was saved, at {float(motion.fps):g} frames a second.",
            file=sys.stderr,
        )


def _lasting_as_long(motion: FaceMotion, speech: Audio) -> FaceMotion:
    """The motion for all of a sound, which sets the video's length; says so where it has another length."""
    from .pipelines.motion.edit import fit_length
    from .pipelines.timing import frame_count

    frames = frame_count(speech.waveform.shape[1], speech.sample_rate, motion.fps)
    if frames != motion.frames:
        done = "the motion is cut where the sound ends" if motion.frames > frames else "its last pose is held"
        print(
            f"The motion lasts {float(motion.seconds):.2f} s and the sound {float(speech.seconds):.2f} s, so {done}.",
            file=sys.stderr,
        )
    return fit_length(motion, frames)


def _animate(options: argparse.Namespace) -> None:
    from .pipelines.files.example import SPEECH_FILE
    from .pipelines.files.media import check_video_name, read_speech
    from .pipelines.files.motion_file import check_motion_name, load_motion, save_motion
    from .pipelines.files.output_paths import file_to_write
    from .pipelines.instant.animate import fit_portrait, write_animation
    from .pipelines.timing import as_rate

    check_video_name(options.out, options.crf)
    if options.save_motion:
        check_motion_name(options.save_motion)
    device = _device(options.device)
    for path in (options.out, options.save_motion):
        if path is not None:
            _keep_inputs(file_to_write(path), options.image, options.audio, options.motion)
    motion = load_motion(options.motion) if options.motion else None
    if motion is not None:
        _say_what_has_no_effect(options, motion)
    fps = as_rate(_driver_option(options, "fps")) if motion is None else motion.fps
    image, track = _portrait(options)
    image, track = fit_portrait(image, track, _longest_side(options, image))
    sound = None
    if options.audio or motion is None:
        speech, sound = read_speech(options.audio or SPEECH_FILE, fps)
        motion = _lasting_as_long(motion, speech) if motion else _drive(options, speech, fps)
        del speech
    start = time.monotonic()
    frames = write_animation(
        options.out,
        image,
        track,
        motion,
        sound,
        crf=options.crf,
        progress=ProgressBar("rendering"),
        device=device,
    )
    seconds = time.monotonic() - start
    if options.save_motion:
        save_motion(options.save_motion, motion)
    print(f"{options.out}: {frames} frames at {float(motion.fps):g} fps, {frames / seconds:.1f} frames a second")


def _keep_inputs(target: Path, *inputs: Path | None) -> None:
    """Raises TalkingPortraitError when a result would be written over what it is made from."""
    for path in inputs:
        if path is not None and os.path.exists(path) and os.path.exists(target) and os.path.samefile(path, target):
            raise TalkingPortraitError(
                f"{path} is to be read and to be written over; give another name for the result."
            )


def _device(name: str) -> torch.device:
    """The device of that name. Raises TalkingPortraitError where torch has none."""
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):  # torch has no one error for a device that is not there
        raise TalkingPortraitError(
            f"Frames can't be computed on {shown(name)} here, but a device that torch knows is expected; leave out "
            "--device for the CPU."
        ) from None
    return device


def _portrait(options: argparse.Namespace) -> tuple[torch.Tensor, FaceTrack]:
    """The picture (H, W, 3) and the face in it."""
    from .pipelines.face.landmarks import detect, open_landmarker
    from .pipelines.face.native_stderr import quiet_libraries
    from .pipelines.files.example import sample_portrait
    from .pipelines.files.media import read_image

    if options.image is None:
        if options.face:
            raise TalkingPortraitError(
                f"Face {options.face} was asked for, but the shipped portrait shows only face 0."
            )
        return sample_portrait()
    image = read_image(options.image)
    with quiet_libraries():
        landmarker = open_landmarker()
        if landmarker.hint:
            print(landmarker.hint, file=sys.stderr)
        if options.face is None:
            return image, detect(image[None], landmarker)[0]
        return image, detect(image[None], landmarker, choose="index", index=options.face)[0]


def _longest_side(options: argparse.Namespace, image: torch.Tensor) -> int | None:
    """The longer side that was asked for, or None for the picture's own; says so where that is made smaller."""
    from .pipelines.instant.animate import USUAL_LONGEST_SIDE

    height, width = image.shape[:2]
    if options.size is not None or max(height, width) <= USUAL_LONGEST_SIDE:
        return options.size
    print(
        f"{options.image} has {width} x {height} pixels; the longer side of the video gets {USUAL_LONGEST_SIDE} "
        "(choose another with --size).",
        file=sys.stderr,
    )
    return USUAL_LONGEST_SIDE


def _motion(options: argparse.Namespace) -> None:
    from .pipelines.files.example import SPEECH_FILE
    from .pipelines.files.media import read_speech
    from .pipelines.files.motion_file import check_motion_name, save_motion
    from .pipelines.files.output_paths import file_to_write
    from .pipelines.timing import as_rate

    check_motion_name(options.out)
    _keep_inputs(file_to_write(options.out), options.audio)
    fps = as_rate(_driver_option(options, "fps"))
    speech, _ = read_speech(options.audio or SPEECH_FILE, fps)
    motion = _drive(options, speech, fps)
    save_motion(options.out, motion)
    print(f"{options.out}: {motion.frames} frames at {float(motion.fps):g} fps")


if __name__ == "__main__":
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing left to clean up, and nobody to catch it
    sys.exit(code)
