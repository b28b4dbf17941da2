"""Face motion in a file: NumPy's .npz, readable anywhere, without pickled objects."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from ...models.array_file import read_arrays
from ...models.face.face_mesh import BLENDSHAPES, VERTICES
from ..errors import TalkingPortraitError, quoted
from ..timing import MAX_FPS, MIN_FPS, as_rate
from ..types import LARGEST, MOTION_CURVES, Camera, FaceMotion
from .input_paths import existing_file
from .output_paths import file_to_write, shortened, whole_file

MAX_BYTES = 4 * 1024**3
"""More than an hour at 120 frames a second; a larger file is a mistake or an attack."""
ARRAYS = (
    *("vertices", "neutral", "rotation", "translation", "blendshapes"),
    *("fps", "fps_fraction", "pose", "camera"),
    *MOTION_CURVES,
)


def check_motion_name(path: str | Path) -> None:
    """Raises TalkingPortraitError for a name that is no motion's, lest it replaces a recording or a video."""
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise TalkingPortraitError(f"The motion is to be written to {shortened(path)}; give a name that ends in .npz.")


def save_motion(path: str | Path, motion: FaceMotion) -> None:
    """Writes `motion`; an existing file is replaced only when all is written.

    Arrays: `vertices` (F, 468, 3) and `neutral` (468, 3) in cm, `rotation` (F, 3) degrees, `translation` (F, 3) cm,
    `fps` and the exact `fps_fraction` (2,), `pose` ("head" or "camera"), `camera` (3,) field of view, near, far, and
    `blendshapes` (F, 52) where there are any; `tongue`, `lip_press`, `pucker`, `breath` (F,) and `gaze` (F, 2) where
    there are any. See FaceMotion for their meaning.

    Raises TalkingPortraitError when the file can't be written.
    """
    path = Path(path)
    arrays = {
        "vertices": motion.vertices.astype(np.float32, copy=False),
        "neutral": motion.neutral.astype(np.float32, copy=False),
        "rotation": motion.rotation.astype(np.float32, copy=False),
        "translation": motion.translation.astype(np.float32, copy=False),
        "fps": np.float64(motion.fps),
        "fps_fraction": np.array([motion.fps.numerator, motion.fps.denominator], dtype=np.int64),
        "pose": np.array(motion.pose),
        "camera": np.array([motion.camera.vertical_fov, motion.camera.near, motion.camera.far]),
    }
    if motion.blendshapes is not None:
        arrays["blendshapes"] = motion.blendshapes.astype(np.float32, copy=False)
    arrays |= {name: rows.astype(np.float32, copy=False) for name, rows in motion.curves.items()}
    target = file_to_write(path)
    with whole_file(target) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def load_motion(path: str | Path) -> FaceMotion:
    """Reads what `save_motion` wrote. Raises TalkingPortraitError for a missing, truncated or foreign file."""
    path = existing_file(path, "motion")
    try:
        arrays = read_arrays(path, ARRAYS, MAX_BYTES)
    except ValueError as error:
        raise TalkingPortraitError(
            f"{path.name} can't be read as a face motion (it is damaged, cut short or no .npz file); give one "
            "that motion or animate --save-motion wrote."
        ) from error
    missing = [name for name in ("vertices", "neutral", "rotation", "translation", "fps") if name not in arrays]
    if missing:
        raise TalkingPortraitError(
            f"{path.name} lacks {', '.join(missing)}, which a face motion has; it was saved by something else."
        )
    return _as_motion(path.name, arrays)


def _as_motion(name: str, arrays: dict[str, np.ndarray]) -> FaceMotion:
    frames = len(arrays["vertices"]) if arrays["vertices"].ndim else 0
    shapes = {
        "vertices": (frames, VERTICES, 3),
        "neutral": (VERTICES, 3),
        "rotation": (frames, 3),
        "translation": (frames, 3),
        "blendshapes": (frames, len(BLENDSHAPES)),
        **{key: (frames, *shape) for key, shape in MOTION_CURVES.items()},
    }
    values: dict[str, np.ndarray] = {}
    for key, shape in shapes.items():
        if key not in arrays:
            continue
        array = arrays[key]
        if frames == 0 or array.shape != shape or array.dtype.kind not in "fiu":
            raise TalkingPortraitError(
                f"{name} holds {key} of shape {array.shape} and type {array.dtype}, but numbers of shape "
                f"{('frames', *shape[1:]) if frames == 0 else shape} are expected; it is no face motion of this pack."
            )
        values[key] = array.astype(np.float32, copy=False)
        if not np.isfinite(values[key]).all():
            raise TalkingPortraitError(f"{name} holds NaN or infinite {key}, so the motion is lost; make it again.")
        largest = float(np.abs(values[key]).max())
        if largest > LARGEST[key]:
            raise TalkingPortraitError(
                f"{name} holds {key} of {largest:g}, but at most {LARGEST[key]:g} is expected; make the motion again."
            )
    pose = str(arrays.get("pose", "head"))
    if pose not in ("head", "camera"):
        raise TalkingPortraitError(f'{name} says its pose is {quoted(pose)}, but "head" or "camera" is expected.')
    return FaceMotion(
        vertices=values["vertices"],
        neutral=values["neutral"],
        rotation=values["rotation"],
        translation=values["translation"],
        fps=_rate(name, arrays),
        blendshapes=values.get("blendshapes"),
        pose="camera" if pose == "camera" else "head",
        camera=_camera(name, arrays),
        **{key: values.get(key) for key in MOTION_CURVES},
    )


def _rate(name: str, arrays: dict[str, np.ndarray]) -> Fraction:
    exact = arrays.get("fps_fraction")
    try:
        if exact is not None:
            return as_rate(Fraction(*(int(part) for part in exact)))
        return as_rate(float(arrays["fps"]))
    except (TypeError, ValueError, ArithmeticError) as error:
        rate = quoted(arrays["fps"] if exact is None else exact)
        raise TalkingPortraitError(
            f"{name} holds the frame rate {rate}, but one number from {MIN_FPS} to {MAX_FPS} is expected."
        ) from error


def _camera(name: str, arrays: dict[str, np.ndarray]) -> Camera:
    if "camera" not in arrays:
        return Camera()
    values = arrays["camera"]
    if values.shape != (3,) or values.dtype.kind not in "fiu":
        raise TalkingPortraitError(
            f"{name} holds a camera of shape {values.shape}, but field of view, near and far plane are expected."
        )
    fov, near, far = (float(value) for value in values)
    if not (0 < fov < 180 and 0 < near < far < np.inf):
        raise TalkingPortraitError(
            f"{name} holds a camera of {fov:g} degrees between {near:g} and {far:g} cm, which shows nothing."
        )
    return Camera(fov, near, far)
