"""The Python API: what `import talking_portrait` offers; the steps one by one are Instant's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import plain_numbers

if TYPE_CHECKING:
    import torch

    from .files.sound import SoundTrack
    from .instant.dub.dub_video import FaceChoice
    from .instant.dub.film import End
    from .types import Audio, FaceMotion, FaceTrack, Progress


@plain_numbers
def animate(
    image: str | Path | torch.Tensor,
    audio: str | Path | Audio,
    out: str | Path,
    *,
    renderer: str = "instant",
    motion: FaceMotion | None = None,
    fps: float | str | None = None,
    longest_side: int | None = None,
    face: int | None = None,
    film_end: str | None = None,
    jaw: float | None = None,
    face_at: Sequence[float] | str | None = None,
    crf: int = 18,
    mark: bool = True,
    device: str = "cpu",
    models: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Makes a talking video of a portrait, or of a person's video, and a voice; returns its path.

    Args:
        image: the portrait, a file or (H, W, 3) in 0..1, or a video file, which instant dubs: its person speaks and
            keeps moving as filmed.
        audio: the voice, any sound or video file, or `Audio`.
        out: the video to write, .mp4; .webm and .mov keep a picture's transparency (instant). Frames go there as they
            are made, so their number takes no memory.
        renderer: what makes the frames: "instant", "aniportrait", "anitalker" or "apasco".
        motion: what the face does, for example from `drive`, for instant and aniportrait; by default the renderer's
            own motion for the speech.
        fps: frames a second, 1 to 240, when there is no `motion`; by default 25, for aniportrait 30, and a dubbed
            video's own. anitalker has 25.
        longest_side: of the video in pixels; by default the picture's own for instant, and 512 for aniportrait and
            apasco. A dubbed video keeps its size.
        face: which face speaks, counted from 0 at the left; by default the largest.
        film_end: where the speech lasts longer than a dubbed video: "back-and-forth" (the default), "hold" its last
            frame, or "cut".
        jaw: how far chin and cheeks of a dubbed video follow the new words, 0 to 1 (the default).
        face_at: (x, y) in pixels, in place of `face`: the face of a dubbed video that is nearest to it at the start.
        crf: H.264 quality, 0 (lossless) to 51.
        mark: whether frames get the invisible mark of AI-made videos; the metadata say so in any case, and without the
            mark that it was turned off.
        device: where frames are computed: "cpu", "cuda" ...
        models: the folder that holds vae, audio_encoders, talking_portrait ...; by default where `models get` puts
            them.
        progress: called with what is done and what there is to do, frames or steps, of each part of the work.
        options: for instant what `drive` takes beside the audio: seed, mouth, head, nod, brows, blinks, blink_rate,
            drift; for the others what `animate --help` lists: steps, cfg, seed, framing ..., and their model files.

    Raises TalkingPortraitError, one sentence, for files that can't be read or written, missing model files, options
    that the renderer does not take, and a picture without a face.
    """
    import torch

    from .errors import TalkingPortraitError, check_seed, check_whole_numbers, quoted
    from .files.frame_stream import write_stream
    from .files.output_paths import file_to_write, keep_inputs
    from .files.video import check_video_name, holds_alpha
    from .instant.animate import check_longest_side, fit_portrait, frames_of
    from .instant.driver.driver import check_choices
    from .memory import usable_device
    from .progress import given_progress
    from .provenance.marking import new_marking
    from .renderers import INSTANT, Renderer, check_option_names, chosen_face, is_to_dub, refuse_film_options
    from .renderers import film_end as end_of_film
    from .timing import as_rate

    report = given_progress(progress)
    check_whole_numbers({"fps": fps, "longest_side": longest_side, "face": face, "jaw": jaw, "crf": crf, **options})
    check_seed(options.get("seed", 0))
    check_video_name(out, crf)
    new_marking(mark)  # only refuses what is no mark, before anything is read
    if motion is not None:
        _check_motion(motion)
    if models is not None and not isinstance(models, str | Path):
        raise TalkingPortraitError(f"The models are {quoted(models)}, but the path of a folder is expected.")
    usable_device(device)
    check_option_names(renderer, options, ("fps", "longest_side", "face", "film_end", "jaw", "face_at", "crf", "mark"))
    choice = chosen_face(face, face_at)
    if renderer == INSTANT and motion is None:
        check_choices(options)
    target = file_to_write(out)
    keep_inputs(target, *(Path(given) for given in (image, audio) if isinstance(given, str | Path)))
    if isinstance(image, str | Path) and is_to_dub(image, renderer, longest_side):
        _dub(
            image,
            audio,
            out,
            motion=motion,
            fps=fps,
            face=choice,
            end=end_of_film(film_end),
            jaw=1.0 if jaw is None else jaw,
            crf=crf,
            mark=mark,
            progress=report,
            options=options,
        )
        return Path(out)
    refuse_film_options({"film_end": film_end, "jaw": jaw, "face_at": face_at}, "the image")
    system: Renderer | None = None
    if renderer == INSTANT:
        check_longest_side(longest_side)
    else:
        given = {"fps": fps if motion is None else None, "size": longest_side}
        given = {name: value for name, value in given.items() if value is not None}
        folders = None if models is None else lambda category: [Path(models) / category]
        system = Renderer(renderer, {**options, **given}, motion=motion is not None, folders=folders)
        keep_inputs(target, *system.files.values())
    rate = motion.fps if motion else as_rate(system.fps if system else 25 if fps is None else fps)
    picture, track = _portrait(image, alpha=system is None and holds_alpha(out), face=choice)
    if system is None:
        picture, track = fit_portrait(picture, track, longest_side)
    speech, sound = _speech_and_sound(audio, rate)
    if system is not None:
        frames = system.speech_video(
            picture, track, speech, motion, device=torch.device(device), stage=lambda label, unit: report
        ).frames
    else:
        if motion is None:
            motion = drive(speech, fps=rate, **options)
        frames = frames_of(picture, track, motion, device=device, progress=report)
    write_stream(out, frames, rate, sound, crf=crf, mark=mark)
    return Path(out)


