"""APasco's trainers: which parameters are trained, that losses fall, and that the files load again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.models.apasco.loading import load_net
from talking_portrait.models.apasco.networks import Networks, NetworksConfig
from talking_portrait.models.diffusion.unet import UNet
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.images import read_image
from talking_portrait.pipelines.training.apasco import stage2 as apasco_stage2
from talking_portrait.pipelines.training.apasco.datasets import FacePictures, SpokenVideos, still_lips
from talking_portrait.pipelines.training.apasco.stage1 import APascoStage1
from talking_portrait.pipelines.training.apasco.stage2 import APascoStage2, learns
from talking_portrait.pipelines.training.core.checkpoints import write_tensors
from talking_portrait.pipelines.training.core.loop import train
from talking_portrait.pipelines.training.core.trainer import Batch, Plan, trainable
from torch.utils.data import default_collate

from . import training_bench as bench

LAYERS, CHANNELS, AUDIO = 2, 8, 24
NET = NetworksConfig(
    reference_unet=bench.REFERENCE,
    denoising_unet=replace(bench.VIDEO, audio=AUDIO),
    locator_widths=(8, 8, 16, 16),
    audio_inputs=5 * LAYERS * CHANNELS,
    audio_inner=8,
    audio_tokens=4,
)
SHARES = ("NO_REFERENCE", "NO_SPEECH", "NO_FRAMES_BEFORE", "NO_MESH", "STILL_LIPS")
SKIPPED = ("denoising_unet.down_blocks.3.motion_modules.", "denoising_unet.up_blocks.0.motion_modules.")
"""Motion modules that the published program holds, saves and never runs."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bench.Clip:
    clip = bench.make_clip(tmp_path_factory.mktemp("data"), "a", frames=40, fps=25)
    rng = np.random.default_rng(0)
    np.save(clip.folder / "speech_features.npy", rng.standard_normal((40, LAYERS, CHANNELS)).astype(np.float16))
    np.save(clip.folder / "identity.npy", rng.standard_normal(512).astype(np.float32))
    return clip


@pytest.fixture(scope="module")
def pictures(clip: bench.Clip) -> Batch:
    samples = FacePictures([clip], 0)
    return default_collate([samples[0], samples[1]])


@pytest.fixture(scope="module")
def videos(clip: bench.Clip) -> Batch:
    samples = SpokenVideos([clip], 0, frames=3)
    return default_collate([samples[0], samples[1]])


def stage1() -> APascoStage1:
    torch.manual_seed(0)
    whole = Networks(NET)
    return APascoStage1(
        whole.reference_unet,
        UNet(bench.PICTURE),
        whole.face_locator,
        whole.imageproj,
        bench.vae(),
        unconditional=0.0,
        picture_steps=2,
    )


def stage2(*, geometry: bool = False) -> APascoStage2:
    """Networks whose new layers are not zero any more, as they are at first."""
    torch.manual_seed(0)
    networks = Networks(NET.with_geometry(4, learnt_weights=True) if geometry else NET)
    for name, weight in networks.named_parameters():
        if ".zero_conv_" in name:
            torch.nn.init.normal_(weight, 0, 0.05)
    return APascoStage2(networks, bench.vae(), picture_steps=2)


def test_stage_1_moves_everything_but_the_vae(pictures) -> None:
    trainer = stage1()
    torch.nn.init.normal_(trainer.face_locator.conv_out.weight, 0, 0.1)  # it begins at zero and lets nothing through
    learnt = {name for name, _ in trainer.named_parameters() if not name.startswith("vae.")}
    assert set(trainable(trainer)) == learnt
    found = set(bench.gradients(trainer, pictures))
    assert found <= learnt
    # After the last tokens that are read nothing of the reference UNet has an effect.
    last = "reference_unet.up_blocks.3.attentions.1."
    missing = learnt - found
    assert missing
    assert all(name.startswith(last) for name in missing), sorted(missing)[:9]
    assert last + "transformer_blocks.0.norm1.weight" in found


