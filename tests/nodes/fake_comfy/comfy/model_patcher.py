"""The patcher's constructor."""

from __future__ import annotations


class ModelPatcher:
    def __init__(self, model, load_device, offload_device):
        self.model = model
