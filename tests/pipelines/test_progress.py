from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch
from talking_portrait.models.diffusion.attention import DotProductAttention
from talking_portrait.pipelines import memory
from talking_portrait.pipelines.files.example import example_portrait, example_track
from talking_portrait.pipelines.files.ffmpeg import Ffmpeg
from talking_portrait.pipelines.files.video import VideoWriter
from talking_portrait.pipelines.image.frame_workers import FrameWorkers, read_ahead
from talking_portrait.pipelines.instant.animate import fit_portrait, prepare_portrait
from talking_portrait.pipelines.progress import (
    check_between_layers,
    check_interrupted,
    interruptible,
    result_of,
)
from torch.nn import functional


class CancelledError(Exception):
    """A host's own."""


class Cancelling:
    """A check that raises from its `number`th call on, once; hosts forget a cancelling that has been raised."""

    def __init__(self, number: int = 1) -> None:
        self.number, self.calls = number, 0
        self._counting = threading.Lock()

    def __call__(self) -> None:
        with self._counting:
            self.calls += 1
            cancelled = self.calls == self.number
        if cancelled:
            raise CancelledError


def test_a_check_raises_within_the_run_and_nowhere_else():
    check_interrupted()
    with interruptible(Cancelling(2)):
        check_interrupted()
        with pytest.raises(CancelledError):
            check_interrupted()
    outer = Cancelling()
    with interruptible(outer), interruptible(lambda: None), pytest.raises(CancelledError):
        check_interrupted()
    check_interrupted()
    assert outer.calls == 1


def test_waiting_for_another_thread_ends_at_once():
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as pool, interruptible(Cancelling(2)):
        waiting = pool.submit(go_on.wait, 60)
        try:
            with pytest.raises(CancelledError):
                result_of(waiting)
        finally:
            go_on.set()
        assert result_of(waiting)


def test_a_network_stops_between_its_layers_and_is_left_as_it_was():
    network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(5)))
    passed: list[int] = []
    for number, layer in enumerate(network):
        layer.register_forward_hook(lambda *_, number=number: passed.append(number))
    hooks = [len(layer._forward_pre_hooks) for layer in network.modules()]
    with interruptible(Cancelling(4)):
        for _ in range(2):  # a network is loaded before each of its runs
            memory.loaded(memory.Resident(network), torch.nn.Sequential)
        with pytest.raises(CancelledError):
            network(torch.zeros(1, 2))
    assert passed == [0, 1]
    assert [len(layer._forward_pre_hooks) for layer in network.modules()] == hooks
    network(torch.zeros(1, 2))
    check_between_layers(network)
    assert [len(layer._forward_pre_hooks) for layer in network.modules()] == hooks, "without a run nothing is added"


@pytest.mark.parametrize(
    ("layer", "shape", "checks"),
    [
        (torch.nn.Conv2d(4, 3, 3, padding=1), (5, 4, 9, 8), 3),
        (torch.nn.Conv2d(4, 3, (5, 3), padding=(4, 2), dilation=(2, 2)), (2, 4, 41, 6), 12),
        (torch.nn.Conv2d(4, 3, 3, stride=2), (3, 4, 40, 8), 2),
        (torch.nn.Conv2d(4, 3, 1), (1, 4, 40, 8), 0),
        (DotProductAttention(), (5, 2, 7, 4), 3),
        (DotProductAttention(), (2, 2, 30, 4), 4),
    ],
)
def test_a_large_layer_stops_between_its_parts_and_computes_the_same(layer, shape, checks, monkeypatch):
    monkeypatch.setattr("talking_portrait.pipelines.progress.PART", 20000)
    monkeypatch.setattr(DotProductAttention, "PART", 16 * 15 * shape[2])
    inputs = [torch.randn(shape) for _ in range(3 if isinstance(layer, DotProductAttention) else 1)]
    network = torch.nn.ModuleList([layer, torch.nn.Linear(1, 1)])
    whole = functional.scaled_dot_product_attention(*inputs) if len(inputs) > 1 else layer(*inputs)
    counted = Cancelling(-1)
    with interruptible(counted):
        check_between_layers(network)
        torch.testing.assert_close(layer(*inputs), whole)
    assert counted.calls == checks + 1
    assert "forward" not in vars(layer)


def test_attention_over_a_large_pictures_pixels_stops_between_its_parts_and_computes_the_same(monkeypatch):
    """ComfyUI's VAE has it as a function of its layer."""

    def whole(queries, keys, values):
        scores = torch.einsum("bchw,bcxy->bhwxy", queries, keys) / queries.shape[1] ** 0.5
        weights = scores.flatten(3).softmax(-1).unflatten(3, keys.shape[2:])
        return torch.einsum("bhwxy,bcxy->bchw", weights, values)

    network = torch.nn.Sequential(torch.nn.Linear(1, 1))
    network[0].optimized_attention = whole
    maps = [torch.randn(2, 8, 6, 5) for _ in range(3)]
    counted = Cancelling(-1)
    monkeypatch.setattr(DotProductAttention, "PART", 2 * 8 * 30 * 7)
    with interruptible(counted):
        check_between_layers(network)
        network[0].optimized_attention(*maps)
        assert not counted.calls  # small ones are left alone
        monkeypatch.setattr("talking_portrait.pipelines.progress.PART", 20000)
        torch.testing.assert_close(network[0].optimized_attention(*maps), whole(*maps))
    assert counted.calls == 2 * 5 + 1
    assert network[0].optimized_attention is whole


