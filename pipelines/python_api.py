"""The Python API: what `import talking_portrait` offers. Instant alone; the other systems are nodes and pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .types import Audio, FaceMotion, FaceTrack, Progress


def animate(
    image: str | Path | torch.Tensor,
    audio: str | Path | Audio,
    out: str | Path,
    *,
    motion: FaceMotion | None = None,
    fps: float | str = 25,
    longest_side: int | None = None,
    crf: int = 18,
    progress: Progress | None = None,
    **driver: Any,
) -> Path:
    """Makes a talking video of a portrait and a voice; returns its path.

    Args:
        image: the portrait, a file or (H, W, 3) in 0..1; its largest face speaks.
        audio: the voice, any sound or video file, or `Audio`.
        out: the video to write, .mp4.
        motion: what the face does, for example from `drive`; by default Instant's motion for the speech.
        fps: frames a second, 1 to 240, when there is no `motion`.
        longest_side: of the video in pixels; by default the picture's own.
        crf: H.264 quality, 0 (lossless) to 51.
        progress: called with frames done and frames in all.
        driver: what `drive` takes beside the audio: seed, mouth, head, nod, brows, blinks, blink_rate, drift.

    Raises TalkingPortraitError, one sentence, for files that can't be read or written and a picture without a face.
    """
    from .audio.waveform import as_speech, check_audio
    from .files.sound import SoundTrack, read_speech
    from .instant.animate import fit_portrait, write_animation
    from .timing import as_rate
    from .types import no_progress

    rate = as_rate(fps) if motion is None else motion.fps
    picture, track = fit_portrait(*_portrait(image), longest_side)
    sound: Audio | SoundTrack
    if isinstance(audio, str | Path):
        speech, sound = read_speech(audio, rate)
    else:
        sound = check_audio(audio)
        speech = as_speech(sound, rate)
    if motion is None:
        motion = drive(speech, fps=fps, **driver)
    write_animation(out, picture, track, motion, sound, crf=crf, progress=progress or no_progress)
    return Path(out)


def drive(audio: str | Path | Audio, *, fps: float | str = 25, **options: Any) -> FaceMotion:
    """The motion of a face that speaks this audio, by Instant's driver: lips, head, brows and blinks.

    `audio` is any sound or video file, or `Audio`; `options` are those of `pipelines.instant.driver.driver.drive`:
    seed, and amounts from 0 (still) over 1 (natural) for mouth, head, nod, brows, blinks, blink_rate and drift.
    """
    from .files.sound import read_speech
    from .instant.driver import driver
    from .timing import as_rate

    rate = as_rate(fps)
    speech = read_speech(audio, rate)[0] if isinstance(audio, str | Path) else audio
    return driver.drive(speech, fps=rate, **options)


def render(
    image: str | Path | torch.Tensor, motion: FaceMotion, *, progress: Progress | None = None
) -> Iterator[torch.Tensor]:
    """The frames (H, W, 3) uint8 of a portrait that moves, one after the other, by Instant's renderer.

    `image` is a file or (H, W, 3) in 0..1.
    """
    from .instant.animate import prepare_portrait
    from .types import no_progress

    picture, track = _portrait(image)
    for frames in prepare_portrait(picture, track).frames_uint8(motion, progress=progress or no_progress):
        yield from frames


def _portrait(image: str | Path | torch.Tensor) -> tuple[torch.Tensor, FaceTrack]:
    """The picture (H, W, 3) and the largest face in it."""
    from .face.landmarks import detect, open_landmarker
    from .files.images import read_image

    picture = read_image(image) if isinstance(image, str | Path) else image
    return picture, detect(picture[None], open_landmarker())[0]
