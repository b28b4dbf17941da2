"""The pose guider's norms: statistics of these frames, of others, or of the training."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.models.aniportrait.pose_guider import PoseGuider, PoseGuiderConfig
from talking_portrait.models.errors import TalkingPortraitError


def guider() -> PoseGuider:
    torch.manual_seed(0)
    found = PoseGuider(PoseGuiderConfig(channels=32, inner=64)).double().eval().requires_grad_(False)
    for layer in found.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.uniform_(-0.5, 0.5)
    return found


def frames(count: int, seed: int = 0) -> torch.Tensor:
    return 509 * torch.rand(1, 3, count, 64, 64, generator=torch.Generator().manual_seed(seed)).double()


def test_a_windows_own_statistics_equal_batch_statistics() -> None:
    network, window = guider(), frames(3)
    statistics = network.statistics(window)
    assert len(statistics) == sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())
    for found, level in zip(network(window, statistics=statistics), network(window), strict=True):
        torch.testing.assert_close(found, level, atol=1e-4, rtol=1e-4)


def test_with_given_statistics_frames_do_not_depend_on_each_other() -> None:
    network, window = guider(), frames(4)
    statistics = network.statistics(frames(4, seed=1))
    together = network(window, statistics=statistics)
    for frame in range(4):
        alone = network(window[:, :, frame : frame + 1], statistics=statistics)
        for found, level in zip(alone, together, strict=True):
            torch.testing.assert_close(found, level[:, :, frame : frame + 1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(network(window)[4], together[4], atol=1e-3)


def test_without_statistics_those_of_the_training_are_used() -> None:
    network, window = guider(), frames(2) / 255 - 1
    trained = network(window, batch_statistics=False)
    given = tuple((torch.zeros(len(layer.weight)), torch.ones(len(layer.weight))) for layer in norms(network))
    for found, level in zip(network(window, statistics=given), trained, strict=True):
        torch.testing.assert_close(found, level, atol=1e-4, rtol=1e-4)


def norms(network: PoseGuider) -> list[torch.nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]


def test_statistics_of_another_guider_are_named() -> None:
    network, window = guider(), frames(2)
    statistics = network.statistics(window)
    for others in (statistics[:3], statistics + statistics[:1]):
        with pytest.raises(TalkingPortraitError, match="norms, but this pose guider has .* that made the state"):
            network(window, statistics=others)
