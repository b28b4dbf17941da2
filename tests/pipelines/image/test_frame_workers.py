"""Workers that draw whole frames: each with one thread, whatever torch has in the thread that starts them."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import CancelledError

import pytest
import torch
from talking_portrait.pipelines.image.frame_workers import FrameWorkers, WorkerThreads
from talking_portrait.pipelines.progress import result_of


def test_each_worker_uses_one_thread_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with FrameWorkers(torch.device("cpu")) as workers:
            together = threading.Barrier(workers.size, timeout=60)

            def threads() -> int:
                together.wait()  # so that each worker answers once
                torch.ones(1 << 18).sqrt()  # an operation that is divided where it may be
                return torch.get_num_threads()

            assert [asked.result() for asked in [workers.submit(threads) for _ in range(workers.size)]] == [1, 1, 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_threads_end_with_their_owner_and_what_had_not_begun_is_cancelled():
    threads = WorkerThreads(1, "tested")
    begun, go_on = threading.Event(), threading.Event()

    def work() -> threading.Thread:
        begun.set()
        go_on.wait(60)
        return threading.current_thread()

    first, second = threads.submit(work), threads.submit(work)
    begun.wait(60)
    threading.Timer(0.05, go_on.set).start()
    del threads
    gc.collect()
    first.result(60).join(60)
    assert not first.result().is_alive()
    with pytest.raises(CancelledError):
        result_of(second)


def test_a_waiting_thread_holds_nothing_of_what_it_did():
    threads = WorkerThreads(1, "tested")
    given = torch.zeros(3)
    gone = weakref.ref(given)
    assert threads.submit(lambda tensor: tensor + 1, given).result(60).sum() == 3
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda tensor: 1 / 0, given).result(60)
    threads.submit(lambda: None).result(60)
    del given
    gc.collect()
    assert gone() is None
    threads.close()
