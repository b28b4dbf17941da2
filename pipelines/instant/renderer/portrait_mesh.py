"""A portrait's face in space, and how a motion moves it: the geometry of the Instant renderer.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ....models.curves import smoothstep, soft_limit
from ....models.face.eyelid_shapes import eyelid_closure
from ....models.face.face_mesh import (
    BLENDSHAPES,
    CHIN,
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    VERTICES,
    eye_distance,
    vertex_normals,
)
from ....models.face.mouth_regions import MOUTH_CORNERS
from ....models.face.mouth_shapes import mouth_vertices
from ...errors import TalkingPortraitError
from ...face.head_pose import head_matrix
from ...face.metric_mesh import metric_mesh, project
from ...types import Camera, FaceMotion, FaceTrack
from .mouth_shape import LOWER_TEETH_FOLLOW, MouthShape, Speaking, distance

if TYPE_CHECKING:
    from .face_light import FaceLight

MAX_ROTATION = 20.0
"""Degrees that the head may turn from the portrait's pose; the far side of a face is not in the picture."""
SOFT_ROTATION = 12.0
"""Degrees from which a turn is eased towards the maximum."""
FULL_PUCKER = 0.25
"""Share of the mouth's width that the motion's corners come in by for a full "u"."""
EYEBALL_RADIUS = 1.2
"""Centimetres, of an adult."""
CHIN_PART, MOST_CHIN_GAIN = 1.6, 3.0
"""Part of an opening of the jaw by which a chin goes down, about as far as real speakers' does, and the largest factor
on the mesh's own movement: the mesh of a bowed head takes the chin back rather than down."""
WIDEST = -0.12
"""Closure of an eye at its widest: the picture has no more eyeball to show."""


@dataclass(frozen=True)
class LipControls:
    """What a motion's mouth does, (B,).

    `opening` eye distances. In 0..1: `pucker`, lips forward and round; `tuck`, the lower lip under the upper teeth;
    `tongue`, the height of its tip.
    """

    opening: np.ndarray
    pucker: np.ndarray
    tuck: np.ndarray
    tongue: np.ndarray

    @classmethod
    def of(cls, motion: FaceMotion, frames: np.ndarray) -> LipControls:
        """In `frames` (B,), by number. A motion without a curve has it in its vertices, or does without."""
        vertices = motion.vertices[frames].astype(np.float64)
        gap = np.linalg.norm(vertices[:, INNER_LOWER_LIP] - vertices[:, INNER_UPPER_LIP], axis=-1)
        if motion.pucker is None:
            right, left = MOUTH_CORNERS
            width = np.linalg.norm(vertices[:, left] - vertices[:, right], axis=-1)
            pucker = (1 - width / distance(motion.neutral, right, left)) / FULL_PUCKER
        else:
            pucker = motion.pucker[frames]
        tuck = _touching(motion, frames)
        if motion.blendshapes is not None:
            lower, upper = (
                motion.blendshapes[frames, BLENDSHAPES.index(f"mouthRoll{lip}")] for lip in ("Lower", "Upper")
            )
            # Lips that press on each other roll in both.
            tuck = np.maximum(tuck, lower - 1.6 * upper)
        tongue = np.zeros(len(frames)) if motion.tongue is None else motion.tongue[frames]
        return cls(gap / eye_distance(motion.neutral), *(np.clip(curve, 0, 1) for curve in (pucker, tuck, tongue)))


def _touching(motion: FaceMotion, frames: np.ndarray) -> np.ndarray:
    """How far (B,) lip press stays where the lower lip touches the teeth; lips that close pass there quickly."""
    if motion.lip_press is None:
        return np.zeros(len(frames))
    hold = max(1, round(0.04 * float(motion.fps)))
    around = np.clip(frames[:, None] + np.arange(-2 * hold, 2 * hold + 1), 0, motion.frames - 1)
    press = motion.lip_press[around].astype(np.float64)
    touch = smoothstep(0.52, 0.64, press) * smoothstep(0.84, 0.76, press)
    held = np.lib.stride_tricks.sliding_window_view(touch, 2 * hold + 1, axis=1)
    return held.min(axis=-1).max(axis=-1)


