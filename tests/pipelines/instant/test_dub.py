"""Dubbing: a film whose person speaks other words, and all else of it stays."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import talking_portrait as tp
import torch
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.__main__ import main
from talking_portrait.models.face.face_mesh import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LIPS_INNER,
    LIPS_OUTER,
    eye_distance,
    mouth_opening,
)
from talking_portrait.models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from talking_portrait.models.face.mouth_shapes import mouth_vertices, neutral_vertices
from talking_portrait.pipelines import large_arrays
from talking_portrait.pipelines.batch.manifest import read_manifest
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import head_matrix
from talking_portrait.pipelines.face.landmarks import detect, open_landmarker
from talking_portrait.pipelines.face.metric_mesh import project
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.files.motion_file import save_motion
from talking_portrait.pipelines.files.sound import open_sound, write_wav
from talking_portrait.pipelines.files.video import VideoWriter, is_film, open_video
from talking_portrait.pipelines.image.luma import LUMA
from talking_portrait.pipelines.instant.animate import Source, animate_source, fit_portrait
from talking_portrait.pipelines.instant.dub import lower_face, mouth_views
from talking_portrait.pipelines.instant.dub.dub_video import FaceChoice, dub_video
from talking_portrait.pipelines.instant.dub.film import Film, dub, film_of_pictures, frame_order
from talking_portrait.pipelines.instant.dub.filmed_face import _faded, filmed_face, pixels_per_cm
from talking_portrait.pipelines.instant.dub.lip_rims import USUAL_RIMS, edge_steps, lip_rims
from talking_portrait.pipelines.instant.dub.mouth_motion import LEAST_WIDTH, mouth_motions
from talking_portrait.pipelines.instant.dub.mouth_view import MouthView, skin_light, with_lower_teeth
from talking_portrait.pipelines.instant.dub.mouth_views import NEAR, NEIGHBOURS, PARTED, MouthViews
from talking_portrait.pipelines.instant.dub.occlusion import (
    HIDDEN_BELOW,
    Appearance,
    _likeness,
    _lip_colours,
    _logarithms,
    covered,
)
from talking_portrait.pipelines.instant.dub.resting_face import USUAL_MOUTHS, held_mouths, resting_face, speech_offsets
from talking_portrait.pipelines.instant.dub.skin.face_texture import texture_grid, texture_of
from talking_portrait.pipelines.instant.dub.skin.filmed_textures import MOST_TEXTURES, TextureKeeper
from talking_portrait.pipelines.instant.renderer import renderer as instant_renderer
from talking_portrait.pipelines.instant.renderer.face_opening import Aperture
from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
from talking_portrait.pipelines.types import Audio, FaceMotion, FaceTrack

SIDE, FRAMES, FPS = 256, 24, Fraction(25)
CHIN = (148, 152, 176, 377, 400)
SHUT = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
"""Mouth controls of lips that touch."""


def talk(jaw: np.ndarray, turn: float = 0.0) -> FaceMotion:
    """A mouth that opens by jaw controls (F,), on a head that turns to one side by `turn` degrees and back."""
    controls = np.zeros((len(jaw), 6))
    controls[:, 0] = jaw
    rotation = np.zeros((len(jaw), 3), np.float32)
    rotation[:, 1] = turn * np.sin(np.linspace(0, 2 * np.pi, len(jaw)))
    neutral = neutral_vertices()
    return FaceMotion(neutral + mouth_vertices(controls), neutral, rotation, np.zeros_like(rotation), FPS)


def waves(period: float, count: int = FRAMES) -> np.ndarray:
    return 0.25 - 0.25 * np.cos(2 * np.pi * np.arange(count) / period)


FILMED, NEW = talk(waves(8), turn=6), talk(waves(13), turn=6)


@pytest.fixture(scope="module")
def renderer() -> InstantRenderer:
    image, track = fit_portrait(*example_portrait(), SIDE)
    return InstantRenderer(image, track)


@pytest.fixture(scope="module")
def frames(renderer: InstantRenderer) -> torch.Tensor:
    """(F, H, W, 3) in 0..1, values of bytes: the portrait speaks as FILMED."""
    return torch.cat(list(renderer.frames_uint8(FILMED))).float() / 255


@pytest.fixture(scope="module")
def track(frames: torch.Tensor) -> FaceTrack:
    return detect(frames, open_landmarker(engine="opencv"))[0]


@pytest.fixture(scope="module")
def film(frames: torch.Tensor, track: FaceTrack) -> Film:
    return film_of_pictures(frames, track, FPS)


@pytest.fixture(scope="module")
def view(film: Film) -> MouthView:
    return film.inside.views[0]


@pytest.fixture(scope="module")
def video(frames: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with VideoWriter(path, (SIDE, SIDE), FPS, crf=5) as writer:
        writer.write((frames * 255).round().byte().numpy())
    return path


def dubbed(film, motion: FaceMotion, **options) -> tuple[torch.Tensor, torch.Tensor]:
    images, masks = zip(*dub(film, motion, **options), strict=True)
    return torch.cat(images), torch.cat(masks)


def first_frames(track: FaceTrack, count: int) -> FaceTrack:
    return replace(track, points=track.points[:count], found=track.found[:count], matrix=track.matrix[:count])


def openings(images: torch.Tensor) -> np.ndarray:
    return mouth_opening(detect(images, open_landmarker(engine="opencv"), smoothing=0)[0].points)


def test_the_mouth_follows_the_new_words_and_nothing_else_changes(frames, track, renderer):
    images, masks = dubbed(film_of_pictures(frames, track, FPS), NEW)
    assert torch.equal(images[masks == 0], frames[masks == 0])
    assert 0.02 < float((masks > 0).float().mean()) < 0.4
    eyes = track.points[:, 33, 1].max()
    assert not masks[:, : int(eyes)].any()
    direct = renderer.render(NEW)[0]
    result, truth, before = openings(images), openings(direct), openings(frames)
    # A landmarker is off by 0.03 at this size.
    assert np.corrcoef(result, truth)[0, 1] > 0.8
    assert np.corrcoef(result, before)[0, 1] < 0.5
    assert np.abs(result - truth).mean() < 0.04


def test_new_openings_are_as_wide_as_the_films_by_landmarks(renderer):
    """Wherever the edges of its lips lie beside them: both openings are measured alike."""
    mouth = held_mouths(np.array(USUAL_MOUTHS[2:]))
    numbers, size = np.arange(mouth.frames), renderer.mesh.image_size
    pose = np.broadcast_to(renderer.mesh.matrix, (mouth.frames, 4, 4))
    shapes = np.broadcast_to(renderer.mesh.vertices, (mouth.frames, 468, 3))
    wanted = mouth_opening(mouth.vertices) * eye_distance(renderer.mesh.vertices)
    for rims in ((0.0, 0.0), (0.1, 0.1)):
        mesh = resting_face(shapes, pose, size, rims).mesh
        offsets = speech_offsets(mesh, mouth, numbers)
        gaps = np.linalg.norm(offsets[:, INNER_LOWER_LIP] - offsets[:, INNER_UPPER_LIP], axis=-1)
        # A jaw that goes back as well opens further, as much as the camera sees less of it.
        assert np.allclose(gaps * mesh.mouth.opening_share, wanted, rtol=0.05)


def test_the_words_of_the_film_itself_move_nothing(renderer):
    """With exact landmarks, chin and lips stay where they are filmed, on average over the film."""
    # As in films lips touch in one frame of twenty or more.
    usual = held_mouths(np.array([*USUAL_MOUTHS, *USUAL_MOUTHS[::-1], SHUT]))
    numbers, size = np.arange(usual.frames), renderer.mesh.image_size
    pose = np.broadcast_to(renderer.mesh.matrix, (usual.frames, 4, 4))
    mesh = resting_face(np.broadcast_to(renderer.mesh.vertices, (usual.frames, 468, 3)), pose, size, USUAL_RIMS).mesh
    offsets = speech_offsets(mesh, usual, numbers)
    basis = pixels_per_cm(pose, size, mesh.vertices)
    places = project(np.broadcast_to(mesh.vertices, offsets.shape), pose, size)
    places = places + np.einsum("nij,nvj->nvi", basis, offsets)
    depth = -(np.einsum("nj,nvj->nv", pose[:, 2, :3], mesh.vertices + offsets) + pose[:, 2, 3:])
    depth = (depth - depth.mean(axis=1, keepdims=True)) * mesh.pixels_per_cm
    points = np.concatenate([places, depth[..., None]], axis=-1).astype(np.float32)
    face = filmed_face(points, np.ones(usual.frames, bool), (0,), size, smoothing=0)
    moved = np.stack([mouth.moved for mouth in mouth_motions(face, numbers, usual, numbers, 1.0)])
    travel = np.linalg.norm(moved.mean(axis=0), axis=-1) / mesh.eye_distance
    assert travel[list(CHIN)].mean() < 0.003
    assert travel[list(LIPS_OUTER)].mean() < 0.004


def test_the_sides_of_a_face_stay_as_filmed_where_their_landmarks_swing_and_the_chin_does_not(frames, track):
    """Landmarks of a face's outline go in and out with an opening mouth; neither cheeks nor hair beside them do."""
    sides, swing = [58, 132, 288, 361], 0.05 * track.image_size[0] * np.sin(np.arange(FRAMES))
    points = track.points.copy()
    points[:, sides, 0] += swing[:, None]
    points[:, list(CHIN), 1] += swing[:, None]
    numbers = np.arange(FRAMES)
    moved = []
    for swung in (track.points, points):
        face = filmed_face(swung, track.found, (0,), track.image_size, smoothing=0)
        moved.append(np.stack([mouth.moved for mouth in mouth_motions(face, numbers, NEW, numbers, 1.0)]))
    after = np.abs(moved[1] - moved[0]).mean(axis=0) / np.abs(swing).mean()
    assert after[sides, 0].max() < 0.25
    assert after[list(CHIN), 1].min() > 0.75


