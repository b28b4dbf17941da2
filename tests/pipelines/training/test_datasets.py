"""Samples for AniPortrait's trainers: the right frames, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from talking_portrait.models.speech.encoder import normalise_wave
from talking_portrait.pipelines.aniportrait.pose_image import draw_pose_image
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import head_matrix
from talking_portrait.pipelines.training.aniportrait.datasets import PortraitVideos, SpokenPoses, SpokenShapes
from talking_portrait.pipelines.training.data.clips import Clip, read_clips
from talking_portrait.pipelines.training.data.datasets import Clips

from . import training_bench as bench


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("data")
    for name, person in (("one", "bob"), ("two", "ann"), ("three", "bob")):
        bench.make_clip(folder, name, frames=64, person=person)
    return read_clips(folder)


class Names(Clips):
    def item(self, clip: Clip, rng: np.random.Generator) -> dict:
        return {"name": clip.folder.name, "random": rng.random()}


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(0, 50))
def test_every_clip_comes_once_before_any_comes_again(seed: int, turn: int) -> None:
    folder = Path("nowhere")
    many = [Clip(folder / str(i), 10, bench.Fraction(30), 64, "ann", "", 0) for i in range(7)]
    samples = Names(many, seed)
    names = [samples[turn * 7 + i]["name"] for i in range(7)]
    assert sorted(names) == [str(i) for i in range(7)]
    assert samples[turn]["random"] == Names(many, seed)[turn]["random"]
    assert samples[turn]["random"] != samples[turn + 1]["random"]


def test_a_video_sample_is_frames_of_one_clip_with_their_drawings(clips: list[Clip]) -> None:
    samples = PortraitVideos(clips[:1], 3, frames=16, strides=(1, 4))
    clip, strides = clips[0], set()
    drawn = [draw_pose_image(np.array(points), (64, 64)) for points in clip.array("points")]
    pictures = [clip.picture(i) for i in range(clip.frames)]
    for number in range(12):
        sample = samples[number]
        places = [next(i for i, d in enumerate(drawn) if np.array_equal(d, own)) for own in sample["drawings"].numpy()]
        first = next(start for start in range(64) if np.array_equal(drawn[start], sample["drawings"][0].numpy()))
        stride = (places[-1] - first + 7) // 15
        strides.add(stride)
        for i in range(16):
            assert np.array_equal(sample["frames"][i].numpy(), pictures[first + stride * i])
            assert np.array_equal(sample["drawings"][i].numpy(), drawn[first + stride * i])
        assert any(np.array_equal(sample["reference"].numpy(), picture) for picture in pictures)
        assert sample["clip_image"].shape == (3, 224, 224)
    assert strides == {1, 4}


def test_strides_that_do_not_fit_are_not_taken(clips: list[Clip]) -> None:
    samples = PortraitVideos(clips, 0, frames=40, strides=(4,))
    assert samples[0]["frames"].shape == (40, 64, 64, 3)
    with pytest.raises(TalkingPortraitError, match="None of the 3 clips has the 65 frames"):
        PortraitVideos(clips, 0, frames=65)


def test_shapes_are_offsets_from_the_most_neutral_frame(clips: list[Clip]) -> None:
    clip = clips[0]
    neutral = int(clip.array("blendshapes")[:, 1:].sum(axis=1).argmin())
    sample = SpokenShapes([clip], 0, 64)[0]
    expected = clip.array("vertices") - clip.array("vertices")[neutral]
    np.testing.assert_allclose(sample["offsets"].numpy(), expected, atol=1e-6)
    assert not sample["offsets"][neutral].any()
    wave = normalise_wave(torch.from_numpy(np.array(clip.array("speech"))))
    torch.testing.assert_close(sample["wave"], wave[: len(sample["wave"])])
    part = SpokenShapes([clip], 0, 20)[5]
    assert part["wave"].shape == (20 * 16000 // 30,)
    assert part["offsets"].shape == (20, 468, 3)


def test_poses_begin_at_rest_and_act_in_the_heads_frame(clips: list[Clip]) -> None:
    samples = SpokenPoses(clips, 0, 30)
    assert samples.persons == ["ann", "bob"]
    for number in range(3):
        poses = samples[number]["poses"].double().numpy()
        assert np.abs(poses[0]).max() < 1e-5
        assert poses.shape == (30, 6)
    whole = SpokenPoses([clips[0]], 0, 64)[0]
    matrix = clips[0].array("matrix").astype(np.float64)
    moved = matrix[0] @ head_matrix(whole["poses"][:, :3].numpy(), whole["poses"][:, 3:].numpy())
    np.testing.assert_allclose(moved[:, :3, 3], matrix[:, :3, 3], atol=1e-3)
    assert int(whole["identity"]) == 0


def test_more_persons_than_the_network_has_are_refused(clips: list[Clip]) -> None:
    from dataclasses import replace

    crowd = [replace(clips[0], person=f"person {i}") for i in range(101)]
    with pytest.raises(TalkingPortraitError, match="101 persons, but this network has 100"):
        SpokenPoses(crowd, 0, 30)
