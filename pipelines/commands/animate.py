"""`python -m talking_portrait animate`: a portrait, or a video of a person, and a voice become a video."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import TalkingPortraitError
from ..renderers import FILM_OPTIONS, INSTANT, Renderer, chosen_face, is_to_dub, refuse_film_options
from .animate_film import STILL, add_film_options, animate_film, lasting_as_long
from .shared.driver_options import DRIVER_DEFAULTS, add_driver_options, check_driver_options, drive_with, driver_option
from .shared.progress_bar import ProgressBar
from .shared.renderer_options import add_no_mark_option, add_renderer_options, chosen_renderer
from .shared.terminal import note, say

if TYPE_CHECKING:
    import torch

    from ..face.face_tracking import FacePicker
    from ..types import FaceMotion, FaceTrack


def add_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("animate", help="make a video from a portrait and speech, by any of the systems")
    command.add_argument("--image", type=Path, help="the portrait, or a video to dub (default: the shipped portrait)")
    command.add_argument("--audio", type=Path, help="the speech, any sound or video file (default: the shipped one)")
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the video to write, .mp4; .webm or .mov keep a picture's transparency (instant)",
    )
    command.add_argument(
        "--size",
        type=int,
        help="longer side of the video in pixels (default: the picture's own, up to 1920; aniportrait, apasco 512)",
    )
    command.add_argument(
        "--motion",
        type=Path,
        help="use this saved motion (.npz) in place of one predicted from the audio; "
        "with --audio the video lasts as long as the sound",
    )
    command.add_argument("--save-motion", type=Path, metavar="M.npz", help="also save the motion")
    command.add_argument("--face", type=int, help="which face, counted from 0 at the left (default: the largest)")
    command.add_argument("--crf", type=int, default=18, help="H.264 quality, 0 lossless to 51 (default 18)")
    command.add_argument(
        "--device",
        help="where frames are computed: cpu, cuda, mps ... (default: cpu for instant, else the accelerator there is)",
    )
    add_no_mark_option(command)
    add_driver_options(command)
    add_film_options(command)
    add_renderer_options(command)
    command.set_defaults(run=_animate)


def _say_what_has_no_effect(options: argparse.Namespace, motion: FaceMotion, film: bool) -> None:
    """A line about driver options that were given with a motion, which is taken as it is but for a film's rate."""
    names = set(DRIVER_DEFAULTS) if options.renderer == INSTANT else {"fps"}  # what else others take, they use
    if film:
        names -= {"fps", *STILL}
    given = [
        f"--{name.replace('_', '-')}"
        for name in DRIVER_DEFAULTS
        if name in names and getattr(options, name) is not None
    ]
    if given:
        rate = "" if film else f", at {float(motion.fps):g} frames a second"
        note(
            f"{', '.join(given)} {'have' if len(given) > 1 else 'has'} no effect with --motion: the motion is taken as "
            f"it was saved{rate}."
        )


def _animate(options: argparse.Namespace) -> None:
    from ..files.motion_file import load_motion
    from ..files.output_paths import keep_inputs
    from ..instant.animate import check_longest_side

    results = _results(options)
    device = _device(options)
    film = options.image is not None and is_to_dub(options.image, options.renderer, options.size, "--size")
    if not film:
        given = {f"--{name.replace('_', '-')}": getattr(options, name) for name in FILM_OPTIONS}
        refuse_film_options(given, "--image")
    renderer = chosen_renderer(options)
    if renderer is None:
        check_longest_side(options.size)
        if not options.motion:
            check_driver_options(options)
    else:
        for target in results:
            keep_inputs(target, *renderer.files.values())
        if options.save_motion and not renderer.takes_motion:
            raise TalkingPortraitError(
                f"--save-motion was given, but {options.renderer} makes no face motion to keep; leave it out."
            )
    motion = load_motion(options.motion) if options.motion else None
    if motion is not None:
        _say_what_has_no_effect(options, motion, film)
    if film:
        animate_film(options, motion)
    else:
        _animate_portrait(options, renderer, motion, device)


def _results(options: argparse.Namespace) -> list[Path]:
    """The files that are to be written. Raises TalkingPortraitError where one can't be, or is an input or the other."""
    from ..files.motion_file import check_motion_name
    from ..files.output_paths import file_to_write, keep_inputs
    from ..files.video import check_video_name

    check_video_name(options.out, options.crf)
    if options.save_motion:
        check_motion_name(options.save_motion)
    results = [file_to_write(path) for path in (options.out, options.save_motion) if path is not None]
    for target in results:
        keep_inputs(target, options.image, options.audio, options.motion)
    if len(set(results)) < len(results):
        raise TalkingPortraitError(
            f"{options.out} and {options.save_motion} are the same file by a link; give another name for one of them."
        )
    return results


