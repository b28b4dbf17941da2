"""Fits a face model to a prepared person: landmarks give shape, expression and pose, the crops colours and light.

No network is trained for it, where AudioDVP trains a ResNet, and no model of other faces is needed: by default the
expression basis is learnt from the person's own video. A morphable model of many faces, such as the Basel Face Model,
is fitted where it is given. The crops are read once, in order.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import torch

from ...models.audiodvp.camera import Camera, rotation_matrix, to_world
from ...models.audiodvp.expression_regressor import ExpressionRegressor
from ...models.audiodvp.face_model import FaceModel, adjacent_triangles, lower_triangles
from ...models.audiodvp.rasterizer import interpolate, rasterize
from ...models.face.face_mesh import LEFT_EYE, LIPS_INNER, RIGHT_EYE, VERTICES
from ..errors import TalkingPortraitError, reason_of
from ..files.output_paths import put_in_place
from ..files.scratch import interruptions_held, scratch_folder
from ..image.affine_sampling import invert_map
from ..person.over_frames import between_known
from ..person.person import Person
from ..progress import share
from ..types import Camera as MediaPipeCamera
from ..types import Progress, no_progress
from .fitted_face import COEFFICIENTS_FILE, FOLDER, MODEL_FILE, FittedFace
from .morphable.coefficients import fit_coefficients, has_basis, openings_of
from .morphable.regressor import regressed_face, train_regressor
from .morphable.regressor_checkpoint import FILE as CHECKPOINT_FILE
from .person_colours import ambient_shade, face_colours, fit_light, median_albedo, smooth_light
from .person_mesh import person_mesh
from .person_shape import PersonShape, fit_shape, model_pose

TEXTURE_FRAMES = 96
"""Most frames whose pixels the colours are the median of, evenly spaced."""
BATCH = 16
"""Frames that are read and computed at once."""
INNER_MOUTH = (0.10, 0.04, 0.04)
"""Colour under the ambient light of an inner mouth that the video never shows."""
OPEN_FRAMES, LEAST_OPENING = 0.1, 0.06
"""Part of the frames, those with the widest mouth, that the inner mouth's colours are the median of, and how wide the
mouth is at least in them, over the distance of the eyes; one that is less open shows lips there."""
UNSTEADY = (*LIPS_INNER, *RIGHT_EYE, *LEFT_EYE)
"""Landmarks whose colours depend on more than light."""
COEFFICIENTS_SHARE = 0.3
"""Part of the time that a morphable model's coefficients take, about."""
OWN_FILES = re.compile(f"{re.escape(MODEL_FILE)}|{re.escape(COEFFICIENTS_FILE)}")
PREVIEW_SECONDS = 2
"""One picture of the fit is shown for so much of the video."""


