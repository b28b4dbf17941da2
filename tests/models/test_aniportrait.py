"""AniPortrait's own networks: pose guider, audio to mesh, audio to head pose, and their files."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from talking_portrait.models.aniportrait import loading
from talking_portrait.models.aniportrait.audio2mesh import Audio2Mesh
from talking_portrait.models.aniportrait.audio2pose import Audio2Pose, distance_bias
from talking_portrait.models.aniportrait.pose_guider import PoseGuider, PoseGuiderConfig
from talking_portrait.models.diffusion.motion_module import sinusoidal_table
from talking_portrait.models.errors import TalkingPortraitError

from ..tiny_weights.aniportrait import ENCODER
from ..tiny_weights.weight_norm import old_names


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def speech_encoder():
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(3)
    return Wav2Vec2Model(Wav2Vec2Config(**ENCODER)).eval()


@pytest.fixture(scope="module")
def guider() -> PoseGuider:
    torch.manual_seed(0)
    network = PoseGuider(PoseGuiderConfig(channels=32)).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return network.requires_grad_(False)


def drawings(samples: int, frames: int, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (samples, 3, frames, *size), generator=generator).float()


def test_pose_guider_has_the_published_names_and_sizes() -> None:
    with torch.device("meta"):
        state = PoseGuider().state_dict()
    assert len(state) == 184
    assert sum(tensor.numel() for tensor in state.values()) == 167_528_848


def test_pose_features_shrink_as_the_unet_does(guider: PoseGuider) -> None:
    features = guider(drawings(1, 2, (72, 96)))
    assert [tuple(feature.shape) for feature in features] == [
        (1, 32, 2, 9, 12),
        (1, 32, 2, 5, 6),
        (1, 64, 2, 3, 3),
        (1, 128, 2, 2, 2),
        (1, 128, 2, 2, 2),
    ]


def test_by_default_a_frames_features_depend_on_its_window(guider: PoseGuider) -> None:
    frames = 2 * drawings(1, 3) - 1
    before = {name: buffer.clone() for name, buffer in guider.named_buffers()}
    whole, part = guider(frames), guider(frames[:, :, :2])
    assert not torch.allclose(whole[0][:, :, :2], part[0], atol=1e-2)
    doubled = guider(frames.repeat(2, 1, 1, 1, 1))  # as guidance would, had it not been left out
    for one, two in zip(whole, doubled, strict=True):
        torch.testing.assert_close(one, two[1:], atol=1e-3, rtol=1e-3)
    after = dict(guider.named_buffers())
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_single_frame_of_the_smallest_size_has_features(guider: PoseGuider) -> None:
    frame, exact = 2 * drawings(1, 1, (64, 64)).double() - 1, deepcopy(guider).double()
    doubled = exact(frame.repeat(2, 1, 1, 1, 1))  # as guidance has it in the published program
    for one, two in zip(exact(frame), doubled, strict=True):
        torch.testing.assert_close(one, two[:1], atol=1e-4, rtol=1e-4)


def test_with_gathered_statistics_every_frame_stands_alone(guider: PoseGuider) -> None:
    frames = drawings(1, 3) / 127.5 - 1
    whole = guider(frames, batch_statistics=False)
    part = guider(frames[:, :, 1:2], batch_statistics=False)
    for one, two in zip(whole, part, strict=True):
        torch.testing.assert_close(one[:, :, 1:2], two, atol=1e-4, rtol=1e-4)


def test_memory_layout_does_not_change_pose_features(guider: PoseGuider) -> None:
    """Channels-last statistics of torch are too coarse where a channel hardly varies, as a drawing's do.

    Norms enlarge rounding from level to level; those statistics would enlarge it a hundred times more.
    """
    frames = torch.full((1, 3, 2, 64, 96), -1.0)
    frames[:, :, :, 20:24, 20:60] = 0.5
    last = frames.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    for one, two, atol in zip(guider(frames), guider(last), (1e-4, 1e-4, 5e-4, 5e-3, 2e-2), strict=True):
        torch.testing.assert_close(one, two, atol=atol, rtol=0)


def test_audio2mesh_is_two_linear_maps_of_its_features() -> None:
    torch.manual_seed(0)
    model = Audio2Mesh(speech_encoder(), width=8).eval()
    states = torch.randn(5, 64)
    expected = (states @ model.in_fn.weight.T + model.in_fn.bias) @ model.out_fn.weight.T + model.out_fn.bias
    torch.testing.assert_close(model(states), expected.reshape(5, 468, 3), atol=1e-5, rtol=1e-5)
    assert model.encoder.model is model.audio_encoder
    assert model.encoder.normalise


def pose_model() -> Audio2Pose:
    torch.manual_seed(0)
    model = Audio2Pose(speech_encoder(), width=64, inner=96, layers=2).eval()
    for parameter in model.transformer_decoder.parameters():
        if parameter.ndim == 1:
            parameter.normal_(1 if parameter.mean() > 0.5 else 0, 0.1)
    return model


def decode_anew(model: Audio2Pose, states: torch.Tensor, identity: int) -> torch.Tensor:
    """The published way with torch's own decoder: every frame runs all frames before it once more."""
    decoder = torch.nn.TransformerDecoder(
        torch.nn.TransformerDecoderLayer(64, 8, 96, batch_first=True), num_layers=2
    ).eval()
    decoder.load_state_dict(model.transformer_decoder.state_dict())
    frames = len(states)
    memory = model.in_fn(states)[None]
    bias = torch.full((8, frames, frames), -torch.inf)
    for i in range(frames):
        bias[:, i, : i + 1] = distance_bias(i)[:, 0]
    memory_mask = ~torch.eye(frames, dtype=torch.bool)
    inputs, out = [model.pose_map(torch.zeros(6))], torch.zeros(0)
    for i in range(frames):
        x = torch.stack(inputs) + sinusoidal_table(frames, 64)[0, : i + 1] + model.id_embed.weight[identity]
        y = decoder(x[None], memory, tgt_mask=bias[:, : i + 1, : i + 1], memory_mask=memory_mask[: i + 1])
        out = model.pose_map_r(y)[0]
        inputs.append(model.pose_map(out[-1]))
    return out