def test_what_changes_with_the_heads_pose_is_not_taken_for_speech():
    """A landmarker whose chin goes up and down with a nodding head has it so in the face at rest too."""
    rng, nod, size = np.random.default_rng(0), 6 * np.sin(np.arange(60) / 5), (512, 512)
    vertices = neutral_vertices() + mouth_vertices(np.column_stack([rng.uniform(0, 0.6, 60), np.zeros((60, 5))]))
    vertices[:, list(CHIN), 1] += 0.05 * nod[:, None]
    matrix = head_matrix(np.column_stack([nod, np.zeros((60, 2))]), np.tile([0, 0, -60.0], (60, 1)))
    rest = resting_face(vertices.astype(np.float64), matrix, size, USUAL_RIMS)
    basis = pixels_per_cm(matrix, size, rest.shape)
    without = replace(rest, by_angle=np.zeros_like(rest.by_angle)).places(matrix, size, basis)
    change = (rest.places(matrix, size, basis) - without)[:, list(CHIN), 1].mean(axis=1)
    expected = 0.05 * (nod - nod.mean()) * basis[:, 1, 1]
    assert np.abs(change - expected).max() < 0.1 * np.abs(expected).max()
    assert np.abs(rest.by_angle[:, 33]).max() < 1e-3


def test_a_batch_of_pictures_is_a_film_and_one_picture_a_portrait(frames, track, renderer):
    film = Source(frames[:6], first_frames(track, 6))
    images = torch.cat([images for images, _ in animate_source(film, talk(waves(8, 9)))])
    assert images.shape == (9, SIDE, SIDE, 3)  # back and forth
    assert torch.equal(images[7, :20], frames[3, :20])
    portrait = Source(frames[:1], first_frames(track, 1))
    assert not portrait.is_film
    assert sum(len(images) for images, _ in animate_source(portrait, talk(waves(8, 3)))) == 3


def test_a_wide_grin_that_shall_purse_is_not_crushed(frames, track):
    face = film_of_pictures(frames, track, FPS).face
    points, lips = face.points.copy(), [*LIPS_OUTER, *LIPS_INNER]
    middle = points[5, lips, 0].mean()
    points[5, lips, 0] = middle + 1.3 * (points[5, lips, 0] - middle)
    pursed = held_mouths(np.array([[0, 0, 1.0, 0, 0, 0]]))
    [mouth] = mouth_motions(replace(face, points=points), np.array([5]), pursed, np.array([0]), 1.0)
    before, after = (np.ptp(places[list(MOUTH_CORNERS), 0]) for places in (mouth.points, mouth.points + mouth.moved))
    assert after == pytest.approx(LEAST_WIDTH * before, rel=0.01)


def test_a_mouth_that_keeps_shut_shows_no_teeth(frames, track):
    shut = talk(np.zeros(FRAMES))
    images, _ = dubbed(film_of_pictures(frames, track, FPS), shut)
    assert openings(images).max() < 0.08
    assert openings(frames).max() > 0.15


