"""From sound to the face's shape and head movement."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from talking_portrait.models.aniportrait.audio2mesh import Audio2Mesh
from talking_portrait.models.aniportrait.audio2pose import Audio2Pose
from talking_portrait.pipelines.aniportrait.audio_motion import plan_chunks, predict_offsets, predict_poses
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import smooth_poses
from talking_portrait.pipelines.timing import frame_count
from talking_portrait.pipelines.types import Audio


def speech_encoder():
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(3)
    config = Wav2Vec2Config(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    return Wav2Vec2Model(config).eval()


def sound(samples: int, rate: int = 16000) -> Audio:
    generator = torch.Generator().manual_seed(1)
    return Audio(0.1 * torch.randn(1, samples, generator=generator), rate)


def test_chunks_use_all_sound_for_all_frames_at_every_length() -> None:
    around = (0, 1, 15999, 16000, 40000, 79999, 80000, 80001)
    for fives, more in itertools.product(range(5), around):
        samples = 80000 * fives + more
        if samples:
            frames = frame_count(samples, 16000, Fraction(30))
            chunks = plan_chunks(samples, frames)
            assert sum(chunk.samples for chunk in chunks) == samples
            assert sum(chunk.frames for chunk in chunks) == frames
            assert all((chunk.samples, chunk.frames) == (80000, 150) for chunk in chunks[:-1])
            assert 0 < chunks[-1].frames <= 300


def test_offsets_have_a_frame_for_each_thirtieth_of_a_second() -> None:
    torch.manual_seed(0)
    model, reports = Audio2Mesh(speech_encoder(), width=8).eval(), []
    offsets = predict_offsets(
        sound(22050, 22050), model, progress=lambda done, total, preview=None: reports.append((done, total))
    )
    assert offsets.shape == (30, 468, 3)
    assert np.isfinite(offsets).all()
    assert offsets.std(axis=0).min() > 0
    assert reports[-1][0] == reports[-1][1]


@pytest.fixture(scope="module")
def pose_model() -> Audio2Pose:
    torch.manual_seed(0)
    return Audio2Pose(speech_encoder(), width=64, inner=64, layers=1).eval()


@pytest.mark.parametrize(("samples", "frames"), [(16000, 30), (80000, 150), (160001, 301)])
def test_head_movement_lasts_as_long_as_the_sound(pose_model: Audio2Pose, samples: int, frames: int) -> None:
    reports: list[tuple[int, int]] = []
    rotation, translation = predict_poses(
        sound(samples), pose_model, 4, progress=lambda done, total, preview=None: reports.append((done, total))
    )
    assert rotation.shape == translation.shape == (frames, 3)
    assert reports[-1] == (frames, frames)
    assert len(reports) > frames


def test_head_movement_is_halved_turned_and_smoothed_over_chunks_that_begin_anew(pose_model: Audio2Pose) -> None:
    audio = sound(160001)
    rotation, translation = predict_poses(audio, pose_model, 4)
    encoder = pose_model.encoder
    wave = encoder.prepare(audio.waveform[0])  # over the whole clip, before it is cut
    raw = []
    with torch.no_grad():
        for piece, count in ((wave[:80000], 150), (wave[80000:], 151)):
            stretched = torch.nn.functional.interpolate(
                encoder.convolve(piece).transpose(1, 2), size=count, mode="linear", align_corners=True
            )
            raw.append(pose_model(encoder.transform(stretched.transpose(1, 2), every_layer=False)[0], 4).numpy())
    poses = smooth_poses(np.concatenate(raw) * [0.5, 0.5, 0.5, 1, 1, 1], 7)
    np.testing.assert_allclose(np.concatenate([rotation, translation], axis=1), poses, atol=1e-5)


def test_cancelling_stops_between_frames(pose_model: Audio2Pose) -> None:
    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        predict_poses(sound(16000), pose_model, 4, progress=cancel)


@pytest.mark.parametrize("identity", [-1, 100])
def test_styles_that_do_not_exist_are_refused(pose_model: Audio2Pose, identity: int) -> None:
    with pytest.raises(TalkingPortraitError, match=f"style is {identity}"):
        predict_poses(sound(16000), pose_model, identity)
