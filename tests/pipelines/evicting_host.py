"""A host with little memory: loading a network evicts all others from the device."""

from __future__ import annotations

from typing import Any

import torch


class EvictingHost:
    """Keeps one network at a time on the device; the weights of the others are removed, so that they cannot run."""

    def __init__(self) -> None:
        self.networks: list[EvictedNetwork] = []

    def manage(self, module: torch.nn.Module) -> EvictedNetwork:
        self.networks.append(EvictedNetwork(self, module))
        return self.networks[-1]

    def evict(self, all_but: EvictedNetwork | None = None) -> None:
        """As a host does when it loads a network that is not ours, such as its VAE."""
        for network in self.networks:
            if network is not all_but:
                network.leave()


class EvictingCodec:
    """A VAE that the host loads for each call."""

    def __init__(self, host: EvictingHost, codec: Any) -> None:
        self._host, self._codec = host, codec

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        self._host.evict()
        return self._codec.encode(pictures)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self._host.evict()
        return self._codec.decode(latents)


class EvictedNetwork:
    """`Managed` by such a host."""

    def __init__(self, host: EvictingHost, module: torch.nn.Module) -> None:
        self.module, self._host = module, host
        self._away: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []

    def load(self, memory: int = 0) -> torch.device:
        self._host.evict(all_but=self)
        for module, name, parameter in self._away:
            module._parameters[name] = parameter
        self._away = []
        return torch.device("cpu")

    def leave(self) -> None:
        for module in self.module.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    self._away.append((module, name, parameter))
                    module._parameters[name] = None