def _animate_portrait(
    options: argparse.Namespace, renderer: Renderer | None, motion: FaceMotion | None, device: torch.device
) -> None:
    """Writes the video of a picture, by `renderer` or by Instant where it is None."""
    from ..files.example import SPEECH_FILE
    from ..files.frame_stream import write_stream
    from ..files.motion_file import save_motion
    from ..files.sound import read_speech
    from ..instant.animate import describe_portrait, fit_portrait, frames_of
    from ..timing import as_rate

    fps = motion.fps if motion else as_rate(renderer.fps if renderer else driver_option(options, "fps"))
    image, track = _portrait(options)
    if renderer is None:
        remark = describe_portrait(image, track)
        if remark:
            note(remark)
        image, track = fit_portrait(image, track, _longest_side(options, image))
    speech = sound = None
    if options.audio or motion is None:
        speech, sound = read_speech(options.audio or SPEECH_FILE, fps)
        motion = lasting_as_long(motion, speech, motion.fps) if motion else None
    if renderer is not None:
        video = renderer.speech_video(image, track, speech, motion, device=device, stage=ProgressBar)
        motion, pictures = video.motion, video.frames
    else:
        if motion is None:
            assert speech is not None
            motion = drive_with(options, speech, fps)
        pictures = frames_of(image, track, motion, device=device, progress=ProgressBar("rendering"))
    del speech
    start = time.monotonic()
    frames = write_stream(options.out, pictures, fps, sound, crf=options.crf, mark=options.mark)
    seconds = time.monotonic() - start
    if options.save_motion:
        assert motion is not None
        save_motion(options.save_motion, motion)
    say(f"{options.out}: {frames} frames at {float(fps):g} fps, {frames / seconds:.1f} frames a second")


def _device(options: argparse.Namespace) -> torch.device:
    """The device that was named, or the renderer's usual one. Raises TalkingPortraitError where torch has none."""
    import torch

    from ..memory import usable_device

    name = options.device
    if name is None:
        accelerated = options.renderer != INSTANT and torch.accelerator.is_available()
        return (torch.accelerator.current_accelerator() if accelerated else None) or torch.device("cpu")
    return usable_device(name)


def _portrait(options: argparse.Namespace) -> tuple[torch.Tensor, FaceTrack]:
    """The picture (H, W, 3), or (H, W, 4) where the video keeps its transparency, and the face in it."""
    from ..face.landmarks import detect, open_landmarker
    from ..face.native_stderr import redirect_native_stderr
    from ..files.example import example_portrait
    from ..files.images import is_animated, pages, read_image
    from ..files.video import holds_alpha

    if options.image is None:
        if options.face:
            raise TalkingPortraitError(
                f"Face {options.face} was requested, but the shipped portrait shows only face 0."
            )
        return example_portrait()
    image = read_image(options.image, alpha=options.renderer == INSTANT and holds_alpha(options.out))
    if is_animated(options.image):
        note(f"{options.image} moves, and its first picture is taken as the portrait; to dub it, save it as MP4.")
    elif (count := pages(options.image)) > 1:
        note(f"{options.image} has {count} pages, of which the first is taken as the portrait.")
    with redirect_native_stderr():
        landmarker = open_landmarker()
        if landmarker.hint:
            note(landmarker.hint)
        choice = chosen_face(options.face)
        return image, detect(
            image[None], landmarker, choose=choice.choose, index=choice.index, note=partial(_note_choice, options.image)
        )[0]


def _note_choice(image: Path, picker: FacePicker) -> None:
    """A line about a picture of several people, of whom none was chosen."""
    if choice := picker.choice_among("speaks"):
        note(f"{image} shows several faces, of which {choice}; choose another with --face, counted from 0 at the left.")


def _longest_side(options: argparse.Namespace, image: torch.Tensor) -> int | None:
    """The longer side that was requested, or None for the picture's own; reports where that is made smaller."""
    from ..instant.animate import USUAL_LONGEST_SIDE

    height, width = image.shape[:2]
    if options.size is not None or max(height, width) <= USUAL_LONGEST_SIDE:
        return options.size
    note(
        f"{options.image} has {width} x {height} pixels; the longer side of the video gets {USUAL_LONGEST_SIDE} "
        "(choose another with --size)."
    )
    return USUAL_LONGEST_SIDE