@pytest.mark.parametrize("identity", [0, 99])
def test_audio2pose_gives_what_decoding_anew_would(identity: int) -> None:
    model, states = pose_model(), torch.randn(12, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model(states, identity), decode_anew(model, states, identity), atol=1e-5, rtol=1e-4)


def test_audio2pose_goes_past_its_stored_table_and_is_causal() -> None:
    model, states = pose_model(), torch.randn(620, 64, generator=torch.Generator().manual_seed(2))
    steps: list[int] = []
    poses = model(states, 5, step=lambda: steps.append(1))
    assert poses.shape == (620, 6)
    assert poses.isfinite().all()
    assert len(steps) == 620
    assert poses[600:].std(dim=0).min() > 0
    torch.testing.assert_close(model(states[:40], 5), poses[:40], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model(states[:40], 6), poses[:40], atol=1e-3)


def test_nearer_frames_count_more() -> None:
    bias = distance_bias(3)
    assert bias.shape == (8, 1, 4)
    assert bias[0, 0].tolist() == [-1.5, -1.0, -0.5, 0.0]
    assert bias[7, 0].tolist() == pytest.approx([-3 / 256, -2 / 256, -1 / 256, 0.0])


# --- files ---


def test_audio_models_load_as_they_were_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    mesh, pose = Audio2Mesh(speech_encoder(), width=8).eval(), pose_model()
    saved = {**old_names(pose.state_dict()), "PPE.pe": sinusoidal_table(600, 64)}
    assert "audio_encoder.encoder.pos_conv_embed.conv.weight_g" in saved
    torch.save(old_names(mesh.state_dict()), tmp_path / "audio2mesh.pt")
    torch.save(saved, tmp_path / "audio2pose.pt")
    states = torch.randn(4, 64)
    wave = torch.randn(2000, generator=torch.Generator().manual_seed(1))
    for loaded, original, arguments in (
        (loading.load_audio2mesh(tmp_path / "audio2mesh.pt"), mesh, ()),
        (loading.load_audio2pose(tmp_path / "audio2pose.pt"), pose, (7,)),
    ):
        torch.testing.assert_close(loaded(states, *arguments), original(states, *arguments), atol=1e-5, rtol=1e-4)
        encoded, expected = (
            model.encoder.transform(model.encoder.convolve(wave), every_layer=False) for model in (loaded, original)
        )
        torch.testing.assert_close(encoded, expected, atol=1e-4, rtol=1e-4)


def test_pose_guider_loads_as_it_was_saved(tmp_path: Path, guider: PoseGuider) -> None:
    torch.save(guider.state_dict(), tmp_path / "pose_guider.pth")
    loaded = loading.load_pose_guider(tmp_path / "pose_guider.pth")
    assert loaded.config == guider.config
    frames = drawings(1, 1)
    for found, expected in zip(loaded(frames), guider(frames), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_wrong_and_incomplete_files_are_named(tmp_path: Path) -> None:
    pose = pose_model().state_dict()
    torch.save(pose, tmp_path / "audio2pose.pt")
    for load, words in (
        (
            loading.load_audio2mesh,
            "is AniPortrait's audio2pose, but AniPortrait's audio2mesh is expected",
        ),
        (loading.load_pose_guider, "but AniPortrait's pose_guider is expected"),
        (loading.load_reference_unet, "but AniPortrait's reference_unet is expected"),
    ):
        with pytest.raises(TalkingPortraitError, match=words):
            load(tmp_path / "audio2pose.pt")
    del pose["transformer_decoder.layers.1.norm3.bias"]
    torch.save(pose, tmp_path / "audio2pose.pt")
    with pytest.raises(TalkingPortraitError, match=r"1 missing \(transformer_decoder.layers.1.norm3.bias\)"):
        loading.load_audio2pose(tmp_path / "audio2pose.pt")
