"""The real landmark engines, on the shipped portrait and on real ones; what they say of missing and broken files."""

from __future__ import annotations

import importlib.abc
import re
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face import landmarker_opencv as landmarks_tflite
from talking_portrait.pipelines.face.landmarks import detect, follow, open_landmarker
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.images import to_uint8
from talking_portrait.pipelines.image import person_mask
from talking_portrait.pipelines.image.affine_sampling import apply_map, box_map, invert_map, sample_picture, turned_map
from talking_portrait.pipelines.image.byte_sampling import cut_out
from talking_portrait.pipelines.model_files.download import file_sha256

DATA = Path(__file__).parents[4] / "shared" / "data"
TASK = DATA / "face_landmarker.task"
PORTRAITS = DATA / "portraits"


@pytest.fixture(scope="module")
def mediapipe_engine():
    pytest.importorskip("mediapipe")
    if not TASK.exists():
        pytest.skip(f"no face_landmarker.task at {TASK}")
    return open_landmarker(TASK)


@pytest.fixture(scope="module")
def opencv_engine():
    return open_landmarker(engine="opencv")


@pytest.fixture(params=["mediapipe", "opencv"])
def engine(request):
    return request.getfixturevalue(f"{request.param}_engine")


def difference(points: np.ndarray, expected: np.ndarray) -> float:
    """Mean distance in eye distances."""
    eyes = np.linalg.norm(expected[33, :2] - expected[263, :2])
    return float(np.linalg.norm(points[:468, :2] - expected[:468, :2], axis=1).mean() / eyes)


def test_the_shipped_landmarks_are_found_again(mediapipe_engine):
    image, shipped = example_portrait()
    track, _ = detect(image[None], mediapipe_engine)
    assert difference(track.points[0], shipped.points[0]) < 2e-3
    np.testing.assert_allclose(track.blendshapes, shipped.blendshapes, atol=0.02)
    np.testing.assert_allclose(track.matrix, shipped.matrix, atol=0.05)


def test_opencv_agrees_with_mediapipe_on_the_shipped_portrait(opencv_engine):
    image, shipped = example_portrait()
    track, report = detect(image[None], opencv_engine)
    assert difference(track.points[0], shipped.points[0]) < 0.03
    assert "468 points" in report
    assert 0.5 < track.score[0] <= 1


def test_a_shrunken_face_in_a_large_picture(engine):
    image, shipped = example_portrait()
    face = np.ptp(shipped.points[0, :, 1])
    side = round(512 * 64 / face)
    small = sample_picture(image, box_map(0, 0, 512, 512, (side, side)), (side, side))
    large = torch.full((1, 720, 1280, 3), 0.5)
    large[0, 400 : 400 + side, 900 : 900 + side] = small
    track, _ = detect(large, engine)
    expected = shipped.points[0] * side / 512 + [900, 400, 0]
    assert difference(track.points[0], expected) < 0.03


@pytest.mark.parametrize("degrees", [90, 120, 135, 180, 210, 225, 270])
def test_a_turned_face(engine, degrees):
    image, shipped = example_portrait()
    matrix = turned_map((256, 256), 730, -degrees, (730, 730))
    expected = apply_map(invert_map(matrix), shipped.points[0])
    track, _ = detect(sample_picture(image, matrix, (730, 730))[None], engine)
    assert difference(track.points[0], expected) < 0.04


