"""AniPortrait's trainers: which parameters are trained, that losses fall, and that the files load again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from talking_portrait.models.aniportrait import loading
from talking_portrait.models.aniportrait.audio2pose import Audio2Pose
from talking_portrait.models.diffusion.unet import UNet
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.aniportrait.datasets import PortraitVideos, SpokenPoses, SpokenShapes
from talking_portrait.pipelines.training.aniportrait.mesh import Audio2MeshTrainer, new_audio2mesh
from talking_portrait.pipelines.training.aniportrait.pose import Audio2PoseTrainer
from talking_portrait.pipelines.training.aniportrait.stage1 import AniPortraitStage1, new_pose_guider
from talking_portrait.pipelines.training.aniportrait.stage2 import AniPortraitStage2, with_new_motion
from talking_portrait.pipelines.training.core.checkpoints import write_tensors
from talking_portrait.pipelines.training.core.loop import train
from talking_portrait.pipelines.training.core.trainer import Batch, Plan, Trainer, trainable
from talking_portrait.pipelines.training.diffusion.latents import contact_sheet
from torch.utils.data import default_collate

from . import training_bench as bench

ONE_TOKEN = ("attn2.to_q.", "attn2.to_k.", ".transformer_blocks.0.norm2.")
"""With a single token to attend to these do nothing, so no gradient reaches them (they are trainable all the same)."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bench.Clip:
    return bench.make_clip(tmp_path_factory.mktemp("data"), "a", frames=40)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Large enough for more than one token of attention in the pose guider's last layers."""
    samples = PortraitVideos([bench.make_clip(tmp_path_factory.mktemp("large"), "b", frames=5, size=128)], 0)
    return default_collate([samples[0], samples[1]])


@pytest.fixture(scope="module")
def video(clip: bench.Clip) -> Batch:
    return default_collate([PortraitVideos([clip], 0, frames=3)[0]])


@pytest.fixture(scope="module")
def stage1() -> AniPortraitStage1:
    return AniPortraitStage1(*bench.portrait_networks(motion=False), unconditional=0.0, picture_steps=2)


@pytest.fixture(scope="module")
def stage2() -> AniPortraitStage2:
    return AniPortraitStage2(*bench.portrait_networks(motion=True), unconditional=0.0, picture_steps=2)


def audio2mesh() -> Audio2MeshTrainer:
    torch.manual_seed(0)
    return Audio2MeshTrainer(new_audio2mesh(bench.speech_encoder()))


def audio2pose() -> Audio2PoseTrainer:
    torch.manual_seed(0)
    return Audio2PoseTrainer(Audio2Pose(bench.speech_encoder(), 32, 32, 2), dropout=0.0)


def spoken(trainer: Trainer, clip: bench.Clip) -> Batch:
    kind = SpokenShapes if isinstance(trainer, Audio2MeshTrainer) else SpokenPoses
    samples = kind([clip], 0, 20)
    return default_collate([samples[0], samples[1]])


def test_stage_1_moves_three_networks_but_the_last_block_of_the_reference(stage1, pictures) -> None:
    wanted = set()
    for name, weight in stage1.named_parameters():
        moves = name.startswith(("reference_unet.", "denoising_unet.", "pose_guider.")) and not name.startswith(
            "reference_unet.up_blocks.3."
        )
        assert weight.requires_grad == moves, name
        if moves and not any(part in name for part in ONE_TOKEN):
            wanted.add(name)
    assert set(bench.gradients(stage1, pictures)) == wanted


def test_stage_2_moves_motion_modules_alone(stage2, video) -> None:
    motion = {name for name, _ in stage2.named_parameters() if ".motion_modules." in name}
    assert set(trainable(stage2)) == motion
    assert set(bench.gradients(stage2, video)) == motion
    assert len(motion) == 13 * 26  # modules: 4 on the way down, 1 in the middle, 8 on the way up


