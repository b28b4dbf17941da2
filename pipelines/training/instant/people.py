"""From recordings of speakers to weights of the driver: everybody's for the pack, or one person's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ....models.speech.mouth_network import MouthNetwork, save_mouth_network
from ...audio.mouth_weights import DEFAULT_WEIGHTS, open_mouth
from ...errors import TalkingPortraitError
from ...face.face import Landmarker
from ...files.output_paths import whole_file, writing
from ...person.person import Person
from ...progress import share
from ...types import Progress, no_progress
from .closures import learn_closures
from .fine_tune import Settings, agreement, fine_tune, validated
from .lips import SpokenLips
from .own_way import fit_own_way
from .speakers import Recording, of_person, of_video, spoken_lips
from .synthetic.corpus import Spoken

SHYER = 0.65
"""Taken after training from the logit of speech activity, so that lips rest half a second after speech which music
follows."""
OWN_STEPS = 80
"""For one person."""


@dataclass(frozen=True)
class Learned:
    """The network, and sentences about how it was made and how good it is."""

    network: MouthNetwork
    report: list[str]


def learn_person(
    recordings: Iterable[Recording],
    start: str | Path | MouthNetwork = DEFAULT_WEIGHTS,
    steps: int = OWN_STEPS,
    progress: Progress = no_progress,
) -> Learned:
    """One's own way of speaking: `start` with a last layer for recordings of one person (`fit_own_way`).

    Raises TalkingPortraitError for recordings without enough of a speaking face, and for less than one step.
    """
    _check_steps(steps)
    network = open_mouth(start)
    clips = [spoken_lips(recording, network, own=True) for recording in recordings]
    learned, part = fit_own_way(network, clips, steps, progress)
    before, after = agreement(network, clips), agreement(learned, clips)
    seconds = sum(float(clip.known.sum()) for clip in clips) / 50
    report = [
        f"{seconds:.0f} s of a speaking face, {steps} steps, of which {part:.0%} proved right on parts left out; "
        "correlation with all of it: "
        + ", ".join(f"{name} {before[name]:.2f} before and {after[name]:.2f} after" for name in after)
    ]
    return Learned(learned, report)


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise TalkingPortraitError(
            f"{steps} steps of training were requested, but at least 1 is expected; {OWN_STEPS} suit most people."
        )


def train_person_driver(
    source: Person | Path,
    out: Path,
    landmarker: Landmarker | None,
    *,
    steps: int = OWN_STEPS,
    progress: Progress = no_progress,
) -> Learned:
    """`learn_person` on a prepared person or the file of a video, which the `landmarker` is for; written to `out`."""
    _check_steps(steps)
    finding = 0.0 if isinstance(source, Person) else 0.6
    if isinstance(source, Person):
        recording = of_person(source)
    else:
        assert landmarker is not None
        recording = of_video(source, landmarker, share(progress, 0.0, finding))
    learned = learn_person([recording], DEFAULT_WEIGHTS, steps, share(progress, finding, 1.0))
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    save_driver(learned, out, "a recording of one person")
    return learned


def learn_speakers(
    recordings: Iterable[Recording],
    start: str | Path | MouthNetwork,
    settings: Settings,
    backgrounds: list[np.ndarray],
    corpus: Sequence[Spoken] = (),
    *,
    folds: int = 0,
    stage: Callable[[str], Progress],
) -> Learned:
    """Everybody's way of speaking: all layers of `start` but its encoder, from recordings of many speakers.

    Closures of the lips are learned from them and from the `corpus` of synthetic speech, with its acoustic bands.

    With `folds` groups of speakers that are left out in turn, the number of steps is that at which those are followed
    best; `settings.steps` is the most.
    """
    network = open_mouth(start)
    clips = [spoken_lips(recording, network, own=False) for recording in recordings]
    report = [f"{len(clips)} clips of {len({clip.speaker for clip in clips})} speakers, {_seconds(clips):.0f} s"]
    if folds:
        found = validated(network, clips, settings, folds, backgrounds, progress=stage("leaving speakers out"))
        report += [
            f"left-out speakers after {step} steps: " + ", ".join(f"{name} {value:.3f}" for name, value in row.items())
            for step, row in found.items()
        ]
        settings = replace(settings, steps=max(found, key=lambda step: sum(found[step].values())))
    learned = fine_tune(network, clips, settings, backgrounds, progress=stage("training"))
    learned = learn_closures(
        learned,
        clips,
        corpus,
        backgrounds,
        steps=settings.closure_steps,
        seed=settings.seed,
        progress=stage("closures"),
    )
    with torch.no_grad():
        assert learned.head.bias is not None
        learned.head.bias[-1] -= SHYER
    report.append(
        f"{settings.head_steps} steps of the head, {settings.steps} of all layers; closures also from "
        f"{len(corpus)} utterances of synthetic speech"
    )
    return Learned(learned, report)


def save_driver(learned: Learned, path: Path, data: str) -> None:
    """Writes the weights as the driver reads them; `data` says what they were learned on."""
    notes = {"data": data, "training": "; ".join(learned.report), "licence": "Apache-2.0"}
    with whole_file(path) as partial:
        save_mouth_network(learned.network, partial, notes)


def _seconds(clips: list[SpokenLips]) -> float:
    return sum(float(clip.known.sum()) for clip in clips) / 50
