"""`animate` with a video where a picture may stand: its person speaks the words."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from ..renderers import FILM_ENDS, chosen_face, film_end
from .shared.driver_options import drive_with
from .shared.progress_bar import ProgressBar
from .shared.terminal import note, say

if TYPE_CHECKING:
    from fractions import Fraction

    from ..types import Audio, FaceMotion

STILL = ("head", "nod", "brows", "blinks", "blink_rate", "drift")
"""Options of the driver that a filmed head has no use for."""


def add_film_options(command: argparse.ArgumentParser) -> None:
    """Adds what only a video can be given; those that are not given stay None."""
    group = command.add_argument_group("video in place of a portrait: its person speaks, all else stays as filmed")
    group.add_argument(
        "--film-end",
        choices=list(FILM_ENDS),
        help="where the speech lasts longer: play it back and forth, hold its last frame, or end with it "
        "(default back-and-forth)",
    )
    group.add_argument("--jaw", type=float, help="how far chin and cheeks follow the new words, 0 to 1 (default 1)")
    group.add_argument("--face-at", metavar="X,Y", help="the face nearest to this place in the first frames, in pixels")


def lasting_as_long(motion: FaceMotion, speech: Audio, fps: Fraction) -> FaceMotion:
    """The motion for all of the speech, which sets the video's length; notes where it has another length."""
    from ..motion.edit import lasting_as, said_of_length

    remark = said_of_length(motion, speech)
    if remark:
        note(remark)
    return lasting_as(speech, motion, fps)


def animate_film(options: argparse.Namespace, motion: FaceMotion | None) -> None:
    """The video of `options.image` with other words. Raises TalkingPortraitError for a face that is no place."""
    from ..face.landmarks import open_landmarker
    from ..face.native_stderr import redirect_native_stderr
    from ..files.example import SPEECH_FILE
    from ..files.frame_stream import write_stream
    from ..files.motion_file import save_motion
    from ..files.sound import read_speech
    from ..instant.dub.dub_video import dub_video

    _say_what_has_no_effect(options)
    sound = None

    def motion_at(fps: Fraction) -> FaceMotion:
        nonlocal sound
        if motion is not None and options.audio is None:
            return motion
        speech, sound = read_speech(options.audio or SPEECH_FILE, fps)
        if motion is None:
            return drive_with(options, speech, fps)
        return lasting_as_long(motion, speech, fps)

    with redirect_native_stderr():
        landmarker = open_landmarker()
        if landmarker.hint:
            note(landmarker.hint)
        video = dub_video(
            options.image,
            motion_at,
            landmarker,
            face=chosen_face(options.face, options.face_at, names=("--face", "--face-at")),
            fps=options.fps,
            end=film_end(options.film_end),
            jaw=1.0 if options.jaw is None else options.jaw,
            progress=ProgressBar("dubbing"),
        )
    note(video.report)
    start = time.monotonic()
    pieces, heard = (piece for piece, _ in video.pieces), video.heard(sound)
    frames = write_stream(options.out, pieces, video.fps, heard, crf=options.crf, mark=options.mark)
    seconds = time.monotonic() - start
    if options.save_motion:
        save_motion(options.save_motion, video.motion)
    say(f"{options.out}: {frames} frames at {float(video.fps):g} fps, {frames / seconds:.1f} frames a second")


def _say_what_has_no_effect(options: argparse.Namespace) -> None:
    """A line about driver options that a film has no use for."""
    still = [f"--{name.replace('_', '-')}" for name in STILL if getattr(options, name) is not None]
    if still:
        note(f"{', '.join(still)} {'have' if len(still) > 1 else 'has'} no effect on a video, whose head is as filmed.")
    if options.device not in (None, "cpu"):
        note("--device has no effect on a video, which is dubbed on the CPU.")
