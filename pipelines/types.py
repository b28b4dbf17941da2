"""The data that stages hand to each other: frozen dataclasses with units.

Arrays are NumPy on the face side (landmarks, motion) and torch on the side of pictures and networks.
F frames, P landmark points (468, or 478 with irises), H x W picture size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from .errors import TalkingPortraitError, one_line, quoted
from .finite import all_finite, check_plain
from .timing import MAX_FPS, MIN_FPS

if TYPE_CHECKING:
    import torch


class Progress(Protocol):
    """Called after each unit of work; raises the host's own exception when the user has cancelled."""

    def __call__(self, done: int, total: int, preview: torch.Tensor | None = None) -> None:
        """`done` of `total` units are finished; `preview` is an optional picture (H, W, 3) in 0..1."""


FROM_NODES = "connect what a Talking Portrait node makes"


def no_progress(done: int, total: int, preview: torch.Tensor | None = None) -> None:
    """The default: nobody is watching and nobody cancels."""


@dataclass(frozen=True)
class Audio:
    """Sound in memory: `waveform` (channels, samples), float32, nominally -1..1; `sample_rate` in Hz."""

    waveform: torch.Tensor
    sample_rate: int

    @property
    def samples(self) -> int:
        return int(self.waveform.shape[-1])

    @property
    def seconds(self) -> Fraction:
        return Fraction(self.samples, self.sample_rate)


Timing = Literal["resampled", "stock", "paired"]
"""Of `SpeechFeatures`; see `audio/speech_features.py`."""
TIMINGS: tuple[Timing, ...] = get_args(Timing)


@dataclass(frozen=True)
class SpeechFeatures:
    """The hidden states that a speech encoder computes from audio.

    `states` (frames, layers, channels) float32; `fps` frames a second; `model` the encoder's name
    ("wav2vec2-base", "hubert-large", "mfcc" ...); `timing` how frames came to be: "resampled" (to fps before the
    transformer), "stock" (the encoder's own 50 Hz), "paired" (stock, padded and cut to two per 25 fps frame).
    `mixed` are the shares of all hidden states that the one layer here is the sum of; empty for states as they are.
    `padding` counts the last frames that are silence after the audio, filled up to a multiple.
    """

    states: torch.Tensor
    fps: Fraction
    model: str
    timing: Timing = "stock"
    mixed: tuple[float, ...] = ()
    padding: int = 0

    def check(self) -> None:
        """Raises TalkingPortraitError for features without rows, of another shape or type, without a rate, or NaN."""
        _check_numbers(
            self.states, 3, "The speech features", "(rows, layers, channels)", "Encode Speech or Speech MFCC"
        )
        _check_rate(self.fps, "The speech features'")
        shares = self.mixed if isinstance(self.mixed, tuple) else (math.nan,)
        rows = range(self.frames + 1)
        if self.timing not in TIMINGS or self.padding not in rows or not np.isfinite(np.array(shares, float)).all():
            raise TalkingPortraitError(
                f"The speech features say timing {quoted(self.timing)}, {quoted(self.padding)} rows of silence and the "
                f"shares {quoted(self.mixed)}, but one of {', '.join(TIMINGS)}, 0 to {self.frames} and numbers are "
                "expected; make them anew."
            )

    @property
    def frames(self) -> int:
        return int(self.states.shape[0])


@dataclass(frozen=True)
class Camera:
    """MediaPipe's pinhole camera: vertical field of view in degrees, clip planes in cm, looking along -z, y up."""

    vertical_fov: float = 63.0
    near: float = 1.0
    far: float = 10000.0

    @property
    def focal(self) -> float:
        """Focal length in half picture heights."""
        return 1.0 / math.tan(math.radians(self.vertical_fov / 2))


