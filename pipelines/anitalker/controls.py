"""Controls of AniTalker's head: turn, place and size, as numbers, as curves or by a face motion.

The published models take yaw, pitch and roll over 90 degrees, the nose's place across the picture and the length of the
face, both over the picture's width. Here angles are in the pack's own sense (`face/head_pose.py`): pitch positive
nods down, yaw positive turns to the face's left, roll positive leans to the face's right. AniTalker was trained with
angles of 3DDFA_V2, whose yaw has the opposite sign; the other two agree, and both part a rotation as Rz Ry Rx. This was
measured on the example of AniTalker's own preprocessing (correlation with MediaPipe's head over 127 frames: yaw -0.98,
pitch 0.84, roll 0.92), as was where its 68 landmarks lie among MediaPipe's.

    published = (-yaw / 90, pitch / 90, roll / 90), limited to -1..1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from ...models.anitalker.stage2 import Controls
from ...models.face.face_mesh import CHIN
from ..errors import TalkingPortraitError, one_line
from ..face.head_pose import head_matrix, project, split_matrix
from ..face.metric_mesh import metric_mesh
from ..motion.edit import resample
from ..types import FaceMotion, FaceTrack

FPS = 25
Control = Literal["none", "numbers", "face motion"]
Curve = Callable[[np.ndarray], np.ndarray]
NAMES = ("yaw", "pitch", "roll", "location", "scale")
DRAWN_DEGREES = 45.0
"""The angle at the top of a drawn curve; larger ones distort the picture."""
MAX_HOLD_SECONDS = 0.5
"""Seconds for which the last pose of a face motion may be held when the speech goes on."""
_NOSE, _INNER_BROWS = 4, (107, 336)
_LENGTH = 1.013
"""Brows to chin as the training's landmarks have it, over MediaPipe's."""


@dataclass(frozen=True)
class HeadControls:
    """What the head does; n is 1 for what stays, or the number of frames.

    `yaw`, `pitch`, `roll` (n,) in degrees, see the module; `location` (n,) of the nose from left to right and `scale`
    (n,), brows to chin, both in parts of the picture's width.
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    location: np.ndarray
    scale: np.ndarray

    @staticmethod
    def constant(
        yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, location: float = 0.5, scale: float = 0.5
    ) -> HeadControls:
        """The published program's defaults, but looking straight ahead, as its web page does."""
        return HeadControls(*(np.array([float(value)]) for value in (yaw, pitch, roll, location, scale)))

    def signals(self, frames: int) -> Controls:
        """As the network takes them, for this many frames.

        Raises TalkingPortraitError for curves of another length and for what is no number.
        """
        rows = {}
        for name in NAMES:
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape not in ((1,), (frames,)):
                raise TalkingPortraitError(
                    f"The head's {name} has {values.size} values, but 1 or {frames}, one for each frame of the speech, "
                    "are expected."
                )
            if not np.isfinite(values).all():
                raise TalkingPortraitError(f"The head's {name} holds NaN or infinite values, but numbers are expected.")
            rows[name] = torch.from_numpy(np.broadcast_to(values, frames).astype(np.float32))
        pose = torch.stack([-rows["yaw"], rows["pitch"], rows["roll"]], dim=-1) / 90
        return Controls(pose.clamp(-1, 1)[None], rows["location"][None, :, None], rows["scale"][None, :, None])


def head_controls(
    kind: Control,
    numbers: HeadControls,
    curves: str,
    drawn: Mapping[str, Curve],
    frames: int,
    motion: FaceMotion | None,
    portrait: FaceTrack | None,
) -> Controls | None:
    """The network's controls, by the kind that was chosen; see `with_curves`, `with_drawn` and `from_motion`.

    Raises TalkingPortraitError when a face motion is to be followed and there is none.
    """
    if kind == "none":
        return None
    if kind == "numbers":
        return with_drawn(with_curves(numbers, curves, frames), drawn, frames).signals(frames)
    if motion is None:
        raise TalkingPortraitError(
            "A face motion is to move the head, but none is connected; connect one, or choose another control."
        )
    return from_motion(motion, frames, numbers, portrait).signals(frames)


