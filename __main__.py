"""The command line: python -m talking_portrait animate | motion | run | models."""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import signal
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    # Run as `python path/to/this/folder`, for example from ComfyUI's custom_nodes: give the folder its package name.
    _folder = Path(__file__).resolve().parent
    _spec = importlib.util.spec_from_file_location(
        "talking_portrait", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["talking_portrait"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["talking_portrait"])
    runpy.run_module("talking_portrait", run_name="__main__", alter_sys=True)
    sys.exit()

from typing import TYPE_CHECKING

import torch

from .pipelines.errors import TalkingPortraitError

if TYPE_CHECKING:
    from .pipelines.types import Audio, FaceMotion


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
    """Runs one command; returns 0, 2 for input that can't be used, 130 when interrupted, or the command's own code."""
    # A polite request to end is an interruption: what was begun is cleaned up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = _parser().parse_args(arguments)
        return options.run(options) or 0
    except TalkingPortraitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    from .nodes import cli as workflow_commands
    from .pipelines import model_files

    parser = argparse.ArgumentParser(prog="talking_portrait", description="One portrait, one voice, one talking video.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_animate(commands)
    _add_motion(commands)
    workflow_commands.add_commands(commands)
    model_files.add_commands(commands)
    return parser


def _add_driver_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("driver: what the face does (amounts: 1 is natural, 0 is still)")
    group.add_argument("--fps", default="25", help="frames a second of the video, e.g. 25, 30 or 30000/1001")
    group.add_argument("--seed", type=int, default=0, help="same seed, same motion")
    group.add_argument("--mouth", type=float, default=1.0, help="how far the mouth opens")
    group.add_argument("--head", type=float, default=1.0, help="head motion that goes with the speech")
    group.add_argument("--nod", type=float, default=1.0, help="nods on stressed syllables")
    group.add_argument("--brows", type=float, default=1.0, help="brow motion")
    group.add_argument("--blinks", type=float, default=1.0, help="blinks: 0 none, 1 full")
    group.add_argument("--blink-rate", type=float, default=20.0, metavar="N", help="blinks a minute (default 20)")
    group.add_argument("--drift", type=float, default=1.0, help="slow wandering of the head")


def _add_animate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("animate", help="a portrait and a voice become a video, on a plain CPU")
    command.add_argument("--image", type=Path, help="the portrait (default: the shipped one)")
    command.add_argument("--audio", type=Path, help="the voice, any sound or video file (default: the shipped one)")
    command.add_argument("--out", type=Path, required=True, help="the video to write, .mp4")
    command.add_argument("--size", type=int, help="longer side of the video in pixels (default: the picture's own)")
    command.add_argument("--motion", type=Path, help="move as this saved motion (.npz) says, not as the audio does")
    command.add_argument("--save-motion", type=Path, metavar="M.npz", help="also keep the motion")
    command.add_argument("--face", type=int, help="which face, counted from the left (default: the largest)")
    command.add_argument("--crf", type=int, default=18, help="H.264 quality, 0 lossless to 51 (default 18)")
    _add_driver_options(command)
    command.set_defaults(run=_animate)


def _add_motion(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("motion", help="what a voice does to a face, as an .npz file")
    command.add_argument("--audio", type=Path, help="the voice, any sound or video file (default: the shipped one)")
    command.add_argument("--out", type=Path, required=True, metavar="M.npz", help="the motion to write")
    _add_driver_options(command)
    command.set_defaults(run=_motion)


def _drive(options: argparse.Namespace, audio: Audio) -> FaceMotion:
    from .pipelines.instant.driver import drive
    from .pipelines.timing import as_rate

    return drive(
        audio,
        fps=as_rate(options.fps),
        seed=options.seed,
        mouth=options.mouth,
        head=options.head,
        nod=options.nod,
        brows=options.brows,
        blinks=options.blinks,
        blink_rate=options.blink_rate,
        drift=options.drift,
        progress=ProgressBar("listening", "parts"),
    )


def _animate(options: argparse.Namespace) -> None:
    from .pipelines.animate import fit_portrait, write_animation
    from .pipelines.landmarks import detect, open_landmarker
    from .pipelines.media import read_audio, read_image
    from .pipelines.motion import load_motion, save_motion
    from .pipelines.sample import sample_portrait, sample_speech

    audio = read_audio(options.audio) if options.audio else None
    if options.motion:
        motion = load_motion(options.motion)
    else:
        audio = audio or sample_speech()
        motion = _drive(options, audio)
    if options.image is None:
        if options.face:
            raise TalkingPortraitError(
                f"Face {options.face} was asked for, but the shipped portrait shows only face 0."
            )
        image, track = sample_portrait()
    else:
        image = read_image(options.image)
        landmarker = open_landmarker()
        if options.face is None:
            track, _ = detect(image[None], landmarker)
        else:
            track, _ = detect(image[None], landmarker, choose="index", index=options.face)
    image, track = fit_portrait(image, track, options.size)
    start = time.monotonic()
    frames = write_animation(
        options.out, image, track, motion, audio, crf=options.crf, progress=ProgressBar("rendering")
    )
    seconds = time.monotonic() - start
    if options.save_motion:
        save_motion(options.save_motion, motion)
    print(f"{options.out}: {frames} frames at {float(motion.fps):g} fps, {frames / seconds:.1f} frames a second")


def _motion(options: argparse.Namespace) -> None:
    from .pipelines.media import read_audio
    from .pipelines.motion import save_motion
    from .pipelines.sample import sample_speech

    motion = _drive(options, read_audio(options.audio) if options.audio else sample_speech())
    save_motion(options.out, motion)
    print(f"{options.out}: {motion.frames} frames at {float(motion.fps):g} fps")


if __name__ == "__main__":
    sys.exit(main())
