"""LPIPS over two videos, and which networks are found."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.pipelines.evaluation.networks import Networks, load_networks
from talking_portrait.pipelines.evaluation.picture_distance import PictureDistance, picture_distance
from talking_portrait.pipelines.evaluation.watched_face import watch_face
from talking_portrait.pipelines.files.video import VideoWriter, open_video
from talking_portrait.pipelines.types import no_progress

from ...models.test_lpips import weights
from ...speaking_person import MARK, SIZE, MarkLandmarker, Scene, picture, speaking, write_video


class Difference:
    """In the place of LPIPS: the mean difference in grey levels."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def __call__(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.shapes.append(image.shape)
        assert image.shape == target.shape
        return 255 * (image - target).abs().mean((1, 2, 3))


def distance(video: Path, reference: Path, network: Difference | None = None) -> PictureDistance:
    files = [open_video(path) for path in (video, reference)]
    faces = [watch_face(file, MarkLandmarker(), progress=no_progress) for file in files]
    pairs = (files[0], faces[0], files[1], faces[1])
    return picture_distance(*pairs, network or Difference(), progress=no_progress)  # type: ignore[arg-type]


def darker(scene: Scene) -> np.ndarray:
    frame = picture(scene)
    frame[frame.shape[0] // 3 :] //= 2
    return frame


def lit(scene: Scene) -> np.ndarray:
    """The brighter, the wider the mouth is open."""
    frame = picture(scene)
    frame[MARK:] = 40 + round(160 * scene.opening)
    return frame


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("reference") / "ann.mp4", speaking(0.8), sound=None)


def test_a_video_differs_in_nothing_from_itself(reference: Path) -> None:
    network = Difference()
    assert distance(reference, reference, network) == PictureDistance(0, 0)
    assert set(network.shapes) == {(1, 3, SIZE, SIZE)}
    assert len(network.shapes) == 2 * 4, "five pairs a second"


def test_times_are_compared_at_other_rates_and_lengths(tmp_path: Path) -> None:
    slower, faster, late = tmp_path / "slow.mp4", tmp_path / "fast.mp4", tmp_path / "late.mp4"
    write_video(slower, speaking(0.8), sound=None, drawn=lit)
    write_video(faster, speaking(0.6, Fraction(50)), fps=Fraction(50), sound=None, drawn=lit)
    write_video(late, speaking(0.8)[3:], sound=None, drawn=lit)
    found, shifted = distance(faster, slower), distance(late, slower)
    assert found.whole is not None
    assert max(found.whole, found.mouth) < 8
    assert min(shifted.whole or 0, shifted.mouth) > 25


def test_what_looks_different_differs(reference: Path, tmp_path: Path) -> None:
    dark = write_video(tmp_path / "dark.mp4", speaking(0.8), sound=None, drawn=darker)
    found = distance(dark, reference)
    assert found.whole is not None
    assert found.whole > 10
    assert found.mouth > 10


def test_other_sizes_are_scaled_and_other_proportions_have_mouths_alone(reference: Path, tmp_path: Path) -> None:
    frames = [picture(scene) for scene in speaking(0.3)]
    double = [np.repeat(np.repeat(frame, 2, axis=0), 2, axis=1) for frame in frames]
    wide = [np.pad(frame, ((0, 0), (0, 64), (0, 0))) for frame in frames]
    for name, pictures in (("double", double), ("wide", wide)):
        with VideoWriter(tmp_path / f"{name}.mp4", pictures[0].shape[:2], Fraction(25)) as video:
            video.write(np.stack(pictures))
    larger = distance(tmp_path / "double.mp4", reference)
    assert larger.whole is not None
    assert max(larger.whole, larger.mouth) < 8
    wider = distance(tmp_path / "wide.mp4", reference)
    assert wider.whole is None
    assert wider.mouth < 4


def test_networks_are_those_whose_files_are_all_there(tmp_path: Path) -> None:
    assert load_networks(lambda name: None) == Networks()
    state = weights("features")
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("lpips_alex", "alexnet")}
    for name, path in paths.items():
        save_file({key: each for key, each in state.items() if key.startswith("lin") == (name == "lpips_alex")}, path)
    assert load_networks(paths.get).lpips is not None
    assert load_networks({"lpips_alex": paths["lpips_alex"]}.get) == Networks()
    with pytest.raises(TalkingPortraitError, match="alexnet.safetensors is .*, but SyncNet .* is expected here"):
        load_networks({"syncnet": paths["alexnet"]}.get)