def test_layers_of_another_device_are_only_queued_and_not_delayed_by_checks():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2, device="meta"))
    with interruptible(Cancelling()):
        check_between_layers(network)
        assert not network[0]._forward_pre_hooks


def test_workers_stop_where_they_are_when_the_run_is_cancelled():
    left, began = [], threading.Event()

    def work(_: int) -> None:
        began.set()
        while True:
            try:
                check_interrupted()
            except BaseException as error:
                left.append(type(error))
                raise

    check = Cancelling(500)
    with interruptible(check), pytest.raises(CancelledError), FrameWorkers(torch.device("cpu")) as workers:
        workers.map(work, range(3))
    assert CancelledError in left, "a worker calls the run's own check"
    began.clear()

    def failing() -> None:
        with FrameWorkers(torch.device("cpu")) as workers:
            workers.submit(work, 0)
            began.wait(60)
            raise ValueError("another")

    with pytest.raises(ValueError, match="another"):
        failing()


def test_what_is_read_ahead_checks_in_its_thread():
    def items():
        yield 1
        check_interrupted()
        yield 2

    with interruptible(Cancelling()):
        ahead = read_ahead(items())
        with pytest.raises(CancelledError):
            list(ahead)


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_preparing_a_portrait_stops_at_each_of_many_checks(part):
    image, track = fit_portrait(example_portrait()[0], example_track(), 128)
    counted = Cancelling(-1)
    with interruptible(counted):
        prepare_portrait(image, track)
    assert counted.calls > 50
    check = Cancelling(1 + round(part * (counted.calls - 1)))
    with interruptible(check), pytest.raises(CancelledError):
        prepare_portrait(image, track)
    assert check.calls == check.number


@pytest.mark.parametrize("written", [0, 2, 6])
def test_encoding_stops_between_frames_and_while_the_last_ones_are_encoded(tmp_path, monkeypatch, written):
    if written == 6:  # all frames are written, and ffmpeg does not end
        monkeypatch.setattr("talking_portrait.pipelines.files.ffmpeg.WAIT_SECONDS", 1e-4)
    path = tmp_path / "video.mp4"
    check = Cancelling(written + 1)
    with interruptible(check), pytest.raises(CancelledError), VideoWriter(path, (512, 512), Fraction(25)) as video:
        video.write(np.random.default_rng(0).integers(0, 255, (6, 512, 512, 3), dtype=np.uint8))
    assert video.frames == written
    assert list(tmp_path.iterdir()) == []


def test_ffmpeg_is_waited_for_where_nothing_is_cancelled():
    with interruptible(Cancelling(-1)), Ffmpeg(["-version"]) as ffmpeg:
        assert ffmpeg.wait() == 0


def returning(monkeypatch, trim: Callable[[int], object] | None) -> None:
    monkeypatch.setattr(memory, "_trim", lambda: trim)
    monkeypatch.setattr(memory, "SECONDS_TO_RETURN", 0.01)


def test_freed_memory_is_returned_once_for_all_runs_that_end_together(monkeypatch):
    calls, called = [], threading.Event()

    def trim(padding: int) -> None:
        calls.append(padding)
        called.set()

    returning(monkeypatch, trim)
    monkeypatch.setattr(memory, "SECONDS_TO_RETURN", 0.3)
    for _ in range(5):
        memory.return_freed_memory()
    assert called.wait(60)
    assert calls == [0]
    called.clear()
    memory.return_freed_memory()
    assert called.wait(60), "the next one is returned too"


def test_memory_of_another_c_library_is_left_alone(monkeypatch):
    class Library:
        pass

    memory._trim.cache_clear()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Library())
    try:
        memory.return_freed_memory()
        assert memory._trim() is None
    finally:
        memory._trim.cache_clear()


class Owner:
    pass


def test_what_is_collected_while_a_lock_is_held_is_closed_without_waiting_for_it():
    """MediaPipe's tasks take a lock as they close that Python holds while it starts a thread, and may collect in."""
    lock, closed, took = threading.Lock(), threading.Event(), []

    def close() -> None:
        took.append(lock.acquire(timeout=30))
        lock.release()
        closed.set()

    owner = Owner()
    owner.itself = owner
    memory.closed_with(owner, close)
    with lock:
        del owner
        gc.collect()
        assert took == [], "it is not this thread that waits"
    assert closed.wait(60)
    assert took == [True]


def test_what_is_closed_by_hand_is_closed_once():
    closed = []
    owner = Owner()
    close = memory.closed_with(owner, lambda: closed.append(1))
    close()
    close()
    del owner
    gc.collect()
    assert closed == [1]
