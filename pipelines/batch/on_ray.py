"""Workers of a batch on Ray: one replica for each graphics card, or for a share of one."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..errors import TalkingPortraitError, one_line, quoted, reason_of
from ..packages import first_line, pip_install
from .manifest import Job
from .run import Failure, Workers, render

LOCAL = "local"
"""In place of an address: a cluster of this machine that ends with the batch."""
SECONDS_TO_ANSWER = 10
"""For a connection to an address. Ray itself tries for five minutes, without a word."""


def ray_workers(address: str = LOCAL, *, gpus: float | None = None, replicas: int | None = None) -> Workers:
    """`Workers` on the cluster at `address`.

    Each job takes `gpus` graphics cards, by default one where the cluster has any; `replicas` limits the jobs at once.
    All machines need this program, and the inputs and the folder for results under the same paths. A job whose worker
    dies is tried again as others are. Raises TalkingPortraitError without Ray, for an address that does not
    answer, and for more cards than the cluster has.
    """
    if gpus is not None and not 0 <= gpus < math.inf:
        raise TalkingPortraitError(f"The share of graphics cards is {gpus:g}, but 0 or more is expected.")
    if replicas is not None and replicas < 1:
        raise TalkingPortraitError(f"The number of replicas is {replicas}, but 1 or more is expected.")
    ray = _package()
    _check_address(address)
    try:
        if not ray.is_initialized():
            # Without a word Ray goes to a cluster that was here before, or to RAY_ADDRESS, and waits for minutes.
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray has many for a cluster that is not there
        raise TalkingPortraitError(
            f"The Ray cluster {address} can't be used ({first_line(error)}); start it with `ray start --head`, or give "
            "its address."
        ) from None
    there = float(ray.cluster_resources().get("GPU", 0))
    share = (1.0 if there else 0.0) if gpus is None else gpus
    if share > there:
        raise TalkingPortraitError(
            f"Each replica is to have {share:g} graphics cards, but the Ray cluster has {there:g}; give a smaller "
            "share."
        )
    task = ray.remote(render).options(num_cpus=1, num_gpus=share, max_retries=0)

    def run(jobs: Sequence[Job]) -> Iterator[tuple[Job, Failure | None]]:
        waiting = list(jobs)
        running: dict[Any, Job] = {}
        while waiting or running:
            while waiting and (replicas is None or len(running) < replicas):
                job = waiting.pop(0)
                running[task.remote(job)] = job
            ended, _ = ray.wait(list(running), num_returns=1, timeout=1)
            for reference in ended:
                job = running.pop(reference)
                try:
                    yield job, ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = f"its worker ended before it was done ({one_line(first_line(error))})"
                    yield job, Failure(reason, may_pass=True)

    return run


def _check_address(address: str) -> None:
    """Raises TalkingPortraitError for an address HOST:PORT or ray://HOST:PORT at which nothing answers."""
    if address in (LOCAL, "auto"):  # "auto" is Ray's word for a cluster that this machine belongs to
        return
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        if not place.hostname or not place.port:
            raise ValueError
    except ValueError:  # also for a port that is no number
        raise TalkingPortraitError(
            f"The address of the Ray cluster is {quoted(address)}, but HOST:PORT, ray://HOST:PORT or auto is expected; "
            "`ray status` shows it where the cluster runs."
        ) from None
    try:
        socket.create_connection((place.hostname, place.port), SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise TalkingPortraitError(
            f"Nothing answers at {quoted(address)}, where the Ray cluster was expected ({reason_of(error)}); start it "
            "with `ray start --head`, or correct its address."
        ) from None


def _package() -> Any:
    try:
        import ray

        return ray
    except ImportError as error:
        raise TalkingPortraitError(f"--ray needs Ray ({error}); run: {pip_install('ray')}") from None