def with_curves(controls: HeadControls, text: str, frames: int) -> HeadControls:
    """`controls` with curves in place of some numbers.

    `text` has a line for each: a control's name and points as seconds:value, for instance "yaw 0:0 1.5:20 3:-10", which
    are joined by straight lines and held before the first and after the last.

    Raises TalkingPortraitError for a line that is none of this.
    """
    times = np.arange(frames) / FPS
    for line in filter(None, (line.strip() for line in text.splitlines())):
        name, *points = line.replace(",", " ").split()
        try:
            if name not in NAMES or not points:
                raise ValueError
            seconds, values = np.array([[float(part) for part in point.split(":")] for point in points]).T
            if not (np.isfinite(seconds) & np.isfinite(values)).all() or (np.diff(seconds) <= 0).any():
                raise ValueError
        except ValueError:
            raise TalkingPortraitError(
                f'"{one_line(line)}" is no curve, but a line such as "yaw 0:0 1.5:20" is expected: one of '
                f"{', '.join(NAMES)}, then seconds:value points in rising order of time."
            ) from None
        controls = replace(controls, **{name: np.interp(times, seconds, values)})
    return controls


def with_drawn(controls: HeadControls, drawn: Mapping[str, Curve], frames: int) -> HeadControls:
    """`controls` with curves by name, of places and values from 0 to 1, in place of some numbers and lines of text.

    A curve's start is the first frame, its end the last. Angles go from -DRAWN_DEGREES to DRAWN_DEGREES.
    """
    places = np.linspace(0, 1, frames)
    for name, curve in drawn.items():
        values = np.asarray(curve(places), dtype=np.float64)
        angle = name in ("yaw", "pitch", "roll")
        controls = replace(controls, **{name: (2 * values - 1) * DRAWN_DEGREES if angle else values})
    return controls


def from_motion(motion: FaceMotion, frames: int, rest: HeadControls, portrait: FaceTrack | None = None) -> HeadControls:
    """The head's pose in a face motion, at 25 frames a second; what the motion has beyond `frames` is left out.

    With the landmarks of the very `portrait`, a motion that moves the head from the portrait's own pose starts from
    there, and the nose's place and the face's length follow the motion in the portrait's camera. Without them
    the portrait is taken to face straight ahead, and place and length are those of `rest`.

    Raises TalkingPortraitError for a motion that ends more than half a second before the speech.
    """
    motion = resample(motion, FPS)
    if motion.frames < frames - MAX_HOLD_SECONDS * FPS:
        raise TalkingPortraitError(
            f"The face motion lasts {motion.frames / FPS:.2f} s, but the speech {frames / FPS:.2f} s; make the motion "
            "from the same speech, or lengthen it with Edit Motion."
        )
    rows = np.minimum(np.arange(frames), motion.frames - 1)
    poses = head_matrix(motion.rotation[rows], motion.translation[rows])
    if portrait is None:
        angles, _ = split_matrix(poses)
        return replace(rest, pitch=angles[:, 0], yaw=angles[:, 1], roll=angles[:, 2])
    mesh, own = metric_mesh(portrait.points[0], portrait.image_size, motion.camera)
    if motion.pose == "head":
        poses = own @ poses
    angles, _ = split_matrix(poses)
    pixels = project(mesh[[_NOSE, *_INNER_BROWS, CHIN]], poses, portrait.image_size, motion.camera)
    width = portrait.image_size[1]
    length = np.linalg.norm(pixels[:, 1:3].mean(axis=1) - pixels[:, 3], axis=-1)
    return HeadControls(angles[:, 1], angles[:, 0], angles[:, 2], pixels[:, 0, 0] / width, length * _LENGTH / width)
