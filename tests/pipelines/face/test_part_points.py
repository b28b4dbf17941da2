"""The networks that correct landmarks of mouth and eyes: what they are given, what they change, and how near it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from talking_portrait.models.face.face_mesh import (
    LEFT_EYE,
    LIPS_OUTER,
    RIGHT_EYE,
    eye_distance,
    mirror_index,
    mouth_opening,
)
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.face import Face
from talking_portrait.pipelines.face.landmarker_opencv import TFLiteLandmarker
from talking_portrait.pipelines.face.landmarks import open_landmarker
from talking_portrait.pipelines.face.part_points import (
    EYES,
    EYES_FILE,
    MOUTH,
    MOUTH_FILE,
    PartPoints,
    from_square,
    shipped_networks,
    to_square,
)
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.images import to_uint8
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.image.affine_sampling import apply_map
from talking_portrait.pipelines.image.byte_sampling import cut_out

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def portrait():
    """The shipped portrait as bytes, the mesh network's landmarks of it, and MediaPipe's."""
    image, track = example_portrait()
    picture = to_uint8(image)
    face = TFLiteLandmarker(networks=()).track(picture, Face(track.points[0], None, None), 0.5)
    return picture, face.points, track.points[0, :468]


@pytest.fixture(scope="module")
def filmed():
    """Points (F, 468, 3) of a filmed person by the mesh network, corrected, and by MediaPipe."""
    pytest.importorskip("mediapipe")
    film, task = DATA / "people" / "person1.mp4", DATA / "face_landmarker.task"
    if not film.exists() or not task.exists():
        pytest.skip(f"no film of a person, or no face_landmarker.task, in {DATA}")
    frames = list(open_video(film).frames(only=range(0, 160, 4)))[:40]
    pictures = [np.ascontiguousarray(frame) for frame in frames]
    mediapipe = open_landmarker(task)
    expected = [mediapipe.faces(picture, 0.5)[0].points[:468] for picture in pictures]
    mesh = TFLiteLandmarker(networks=())
    coarse = [
        mesh.track(picture, Face(points, None, None), 0.5).points
        for picture, points in zip(pictures, expected, strict=True)
    ]
    fine = [corrected(picture, points) for picture, points in zip(pictures, coarse, strict=True)]
    return np.stack(coarse), np.stack(fine), np.stack(expected)


def corrected(picture, points):
    for network in shipped_networks():
        points = network.correct(picture, points)
    return points


def lid_gap(points):
    """Of both eyes, over the distance of their outer corners."""
    upper, lower = [160, 159, 158, 387, 386, 385], [144, 145, 153, 373, 374, 380]
    gap = np.linalg.norm(points[:, upper] - points[:, lower], axis=-1).mean(axis=1)
    return gap / eye_distance(points)


def apart(points, expected, ring):
    return np.linalg.norm((points - expected)[list(ring), :2], axis=1).mean() / eye_distance(expected)


@pytest.mark.parametrize("ring", [LIPS_OUTER, RIGHT_EYE, LEFT_EYE])
def test_mouth_and_eyes_come_nearer_to_mediapipes(portrait, ring):
    picture, coarse, expected = portrait
    assert apart(corrected(picture, coarse), expected, ring) < 0.9 * apart(coarse, expected, ring)


def test_lips_and_lids_of_a_filmed_person_open_as_mediapipe_has_it(filmed):
    """Whose film was not learned from."""
    coarse, fine, expected = filmed
    lips = [np.abs(mouth_opening(points) - mouth_opening(expected)).mean() for points in (coarse, fine)]
    assert lips[1] < 0.6 * lips[0]
    lids = [np.abs(lid_gap(points) - lid_gap(expected)).mean() for points in (coarse, fine)]
    assert lids[1] < 0.9 * lids[0]
    assert np.corrcoef(mouth_opening(fine), mouth_opening(expected))[0, 1] > 0.9


@pytest.mark.parametrize("parts", [(MOUTH,), EYES])
def test_only_points_of_the_part_are_changed(portrait, parts):
    picture, coarse, _ = portrait
    network = PartPoints(MOUTH_FILE if parts == (MOUTH,) else EYES_FILE, parts)
    points = network.correct(picture, coarse)
    landmarks = network.network.landmarks.numpy()
    own = np.concatenate([part.numbers(landmarks) for part in parts])
    changed = np.flatnonzero((points != coarse).any(axis=1))
    assert set(changed) == set(own)
    assert np.isfinite(points).all()


def test_a_mirrored_picture_has_mirrored_eyes(portrait):
    picture, coarse, _ = portrait
    network = PartPoints(EYES_FILE, EYES)
    width = picture.shape[1]

    def mirrored(points):
        return points[mirror_index()] * [-1, 1, 1] + [width, 0, 0]

    once = network.correct(picture, coarse)
    twice = mirrored(network.correct(np.ascontiguousarray(picture[:, ::-1]), mirrored(coarse)))
    assert np.abs(once - twice).max() < 0.005 * eye_distance(coarse)


@pytest.mark.parametrize("part", [MOUTH, *EYES])
def test_places_in_the_square_are_undone(portrait, part):
    _, points, _ = portrait
    square = part.square(points, 64)
    inside = to_square(points, square, 64, part.depth(points))
    np.testing.assert_allclose(from_square(inside, square, 64, part.depth(points)), points, atol=1e-9)
    assert np.abs(inside[list(part.middle), :2].mean(axis=0)).max() < 1e-9
    corner = apply_map(square, np.array([[0.0, 0.0], [64.0, 0.0]]))
    assert (corner[1, 0] > corner[0, 0]) != part.mirrored


def test_the_square_of_the_left_eye_is_mirrored(portrait):
    picture, points, _ = portrait
    right, left = (part.square(points, 48) for part in EYES)
    upright = cut_out(
        np.ascontiguousarray(picture[:, ::-1]), np.array([[-1.0], [1.0]]) * left + [[0, 0, 512], [0] * 3], 48
    )
    assert np.abs(upright.astype(float) - cut_out(picture, left, 48)).mean() < 1
    assert np.linalg.det(right[:, :2]) > 0 > np.linalg.det(left[:, :2])


@pytest.mark.parametrize("content", [b"", b"no network", None])
def test_a_file_that_holds_something_else_is_named(tmp_path, portrait, content):
    path = tmp_path / "mouth_points.safetensors"
    if content is not None:
        path.write_bytes(content)
    picture, coarse, _ = portrait
    with pytest.raises(TalkingPortraitError, match="mouth_points.safetensors is not the network .*; install the pack"):
        PartPoints(path, (MOUTH,)).correct(picture, coarse)
