"""The coefficients of a morphable face model in every frame of a prepared person, from landmarks alone.

AudioDVP trains a ResNet to give them, as it was made for pictures in which nothing has been found yet. Here landmarks
are there, and the published loss on them is a sum of squares with few unknowns in each frame: damped Gauss-Newton
steps, all frames at once, reach its minimum in seconds. What the photometric term would add, colours and light, is
fitted to the pictures afterwards.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.func import jacfwd, vmap

from ....models.audiodvp.camera import rotation_matrix, to_pixels, to_world
from ....models.audiodvp.face_model import FaceModel
from ....models.audiodvp.losses import FitWeights, landmark_weights
from ....models.face.face_mesh import mouth_opening
from ...errors import TalkingPortraitError
from ...image.affine_sampling import apply_map, invert_map
from ...person.over_frames import between_known, smooth_within
from ...person.person import Person
from ...types import Progress
from ..fitted_face import FittedFace
from ..person_shape import SMOOTHING_ORDER, SMOOTHING_WINDOW, wide_open

LANDMARKS_68 = (
    *(127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 81, 13, 311, 308, 402, 14, 178),
)
"""MediaPipe's landmarks at about the places of the 68 that a morphable model has; the jaw is where the two differ."""
PUBLISHED_SIZE = 256
"""Pixels of the published crops, in which its loss counts."""
ROUNDS, IDENTITY_FRAMES = 8, 64
"""Rounds of steps, and most frames that the identity is fitted to; the error no longer changes after six rounds."""
BLOCK = 256
"""Frames whose equations are solved at once."""
_FIRM = 1e-3
"""Part of the mean of its diagonal that is added to that of an equation."""
_POSE = 6


def has_basis(fitted: FaceModel, model: FaceModel) -> bool:
    """Whether a fitted face model has the shape of this one; its colours are the person's."""
    return (
        fitted.exp_base.shape == model.exp_base.shape
        and torch.equal(fitted.exp_base, model.exp_base)
        and torch.equal(fitted.triangles, model.triangles)
    )


def fit_coefficients(person: Person, model: FaceModel, progress: Progress) -> FittedFace:
    """Identity, expression and pose of all frames, without light.

    Raises TalkingPortraitError for a face model that has not the 68 landmarks.
    """
    check_landmarks(model)
    known = np.flatnonzero(person.usable)
    identity, values = solve(model, landmarks_of(person)[known], progress)

    every = np.zeros((person.frames, values.shape[1]))
    every[known] = values.numpy()
    every = between_known(every, known)
    expressions = values.shape[1] - _POSE
    pose = torch.from_numpy(
        smooth_within(every[:, expressions:], person.shots, SMOOTHING_WINDOW, SMOOTHING_ORDER)
    ).float()
    expression = torch.from_numpy(every[:, :expressions]).float()
    opened = wide_open(openings_of(person, known), every[known, :expressions])
    return FittedFace(
        face_model=model,
        identity=identity.expand(person.frames, -1).clone(),
        expression=expression,
        rotation=pose[:, :3].contiguous(),
        translation=pose[:, 3:].contiguous(),
        light=torch.zeros(person.frames, 27),
        opened=torch.from_numpy(opened).float(),
        crop_size=person.crop_size,
    )


def check_landmarks(model: FaceModel) -> None:
    """Raises TalkingPortraitError for a face model that has not the 68 landmarks."""
    if len(model.landmark_index) != len(LANDMARKS_68):
        raise TalkingPortraitError(
            f"The face model has {len(model.landmark_index)} landmarks, but {len(LANDMARKS_68)} are expected; make one "
            "of the Basel Face Model with person face-model."
        )


def landmarks_of(person: Person) -> torch.Tensor:
    """(frames, 68, 2) x and y in the crops, in pixels of `PUBLISHED_SIZE`."""
    points = person.track().points[:, LANDMARKS_68, :2]
    return torch.from_numpy(apply_map(invert_map(person.box.map(PUBLISHED_SIZE)), points)).float()


def openings_of(person: Person, frames: np.ndarray) -> np.ndarray:
    """How wide the mouth is open (n,) in these frames."""
    return mouth_opening(person.track().points[frames])


