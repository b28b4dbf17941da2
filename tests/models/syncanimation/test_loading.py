"""SyncAnimation's files: the published program's, this pack's, and others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.syncanimation import loading
from talking_portrait.models.syncanimation.audio_visual_encoder import AudioVisualEncoder
from talking_portrait.models.syncanimation.networks import Networks, NetworksConfig
from talking_portrait.models.syncanimation.rendering.fields import HeadConfig, TorsoConfig
from talking_portrait.models.syncanimation.rendering.marching import BOX
from talking_portrait.models.syncanimation.rendering.occupancy import to_morton

from .networks import CAMERA, POSE, conditions, networks

State = dict[str, torch.Tensor]
SYNCERS = ("au2PoseNet.", "au2BsNet.")


@pytest.fixture(scope="module")
def person() -> Networks:
    return networks()


@pytest.fixture(scope="module")
def published(person: Networks) -> State:
    """The state dict that the published program would write."""
    own = person.tensors()
    return {name: tensor for name, tensor in own.items() if not name.startswith(("grid.", "speech_map."))} | {
        "aabb_train": torch.tensor(BOX),
        "aabb_infer": torch.tensor(BOX),
        "density_grid": to_morton(person.renderer.occupancy.density)[None],
        "density_bitfield": torch.zeros(128**3 // 8, dtype=torch.uint8),
        "density_grid_torso": person.renderer.torso_occupancy.density.flatten(),
        "step_counter": torch.zeros(16, 2, dtype=torch.int32),
    }


def picture(of: Networks) -> torch.Tensor:
    background = torch.full((CAMERA.height, CAMERA.width, 3), 0.5)
    return of.renderer.render_frame(CAMERA, POSE, *conditions(), background).image


def same_syncers(one: Networks, other: Networks) -> None:
    generator = torch.Generator().manual_seed(3)
    speech = torch.randn(5, 256, generator=generator)
    previous, code = torch.randn(5, 6, generator=generator), torch.randn(5, 32, generator=generator)
    with torch.no_grad():
        results = [of.pose_syncer(speech, previous, code) for of in (one, other)]
    torch.testing.assert_close(*results)


def test_a_person_s_file_gives_the_same_pictures(person: Networks, tmp_path: Path) -> None:
    path = tmp_path / "person.safetensors"
    save_file(person.tensors() | {"stats.label_mean": torch.zeros(1, 13), "bg.image": torch.zeros(3, 4, 4)}, path)
    loaded = loading.load_networks(path)
    assert loaded.config.head == HeadConfig(channels=6, codes=2)
    assert loaded.config.speech == 12
    torch.testing.assert_close(picture(loaded), picture(person), atol=1e-4, rtol=0)
    same_syncers(loaded, person)
    features = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded.speech_map(features), person.speech_map(features))
    assert not loaded.training


def test_a_published_training_file_gives_the_same_pictures(person: Networks, published: State, tmp_path: Path) -> None:
    path = tmp_path / "ngp_ep0042.pth"
    torch.save({"epoch": 42, "global_step": 1000, "stats": {"loss": [0.1]}, "model": published, "optimizer": {}}, path)
    loaded = loading.load_networks(path)
    assert loaded.config.speech is None
    torch.testing.assert_close(picture(loaded), picture(person), atol=1e-4, rtol=0)
    same_syncers(loaded, person)
    assert isinstance(loading.load_head(path).encode_audio(torch.zeros(1, 8, 6, 2)), torch.Tensor)


def test_a_synctalk_torso_file_renders(person: Networks, published: State, tmp_path: Path) -> None:
    path = tmp_path / "torso.safetensors"
    save_file({name: tensor for name, tensor in published.items() if not name.startswith(SYNCERS)}, path)
    background = torch.full((CAMERA.height, CAMERA.width, 3), 0.5)
    image = loading.load_renderer(path).render_frame(CAMERA, POSE, *conditions(), background).image
    torch.testing.assert_close(image, picture(person), atol=1e-4, rtol=0)
    with pytest.raises(TalkingPortraitError, match="a SyncTalk torso model of one person, but a SyncAnimation model"):
        loading.load_networks(path)


DAMAGE = {
    "aabb_infer": (torch.tensor([-2.0, -1, -2, 2, 1, 2]), "was trained for the box"),
    "density_grid": (torch.zeros(2, 128**3), "a density grid of 4194304 cells"),
    "density_grid_torso": (None, "lacks density_grid_torso"),
    "encoder_yz.offsets": (torch.arange(13, dtype=torch.int32), "begin elsewhere"),
    "torso_encoder.embeddings": (torch.zeros(8, 2), "1 of another shape"),
    "au2BsNet.norm4.bias": (None, "1 missing"),
    "torso_net.net.1.weight": (None, "1 missing"),
    "individual_codes": (None, "individual_codes"),
    "encoder_xy.more": (torch.zeros(2), "1 unknown"),
    "au2PoseNet.more": (torch.zeros(2), "1 unknown"),
    "something": (torch.zeros(2), "1 unknown"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_does_not_fit_is_said_in_one_sentence(published: State, name: str) -> None:
    tensor, said = DAMAGE[name]
    state = {key: value for key, value in published.items() if key != name} | ({} if tensor is None else {name: tensor})
    with pytest.raises(TalkingPortraitError) as raised:
        loading.build_networks(state, path="person.pth")
    assert said in str(raised.value)
    assert str(raised.value).startswith("person.pth")
    assert str(raised.value).count(". ") == 0


LOADERS = (
    loading.load_networks,
    loading.load_renderer,
    loading.load_head,
    loading.load_pose_syncer,
    loading.load_emotion_syncer,
    loading.load_audio_visual_encoder,
)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("names", "title"),
    [
        (("conv1.weight", "conv3.weight", "fc.weight", "a", "b", "c", "d", "e"), "AudioDVP's audio-to-expression"),
        (
            ("audio_encoder.0.conv_block.0.weight", "face_decoder_blocks.0.0.conv_block.0.weight"),
            "a Wav2Lip model",
        ),
        (("something",), "an unknown file"),
    ],
)
def test_another_file_is_named(load, names, title, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({name: torch.zeros(2, 2) for name in names}, path)
    with pytest.raises(TalkingPortraitError, match=rf"file.safetensors is {title}.* is expected here"):
        load(path)


def test_parts_load_by_themselves(person: Networks, tmp_path: Path) -> None:
    pose, emotion, encoder = (tmp_path / f"{name}.pth" for name in ("pose", "emotion", "audio_visual_encoder"))
    torch.save(person.pose_syncer.state_dict(), pose)
    torch.save(person.emotion_syncer.state_dict(), emotion)
    bare = AudioVisualEncoder()
    torch.save({name.removeprefix("audio_encoder."): tensor for name, tensor in bare.state_dict().items()}, encoder)
    assert loading.load_pose_syncer(pose).config == person.pose_syncer.config
    assert loading.load_emotion_syncer(emotion).config == person.emotion_syncer.config
    mel = torch.rand(2, 1, 80, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loading.load_audio_visual_encoder(encoder)(mel), bare.eval()(mel), atol=1e-4, rtol=1e-4)


def test_the_speech_map_starts_with_what_varies_most() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(50, 3, generator=generator) @ torch.randn(3, 12, generator=generator) + 4
    made = Networks(NetworksConfig(HeadConfig(channels=2, codes=1), TorsoConfig(codes=1), speech=12))
    made.fit_speech_map(features)
    mapped = made.speech_map(features).detach()
    torch.testing.assert_close(mapped[:, :3].mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(mapped[:, :3].T.cov(), torch.eye(3), atol=1e-3, rtol=0)
    assert float(mapped[:, 3:].abs().max()) < 1e-3
