"""A portrait's face in space, and how a motion moves it: the geometry of the Instant renderer.

The corrections of the lip opening, `VISIBLE_OPENING` to `CLOSED_GAP`, were tuned on sixteen portraits with three
recordings until a face landmarker on the video found the motion's opening; none was held out (docs/measurements.md).
Other numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ....models.curves import smoothstep, soft_limit
from ....models.face.eyelid_shapes import eyelid_closure
from ....models.face.face_mesh import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LIPS_INNER,
    OUTER_EYE_CORNERS,
    VERTICES,
    face_mesh,
)
from ....models.face.mouth_shapes import mouth_vertices
from ...errors import TalkingPortraitError
from ...face.head_pose import head_matrix
from ...face.metric_mesh import metric_mesh
from ...types import Camera, FaceMotion, FaceTrack

UPPER_INNER_LIP = LIPS_INNER[1:10]
LOWER_INNER_LIP = LIPS_INNER[:10:-1]
"""Both from the right to the left mouth corner, without the corners; entry i of one lies over entry i of the other."""
MOUTH_CORNERS = (LIPS_INNER[0], LIPS_INNER[10])

LOWER_TEETH_FOLLOW = [14, 87, 317, 14, 87, 317, 152, 175, 199, 200]
"""Vertices whose mean movement the lower teeth share: mostly the lower lip's edge, so that they stay behind it."""

MAX_ROTATION = 20.0
"""Degrees that the head may turn from the portrait's pose; the far side of a face is not in the picture."""
SOFT_ROTATION = 12.0
"""Degrees from which a turn is eased towards the maximum."""
VISIBLE_OPENING, OPENING_BEND, MIDDLE_OPENING = 1.0, 1.12, 0.13
"""An opening o is drawn as o (o / 0.13)^0.12 eye distances: landmarkers underestimate wide openings."""
SMILE_GAIN, MAX_SMILE = 1.9, 0.2
"""How much wider smiling lips open per curve (see `PortraitMesh.smile`), and the largest curve: the gap of lips whose
ends point up is read as smaller than it is."""
NOD_GAIN, MAX_NOD = 0.024, 12.0
"""How much wider lips open per degree of a nod, up to the largest: on a bowed face openings are read as smaller."""
TEETH_SHOW = 0.1
"""Lip opening of the portrait in eye distances from which a smile shows its teeth, and is read by these."""
SLIT_FROM = 0.03
"""Opening in eye distances from which all of the gap that the lips' soft edges hide is added back."""
HIDDEN_BY_ROUNDING = 0.09
"""Eye distances of an opening that lips hide per share of the mouth's width that they round away."""
SMALL_JAW = 0.1
"""Jaw control whose vertex offsets are scaled to widen a small opening."""
MAX_SLIT = 0.04
"""Most eye distances that are added back: the edges of a small face's lips are as wide as the lips."""
LONG_PAUSE = 4.0
"""Seconds of silence after which a mouth that is open in the portrait opens again."""
EASE_OPENING, MAX_OPENING = 0.24, 0.34
"""Drawn lip openings in eye distances from which, and up to which, they are eased: skin stretches only so far."""
PROFILE = 0.8
"""Part of the mouth's width that a turned head shows, below which its lips open less still: the far corner folds."""
WIDEST = -0.12
"""Closure of an eye at its widest: the picture has no more eyeball to show."""
LIP_EDGE = 1.5
"""Width in output pixels of the soft edge between lip and inside."""
UPPER_RIM, LOWER_RIM = 0.02, 0.05
"""Mouth half widths by which the edges of open lips lie outside the landmarks: no rim of teeth may stick to a lip."""
LIP_OVERLAP = 0.02
"""Mouth half widths by which an open mouth's lips go on beyond the meeting of their edges to shut."""
CLOSED_GAP = 0.022
"""Lip openings up to this many eye distances are a closed mouth: landmarkers never report an exact zero."""


