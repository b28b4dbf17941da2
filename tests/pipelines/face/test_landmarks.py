"""Detection, selection, tracking and interpolation with a fake engine; then the real engines on real portraits."""

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
from talking_portrait.models.face.face_mesh import BLENDSHAPES, face_mesh, mouth_opening
from talking_portrait.models.face.mouth_shapes import mouth_vertices, neutral_vertices
from talking_portrait.models.face.upper_face_shapes import upper_face_shapes
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face import landmarker_opencv as landmarks_tflite
from talking_portrait.pipelines.face.expression_scores import scores_from_shape
from talking_portrait.pipelines.face.face import Face
from talking_portrait.pipelines.face.landmarks import detect, detect_all, open_landmarker
from talking_portrait.pipelines.face.smoothing import smooth_points
from talking_portrait.pipelines.files.example import sample_portrait
from talking_portrait.pipelines.image.affine_sampling import apply_map, box_map, invert_map, sample_picture, turned_map
from talking_portrait.pipelines.model_files.download import file_sha256

DATA = Path(__file__).parents[4] / "shared" / "data"
TASK = DATA / "face_landmarker.task"
PORTRAITS = DATA / "portraits"

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
SHAPE = (face_mesh().vertices - face_mesh().vertices.min(axis=0)) / np.ptp(face_mesh().vertices, axis=0).max()
SHAPE = np.column_stack([SHAPE[:, 0], SHAPE[:, 1].max() - SHAPE[:, 1], -SHAPE[:, 2]])
WIDTH, HEIGHT = SHAPE[:, 0].max(), SHAPE[:, 1].max()


class ColourLandmarker:
    """Detects squares of pure colour as faces; like the real ones only if they lie inside and are 15 % of the view."""

    name = "colours"

    def __init__(self) -> None:
        self.runs = 0

    def faces(self, picture, min_confidence):
        self.runs += 1
        assert picture.dtype == np.uint8
        faces = []
        for channel in range(3):
            others = [other for other in range(3) if other != channel]
            mask = (picture[..., channel] > 180) & (picture[..., others] < 90).all(axis=-1)
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            if not len(rows):
                continue
            top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            height, width = picture.shape[:2]
            inside = top > 0 and bottom < height and left > 0 and right < width
            if inside and bottom - top >= 0.15 * max(height, width):
                points = SHAPE * (bottom - top) + [left, top, 0]
                scores = np.full(52, channel / 2, dtype=np.float32)
                faces.append(Face(points=points, blendshapes=scores, score=0.9))
        return faces


def picture(size, *squares) -> torch.Tensor:
    """A grey, uneven picture (1, H, W, 3) with squares (colour, left, top, side)."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grey = 0.5 + 0.2 * torch.sin(x / 9) * torch.cos(y / 7)
    result = grey[..., None].expand(height, width, 3).clone()
    for colour, left, top, side in squares:
        result[top : top + side, left : left + round(side * WIDTH / HEIGHT)] = torch.tensor(COLOURS[colour])
    return result[None]


def place(track, frame=0):
    """Left, top and height of a track's face."""
    flat = track.points[frame, :, :2]
    return (*flat.min(axis=0), np.ptp(flat[:, 1]))


def test_a_face_is_found_with_its_pose_and_scores():
    track, report = detect(picture((300, 400), ("green", 150, 60, 120)), ColourLandmarker())
    np.testing.assert_allclose(place(track), (150, 60, 120), atol=0.01)
    assert track.points.shape == (1, 468, 3)
    assert track.matrix.shape == (1, 4, 4)
    assert track.matrix[0, 2, 3] < -20  # cm before the camera
    assert (track.blendshapes == 0.5).all()
    assert track.score == pytest.approx(0.9)
    assert track.image_size == (300, 400)
    assert report == "1 of 1 frame shows the face; 468 points. Faces seen: 1. Engine: colours."