def test_stage_1_without_a_reference_uses_a_zero_embedding(pictures) -> None:
    trainer = stage1()
    trainer.unconditional = 1.0
    found = bench.gradients(trainer, pictures)
    assert not [name for name, gradient in found.items() if name.startswith("reference_unet.") and gradient.any()]
    assert found["imageproj.proj.bias"].abs().max() > 1e-6
    assert not found["imageproj.proj.weight"].any()  # it is multiplied by zeros


@pytest.mark.parametrize("geometry", [False, True])
def test_stage_2_moves_audio_and_motion_modules(videos, geometry: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for share in SHARES:
        monkeypatch.setattr(apasco_stage2, share, 0.0)
    trainer = stage2(geometry=geometry)
    learnt = set(trainable(trainer))
    expected = set()
    for name, _ in trainer.named_parameters():
        inside = name.startswith("networks.denoising_unet.") and (
            ".audio_modules." in name or ".motion_modules." in name
        )
        if inside or name.startswith(("networks.audioproj.", "networks.mesh_encoder.")):
            expected.add(name)
    assert learnt == expected
    assert any(".attn2_geo." in name for name in learnt) == geometry
    assert any(name.endswith(".alpha") for name in learnt) == geometry
    skipped = {f"networks.{name}" for name in trainer.networks.state_dict() if name.startswith(SKIPPED)} & learnt
    assert set(bench.gradients(trainer, videos)) == learnt - skipped


def test_both_stages_learn(pictures, videos) -> None:
    assert bench.falls(stage1(), pictures, 1e-3, 6) > 1.5
    assert bench.falls(stage2(geometry=True), videos, 3e-3, 8) > 1.2


def test_dropped_conditions_are_dropped(videos, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each share alone is made certain; what depended on the condition no longer does."""
    trainer = stage2(geometry=True).eval()
    monkeypatch.setattr(apasco_stage2, "clip_loss", lambda velocity, *rest: velocity)

    def velocity(batch: Batch) -> torch.Tensor:
        torch.manual_seed(1)
        with torch.no_grad():
            return trainer.loss(batch, 0)

    shuffled = {name: tensor.flip(1) if tensor.is_floating_point() else 255 - tensor for name, tensor in videos.items()}
    for share, names in (
        ("NO_SPEECH", ["windows"]),
        ("NO_MESH", ["meshes"]),
        ("NO_REFERENCE", ["pictures"]),
    ):
        for name in SHARES:
            monkeypatch.setattr(apasco_stage2, name, 1.0 if name == share else 0.0)
        changed = videos | {name: shuffled[name] for name in names}
        torch.testing.assert_close(velocity(changed), velocity(videos), atol=1e-5, rtol=1e-4, msg=share)
        monkeypatch.setattr(apasco_stage2, share, 0.0)
        assert (velocity(changed) - velocity(videos)).abs().max() > 1e-4, share
    monkeypatch.setattr(apasco_stage2, "NO_FRAMES_BEFORE", 1.0)
    before = videos["pictures"].clone()
    before[:, 1:] = 7
    torch.testing.assert_close(velocity(videos | {"pictures": before}), velocity(videos), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stage", [1, 2])
def test_pictures_on_the_way_show_reference_region_result_and_truth(stage: int, clip, tmp_path: Path) -> None:
    """Through the whole loop, which writes them."""
    trainer = stage1() if stage == 1 else stage2(geometry=True)
    samples = FacePictures([clip], 0) if stage == 1 else SpokenVideos([clip], 0, frames=3)
    train(trainer, samples, Plan(steps=1, batch=2, precision="fp32", workers=0, picture_every=1), tmp_path)
    sheet = read_image(tmp_path / "pictures" / "step-00000001.png")
    frames = 1 if stage == 1 else 3
    assert sheet.shape == (4 * 64, frames * 64, 3)
    first = samples[0]
    reference = first["reference"] if stage == 1 else first["pictures"][0]
    truth = [first["picture"]] if stage == 1 else list(first["frames"])
    assert torch.equal((sheet[:64, :64] * 255).round().byte(), reference)
    assert torch.equal((sheet[192:] * 255).round().byte(), torch.cat(truth, dim=1))
    assert set(sheet[64:128].unique().tolist()) == {0.0, 1.0}, "where the face is, and where it is not"
    assert sheet[128:192].std() > 0.01


@torch.no_grad()
def test_a_picture_follows_speech_and_face(videos) -> None:
    """The pictures are sampled with the conditions of the batch."""
    trainer = stage2(geometry=True).eval()

    def result(**changes: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return trainer.picture({**videos, **changes})[128:192]

    plain = result()
    torch.testing.assert_close(result(), plain, atol=1e-4, rtol=0)
    for name in ("windows", "embedding", "meshes", "pictures"):
        assert not torch.allclose(result(**{name: videos[name].flip(-2) + 1}), plain, atol=1e-3), name


def test_still_lips_go_with_the_face_in_the_portraits_shape(videos) -> None:
    from talking_portrait.models.face.face_mesh import LIPS_INNER

    rest = videos["portrait"]
    shifted = rest[:, None] + torch.tensor([0.3, -0.2, 0.0])
    opened = shifted.repeat(1, 2, 1, 1)
    opened[:, :, 14, 1] += 0.5
    still = still_lips(opened, rest)
    torch.testing.assert_close(still, shifted.expand_as(still), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(opened[:, :, list(LIPS_INNER)], still[:, :, list(LIPS_INNER)], atol=0.1)


@torch.no_grad()
def test_what_is_trained_loads_again_by_the_published_names(tmp_path: Path) -> None:
    first = stage1().export()
    assert set(first) == {"reference_unet", "denoising_unet", "face_locator", "imageproj"}
    assert "conv_in.weight" in first["denoising_unet"]
    for geometry in (False, True):
        trainer = stage2(geometry=geometry)
        write_tensors(tmp_path / "net.safetensors", trainer.export()["net"])
        loaded = load_net(tmp_path / "net.safetensors")
        assert loaded.config == trainer.networks.config
        tensors = loaded.state_dict()
        for name, tensor in trainer.networks.state_dict().items():
            assert torch.equal(tensors[name], tensor), name


def test_real_sizes_learn_as_many_tensors_as_published() -> None:
    with torch.device("meta"):
        networks = Networks()
    names = [name for name, _ in networks.named_parameters() if learns(name)]
    assert len(networks.state_dict()) == 2656
    assert {name.split(".")[0] for name in names} == {"denoising_unet", "audioproj"}
    motion = [name for name in networks.state_dict() if ".motion_modules." in name]
    assert len(motion) == 588


def test_samples_are_those_that_the_stages_need(clip) -> None:
    samples = SpokenVideos([clip], 0)
    assert samples.audio_shape == (LAYERS, CHANNELS)
    for number in range(20):
        sample = samples[number]
        assert sample["frames"].shape == (14, 64, 64, 3)
        assert sample["pictures"].shape == (3, 64, 64, 3)
        assert sample["windows"].shape == (14, 5, LAYERS, CHANNELS)
        states = torch.from_numpy(np.array(clip.array("speech_features"))).float()
        start = int((states == sample["windows"][0, 2]).all(dim=(1, 2)).nonzero()[0])
        assert torch.equal(sample["pictures"][2], torch.from_numpy(clip.picture(start - 1)))
        assert torch.equal(sample["frames"][0], torch.from_numpy(clip.picture(start)))
        assert [tuple(sample[f"masks{level}"].shape) for level in range(4)] == [(3, s, s) for s in (8, 4, 2, 1)]
    first = FacePictures([clip], 0)[3]
    assert first["region"].shape == (3, 1, 64, 64)
    assert torch.equal(first["embedding"], torch.from_numpy(np.array(clip.array("identity"))))


def test_clips_without_what_is_needed_are_reported(tmp_path: Path) -> None:
    bare = bench.make_clip(tmp_path, "bare", frames=5, fps=25)
    with pytest.raises(TalkingPortraitError, match="run prepare again with --speech-encoder"):
        SpokenVideos([bare], 0)
    with pytest.raises(TalkingPortraitError, match="run prepare again with --face-detector"):
        FacePictures([bare], 0)