@dataclass(frozen=True)
class PoseAndShape:
    """What a batch of frames does to the portrait, B frames.

    `camera_motion` (B, 4, 4) moves camera-space points of the portrait to where the turned head has them.
    `expression` (B, 468, 2) pixels by which each landmark moves in the portrait's own pose. `closure` (B, 2) of the
    right and the left eye: 0 as in the portrait, 1 shut, below 0 wider. `jaw` (B, 2) pixels the lower teeth move.
    """

    camera_motion: torch.Tensor
    expression: torch.Tensor
    closure: torch.Tensor
    jaw: torch.Tensor

    @property
    def still(self) -> bool:
        """Whether nothing moves in any of the frames."""
        resting = torch.equal(self.camera_motion, torch.eye(4, device=self.jaw.device).expand_as(self.camera_motion))
        return resting and not self.expression.any() and not self.closure.any()

    def frame(self, index: int) -> PoseAndShape:
        return PoseAndShape(*(value[index : index + 1] for value in vars(self).values()))

    def to(self, device: torch.device) -> PoseAndShape:
        return PoseAndShape(*(value.to(device) for value in vars(self).values()))


class PortraitMesh:
    """The metric mesh of one portrait's landmarks.

    `points` (468, 2) pixels; `vertices` (468, 3) cm in the canonical head frame; `matrix` (4, 4) head to camera;
    `eye_distance` between the outer eye corners in pixels, with depth; `pixels_per_cm` at the mouth.
    """

    def __init__(self, track: FaceTrack, camera: Camera | None = None) -> None:
        """`track` of one frame. Raises TalkingPortraitError where it holds no usable face."""
        self.camera = camera or Camera()
        self.image_size = track.image_size
        points = np.asarray(track.points, dtype=np.float64)
        if points.ndim != 3 or len(points) < 1 or points.shape[1] < VERTICES or points.shape[2] != 3:
            raise TalkingPortraitError(
                f"The portrait's landmarks have the shape {points.shape}, but (1, 468 or 478, 3) is expected; "
                "find them with Detect Landmarks."
            )
        points = points[0]
        extent = points[:VERTICES, :2].max(axis=0) - points[:VERTICES, :2].min(axis=0)
        if not np.isfinite(points).all() or extent.min() < 1:
            raise TalkingPortraitError(
                "The portrait's landmarks hold no face (they coincide or are not numbers); "
                "use a picture in which Detect Landmarks finds one."
            )
        self.points = points[:VERTICES, :2].copy()
        self.vertices, self.matrix = metric_mesh(points, track.image_size, self.camera)
        right, left = OUTER_EYE_CORNERS
        self.eye_distance = float(np.linalg.norm(points[right] - points[left]))
        self.eye_distance_cm = float(np.linalg.norm(self.vertices[right] - self.vertices[left]))
        self.pixels_per_cm = self.eye_distance / self.eye_distance_cm
        upper, lower = list(UPPER_INNER_LIP), list(LOWER_INNER_LIP)
        gaps = np.linalg.norm(points[upper] - points[lower], axis=1)
        self.lip_gap = float(gaps[4] / self.eye_distance)
        """Lip opening in the portrait, in eye distances."""
        self.opening_share = self._opening_share()
        corners = list(MOUTH_CORNERS)
        self.smile = self._smile()
        width = np.linalg.norm(np.diff(self.vertices[corners], axis=0)) * self.pixels_per_cm
        self.mouth_width_seen = float(np.clip(np.linalg.norm(np.diff(self.points[corners], axis=0)) / width, 0.5, 1.0))
        """Visible part of the mouth's width on a turned head."""
        self.mouth_closed = self.lip_gap < CLOSED_GAP
        overlap = 0.0 if self.mouth_closed else LIP_OVERLAP * width / 2
        self.swallowed = min((LIP_EDGE + float(overlap)) / self.eye_distance, MAX_SLIT)
        """Part of a lip opening in eye distances that is not visible."""

    def depth(self) -> np.ndarray:
        """Camera-space z (468,) in cm, negative: the camera looks along -z."""
        return self.vertices @ self.matrix[2, :3] + self.matrix[2, 3]

    def facing(self) -> np.ndarray:
        """Cosine (468,) of the angle between each vertex's normal and the way to the camera."""
        in_camera = self.vertices @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        a, b, c = (in_camera[face_mesh().triangles[:, k]] for k in range(3))
        normals = np.zeros_like(in_camera)
        for k in range(3):
            np.add.at(normals, face_mesh().triangles[:, k], np.cross(b - a, c - a))
        length = np.linalg.norm(normals, axis=1) * np.linalg.norm(in_camera, axis=1)
        return -(normals * in_camera).sum(axis=1) / np.maximum(length, 1e-9)

    def project(self, vertices: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of head-frame positions (..., 3) in the portrait's own pose."""
        height, width = self.image_size
        in_camera = vertices @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        focal = self.camera.focal * height / 2
        x = width / 2 + focal * in_camera[..., 0] / -in_camera[..., 2]
        y = height / 2 - focal * in_camera[..., 1] / -in_camera[..., 2]
        return np.stack([x, y], axis=-1)

    def move(self, motion: FaceMotion, frames: np.ndarray, speaking: np.ndarray) -> PoseAndShape:
        """What `motion` does in `frames` (B,), by number; `speaking` (F,) from `speech_activity` for all its frames."""
        offsets = self._fitted_offsets(motion, frames)
        if not self.mouth_closed:
            offsets = offsets + speaking[frames, None, None] * self._closing_offsets()
        expression = self._in_picture(offsets)
        jaw = expression[:, LOWER_TEETH_FOLLOW].mean(axis=1)
        still = (np.abs(motion.vertices[frames] - motion.neutral).max(axis=(1, 2)) < 1e-7) & (speaking[frames] == 0)
        expression[still] = 0
        closure = eyelid_closure(motion.vertices[frames], motion.neutral).clip(WIDEST, 1)
        closure[still] = 0
        as_tensor = lambda array: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))  # noqa: E731
        return PoseAndShape(
            camera_motion=as_tensor(self._camera_motion(motion, frames)),
            expression=as_tensor(expression),
            closure=as_tensor(closure),
            jaw=as_tensor(jaw),
        )

    def _in_picture(self, offsets: np.ndarray) -> np.ndarray:
        """Pixels (B, 468, 2) of offsets (B, 468, 3) in the head frame, each at its vertex's own distance.

        Moving towards the camera does not magnify: the distance of a portrait's camera is a guess, and a close guess
        would make cheeks swell.
        """
        turned = offsets @ self.matrix[:3, :3].T
        scale = self.camera.focal * self.image_size[0] / 2 / -self.depth()
        return turned[..., :2] * scale[:, None] * [1, -1]

    def speech_activity(self, motion: FaceMotion) -> np.ndarray:
        """How far (F,) in 0..1 the mouth is at work, for portraits whose mouth is open at rest.

        Such a mouth keeps the portrait's smile in long silences; its lips come together for speech and its pauses.
        """
        if self.mouth_closed:
            return np.zeros(motion.frames)
        lips = list(LIPS_INNER)
        moved = np.abs(motion.vertices[:, lips] - motion.neutral[lips]).max(axis=(1, 2))
        active = (moved > 0.06 * _eye_distance(motion.neutral) / 8.9).astype(np.float64)
        if not active.any():
            return active
        from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d

        rate = float(motion.fps)
        pause, lead = max(1, round(LONG_PAUSE * rate)), max(1, round(0.8 * rate))
        bridged = minimum_filter1d(maximum_filter1d(active, pause, mode="nearest"), pause, mode="nearest")
        held = maximum_filter1d(bridged, lead, mode="nearest")
        return gaussian_filter1d(held, 0.12 * rate, mode="nearest")

    def _smile(self) -> float:
        """How far the upper lip's middle hangs below the corners in mouth widths, less where teeth are visible."""
        right, left = self.points[list(MOUTH_CORNERS)]
        width = max(float(np.linalg.norm(left - right)), 1e-6)
        x, y = (left - right) / width
        curve = float((self.points[INNER_UPPER_LIP] - (left + right) / 2) @ np.array([-y, x])) / width
        return float(np.clip(curve, 0, MAX_SMILE) * np.clip(1 - self.lip_gap / TEETH_SHOW, 0, 1))

    def _opening_share(self) -> float:
        """How much of an opening of the jaw is visible in this view: a jaw moves back as well as down.

        It is made up for in full, so that openings look alike whether a face looks up or down. That holds as well for
        smiles, whose low mouth the mesh takes for a bowed head.
        """
        open_jaw = mouth_vertices(np.array([[0.4, 0, 0, 0, 0, 0]]))[0].astype(np.float64)
        gap = open_jaw[INNER_LOWER_LIP] - open_jaw[INNER_UPPER_LIP]
        pixels = self._in_picture(open_jaw)
        flat = pixels[INNER_LOWER_LIP] - pixels[INNER_UPPER_LIP]
        share = np.linalg.norm(flat) / self.pixels_per_cm / np.linalg.norm(gap)
        return float(np.clip(share, 0.6, 1.2))

    def _fitted_offsets(self, motion: FaceMotion, frames: np.ndarray) -> np.ndarray:
        """Expression offsets (B, 468, 3) in cm, in this face's proportions."""
        offsets = motion.vertices[frames].astype(np.float64) - motion.neutral
        offsets = offsets * (self.eye_distance_cm / _eye_distance(motion.neutral))
        # A narrow mouth rounds and spreads by less; openings stay in eye distances, as speech is measured.
        right, left = MOUTH_CORNERS
        own = np.linalg.norm(self.vertices[right] - self.vertices[left]) / self.eye_distance_cm
        other = _distance(motion.neutral, right, left) / _eye_distance(motion.neutral)
        width = float(np.clip(own / other, 0.6, 1.4))
        offsets[..., 0] *= 1 + (width - 1) * _mouth_weight()
        gap = offsets[:, INNER_LOWER_LIP] - offsets[:, INNER_UPPER_LIP]
        opening = np.linalg.norm(gap, axis=-1) / self.eye_distance_cm
        pitch = motion.rotation[frames, 0].astype(np.float64)
        if motion.pose == "camera":
            pitch -= motion.rotation[0, 0]
        nodding = 1 + NOD_GAIN * np.clip(pitch, -MAX_NOD, MAX_NOD)
        visible = VISIBLE_OPENING * (1 + SMILE_GAIN * self.smile) * nodding
        bent = visible * opening * (opening / MIDDLE_OPENING) ** (OPENING_BEND - 1)
        limit = self.mouth_width_seen * min(1.0, self.mouth_width_seen / PROFILE)
        drawn = soft_limit(bent, EASE_OPENING * limit, MAX_OPENING * limit) / self.opening_share
        gain = np.where(opening > 0, drawn / np.maximum(opening, 1e-9), 1.0)
        offsets[..., 1:] *= 1 + (gain[:, None, None] - 1) * _below_nose()[:, None]
        corners = motion.vertices[frames][:, [right, left]].astype(np.float64)
        narrowed = 1 - np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1) / _distance(motion.neutral, right, left)
        hidden = self.swallowed + HIDDEN_BY_ROUNDING * narrowed.clip(0, 1)
        return offsets + (smoothstep(0, SLIT_FROM, opening) * hidden * nodding)[:, None, None] * self._slit()

    def _slit(self) -> np.ndarray:
        """Offsets (468, 3) in cm of a small movement of the jaw, scaled to open the lips by one eye distance."""
        jaw = mouth_vertices(np.array([[SMALL_JAW, 0, 0, 0, 0, 0]]))[0].astype(np.float64)
        return jaw * (self.eye_distance_cm / _distance(jaw, INNER_UPPER_LIP, INNER_LOWER_LIP))

    def _closing_offsets(self) -> np.ndarray:
        """Offsets (468, 3) in cm that close the portrait's open mouth."""
        upper, lower = list(UPPER_INNER_LIP), list(LOWER_INNER_LIP)
        gap = self.vertices[lower] - self.vertices[upper]
        # The lips' edges lie a little outside the landmarks (see `lips`), so they have further to go.
        right, left = MOUTH_CORNERS
        rim = (UPPER_RIM + LOWER_RIM + LIP_OVERLAP) * np.linalg.norm(self.vertices[left] - self.vertices[right]) / 2
        gap = gap * (1 + rim / np.maximum(np.linalg.norm(gap, axis=1, keepdims=True), rim))
        canonical = face_mesh().vertices
        offsets = np.zeros((VERTICES, 3))
        line = canonical[[MOUTH_CORNERS[0], *upper, MOUTH_CORNERS[1]]]
        share = np.concatenate([np.zeros((1, 3)), gap, np.zeros((1, 3))])
        across = np.stack([np.interp(canonical[:, 0], line[:, 0], share[:, k]) for k in range(3)], axis=-1)
        middle = np.interp(canonical[:, 0], line[:, 0], (line[:, 1]))
        above = canonical[:, 1] - middle
        # The upper lip comes down by four tenths of the gap, fading towards the nose; lower lip and chin rise.
        down = 0.4 * np.clip(1 - (above - 0.1) / 1.6, 0, 1) * (above > -0.05)
        up = 0.6 * np.clip(1 - 0.55 * (-above - 0.5) / 3.0, 0.0, 1) * (above <= -0.05)
        weight = np.where(above > -0.05, down, -up)
        near = (np.abs(canonical[:, 0]) < 3.2) & (canonical[:, 1] < -1.5)
        offsets[near] = (weight[:, None] * across)[near]
        for i, (u, d) in enumerate(zip(upper, lower, strict=True)):
            offsets[u], offsets[d] = 0.4 * gap[i], -0.6 * gap[i]
        return offsets

    def _camera_motion(self, motion: FaceMotion, frames: np.ndarray) -> np.ndarray:
        """M_t M_portrait^-1 (B, 4, 4), with the turn from the portrait's pose eased below the limit."""
        pose = head_matrix(motion.rotation[frames], motion.translation[frames])
        if motion.pose == "camera":
            first = head_matrix(motion.rotation[:1], motion.translation[:1])
            pose = np.linalg.inv(first) @ pose
        from scipy.spatial.transform import Rotation

        turn = Rotation.from_matrix(pose[:, :3, :3]).as_rotvec(degrees=True)
        angle = np.linalg.norm(turn, axis=1, keepdims=True)
        turn = turn * soft_limit(angle, SOFT_ROTATION, MAX_ROTATION) / np.maximum(angle, 1e-9)
        pose[:, :3, :3] = Rotation.from_rotvec(turn, degrees=True).as_matrix()
        still = np.abs(pose - np.eye(4)).max(axis=(1, 2)) < 1e-7
        moved = self.matrix @ pose @ np.linalg.inv(self.matrix)
        moved[still] = np.eye(4)
        return moved


def _eye_distance(vertices: np.ndarray) -> float:
    return _distance(vertices, *OUTER_EYE_CORNERS)


def _distance(vertices: np.ndarray, one: int, other: int) -> float:
    return max(float(np.linalg.norm(vertices[other] - vertices[one])), 1e-6)


def _below_nose() -> np.ndarray:
    """1 (468,) on lips and jaw, 0 from the nose up."""
    return smoothstep(-1.0, -2.5, face_mesh().vertices[:, 1])


def _mouth_weight() -> np.ndarray:
    """1 (468,) on the lips, falling to 0 two mouth heights away."""
    canonical = face_mesh().vertices
    lips = canonical[list(LIPS_INNER)]
    distance = np.linalg.norm(canonical[:, None, :2] - lips[None, :, :2], axis=-1).min(axis=1)
    return np.clip(1 - distance / 3.0, 0, 1) ** 2