@pytest.mark.parametrize("longer_side", [SIDE, SIDE // 2])
def test_where_no_open_mouth_is_filmed_its_inside_is_drawn(frames, track, longer_side, monkeypatch):
    """In a large frame on a smaller copy of it, and without the eyelids, which dubbing never moves."""
    monkeypatch.setattr(mouth_views, "LEAST_OPENING", 0.3)
    monkeypatch.setattr(mouth_views, "DRAWN_SIDE", longer_side)
    monkeypatch.setattr(instant_renderer, "eyelids", lambda *arguments: pytest.fail("eyelids are prepared"))
    film = film_of_pictures(frames, track, FPS)
    assert film.inside.drawn
    view = film.inside.views[0]
    pixels = np.linalg.norm(mouth_views.as_filmed(film.face, 0).basis)
    assert np.linalg.norm(view.basis) == pytest.approx(pixels * longer_side / SIDE, rel=0.1)
    images, _ = dubbed(film, talk(np.full(FRAMES, 0.5)))
    assert openings(images).min() > 0.08


def test_where_all_open_mouths_are_hidden_the_inside_is_drawn_between_shut_lips(frames, track, monkeypatch):
    """Lips that hardly part say nothing about what is between wide ones, and a piece of them would become teeth."""
    opening, drawn_in = mouth_opening(track.points), []
    assert ((opening >= PARTED) & (opening < mouth_views.LEAST_OPENING)).any()
    draw = mouth_views._drawn
    monkeypatch.setattr(mouth_views, "_drawn", lambda *arguments: drawn_in.append(arguments[1]) or draw(*arguments))
    monkeypatch.setattr(mouth_views, "_hidden", lambda face, number, frame: float(opening[number] >= PARTED + 0.015))
    assert film_of_pictures(frames, track, FPS).inside.drawn
    assert np.all(opening[drawn_in] < PARTED)


def test_a_mouth_that_smiles_with_its_teeth_opens_on_the_dark_behind_them(renderer):
    """The film shows teeth and nothing else; the lip's colour is none for what comes between them and the lower lip."""
    smiling, _ = renderer.render(talk(np.zeros(6)))
    track = detect(smiling, open_landmarker(engine="opencv"))[0]
    wide = talk(np.full(6, 0.6))
    images, _ = dubbed(film_of_pictures(smiling, track, FPS), wide)
    cheek = smiling[3][tuple(track.points[3, 205, 1::-1].astype(int))].mean()
    upper, lower = detect(images, open_landmarker(engine="opencv"))[0].points[3, [13, 14], :2]
    column = np.linspace(upper, lower, 21).round().astype(int)
    inside = images[3][column[:, 1], column[:, 0]].mean(dim=1) / cheek
    assert inside[3:9].max() > 0.6
    assert inside[9:18].min() < 0.3


def test_behind_a_smile_the_dark_goes_over_into_the_lower_lip_without_an_edge(renderer):
    smiling, _ = renderer.render(talk(np.zeros(6)))
    track = detect(smiling, open_landmarker(engine="opencv"))[0]
    film = film_of_pictures(smiling, track, FPS)
    view = film.inside.views[0]
    above_lower = np.linspace(0, 0.6 * view.lips.half, 13)[:, None]
    places = view.lips.places(np.zeros(1), 2 * view.lips.half - above_lower)
    there = replace(mouth_views.as_filmed(film.face, 0), basis=view.basis, middle=view.middle)
    column = view.fill(places, 2 * view.lips.half - above_lower, above_lower, there)[:, 0].mean(axis=1)
    column /= view.light.mean()
    assert np.all(np.diff(column) < 0)
    assert np.abs(np.diff(column)).max() < 0.12
    assert column[0] > 0.3


def test_a_mouth_that_opens_wider_than_filmed_shows_a_tongue_behind_the_dark_below_its_teeth(renderer):
    smiling, _ = renderer.render(talk(np.zeros(6)))
    track = detect(smiling, open_landmarker(engine="opencv"))[0]
    film = film_of_pictures(smiling, track, FPS)
    view = film.inside.views[0]
    filmed = replace(mouth_views.as_filmed(film.face, 0), basis=view.basis, middle=view.middle)
    moved = np.zeros_like(filmed.moved)
    moved[INNER_LOWER_LIP, 1] = 2 * np.linalg.norm(view.basis[:, 1])
    height = np.linspace(0, 1, 21)[:, None]
    above_lower = height * view.lips.half
    places = view.lips.places(np.zeros(1), view.lips.half - above_lower)
    columns = [
        view.fill(places, view.lips.half - above_lower, above_lower, motion)[:, 0] / view.light
        for motion in (filmed, replace(filmed, moved=moved))
    ]
    (without, wide), tongue = columns, slice(3, 7)
    assert wide[tongue, 0].min() > 0.55
    assert np.all(wide[tongue, 0] > 1.2 * wide[tongue, 1])
    assert without[tongue, 0].max() < 0.45
    teeth = int(np.argmax(wide[:, 1] > 0.6))
    assert wide[teeth - 1].max() < 0.3
    np.testing.assert_allclose(wide[teeth:], without[teeth:], atol=0.02)


def test_no_dark_band_lies_between_the_lower_lip_and_the_tongue_of_a_wider_mouth(film, view):
    """What is dark above the lower lip in a mouth that is less open is the tongue's place in a wide one."""
    dark = np.full(3, 0.05) * view.light
    shaded = np.broadcast_to(dark, view.picture.shape).astype(np.float32)
    view = replace(view, picture=shaded, upper_to=0.2, lower_from=0.2, lower_lip=None, cavity=dark)
    filmed = replace(mouth_views.as_filmed(film.face, 0), basis=view.basis, middle=view.middle)
    moved = np.zeros_like(filmed.moved)
    moved[INNER_LOWER_LIP, 1] = 3 * np.linalg.norm(view.basis[:, 1])
    above_lower = np.linspace(0.15, 1, 18)[:, None] * view.lips.half
    places = view.lips.places(np.zeros(1), view.lips.half - above_lower)
    wide = view.fill(places, view.lips.half - above_lower, above_lower, replace(filmed, moved=moved))
    brightness = (wide[:, 0] / view.light).mean(axis=1)
    assert brightness[0] > 0.4
    assert np.all(np.diff(brightness) < 0.01)


def test_a_tongue_has_the_hue_of_the_films_lips_in_part(film, frames):
    filmed, picture = mouth_views.as_filmed(film.face, 0), frames[0].numpy().copy()
    plain = MouthView.of(picture, filmed)
    lips = cv2.fillConvexPoly(np.zeros(picture.shape[:2]), filmed.points[list(LIPS_OUTER)].astype(np.int32), 1) > 0
    picture[lips] = 0.5, 0.2, 0.6
    painted = MouthView.of(picture, filmed)
    assert painted.tongue[2] / painted.tongue[1] > 1.5 * plain.tongue[2] / plain.tongue[1]
    assert painted.tongue[2] < painted.tongue[0]
    assert painted.tongue @ LUMA == pytest.approx(0.52 * (painted.light @ LUMA), rel=0.01)


def test_of_mouths_that_are_alike_those_in_sharp_frames_tell_the_inside(film, frames, track):
    """Here each mouth comes twice, first in a blurred frame."""
    blurry = torch.from_numpy(np.stack([cv2.GaussianBlur(frame.numpy(), (0, 0), 2) for frame in frames[:4]]))
    blur = film_of_pictures(blurry, first_frames(track, 4), FPS).face.sharpness - film.face.sharpness[:4]
    assert blur.max() < -0.3
    names = ("points", "matrix", "found", "amount", "mouth_outside")
    twice = {name: np.concatenate([getattr(film.face, name)] * 2) for name in names}
    sharpness = np.concatenate([film.face.sharpness + blur.max(), film.face.sharpness])
    chosen: list[int] = []

    def read(numbers: np.ndarray) -> Iterator[np.ndarray]:
        chosen.extend(numbers.tolist())
        return (frames[int(number) % FRAMES].numpy() for number in numbers)

    mouth_views.film_views(replace(film.face, **twice, sharpness=sharpness), read)
    assert len(chosen) > 10
    assert np.mean(np.array(chosen) < FRAMES) < 0.25  # one of a pair can be alone among its widths


@pytest.mark.parametrize(("kernel", "blur"), [((19, 19), (3, 3)), ((1, 9), (0, 2)), ((1, 1), (0, 0))])
def test_how_much_more_blurred_a_frame_is_than_the_films_mouths_is_measured_along_both_axes(film, frames, kernel, blur):
    smear = cv2.GaussianBlur(frames[0].numpy(), kernel, 3) if kernel[0] > 1 else cv2.blur(frames[0].numpy(), kernel)
    measured = film.inside.blur(smear, mouth_views.as_filmed(film.face, 0))
    np.testing.assert_allclose(measured, blur, atol=0.6)


def test_the_inside_is_as_blurred_as_the_frame_that_it_is_drawn_in(film, frames, track):
    def soft(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (0, 0), 3)

    wide = talk(np.full(2, 0.5))
    blurry = replace(film, read=lambda numbers: (soft(frames[int(number)].numpy()) for number in numbers))
    for number, (sharp, image) in enumerate(zip(dubbed(film, wide)[0], dubbed(blurry, wide)[0], strict=True)):
        lips = track.points[number, list(LIPS_OUTER), :2]
        left, top, right, bottom = *lips.min(axis=0).astype(int), *lips.max(axis=0).astype(int)
        mouth = slice(top, bottom + 8), slice(left, right)
        wanted, drawn = soft(sharp.numpy())[mouth], image.numpy()[mouth]
        assert np.abs(drawn - wanted).mean() < 0.03
        assert np.abs(np.diff(drawn.mean(axis=-1), axis=0)).max() < 0.12


@pytest.mark.parametrize(("brightness", "left"), [(0.25, 0.05), (0.7, 0.53)])
def test_what_is_dim_below_teeth_leaves_no_streaks_in_a_wider_mouth_and_teeth_go_on(view, brightness, left):
    cavity, grey = np.full(3, 0.05) * view.light, np.full_like(view.picture, 1) * brightness * view.light
    view = replace(view, picture=grey.astype(np.float32), cavity=cavity)
    along, length = np.zeros((1, 1)), 0.2 * view.lips.half
    away = np.array([[0.9 * length, length + 0.04 * view.lips.half]])
    colours = view._lengthened(along, np.zeros((1, 1)), away, np.array(length), np.array(length))
    inside, below = (colours[0] / view.light).mean(axis=-1)
    assert inside == pytest.approx(brightness, abs=0.01)
    assert below == pytest.approx(left, abs=0.03)


@pytest.mark.parametrize(("lower", "changed"), [(0.4, True), (0.1, False)])
def test_teeth_that_lie_lower_than_upper_ones_do_in_the_same_head_are_lower_ones(view, lower, changed):
    open_wide = replace(view, upper_to=0.4, lower_from=0.4, lower_lip=None)
    part = 0.4 + lower / (view.height(1) - view.height(0))
    teeth = replace(view, upper_to=part, lower_from=1.0, lower_lip=view.cavity)
    views = with_lower_teeth([open_wide, open_wide, teeth])
    assert (views[2].lower_lip is None) == changed
    assert (views[2].lower_from < 0.2) == changed
    few = with_lower_teeth([open_wide, teeth, teeth])
    assert few[1] is teeth


def test_the_inside_is_that_of_filmed_mouths_of_the_same_shape(frames, track):
    """Here narrow mouths show red and wide ones blue."""
    face = film_of_pictures(frames, track, FPS).face
    opening = mouth_opening(face.points.astype(np.float64))
    between = (PARTED + opening.max()) / 2
    painted = frames.numpy().copy()
    for number in np.flatnonzero(opening >= PARTED):
        outline = np.rint(track.points[number, list(LIPS_INNER), :2]).astype(np.int32)
        cv2.fillPoly(painted[number], [outline], (0.9, 0, 0) if opening[number] < between else (0, 0, 0.9))
    film = film_of_pictures(torch.from_numpy(painted), track, FPS)
    assert not film.inside.drawn
    for jaw, shown, other in ((0.16, 0, 2), (0.5, 2, 0)):
        images, _ = dubbed(film, talk(np.full(FRAMES, jaw)))
        points = detect(images, open_landmarker(engine="opencv"))[0].points
        lips = points[:, [INNER_UPPER_LIP, INNER_LOWER_LIP], :2].mean(axis=1).round().astype(int)
        colours = torch.stack([images[k, y, x] for k, (x, y) in enumerate(lips.tolist())]).mean(dim=0)
        assert colours[shown] > 2 * colours[other]


@given(
    shapes=st.lists(st.tuples(st.floats(0.2, 2), st.floats(3, 6)), min_size=1, max_size=15, unique=True),
    opening=st.floats(0, 3),
    width=st.floats(2, 7),
)
def test_a_mouth_that_changes_slowly_mixes_its_inside_of_others_slowly(shapes, opening, width):
    views = MouthViews((), np.array(shapes), drawn=False)

    def parts(shape: list[float]) -> np.ndarray:
        result = np.zeros(len(shapes))
        for number, part in views.mixed(np.array(shape)):
            result[number] = part
        return result

    here = parts([opening, width])
    assert here.sum() == pytest.approx(1)
    assert (here > 0).sum() <= NEIGHBOURS
    assert np.all(here >= 0)
    places = np.array(shapes) / NEAR
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)[~np.eye(len(shapes), dtype=bool)]
    if len(apart) and apart.min() > 0.2:  # views of one shape are taken for each other at once
        assert np.abs(parts([opening + 1e-4, width]) - here).max() < 0.02


def test_of_a_films_mouths_all_openings_and_widths_are_taken(frames, track):
    film = film_of_pictures(frames, track, FPS)
    opening = mouth_opening(film.face.points.astype(np.float64)) * eye_distance(film.face.rest.shape)
    assert len(film.inside.views) >= 5
    assert film.inside.shapes[:, 0].max() > 0.8 * opening.max()
    assert film.inside.shapes[:, 0].min() < 0.5 * opening.max()


COVERED = range(9, 17)


@pytest.mark.parametrize(("shade", "width"), [((0.2, 0.2, 0.22), 0.5), ((0.15, 0.25, 0.7), 0.16)])
def test_what_is_in_front_of_the_mouth_stays_in_front(frames, track, shade, width):
    """A microphone or a pen comes up from below; the mouth goes on behind it, and is not drawn on it."""
    eyes = float(np.linalg.norm(track.points[0, 33, :2] - track.points[0, 263, :2]))
    filmed, masks = frames.clone(), torch.zeros(frames.shape[:3], dtype=torch.bool)
    for number in COVERED:
        x, y = track.points[number, [0, 17], :2].mean(axis=0)
        ends = [(round(x), round(y - 0.1 * eyes)), (round(x + 0.2 * eyes), SIDE)]
        shape = cv2.line(np.zeros((SIDE, SIDE), np.uint8), *ends, 1, round(width * eyes))
        masks[number] = torch.from_numpy(shape > 0)
        filmed[number][masks[number]] = torch.tensor(shade)
    film = film_of_pictures(filmed, track, FPS)
    images, changed = dubbed(film, NEW)
    covering = dubbed(replace(film, face=replace(film.face, appearance=None)), NEW)[0]

    def drawn_on(result: torch.Tensor) -> float:
        return float((result - filmed)[masks].abs().mean())

    assert drawn_on(images) < 0.15 * drawn_on(covering)
    uncovered = [number for number in range(FRAMES) if number not in COVERED]
    torch.testing.assert_close(images[uncovered], covering[uncovered])
    if width < 0.3:  # else most of the mouth is hidden
        assert all(changed[number].max() == 1 for number in COVERED)


def test_a_frame_whose_mouth_is_hidden_stays_as_filmed(frames, track):
    filmed = frames.clone()
    for number in COVERED:
        left, right = track.points[number, [58, 288], 0].round().astype(int)
        top = round(track.points[number, 164, 1])  # between nose and lip
        filmed[number, top:, left:right] = 0.9
    images, masks = dubbed(film_of_pictures(filmed, track, FPS), NEW)
    middle = COVERED[2:-2]
    assert torch.equal(images[middle.start : middle.stop], filmed[middle.start : middle.stop])
    assert not masks[middle.start : middle.stop].any()


def test_a_mouth_under_a_black_bar_all_the_time_is_no_error(frames, track):
    """Where all is black, no row of the mouth is brighter than another."""
    few = first_frames(track, 3)
    filmed = frames[:3].clone()
    for number, points in enumerate(few.points):
        left, right = points[[58, 288], 0].round().astype(int)
        filmed[number, round(points[164, 1]) :, left:right] = 0
    for pictures in (filmed, (255 * filmed).byte()):
        images, masks = dubbed(film_of_pictures(pictures, few, FPS), NEW)
        assert torch.isfinite(images).all()
        assert torch.isfinite(masks).all()


def test_pictures_without_a_face_are_refused(frames, track):
    with pytest.raises(TalkingPortraitError, match="none of the 24 pictures"):
        film_of_pictures(frames, replace(track, found=np.zeros(FRAMES, bool)), FPS)


def test_a_film_that_is_interrupted_is_closed_at_once(video):
    """Also while the error lives; Windows can't delete a file that is open."""

    def stop(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done >= 60:  # percent: frames are drawn
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt) as caught:
        list(dub_video(video, lambda fps: NEW, open_landmarker(engine="opencv"), batch=4, progress=stop).pieces)
    assert not [thread.name for thread in threading.enumerate() if thread not in before and "ahead" in thread.name]
    assert caught.value.__traceback__ is not None  # which keeps all that was at work


def test_speech_and_changing_light_hide_nothing(frames, track):
    """Neither what a mouth does nor a lamp that fades and turns red is taken for a thing in front of it."""
    phase = torch.linspace(0, 6, FRAMES)[:, None, None, None]
    lamp = 0.75 + 0.2 * torch.sin(phase) + 0.1 * torch.sin(1.7 * phase) * torch.linspace(-1, 1, SIDE)[:, None]
    lit = frames * lamp * (1 - 0.15 * torch.sin(phase).abs() * torch.tensor([0.0, 0.5, 1.0]))
    for film in (film_of_pictures(pictures, track, FPS) for pictures in (frames, lit)):
        looks = [
            film.face.appearance.oddness(texture_of(frame, points))
            for frame, points in zip(film.read(np.arange(FRAMES)), film.face.points, strict=True)
        ]
        assert not any(
            covered(looks[max(0, number - 2) : number + 3], min(number, 2)).any() for number in range(FRAMES)
        )


def test_a_mouth_blurred_by_its_movement_in_a_shadow_is_not_taken_for_fingers(frames, track):
    textures = [texture_of(frame.numpy(), points) for frame, points in zip(frames, track.points, strict=True)]
    appearance, below = Appearance.of(textures), texture_grid().y < -2.6
    for number in (0, 8, 9):  # lips almost shut, which most frames are not
        blurred = 0.8 * cv2.blur(textures[number].colours.astype(np.float32), (1, 7))
        colours = np.where(below[..., None], blurred, textures[number].colours)
        assert not appearance.oddness(replace(textures[number], colours=colours)).skin.any()


def test_cheeks_that_shine_or_redden_do_not_tint_the_inside_and_a_coloured_lamp_does(frames, track):
    picture, points = frames[0].numpy(), track.points[0]
    eyes = np.linalg.norm(points[33, :2] - points[263, :2])
    before = skin_light(picture, points)
    shiny = picture.copy()
    for cheek in (points[[205, 50, 187], :2].mean(axis=0), points[[425, 280, 411], :2].mean(axis=0)):
        spot = np.zeros(picture.shape[:2], np.uint8)
        cv2.circle(spot, tuple(np.rint(cheek).astype(int).tolist()), round(0.35 * eyes), 1, -1)
        shiny[spot > 0] = shiny[spot > 0] * 0.6 + 0.4 * np.array([0.8, 0.9, 1.0])
    hue = skin_light(shiny, points) / before
    assert hue.max() / hue.min() < 1.04
    lamp = np.array([0.9, 0.7, 0.5], np.float32)
    hue = skin_light(picture * lamp, points) / before / lamp
    assert hue.max() / hue.min() < 1.04


def test_light_that_swings_is_on_the_inside_of_the_mouth_too(frames, track):
    """The inside is taken from one frame; under a lamp that flickers it is as bright as the lips."""
    film = film_of_pictures(frames, track, FPS)
    lamp = (0.75 + 0.25 * torch.cos(torch.arange(FRAMES) * np.pi / 3))[:, None, None, None]
    steady, masks = dubbed(film, NEW)
    lit = dubbed(replace(film, read=lambda numbers: iter((frames * lamp)[numbers].numpy())), NEW)[0]
    assert float((lit - steady * lamp).abs().amax(-1)[masks > 0].max()) < 0.1


@pytest.mark.parametrize("fingers", [False, True])
def test_lips_that_are_seldom_shut_look_known_and_fingers_do_not(renderer, fingers):
    """A film that shows teeth most of the time has shut lips that look as unlike them as fingers do, but are red."""
    jaw = np.full(FRAMES, 0.55)
    jaw[8:13] = 0
    frames, _ = renderer.render(talk(jaw))
    track = detect(frames, open_landmarker(engine="opencv"))[0]
    textures = [texture_of(frame.numpy(), points) for frame, points in zip(frames, track.points, strict=True)]
    grid = texture_grid()
    rows, columns = slice(grid.row(-3.0), grid.row(-8.0)), slice(grid.column(-3.0), grid.column(3.0))
    for number in range(8, 13) if fingers else ():
        colours = textures[number].colours.copy()
        colours[rows, columns] = np.median(colours[grid.row(-2.6), columns], axis=0)
        textures[number] = replace(textures[number], colours=colours)
    appearance = Appearance.of(textures)
    likeness = [min(_likeness(_lip_colours(_logarithms(texture)), appearance.mouths)) for texture in textures[9:12]]
    assert max(likeness) < HIDDEN_BELOW if fingers else min(likeness) > 0.9


@pytest.mark.parametrize(("gap", "touched"), [(None, 1.0), (1.0, 1.0), (10.0, 1.0), (10.0, 0.0)])
def test_teeth_that_cling_to_the_edge_of_a_lip_take_its_colour_and_nothing_else_does(gap, touched):
    """So does the dark line where it touched the other lip, once they are apart, but no dark beside an open lip."""
    half, red, white, dark = 50.0, np.array([180, 80, 80]), np.array([230, 225, 215]), np.array([60, 30, 30])
    along, depth = np.meshgrid(np.arange(-60, 61.0), np.arange(-5, 20.0))
    lip = np.broadcast_to(red, (*along.shape, 3)).astype(np.float32)
    teeth, shine, shade = (depth > -1) & (depth < 3), (depth > 12) & (depth < 14), np.abs(along + 20) < 2
    lip[teeth | shine] = white
    lip[teeth & shade] = dark
    lip[depth < -1] = white
    before = lip.copy()
    apart = None if gap is None else np.full(along.shape, gap)
    lower_face._clear_edge(lip, along, depth, half, np.array([200.0, 150, 130]), apart, touched)
    mouth = np.abs(along) < 0.9 * half
    assert np.abs(lip[teeth & mouth & ~shade] - red).max() < 15
    if gap == 10 and touched:
        assert np.abs(lip[teeth & shade] - red).max() < 15
    else:
        np.testing.assert_allclose(lip[teeth & shade], before[teeth & shade], atol=0.01)
    np.testing.assert_allclose(lip[~teeth], before[~teeth], atol=0.01)


def test_lips_are_known_to_have_touched_by_the_filmed_frame_and_not_by_the_new_words(frames, track, monkeypatch):
    """Beside lips that were apart already, dark edges made lip-coloured were bright rims."""
    film = film_of_pictures(frames, track, FPS)
    opening = mouth_opening(film.face.points.astype(np.float64))
    touched = []
    monkeypatch.setattr(lower_face, "_clear_edge", lambda *given: touched.append(given[6]) if len(given) > 6 else None)
    for number in (int(opening.argmin()), int(opening.argmax())):
        move = mouth_motions(film.face, np.array([number]), NEW, np.array([6]), 1.0)[0]
        frame = frames[number].numpy().copy()
        box = lower_face.changed_box(move, frame.shape[:2])
        lower_face.draw_mouth(frame, box, move, film.inside, skin_light(frame, move.points), 1.0)
    assert touched[0] > 0.9
    assert touched[1] < 0.1


@pytest.mark.parametrize("fingers", [False, True])
def test_a_smile_in_a_film_of_shut_lips_hides_nothing_and_fingers_do(renderer, fingers):
    """Teeth make a mouth as unlike shut lips as fingers do, but some of its lips is seen beside them."""
    frames, _ = renderer.render(talk(np.zeros(FRAMES)))
    track = detect(frames, open_landmarker(engine="opencv"))[0]
    textures = [texture_of(frame.numpy(), points) for frame, points in zip(frames, track.points, strict=True)]
    grid = texture_grid()
    rows, columns = slice(grid.row(-3.2), grid.row(-6.2)), slice(grid.column(-2.6), grid.column(2.6))
    colours = textures[5].colours.astype(np.float32)
    cheek = np.median(colours[grid.row(-2.6), columns], axis=0)
    mouth = colours[rows, columns]
    middle, thick = len(mouth) // 2, 3
    if fingers:
        mouth[:] = cheek
    else:
        upper, lower = mouth[thick:middle].copy(), mouth[middle : -thick - 1].copy()
        mouth[: middle - thick], mouth[middle + thick + 1 :] = upper, lower
        mouth[middle - thick : middle + thick + 1] = cheek * [1.05, 1.1, 1.2]
        mouth[:] = cv2.blur(mouth, (1, 5))
    odd = Appearance.of(textures).oddness(replace(textures[5], colours=colours.clip(0, 255)))
    assert odd.skin.any() == fingers


@pytest.mark.parametrize("pen", [False, True])
def test_a_snarls_dark_corner_and_fold_hide_nothing_and_a_pen_across_the_lips_does(frames, track, pen):
    """The mesh has no texels along nostrils and between lips; what begins there does not come from outside."""
    textures = [texture_of(frame.numpy(), points) for frame, points in zip(frames, track.points, strict=True)]
    grid = texture_grid()
    shape = np.zeros(grid.on_face.shape, np.uint8)
    lines = [((0.3, -3.6), (0.6, -9.0))] if pen else [((2.2, -4.4), (2.4, -4.2)), ((1.7, -0.4), (3.4, -2.6))]
    for line in lines:
        cv2.line(shape, *((grid.column(x), grid.row(y)) for x, y in line), 1, 7)
    colours = np.where(shape[..., None] > 0, 25, textures[5].colours).astype(np.uint8)
    found = Appearance.of(textures).oddness(replace(textures[5], colours=colours)).other
    compared = (shape > 0) & grid.on_face & ~grid.between_lips
    assert found[compared].mean() > 0.92 if pen else not found.any()


def test_the_far_cheek_of_a_turned_face_is_not_compared():
    grid = texture_grid()
    visible = {}
    for degrees in (0, 30):
        angle = np.radians(degrees)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        turned = neutral_vertices() @ turn.T
        points = turned * [12, -12, -12] + [128, 128, 0]
        visible[degrees] = texture_of(np.zeros((256, 256, 3), np.uint8), points).visible
    near, far = grid.on_face & (grid.x < -5), grid.on_face & (grid.x > 5)
    assert visible[0][near].mean() > 0.9
    assert visible[0][far].mean() > 0.9
    assert visible[30][near].mean() > 0.9
    assert visible[30][far].mean() < 0.1


@pytest.mark.parametrize("rims", [(0.0, 0.0), (0.05, 0.1)])
def test_the_edges_of_open_lips_are_where_colours_change(rims):
    """Red lips, white teeth and a dark mouth, whose edges lie outside the landmarks by parts of its half width."""
    opened = neutral_vertices() + mouth_vertices(np.array([[0.5, 0.4, 0, 0, 0, 0]]))[0]
    points = opened * [14, -14, -14] + [128, 0, 0]
    mouth = Aperture(points[:, :2], MOUTH_CORNERS, UPPER_INNER_LIP, LOWER_INNER_LIP)
    x, y = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
    along, across = np.moveaxis(mouth.local(np.stack([x, y], axis=-1)), -1, 0)
    upper, lower = mouth.edges_at(along)
    upper, lower = upper - rims[0] * mouth.half, lower + rims[1] * mouth.half
    frame = np.full((256, 256, 3), (190, 90, 90), np.uint8)
    frame[(across > upper) & (across < lower)] = (40, 15, 15)
    frame[(across > upper) & (across < upper + 0.4 * (lower - upper))] = (225, 215, 200)
    steps = edge_steps(frame, points)
    assert steps is not None
    assert lip_rims([steps] * 3) == pytest.approx(rims, abs=0.02)
    assert edge_steps(frame, neutral_vertices() * [14, -14, -14] + [128, 0, 0]) is None
    assert lip_rims([]) == USUAL_RIMS


def test_textures_are_kept_from_all_of_a_film(frames, track):
    keeper = TextureKeeper()
    for number in range(5 * MOST_TEXTURES):
        frame, points = np.full((64, 64, 3), number % 256, np.uint8), track.points[0] / 4
        keeper.add(number, texture_of(frame, points), frame, points)
    assert MOST_TEXTURES / 4 <= len(keeper.kept) <= MOST_TEXTURES
    values = [int(texture.colours[30, 50, 0]) for texture in keeper.kept.values()]
    assert len(set(np.diff(values) % 256)) == 1


def test_frames_without_the_face_stay_as_filmed(frames, track):
    found = np.ones(FRAMES, bool)
    found[10:13] = False
    images, masks = dubbed(film_of_pictures(frames, replace(track, found=found), FPS), NEW)
    assert torch.equal(images[10:13], frames[10:13])
    assert not masks[10:13].any()
    assert 0 < float(masks[9].max()) < float(masks[5].max()) == 1


def test_a_transparent_film_is_said_to_become_opaque(frames, tmp_path):
    path = tmp_path / "cut.mov"
    pictures = torch.cat([frames[:2], torch.ones(2, SIDE, SIDE, 1)], dim=-1)
    pictures[:, :8, :, 3] = 0
    with VideoWriter(path, (SIDE, SIDE), FPS, alpha=True) as writer:
        writer.write((pictures * 255).round().byte().numpy())
    dubbed_video = dub_video(path, lambda _: talk(waves(5, 2)), open_landmarker(engine="opencv"))
    assert "What is transparent in it shows white, as a dubbed video is opaque." in dubbed_video.report
    assert all((images[:, :4] > 250).all() for images, _ in dubbed_video.pieces)


def test_frames_whose_mouth_lies_outside_the_picture_stay_as_filmed_and_are_counted(frames, track, tmp_path):
    path, motion = tmp_path / "cut.mp4", talk(waves(5, 10))
    below = int(track.points[:, [0, 13], 1].mean()) // 2 * 2
    with VideoWriter(path, (below, SIDE), FPS, crf=5) as writer:
        writer.write((frames[:10, :below] * 255).round().byte().numpy())
    cut = dub_video(path, lambda _: motion, open_landmarker(engine="opencv"))
    assert "The mouth, or most of it, lies outside the picture in all of them, which stay as they are" in cut.report
    assert not any(masks.any() for _, masks in cut.pieces)
    assert not film_of_pictures(frames, track, FPS).face.mouth_outside.any()


def test_amounts_never_exceed_what_is_wanted_nor_jump_within_a_shot():
    wanted = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1, 1.0])
    amounts = _faded(wanted, (0, 6))
    assert (amounts <= wanted).all()
    steps = np.abs(np.diff(amounts))
    assert steps[np.arange(9) != 5].max() <= 0.25 + 1e-6
    assert amounts[6] == 1


