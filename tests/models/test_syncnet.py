"""SyncNet with weights from a formula: the published ones are not at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.syncnet import SyncNet, load_syncnet

SOUND = [-0.21555, -0.44337, -0.22938, 0.24851]
LIPS = [-0.39339, 0.38466, 0.08781, -0.08860]
"""First numbers of the embeddings that syncnet_python's own class gives with these weights for these inputs."""


def wave(count: int, step: float, start: float = 0.0) -> torch.Tensor:
    return torch.sin(torch.arange(count, dtype=torch.float64) * step + start).float()


def weights() -> dict[str, torch.Tensor]:
    """As the published file holds them: without counters of training."""
    state = SyncNet().state_dict()
    for number, (name, tensor) in enumerate(sorted(state.items())):
        if tensor.is_floating_point():
            values = wave(tensor.numel(), 0.37 + 0.01 * number, number).reshape(tensor.shape)
            if name.endswith("running_var"):
                tensor.copy_(1 + values / 2)
            elif tensor.ndim > 1:
                tensor.copy_(values * (3 / tensor[0].numel()) ** 0.5)
            else:
                tensor.copy_(values / 4 + name.endswith("weight"))
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def test_a_file_gives_the_embeddings_of_the_published_class(tmp_path: Path) -> None:
    state = weights()
    torch.save(state, tmp_path / "syncnet_v2.model", _use_new_zipfile_serialization=False)
    network = load_syncnet(tmp_path / "syncnet_v2.model")
    mfcc = 20 * wave(20 * 13, 0.11).reshape(1, 20, 13)
    crops = (127.5 + 127.5 * wave(5 * 3 * 224 * 224, 0.013)).reshape(1, 5, 3, 224, 224)
    sound, lips = network.embed_sound(mfcc), network.embed_lips(crops)
    assert sound.shape == lips.shape == (1, 1024)
    assert sound[0, :4].tolist() == pytest.approx(SOUND, abs=1e-3)
    assert lips[0, :4].tolist() == pytest.approx(LIPS, abs=1e-3)


def test_other_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TalkingPortraitError, match="syncnet_v2.model is not there, but a model file is expected"):
        load_syncnet(tmp_path / "syncnet_v2.model")
    torch.save({"lin0.model.1.weight": torch.ones(1), "lin4.model.1.weight": torch.ones(1)}, tmp_path / "other.model")
    with pytest.raises(TalkingPortraitError, match="other.model is weights of LPIPS, but SyncNet .* is expected here"):
        load_syncnet(tmp_path / "other.model")
