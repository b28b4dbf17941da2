"""The decorator of every node's `execute`: it checks inputs' types and puts the node's title before error messages."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar

from ..pipelines.aniportrait.settings import AnimationState
from ..pipelines.apasco import settings as apasco
from ..pipelines.apasco.masks import RegionMasks
from ..pipelines.errors import TalkingPortraitError, check_whole_numbers, is_out_of_memory, quoted, refusal
from ..pipelines.face.identity import FaceIdentity
from ..pipelines.memory import return_freed_memory
from ..pipelines.packages import missing_package
from ..pipelines.person.person import Person
from ..pipelines.progress import interruptible
from ..pipelines.types import Crop, FaceMotion, MotionLatents, SpeechFeatures
from . import host
from .loaded_models import (
    LoadedAniPortrait,
    LoadedAniTalker,
    LoadedAudioDVP,
    LoadedDriver,
    LoadedFaceRestorer,
    LoadedSpeechEncoder,
    LoadedSyncAnimation,
)

Execute = TypeVar("Execute", bound=Callable[..., Any])


OWN_VALUES: Mapping[str, tuple[type, str, str]] = {
    "TALKING_PORTRAIT_FACE_MOTION": (FaceMotion, "a face motion", "Instant Driver or Reenact Motion"),
    "TALKING_PORTRAIT_SPEECH_FEATURES": (SpeechFeatures, "speech features", "Encode Speech or Speech MFCC"),
    "TALKING_PORTRAIT_SPEECH_ENCODER": (LoadedSpeechEncoder, "a loaded speech encoder", "Load Speech Encoder"),
    "TALKING_PORTRAIT_ANITALKER": (LoadedAniTalker, "a loaded AniTalker", "Load AniTalker"),
    "TALKING_PORTRAIT_MOTION_LATENTS": (MotionLatents, "motion latents", "AniTalker Motion"),
    "TALKING_PORTRAIT_FACE_RESTORER": (LoadedFaceRestorer, "a loaded face restorer", "Load Face Restorer"),
    "TALKING_PORTRAIT_ANIPORTRAIT": (LoadedAniPortrait, "a loaded AniPortrait", "Load AniPortrait"),
    "TALKING_PORTRAIT_ANIPORTRAIT_STATE": (AnimationState, "the state of a sampler", "another AniPortrait Sampler"),
    "TALKING_PORTRAIT_APASCO": (apasco.Networks, "a loaded APasco", "Load APasco"),
    "TALKING_PORTRAIT_APASCO_STATE": (apasco.AnimationState, "the state of a sampler", "another APasco Sampler"),
    "TALKING_PORTRAIT_FACE_EMBEDDING": (FaceIdentity, "a face embedding", "Face Embedding"),
    "TALKING_PORTRAIT_REGION_MASKS": (RegionMasks, "region masks", "Region Masks"),
    "TALKING_PORTRAIT_AUDIODVP": (LoadedAudioDVP, "a person's AudioDVP model", "Train AudioDVP or Load AudioDVP"),
    "TALKING_PORTRAIT_SYNCANIMATION": (
        LoadedSyncAnimation,
        "a person's SyncAnimation model",
        "Train SyncAnimation or Load SyncAnimation",
    ),
    "TALKING_PORTRAIT_DRIVER": (LoadedDriver, "a person's driver", "Train Instant Driver or Load Instant Driver"),
    "TALKING_PORTRAIT_CROP": (Crop, "a crop", "Crop Portrait"),
    "TALKING_PORTRAIT_PERSON": (Person, "a prepared person", "Prepare Person"),
}
"""What our own sockets carry, by type: its class, its name in messages, and the nodes that make it."""
WIDGET_VALUES: Mapping[str, tuple[type, str]] = {
    "INT": (Integral, "a whole number"),
    "FLOAT": (Real, "a number"),
    "BOOLEAN": (bool, "true or false"),
    "STRING": (str, "a text"),
    "COMBO": (str, "one of its choices"),
}
"""What widgets carry."""
ROUNDING = 1e-6
"""By which part of itself a number may be outside of a widget's range, as computed ones are."""
FILE_CHOICES = frozenset(
    {
        *("file", "model", "net", "stage1", "stage2", "detector", "recogniser", "lora", "template", "parser"),
        *("reference_unet", "denoising_unet", "motion_module", "pose_guider", "audio2mesh", "audio2pose"),
        *("face_model", "regressor", "atnet"),
    }
)
"""Choices that list files: these come and go, and what uses them says how to get those that are missing."""