def test_quiet_jaw_leaves_the_chin_as_filmed(frames, track):
    film = film_of_pictures(frames, track, FPS)
    chin = track.points[:, 152, :2].round().astype(int)
    still, moved = dubbed(film, NEW, jaw=0.0)[0], dubbed(film, NEW)[0]
    rows = np.arange(FRAMES), chin[:, 1] - 2, chin[:, 0]
    assert (still[rows] - frames[rows]).abs().mean() < 0.3 * (moved[rows] - frames[rows]).abs().mean()


def test_a_chin_that_stays_stretches_all_the_skin_up_to_lips_that_shut(frames, track):
    face = film_of_pictures(frames, track, FPS).face
    widest = np.array([int(mouth_opening(track.points).argmax())])
    mouth = mouth_motions(face, widest, talk(np.zeros(1)), np.zeros(1, int), 0.0)[0]
    below = [17, 18, 200, 199, 175, 152]  # from the lower lip to the chin
    before, after = (np.diff(points[below, 1]) for points in (mouth.points, mouth.points + mouth.moved))
    lifted = -mouth.moved[17, 1] / before.sum()
    assert lifted > 0.1
    assert (after / before).max() < 1 + 2.5 * lifted


@given(st.integers(1, 40), st.integers(1, 200))
def test_the_speech_decides_how_many_frames_there_are(count, frames):
    turning = frame_order(count, frames, "back and forth")
    assert len(turning) == len(frame_order(count, frames, "hold")) == frames
    assert len(frame_order(count, frames, "cut")) == min(count, frames)
    for order in (turning, frame_order(count, frames, "hold")):
        assert order.min() >= 0
        assert order.max() < count
        assert np.abs(np.diff(order)).max(initial=0) <= 1