@dataclass(frozen=True)
class PoseAndShape:
    """What a batch of frames does to the portrait, B frames.

    `camera_motion` (B, 4, 4) moves camera-space points of the portrait to where the turned head has them.
    `expression` (B, 468, 2) pixels by which each landmark moves in the portrait's own pose. `closure` (B, 2) of the
    right and the left eye: 0 as in the portrait, 1 shut, below 0 wider. `jaw` (B, 2) pixels the lower teeth move.
    `lips` (B, 3) in 0..1: how far lips pucker, the lower lip lies under the upper teeth, the tongue's tip is raised.
    `gaze` (B, 2) pixels the irises move; `breath` (B,) in the motion's unit: 1 is a quiet breath in. `light` (B, 468)
    is how much brighter the skin becomes, as a factor.
    """

    camera_motion: torch.Tensor
    expression: torch.Tensor
    closure: torch.Tensor
    jaw: torch.Tensor
    lips: torch.Tensor
    gaze: torch.Tensor
    breath: torch.Tensor
    light: torch.Tensor

    @property
    def still(self) -> bool:
        """Whether nothing moves in any of the frames."""
        resting = torch.equal(self.camera_motion, torch.eye(4, device=self.jaw.device).expand_as(self.camera_motion))
        return resting and not any(part.any() for part in (self.expression, self.closure, self.gaze, self.breath))

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
        self.eye_distance = float(eye_distance(points))
        self.eye_distance_cm = float(eye_distance(self.vertices))
        self.pixels_per_cm = self.eye_distance / self.eye_distance_cm
        self.mouth = MouthShape(self)

    def depth(self) -> np.ndarray:
        """Camera-space z (468,) in cm, negative: the camera looks along -z."""
        return self.vertices @ self.matrix[2, :3] + self.matrix[2, 3]

    def facing(self) -> np.ndarray:
        """Cosine (468,) of the angle between each vertex's normal and the way to the camera."""
        in_camera = self.vertices @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        along = (vertex_normals(in_camera[None])[0] * in_camera).sum(axis=1)
        return -along / np.maximum(np.linalg.norm(in_camera, axis=1), 1e-9)

    def project(self, vertices: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of head-frame positions (..., 3) in the portrait's own pose."""
        return project(vertices, self.matrix, self.image_size, self.camera)

    def jaw_shares(self) -> tuple[float, float]:
        """How much of an opening of the jaw is visible in this view, and how far down the chin has to go for it.

        The first is a part: a jaw moves back as well as down. It is made up for in full, so that openings look alike
        whether a face looks up or down. That holds as well for smiles, whose low mouth the mesh takes for a bowed
        head. The second is a factor with which the chin visibly goes by `CHIN_PART` of the visible opening.
        """
        open_jaw = mouth_vertices(np.array([[0.4, 0, 0, 0, 0, 0]]))[0].astype(np.float64)
        gap = open_jaw[INNER_LOWER_LIP] - open_jaw[INNER_UPPER_LIP]
        pixels = self.in_picture(open_jaw)
        flat = pixels[INNER_LOWER_LIP] - pixels[INNER_UPPER_LIP]
        opened = float(np.linalg.norm(flat))
        share = float(np.clip(opened / self.pixels_per_cm / np.linalg.norm(gap), 0.6, 1.2))
        down = flat / max(opened, 1e-9)
        falling = float(self.in_picture(open_jaw * [0, 1, 0])[CHIN] @ down)
        back = float(pixels[CHIN] @ down) - falling
        return share, float(np.clip((CHIN_PART * opened - back) / max(falling, 1e-9), 1.0, MOST_CHIN_GAIN))

    def move(
        self, motion: FaceMotion, frames: np.ndarray, speaking: Speaking, light: FaceLight | None = None
    ) -> PoseAndShape:
        """What `motion` does in `frames` (B,), by number; `speaking` from `mouth.speaking` for all its frames.

        Without a `light` the skin keeps its brightness.
        """
        controls = LipControls.of(motion, frames)
        offsets, jaw = self.mouth.offsets(motion, frames, controls, speaking)
        expression = self.in_picture(offsets)
        still = (np.abs(motion.vertices[frames] - motion.neutral).max(axis=(1, 2)) < 1e-7) & speaking.still[frames]
        expression[still] = 0
        closure = eyelid_closure(motion.vertices[frames], motion.neutral).clip(WIDEST, 1)
        closure[still] = 0
        camera_motion = self._camera_motion(motion, frames)
        brighter = np.ones((len(frames), VERTICES)) if light is None else light.change(offsets, camera_motion)
        as_tensor = lambda array: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))  # noqa: E731
        return PoseAndShape(
            camera_motion=as_tensor(camera_motion),
            expression=as_tensor(expression),
            closure=as_tensor(closure),
            jaw=as_tensor(self.in_picture(jaw, LOWER_TEETH_FOLLOW).mean(axis=1)),
            lips=as_tensor(np.stack([controls.pucker, controls.tuck, controls.tongue], axis=-1)),
            gaze=as_tensor(self._iris_travel(motion, frames)),
            breath=as_tensor(np.zeros(len(frames)) if motion.breath is None else motion.breath[frames]),
            light=as_tensor(brighter),
        )

    def _iris_travel(self, motion: FaceMotion, frames: np.ndarray) -> np.ndarray:
        """Pixels (B, 2) that the irises move in the portrait's own pose."""
        if motion.gaze is None:
            return np.zeros((len(frames), 2))
        angles = np.radians(motion.gaze[frames].astype(np.float64))
        turned = EYEBALL_RADIUS * np.sin(angles) @ self.matrix[:2, :2].T
        return turned * self.pixels_per_cm * [1, -1]

    def in_picture(self, offsets: np.ndarray, vertices: list[int] | None = None) -> np.ndarray:
        """Pixels (..., V, 2) of offsets (..., V, 3) in the head frame, each at its vertex's own distance.

        All vertices, or those named.

        Moving towards the camera does not magnify: the distance of a portrait's camera is a guess, and a close guess
        would make cheeks swell.
        """
        turned = offsets @ self.matrix[:3, :3].T
        scale = (
            self.camera.focal * self.image_size[0] / 2 / -self.depth()[slice(None) if vertices is None else vertices]
        )
        return turned[..., :2] * scale[:, None] * [1, -1]

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