@dataclass(frozen=True)
class FaceTrack:
    """One face over time, in the picture it was seen in.

    `points` (F, P, 3): x right and y down in pixels, z depth in the same pixel scale, smaller is nearer.
    `found` (F,) bool: False where the face was held or interpolated. `image_size` (height, width).
    `matrix` (F, 4, 4): canonical head (cm, y up, z towards the viewer) to camera.
    `blendshapes` (F, 52) in 0..1 in MediaPipe's order, or None. `score` (F,) detection confidence.
    """

    points: np.ndarray
    found: np.ndarray
    image_size: tuple[int, int]
    matrix: np.ndarray
    blendshapes: np.ndarray | None = None
    score: np.ndarray | None = None

    @property
    def frames(self) -> int:
        return len(self.points)

    def check_pictures(self, images: torch.Tensor) -> None:
        """Raises TalkingPortraitError for pictures (F, H, W, C) of another size or another number of frames."""
        height, width = images.shape[1:3]
        if tuple(self.image_size) != (height, width):
            raise TalkingPortraitError(
                f"The pictures are {width} x {height} pixels, but the landmarks were found in {self.image_size[1]} x "
                f"{self.image_size[0]}; detect them in these very pictures."
            )
        if self.frames not in (1, len(images)):
            raise TalkingPortraitError(
                f"There are {len(images)} pictures and landmarks for {self.frames}, but equally many, or landmarks for "
                "one, are expected; detect them in these very pictures."
            )


MOTION_CURVES: dict[str, tuple[int, ...]] = {"tongue": (), "lip_press": (), "pucker": (), "gaze": (2,), "breath": ()}
"""FaceMotion's optional curves and the shape that each has in one frame."""
LARGEST = {
    **{"vertices": 1000.0, "neutral": 1000.0, "rotation": 36_000.0, "translation": 100_000.0, "blendshapes": 100.0},
    **dict.fromkeys(MOTION_CURVES, 100.0),
}
"""FaceMotion's values, each in its unit: far beyond what any face does, but numbers that can be computed with."""


@dataclass(frozen=True)
class FaceMotion:
    """A face that moves, free of any picture.

    `vertices` (F, 468, 3) cm in MediaPipe's canonical head frame (x to the face's left, y up, z out of the face).
    `neutral` (468, 3) the same face at rest with closed lips: `vertices - neutral` is the expression.
    `rotation` (F, 3) degrees, Euler x, y, z (R = Rz Ry Rx); `translation` (F, 3) cm.
    `pose` says what rotation and translation act on: "head" (default) moves the head from the portrait's own pose,
    M_t = M_portrait [R|t]; "camera" is the absolute head-to-camera pose, M_t = [R|t].
    `blendshapes` (F, 52) or None. `fps` is rational.

    Optional curves, None where a driver doesn't predict them; 0 is at rest:
    `tongue` (F,) 0..1, how high the tip of the tongue is: 1 touches the upper teeth.
    `lip_press` (F,) 0..1, how firmly the lips meet over an open jaw: 0.85 and more is sealed ("p"), about 0.7 touches
    ("f"). `vertices` have the closure in them.
    `pucker` (F,) 0..1, how far the lips are rounded and forward. `vertices` have it in them, too.
    `gaze` (F, 2) degrees that both eyes turn in the head from the portrait's own gaze: to the face's left, and up.
    `breath` (F,) 0..3, breath in the chest: 0 after a quiet breath out, 1 after a quiet breath in.
    """

    vertices: np.ndarray
    neutral: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    fps: Fraction
    blendshapes: np.ndarray | None = None
    pose: Literal["head", "camera"] = "head"
    camera: Camera = field(default_factory=Camera)
    tongue: np.ndarray | None = None
    lip_press: np.ndarray | None = None
    pucker: np.ndarray | None = None
    gaze: np.ndarray | None = None
    breath: np.ndarray | None = None

    def __post_init__(self) -> None:
        frames = len(self.vertices)
        if self.vertices.shape[1:] != (468, 3) or self.neutral.shape != (468, 3):
            raise TalkingPortraitError(
                f"Face motion has vertices {self.vertices.shape} over a rest shape {self.neutral.shape}, "
                "but (frames, 468, 3) over (468, 3) is expected; make it with a Talking Portrait driver."
            )
        for name in ("rotation", "translation"):
            if getattr(self, name).shape != (frames, 3):
                raise TalkingPortraitError(
                    f"Face motion has {name} of shape {getattr(self, name).shape}, but ({frames}, 3) is expected: "
                    "one row for each frame of vertices."
                )
        for name, values in self.curves.items():
            shape = (frames, *MOTION_CURVES[name])
            if values.shape != shape:
                raise TalkingPortraitError(
                    f"Face motion has {name} of shape {values.shape}, but {shape} is expected: one row for each frame "
                    "of vertices."
                )

    def check(self) -> None:
        """Raises TalkingPortraitError for a motion without frames or a rate, and for numbers that are none or huge."""
        if self.frames == 0:
            raise TalkingPortraitError("The face motion has no frames; make one from at least a moment of sound.")
        _check_rate(self.fps, "The face motion's")
        if self.pose not in ("head", "camera") or not isinstance(self.camera, Camera):
            raise TalkingPortraitError(
                f"The face motion says pose {quoted(self.pose)} and camera {quoted(self.camera)}, but head or camera, "
                f"and a Camera, are expected; {FROM_NODES}."
            )
        for name, values in {"neutral": self.neutral, **self.rows}.items():
            if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or 0 in values.shape:
                kind = getattr(values, "dtype", "no type")
                raise TalkingPortraitError(
                    f"The face motion's {name} are a {type(values).__name__} of {kind}, but a NumPy array of numbers "
                    f"is expected; {FROM_NODES}."
                )
            lowest, highest = float(values.min()), float(values.max())  # NaN where any value is
            if not math.isfinite(lowest + highest):
                raise TalkingPortraitError(
                    f"The face motion's {name} holds values that are not numbers; make the motion anew."
                )
            if max(-lowest, highest) > LARGEST[name]:
                raise TalkingPortraitError(
                    f"The face motion's {name} goes from {lowest:g} to {highest:g}, but at most {LARGEST[name]:g} is "
                    "expected; make the motion anew."
                )

    @property
    def frames(self) -> int:
        return len(self.vertices)

    @property
    def curves(self) -> dict[str, Any]:
        """The optional curves that there are, by name."""
        return {name: getattr(self, name) for name in MOTION_CURVES if getattr(self, name) is not None}

    @property
    def rows(self) -> dict[str, Any]:
        """All that there is for each frame, (F, ...), by name."""
        scores = {} if self.blendshapes is None else {"blendshapes": self.blendshapes}
        pose = {"rotation": self.rotation, "translation": self.translation}
        return {"vertices": self.vertices} | pose | scores | self.curves

    @property
    def seconds(self) -> Fraction:
        return self.frames / self.fps


