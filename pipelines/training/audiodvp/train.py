"""A person's AudioDVP: both networks trained one after the other, and one file made of them.

RUN/run.json               what the run is set to
RUN/expression/            the network from speech to expression: checkpoints, log, picture, the network
RUN/renderer/              the neural renderer, likewise
RUN/held_out.json          how good both are on the part of the video that they were not trained on
RUN/person.safetensors     the model
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ....models.audiodvp.discriminator import Discriminator
from ....models.audiodvp.loading import build_neural_renderer
from ....models.audiodvp.neural_renderer import NeuralRenderer, initialise
from ....models.audiodvp.speech_to_expression import build_speech_to_expression, new_speech_to_expression
from ....models.checkpoints import read_checkpoint
from ...audiodvp.expression import network_features
from ...audiodvp.fitted_face import FittedFace
from ...audiodvp.person_model import PersonModel, open_model
from ...files.output_paths import as_path, whole_file
from ...person.head_video import HeadVideo
from ...person.person import open_person
from ...progress import shared_out
from ...types import Progress, no_progress
from ..core.loop import LOG, seed_everything, train
from ..core.loss_curve import with_loss_curve
from ..core.person_settings import split, write_metrics
from ..core.processes import Processes
from ..core.run_settings import begun_settings, read_settings, say_what_stays, write_settings
from ..core.timed_steps import steps_in
from .expression import (
    ExpressionTrainer,
    SpokenExpressions,
    calibrate,
    coefficient_movement,
    evaluate_expression,
    with_linear,
)
from .renderer import GENERATOR, LowerFaces, NeuralRendererTrainer, evaluate_renderer, lower_face_part
from .settings import Settings

MODEL = "person.safetensors"
EXPRESSION, RENDERER = "speech to expression", "neural renderer"
PROGRESS = {EXPRESSION: 0.05, RENDERER: 0.95}
"""What is trained, in order, with its part of the time, about."""
Stage = Callable[[str], Progress]
"""From what is trained to what its progress goes to."""
MEASURED_FRAMES = 100
"""Frames of the held-out part, spread over it, that the renderer is measured on."""


def train_audiodvp(
    person_folder: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    stage: Stage = lambda label: no_progress,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Trains both networks on a prepared person in the folder `out`; returns the model file.

    A run that was interrupted or killed goes on with `resume` from its last checkpoint, with the settings that it began
    with; only a number of steps that is given takes the place of its own. `say` gets a line for each figure measured.

    Raises TalkingPortraitError for a person that is unfinished or without speech, a folder with a run that is not to go
    on, and as `core.loop.train`.
    """
    out = as_path(out, "folder of the training")
    person = open_person(person_folder)
    face = FittedFace.read(person.folder)
    speech, encoder = person.speech(), person.mouth_encoder()
    settings = _begin(out, settings or Settings(), resume, person.fingerprint, say)
    features = network_features(speech)
    training, held_out = split(person, person.usable, settings.held_out)

    seed_everything(settings.seed, 0)
    network = new_speech_to_expression(settings.expression, features.shape[1], face.expression.shape[1])
    usable = np.zeros(person.frames, dtype=bool)
    usable[training] = True
    network.fit_scales(features[training], face.expression[training])
    expressions = SpokenExpressions(features, face.expression, usable, settings.seed)
    trainer = ExpressionTrainer(network, coefficient_movement(face.face_model, network.scale))
    files = train(
        trainer,
        expressions,
        settings.expression_plan(),
        out / "expression",
        resume=resume,
        progress=stage(EXPRESSION),
    )

    config = settings.renderer_config(person.crop_size)
    with Processes() as processes:
        drawn = face.to(processes.device)
    part = lower_face_part(drawn, np.concatenate([training, held_out]), 2**config.downs)
    faces = LowerFaces(person, drawn, training.tolist(), part, settings.seed, flip=settings.flip)
    seed_everything(settings.seed, 1)
    network_of_faces = NeuralRenderer(config)
    discriminator = Discriminator() if settings.gan == "on" else None
    renderer = NeuralRendererTrainer(network_of_faces, discriminator)
    initialise(renderer)
    if not settings.steps:
        settings = replace(settings, steps=steps_in(settings.minutes, renderer, faces, settings.renderer_plan()))
        write_settings(out, settings, person.fingerprint)
    files |= train(
        renderer,
        faces,
        settings.renderer_plan(),
        out / "renderer",
        resume=resume,
        progress=stage(RENDERER),
    )
    if not files:  # one of several processes, of which the first has written them
        return out / MODEL
    speaking = build_speech_to_expression(
        read_checkpoint(files["expression"]), network.config, path=files["expression"]
    )
    speaking = with_linear(speaking, features, face.expression, training)
    calibrate(speaking, face.face_model, features, face.expression, training)
    drawing = build_neural_renderer(read_checkpoint(files["renderer"]), path=files["renderer"])
    model = PersonModel(speaking, drawing, face, HeadVideo.of_person(person), speech.model, part, encoder)
    if len(held_out):
        _measure(model, features, faces, held_out, out, say)
    with whole_file(out / MODEL) as partial:
        model.save(partial)
    return out / MODEL


def trained_model(
    person_folder: str | Path,
    out: str | Path,
    settings: Settings,
    *,
    progress: Progress = no_progress,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[PersonModel, Path]:
    """The model that is trained in the folder `out`, or was there before, and its file; see `train_audiodvp`.

    More minutes than before go on with a finished run, for as many more steps.
    """
    before = read_settings(Path(out), Settings)
    if before is not None and not settings.steps and settings.minutes > before.minutes:
        settings = replace(settings, steps=round(before.steps * settings.minutes / before.minutes))
    reports = shared_out(progress, PROGRESS)
    parts = {
        EXPRESSION: with_loss_curve(reports[EXPRESSION], Path(out) / "expression" / LOG),
        RENDERER: with_loss_curve(reports[RENDERER], Path(out) / "renderer" / LOG, GENERATOR),
    }
    path = train_audiodvp(person_folder, out, settings, resume=True, stage=parts.__getitem__, say=say)
    return open_model(path), path


def _begin(out: Path, given: Settings, resume: bool, video: str, say: Callable[[str], None]) -> Settings:
    """The settings of the run in the folder `out`, which are written down where it begins."""
    before = begun_settings(out, Settings, MODEL, video, resume=resume)
    if before is not None:
        say_what_stays(before, given, ("steps", "minutes"), say)
        settings = replace(before, steps=given.steps, minutes=given.minutes) if given.steps else before
    else:
        with Processes() as processes:
            settings = given.resolved(processes.device)
    write_settings(out, settings, video)
    return settings


def _measure(
    model: PersonModel,
    features: torch.Tensor,
    faces: LowerFaces,
    held_out: np.ndarray,
    out: Path,
    say: Callable[[str], None],
) -> None:
    """Writes the metrics of both networks on the frames that they were not trained on."""
    chosen = held_out[:: max(1, len(held_out) // MEASURED_FRAMES)]
    metrics = evaluate_expression(
        model.speech_to_expression, model.face.face_model, features, model.face.expression, held_out
    )
    metrics |= evaluate_renderer(model.renderer, faces, chosen.tolist())
    write_metrics(out, metrics, say)
