from __future__ import annotations

import copy

import numpy as np
import pytest
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.landmark_payload import connection_sets, face_boxes, from_payload, to_payload
from talking_portrait.pipelines.face.metric_mesh import metric_mesh
from talking_portrait.pipelines.types import FaceTrack

SIZE = (480, 640)


def a_face(x: float, y: float, scale: float, points: int = 478) -> np.ndarray:
    """The canonical head in pixels round (x, y), `scale` pixels a cm, with made-up irises."""
    mesh = np.concatenate([face_mesh().vertices, face_mesh().vertices[: points - 468]]).astype(np.float64)
    return mesh * [scale, -scale, -scale] + [x, y, 0]


def a_track(points: int = 478, frames: int = 4, blendshapes: bool = True) -> FaceTrack:
    faces = np.stack([a_face(300 + 3 * frame, 240, 9 + 0.1 * frame, points) for frame in range(frames)])
    return FaceTrack(
        points=faces,
        found=np.array([True, False, True, True])[:frames],
        image_size=SIZE,
        matrix=metric_mesh(faces, SIZE)[1],
        blendshapes=np.random.default_rng(0).random((frames, 52), dtype=np.float32) if blendshapes else None,
        score=np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32)[:frames],
    )


def test_a_track_comes_back_from_its_payload():
    track = a_track()
    back = from_payload(to_payload(track))
    np.testing.assert_allclose(back.points, track.points, atol=1e-3)
    np.testing.assert_array_equal(back.found, track.found)
    np.testing.assert_allclose(back.matrix, track.matrix, atol=1e-3)
    np.testing.assert_allclose(back.blendshapes, track.blendshapes, atol=1e-6)
    np.testing.assert_allclose(back.score[track.found], track.score[track.found], atol=1e-6)
    assert back.image_size == SIZE


def test_a_track_without_irises_and_scores_gets_irises_inside_the_eyes():
    payload = to_payload(a_track(points=468, blendshapes=False))
    face = payload["frames"][0][0]
    assert face["landmarks_xy"].shape == (478, 2)
    eye = face["landmarks_xy"][[33, 133, 159, 145]]
    iris = face["landmarks_xy"][468:473]
    assert iris.min(axis=0)[0] > eye.min(axis=0)[0]
    assert iris.max(axis=0)[0] < eye.max(axis=0)[0]
    back = from_payload(payload)
    assert back.blendshapes is None
    assert back.points.shape == (4, 478, 3)


def test_a_box_goes_around_the_landmarks_of_each_frame_with_a_face():
    track = a_track()
    frames = face_boxes(to_payload(track))
    assert [len(boxes) for boxes in frames] == track.found.astype(int).tolist()
    first = int(track.found.argmax())
    (box,), points = frames[first], track.points[first, :, :2]
    np.testing.assert_allclose([box["x"], box["y"]], points.min(axis=0), atol=0.01)
    np.testing.assert_allclose([box["width"], box["height"]], np.ptp(points, axis=0), atol=0.01)


def a_core_payload(track: FaceTrack) -> dict:
    """The same faces as ComfyUI's own node writes them: depth in units of a turned 192-pixel crop."""
    payload = to_payload(track)
    turn, scale = np.radians(25), 2.6
    crop_to_picture = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * scale
    for frame in payload["frames"]:
        for face in frame:
            crop = (face["landmarks_xy"] - [200, 100]) @ np.linalg.inv(crop_to_picture).T
            face["landmarks_3d"] = np.column_stack([crop, face["landmarks_3d"][:, 2] / scale]).astype(np.float32)
            face["bbox_xyxy"] = face["bbox_xyxy"].astype(np.float64)
            face.pop("transformation_matrix")
    return payload


def test_depth_in_crop_units_is_converted_to_pixels():
    track = a_track()
    back = from_payload(a_core_payload(track))
    np.testing.assert_allclose(back.points, track.points, atol=0.01)
    np.testing.assert_allclose(back.matrix, track.matrix, atol=0.01)


def several(*faces: tuple[float, float, float]) -> list[dict]:
    points = np.stack([a_face(*face) for face in faces])
    track = FaceTrack(points, np.ones(len(points), bool), SIZE, metric_mesh(points, SIZE)[1])
    return [frame[0] for frame in to_payload(track)["frames"]]


def test_a_face_is_chosen_then_followed_and_empty_frames_are_filled():
    frames = [
        several((500, 200, 8), (320, 260, 5), (100, 200, 4)),
        [],
        several((100, 200, 9), (325, 260, 5), (510, 200, 6)),
    ]
    payload = {"frames": frames, "image_size": SIZE, "connection_sets": {}}

    def middles(**options):
        return from_payload(payload, **options).points[..., 0].mean(axis=1).round()

    np.testing.assert_allclose(middles(), [500, 500, 510], atol=1)
    np.testing.assert_allclose(middles(missing="interpolate"), [500, 505, 510], atol=1)
    np.testing.assert_allclose(middles(choose="nearest"), [320, 320, 325], atol=1)
    np.testing.assert_allclose(middles(choose="index", index=0), [100, 100, 100], atol=1)
    np.testing.assert_array_equal(from_payload(payload).found, [True, False, True])
    with pytest.raises(TalkingPortraitError, match="number 3 was requested, but 3 faces were found.*choose 0 to 2"):
        from_payload(payload, choose="index", index=3)
    with pytest.raises(TalkingPortraitError, match="Frame 1 shows no face"):
        from_payload(payload, missing="error")


