"""The shape of a person's head by a morphable face model, for trackers of the head's pose."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import torch

from ....models.audiodvp.face_model import FaceModel
from ....models.face.face_mesh import face_mesh
from ...face.metric_mesh import similarity
from ...types import Progress, no_progress
from .coefficients import LANDMARKS_68, PUBLISHED_SIZE, check_landmarks, solve

INNER = slice(17, 68)
"""The landmarks inside of the face, which published trackers fit: of the jaw's, models and detectors differ."""
WEIGHT = 30.0
"""Of each of them, about the mean of the published weights."""
ROUNDS = 120
"""Of steps: how deep a face is, which decides how far it seems to turn, is found last; 15 times as many as a fit that
only has to lie on the pictures, on few frames."""


class MorphableHead:
    """A morphable model that gives the canonical face a person's shape. `name` tells it from other models.

    Raises TalkingPortraitError for a face model that has not the 68 landmarks.
    """

    def __init__(self, model: FaceModel) -> None:
        check_landmarks(model)
        self.model = model
        digest = hashlib.sha256()
        for tensor in (model.geo_mean, model.id_base, model.exp_base):
            digest.update(tensor.contiguous().numpy().tobytes())
        self.name = f"face model {digest.hexdigest()[:8]}"
        mean = self._placed(torch.zeros(model.id_base.shape[1]))
        self.on_mean = _warped(mean[model.landmark_index[INNER].numpy()])
        self.nearest = _nearest(mean, self.on_mean)
        self.mean = mean[self.nearest]

    def fit(self, points: np.ndarray, focal: float, size: int, progress: Progress = no_progress) -> np.ndarray:
        """The face at rest (468, 3) in the canonical head frame, in cm, of landmarks (n, 468 or more, 3).

        These and the focal length are in pixels of pictures of `size` pixels. Identity, expressions and poses are
        fitted to them; the canonical face then moves as the model's surface does where it lies on the mean face.
        """
        camera = replace(self.model.camera, fov_y=2 * math.degrees(math.atan(size / 2 / focal)))
        weights = torch.zeros(len(LANDMARKS_68))
        weights[INNER] = WEIGHT
        wanted = torch.from_numpy(points[:, LANDMARKS_68, :2] * (PUBLISHED_SIZE / size)).float()
        identity, _ = solve(replace(self.model, camera=camera), wanted, progress, weights, ROUNDS)
        face = self.on_mean + self._placed(identity)[self.nearest] - self.mean
        canonical, weight = face_mesh().vertices.astype(np.float64), face_mesh().procrustes
        matrix = similarity(face, canonical[None], weight)[0]
        placed: np.ndarray = face @ matrix[:3, :3].T + matrix[:3, 3]
        return placed

    def _placed(self, identity: torch.Tensor) -> np.ndarray:
        """Vertices (V, 3) of an identity (identities,) at rest, in the frame of the canonical head."""
        rest = torch.zeros(1, self.model.exp_base.shape[1], 1)
        # With its upward direction the camera turns the model, and pictures' rows run downwards.
        up = math.copysign(1, self.model.camera.up_y)
        face = self.model.geometry(identity[None, :, None], rest)[0].double().numpy() * [up, -up, 1]
        landmarks = face[self.model.landmark_index[INNER].numpy()]
        matrix = similarity(landmarks, _anchors()[None], np.ones(len(landmarks)))[0]
        placed: np.ndarray = face @ matrix[:3, :3].T + matrix[:3, 3]
        return placed


def _anchors() -> np.ndarray:
    return face_mesh().vertices[np.array(LANDMARKS_68)[INNER]].astype(np.float64)


def _warped(landmarks: np.ndarray) -> np.ndarray:
    """The canonical face (468, 3) with its inner landmarks in these places (51, 3)."""
    from scipy.interpolate import RBFInterpolator

    canonical, anchors = face_mesh().vertices.astype(np.float64), _anchors()
    warped: np.ndarray = canonical + RBFInterpolator(anchors, landmarks - anchors, kernel="linear")(canonical)
    return warped


def _nearest(vertices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """For each of the points (P, 3) the number (P,) of the vertex (V, 3) that is nearest to it."""
    from scipy.spatial import cKDTree

    numbers: np.ndarray = cKDTree(vertices).query(points)[1]
    return numbers
