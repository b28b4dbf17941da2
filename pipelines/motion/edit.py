"""Changes to a face motion: small pure functions, and `edit`, which applies them in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np

from ...models.curves import smoothstep, soft_limit
from ...models.face.eyelid_shapes import eyelid_closure, eyelid_shapes
from ...models.face.face_mesh import BLENDSHAPES, face_mesh, mirror_index, mouth_opening
from ..errors import TalkingPortraitError, check_seed, quoted
from ..face.head_pose import NECK, euler_to_matrix, matrix_to_euler
from ..timing import as_rate, frame_count
from ..types import MOTION_CURVES, Audio, FaceMotion
from .blinks import BLINK_RATE, blink_times, blink_weights

CLOSED_LIPS = 0.03
"""Lip opening in eye distances below which a mouth counts as closed."""
CLOSED_EYES = 0.7
"""Lid closure from which an eye counts as closed."""

Blinks = Literal["keep", "remove", "add"]


def edit(
    motion: FaceMotion,
    *,
    then: FaceMotion | None = None,
    crossfade: float = 0.0,
    fps: float | int | Fraction | str | None = None,
    smoothing: float = 0.0,
    mouth: float = 1.0,
    blinks: Blinks = "keep",
    blink_rate: float = BLINK_RATE,
    seed: int = 0,
    head: float = 1.0,
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    move: Sequence[float] = (0.0, 0.0, 0.0),
    max_angle: float | None = None,
    max_opening: float | None = None,
    mirrored: bool = False,
) -> FaceMotion:
    """All changes in this order: join, resample, smooth, mouth, blinks, head amount, pose offset, limit, mirror.

    Each is described at its function below; with the defaults the motion comes back as it is.
    Raises TalkingPortraitError for a value out of its range, before anything is computed that depends on it.
    """
    if blinks not in get_args(Blinks):
        raise TalkingPortraitError(f"The blinks are {quoted(blinks)}, but {', '.join(get_args(Blinks))} is expected.")
    check_seed(seed)
    if then is not None:
        motion = join([motion, then], crossfade)
    if fps is not None:
        motion = resample(motion, fps)
    motion = smooth(motion, smoothing)
    motion = scale_mouth(motion, mouth)
    if blinks == "remove":
        motion = remove_blinks(motion)
    elif blinks == "add":
        motion = add_blinks(motion, blink_rate, seed)
    motion = scale_head(motion, head)
    motion = offset_pose(motion, yaw=yaw, pitch=pitch, roll=roll, move=move)
    motion = limit(motion, max_angle=max_angle, max_opening=max_opening)
    return mirror(motion) if mirrored else motion


def scale_mouth(motion: FaceMotion, gain: float) -> FaceMotion:
    """The mouth's movement `gain` times as large; closed lips stay closed. 0 keeps the mouth at rest."""
    _check("mouth gain", gain, 0, 10)
    return motion if gain == 1 else _with_mouth(motion, gain)


def smooth(motion: FaceMotion, seconds: float) -> FaceMotion:
    """Gaussian smoothing over time of expression and pose, `seconds` being its standard deviation.

    Lips and lids that were shut for a moment still shut: where smoothing would open them, the unsmoothed shape stays.
    """
    _check("smoothing", seconds, 0, 10)
    sigma = seconds * float(motion.fps)
    if sigma < 0.1 or motion.frames < 2:  # a tenth of a frame reaches no neighbour
        return motion
    from scipy.ndimage import gaussian_filter1d

    def even(rows: np.ndarray) -> np.ndarray:
        return gaussian_filter1d(rows, sigma, axis=0, mode="nearest")

    evened: dict[str, Any] = {name: even(rows) for name, rows in motion.rows.items()}
    vertices = evened["vertices"]
    before, after = mouth_opening(motion.vertices), mouth_opening(vertices)
    kept = (np.clip((after - before - 0.01) / 0.02, 0, 1) * (before < CLOSED_LIPS)).astype(np.float32)
    vertices += (motion.vertices - vertices) * (kept[:, None, None] * _mouth_region())
    if motion.lip_press is not None:
        evened["lip_press"] += kept * (motion.lip_press - evened["lip_press"])
    shut = eyelid_closure(motion.vertices, motion.neutral)
    opened = shut - eyelid_closure(vertices, motion.neutral)
    kept = np.clip((opened - 0.1) / 0.2, 0, 1) * (shut > CLOSED_EYES)
    vertices += np.einsum("fe,evc->fvc", kept * opened, _eyelids(motion)).astype(np.float32)
    if motion.blendshapes is not None:
        blinks = _columns("eyeBlink", ("Right", "Left"))
        scores = evened["blendshapes"]
        scores[:, blinks] += kept.astype(np.float32) * (motion.blendshapes - scores)[:, blinks]
    return replace(motion, **evened)


