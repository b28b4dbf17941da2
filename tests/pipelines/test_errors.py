"""The check for memory that ran out: every kind of it, and errors that are similar; the words for a full disk."""

from __future__ import annotations

import errno

import pytest
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError, is_out_of_memory, reason_of
from talking_portrait.pipelines.memory import HalvingBatches


class NumpyMemoryError(MemoryError):
    """As numpy's own, which is private."""


class DeviceOutOfMemory(torch.OutOfMemoryError):
    """A class that a host or another device derives."""


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.cuda.OutOfMemoryError("refused"),  # what ComfyUI's OOM_EXCEPTION is
    DeviceOutOfMemory("refused"),
    MemoryError(),
    NumpyMemoryError("Unable to allocate 30.0 GiB for an array"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError("HIP Out of Memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("std::bad_alloc"),
]
OTHER = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
    ValueError("out of memory"),
    OSError(errno.ENOSPC, "No space left on device"),
    FileNotFoundError(errno.ENOENT, "No such file", "out of memory.png"),
    TalkingPortraitError('"out of memory.wav" holds no sound; choose another file.'),
    KeyboardInterrupt("out of memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=repr)
def test_refused_memory_is_recognised_and_smaller_pieces_are_tried(error: Exception) -> None:
    def work(start: int, end: int) -> int:
        if end - start > 1:
            raise error
        return end - start

    assert is_out_of_memory(error)
    assert list(HalvingBatches(4).each(2, work)) == [1, 1]


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_other_errors_are_not_taken_for_it_and_pass_the_retry(error: BaseException) -> None:
    def work(start: int, end: int) -> None:
        raise error

    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as raised:
        list(HalvingBatches(4).each(2, work))
    assert raised.value is error


def test_an_array_that_does_not_fit_on_the_disk_is_said_in_a_users_words() -> None:
    assert reason_of(OSError("1457 requested and 0 written")) == "the disk is full"
    assert reason_of(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
