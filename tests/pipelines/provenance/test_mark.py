"""The invisible mark: how little it changes, what it survives, and that it is not found where it is not."""

from __future__ import annotations

import random
import statistics
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.video import VideoWriter
from talking_portrait.pipelines.provenance.detect import THRESHOLD, detect_mark, threshold
from talking_portrait.pipelines.provenance.marking import MarkedFrames
from talking_portrait.pipelines.provenance.pattern import TILE, WAVES, tile

from ...bench.mark import COPIES, copied, copy_options, interval

SIDE = 256


def moving(frames: int = 12, side: int = SIDE) -> np.ndarray:
    """The shipped portrait, whose middle moves to and fro, (F, side, side, 3) uint8."""
    picture = torch.nn.functional.interpolate(example_portrait()[0].permute(2, 0, 1)[None], side, mode="area")
    still = (picture[0].permute(1, 2, 0) * 255).byte().numpy()
    clip = np.repeat(still[None], frames, axis=0)
    inside = slice(side // 4, -side // 4)
    for number, frame in enumerate(clip):
        frame[inside, inside] = np.roll(still, round(4 * np.sin(number)), axis=1)[inside, inside]
    return clip


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "marked.mp4"
    write_stream(path, [torch.from_numpy(moving())], Fraction(25))
    return path


@pytest.mark.parametrize("size", [(512, 512), (256, 384), (96, 128), (65, 77), (1080, 1920)])
def test_the_change_is_at_least_42_db_below_the_picture(size: tuple[int, int]) -> None:
    grey = np.full((1, *size, 3), 128, np.uint8)
    change = MarkedFrames(size)(grey).astype(float) - grey
    psnr = 10 * np.log10(255**2 / np.square(change).mean())
    assert 42 <= psnr < 46
    assert abs(change.mean()) < 0.1, "the brightness stays"
    assert np.ptp(change, axis=-1).max() == 0, "and the colour"


def test_small_frames_are_marked_and_their_copies_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_stream(tmp_path / "small.mp4", [torch.from_numpy(moving(side=128))], Fraction(25))
    assert detect_mark(tmp_path / "small.mp4").found
    (said,) = caplog.messages
    assert said.startswith("Frames of 128 x 128 pixels are small: copies of the video may lose the invisible mark")
    MarkedFrames((192, 200))
    assert len(caplog.messages) == 1


def test_black_and_white_stay_within_bytes() -> None:
    frames = np.concatenate([np.zeros((1, 64, 64, 3), np.uint8), np.full((1, 64, 64, 3), 255, np.uint8)])
    dark, bright = MarkedFrames((64, 64))(frames)
    assert dark.max() < 10
    assert bright.min() > 245


def test_the_tile_is_noise_of_a_band_that_repeats() -> None:
    assert tile().shape == (TILE, TILE)
    assert abs(float(tile().mean())) < 1e-5
    assert float(np.square(tile()).mean()) == pytest.approx(1, abs=1e-3)
    power = np.square(np.abs(np.fft.fft2(tile())))
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE))
    outside = (frequency < 0.99 / WAVES[1]) | (frequency > 1.01 / WAVES[0])
    assert power[outside].sum() < 1e-6 * power.sum()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-crf", "28"),
        ("-vf", "scale=iw/2:ih/2"),
        ("-vf", "crop=iw*0.9:ih*0.9"),
        ("-r", "24"),
        ("-vf", "hflip"),
        ("-vf", "scale=iw*1.5:ih*1.5"),
        ("-vf", "pad=iw:ih*1.5:0:ih/4"),
        copy_options(random.Random(0))[COPIES[-1]],
    ],
    ids=" ".join,
)
def test_the_mark_is_found_in_copies(marked: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    path = copied(marked, tmp_path / "copy.mp4", *options) if options else marked
    found = detect_mark(path)
    assert found.found
    assert found.score > THRESHOLD + 1


def patterns() -> dict[str, np.ndarray]:
    """Pictures (SIDE, SIDE) uint8 that are regular or noisy, but not marked."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    noise = np.random.default_rng(0)
    return {
        "black": np.zeros((SIDE, SIDE)),
        "gradient": columns / SIDE * 255,
        "stripes": 128 + 60 * np.sin(columns * 2 * np.pi / 12),
        "tiles": 255.0 * (((rows // 8) + (columns // 8)) % 2),
        "tiled noise": np.tile(noise.integers(0, 256, (SIDE // 4, SIDE // 4)), (4, 4)),
        "noise": noise.integers(0, 256, (SIDE, SIDE)),
    }


@pytest.mark.parametrize("name", ["portrait", *patterns()])
def test_it_is_not_found_where_it_is_not(tmp_path: Path, name: str) -> None:
    frames = moving() if name == "portrait" else patterns()[name].astype(np.uint8)[None, ..., None].repeat(3, axis=-1)
    with VideoWriter(tmp_path / "plain.mp4", (SIDE, SIDE), Fraction(25)) as video:
        video.write(frames)
    steps: list[tuple[int, int]] = []
    found = detect_mark(tmp_path / "plain.mp4", progress=lambda done, total, preview=None: steps.append((done, total)))
    assert not found.found
    assert found.score < THRESHOLD - 0.4
    assert steps == [(number, len(frames)) for number in range(1, len(frames) + 1)]


def test_a_video_of_which_a_part_is_marked_has_parts_that_are(tmp_path: Path) -> None:
    clip = moving(2, 96)
    with VideoWriter(tmp_path / "part.mp4", (96, 96), Fraction(2)) as video:
        for number in range(80):
            pair = MarkedFrames((96, 96))(clip) if number < 40 else clip
            video.write(pair[number % 2 : number % 2 + 1])
    found = detect_mark(tmp_path / "part.mp4")
    assert (found.marked, found.segments) == (1, 2)


def test_a_longer_video_needs_a_higher_score() -> None:
    """What a normal distribution exceeds in one of n segments: n times the tail at `THRESHOLD`."""
    assert threshold(1) == THRESHOLD
    tail = statistics.NormalDist().cdf
    for segments in (10, 180):
        assert segments * tail(-threshold(segments)) == pytest.approx(tail(-THRESHOLD), rel=0.15)


def test_wilsons_interval_is_the_published_one() -> None:
    assert interval(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
