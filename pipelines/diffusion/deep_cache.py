"""Deep layers of a UNet that are computed in every n-th denoising step only (DeepCache, Ma et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch

from ...models.diffusion.unet import DeepFeatures


class DeepCache:
    """Deep features (`DeepFeatures`) of each sample, until the step in which all layers are computed again.

    A sample is found by its name, in whichever batch it passes the network: batches become smaller when memory runs
    out, and lose their unconditional samples when guidance ends.
    """

    def __init__(self, every: int) -> None:
        """`every` how many steps all layers are computed; 1 holds nothing."""
        self._every = every
        self._held: dict[Hashable, torch.Tensor] = {}

    def begin(self, step: int) -> None:
        """To be called before the work of each step, counted from 0."""
        if step % self._every == 0:
            self._held.clear()

    def run(self, samples: Sequence[Hashable], network: Callable[[DeepFeatures | None], torch.Tensor]) -> torch.Tensor:
        """What the network gives for a batch of these samples: quickly where the deep features of all are held."""
        if self._every == 1:
            return network(None)
        if all(sample in self._held for sample in samples):
            return network(DeepFeatures(torch.cat([self._held[sample] for sample in samples])))
        deep = DeepFeatures()
        result = network(deep)
        assert deep.features is not None
        self._held.update(zip(samples, deep.features.chunk(len(samples)), strict=True))
        return result
