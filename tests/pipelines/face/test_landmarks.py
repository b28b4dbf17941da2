"""Detection, selection, tracking and interpolation of faces, with engines that find coloured shapes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.face import Face
from talking_portrait.pipelines.face.landmarks import detect, detect_all
from talking_portrait.pipelines.image.affine_sampling import apply_map, turned_map

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
        high, low = (np.moveaxis(part, -1, 0) for part in (picture > 180, picture < 90))
        for channel in range(3):
            one, other = (other for other in range(3) if other != channel)
            mask = high[channel] & low[one] & low[other]
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
    size = (240, 540)
    clip = [picture(size)] * empty
    for step in range(5):
        squares = [("red", 420 - 3 * step, 60, 54), ("green", 240, 90 + 3 * step, 66), ("blue", 60, 60, 60)]
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
        said = r"2 \(the largest is taken, that at 4\d\d, 20\d; another by its index\)"
        assert re.search(f"Faces seen: {3 if options else said}\\. Engine", report)
    with pytest.raises(TalkingPortraitError, match="number 3 was requested, but 3 faces were found.*choose 0 to 2"):
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


class TrackingLandmarker(ColourLandmarker):
    """Finds a face again beside where it was; the whole of `picture` is searched for it, which `runs` do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.tracked = 0

    def track(self, picture, last, min_confidence):
        faces = ColourLandmarker().faces(picture, min_confidence)
        self.tracked += 1
        return min(faces, key=lambda face: np.linalg.norm(face.centre - last.centre), default=None)


def test_a_face_that_is_alone_is_detected_now_and_then_and_tracked_between():
    left = 100 + 3 * np.arange(60)
    left[30:] += 200  # a cut: it is somewhere else
    frames = [picture((300, 590), ("red", int(x), 60, 120)) for x in left]
    frames[40:42] = [picture((300, 590))] * 2
    landmarker = TrackingLandmarker()
    track, _ = detect(torch.cat(frames), landmarker, smoothing=0)
    seen = np.setdiff1d(np.arange(60), [40, 41])
    np.testing.assert_allclose([place(track, frame)[0] for frame in seen], left[seen], atol=0.01)
    assert track.found.sum() == 58
    plain = ColourLandmarker()
    detect(torch.cat(frames), plain, smoothing=0)
    assert landmarker.tracked > 50
    assert landmarker.runs < plain.runs - 50


def test_of_several_faces_none_is_tracked_without_detecting_all():
    frames = [picture((300, 590), ("red", 100, 60, 120), ("blue", 400 - 5 * n, 60, 120)) for n in range(10)]
    landmarker = TrackingLandmarker()
    track, report = detect(torch.cat(frames), landmarker, choose="index", index=1, smoothing=0)
    assert landmarker.tracked == 0
    np.testing.assert_allclose([place(track, n)[0] for n in range(10)], 400 - 5 * np.arange(10), atol=0.01)
    assert "Faces seen: 2" in report


def test_a_video_without_a_face_is_not_searched_in_every_frame():
    landmarker = ColourLandmarker()
    with pytest.raises(TalkingPortraitError, match="None of the 20 frames shows a face"):
        detect(picture((720, 1280)).expand(20, -1, -1, -1), landmarker)
    runs = landmarker.runs
    with pytest.raises(TalkingPortraitError):
        detect(picture((720, 1280)), landmarker)
    assert runs < 2 * (landmarker.runs - runs)


def test_a_confidence_that_hides_every_face_is_named():
    with pytest.raises(TalkingPortraitError, match=r"confidence of at least 0\.95; lower it \(0\.5 suits most"):
        detect(picture((100, 100)), ColourLandmarker(), min_confidence=0.95)


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
        (lambda: detect(good, landmarker, choose="best"), '"best" was requested'),
        (lambda: detect(good, landmarker, missing="skip"), '"skip" was requested'),
        (lambda: detect(good, landmarker, min_confidence=0), "confidence is 0"),
        (lambda: detect(good, landmarker, min_confidence=1e-9), "confidence is 1e-09, but a number from 0.05 to 1"),
        (lambda: detect(torch.zeros(1, 1, 1, 3), landmarker), r"The picture shows no face .*\(1 x 1 pixels\)"),
        (lambda: detect(torch.full((1, 64, 64, 3), float("nan")), landmarker), "no face"),
    ):
        with pytest.raises(TalkingPortraitError, match=message):
            call()