@pytest.mark.parametrize(
    ("size", "square"),
    [
        ((1080, 1920), (1400, 700, 60)),  # small in a large picture
        ((1500, 2400), (2000, 1300, 70)),
        ((2000, 300), (120, 1500, 64)),
        ((100, 100), (0, 0, 100)),  # fills it
        ((400, 400), (250, 0, 390)),  # cut by the edge
    ],
)
def test_small_and_cut_faces_are_found(size, square):
    left, top, side = square
    track, _ = detect(picture(size, ("red", *square)), ColourLandmarker())
    visible = min(left + side * WIDTH / HEIGHT, size[1]) - left
    flat = track.points[0, :, :2]
    tolerance = 0.03 * side + 1
    np.testing.assert_allclose(flat.min(axis=0), (left, top), atol=tolerance)
    if visible == side * WIDTH / HEIGHT:
        assert abs(np.ptp(flat[:, 1]) - side) < tolerance


class PicturesSeen(ColourLandmarker):
    """Records its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[bytes] = []

    def faces(self, picture, min_confidence):
        self.reports.append(picture.tobytes())
        return super().faces(picture, min_confidence)


@pytest.mark.parametrize("empty", [0, 2])
def test_all_faces_of_a_video_are_tracked_and_its_pictures_detected_once(empty):
    """Faces that begin after some frames without any, one of which is missing for a frame."""
    size = (400, 900)
    clip = [picture(size)] * empty
    for step in range(5):
        squares = [("red", 700 - 5 * step, 100, 90), ("green", 400, 150 + 4 * step, 110), ("blue", 100, 100, 100)]
        clip.append(picture(size, *(squares[:2] if step == 3 else squares)))
    frames = torch.cat(clip) + torch.linspace(0, 0.05, len(clip))[:, None, None, None]
    landmarker = PicturesSeen()
    tracks = detect_all(frames.clamp(0, 1), landmarker, most=16)
    assert len(tracks) == 3
    for index, track in enumerate(tracks):
        alone, _ = detect(frames.clamp(0, 1), ColourLandmarker(), choose="index", index=index)
        np.testing.assert_allclose(track.points, alone.points, atol=1e-3)
        np.testing.assert_array_equal(track.found, alone.found)
    assert len(landmarker.reports) == len(set(landmarker.reports))
    assert len(detect_all(frames, ColourLandmarker(), most=2)) == 2
    assert detect_all(picture(size), ColourLandmarker(), most=16) == []


def test_one_of_several_faces():
    three = picture((400, 900), ("red", 700, 100, 90), ("green", 400, 150, 110), ("blue", 100, 100, 100))
    landmarker = ColourLandmarker()
    for options, left in (
        ({}, 400),
        ({"choose": "nearest"}, 400),
        ({"choose": "index", "index": 0}, 100),
        ({"choose": "index", "index": 2}, 700),
    ):
        track, report = detect(three, landmarker, **options)
        assert abs(place(track)[0] - left) < 3
        assert "Faces seen: 3" in report or not options
    with pytest.raises(TalkingPortraitError, match="number 3 was asked for, but 3 faces were found.*choose 0 to 2"):
        detect(three, landmarker, choose="index", index=3)


def test_small_faces_beside_a_large_one_count_when_numbered():
    crowd = picture((1000, 2000), ("red", 900, 100, 600), ("blue", 100, 400, 60))
    assert place(detect(crowd, ColourLandmarker())[0])[0] == pytest.approx(900, abs=2)
    track, report = detect(crowd, ColourLandmarker(), choose="index", index=0)
    assert place(track)[0] == pytest.approx(100, abs=2)
    assert "Faces seen: 2" in report


def test_the_same_face_is_followed_though_another_grows():
    frames = [
        picture((400, 900), ("red", 100 + 10 * frame, 100, 120), ("blue", 600, 60, 80 + 20 * frame))
        for frame in range(8)
    ]
    track, _ = detect(torch.cat(frames), ColourLandmarker(), smoothing=0)
    np.testing.assert_allclose([place(track, frame)[0] for frame in range(8)], 100 + 10 * np.arange(8), atol=1)


def test_frames_without_the_face_are_held_or_interpolated():
    clip = [
        picture((300, 400), *([("red", 100 + 20 * frame, 60, 120)] if frame in (1, 4) else [])) for frame in range(6)
    ]
    clip = torch.cat(clip)
    for missing, lefts, word in (
        ("hold", [120, 120, 120, 120, 180, 180], "4 held"),
        ("interpolate", [120, 120, 140, 160, 180, 180], "4 interpolated"),
    ):
        track, report = detect(clip, ColourLandmarker(), missing=missing, smoothing=0)
        np.testing.assert_allclose([place(track, frame)[0] for frame in range(6)], lefts, atol=0.1)
        np.testing.assert_array_equal(track.found, [False, True, False, False, True, False])
        assert report.startswith(f"2 of 6 frames show the face, {word}; 468 points.")
        assert (track.score[~track.found] == 0).all()
    with pytest.raises(TalkingPortraitError, match="Frame 0 shows no face"):
        detect(clip, ColourLandmarker(), missing="error")


def test_a_small_face_is_followed_without_searching_every_frame():
    frames = [picture((720, 1280), ("red", 700 + 6 * frame, 400, 50)) for frame in range(8)]
    landmarker = ColourLandmarker()
    track, _ = detect(torch.cat(frames[:1]), landmarker)
    first = landmarker.runs
    track, _ = detect(torch.cat(frames), landmarker, smoothing=0)
    assert landmarker.runs - first < 2 * first + 8
    np.testing.assert_allclose([place(track, frame)[0] for frame in range(8)], 700 + 6 * np.arange(8), atol=2)


def test_a_video_without_a_face_is_not_searched_in_every_frame():
    landmarker = ColourLandmarker()
    with pytest.raises(TalkingPortraitError, match="None of the 20 frames shows a face"):
        detect(picture((720, 1280)).expand(20, -1, -1, -1), landmarker)
    runs = landmarker.runs
    with pytest.raises(TalkingPortraitError):
        detect(picture((720, 1280)), landmarker)
    assert runs < 2 * (landmarker.runs - runs)


def test_progress_counts_frames_and_can_cancel_within_a_search():
    reports = []
    detect(
        picture((300, 400), ("red", 100, 60, 120)).expand(3, -1, -1, -1),
        ColourLandmarker(),
        progress=lambda *a: reports.append(a),
    )
    assert reports[-1] == (3, 3)
    assert {done for done, _ in reports} == {0, 1, 2, 3}

    class CancelledError(Exception):
        pass

    landmarker = ColourLandmarker()

    def cancel(done, total):
        if landmarker.runs == 5:
            raise CancelledError

    with pytest.raises(CancelledError):
        detect(picture((1080, 1920)), landmarker, progress=cancel)
    assert landmarker.runs == 5


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures_are_taken(channels):
    class Shape:
        name = "shape"

        def faces(self, shown, min_confidence):
            assert shown.shape[-1] == 3
            return [Face(points=SHAPE * 50 + 10, blendshapes=None, score=None)]

    track, _ = detect(torch.rand(1, 100, 120, channels), Shape())
    assert track.blendshapes is None
    assert track.score is None


class DiscLandmarker:
    """Detects red discs as faces whose forehead is a blue dot; for one upside down its landmarks jitter."""

    name = "discs"

    def __init__(self) -> None:
        self.runs = 0

    def faces(self, picture, min_confidence):
        self.runs += 1
        red, green, blue = picture.astype(float).transpose(2, 0, 1)
        disc, dot = np.argwhere((red > 150) & (green < 90)), np.argwhere((blue > 150) & (red < 90))
        if not (len(disc) and len(dot)):
            return []
        side = np.ptp(disc[:, 0])
        middle, (y, x) = (disc.max(axis=0) + disc.min(axis=0)) / 2, dot.mean(axis=0)
        turn = np.degrees(np.arctan2(x - middle[1], middle[0] - y))
        wrong = abs(turn) > 90
        turn = (turn + 180 * wrong + 180) % 360 - 180
        if abs(turn) > 50:
            return []
        points = apply_map(turned_map((0, 0), 2, turn, (2, 2)), SHAPE - SHAPE.mean(axis=0) + [1, 1, 0]) * side
        tremble = 0.05 * side * np.sin(self.runs) * wrong
        return [Face(points=points + [middle[1] + tremble, middle[0], 0], blendshapes=None, score=0.9)]


def disc(degrees: float) -> torch.Tensor:
    """A picture (1, 400, 500, 3) of a red disc whose blue dot is turned by degrees from the top."""
    y, x = torch.meshgrid(torch.arange(400.0), torch.arange(500.0), indexing="ij")
    result = torch.full((400, 500, 3), 0.5)
    result[torch.hypot(x - 260, y - 190) < 110] = torch.tensor(COLOURS["red"])
    turn = np.radians(degrees)
    result[torch.hypot(x - 260 - 80 * np.sin(turn), y - 190 + 80 * np.cos(turn)) < 15] = torch.tensor(COLOURS["blue"])
    return result[None]


@pytest.mark.parametrize("degrees", [0, 30, 120, 150, 180, -150, -120, -30])
def test_an_upside_down_face_is_found_with_its_rotation(degrees):
    track, _ = detect(disc(degrees), DiscLandmarker())
    across = track.points[0, 263, :2] - track.points[0, 33, :2]
    roll = np.degrees(np.arctan2(across[1], across[0]))
    assert abs((roll - degrees + 180) % 360 - 180) < 5


def test_only_a_new_face_is_detected_twice():
    engine = DiscLandmarker()
    detect(disc(0), engine)
    once = engine.runs
    track, _ = detect(disc(0).expand(20, -1, -1, -1), engine)
    assert engine.runs == 2 * once + 19
    engine.runs = 0
    track, _ = detect(disc(180).expand(20, -1, -1, -1), engine)
    assert engine.runs < 40
    assert (track.points[:, 33, 0] > track.points[:, 263, 0]).all()


def test_what_can_not_be_used_is_named():
    landmarker = ColourLandmarker()
    good = picture((100, 100), ("red", 20, 20, 60))
    for call, message in (
        (lambda: detect(good[0], landmarker), r"\(100, 100, 3\), but \(frames"),
        (lambda: detect(None, landmarker), "NoneType"),
        (lambda: detect(good[:0], landmarker), r"\(0, 100, 100, 3\)"),
        (lambda: detect(good, landmarker, choose="best"), '"best" was asked for'),
        (lambda: detect(good, landmarker, missing="skip"), '"skip" was asked for'),
        (lambda: detect(good, landmarker, min_confidence=0), "confidence is 0"),
        (lambda: detect(torch.zeros(1, 1, 1, 3), landmarker), r"The picture shows no face .*\(1 x 1 pixels\)"),
        (lambda: detect(torch.full((1, 64, 64, 3), float("nan")), landmarker), "no face"),
    ):
        with pytest.raises(TalkingPortraitError, match=message):
            call()


# --- smoothing ---


def moving_mesh(frames: int) -> np.ndarray:
    mesh = face_mesh().vertices.astype(np.float64) * [10, -10, -10] + 300
    drift = np.stack([np.linspace(0, 60, frames), np.linspace(0, -20, frames), np.zeros(frames)], axis=1)
    return mesh + drift[:, None]


def test_smoothing_reduces_jitter_without_delay():
    still = moving_mesh(60)
    rng = np.random.default_rng(0)
    shaken = still + rng.normal(0, 0.25, still.shape)
    smoothed = smooth_points(shaken)
    assert np.abs(smoothed - still).mean() < 0.65 * np.abs(shaken - still).mean()
    lag = (smoothed - still)[5:-5, :, 0].mean()
    assert abs(lag) < 0.02  # the face moves a pixel a frame


def test_smoothing_leaves_a_quick_closure_and_a_cut_alone():
    points = moving_mesh(20)
    points[:, 14, 1] += 12
    points[10, 14, 1] -= 12  # the lips meet for one frame
    other = moving_mesh(5) * 0.7
    clip = np.concatenate([points, other])
    smoothed = smooth_points(clip, 2.0)
    opening = mouth_opening(clip)
    np.testing.assert_allclose(mouth_opening(smoothed)[[9, 10, 11]], opening[[9, 10, 11]], atol=2e-3)
    np.testing.assert_allclose(smoothed[19:21], clip[19:21], atol=1e-9)


# --- expression scores from the shape ---


def score(vertices: np.ndarray, name: str) -> np.ndarray:
    return scores_from_shape(vertices)[..., BLENDSHAPES.index(name)]


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_a_closing_eye_raises_its_own_blink_score(side):
    rest, shapes = neutral_vertices(), upper_face_shapes()
    other = "Right" if side == "Left" else "Left"
    eyes = np.stack([rest + amount * shapes[f"eyeBlink{side}"] for amount in (0, 0.5, 1)])
    blink = score(eyes, f"eyeBlink{side}")
    assert blink[0] < 0.3
    assert blink[2] > 0.7
    assert (np.diff(blink) > 0.2).all()
    assert np.ptp(score(eyes, f"eyeBlink{other}")) < 0.01


@pytest.mark.parametrize(("control", "name"), [(0, "jawOpen"), (1, "mouthSmileLeft"), (2, "mouthPucker")])
def test_mouth_controls_raise_their_scores(control, name):
    controls = np.zeros((3, 6))
    controls[:, control] = [0, 0.5, 1]
    scores = score(neutral_vertices() + mouth_vertices(controls), name)
    assert (np.diff(scores) > -1e-6).all()
    assert scores[2] - scores[0] > 0.15


def test_brows_raise_and_lower_their_scores():
    shapes, rest = upper_face_shapes(), neutral_vertices()
    for name, least in (("browInnerUp", 0.2), ("browOuterUpLeft", 0.2), ("browDownRight", 0.05)):
        assert score(rest + shapes[name], name) - score(rest, name) > least
    assert scores_from_shape(rest).shape == (52,)


# --- the engines ---


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
    image, shipped = sample_portrait()
    track, _ = detect(image[None], mediapipe_engine)
    assert difference(track.points[0], shipped.points[0]) < 2e-3
    np.testing.assert_allclose(track.blendshapes, shipped.blendshapes, atol=0.02)
    np.testing.assert_allclose(track.matrix, shipped.matrix, atol=0.05)


def test_opencv_agrees_with_mediapipe_on_the_shipped_portrait(opencv_engine):
    image, shipped = sample_portrait()
    track, report = detect(image[None], opencv_engine)
    assert difference(track.points[0], shipped.points[0]) < 0.03
    assert "468 points" in report
    assert 0.5 < track.score[0] <= 1


def test_a_shrunken_face_in_a_large_picture(engine):
    image, shipped = sample_portrait()
    face = np.ptp(shipped.points[0, :, 1])
    side = round(512 * 64 / face)
    small = sample_picture(image, box_map(0, 0, 512, 512, (side, side)), (side, side))
    large = picture((720, 1280))
    large[0, 400 : 400 + side, 900 : 900 + side] = small
    track, _ = detect(large, engine)
    expected = shipped.points[0] * side / 512 + [900, 400, 0]
    assert difference(track.points[0], expected) < 0.03


@pytest.mark.parametrize("degrees", [90, 120, 135, 180, 210, 225, 270])
def test_a_turned_face(engine, degrees):
    image, shipped = sample_portrait()
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
    for path in (landmarks_tflite.DETECTOR_FILE, landmarks_tflite.MESH_FILE):
        assert re.search(rf"^{path.name}$.*?sha256 +{file_sha256(path)}$", notice, re.MULTILINE | re.DOTALL)
    assert {path.name for path in landmarks_tflite.FOLDER.iterdir()} == {
        "NOTICE",
        landmarks_tflite.DETECTOR_FILE.name,
        landmarks_tflite.MESH_FILE.name,
    }


def test_a_path_with_other_letters(tmp_path, mediapipe_engine):
    folder = tmp_path / "Модели 模型"
    folder.mkdir()
    shutil.copy(TASK, folder / "face_landmarker.task")
    image, _ = sample_portrait()
    assert detect(image[None], open_landmarker(folder))[0].frames == 1


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