def solve(
    model: FaceModel,
    wanted: torch.Tensor,
    progress: Progress,
    weights: torch.Tensor | None = None,
    rounds: int = ROUNDS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Identity (identities,) and, for landmarks (n, 68, 2) in pixels of 256, (n, expressions + 6): the expression, the
    rotation and the translation of each frame. `weights` (68,) of the landmarks; by default the published ones."""
    rows = (3 * model.landmark_index[:, None] + torch.arange(3)).flatten()
    mean, id_base, exp_base = model.geo_mean[rows, 0], model.id_base[rows], model.exp_base[rows]
    identities, expressions = id_base.shape[1], exp_base.shape[1]
    weights, published = landmark_weights() if weights is None else weights, FitWeights()
    landmark = (weights * published.landmark / len(weights)).sqrt()[:, None]
    soft = (published.regularisation * published.delta) ** 0.5
    # The published loss counts the identity once for each batch of five frames.
    firm = (published.regularisation * published.alpha / 5) ** 0.5

    def difference(identity: torch.Tensor, frame: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Of one frame (expressions + 6,): the square roots of the loss's terms."""
        delta, rotation, translation = frame.split([expressions, 3, 3])
        geometry = (mean + id_base @ identity + exp_base @ delta).view(1, -1, 3)
        turned = to_world(geometry, rotation_matrix(rotation[None, :, None]), translation[None, :, None])
        places = to_pixels(model.camera.project(turned), (PUBLISHED_SIZE, PUBLISHED_SIZE))[0]
        return torch.cat([(landmark * (places - target)).flatten(), soft * delta])

    frames = torch.cat([torch.zeros(len(wanted), expressions + 3), _places(model, mean, wanted)], 1)
    identity = torch.zeros(identities)
    chosen = torch.linspace(0, len(wanted) - 1, min(IDENTITY_FRAMES, len(wanted))).long()
    of_frame = vmap(difference, (None, 0, 0))
    by_frame = vmap(jacfwd(difference, 1), (None, 0, 0))
    by_identity = vmap(jacfwd(difference, 0), (None, 0, 0))
    for number in range(rounds):
        # The head's pose alone first: what it leaves is then small enough for a step to be a step down.
        free = slice(expressions if number < 2 else 0, None)
        for start in range(0, len(wanted), BLOCK):
            block = slice(start, start + BLOCK)
            rest = of_frame(identity, frames[block], wanted[block])
            slope = by_frame(identity, frames[block], wanted[block])[..., free]
            frames[block, free] -= _step(
                slope.transpose(1, 2) @ slope, (slope.transpose(1, 2) @ rest[..., None])[..., 0]
            )
            progress(number * len(wanted) + min(block.stop, len(wanted)), rounds * len(wanted))
        if number >= 2:
            rest = of_frame(identity, frames[chosen], wanted[chosen])
            slope = by_identity(identity, frames[chosen], wanted[chosen])
            own = len(chosen) * firm**2
            products = torch.einsum("nri,nrj->ij", slope, slope) + own * torch.eye(identities)
            identity = identity - _step(products, torch.einsum("nri,nr->i", slope, rest) + own * identity)
    return identity, frames


def _step(products: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """The solution (..., n) of (..., n, n) with (..., n), a little damped."""
    size = products.diagonal(dim1=-2, dim2=-1)
    damped = products + torch.diag_embed(_FIRM * size + 1e-9)
    step: torch.Tensor = torch.linalg.solve(damped.double(), slope.double()[..., None])[..., 0].float()
    return step


def _places(model: FaceModel, mean: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Translations (n, 3) at which the mean face, turned to the camera, is as large and in the place of landmarks."""
    face, half = mean.view(-1, 3), PUBLISHED_SIZE / 2
    focal = float(model.camera.matrix()[1, 1])  # its sign is that of the roll
    depth = abs(focal) * half * _spread(face[:, :2]) / _spread(wanted)
    middle = (wanted.mean(1) / half - 1) * depth[:, None] / focal
    world = torch.cat([middle, (model.camera.eye_z - depth)[:, None]], 1)
    return face.mean(0) - world


def _spread(places: torch.Tensor) -> torch.Tensor:
    """How far points (..., n, 2) lie apart."""
    spread: torch.Tensor = (places - places.mean(-2, keepdim=True)).norm(dim=(-2, -1))
    return spread