def _dub(
    film: str | Path,
    audio: str | Path | Audio,
    out: str | Path,
    *,
    motion: FaceMotion | None,
    fps: float | str | None,
    face: FaceChoice,
    end: End,
    jaw: float,
    crf: int,
    mark: bool,
    progress: Progress,
    options: dict[str, Any],
) -> None:
    """Writes the film with the words of the audio, for as long as they last."""
    from .face.landmarks import open_landmarker
    from .files.frame_stream import write_stream
    from .instant.dub.dub_video import dub_video
    from .motion.edit import lasting_as

    sound: Audio | SoundTrack | None = None

    def motion_at(rate: Fraction) -> FaceMotion:
        nonlocal sound
        speech, sound = _speech_and_sound(audio, rate)
        return drive(speech, fps=rate, **options) if motion is None else lasting_as(speech, motion, rate)

    video = dub_video(film, motion_at, open_landmarker(), face=face, fps=fps, end=end, jaw=jaw, progress=progress)
    write_stream(out, (frames for frames, _ in video.pieces), video.fps, video.heard(sound), crf=crf, mark=mark)


def _speech_and_sound(audio: str | Path | Audio, fps: Fraction) -> tuple[Audio, Audio | SoundTrack]:
    """What drivers take for frames at a rate, and the sound to put beside them."""
    from .audio.waveform import as_speech, check_audio
    from .files.sound import read_speech

    if isinstance(audio, str | Path):
        return read_speech(audio, fps)
    sound = check_audio(audio)
    return as_speech(sound, fps), sound


@plain_numbers
def drive(audio: str | Path | Audio, *, fps: float | str | Fraction = 25, **options: Any) -> FaceMotion:
    """The motion of a face that speaks this audio, by Instant's driver: lips, head, brows and blinks.

    `audio` is any sound or video file, or `Audio`; `options` are those of `pipelines.instant.driver.driver.drive`:
    seed, and amounts from 0 (still) over 1 (natural) for mouth, head, nod, brows, blinks, blink_rate and drift.
    """
    from .errors import check_seed, check_whole_numbers
    from .files.sound import read_speech
    from .instant.driver import driver
    from .renderers import INSTANT, check_option_names
    from .timing import as_rate

    check_option_names(INSTANT, options)
    check_whole_numbers({"fps": fps, **options})
    check_seed(options.get("seed", 0))
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
    from .progress import given_progress

    report = given_progress(progress)
    _check_motion(motion)
    picture, track = _portrait(image)
    for frames in prepare_portrait(picture, track).frames_uint8(motion, progress=report):
        yield from frames


def _check_motion(motion: object) -> None:
    """Raises TalkingPortraitError for what is no motion, such as the name of a file of one."""
    from .errors import TalkingPortraitError, quoted
    from .types import FaceMotion

    if not isinstance(motion, FaceMotion):
        raise TalkingPortraitError(
            f"The motion is {quoted(motion)}, but a FaceMotion is expected; give one that drive returns."
        )


def _portrait(
    image: str | Path | torch.Tensor, *, alpha: bool = False, face: FaceChoice | None = None
) -> tuple[torch.Tensor, FaceTrack]:
    """The picture (H, W, 3), with `alpha` (H, W, 4) where it has transparency, and the largest or chosen face in it."""
    import torch

    from .errors import TalkingPortraitError, quoted
    from .face.landmarks import detect, open_landmarker
    from .files.images import read_image
    from .finite import check_plain, check_scale
    from .image.affine_sampling import over_white
    from .renderers import chosen_face

    check_plain(image, "The picture")
    if not isinstance(image, str | Path | torch.Tensor):
        raise TalkingPortraitError(
            f"The picture is {quoted(image)}, but the path of a file or a tensor (height, width, 3) is expected."
        )
    picture = read_image(image, alpha=alpha) if isinstance(image, str | Path) else image
    if picture.ndim != 3 or picture.shape[2] not in (3, 4) or not picture.is_floating_point():
        kind = str(picture.dtype).removeprefix("torch.")
        raise TalkingPortraitError(
            f"The picture has the shape {tuple(picture.shape)} and numbers of the type {kind}, but "
            "(height, width, 3 or 4) with real numbers from 0 to 1 is expected."
        )
    if picture is image and picture.numel():
        check_scale(picture, "The picture", "load it anew.")
    if not alpha:
        picture = over_white(picture)
    choice = face or chosen_face(None)
    return picture, detect(picture[None], open_landmarker(), choose=choice.choose, index=choice.index)[0]
