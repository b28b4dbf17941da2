"""Runs the jobs of a batch, here or on Ray: done ones are passed over, what may succeed later is tried once more."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import TalkingPortraitError, is_out_of_memory, one_line
from ..files.output_paths import whole_file
from ..python_api import animate
from ..types import Progress, no_progress
from .manifest import Job

RESULTS = "batch.json"
ROUNDS = 2
OF_THE_ROW = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
"""Error numbers of files that are not there or are folders; Pillow's errors about damaged pictures have none."""


@dataclass(frozen=True)
class Failure:
    """Why a job has no video, in a sentence, and whether the same job may have one another time."""

    reason: str
    may_pass: bool


Workers = Callable[[Sequence[Job]], Iterator[tuple[Job, Failure | None]]]
"""Runs jobs in any order; yields each when it has ended, with why it failed if it did."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job: "done" now, "there" from before, or "failed" for what `failure` says."""

    job: Job
    state: str
    failure: Failure | None = None

    @property
    def error(self) -> str:
        return self.failure.reason if self.failure else ""


def render(job: Job) -> Failure | None:
    """Makes a job's video; returns why it can't be made, if so. An existing file is left as it is."""
    if job.target.exists():
        return None
    try:
        animate(job.portrait, job.audio, job.target, renderer=job.renderer, **job.settings)
    except Exception as error:
        if is_out_of_memory(error):
            return Failure("This needs more memory than there is.", may_pass=True)
        if isinstance(error, TalkingPortraitError):
            return Failure(str(error), _may_pass(error))
        return Failure(one_line(f"{type(error).__name__}: {error}"), may_pass=True)
    return None


def _may_pass(error: TalkingPortraitError) -> bool:
    """Whether the machine refused something, such as room on a disk, and not what the row names is wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if is_out_of_memory(cause) or (isinstance(cause, OSError) and cause.errno not in OF_THE_ROW):
            return True
        cause = cause.__cause__ or cause.__context__  # the second is there after `from None` too
    return False


def here(jobs: Sequence[Job]) -> Iterator[tuple[Job, Failure | None]]:
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
    What may succeed another time is tried once more; a row's own mistakes stay. `say` gets a line about each failure.
    """
    outcomes = {job.target: Outcome(job, "there") for job in jobs if job.target.exists()}
    left = [job for job in jobs if job.target not in outcomes]
    for tries in range(1, ROUNDS + 1):
        for job, failure in workers(left):
            outcomes[job.target] = Outcome(job, "failed" if failure else "done", failure)
            if failure:
                again = " and is tried once more" if failure.may_pass and tries < ROUNDS else ""
                say(f"line {job.numbers[0]} failed{again}: {failure.reason}")
            _write(out, outcomes)
            progress(sum(outcome.state != "failed" for outcome in outcomes.values()), len(jobs))
        left = [job for job in left if (failure := outcomes[job.target].failure) and failure.may_pass]
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
    with whole_file(out / RESULTS) as partial:
        partial.write_text(
            json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace"
        )
