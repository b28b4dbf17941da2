"""Workers that draw whole frames: each with one thread, whatever torch has in the thread that starts them."""

from __future__ import annotations

import threading

import torch
from talking_portrait.pipelines.image.frame_workers import FrameWorkers


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
