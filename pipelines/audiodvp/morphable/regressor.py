"""A morphable model fitted as published: a ResNet-50 is trained on the person's video to give the coefficients.

It takes hours on a CPU, where `coefficients.solve` takes seconds. What differs from the published program: once
trained, the network is run with the running statistics of its batch norms, over all frames in their order, where that
one saves what batches of five random frames give, and loses the last of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ....models.audiodvp.expression_regressor import CHANNEL_MEANS, ExpressionRegressor, ExpressionRegressorConfig
from ....models.audiodvp.face_model import Coefficients, FaceModel, load_face_model
from ....models.audiodvp.loading import load_pretrained_regressor
from ....models.audiodvp.losses import fit_loss, landmark_loss, landmark_weights, photometric_loss
from ...errors import TalkingPortraitError
from ...files.output_paths import as_path
from ...person.over_frames import between_known
from ...person.person import Person
from ...types import Progress, no_progress
from ..fitted_face import FittedFace
from ..person_shape import wide_open
from .coefficients import PUBLISHED_SIZE, landmarks_of, openings_of
from .regressor_checkpoint import RegressorCheckpoint

EPOCHS, BATCH = 20, 5
RATE, SHARED_RATE, BETAS = 2e-5, 1e-3, (0.5, 0.999)
"""Of the network, and of the identity and the texture that all frames share."""
INPUT_SIZE = 224
SAVE_EVERY = 100
"""Steps between two checkpoints: some minutes on a CPU."""


def load_models(
    face_model: str | Path | None, regressor: str | Path | None
) -> tuple[FaceModel | None, ExpressionRegressor | None]:
    """A face model, and a network to fit it with, from their files.

    Raises TalkingPortraitError for files of something else, and for a regressor without a face model.
    """
    if regressor is not None:
        regressor = as_path(regressor, "regressor")
    if face_model is None and regressor is not None:
        raise TalkingPortraitError(
            f"{regressor.name} is to fit a face model, but none is given; give one that person face-model wrote."
        )
    if face_model is None:
        return None, None
    model = load_face_model(as_path(face_model, "face model"))
    if regressor is None:
        return model, None
    bases = (model.exp_base, model.id_base, model.tex_base)
    expressions, identities, textures = (basis.shape[1] for basis in bases)
    config = ExpressionRegressorConfig(expressions=expressions, identities=identities, textures=textures)
    return model, load_pretrained_regressor(regressor, config)


def train_regressor(
    person: Person,
    model: FaceModel,
    network: ExpressionRegressor,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    save_every: int = SAVE_EVERY,
    progress: Progress = no_progress,
) -> None:
    """The published schedule; every number of it is the published one.

    The network has as many coefficients of each kind as the face model. `progress` is called after each step and may
    raise to stop, which leaves the network as it is then. A training that was stopped or killed goes on from its last
    checkpoint in the person's folder; that of another face model, network or schedule is begun anew.

    Raises TalkingPortraitError for a folder that can't be written, which leaves the checkpoint before.
    """
    known, wanted = np.flatnonzero(person.usable), landmarks_of(person)
    shared = [network.alpha, network.beta]
    own = [weight for name, weight in network.named_parameters() if name not in ("alpha", "beta")]
    optimiser = torch.optim.Adam([{"params": own, "lr": RATE}, {"params": shared, "lr": SHARED_RATE}], betas=BETAS)
    weights = landmark_weights()
    steps = max(1, len(known) // BATCH)
    checkpoint = RegressorCheckpoint.of(person, model, network, f"{epochs} {seed} {steps}")
    begun = checkpoint.restore(network, optimiser)
    network.train()
    for epoch in range(begun // steps, epochs):
        order = np.random.default_rng([seed, epoch]).permutation(known)
        for step in range(begun - epoch * steps if epoch == begun // steps else 0, steps):
            frames = order[step * BATCH : (step + 1) * BATCH]
            crops = read_crops(person, frames)
            face = regress(network, crops)
            drawn = model.render(face, (PUBLISHED_SIZE, PUBLISHED_SIZE))
            mask = drawn.alpha.detach()
            loss = fit_loss(
                photometric_loss(drawn.image, crops * mask),
                landmark_loss(drawn.landmarks, wanted[frames], weights),
                network.alpha,
                network.beta,
                face.delta,
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            done = epoch * steps + step + 1
            if done % save_every == 0 or done == epochs * steps:
                checkpoint.save(network, optimiser, done)
            progress(done, epochs * steps)


@torch.no_grad()
def regressed_face(person: Person, model: FaceModel, network: ExpressionRegressor) -> FittedFace:
    """What a trained network gives for all frames, with the texture that it was trained with."""
    known = np.flatnonzero(person.usable)
    network.eval()
    rows = [
        torch.cat([face.delta, face.gamma, face.rotation, face.translation], 1)[..., 0]
        for face in (regress(network, read_crops(person, frames)) for frames in _batches(known))
    ]
    every = np.zeros((person.frames, rows[0].shape[1]))
    every[known] = torch.cat(rows).numpy()
    values = torch.from_numpy(between_known(every, known)).float()
    expression, light, rotation, translation = values.split([network.config.expressions, 27, 3, 3], 1)
    colours = (model.tex_mean + model.tex_base @ network.beta[0]).detach()
    opened = wide_open(openings_of(person, known), expression.numpy()[known])
    return FittedFace(
        face_model=replace(model, tex_mean=colours, tex_base=torch.zeros(len(colours), 0)),
        identity=network.alpha[0, :, 0].detach().expand(person.frames, -1).clone(),
        expression=expression.contiguous(),
        rotation=rotation.contiguous(),
        translation=translation.contiguous(),
        light=light.contiguous(),
        opened=torch.from_numpy(opened).float(),
        crop_size=person.crop_size,
    )


def _batches(known: np.ndarray, size: int = 32) -> Iterator[np.ndarray]:
    return (known[start : start + size] for start in range(0, len(known), size))


def read_crops(person: Person, frames: np.ndarray) -> torch.Tensor:
    """The crops of these frames, (n, 3, 256, 256) in 0..1."""
    crops = torch.from_numpy(person.crops(frames)).permute(0, 3, 1, 2).float() / 255
    if person.crop_size != PUBLISHED_SIZE:
        crops = F.interpolate(crops, (PUBLISHED_SIZE, PUBLISHED_SIZE), mode="bilinear", antialias=True)
    return crops


def regress(network: ExpressionRegressor, crops: torch.Tensor) -> Coefficients:
    """The coefficients of pictures (n, 3, 256, 256) in 0..1."""
    pictures = F.interpolate(crops, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True)
    frame = network(pictures - pictures.new_tensor(CHANNEL_MEANS)[:, None, None])
    return Coefficients(network.alpha, frame.delta, network.beta, frame.gamma, frame.rotation, frame.translation)