def test_reading_leaves_the_payload_alone():
    payload = a_core_payload(a_track())
    before = copy.deepcopy(payload)
    from_payload(payload)
    for frame, same in zip(payload["frames"], before["frames"], strict=True):
        for key in ("landmarks_xy", "landmarks_3d", "bbox_xyxy"):
            np.testing.assert_array_equal(frame[0][key], same[0][key])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (None, "nothing, but FACE_LANDMARKS"),
        ([], "list, but FACE_LANDMARKS"),
        ({"samples": 1}, r"an object with \['samples'\]"),
        ({"frames": 5, "image_size": SIZE}, "no lists of faces"),
        ({"frames": [None], "image_size": SIZE}, "no lists of faces"),
        ({"frames": [[]], "image_size": None}, "a picture of None, but its height and width"),
        ({"frames": [[]], "image_size": (0, 5)}, r"a picture of \(0, 5\)"),
        ({"frames": [[]], "image_size": (1, 2, 3)}, r"a picture of \(1, 2, 3\)"),
        ({"frames": [[5]], "image_size": SIZE}, "can't be read.*landmarks_xy"),
        ({"frames": [], "image_size": SIZE}, "no frames"),
        ({"frames": [[], []], "image_size": SIZE}, "None of the 2 frames shows a face"),
        ({"frames": [[]], "image_size": SIZE}, "The picture shows no face"),
    ],
)
def test_what_is_no_payload_is_named(payload, message):
    with pytest.raises(TalkingPortraitError, match=message):
        from_payload(payload)


def test_points_of_another_scale_are_named():
    payload = to_payload(a_track())
    payload["frames"][0][0]["landmarks_xy"] = payload["frames"][0][0]["landmarks_xy"] * 1e7
    with pytest.raises(TalkingPortraitError, match="pixels of that picture are expected; connect Detect"):
        from_payload(payload)


def test_faces_of_another_landmarker_are_named():
    payload = to_payload(a_track())
    payload["frames"][0][0]["landmarks_xy"] = np.zeros((68, 2))
    with pytest.raises(TalkingPortraitError, match=r"\(68, 2\)"):
        from_payload(payload)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("landmarks_xy", None, "can't be read|shapes"),
        ("landmarks_xy", "text", "can't be read"),
        ("landmarks_xy", [[1, 2], [3]], "can't be read"),
        ("landmarks_xy", np.zeros((478, 3)), r"shapes \(478, 3\) and \(478, 3\)"),
        ("landmarks_xy", np.full((478, 2), np.nan), "NaN or infinite"),
        ("landmarks_xy", np.zeros((478, 2)), "one spot"),
        ("landmarks_3d", np.zeros((10, 3)), r"\(10, 3\)"),
        ("landmarks_3d", np.full((478, 3), np.inf), "NaN or infinite"),
        ("landmarks_3d", np.zeros((478, 3)), "one spot"),
        ("blendshapes", 5, "can't be read"),
        ("blendshapes", {"jawOpen": "wide"}, "can't be read"),
        ("blendshapes", {"jawOpen": float("nan")}, "NaN or infinite"),
        ("score", "high", "can't be read"),
        ("score", None, "can't be read"),
    ],
)
def test_a_face_with_something_wrong_is_reported_in_one_sentence(key, value, message):
    payload = to_payload(a_track())
    payload["frames"][2][0][key] = value
    with pytest.raises(TalkingPortraitError, match=message) as raised:
        from_payload(payload)
    assert "connect Detect Landmarks" in str(raised.value)


@pytest.mark.parametrize("key", ["landmarks_xy", "landmarks_3d"])
def test_a_face_that_lacks_its_points_is_reported(key):
    payload = to_payload(a_track())
    del payload["frames"][0][0][key]
    with pytest.raises(TalkingPortraitError, match=f"KeyError.*{key}"):
        from_payload(payload)


def test_lines_are_mediapipes():
    vision = pytest.importorskip("mediapipe").tasks.vision
    theirs = vision.FaceLandmarksConnections
    ours = connection_sets()
    undirected = {name: {frozenset(pair) for pair in pairs} for name, pairs in ours.items()}
    for name, key in (
        ("face_oval", "FACE_OVAL"),
        ("lips", "LIPS"),
        ("left_eye", "LEFT_EYE"),
        ("right_eye", "RIGHT_EYE"),
        ("left_eyebrow", "LEFT_EYEBROW"),
        ("right_eyebrow", "RIGHT_EYEBROW"),
        ("nose", "NOSE"),
        ("contours", "CONTOURS"),
    ):
        expected = {frozenset((line.start, line.end)) for line in getattr(theirs, f"FACE_LANDMARKS_{key}")}
        assert undirected[name] == expected, name
    irises = theirs.FACE_LANDMARKS_LEFT_IRIS + theirs.FACE_LANDMARKS_RIGHT_IRIS
    assert undirected["irises"] == {frozenset((line.start, line.end)) for line in irises}
    # The mesh's own triangles: some quads are cut along the other diagonal than in MediaPipe's drawing.
    wires = {frozenset((line.start, line.end)) for line in theirs.FACE_LANDMARKS_TESSELATION}
    assert len(undirected["tesselation"]) == len(wires)
    assert ours["all"] == ours["contours"] | ours["irises"] | ours["nose"]
