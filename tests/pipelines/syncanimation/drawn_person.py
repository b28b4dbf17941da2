"""A drawn person who moves before a patterned wall, with the true parts of every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from talking_portrait.models.face.face_mesh import FACE_OVAL, face_mesh
from talking_portrait.pipelines.packages import load_opencv
from talking_portrait.pipelines.syncanimation.avatar import HEAD_PART, NECK_PART, TORSO_PART
from talking_portrait.pipelines.syncanimation.preparation.head_place import HeadPlace

SIZE, SCALE = 128, 3.6
"""Side of the pictures, and pixels for a cm."""
SKIN, HAIR, SHIRT = (215, 165, 140), (70, 45, 30), (40, 70, 150)


@dataclass(frozen=True)
class DrawnPerson:
    """`frames` (N, S, S, 3) uint8, the true `parts` (N, S, S), the `wall` (S, S, 3), and where the head is."""

    frames: np.ndarray
    parts: np.ndarray
    wall: np.ndarray
    places: list[HeadPlace]


def draw_person(count: int, reach: float = 9.0, seed: int = 0) -> DrawnPerson:
    """`count` frames in which the head moves sideways by up to `reach` pixels and the body by half as much."""
    random = np.random.default_rng(seed)
    cv2 = load_opencv()
    wall = cv2.resize(random.integers(150, 235, (9, 9, 3)).astype(np.uint8), (SIZE, SIZE), interpolation=1)
    frames, parts, places = [], [], []
    oval = face_mesh().vertices[list(FACE_OVAL), :2] * [1, -1] * SCALE
    for number in range(count):
        across = reach * np.sin(2 * np.pi * number / max(count - 1, 1) * 1.7)
        origin = np.array([64 + across, 58 + 2 * np.cos(number)])
        frame, labels = wall.copy(), np.zeros((SIZE, SIZE), np.uint8)

        def fill(ring: np.ndarray, colour: tuple[int, int, int], part: int, frame=frame, labels=labels) -> None:
            corners = [np.round(ring).astype(np.int32)]
            cv2.fillPoly(frame, corners, colour)
            cv2.fillPoly(labels, corners, part)

        body = np.array([64 + across / 2, origin[1]])
        torso = np.array([[-26, -40], [-24, -17], [-7, -12.5], [7, -12.5], [24, -17], [26, -40]]) * [1, -1] * SCALE
        neck = np.array([[-5.5, -14], [-5.5, -5], [5.5, -5], [5.5, -14]]) * [1, -1] * SCALE
        turns = np.linspace(0, 2 * np.pi, 60)[:, None]
        hair = np.hstack([9.5 * np.cos(turns), 2.5 + 10.5 * np.sin(turns)]) * [1, -1] * SCALE
        fill(body + torso, SHIRT, TORSO_PART)
        fill((origin + body) / 2 + neck, (185, 135, 112), NECK_PART)
        fill(origin + hair, HAIR, HEAD_PART)
        fill(origin + oval, SKIN, HEAD_PART)
        noise = random.normal(0, 2.5, frame.shape)
        frames.append(np.uint8(np.clip(cv2.GaussianBlur(frame, (3, 3), 0.6) + noise, 0, 255)))
        parts.append(labels)
        places.append(HeadPlace(origin, np.array([0.0, -1.0]), SCALE, origin + oval))
    return DrawnPerson(np.stack(frames), np.stack(parts), wall, places)
