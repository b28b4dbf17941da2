"""The patcher's constructor, which notes on the network where it is."""

from __future__ import annotations


class ModelPatcher:
    def __init__(self, model, load_device, offload_device):
        self.model = model
        model.device = offload_device
