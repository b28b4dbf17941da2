"""Devices, loading and cancelling, recorded for the tests."""

from __future__ import annotations

import torch

interrupted = False
loaded = []


class InterruptProcessingException(Exception):  # noqa: N818 (ComfyUI's name)
    pass


def throw_exception_if_processing_interrupted():
    if interrupted:
        raise InterruptProcessingException


def get_torch_device():
    return torch.device("cpu")


text_encoder_offload_device = intermediate_device = get_torch_device


def intermediate_dtype():
    return torch.float16


def get_free_memory(device):
    return 4_000_000_000


def load_models_gpu(models, memory_required=0):
    loaded.append((models, memory_required))
