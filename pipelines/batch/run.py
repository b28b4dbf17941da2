"""Runs the jobs of a batch, here or on Ray: what is done already is passed over, what fails is tried once more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import TalkingPortraitError, is_out_of_memory, one_line
from ..files.output_paths import replacing, writing
from ..python_api import animate
from ..types import Progress, no_progress
from .manifest import Job

RESULTS = "batch.json"
ROUNDS = 2

Workers = Callable[[Sequence[Job]], Iterator[tuple[Job, str]]]
"""Runs jobs in any order; yields each when it has ended, with why it failed, or an empty text."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job: "done" now, "there" from before, or "failed" and `error` says why."""

    job: Job
    state: str
    error: str = ""


def render(job: Job) -> str:
    """Makes a job's video; returns why it can't be made, or an empty text. An existing file is left as it is."""
    if job.target.exists():
        return ""
    try:
        animate(job.portrait, job.audio, job.target, renderer=job.renderer, **job.settings)
    except Exception as error:
        if is_out_of_memory(error):
            return "This needs more memory than there is."
        return str(error) if isinstance(error, TalkingPortraitError) else one_line(f"{type(error).__name__}: {error}")
    return ""


def here(jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
    """`Workers`: one job after the other in this process."""
    for job in jobs:
        yield job, render(job)


def run_batch(
    jobs: Sequence[Job],
    out: Path,
    workers: Workers = here,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = no_progress,
) -> list[Outcome]:
    """Runs the jobs and writes batch.json, with every job's outcome, into the existing folder `out` after each.

    A job whose file is there is done: its name says what it is made from, and it appears only when it is complete.
    `say` gets a line about each failure after which the job is tried again.
    """
    outcomes = {job.target: Outcome(job, "there") for job in jobs if job.target.exists()}
    for tries in range(1, ROUNDS + 1):
        left = [job for job in jobs if outcomes.get(job.target, Outcome(job, "failed")).state == "failed"]
        for job, error in workers(left):
            outcomes[job.target] = Outcome(job, "failed" if error else "done", error)
            if error and tries < ROUNDS:
                say(f"line {job.numbers[0]} failed and is tried once more: {error}")
            _write(out, outcomes)
            progress(sum(outcome.state != "failed" for outcome in outcomes.values()), len(jobs))
    _write(out, outcomes)
    return [outcomes[job.target] for job in jobs]


def _write(out: Path, outcomes: dict[Path, Outcome]) -> None:
    rows = [
        {
            "lines": list(outcome.job.numbers),
            "video": outcome.job.target.name,
            "state": outcome.state,
            "error": outcome.error or None,
        }
        for outcome in sorted(outcomes.values(), key=lambda outcome: outcome.job.numbers)
    ]
    with writing(out / RESULTS), replacing(out / RESULTS) as partial:
        partial.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