def test_without_a_reference_the_reference_unet_learns_nothing(pictures) -> None:
    trainer = AniPortraitStage1(*bench.portrait_networks(motion=False), unconditional=1.0)
    moved = [name for name, gradient in bench.gradients(trainer, pictures).items() if gradient.any()]
    assert not [name for name in moved if name.startswith("reference_unet.")]
    grey, zeros = trainer.token(pictures["clip_image"], True), torch.zeros(2, 1, bench.CONTEXT)
    assert grey.abs().max() > 1e-3
    torch.testing.assert_close(grey[0], grey[1], atol=1e-5, rtol=1e-4)
    trainer.blank_token = True
    assert torch.equal(trainer.token(pictures["clip_image"], True), zeros)


def test_stage_1_learns(pictures) -> None:
    trainer = AniPortraitStage1(*bench.portrait_networks(motion=False), unconditional=0.0)
    before = trainer.pose_guider.conv_layers[1].running_mean.clone()
    assert bench.falls(trainer, pictures, 1e-3, 8) > 2.5
    assert not torch.allclose(before, trainer.pose_guider.conv_layers[1].running_mean, atol=1e-3)


def test_stage_2_learns(video) -> None:
    trainer = AniPortraitStage2(*bench.portrait_networks(motion=True), unconditional=0.0)
    assert bench.falls(trainer, video, 3e-3, 8) > 1.5


@pytest.mark.parametrize("build", [audio2mesh, audio2pose])
def test_speech_networks_learn_but_for_their_convolutions(build, clip) -> None:
    trainer = build()
    trainer.model.audio_encoder.config.layerdrop = 0.0
    batch = spoken(trainer, clip)
    everything = dict(trainer.named_parameters())
    frozen = ("model.audio_encoder.feature_extractor.", "model.audio_encoder.masked_spec_embed")
    assert set(trainable(trainer)) == {name for name in everything if not name.startswith(frozen)}
    if build is audio2mesh:  # its last layer begins at zero, and lets nothing through in the first step
        moved = {name for name, gradient in bench.gradients(trainer, batch).items() if gradient.any()}
        assert moved == {"model.out_fn.weight", "model.out_fn.bias"}
        torch.nn.init.normal_(trainer.model.out_fn.weight, 0, 0.02)
    assert set(bench.gradients(trainer, batch)) == set(trainable(trainer))
    assert bench.falls(build(), batch, 3e-4, 40) > 1.5


@torch.no_grad()
def test_teacher_forcing_equals_running_with_given_poses(clip) -> None:
    model = audio2pose().model.eval()
    states = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1))
    identities = torch.tensor([3, 70])
    own = torch.stack([model(s, int(i)) for s, i in zip(states, identities, strict=True)])
    torch.testing.assert_close(model.teach(states, own, identities), own, atol=1e-5, rtol=1e-4)
    changed = own.clone()
    changed[:, 4] += 1
    taught = model.teach(states, changed, identities)
    torch.testing.assert_close(taught[:, :5], own[:, :5], atol=1e-5, rtol=1e-4)
    assert (taught[:, 5:] - own[:, 5:]).abs().amin(dim=(0, 2)).gt(0).all()


def test_a_speech_encoder_in_training_gives_what_it_gives_in_inference() -> None:
    from talking_portrait.models.speech.encoder import resample_time
    from talking_portrait.pipelines.training.aniportrait.audio_encoder import encode_waves

    model = audio2mesh().model.eval()
    waves = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoded = encode_waves(model.audio_encoder, waves, 15)
        for wave, states in zip(waves, encoded, strict=True):
            features = resample_time(model.encoder.convolve(wave), 15)
            expected = model.encoder.transform(features, every_layer=False)[0]
            torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)


def write(folder: Path, trainer: Trainer) -> None:
    for name, state in trainer.export().items():
        write_tensors(folder / f"{name}.safetensors", state)


