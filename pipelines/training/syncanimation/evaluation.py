"""How good a person's SyncAnimation is on frames that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....models.face.face_mesh import mouth_opening
from ....models.face.landmarks_68 import landmarks_68
from ....models.lpips import LPIPS
from ....models.syncanimation.audio_nets import speech_windows
from ....models.syncanimation.labels import BROWS, POSE, raw_labels
from ....models.syncanimation.rendering.camera import renderer_pose
from ...face.face import Landmarker
from ...face.face_tracking import NoFaceError
from ...face.landmarks import detect
from ...files.images import from_uint8
from ...syncanimation.avatar import Avatar
from ...syncanimation.conditions import predicted_expressions, predicted_poses
from ...syncanimation.person_model import PersonModel
from ...syncanimation.speech import SpeechPiece

MOUTH = slice(48, 68)
"""Of the 68 landmarks."""
LEAST_FACES = 3
"""Pairs of pictures whose lips are compared."""


def evaluate(
    model: PersonModel,
    avatar: Avatar,
    features: torch.Tensor,
    frames: Sequence[int],
    landmarker: Landmarker,
    lpips: LPIPS | None = None,
) -> dict[str, float]:
    """Metrics of frames that are rendered from their own speech, with their true poses and expressions.

    PSNR of whole pictures and of the face's rectangle; LMD, the mean distance in pixels of the mouth's landmarks (48 to
    67) from the true ones, each set about its middle; the correlation of the mouth's opening with the true one, and how
    much it moves in relation to that. Frames in which no face is found do not count in the last three. LPIPS where its
    network is given.
    `features` (N, C, S) are of all frames.
    """
    images, truths = [], []
    errors: dict[str, list[float]] = {"psnr": [], "face psnr": []}
    rects = avatar.rects(frames)["face"]
    for number, rect in zip(frames, rects, strict=True):
        image = render(model, features, number)
        truth = from_uint8(avatar.frames([number])[0])
        squared = (image - truth).square()
        errors["psnr"].append(float(squared.mean()))
        errors["face psnr"].append(float(squared[rect[0] : rect[1], rect[2] : rect[3]].mean()))
        images.append(image)
        truths.append(truth)
    metrics = {name: float(np.mean(-10 * np.log10(np.maximum(values, 1e-10)))) for name, values in errors.items()}
    if lpips is not None:
        pairs = zip(images, truths, strict=True)
        values = [lpips(*(each.movedim(-1, 0)[None] for each in pair)) for pair in pairs]
        metrics["lpips"] = float(torch.cat(values).mean())
    return metrics | lip_metrics(torch.stack(images), torch.stack(truths), landmarker)


@torch.no_grad()
def render(model: PersonModel, features: torch.Tensor, number: int) -> torch.Tensor:
    """A frame (S, S, 3) of the person's video, from its speech, true pose and true expression."""
    renderer = model.networks.renderer
    frame = renderer.render_frame(
        model.camera,
        renderer_pose(model.labels.c2w[number]),
        renderer.head.encode_audio(speech_windows(features, [number])),
        model.labels.expressions[number : number + 1],
        model.background / 255,
    )
    return frame.image


def lip_metrics(images: torch.Tensor, truths: torch.Tensor, landmarker: Landmarker) -> dict[str, float]:
    """Of pictures (n, S, S, 3) beside the true ones; none where too few pairs show a face."""
    try:
        tracks = [detect(pictures, landmarker, smoothing=0)[0] for pictures in (images, truths)]
    except NoFaceError:
        return {}
    both = tracks[0].found & tracks[1].found
    if both.sum() < LEAST_FACES:
        return {}
    mouths = [landmarks_68(track.points[both])[:, MOUTH] for track in tracks]
    centred = [points - points.mean(1, keepdims=True) for points in mouths]
    openings = [mouth_opening(track.points[both, :468, :2]) for track in tracks]
    return {
        "lmd": float(np.linalg.norm(centred[0] - centred[1], axis=-1).mean()),
        "mouth opening r": _correlation(openings[0], openings[1]),
        "mouth opening gain": float(openings[0].std() / max(openings[1].std(), 1e-9)),
    }


@torch.no_grad()
def evaluate_syncers(model: PersonModel, features: torch.Tensor, frames: np.ndarray) -> dict[str, float]:
    """Correlations, on `frames`, of what is predicted from their speech with the true poses and blinks.

    The head's is the mean of its three angles and three coordinates.
    """
    whole = SpeechPiece(0, len(features), 0, features)
    poses, expressions = predicted_poses(model, whole), predicted_expressions(model, whole)
    found = raw_labels(poses, expressions)[frames].numpy()
    true = raw_labels(model.labels.c2w, model.labels.expressions)[frames].numpy()
    each = [_correlation(one, other) for one, other in zip(found.T, true.T, strict=True)]
    return {"pose r": float(np.mean(each[:POSE])), "blink r": float(np.mean(each[POSE + BROWS :]))}


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """0 where one of both does not change."""
    spread = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread > 1e-12 else 0.0
