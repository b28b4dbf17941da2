"""LPIPS with weights of any values: the published ones are not at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.lpips import load_lpips

SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


def weights(form: str) -> dict[str, torch.Tensor]:
    """The convolutions' under torchvision's names or those of the public class."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for place, (number, (wide, deep, kernel)) in enumerate(SHAPES.items()):
        begin = form.format(place + 1)
        state[f"{begin}.{number}.weight"] = torch.randn(wide, deep, kernel, kernel, generator=generator) * 0.05
        state[f"{begin}.{number}.bias"] = torch.randn(wide, generator=generator) * 0.05
        state[f"lin{place}.model.1.weight"] = torch.rand(1, wide, 1, 1, generator=generator)
    return state


def test_pictures_are_compared_by_their_features(tmp_path: Path) -> None:
    state = weights("net.slice{}")
    save_file(state, tmp_path / "lpips.safetensors")
    save_file(weights("features"), tmp_path / "other.safetensors")
    network, same = load_lpips(tmp_path / "lpips.safetensors"), load_lpips(tmp_path / "other.safetensors")
    own = {name: tensor for name, tensor in state.items() if name.startswith("lin")}
    save_file(own, tmp_path / "alex.safetensors")
    halves = load_lpips(tmp_path / "alex.safetensors", tmp_path / "other.safetensors")
    image, other = torch.rand(2, 2, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    found = network(image, other)
    torch.testing.assert_close(found, same(image, other))
    torch.testing.assert_close(found, halves(image, other))
    assert found.shape == (2,)
    assert float(network(image, image).abs().max()) < 1e-6
    assert (network(image, image + 0.1 * (other - image)) < found).all()

    # The first layer by hand, with the others' weights 0.
    for place in range(1, 5):
        network.weights[place].zero_()
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    features = []
    for picture in (image, other):
        scaled = (2 * picture - 1 - shift[:, None, None]) / scale[:, None, None]
        convolved = F.conv2d(scaled, state["net.slice1.0.weight"], state["net.slice1.0.bias"], stride=4, padding=2)
        features.append(F.normalize(convolved.clamp(min=0), dim=1))
    expected = ((features[0] - features[1]) ** 2 * state["lin0.model.1.weight"]).sum(1).mean((1, 2))
    torch.testing.assert_close(network(image, other), expected, rtol=1e-4, atol=1e-6)
    assert network(image[..., :20, :20], other[..., :20, :20]).isfinite().all()  # smaller than it can take


def test_a_file_without_all_of_it_is_refused_in_a_sentence(tmp_path: Path) -> None:
    state = weights("features")
    del state["lin3.model.1.weight"]
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(TalkingPortraitError, match="half.safetensors holds not all of AlexNet's convolutions"):
        load_lpips(tmp_path / "half.safetensors")
