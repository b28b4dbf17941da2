"""Fitting a face to a person: seconds beside the published schedule, for the same landmark and photometric error.

    python -m tests.bench.audiodvp_fit --person build/audiodvp/person --minutes 10
    python -m tests.bench.audiodvp_fit --person build/audiodvp/person --frames 16 --epochs 60

Ours is the whole fit that `person prepare` ends with, the making of its face model included. The published schedule (a
ResNet-50, 20 epochs in batches of five, Adam) gets that face model, colours and all, and is stopped when it has come as
near, or after `--minutes`; what all of it would take follows from its speed. With `--frames` both get a piece of the
video only, on which the schedule comes to its end; more epochs than published then show how it goes on. Its weights are
random here: VGGFace2's can't be had, so how near it comes counts for less than how long a step takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from talking_portrait.models.audiodvp.expression_regressor import ExpressionRegressor, ExpressionRegressorConfig
from talking_portrait.models.audiodvp.face_model import Coefficients, FaceModel
from talking_portrait.pipelines.audiodvp.fit import fit_face
from talking_portrait.pipelines.audiodvp.fitted_face import FOLDER
from talking_portrait.pipelines.audiodvp.morphable.coefficients import LANDMARKS_68, PUBLISHED_SIZE, landmarks_of
from talking_portrait.pipelines.audiodvp.morphable.regressor import BATCH, EPOCHS, read_crops, regress, train_regressor
from talking_portrait.pipelines.person.person import Person, open_person

LOOK_SECONDS = 20
MEASURED = 20
"""Frames, evenly spaced, or all of a shorter piece."""


class EnoughError(Exception):
    """The time is over."""


def piece(person: Person, frames: int) -> Person:
    """The person with so many usable frames in the middle, all of them for 0."""
    if not frames:
        return person
    start = (person.frames - frames) // 2
    numbers = np.arange(person.frames)
    return replace(person, usable=person.usable & (numbers >= start) & (numbers < start + frames))


def errors(model: FaceModel, person: Person, coefficients: Callable[[np.ndarray], Coefficients]) -> dict[str, float]:
    """Mean distance of the 68 landmarks in pixels of 256, and mean square of colours in 0..1 within the face."""
    known = np.flatnonzero(person.usable)
    frames = known[np.linspace(0, len(known) - 1, min(MEASURED, len(known))).astype(int)]
    with torch.no_grad():
        drawn = model.render(coefficients(frames), (PUBLISHED_SIZE, PUBLISHED_SIZE))
    crops = read_crops(person, frames)
    inside = drawn.alpha.expand_as(crops) > 0.5
    return {
        "landmark pixels": float((drawn.landmarks - landmarks_of(person)[frames]).norm(dim=-1).mean()),
        "photometric": float((drawn.image - crops)[inside].square().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--person", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--frames", type=int, default=0, help="of the video that both get, from its middle; 0 for all")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "person"
        shutil.copytree(options.person, folder, ignore=shutil.ignore_patterns(FOLDER))
        person = piece(open_person(folder), options.frames)
        begun = time.process_time()
        face = fit_face(person)
        ours = time.process_time() - begun
        model = replace(face.face_model, landmark_index=torch.tensor(LANDMARKS_68))
        reached = errors(model, person, face.coefficients)
        print(json.dumps({"ours": reached, "seconds": ours}), flush=True)

        torch.manual_seed(0)
        network = ExpressionRegressor(
            ExpressionRegressorConfig(
                expressions=model.exp_base.shape[1],
                identities=model.id_base.shape[1],
                textures=model.tex_base.shape[1],
            )
        )
        begun, looks = time.process_time(), 0.0
        done = last = 0

        def progress(step: int, steps: int, *_: object) -> None:
            nonlocal done, last, looks
            done, seconds = step, time.process_time() - begun - looks
            if seconds < LOOK_SECONDS * (last + 1) and step not in (steps, steps * EPOCHS // options.epochs):
                return
            last, look = last + 1, time.process_time()
            network.eval()
            now = errors(model, person, lambda frames: regress(network, read_crops(person, frames)))
            network.train()
            looks += time.process_time() - look
            whole = seconds / step * steps
            print(
                json.dumps({"step": step, "seconds": seconds, **now, "all": whole, "times": whole / ours}), flush=True
            )
            near = all(now[name] <= reached[name] for name in reached)
            if near or seconds > 60 * options.minutes:
                raise EnoughError

        try:
            train_regressor(person, model, network, epochs=options.epochs, progress=progress)
        except EnoughError:
            print(f"stopped after {done} of {options.epochs * (int(person.usable.sum()) // BATCH)} steps")


if __name__ == "__main__":
    main()
