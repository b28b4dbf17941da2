"""`train face-points`: crops of faces, and networks that come nearer to a better landmarker than coarse points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.__main__ import main
from talking_portrait.models.face.face_mesh import mirror_index
from talking_portrait.models.face.part_points import load_part_points
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face import landmarks
from talking_portrait.pipelines.face.face import Face
from talking_portrait.pipelines.face.part_points import PartPoints
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.images import to_uint8, write_image
from talking_portrait.pipelines.files.video import VideoWriter
from talking_portrait.pipelines.packages import load_opencv
from talking_portrait.pipelines.training.face.examples import CROP, collect
from talking_portrait.pipelines.training.face.part_points import (
    EYES_SUBJECT,
    MOUTH_SUBJECT,
    Settings,
    _Normalised,
    errors,
    train_part_points,
)


class Recorded:
    """MediaPipe's landmarks of the shipped portrait, at whatever size it comes."""

    name = "recorded"

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        points = example_portrait()[1].points[0] * picture.shape[0] / 512
        return [Face(points, None, None)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    image, _ = example_portrait()
    write_image(folder / "a.png", image)
    (folder / "b.txt").write_text("no picture")
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:2000])
    small = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size=(256, 256), mode="area")
    frames = to_uint8(small[0].permute(1, 2, 0)[None].expand(11, -1, -1, -1))
    with VideoWriter(folder / "d.mp4", (256, 256), 25) as video:
        video.write(frames)
    return folder


@pytest.fixture(scope="module")
def crops(folder):
    return collect(folder, Recorded())[0]


def test_every_face_gives_a_mouth_and_two_eyes(folder, crops):
    _, names = collect(folder, Recorded())
    assert names == ["a.png", "c.png", "d.mp4"]
    mouth, eyes = crops["mouth"], crops["eyes"]
    assert [names[number] for number in mouth.files] == ["a.png"] + ["d.mp4"] * 6  # every second of eleven
    assert len(eyes) == 2 * len(mouth)
    assert mouth.pictures.shape[1:] == (CROP, CROP, 3)
    assert mouth.pictures.dtype == np.uint8
    # The left eye is mirrored, so that both are a right one in the left half of the face.
    ring = list(EYES_SUBJECT.rings[-1][0])
    outer, inner = ring[0], ring[len(ring) // 2]
    assert (eyes.fine[:, outer, 0] < eyes.fine[:, inner, 0]).all()
    assert np.abs(eyes.fine[:, ring] - eyes.coarse[:, ring]).max() < 0.2


def test_a_folder_without_faces_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(TalkingPortraitError, match="No face was found in the 0 videos and pictures"):
        collect(tmp_path, Recorded())


def test_a_reading_process_does_not_wait_for_threads_of_opencv_that_it_has_not(crops):
    """They are of the process that forks it, where pictures were scaled before."""
    opencv = load_opencv()
    before = opencv.getNumThreads()
    try:
        opencv.setNumThreads(2)
        opencv.resize(np.zeros((2000, 2000, 3), np.uint8), (3000, 3000))  # begins its threads
        train_part_points(crops["eyes"], EYES_SUBJECT, Settings(steps=1, batch=2, workers=1))
        assert opencv.getNumThreads() == 2
    finally:
        opencv.setNumThreads(before)


@pytest.mark.parametrize(("part", "subject"), [("mouth", MOUTH_SUBJECT), ("eyes", EYES_SUBJECT)])
def test_the_corrected_points_come_nearer(crops, part, subject):
    network = train_part_points(crops[part], subject, Settings(steps=40, batch=8, workers=0))
    found = errors(network, crops[part], subject)
    assert found["corrected"] < 0.9 * found["coarse"]
    assert not network.training


def test_same_seed_same_network(crops):
    both = [train_part_points(crops["eyes"], EYES_SUBJECT, Settings(steps=2, batch=4, workers=0)) for _ in range(2)]
    for one, other in zip(*(network.state_dict().values() for network in both), strict=True):
        torch.testing.assert_close(one, other)


def test_landmarks_of_the_mouth_are_those_of_both_sides():
    numbers = MOUTH_SUBJECT.landmarks()
    assert set(mirror_index()[numbers]) == set(numbers)
    assert not set(mirror_index()[EYES_SUBJECT.landmarks()]) & {33, 133, 159}


def test_the_normalisation_is_folded_into_the_convolutions():
    from talking_portrait.models.face.part_points import PartPointsConfig, PartPointsNetwork

    torch.manual_seed(0)
    network = _Normalised(PartPointsNetwork(PartPointsConfig(points=5, size=32, width=4, hidden=8)))
    torch.nn.init.normal_(network.network.correction.weight)
    pictures, coarse = torch.rand(6, 3, 32, 32), torch.rand(6, 5, 3)
    for _ in range(3):
        network(pictures, coarse)
    network.eval()
    torch.testing.assert_close(network.folded()(pictures, coarse), network(pictures, coarse), rtol=1e-4, atol=1e-5)


def test_the_command_writes_both_networks(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(landmarks, "open_landmarker", lambda *arguments: Recorded())
    arguments = ["--faces", str(folder), "--out", str(tmp_path / "out"), "--steps", "2", "--workers", "0"]
    assert main(["train", "face-points", *arguments, "--held-out", "d"]) == 0
    assert "mouth, 2 steps: coarse 0." in capsys.readouterr().out
    for name in ("mouth", "eye"):
        path = Path(tmp_path / "out" / f"{name}_points.safetensors")
        assert len(load_part_points(path).landmarks) > 30
        assert PartPoints(path, ()).network.config.points == len(load_part_points(path).landmarks)


def test_impossible_options_are_named(folder, tmp_path, capsys):
    arguments = ["--faces", str(folder), "--out", str(tmp_path)]
    assert main(["train", "face-points", *arguments, "--steps", "0"]) == 2
    assert "--steps 0 was given, but 1 to 1000000 is expected" in capsys.readouterr().err
    assert main(["train", "face-points", "--faces", str(folder), "--out", str(folder / "out")]) == 2
    assert "name a folder outside of it with --out" in capsys.readouterr().err
    assert not (folder / "out").exists()