def test_no_face_is_detected_in_noise(engine):
    noise = torch.rand(1, 300, 400, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(TalkingPortraitError, match="no face"):
        detect(noise, engine)


@pytest.mark.parametrize("name", ["aiface1.png", "aiface3.png", "cartoon_girl.png", "monalisa.jpg"])
def test_both_engines_agree_on_portraits(mediapipe_engine, opencv_engine, name):
    from talking_portrait.pipelines.files.images import read_image

    image = read_image(PORTRAITS / name)[None, ..., :3]
    first, _ = detect(image, mediapipe_engine)
    second, _ = detect(image, opencv_engine)
    assert difference(second.points[0], first.points[0]) < 0.03


# --- opening an engine ---


def fetch(arguments):
    return f"fetch {arguments}"


def test_without_any_file_the_shipped_networks_are_taken_and_the_better_model_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    page = "download it from https://.*face_landmarker, or run: "
    for path in (None, tmp_path):
        engine = open_landmarker(path, command=fetch)
        assert engine.name == "OpenCV"
        assert re.fullmatch(f"MediaPipe's .*; {page}fetch get face_landmarker", engine.hint)
    assert open_landmarker(engine="opencv").hint == ""
    with pytest.raises(TalkingPortraitError, match=f"detection has none; {page}python -m talking_portrait models get"):
        open_landmarker(engine="mediapipe")
    with pytest.raises(TalkingPortraitError, match="mediapipe landmark engine needs .* has none; .*fetch get face_lan"):
        open_landmarker(tmp_path, "mediapipe", command=fetch)


def test_what_else_lies_in_the_model_folder_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    (tmp_path / "detection").mkdir()
    for name in ("face_landmark.tflite", "face_detection_short_range.tflite", "hand_landmarker.task"):
        (tmp_path / "detection" / name).write_bytes(b"of an earlier version, or another task")
    assert open_landmarker().name == "OpenCV"


def test_missing_and_wrong_files_are_named(tmp_path):
    with pytest.raises(
        TalkingPortraitError, match=r"is not there, but a face landmarker \(.task\) .*fetch get face_lan"
    ):
        open_landmarker(tmp_path / "face_landmarker.task", command=fetch)
    (tmp_path / "other.tflite").write_bytes(b"x")
    with pytest.raises(TalkingPortraitError, match="other.tflite is something else, but .*fetch get face_landmarker"):
        open_landmarker(tmp_path / "other.tflite", command=fetch)
    with pytest.raises(TalkingPortraitError, match='engine is "tensorrt"'):
        open_landmarker(tmp_path, "tensorrt")


def test_a_broken_task_file_is_named(tmp_path):
    pytest.importorskip("mediapipe")
    (tmp_path / "face_landmarker.task").write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(TalkingPortraitError, match="not a face landmarker that mediapipe can open.*fetch get face_la"):
        open_landmarker(tmp_path, command=fetch)
    with zipfile.ZipFile(tmp_path / "face_landmarker.task", "w") as archive:
        archive.writestr("readme.txt", "no networks")
    with pytest.raises(TalkingPortraitError, match="not a face landmarker that mediapipe can open"):
        open_landmarker(tmp_path)


@pytest.mark.parametrize("damage", [b"\x00" * 64, b"", None])
def test_a_damaged_shipped_network_is_named(tmp_path, monkeypatch, damage):
    whole = landmarks_tflite.MESH_FILE.read_bytes()
    (tmp_path / "mesh.tflite").write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    monkeypatch.setattr(landmarks_tflite, "MESH_FILE", tmp_path / "mesh.tflite")
    with pytest.raises(TalkingPortraitError, match="mesh.tflite is not the network that its name promises"):
        open_landmarker(engine="opencv")


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'mediapipe'"), OSError("libGLESv2.so.2: no")])
def test_where_mediapipe_cannot_be_loaded_the_shipped_networks_are_taken(tmp_path, monkeypatch, error):
    class Refusing(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "mediapipe":
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == "mediapipe"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
    (tmp_path / "face_landmarker.task").write_bytes(b"x")
    engine = open_landmarker(tmp_path / "face_landmarker.task")
    assert engine.name == "OpenCV"
    assert re.search(rf"needs the mediapipe package, .*{error}.*; run: .* -m pip install mediapipe$", engine.hint)
    with pytest.raises(TalkingPortraitError, match=f"engine needs the mediapipe package, .*{error}.*pip install media"):
        open_landmarker(tmp_path, "mediapipe")


@pytest.mark.parametrize("cv2", [None, SimpleNamespace(__version__="4.7.0", dnn=SimpleNamespace()), SimpleNamespace()])
def test_without_a_usable_opencv_one_sentence_names_the_command(monkeypatch, cv2):
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    with pytest.raises(
        TalkingPortraitError, match=r"OpenCV 4\.8 or later is needed.*; run: .*opencv-python-headless$"
    ) as raised:
        open_landmarker(engine="opencv")
    assert "\n" not in str(raised.value)


def test_the_shipped_networks_are_those_of_their_notice():
    notice = (landmarks_tflite.FOLDER / "NOTICE").read_text()
    networks = (landmarks_tflite.DETECTOR_FILE, landmarks_tflite.MESH_FILE, person_mask.FILE)
    for path in networks:
        assert re.search(rf"^{path.name}$.*?sha256 +{file_sha256(path)}$", notice, re.MULTILINE | re.DOTALL)
    assert {path.name for path in landmarks_tflite.FOLDER.iterdir()} == {"NOTICE", *(path.name for path in networks)}


def test_a_path_with_other_letters(tmp_path, mediapipe_engine):
    folder = tmp_path / "Модели 模型"
    folder.mkdir()
    shutil.copy(TASK, folder / "face_landmarker.task")
    image, _ = example_portrait()
    assert detect(image[None], open_landmarker(folder))[0].frames == 1


@pytest.mark.parametrize(("side", "degrees"), [(120, 0), (150, -20), (420, 7), (700, 30), (1100, -12), (2500, 20)])
def test_the_networks_input_is_the_part_of_the_picture_that_is_meant(side, degrees):
    picture = (example_portrait()[0] * 255).round()
    if side > 1000:
        picture = picture.repeat_interleave(3, 0).repeat_interleave(3, 1)
    square = turned_map((picture.shape[1] * 0.51, picture.shape[0] * 0.4), side, degrees, (192, 192))
    expected = sample_picture(picture / 255, square, (192, 192)) * 255
    cut = cut_out(picture.byte().numpy(), square, 192)
    assert np.abs(cut - expected.numpy()).mean() < 1


@pytest.mark.parametrize(("size", "degrees"), [(1.0, 0.0), (1.6, -15.0), (0.6, -30.0)])
def test_a_face_is_found_from_a_square_of_another_size_and_roll(opencv_engine, monkeypatch, size, degrees):
    """As a detector, which sees 128 pixels of a whole picture, gives them for a small face."""
    image, track = example_portrait()
    points = track.points[0, :468, :2]
    middle, side = points.mean(axis=0), 1.5 * float(np.ptp(points, axis=0).max())
    wide = torch.full((1024, 1024, 3), 0.8)
    wide[256:768, 256:768] = image
    square = turned_map((middle[0] + 256, middle[1] + 256), size * side, degrees, (landmarks_tflite.MESH_SIZE,) * 2)
    monkeypatch.setattr(opencv_engine, "_detect", lambda *_: [square])
    (face,) = opencv_engine.faces(to_uint8(wide), 0.5)
    assert difference(face.points[:, :2] - 256, points) < 0.03


def test_bytes_and_numbers_show_the_same_face(opencv_engine):
    picture = (example_portrait()[0] * 255).round()
    both = [
        next(iter(follow([frames], picture.shape[:2], opencv_engine))) for frames in (picture / 255, picture.byte())
    ]
    np.testing.assert_allclose(both[0].points, both[1].points, atol=0.01)


def test_a_tracked_face_has_the_points_that_detecting_it_gives(opencv_engine):
    picture = to_uint8(example_portrait()[0])
    first = opencv_engine.faces(picture, 0.5)[0]
    for across, down in ((0, 0), (12, 0), (-9, 14)):
        moved = np.roll(picture, (down, across), axis=(0, 1))
        tracked, detected = opencv_engine.track(moved, first, 0.5), opencv_engine.faces(moved, 0.5)[0]
        assert difference(tracked.points, detected.points) < 0.02
    assert opencv_engine.track(np.full_like(moved, 128), first, 0.5) is None


def test_anchors_lie_in_the_middle_of_their_cells():
    anchors = landmarks_tflite._anchors()
    assert anchors.shape == (896, 2)
    np.testing.assert_array_equal(anchors[:4], [[4, 4], [4, 4], [12, 4], [12, 4]])
    np.testing.assert_array_equal(anchors[512], [8, 8])
    np.testing.assert_array_equal(anchors[-1], [120, 120])


def test_overlapping_detections_are_averaged_by_their_scores():
    place = np.zeros((3, 8, 2))
    place[:, 0] = [[50, 50], [54, 50], [100, 100]]
    place[:, 1] = 20
    merged = landmarks_tflite._merged(place, np.array([0.9, 0.3, 0.6]))
    np.testing.assert_allclose(merged[:, 0], [[51, 50], [100, 100]])