def test_one_of_two_faces_speaks(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(large_arrays, "IN_MEMORY", 0)  # as in a long film
    path = tmp_path / "two.mp4"
    with VideoWriter(path, (SIDE, 2 * SIDE), FPS, crf=5) as writer:
        both = torch.cat([frames, frames.flip(0)], dim=2)[:10]
        writer.write((both * 255).round().byte().numpy())
    truth = np.stack(list(open_video(path).frames()))
    mask = torch.zeros(1, SIDE, 2 * SIDE)
    mask[:, :, SIDE:] = 1
    right = [FaceChoice("index", 1), FaceChoice(place=(1.5 * SIDE, 0.5 * SIDE)), FaceChoice(mask=mask)]
    landmarker = open_landmarker(engine="opencv")
    motion = talk(waves(5, 10))
    unchosen = dub_video(path, lambda _: motion, landmarker).report
    assert re.search(
        r"Of several faces the largest speaks, that at \d+, \d+; face, face_at or a mask around it", unchosen
    )
    for choice in right:
        video = dub_video(path, lambda _: motion, landmarker, face=choice)
        pieces = video.pieces
        assert "several" not in video.report
        result = np.concatenate([images.numpy() for images, _ in pieces])
        assert (result[:, :, :SIDE] == truth[:, :, :SIDE]).all()
        assert (result[:, :, SIDE:] != truth[:, :, SIDE:]).any()


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (FaceChoice(place=(900, 3)), "The face at 900, 3 was requested, but the video has 256 x 256 pixels"),
        (FaceChoice(mask=torch.zeros(1, 8, 8)), "The mask is empty"),
        (FaceChoice("index", 4), "Face number 4 was requested, but 1 face was found"),
    ],
)
def test_a_face_that_is_not_there_is_refused(video, choice, sentence):
    with pytest.raises(TalkingPortraitError, match=sentence):
        dub_video(video, lambda _: NEW, open_landmarker(engine="opencv"), face=choice)