@dataclass(frozen=True)
class MotionLatents:
    """AniTalker's motion: `codes` (F, 20) float32 on the CPU, one for each frame; `fps` is rational."""

    codes: torch.Tensor
    fps: Fraction

    def check(self) -> None:
        """Raises TalkingPortraitError for latents without frames, of another shape or type, without a rate, or NaN."""
        source = "AniTalker Motion or AniTalker Motion from Video"
        _check_numbers(self.codes, 2, "The motion latents", "(frames, numbers)", source)
        _check_rate(self.fps, "The motion latents'")

    @property
    def frames(self) -> int:
        return len(self.codes)


def _check_numbers(values: Any, dimensions: int, what: str, shape: str, source: str) -> None:
    import torch

    check_plain(values, what)
    if not isinstance(values, torch.Tensor):
        given = f"of the type {type(values).__name__}"
    elif values.ndim != dimensions or 0 in values.shape:
        given = f"of the shape {tuple(values.shape)}"
    elif values.dtype != torch.float32:
        given = f"of the type {str(values.dtype).removeprefix('torch.')}"
    elif not all_finite(values):
        given = "not numbers everywhere (NaN or infinite)"
    else:
        return
    raise TalkingPortraitError(
        f"{what} are {given}, but a float32 tensor {shape} is expected; make them with {source}."
    )


def _check_rate(fps: Any, what: str) -> None:
    if not (isinstance(fps, int | float | Fraction) and MIN_FPS <= fps <= MAX_FPS):
        raise TalkingPortraitError(
            f"{what} frame rate is {one_line(fps, 20)}, but a number from {MIN_FPS} to {MAX_FPS} is expected; "
            f"{FROM_NODES}."
        )


@dataclass(frozen=True)
class Crop:
    """How pictures were cut out, so that they can be pasted back.

    `matrix` (F, 2, 3): affine from crop pixels to source pixels (pixel centres at +0.5), one row set for each frame,
    or one for all. `size` (height, width) of the crop, `source_size` that of the whole picture.
    `source` the whole pictures (F or 1, H, W, 3) in 0..1, or None when they are handed over separately.
    """

    matrix: np.ndarray
    size: tuple[int, int]
    source_size: tuple[int, int]
    source: Any = None