def remove_blinks(motion: FaceMotion) -> FaceMotion:
    """Eyes that never close further than at rest."""
    closed = np.maximum(eyelid_closure(motion.vertices, motion.neutral), 0)
    blendshapes = motion.blendshapes
    if blendshapes is not None:
        blendshapes = blendshapes.copy()
        blendshapes[:, _columns("eyeBlink")] = 0
    return replace(motion, vertices=_with_lids(motion, -closed), blendshapes=blendshapes)


def add_blinks(motion: FaceMotion, rate: float = BLINK_RATE, seed: int = 0) -> FaceMotion:
    """`rate` blinks a minute, but none within 0.7 s of one that is there already."""
    _check("blink rate", rate, 0, 60)
    seconds = motion.frames / float(motion.fps)
    closed = np.clip(eyelid_closure(motion.vertices, motion.neutral), 0, 1)
    shut = np.flatnonzero(closed.max(axis=1) > 0.5) / float(motion.fps)
    times = blink_times(seconds, np.array([[0.0, seconds]]), rate, seed)
    free = [time for time in times if len(shut) == 0 or np.abs(shut - time).min() > 0.7]
    weights = blink_weights(np.array(free), motion.frames, motion.fps, seed)[:, None]
    blendshapes = motion.blendshapes
    if blendshapes is not None:
        blendshapes = blendshapes.copy()
        columns = _columns("eyeBlink")
        blendshapes[:, columns] = np.maximum(blendshapes[:, columns], weights)
    return replace(motion, vertices=_with_lids(motion, np.maximum(weights - closed, 0)), blendshapes=blendshapes)


def scale_head(motion: FaceMotion, amount: float) -> FaceMotion:
    """Head movement `amount` times as large about its rest: the portrait's own pose, or the median of a camera pose."""
    _check("head amount", amount, 0, 10)
    if amount == 1:
        return motion
    neck = _neck(motion)
    if motion.pose == "head":
        rest_angles, rest_neck = np.zeros(3), NECK
    else:
        rest_angles, rest_neck = np.median(motion.rotation, axis=0), np.median(neck, axis=0)
    rotation = rest_angles + amount * (motion.rotation - rest_angles)
    return _posed(motion, rotation, rest_neck + amount * (neck - rest_neck))


def offset_pose(
    motion: FaceMotion,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    move: Sequence[float] = (0.0, 0.0, 0.0),
) -> FaceMotion:
    """The head turned about its neck by degrees more, and moved by cm (x to its left, y up, z forward) all the time."""
    for name, value in (("yaw", yaw), ("pitch", pitch), ("roll", roll)):
        _check(name, value, -90, 90)
    for value in move:
        _check("move", value, -100, 100)
    if not (yaw or pitch or roll or any(move)):
        return motion
    turned = euler_to_matrix(motion.rotation) @ euler_to_matrix(np.array([pitch, yaw, roll]))
    return _posed(motion, matrix_to_euler(turned), _neck(motion) + np.asarray(move, dtype=np.float64))


def limit(motion: FaceMotion, *, max_angle: float | None = None, max_opening: float | None = None) -> FaceMotion:
    """No head angle beyond `max_angle` degrees and no mouth wider than `max_opening` eye distances.

    What stays below 70 % of a limit is untouched; what is above is drawn in softly. None sets no limit.
    """
    if max_angle is not None:
        _check("angle limit", max_angle, 0, 90)
        motion = _posed(motion, _drawn_in(motion.rotation, max_angle), _neck(motion))
    if max_opening is not None:
        _check("opening limit", max_opening, 0, 2)
        opening = np.maximum(mouth_opening(motion.vertices), 1e-6)  # lips that touch keep their shape: 1e-6 / 1e-6
        motion = _with_mouth(motion, _drawn_in(opening, max_opening) / opening)
    return motion


def mirror(motion: FaceMotion) -> FaceMotion:
    """Left and right exchanged."""
    index, flip = mirror_index(), np.array([-1, 1, 1], dtype=np.float32)
    turn = np.array([1, -1, -1], dtype=np.float32)
    blendshapes = motion.blendshapes
    if blendshapes is not None:
        blendshapes = blendshapes[:, [BLENDSHAPES.index(_other_side(name)) for name in BLENDSHAPES]]
    return replace(
        motion,
        vertices=motion.vertices[:, index] * flip,
        neutral=motion.neutral[index] * flip,
        rotation=motion.rotation * turn,
        translation=motion.translation * flip,
        blendshapes=blendshapes,
        gaze=None if motion.gaze is None else motion.gaze * flip[:2],
    )