def test_a_video_without_a_face_is_refused(tmp_path):
    path = tmp_path / "grey.mp4"
    with VideoWriter(path, (64, 64), FPS) as writer:
        writer.write(np.full((5, 64, 64, 3), 90, np.uint8))
    with pytest.raises(TalkingPortraitError, match=r"A face is found in none of the 5 frames of grey\.mp4"):
        dub_video(path, lambda _: NEW, open_landmarker(engine="opencv"))


def test_the_command_dubs_a_video_at_its_own_rate(video, tmp_path, capsys):
    write_wav(tmp_path / "voice.wav", Audio(torch.randn(1, 16000) * 0.1, 16000))
    arguments = ["animate", "--image", str(video), "--audio", str(tmp_path / "voice.wav"), "--out"]
    assert main([*arguments, str(tmp_path / "whole.mp4")]) == 0
    assert "played back and forth" in capsys.readouterr().err
    assert len(list(open_video(tmp_path / "whole.mp4").frames())) == 25
    save_motion(tmp_path / "5.npz", talk(waves(5, 5)))
    arguments[1:1] = ["--motion", str(tmp_path / "5.npz"), "--head", "2"]
    assert main([*arguments, str(tmp_path / "cut.mp4"), "--film-end", "cut"]) == 0
    said = capsys.readouterr().err
    assert "--head has no effect on a video" in said
    assert "The motion lasts 0.20 s and the sound 1.00 s, so its last pose is held." in said
    assert len(list(open_video(tmp_path / "cut.mp4").frames())) == FRAMES
    sound = sum(len(block) for block in open_sound(tmp_path / "cut.mp4").blocks())
    assert abs(sound - 16000 * FRAMES / 25) <= 2048  # AAC has blocks of 1024 samples


