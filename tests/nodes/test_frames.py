"""Frames that nodes hand on: even sides, room in memory, and checks before anything long begins."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from talking_portrait.nodes import extension, frames, host
from talking_portrait.nodes.loaded_models import LoadedFaceRestorer
from talking_portrait.pipelines.errors import TalkingPortraitError

NODES = {node.__name__: node for node in extension.NODES}


@pytest.fixture(scope="module")
def sample():
    return NODES["Example"].execute().args


@pytest.fixture(scope="module")
def motion(sample):
    audio = {**sample[1], "waveform": sample[1]["waveform"][..., :4800]}
    return NODES["InstantDriver"].execute(audio, 10.0, 0, 1, 1, 1, 1, 1).args[0]


def odd(sample, height: int, width: int):
    """The sample portrait, its right and lower edges cut off, with its landmarks."""
    landmarks = {**sample[2], "image_size": (height, width)}
    return sample[0][:, :height, :width], landmarks


@pytest.mark.parametrize(("height", "width"), [(511, 511), (511, 512), (512, 509)])
def test_frames_of_an_odd_picture_get_even_sides(sample, motion, height, width):
    image, landmarks = odd(sample, height, width)
    images, mask, _, _ = NODES["InstantRender"].execute(image, landmarks, motion, 2).args
    assert images.shape == (3, height + height % 2, width + width % 2, 3)
    assert mask.shape == images.shape[:3]
    still = mask[:, :height, :width].amax(dim=0) == 0
    assert still.any()
    torch.testing.assert_close(images[:, :height, :width][:, still], image[:, still].expand(3, -1, -1))
    for side, axis in ((height, 1), (width, 2)):
        if side % 2:
            last = images.select(axis, side - 1)
            torch.testing.assert_close(images.select(axis, side), last)
            torch.testing.assert_close(mask.select(axis, side), mask.select(axis, side - 1))


def test_one_more_row_and_column_are_the_last_ones():
    clip = torch.arange(2 * 3 * 5 * 3).reshape(2, 3, 5, 3)
    padded = frames.even_sides(clip)
    assert padded.shape == (2, 4, 6, 3)
    assert padded[:, :3, :5].tolist() == clip.tolist()
    assert padded[:, 3, :5].tolist() == clip[:, 2].tolist()
    assert padded[:, :, 5].tolist() == padded[:, :, 4].tolist()
    assert frames.even_sides(padded) is padded


@pytest.mark.parametrize("count", [1, 2])
def test_pasted_frames_get_even_sides_and_a_single_picture_keeps_its_size(sample, count):
    image, landmarks = odd(sample, 511, 509)
    cut, crop, _ = NODES["CropPortrait"].execute(image, landmarks, 128, "head", 1.0, False, False).args
    pasted = NODES["PasteBack"].execute(cut.expand(count, -1, -1, -1), crop, 0.1).args[0]
    assert pasted.shape == (count, *((511, 509) if count == 1 else (512, 510)), 3)


def test_frames_with_even_sides_are_pasted_where_odd_ones_were_cropped(sample):
    """Crop Portrait's size 0 may be odd, and Instant Render's frames and mask have even sides then."""
    image, landmarks = sample[0], sample[2]
    cut, crop, _ = NODES["CropPortrait"].execute(image, landmarks, 101, "head", 1.0, False, False).args
    mask = torch.ones(cut.shape[:3])
    mask[:, :20] = 0
    odd, even = (
        NODES["PasteBack"].execute(crops, crop, 0.0, image, part).args[0]
        for crops, part in ((cut, mask), (frames.even_sides(cut), frames.even_sides(mask)))
    )
    torch.testing.assert_close(odd, even)
    for size in ((100, 101), (102, 101), (202, 202)):
        assert frames.as_before(torch.zeros(1, *size, 3), (101, 101)).shape[1:3] == size
    assert frames.as_before(torch.zeros(1, 102, 102), (101, 101)).shape == (1, 101, 101)


def test_frames_between_odd_frames_get_even_sides(monkeypatch):
    monkeypatch.setattr(
        "talking_portrait.pipelines.image.frame_interpolation.interpolated_by",
        lambda network, images, count, **options: iter(images[:1].expand(3, -1, -1, -1).split(1)),
    )
    images, _ = NODES["FrameInterpolation"].execute(torch.rand(2, 41, 24, 3), 10.0, 1, patcher(Blend())).args
    assert images.shape == (3, 42, 24, 3)


class Blend(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, first: torch.Tensor, last: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.lerp(first, last, timestep)


def patcher(network: torch.nn.Module) -> object:
    return type("Patcher", (), {"model": network, "load_device": torch.device("cpu")})()


@pytest.mark.parametrize(
    ("insert", "network", "words"),
    [
        (0, Blend(), '"insert" is 0, but a number from 1 to 15 is expected'),
        (-1, Blend(), '"insert" is -1, but'),
        (10**9, Blend(), '"insert" is 1000000000, but'),
        (1, torch.nn.Linear(1, 1), "but a frame interpolation network is expected"),
    ],
)
def test_frames_that_can_not_be_inserted_are_refused_before_a_network_runs(insert, network, words):
    with pytest.raises(TalkingPortraitError, match=words):
        NODES["FrameInterpolation"].execute(torch.rand(2, 16, 16, 3), 10.0, insert, patcher(network))


def test_frames_that_memory_cannot_hold_are_refused_before_rendering(sample, motion, monkeypatch):
    """Eight seconds of twelve megapixels."""
    calls = []
    monkeypatch.setattr(host, "free_memory", lambda: 16_000_000_000)
    monkeypatch.setattr("talking_portrait.pipelines.instant.animate.prepare_portrait", lambda *a, **b: calls.append(a))
    repeated = torch.zeros(200, dtype=torch.long).numpy()
    long = replace(motion, **{name: rows[repeated] for name, rows in motion.rows.items()})
    photo = torch.zeros(1, 1, 1, 3).expand(1, 3000, 4000, 3)
    landmarks = {**sample[2], "image_size": (3000, 4000)}
    with pytest.raises(TalkingPortraitError) as raised:
        NODES["InstantRender"].execute(photo, landmarks, long)
    message = str(raised.value)
    assert message.startswith(
        "Instant Render: 200 frames of 4000 x 3000 pixels take 38.4 GB of memory, but 16.0 GB are"
    )
    for advice in ("Scale Image to Total Pixels", "make the clip shorter", "output video"):
        assert advice in message
    assert not calls
    monkeypatch.setattr(host, "free_memory", lambda: None)
    with pytest.raises(AttributeError):  # as nothing was prepared, but the frames were not refused
        NODES["InstantRender"].execute(sample[0], sample[2], motion)
    assert len(calls) == 1


@pytest.mark.parametrize("node", ["PasteBack", "CropPortrait", "RestoreFaces", "PreviewMotion", "DrawPose"])
def test_other_clips_that_memory_cannot_hold_are_refused(sample, motion, monkeypatch, node):
    image, landmarks = sample[0], sample[2]
    crop = NODES["CropPortrait"].execute(image, landmarks, 64, "head", 1.0, False, False).args[1]
    monkeypatch.setattr(host, "free_memory", lambda: 1_000_000)
    inputs = {
        "PasteBack": (torch.zeros(2, 64, 64, 3), crop, 0.1),
        "CropPortrait": (image, landmarks, 512, "head", 1.0, False, False),
        "RestoreFaces": (image, 1.0, "centre", LoadedFaceRestorer(host.ManagedModule(torch.nn.Identity()))),
        "PreviewMotion": (motion, 512),
        "DrawPose": (motion, 512, 512, landmarks),
    }
    with pytest.raises(TalkingPortraitError, match=r"frames of 512 x 512 pixels take .* but 0\.0 GB are free; make"):
        NODES[node].execute(*inputs[node])


@pytest.mark.parametrize("size", [None, (64, 64)])
def test_a_clip_is_refused_before_or_at_its_first_frames(size, monkeypatch):
    monkeypatch.setattr(host, "free_memory", lambda: 1_000_000)
    made = []

    def batches():
        made.append(1)
        yield torch.zeros(2, 64, 64, 3)

    with pytest.raises(TalkingPortraitError, match=r"100 frames of 64 x 64 pixels take 0\.0 GB of memory"):
        frames.frames_in_memory(batches(), 100, size)
    assert len(made) == (0 if size else 1)


def test_free_memory_is_a_number_of_bytes_or_not_known():
    free = host.free_memory()
    assert free is None or 10_000_000 < free < 10**15


def test_a_wrong_choice_is_reported_before_faces_are_detected(sample, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("detected")

    monkeypatch.setattr("talking_portrait.pipelines.face.landmarks._Follower.next", never)
    for changes, words in (
        ({"missing": "guess"}, "hold, interpolate or error is expected"),
        ({"face": "tallest"}, "tallest"),
        ({"min_confidence": 2.0}, '"min_confidence" is 2.0, but a number from 0.05 to 1 is expected'),
        ({"engine": "yolo"}, "auto, mediapipe or opencv is expected"),
    ):
        inputs = {"face": "largest", "index": 0, "missing": "hold", **changes}
        with pytest.raises(TalkingPortraitError, match=words):
            NODES["DetectLandmarks"].execute(sample[0], **inputs)
