"""Drawn eyes that are larger than their landmarks: their outlines are found, and a blink covers all of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from talking_portrait.models.face.face_mesh import FACE_OVAL, LEFT_EYE, RIGHT_EYE
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.instant.renderer.eyes.drawn_eyes import with_drawn_eyes
from talking_portrait.pipelines.instant.renderer.picture_style import PictureStyle
from talking_portrait.pipelines.instant.renderer.portrait_mesh import PortraitMesh
from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
from talking_portrait.pipelines.instant.renderer.warp import Layer
from talking_portrait.pipelines.types import FaceTrack

from .test_eyelids import blinks

RINGS = (RIGHT_EYE, LEFT_EYE)
FINER = 4
"""Pixels to one of the picture in which eyes are drawn."""


@cache
def drawn_face(*, lenses: bool = False) -> tuple[torch.Tensor, np.ndarray]:
    """A drawing (H, W, 3) with the shipped portrait's landmarks, and its eyes' ellipses (2, 2, 2): middles and radii.

    Within a black line the eyes are white and green; the landmarks are in the middle of them. `lenses` are dark within
    a white frame.
    """
    image, track = example_portrait()
    points = track.points[0, :, :2]
    height, width = image.shape[:2]
    canvas = Image.new("RGB", (FINER * width, FINER * height), (120, 160, 200))
    draw, ellipses = ImageDraw.Draw(canvas), []
    oval = points[list(FACE_OVAL)]
    draw.polygon([tuple(FINER * point) for point in oval.mean(0) + 1.3 * (oval - oval.mean(0))], fill=(238, 190, 160))
    draw.line([tuple(FINER * points[index]) for index in (61, 13, 291)], fill=(90, 40, 30), width=3 * FINER)
    for ring in RINGS:
        middle, half = points[list(ring)].mean(axis=0), np.ptp(points[list(ring), 0]) / 2
        ellipses.append((middle, half * np.array([1.1, 1.6])))
        line, eyeball, iris, pupil = (1.1, 1.6), (0.97, 1.47), (0.6, 0.8), (0.3, 0.4)
        colours = {line: "black", eyeball: "white", iris: (40, 150, 60), pupil: "black"}
        if lenses:
            colours = {line: (230, 230, 230), eyeball: (40, 45, 40)}
        for radii, colour in colours.items():
            reach = FINER * half * np.array(radii)
            draw.ellipse([*(FINER * middle - reach), *(FINER * middle + reach)], fill=colour)
    picture = canvas.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).float() / 255, np.array(ellipses)


def layer_of(image: torch.Tensor) -> Layer:
    return Layer(torch.cat([image.permute(2, 0, 1), torch.ones(1, *image.shape[:2])])[None], 0, 0)


def test_outlines_are_found_inside_the_line_that_is_drawn_around_the_eyes():
    (image, ellipses), mesh = drawn_face(), PortraitMesh(example_portrait()[1])
    points, within = with_drawn_eyes(layer_of(image), mesh.points, mesh.eye_distance)
    assert within is not None
    for ring, (middle, radii) in zip(RINGS, ellipses, strict=True):
        # In the middle of both lids, along which a line is, and at the corners, which cover it.
        for index, part in ((ring[4], 1.47 / 1.6), (ring[12], 1.47 / 1.6), (ring[0], 1.0), (ring[8], 1.0)):
            assert abs(np.linalg.norm((points[index] - middle) / radii) - part) < 0.06
            inside = 0.97 / 1.1 if part == 1.0 else part
            assert abs(np.linalg.norm((within[index] - middle) / radii) - inside) < 0.06
    others = np.setdiff1d(np.arange(len(points)), RINGS)
    np.testing.assert_array_equal(points[others], mesh.points[others])


def test_a_blink_covers_a_drawn_eye_and_leaves_a_line():
    image, ellipses = drawn_face()
    renderer = InstantRenderer(image, example_portrait()[1])
    half, shut = renderer.render(blinks(0.5, 1.0))[0].numpy()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    for middle, radii in ellipses:
        away = np.hypot((x - middle[0]) / radii[0], (y - middle[1]) / radii[1])
        # Skin has less blue than the white, and less green than red.
        white = lambda frame: (frame[..., 2] > 0.8) & (away < 1)  # noqa: E731, B023
        green = lambda frame: (frame[..., 1] > frame[..., 0] + 0.1) & (away < 1)  # noqa: E731, B023
        assert 0.1 < white(half).sum() / white(image.numpy()).sum() < 0.7
        assert not white(shut).any()
        assert not green(shut).any()
        columns = slice(round(middle[0] - 0.6 * radii[0]), round(middle[0] + 0.6 * radii[0]))
        lower = shut[round(middle[1]) : round(middle[1] + 1.1 * radii[1]), columns]
        assert (lower.mean(axis=-1).min(axis=0) < 0.4).mean() > 0.9


def test_the_line_around_a_drawn_eye_stays_when_it_looks_around_or_opens_wider():
    image, ellipses = drawn_face()
    motion = replace(blinks(-0.1, 0.0), gaze=np.array([[0, 0], [14, 0]], np.float32))
    wider, looking = InstantRenderer(image, example_portrait()[1]).render(motion)[0].numpy()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    for middle, radii in ellipses:
        outside = np.hypot((x - middle[0]) / radii[0], (y - middle[1]) / radii[1]) > 0.97
        near = (np.abs(x - middle[0]) < 1.5 * radii[0]) & (np.abs(y - middle[1]) < 1.5 * radii[1])
        for frame in (wider, looking):
            assert np.abs(frame - image.numpy())[outside & near].max() < 0.1
        white = near & (image.numpy().min(axis=-1) > 0.9) & ~outside
        assert np.abs(looking - image.numpy())[white].max() > 0.3, "the iris has moved"


def test_dark_lenses_in_a_drawing_do_not_blink():
    assert InstantRenderer(drawn_face(lenses=True)[0], example_portrait()[1]).eyes == ()


def test_flat_colours_are_no_statue():
    (image, _), mesh = drawn_face(), PortraitMesh(example_portrait()[1])
    style = PictureStyle.of(image.numpy(), mesh.points, mesh.eye_distance)
    assert style.drawn > 0.9
    assert style.stone < 0.1


def test_the_landmarks_of_a_persons_eyes_are_kept():
    image, track = example_portrait()
    mesh = PortraitMesh(track)
    points, within = with_drawn_eyes(layer_of(image), mesh.points, mesh.eye_distance)
    assert within is None
    np.testing.assert_array_equal(points, mesh.points)


def test_dark_lashes_around_eyes_that_look_down_are_no_larger_eyes():
    (image, _), mesh = drawn_face(), PortraitMesh(example_portrait()[1])
    for ring in RINGS:
        middle = mesh.points[list(ring)].mean(axis=0)
        mesh.points[list(ring)] = middle + (mesh.points[list(ring)] - middle) * [1, 0.4]
    assert with_drawn_eyes(layer_of(image), mesh.points, mesh.eye_distance)[1] is None


def large_eyes(below: float) -> tuple[torch.Tensor, FaceTrack, list[float]]:
    """The shipped portrait with soft large eyes that go on below their landmarks, by `below` eye half widths.

    Also the heights of their lower edges.
    """
    image, track = example_portrait()
    points, edges = track.points.copy(), []
    painted = Image.fromarray((image.numpy() * 255).round().astype(np.uint8))
    for ring in RINGS:
        eye = points[0, list(ring)]
        eye[:, 1] = eye[:, 1].mean() + 1.7 * (eye[:, 1] - eye[:, 1].mean())
        points[0, list(ring)] = eye
        half, lower, middle = np.ptp(eye[:, 0]) / 2, eye[:, 1].max(), eye[:, :2].mean(axis=0)
        edges.append(lower + below * half)
        cover = Image.new("L", painted.size)
        top, sides = eye[:, 1].min(), (middle[0] - half, middle[0] + half)
        ImageDraw.Draw(cover).ellipse([sides[0], top, sides[1], edges[-1]], fill=150)
        painted.paste((225, 226, 235), mask=cover.filter(ImageFilter.GaussianBlur(0.7)))
        iris = Image.new("L", painted.size)
        ImageDraw.Draw(iris).ellipse(
            [middle[0] - 0.45 * half, top, middle[0] + 0.45 * half, edges[-1] - 0.1 * half], fill=110
        )
        painted.paste((90, 90, 150), mask=iris.filter(ImageFilter.GaussianBlur(0.7)))
    return torch.from_numpy(np.array(painted)).float() / 255, replace(track, points=points), edges


def test_the_lower_edges_of_large_eyes_are_found():
    image, track, edges = large_eyes(below=0.35)
    mesh = PortraitMesh(track)
    points, within = with_drawn_eyes(layer_of(image), mesh.points, mesh.eye_distance)
    assert within is None
    for ring, edge in zip(RINGS, edges, strict=True):
        half = np.ptp(mesh.points[list(ring), 0]) / 2
        assert abs(points[ring[12], 1] - edge) < 0.1 * half
        np.testing.assert_array_equal(points[list(ring[:9])], mesh.points[list(ring[:9])])
