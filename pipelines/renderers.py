"""The systems that can be named as a renderer, on the command line and in Python, and what each takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import TalkingPortraitError, check_names, quoted

if TYPE_CHECKING:
    import torch

    from .instant.dub.dub_video import FaceChoice
    from .instant.dub.film import End
    from .model_files.store import Command, Folders
    from .speech_video import SpeechVideo, Stage
    from .types import Audio, FaceMotion, FaceTrack

INSTANT = "instant"
WITH_FILES = ("aniportrait", "anitalker", "apasco")
"""Those that run on model files, which have to be fetched first."""
RENDERERS = (INSTANT, *WITH_FILES)
FILM_ENDS: dict[str, End] = {"back-and-forth": "back and forth", "hold": "hold", "cut": "cut"}
"""What happens where a film is shorter than the speech, by the names that users give."""
FILM_OPTIONS = ("film_end", "jaw", "face_at")
"""What only a film that is dubbed can be given."""


def renderer_module(name: str) -> ModuleType:
    """`pipelines/<name>/speech_video.py`, with FILES, TAKES_MOTION, FPS, Options, is_spare and speech_video.

    Raises TalkingPortraitError for a name that is none of `WITH_FILES`.
    """
    if name == "aniportrait":
        from .aniportrait import speech_video as aniportrait

        return aniportrait
    if name == "anitalker":
        from .anitalker import speech_video as anitalker

        return anitalker
    if name == "apasco":
        from .apasco import speech_video as apasco

        return apasco
    raise TalkingPortraitError(f"The renderer is {quoted(name)}, but one of {', '.join(RENDERERS)} is expected.")


def check_option_names(renderer: str, given: Collection[str], others: Collection[str] = ()) -> None:
    """Raises TalkingPortraitError for names of options and model files that a renderer does not take.

    `others` are names that the caller takes beside them.
    """
    from dataclasses import fields
    from inspect import signature

    from .instant.driver.driver import drive

    if renderer == INSTANT:
        known = [name for name in signature(drive).parameters if name not in ("audio", "fps", "progress")]
    else:
        module = renderer_module(renderer)
        known = [*(entry.name for entry in fields(module.Options)), *module.FILES]
    check_names(given, [*known, *others], f"the renderer {renderer}", word="_")


def is_to_dub(image: str | Path, renderer: str, size: int | None, size_option: str = "longest_side") -> bool:
    """Whether what stands for a portrait is a film, which Instant dubs.

    Raises TalkingPortraitError for a film with another renderer, or with a size, which `size_option` names.
    """
    from .files.video import is_film

    if not is_film(image):
        return False
    if renderer != INSTANT:
        raise TalkingPortraitError(
            f"{image} is a video, but {renderer} takes a picture; leave the renderer out to dub the video, or give one "
            "of its frames as a picture."
        )
    if size is not None:
        raise TalkingPortraitError(
            f"{size_option} was given, but a video keeps its size; leave it out, and scale the video before where it "
            "must be smaller."
        )
    return True


def refuse_film_options(given: Mapping[str, Any], image: str) -> None:
    """Raises TalkingPortraitError for what only a film takes and is not None; `image` says where a film could stand."""
    for name, value in given.items():
        if value is not None:
            raise TalkingPortraitError(
                f"{name} was given, but it is for videos; give a video as {image}, or leave it out."
            )


def film_end(name: str | None) -> End:
    """What `dub_video` calls the end that a user named, back and forth by default."""
    name = "back-and-forth" if name is None else name
    if name not in tuple(FILM_ENDS):
        raise TalkingPortraitError(f"The film_end is {quoted(name)}, but one of {', '.join(FILM_ENDS)} is expected.")
    return FILM_ENDS[name]


def chosen_face(
    face: int | None, place: Sequence[float] | str | None = None, *, names: tuple[str, str] = ("face", "face_at")
) -> FaceChoice:
    """Which of several faces speaks: number `face` from the left, that nearest to `place` (x, y), or the largest.

    `place` may be text such as 640,360; `names` are what a user calls the two. Raises TalkingPortraitError for both at
    once, and for what is no number and no place.
    """
    from .instant.dub.dub_video import FaceChoice

    if face is not None and place is not None:
        raise TalkingPortraitError(
            f"{' and '.join(names)} were given, but one face is chosen in one way; leave one out."
        )
    if place is not None:
        try:
            x, y = (float(part) for part in (place.split(",") if isinstance(place, str) else place))
        except (TypeError, ValueError, OverflowError):
            raise TalkingPortraitError(
                f"The {names[1]} is {quoted(place)}, but two numbers of pixels are expected, such as 640,360."
            ) from None
        return FaceChoice(place=(x, y))
    if face is None:
        return FaceChoice()
    if isinstance(face, bool) or not isinstance(face, int):
        raise TalkingPortraitError(
            f"The {names[0]} is {quoted(face)}, but a whole number is expected; 0 is at the left."
        )
    return FaceChoice("index", face)


class Renderer:
    """A system with its files and options, found and checked before anything is read.

    Raises TalkingPortraitError for files that are missing, all of them at once, and for options it does not take.
    """

    def __init__(
        self,
        name: str,
        given: Mapping[str, Any],
        *,
        motion: bool = False,
        folders: Folders | None = None,
        command: Command | None = None,
    ) -> None:
        """`given` holds files and options by name; `motion`: a face motion takes the place of the speech."""
        from .model_files.required import required_files
        from .model_files.store import default_folders, models_command
        from .speech_video import checked_options

        self._module = module = renderer_module(name)
        if motion and not module.TAKES_MOTION:
            raise TalkingPortraitError(
                f"A face motion was given, but {name} moves the face by the speech alone; leave the motion out, or "
                "render it with instant or aniportrait."
            )
        options = {option: value for option, value in given.items() if option not in module.FILES}
        self.options = checked_options(module.Options, name, options)
        files = {option: value for option, value in given.items() if option in module.FILES}
        self.files: dict[str, Path] = required_files(
            name,
            module.FILES,
            files,
            spare=lambda option, found: module.is_spare(option, found, motion),
            folders=folders or default_folders,
            command=command or models_command,
        )

    @property
    def takes_motion(self) -> bool:
        """Whether a face motion can take the place of the speech, and is made of it otherwise."""
        return bool(self._module.TAKES_MOTION)

    @property
    def fps(self) -> str:
        """Frames a second of what it makes of speech."""
        return str(getattr(self.options, "fps", self._module.FPS))

    def speech_video(
        self,
        picture: torch.Tensor,
        track: FaceTrack,
        speech: Audio | None,
        motion: FaceMotion | None,
        *,
        device: torch.device,
        stage: Stage,
    ) -> SpeechVideo:
        """Frames of the picture (H, W, 3) in 0..1, with one frame of landmarks, as they are made."""
        return self._module.speech_video(
            self.files, picture, track, speech, motion, self.options, device=device, stage=stage
        )
