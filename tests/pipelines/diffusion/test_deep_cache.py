"""Deep features are found by sample, whichever batch it is in."""

from __future__ import annotations

import torch
from talking_portrait.models.diffusion.unet import DeepFeatures
from talking_portrait.pipelines.diffusion.deep_cache import DeepCache


class Network:
    """Its deep features of a sample are the sample's number; it notes when it computes them."""

    def __init__(self) -> None:
        self.computed: list[list[int]] = []

    def of(self, cache: DeepCache, *samples: int) -> list[float]:
        def run(deep: DeepFeatures | None) -> torch.Tensor:
            features = torch.tensor(samples, dtype=torch.float32)[:, None]
            if deep is None or deep.features is None:
                self.computed.append([*samples])
            else:
                features = deep.features
            if deep is not None:
                deep.features = features
            return features

        return cache.run(samples, run).flatten().tolist()


def test_features_are_held_until_the_next_step_in_which_all_layers_are_computed() -> None:
    cache, network = DeepCache(2), Network()
    for step in range(4):
        cache.begin(step)
        assert network.of(cache, 0, 1) == [0, 1]
    assert network.computed == [[0, 1]] * 2


def test_a_sample_is_found_in_smaller_and_in_other_batches() -> None:
    cache, network = DeepCache(4), Network()
    cache.begin(0)
    network.of(cache, 0, 1)
    network.of(cache, 2, 3)
    cache.begin(1)
    assert [network.of(cache, 1), network.of(cache, 3, 0), network.of(cache, 2)] == [[1], [3, 0], [2]]
    assert network.computed == [[0, 1], [2, 3]]
    network.of(cache, 3, 4)
    assert network.computed[2:] == [[3, 4]], "where one is missing all are computed"


def test_nothing_is_held_where_all_layers_are_always_computed() -> None:
    cache, network = DeepCache(1), Network()
    for step in range(2):
        cache.begin(step)
        network.of(cache, 0)
    assert network.computed == [[0], [0]]