def test_a_row_of_a_batch_and_the_python_api_dub_a_video_too(video, frames, tmp_path, capsys):
    write_wav(tmp_path / "voice.wav", Audio(torch.randn(1, 3200) * 0.1, 16000))
    row = {"portrait": str(video), "audio": "voice.wav", "settings": {"mouth": 0.5}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert main(["batch", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path)]) == 0, capsys.readouterr()
    (made,) = tmp_path.glob("film_voice_*.mp4")
    results = np.stack(list(open_video(made).frames()))
    assert len(results) == 5
    assert np.abs(results[:, :64] - (frames[:5, :64] * 255).numpy()).mean() < 3  # above the mouth it is as filmed
    longer = tp.animate(video, tmp_path / "voice.wav", tmp_path / "10.mp4", fps=10, motion=talk(waves(5, 4)))
    assert len(list(open_video(longer).frames())) == 2
    speech = Audio(torch.randn(1, 32000) * 0.1, 16000)
    for number, sound in enumerate((speech, write_wav(tmp_path / "long.wav", speech) or tmp_path / "long.wav")):
        cut = tp.animate(video, sound, tmp_path / f"cut{number}.mp4", film_end="cut", jaw=0.5, face=0)
        assert len(list(open_video(cut).frames())) == FRAMES
        lasts = sum(len(block) for block in open_sound(cut).blocks())
        assert abs(lasts - 16000 * FRAMES / 25) <= 2048  # AAC has blocks of 1024 samples
    for option, sentence in (
        ({"longest_side": 64}, "longest_side was given, but a video"),
        ({"renderer": "apasco"}, "is a video, but apasco"),
        ({"film_end": ["cut"]}, "but one of back-and-forth, hold, cut is expected"),
        ({"jaw": "1"}, "The jaw's amount is '1', but a number from 0 to 1"),
        ({"face": "left"}, "The face is 'left', but a whole number is expected"),
        ({"face": 5}, "Face number 5 was requested, but 1 face was found"),
        ({"face_at": (3, 3), "face": 0}, "face and face_at were given, but one face"),
        ({"face_at": 3}, "The face_at is 3, but two numbers of pixels are expected"),
        ({"face_at": (9999, 3)}, "give a place within them"),
        ({"face_at": "640"}, "The face_at is '640', but two numbers of pixels are expected"),
        ({"face_at": "9999,3"}, "The face at 9999, 3 was requested"),
        ({"face_at": (10**400, 3)}, "two numbers of pixels are expected"),
    ):
        with pytest.raises(TalkingPortraitError, match=sentence):
            tp.animate(video, tmp_path / "voice.wav", tmp_path / "no.mp4", **option)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"settings": {"longest_side": 64}}))
    with pytest.raises(TalkingPortraitError, match="Line 1 of rows.jsonl: longest_side was given"):
        read_manifest(tmp_path / "rows.jsonl", tmp_path)


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--size", "64"], "--size was given, but a video keeps its size"),
        (["--renderer", "apasco"], "is a video, but apasco takes a picture"),
        (["--face-at", "3,3", "--face", "0"], "--face and --face-at were given, but one face"),
        (["--face-at", "here"], "two numbers of pixels are expected"),
        (["--jaw", "3"], "a number from 0 to 1 is expected"),
    ],
)
def test_options_that_do_not_fit_a_video_are_refused(video, tmp_path, capsys, extra, sentence):
    assert main(["animate", "--image", str(video), "--out", str(tmp_path / "out.mp4"), *extra]) != 0
    said = capsys.readouterr().err
    assert sentence in said
    assert "The face is found" not in said  # refused before the film is looked through
    assert not (tmp_path / "out.mp4").exists()


def test_a_picture_is_no_film_whatever_its_name_says(frames, video, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    write_image(picture, frames[0])
    named = picture.rename(tmp_path / "picture.mp4")
    assert is_film(video)
    assert not is_film(named)
    assert main(["animate", "--image", str(named), "--out", str(tmp_path / "out.mp4"), "--jaw", "0.5"]) != 0
    assert "--jaw was given, but it is for videos" in capsys.readouterr().err
