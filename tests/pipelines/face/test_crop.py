from __future__ import annotations

import numpy as np
import pytest
import torch
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.crop import crop_portrait
from talking_portrait.pipelines.face.crop_boxes import PRESETS, app_box
from talking_portrait.pipelines.face.metric_mesh import metric_mesh
from talking_portrait.pipelines.face.paste import paste_back, paste_frames
from talking_portrait.pipelines.image.affine_sampling import box_map, map_scale, sample_picture, turned_map
from talking_portrait.pipelines.types import Crop, FaceTrack


def a_track(size, middles, face=100.0, roll=0.0) -> FaceTrack:
    """The canonical head, `face` pixels tall, at `middles`, turned `roll` degrees clockwise."""
    mesh = face_mesh().vertices - (face_mesh().vertices.max(axis=0) + face_mesh().vertices.min(axis=0)) / 2
    mesh = mesh * [1, -1, -1] * face / np.ptp(mesh[:, 1])
    turn = np.radians(roll)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    flat = mesh[:, :2] @ turned.T
    points = np.stack([np.column_stack([flat + middle, mesh[:, 2]]) for middle in middles]).astype(np.float64)
    return FaceTrack(points, np.ones(len(points), bool), size, metric_mesh(points, size)[1])


def ramps(height: int, width: int, frames: int = 1) -> torch.Tensor:
    """Pictures whose colour says where a pixel is."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x / width, y / height, (x + y) / (width + height)], dim=-1).expand(frames, -1, -1, -1).clone()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def read(picture: torch.Tensor, points: np.ndarray) -> np.ndarray:
    """Colours at points in pixels."""
    maps = [box_map(x - 0.5, y - 0.5, 1, 1, (1, 1)) for x, y in points]
    return torch.cat([sample_picture(picture, matrix, (1, 1))[0] for matrix in maps]).numpy()


# --- sampling ---


def test_whole_pixels_are_copied():
    picture = noise(20, 30, 3)
    cut = sample_picture(picture, box_map(4, 5, 10, 8, (8, 10)), (8, 10))
    torch.testing.assert_close(cut, picture[5:13, 4:14], atol=1e-6, rtol=0)
    black = sample_picture(picture, box_map(-3, -2, 10, 8, (8, 10)), (8, 10), "black")
    assert black[:2].abs().max() == 0
    torch.testing.assert_close(black[2:, 3:], picture[:6, :7], atol=1e-6, rtol=0)
    edge = sample_picture(picture, box_map(-3, -2, 10, 8, (8, 10)), (8, 10))
    torch.testing.assert_close(edge[:3, :4], picture[0, 0].expand(3, 4, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("degrees", [0.0, 90.0, -37.0])
@pytest.mark.parametrize("side", [9.3, 40.0, 150.0])
def test_a_ramp_stays_a_ramp_at_any_size_and_turn(degrees, side):
    picture = ramps(300, 300)[0]
    matrix = turned_map((151.3, 148.9), side, degrees, (32, 40))
    cut = sample_picture(picture, matrix, (32, 40)).numpy()
    y, x = np.mgrid[:32, :40] + 0.5
    places = np.stack([x, y], axis=-1) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(cut[..., :2], places / 300, atol=2e-4)


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_shrinking_averages_instead_of_picking(degrees):
    y, x = np.mgrid[:256, :256]
    checker = torch.from_numpy(((x + y) % 2).astype(np.float32))[..., None]
    cut = sample_picture(checker, turned_map((128, 128), 160, degrees, (20, 20)), (20, 20))
    assert (cut - 0.5).abs().max() < 0.05


# --- cutting ---


@pytest.mark.parametrize("preset", [*PRESETS, "AniPortrait app"])
@pytest.mark.parametrize("size", [(90, 120), (300, 110), (200, 200)])
@pytest.mark.parametrize(("upright", "follow"), [(False, False), (True, False), (True, True)])
def test_points_stay_on_the_same_spot_of_the_face(preset, size, upright, follow):
    height, width = size
    middles = [(width / 2 + 2 * frame, height / 2 + frame) for frame in range(4)]
    track = a_track(size, middles, face=40, roll=25)
    images = ramps(height, width, 4)
    cut, crop, moved = crop_portrait(images, track, size=128, preset=preset, upright=upright, follow=follow)
    assert cut.shape == (4, 128, 128, 3)
    assert moved.image_size == (128, 128)
    assert len(crop.matrix) == (4 if follow and preset != "AniPortrait app" else 1)
    chosen = [1, 33, 263, 13]
    for frame in (0, 3):
        expected = read(images[frame], track.points[frame, chosen, :2])
        np.testing.assert_allclose(read(cut[frame], moved.points[frame, chosen, :2]), expected, atol=0.01)
        scale = map_scale(crop.matrix[frame if len(crop.matrix) > 1 else 0])
        np.testing.assert_allclose(moved.points[frame, :, 2] * scale, track.points[frame, :, 2], atol=1e-6)


def test_an_upright_crop_levels_the_eyes():
    track = a_track((300, 400), [(200, 150)], roll=30)
    _, _, moved = crop_portrait(ramps(300, 400), track, upright=True)
    right, left = moved.points[0, 33], moved.points[0, 263]
    assert abs(right[1] - left[1]) < 0.02 * abs(left[0] - right[0])
    _, _, turned = crop_portrait(ramps(300, 400), track)
    assert abs(turned.points[0, 33, 1] - turned.points[0, 263, 1]) > 10


def test_a_still_box_contains_a_moving_face():
    track = a_track((300, 400), [(80 + 8 * frame, 150) for frame in range(30)])
    _, crop, moved = crop_portrait(ramps(300, 400, 30), track, preset="face", size=64)
    assert len(crop.matrix) == 1
    assert moved.points[..., :2].min() >= -1e-6
    assert moved.points[..., :2].max() <= 64 + 1e-6


def test_a_following_box_moves_smoothly_with_the_face():
    rng = np.random.default_rng(0)
    middles = [(100 + 2 * frame + rng.normal(0, 2), 150 + rng.normal(0, 2)) for frame in range(80)]
    track = a_track((300, 400), middles)
    _, crop, moved = crop_portrait(ramps(300, 400, 80), track, size=64, follow=True, inside=False)
    steps = np.diff(crop.matrix[:, 0, 2])
    assert abs(steps.mean() - 2) < 0.3
    assert steps.std() < 0.2
    assert np.ptp(moved.points[:, 1, 0]) < 8


def corners_of(crop):
    height, width = crop.size
    ends = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    return np.stack([ends @ matrix.T for matrix in crop.matrix])


@pytest.mark.parametrize("size", [64, (64, 96)])
@pytest.mark.parametrize(("middle", "roll"), [((200, 150), 0), ((70, 90), 0), ((330, 240), 0), ((200, 150), 25)])
def test_a_box_stays_inside_the_picture(middle, size, roll):
    track = a_track((300, 400), [middle], roll=roll)
    _, crop, moved = crop_portrait(ramps(300, 400), track, size=size, upright=True)
    corners = corners_of(crop)
    assert corners.min() >= -1e-6
    assert corners[..., 0].max() <= 400 + 1e-6
    assert corners[..., 1].max() <= 300 + 1e-6
    assert moved.points[..., :2].min() >= 0
    assert (moved.points[..., :2] <= [crop.size[1], crop.size[0]]).all()
    inside_side = map_scale(crop.matrix[0])
    _, free, _ = crop_portrait(ramps(300, 400), track, size=size, upright=True, inside=False)
    assert map_scale(free.matrix[0]) >= inside_side


def test_a_turned_box_in_a_corner_leaves_the_picture_rather_than_cut_the_face():
    track = a_track((300, 400), [(70, 90)], roll=25)
    _, crop, moved = crop_portrait(ramps(300, 400), track, size=64, upright=True)
    assert moved.points[..., :2].min() >= 0
    assert moved.points[..., :2].max() <= 64
    assert corners_of(crop).min() > -40


def test_a_face_that_fills_the_picture_is_not_cut():
    track = a_track((300, 300), [(150, 150)], face=290)
    _, crop, moved = crop_portrait(ramps(300, 300), track, size=64)
    assert map_scale(crop.matrix[0]) * 64 == pytest.approx(290 * 1.1, rel=1e-3)
    assert moved.points[..., :2].min() >= 0


def test_other_sizes_and_no_size():
    track = a_track((300, 400), [(200, 150)])
    cut, crop, _ = crop_portrait(ramps(300, 400), track, size=(64, 96))
    assert cut.shape == (1, 64, 96, 3)
    assert crop.matrix[0, 0, 0] == pytest.approx(crop.matrix[0, 1, 1])
    cut, crop, _ = crop_portrait(ramps(300, 400), track, size=None, scale=0.8)
    assert cut.shape[1] == round(2.5 * 0.8 * 100)
    assert crop.source_size == (300, 400)


def test_aniportraits_app_takes_the_middle_square_or_a_square_round_the_face():
    assert app_box((0.2, 0.2, 0.7, 0.7), (240, 400)) == (80, 0, 320, 240)
    assert app_box((0.4, 0.4, 0.6, 0.6), (500, 500)) == (175, 175, 325, 325)


# --- pasting ---


@pytest.mark.parametrize("roll", [0.0, 20.0])
@pytest.mark.parametrize("middle", [(200, 150), (20, 280), (500, 500)])
@pytest.mark.parametrize("channels", [3, 4])
def test_nothing_outside_the_crop_changes(roll, middle, channels):
    source = noise(1, 300, 400, channels)
    track = a_track((300, 400), [middle], roll=roll)
    _, crop, _ = crop_portrait(source, track, size=96, preset="face", upright=True, inside=False)
    result = paste_back(torch.ones(2, 96, 96, 3), crop)
    assert result.shape == (2, 300, 400, channels)
    y, x = np.mgrid[:300, :400] + 0.5
    inverse = np.linalg.inv(crop.matrix[0, :, :2])
    inside = (np.stack([x, y], axis=-1) - crop.matrix[0, :, 2]) @ inverse.T
    outside = torch.from_numpy(((inside < 0) | (inside > 96)).any(axis=-1))
    for frame in result:
        assert torch.equal(frame[outside], source[0][outside])
        assert torch.equal(frame[..., 3:], source[0][..., 3:])
    if middle == (200, 150):
        assert (result[0, 150, 200, :3] > 0.9999).all()
    if middle == (500, 500):
        assert torch.equal(result[0], source[0])


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("size", [160, 300])
def test_pasting_an_unchanged_crop_changes_next_to_nothing(upright, size):
    source = ramps(300, 400)
    source = source + 0.1 * torch.sin(source * 20)
    source = source.clamp(0, 1)
    track = a_track((300, 400), [(210, 140)], roll=12)
    cut, crop, _ = crop_portrait(source, track, size=size, upright=upright)
    result = paste_back(cut, crop)
    assert (result - source).abs().max() < 0.01
    assert (result - source).abs().mean() < 2e-4


def test_a_crop_of_the_whole_picture_has_no_soft_border():
    source = torch.zeros(1, 100, 100, 3)
    track = a_track((100, 100), [(50, 50)], face=60)
    _, crop, _ = crop_portrait(source, track, preset="AniPortrait app", size=50)
    result = paste_back(torch.ones(1, 50, 50, 3), crop, feather=0.2)
    assert result.min() > 0.99


def test_the_border_rises_smoothly_from_nothing():
    source = torch.zeros(1, 300, 400, 3)
    _, crop, _ = crop_portrait(source, a_track((300, 400), [(200, 150)]), preset="face", size=100)
    row = paste_back(torch.ones(1, 100, 100, 3), crop, feather=0.2)[0, 150, :, 0]
    first = int((row > 0).nonzero()[0])
    rim = row[first : first + 26]
    assert rim[0] < 0.02
    assert (rim.diff() > -1e-6).all()
    assert rim.diff().max() < 0.1
    assert rim[-1] > 0.999


def test_a_mask_limits_what_is_pasted():
    source = noise(1, 300, 400, 3)
    _, crop, _ = crop_portrait(source, a_track((300, 400), [(200, 150)]), preset="face", size=100)
    mask = torch.zeros(100, 100)
    mask[40:60, 40:60] = 1
    result = paste_back(torch.ones(3, 100, 100, 3), crop, mask=mask)
    scale = map_scale(crop.matrix[0])
    corner = crop.matrix[0] @ np.array([40, 40, 1])
    x, y = (int(value - 2 * scale - 1) for value in corner)
    end = int(20 * scale + 4 * scale + 3)
    untouched = torch.ones(300, 400, dtype=torch.bool)
    untouched[y : y + end, x : x + end] = False
    assert torch.equal(result[0][untouched], source[0][untouched])
    assert (result[:, 150, 200] > 0.99).all()
    nothing = paste_back(torch.ones(1, 100, 100, 3), crop, mask=torch.zeros(1, 50, 50))
    assert torch.equal(nothing, source)


def test_colours_are_pasted_into_grey():
    grey = torch.full((1, 8, 8, 1), 0.5)
    crop = Crop(np.float32([[[1, 0, 2], [0, 1, 2]]]), (4, 4), (8, 8), grey)
    red = torch.tensor([1.0, 0.0, 0.0]).expand(1, 4, 4, 3)
    pasted = paste_back(red, crop, feather=0.0)
    assert pasted[0, 4, 4].tolist() == [1, 0, 0]
    assert pasted[0, 0, 0].tolist() == [0.5, 0.5, 0.5]


def test_frames_of_another_size_land_in_the_same_place():
    source = ramps(300, 400)
    cut, crop, _ = crop_portrait(source, a_track((300, 400), [(200, 150)]), size=100)
    large = sample_picture(cut[0], box_map(0, 0, 100, 100, (250, 250)), (250, 250))[None]
    assert (paste_back(large, crop) - source).abs().max() < 0.01


def test_frames_stream_one_by_one_into_one_picture():
    source = noise(1, 80, 90, 3)
    _, crop, _ = crop_portrait(source, a_track((80, 90), [(45, 40)], face=30), size=32)
    made = []

    def frames():
        for index in range(50):
            made.append(index)
            yield torch.full((32, 32, 3), index / 50)

    stream = paste_frames(frames(), crop)
    next(stream)
    assert len(made) <= torch.get_num_threads()
    assert sum(1 for _ in stream) == 49
    assert torch.equal(source, noise(1, 80, 90, 3))


def test_colours_are_matched_to_the_picture():
    source = ramps(300, 400) * 0.2 + 0.6
    cut, crop, _ = crop_portrait(source, a_track((300, 400), [(200, 150)]), size=None, preset="head")
    darker = (cut * 0.8 - 0.1).expand(5, -1, -1, -1)
    for match, least, most in ((0.0, 0.15, 1), (1.0, 0, 0.02)):
        result = paste_back(darker, crop, colour_match=match)
        error = (result[:, 140:160, 190:210] - source[:, 140:160, 190:210]).abs().mean()
        assert least <= error <= most


# --- what does not fit ---


def test_what_does_not_fit_is_named():
    images, track = ramps(300, 400), a_track((300, 400), [(200, 150)])
    _, crop, _ = crop_portrait(images, track, size=64)
    for call, message in (
        (lambda: crop_portrait(ramps(100, 400), track), "400 x 100 pixels, but the landmarks were found in 400 x 300"),
        (
            lambda: crop_portrait(ramps(300, 400, 3), a_track((300, 400), [(9, 9)] * 2)),
            "3 pictures and landmarks for 2",
        ),
        (lambda: crop_portrait(images[0], track), "frames, height, width, channels"),
        (lambda: crop_portrait(images, track, preset="body"), '"body" was requested'),
        (lambda: crop_portrait(images, track, size=0), "0 x 0 pixels"),
        (lambda: crop_portrait(images, track, scale=0), "scale is 0"),
        (lambda: paste_back(torch.ones(0, 64, 64, 3), crop), "no frames to paste"),
        (
            lambda: paste_back(torch.ones(3, 64, 64, 3), crop, images.expand(2, -1, -1, -1)),
            "paste are 3 and pictures to paste into 2, but 1 or 3 is",
        ),
        (
            lambda: paste_back(torch.ones(1, 64, 64, 3), crop, mask=torch.ones(3, 64, 64)),
            "are 1 and masks 3, but 1 is",
        ),
        (lambda: paste_back(torch.ones(1, 64, 64, 3), crop, ramps(30, 30)), r"\(1, 30, 30, 3\)"),
        (lambda: paste_back(torch.ones(1, 64, 64, 3), crop, feather=2), "feather is 2"),
    ):
        with pytest.raises(TalkingPortraitError, match=message):
            call()


@pytest.mark.parametrize(
    ("options", "named"),
    [({"scale": 2.0}, "scale"), ({"upright": True, "follow": True}, "upright, follow"), ({}, None)],
)
def test_inputs_that_a_crop_has_no_use_for_are_named(options, named, caplog):
    source, track = noise(1, 200, 300, 3), a_track((200, 300), [(150, 100)], face=60.0)
    crop_portrait(source, track, preset="AniPortrait app", **options)
    assert [f"does not use: {named};" in line for line in caplog.messages] == ([True] if named else [])
    caplog.clear()
    crop_portrait(source, track, preset="head", **options)
    assert not caplog.messages