def fit_face(
    person: Person,
    model: FaceModel | None = None,
    regressor: ExpressionRegressor | None = None,
    *,
    progress: Progress = no_progress,
) -> FittedFace:
    """The face model of a prepared person, fitted and stored in its folder, or read from there where that is done.

    `model` is a morphable model with the 68 landmarks; by default one is made of the person's own landmarks. A fit of
    another model that is there is made anew, where one is given. With a `regressor`, which has as many coefficients as
    the model, it is fitted as published, by training that, which takes hours on a CPU and goes on where it stopped.

    Raises TalkingPortraitError when the folder can't be written.
    """
    place = person.folder / FOLDER
    if (place / MODEL_FILE).is_file() and (place / COEFFICIENTS_FILE).is_file():
        fitted = FittedFace.read(person.folder)
        if model is None or has_basis(fitted.face_model, model):
            return fitted
    fitted = _fitted(person, progress) if model is None else _with_model(person, model, regressor, progress)
    try:
        with scratch_folder(person.folder, FOLDER) as scratch:
            made = scratch / FOLDER
            made.mkdir()
            fitted.save(made)
            with interruptions_held():
                put_in_place(made, place, OWN_FILES)  # others are of another model, or lost one of their files
                (person.folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise TalkingPortraitError(
            f"The fitted face can't be written to {person.folder} ({reason_of(error)}); check that the folder is there "
            "and has room, and run it again."
        ) from None
    return fitted


def _fitted(person: Person, progress: Progress) -> FittedFace:
    size, frames = person.crop_size, person.frames
    to_crop = invert_map(person.box.map(size))
    shape = fit_shape(person.track().points, to_crop, person.usable, person.shots, size, float(person.fps))
    distance = -float(np.median(shape.poses.translation[person.usable, 2]))
    rotation, translation = model_pose(shape.poses, distance)
    fitted = FittedFace(
        face_model=_face_model(shape, distance),
        identity=_float(shape.turning),
        expression=_float(shape.expression),
        rotation=_float(rotation),
        translation=_float(translation),
        light=torch.zeros(frames, 27),
        opened=_float(shape.opened),
        crop_size=size,
    )
    mesh = person_mesh()
    steady = torch.from_numpy(np.setdiff1d(np.arange(VERTICES), UNSTEADY))
    return _with_colours(person, fitted, steady, torch.from_numpy(mesh.inner_mouth.copy()), progress)


def _with_model(
    person: Person, model: FaceModel, regressor: ExpressionRegressor | None, progress: Progress
) -> FittedFace:
    """A morphable model; its own texture gives way to the colours of the person, unless a regressor has fitted it."""
    if regressor is not None:
        train_regressor(person, model, regressor, progress=progress)
        return regressed_face(person, model, regressor)
    fitted = fit_coefficients(person, model, share(progress, 0, COEFFICIENTS_SHARE))
    lit = torch.arange(0, model.vertices, max(1, model.vertices // VERTICES))
    inner_mouth = torch.zeros(model.vertices, dtype=torch.bool)
    return _with_colours(person, fitted, lit, inner_mouth, share(progress, COEFFICIENTS_SHARE, 1))


def _face_model(shape: PersonShape, distance: float) -> FaceModel:
    """A face model without colours, its mean face mirrored as the camera needs it."""
    mesh = person_mesh()

    def interleaved(values: np.ndarray) -> torch.Tensor:
        """(468, 3, n) of the landmarks, in the head frame, to (3V, n)."""
        mirrored = values * np.array([-1.0, 1.0, 1.0])[:, None]
        return _float(mesh.spread(mirrored.reshape(VERTICES, -1)).reshape(-1, values.shape[2]))

    mean, triangles = interleaved(shape.mean[..., None]), torch.from_numpy(mesh.triangles.astype(np.int32))
    mediapipe = MediaPipeCamera()
    return FaceModel(
        geo_mean=mean,
        id_base=interleaved(shape.turning_basis),
        exp_base=interleaved(shape.basis),
        tex_mean=torch.zeros_like(mean),
        tex_base=torch.zeros(len(mean), 0),
        triangles=triangles,
        lower_triangles=lower_triangles(mean, triangles),
        point_buf=adjacent_triangles(triangles, len(mean) // 3),
        landmark_index=torch.arange(VERTICES),
        camera=Camera(distance, mediapipe.vertical_fov, mediapipe.near, mediapipe.far),
    )


def _with_colours(
    person: Person, fitted: FittedFace, lit: torch.Tensor, inner_mouth: torch.Tensor, progress: Progress
) -> FittedFace:
    """The fitted face with the colours of its vertices and the light of each frame.

    Light is fitted to the vertices numbered `lit`; those in `inner_mouth` (V,) bool get what frames with an open mouth
    show there, teeth for the most part, or one dark colour where there are none.
    """
    known = np.flatnonzero(person.usable)
    with_mouth = set(_open_frames(openings_of(person, known), known) if inner_mouth.any() else ())
    for_texture = set(known[np.linspace(0, len(known) - 1, min(TEXTURE_FRAMES, len(known))).astype(int)].tolist())
    texture, mouths, colours, normals = [], [], [], []
    preview_every = max(1, round(PREVIEW_SECONDS * person.fps / BATCH))
    for number, frames in enumerate(known[start : start + BATCH] for start in range(0, len(known), BATCH)):
        crops = person.crops(frames)
        seen, facing = face_colours(fitted.face_model, fitted.coefficients(frames), crops)
        texture += [
            of_frame.clone() for of_frame, frame in zip(seen, frames.tolist(), strict=True) if frame in for_texture
        ]
        mouths += [
            of_frame[inner_mouth] for of_frame, frame in zip(seen, frames.tolist(), strict=True) if frame in with_mouth
        ]
        colours.append(seen[:, lit].half())
        normals.append(facing[:, lit].half())
        picture = None if number % preview_every else fit_preview(fitted, int(frames[0]), crops[0])
        progress(min((number + 1) * BATCH, len(known)), len(known), picture)

    albedo = median_albedo(torch.stack(texture), fitted.face_model.triangles)
    dark = torch.tensor(INNER_MOUTH)
    mouth = torch.stack(mouths).nanmedian(0).values if mouths else dark.expand(int(inner_mouth.sum()), 3)
    albedo[inner_mouth] = torch.where(mouth.isnan(), dark, mouth) / ambient_shade()
    light = np.zeros((person.frames, fitted.light.shape[1]))
    for number, frames in enumerate(known[start : start + BATCH] for start in range(0, len(known), BATCH)):
        light[frames] = fit_light(albedo[lit], normals[number].float(), colours[number].float()).numpy()
    light = smooth_light(between_known(light, known), person.shots, float(person.fps))
    model = replace(fitted.face_model, tex_mean=albedo.reshape(-1, 1), tex_base=torch.zeros(albedo.numel(), 0))
    return replace(fitted, face_model=model, light=_float(light))


def _open_frames(openings: np.ndarray, known: np.ndarray) -> list[int]:
    """Numbers of the `known` frames that show the inner mouth, from the openings (n,) of the mouth in them."""
    widest = np.sort(np.argsort(openings)[-min(TEXTURE_FRAMES, max(1, round(OPEN_FRAMES * len(openings)))) :])
    return known[widest[openings[widest] > LEAST_OPENING]].tolist()


def fit_preview(fitted: FittedFace, frame: int, crop: np.ndarray) -> torch.Tensor:
    """A crop (S, S, 3) uint8 with the fitted mesh over it, coloured by its normals, as (S, S, 3) in 0..1."""
    model, face = fitted.face_model, fitted.coefficients([frame])
    geometry, rotation = model.geometry(face.alpha, face.delta), rotation_matrix(face.rotation)
    raster = rasterize(
        model.camera.project(to_world(geometry, rotation, face.translation)), model.triangles, crop.shape[:2]
    )
    normals = model.normals(geometry) @ rotation.transpose(1, 2) * 0.5 + 0.5
    mesh = interpolate(raster, model.triangles, normals)[0].permute(1, 2, 0)
    covered = raster.barycentric[0].sum(-1, keepdim=True).clamp(0, 1) * 0.5
    return torch.lerp(torch.from_numpy(crop).float() / 255, mesh, covered)


def _float(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