@torch.no_grad()
def test_what_is_trained_loads_again_by_the_published_names(tmp_path, stage1, stage2, clip) -> None:
    for trainer in (stage1, stage2, audio2mesh(), audio2pose()):
        write(tmp_path, trainer)
    assert {path.stem for path in tmp_path.iterdir()} == {
        "reference_unet",
        "denoising_unet",
        "pose_guider",
        "motion_module",
        "audio2mesh",
        "audio2pose",
    }
    reference = loading.load_reference_unet(tmp_path / "reference_unet.safetensors")
    guider = loading.load_pose_guider(tmp_path / "pose_guider.safetensors")
    denoising = loading.load_denoising_unet(
        tmp_path / "denoising_unet.safetensors", tmp_path / "motion_module.safetensors"
    )
    assert denoising.config == bench.VIDEO
    for loaded, trained in ((reference, stage1.reference_unet), (guider, stage1.pose_guider)):
        tensors = loaded.state_dict()
        for name, tensor in trained.state_dict().items():
            assert torch.equal(tensors[name], tensor), name
    mesh = loading.load_audio2mesh(tmp_path / "audio2mesh.safetensors")
    pose = loading.load_audio2pose(tmp_path / "audio2pose.safetensors")
    states = torch.randn(4, 32)
    torch.testing.assert_close(mesh(states), audio2mesh().model(states), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pose(states, 1), audio2pose().model.eval()(states, 1), atol=1e-5, rtol=1e-4)


def test_new_networks_change_nothing_at_first(tmp_path) -> None:
    torch.manual_seed(0)
    plain = UNet(bench.PICTURE).eval()
    write_tensors(tmp_path / "denoising_unet.safetensors", plain.state_dict())
    moving = with_new_motion(tmp_path / "denoising_unet.safetensors")
    sample, context = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 1, bench.CONTEXT)
    with torch.no_grad():
        torch.testing.assert_close(moving(sample, 5, context), plain(sample, 5, context), atol=1e-4, rtol=1e-4)
        features = new_pose_guider(32)(torch.rand(2, 3, 1, 64, 64))
    assert not features[0].any()
    write_tensors(tmp_path / "moving.safetensors", moving.state_dict())
    with pytest.raises(TalkingPortraitError, match="but a denoising UNet without motion modules"):
        with_new_motion(tmp_path / "moving.safetensors")


@pytest.mark.slow
def test_a_stage_in_parts_is_the_stage_in_one(tmp_path, clip) -> None:
    """Through the whole loop, with pictures on the way, in bf16 and with layers computed anew."""
    logs = []
    for parts in ((4,), (2, 4)):
        for steps in parts:
            trainer = AniPortraitStage2(
                *bench.portrait_networks(motion=True), unconditional=0.3, recompute=True, picture_steps=1
            )
            plan = Plan(steps=steps, rate=1e-3, save_every=2, picture_every=2, precision="bf16")
            train(trainer, PortraitVideos([clip], 0, frames=2), plan, tmp_path / str(parts), resume=True)
        logs.append(bench.read_log(tmp_path / str(parts)))
    bench.assert_same_log(*logs, rel=0.05)
    assert (tmp_path / "(4,)" / "motion_module.safetensors").is_file()
    assert (tmp_path / "(4,)" / "pictures" / "step-00000002.png").is_file()


def test_pictures_show_the_reference_the_drawings_the_result_and_the_truth(stage2, video) -> None:
    stage2.eval()
    with torch.no_grad():
        sheet = stage2.picture(video)
    assert sheet.shape == (4 * 64, 3 * 64, 3)
    assert sheet.min() >= 0
    assert sheet.max() <= 1
    torch.testing.assert_close(sheet[:64, 64:128], video["reference"][0] / 255)
    torch.testing.assert_close(sheet[192:, 64:128], video["frames"][0, 1] / 255)
    assert contact_sheet(torch.zeros(9, 4, 4, 3), columns=4).shape == (4, 16, 3)