def resample(motion: FaceMotion, fps: float | int | Fraction | str) -> FaceMotion:
    """The same movement at another frame rate, as many frames as cover its duration.

    Between frames it is interpolated; but the frame nearest to a moment of closed lips or lids shows them closed.
    """
    rate = as_rate(fps)
    if rate == motion.fps or motion.frames == 0:
        return replace(motion, fps=rate)
    frames = -(-motion.frames * rate // motion.fps)
    place = np.minimum(np.arange(frames) * float(motion.fps / rate), motion.frames - 1)
    low = place.astype(int)
    high = np.minimum(low + 1, motion.frames - 1)
    part = (place - low).astype(np.float32)

    def between(rows: np.ndarray) -> np.ndarray:
        weight = part.reshape(-1, *[1] * (rows.ndim - 1))
        return rows[low] * (1 - weight) + rows[high] * weight

    rows: dict[str, Any] = {name: between(values) for name, values in motion.rows.items()}
    vertices = rows["vertices"]
    step = float(rate / motion.fps)
    old, new = mouth_opening(motion.vertices), mouth_opening(vertices)
    for frame, source in _closures(old, new, CLOSED_LIPS, step):
        vertices[frame] += (motion.vertices[source] - vertices[frame]) * _mouth_region()
        if motion.lip_press is not None:
            rows["lip_press"][frame] = motion.lip_press[source]
    lids = _eyelids(motion)
    old_lids, new_lids = (1 - eyelid_closure(mesh, motion.neutral) for mesh in (motion.vertices, vertices))
    for eye, column in enumerate(_columns("eyeBlink", ("Right", "Left"))):
        for frame, source in _closures(old_lids[:, eye], new_lids[:, eye], 1 - CLOSED_EYES, step):
            vertices[frame] += (new_lids[frame, eye] - old_lids[source, eye]).astype(np.float32) * lids[eye]
            if motion.blendshapes is not None:
                rows["blendshapes"][frame, column] = motion.blendshapes[source, column]
    return replace(motion, fps=rate, **rows)


def fit_length(motion: FaceMotion, frames: int) -> FaceMotion:
    """The first `frames` frames; where there are fewer, the last one is held."""
    chosen = np.minimum(np.arange(frames), motion.frames - 1)
    return replace(motion, **{name: rows[chosen] for name, rows in motion.rows.items()})


def lasting_as(speech: Audio, motion: FaceMotion, fps: Fraction) -> FaceMotion:
    """The motion at a frame rate, cut, or held at its end, where the speech ends."""
    return fit_length(resample(motion, fps), frame_count(speech.samples, speech.sample_rate, fps))


def said_of_length(motion: FaceMotion, speech: Audio) -> str:
    """What `lasting_as` does where the motion is shorter or longer than the speech; "" where it is as long."""
    frames = frame_count(speech.samples, speech.sample_rate, motion.fps)
    if frames == motion.frames:
        return ""
    done = "the motion is cut where the sound ends" if motion.frames > frames else "its last pose is held"
    return f"The motion lasts {float(motion.seconds):.2f} s and the sound {float(speech.seconds):.2f} s, so {done}."


def join(motions: Sequence[FaceMotion], crossfade: float = 0.0) -> FaceMotion:
    """One after the other, at the first one's frame rate and on its face; no frame is lost or added.

    The first `crossfade` seconds of each part blend over from the last frame before it. A curve that only some parts
    have is at rest in the others.
    """
    if not motions:
        raise TalkingPortraitError("There are no motions to join; connect at least one.")
    _check("cross-fade", crossfade, 0, 60)
    known = {name for motion in motions for name in motion.curves}
    first = _with_curves(motions[0], known)
    parts = [first]
    for motion in motions[1:]:
        if motion.pose != first.pose:
            raise TalkingPortraitError(
                f'A motion whose pose is "{motion.pose}" can\'t follow one whose pose is "{first.pose}"; '
                "make both with the same driver, or re-enact both in the same way."
            )
        if first.pose == "camera" and motion.camera.vertical_fov != first.camera.vertical_fov:
            raise TalkingPortraitError(
                f"A motion of a camera of {motion.camera.vertical_fov:g} degrees can't follow one of a camera of "
                f"{first.camera.vertical_fov:g} degrees; re-enact both with the same camera."
            )
        motion = _with_curves(resample(motion, first.fps), known)
        motion = replace(motion, vertices=motion.vertices - motion.neutral + first.neutral, neutral=first.neutral)
        parts.append(_faded_in(motion, parts[-1], round(crossfade * float(first.fps))))
    names = [name for name in first.rows if all(name in part.rows for part in parts)]
    joined: dict[str, Any] = {name: np.concatenate([part.rows[name] for part in parts]) for name in names}
    return replace(first, **({"blendshapes": None} | joined))


def _with_curves(motion: FaceMotion, names: set[str]) -> FaceMotion:
    """The motion with those of the optional curves, at rest where it has none."""
    rest: dict[str, Any] = {name: np.zeros((motion.frames, *MOTION_CURVES[name]), np.float32) for name in names}
    return replace(motion, **(rest | motion.curves))


def _faded_in(motion: FaceMotion, before: FaceMotion, frames: int) -> FaceMotion:
    frames = min(frames, motion.frames)
    if frames == 0 or before.frames == 0:
        return motion
    t = np.arange(1, frames + 1, dtype=np.float32) / (frames + 1)
    share = smoothstep(0, 1, t)

    def blended(rows: np.ndarray, held: np.ndarray) -> np.ndarray:
        weight = share.reshape(-1, *[1] * (rows.ndim - 1))
        return np.concatenate([held + (rows[:frames] - held) * weight, rows[frames:]])

    now, last = motion.rows, before.rows
    faded: dict[str, Any] = {name: blended(now[name], last[name][-1]) for name in now if name in last}
    return replace(motion, **faded)


def _check(name: str, value: float, lowest: float, highest: float) -> None:
    if not (isinstance(value, Real) and lowest <= value <= highest):
        raise TalkingPortraitError(
            f"The {name} is {quoted(value)}, but a number from {lowest:g} to {highest:g} is expected."
        )


@cache
def _mouth_region() -> np.ndarray:
    """Weight (468, 1): 1 where speech moves the face, up to the upper lip's base, fading out beside the nose."""
    return (1 - smoothstep(-1.7, 1.0, face_mesh().vertices[:, 1:2])).astype(np.float32)


def _eyelids(motion: FaceMotion) -> np.ndarray:
    return eyelid_shapes(motion.neutral.astype(np.float32))


def _with_lids(motion: FaceMotion, change: np.ndarray) -> np.ndarray:
    """Vertices with the right and left lids closed by (F, 2) or (F, 1) more."""
    change = np.broadcast_to(change, (motion.frames, 2)).astype(np.float32)
    return motion.vertices + np.einsum("fe,evc->fvc", change, _eyelids(motion))


def _columns(name: str, sides: tuple[str, str] = ("Left", "Right")) -> list[int]:
    return [BLENDSHAPES.index(f"{name}{side}") for side in sides]


def _other_side(name: str) -> str:
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return name


def _with_mouth(motion: FaceMotion, gain: float | np.ndarray) -> FaceMotion:
    """The mouth's movement, with the curves and scores that belong to it, `gain` (a number, or (F,)) times as large."""
    gain = np.asarray(gain)
    factor = 1 + _mouth_region() * (gain - 1).astype(np.float32)[..., None, None]
    # Firmer lips would meet where they didn't.
    gains = {"tongue": gain, "pucker": gain, "lip_press": np.minimum(gain, 1.0)}
    curves = {
        name: np.clip(gains[name].astype(np.float32) * rows, 0, 1)
        for name, rows in motion.curves.items()
        if name in gains
    }
    return replace(
        motion,
        vertices=motion.neutral + (motion.vertices - motion.neutral) * factor,
        blendshapes=_scaled_mouth_scores(motion.blendshapes, gain[..., None]),
        **curves,
    )


def _scaled_mouth_scores(blendshapes: np.ndarray | None, gain: np.ndarray) -> np.ndarray | None:
    if blendshapes is None:
        return None
    mouth = np.array([name.startswith(("mouth", "jaw")) for name in BLENDSHAPES])
    return np.where(mouth, np.clip(blendshapes * gain.astype(np.float32), 0, 1), blendshapes)


def _neck(motion: FaceMotion) -> np.ndarray:
    """Where the neck is, (F, 3)."""
    return euler_to_matrix(motion.rotation) @ NECK + motion.translation


def _posed(motion: FaceMotion, rotation: np.ndarray, neck: np.ndarray) -> FaceMotion:
    """The motion with other angles and its neck in other places."""
    translation = neck - euler_to_matrix(rotation) @ NECK
    return replace(motion, rotation=rotation.astype(np.float32), translation=translation.astype(np.float32))


def _drawn_in(values: np.ndarray, limit: float) -> np.ndarray:
    """Values within +-limit: as they are up to 70 % of it, then ever more slowly towards it."""
    if limit < 1e-9:
        return np.zeros_like(values)
    return np.sign(values) * soft_limit(np.abs(values), 0.7 * limit, limit)


def _closures(old: np.ndarray, new: np.ndarray, threshold: float, step: float) -> list[tuple[int, int]]:
    """(new frame, old frame) for each closed moment of `old` that `new` (`step` times the frames) shows more open."""
    padded = np.concatenate([[np.inf], old, [np.inf]])
    lowest = (old <= padded[:-2]) & (old < padded[2:]) & (old < threshold)
    sources = np.flatnonzero(lowest)
    frames = np.minimum(np.round(sources * step).astype(int), len(new) - 1)
    return [(int(f), int(s)) for f, s in zip(frames, sources, strict=True) if new[f] > old[s]]