def checked_node(execute: Execute) -> Execute:
    """Checks the types of widgets and of our own sockets, and puts the node's title before its error messages.

    An API client may put a constant where a link belongs, and receives only the message; a link from a node of any
    type may bring anything to a widget.
    """
    names = list(inspect.signature(execute).parameters)[1:]

    @functools.wraps(execute)
    def with_title(cls: Any, *args: Any, **inputs: Any) -> Any:
        try:
            given = dict(zip(names, args, strict=False)) | inputs
            checked = _checked_inputs(cls.define_schema.__func__, cls)
            _check_values(checked, given)
            plain = {name: _plain(name, value, checked.get(name)) for name, value in given.items()}
            with interruptible(host.check_interrupted):
                return execute(cls, **plain)
        except Exception as error:
            title = cls.define_schema().display_name
            if is_out_of_memory(error) and not host.handles_out_of_memory(error):
                raise TalkingPortraitError(
                    f"{title}: This needs more memory than there is; scale the pictures down (ComfyUI's Scale Image to "
                    "Total Pixels), make the clip shorter, or compute fewer frames at once."
                ) from error
            said = _sentence(error)
            if said is None:
                raise
            raise TalkingPortraitError(said if said.startswith(title) else f"{title}: {said}") from error
        finally:
            if host.IN_COMFYUI:  # elsewhere the program ends with its work
                return_freed_memory()

    return with_title  # type: ignore[return-value]


def _sentence(error: Exception) -> str | None:
    """What a user can do about an error, or None for a fault of a program."""
    if isinstance(error, TalkingPortraitError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    # A program that runs nodes may cancel them by an InterruptedError, which is an OSError too.
    return refusal(error) if isinstance(error, OSError) and not isinstance(error, InterruptedError) else None


@dataclass(frozen=True)
class _Checked:
    """What is checked of an input: of a combo its choices, but for files', of a number the range of its widget."""

    io_type: str
    optional: bool
    choices: tuple[str, ...]
    range: tuple[float, float]


Checked = Mapping[str, _Checked]
_CHECKED_INPUTS: dict[Callable[..., Any], Checked] = {}


def _checked_inputs(define_schema: Callable[[Any], Any], cls: Any) -> Checked:
    """What is checked of a node's widgets and inputs of our own types, by name.

    Remembered, as a schema lists model folders, which these inputs do not depend on, and which may be slow. The host
    executes a class of its own that inherits the node's `define_schema`.
    """
    if define_schema not in _CHECKED_INPUTS:
        inputs = define_schema(cls).inputs
        _CHECKED_INPUTS[define_schema] = {
            entry.id: _Checked(entry.io_type, bool(entry.optional), _choices(entry), _range(entry))
            for entry in inputs
            if entry.io_type in OWN_VALUES or entry.io_type in WIDGET_VALUES
        }
    return _CHECKED_INPUTS[define_schema]


def _choices(entry: Any) -> tuple[str, ...]:
    return () if entry.io_type != "COMBO" or entry.id in FILE_CHOICES else tuple(entry.as_dict()["options"])


def _range(entry: Any) -> tuple[float, float]:
    options = entry.as_dict()
    return options.get("min", -math.inf), options.get("max", math.inf)


def _check_values(checked: Checked, inputs: Mapping[str, Any]) -> None:
    for name, entry in checked.items():
        if entry.io_type in WIDGET_VALUES:
            kind, what = WIDGET_VALUES[entry.io_type]
            if name in inputs and not isinstance(inputs[name], kind):
                raise TalkingPortraitError(
                    f'The input "{name}" is {described(inputs[name])}, but {what} is expected; connect another node, '
                    "or none."
                )
            if entry.choices and name in inputs and inputs[name] not in entry.choices:
                *others, last = entry.choices
                raise TalkingPortraitError(
                    f'The input "{name}" is {described(inputs[name])}, but {", ".join(others)} or {last} is expected; '
                    "choose one of these."
                )
            continue
        value = inputs.get(name)
        if value is None and entry.optional:
            continue
        expected, what, source = OWN_VALUES[entry.io_type]
        if not isinstance(value, expected):
            raise TalkingPortraitError(
                f'The input "{name}" is {described(value)}, but {what} is expected; connect {source}.'
            )
        if isinstance(value, FaceMotion | MotionLatents | SpeechFeatures):
            value.check()


def _plain(name: str, value: Any, entry: _Checked | None) -> Any:
    """A widget's number as Python's own, which NumPy's, fractions and the like are not; other values as they are.

    Raises TalkingPortraitError for a number outside of the widget's range: ComfyUI holds only what is typed to it.
    """
    if entry is None or entry.io_type not in ("INT", "FLOAT"):
        return value
    if isinstance(value, Integral):
        check_whole_numbers({name: int(value)}, 'The input "{}"')
        number: float = int(value)
    else:
        number = float(value)
    lowest, highest = entry.range
    if not lowest - abs(lowest) * ROUNDING <= number <= highest + abs(highest) * ROUNDING:
        raise TalkingPortraitError(
            f'The input "{name}" is {quoted(number)}, but a number from {_bound(lowest)} to {_bound(highest)} is '
            "expected; connect another node, or none."
        )
    return number


def _bound(bound: float) -> str:
    return "2^64 - 1" if bound == 2**64 - 1 else str(int(bound) if bound == int(bound) else bound)


def described(value: Any) -> str:
    """A value that is no picture, sound or the like, in a few words."""
    return "nothing" if value is None else f"{quoted(value)} ({type(value).__name__})"
