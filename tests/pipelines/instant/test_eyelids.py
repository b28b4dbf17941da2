"""Blinks: lids that cover the eye wholly, and eyes that do not blink."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from talking_portrait.models.face.face_mesh import LEFT_EYE, RIGHT_EYE
from talking_portrait.models.face.mouth_shapes import neutral_vertices
from talking_portrait.models.face.upper_face_shapes import upper_face_shapes
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.instant.renderer.eyes.eyelids import eyelids
from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
from talking_portrait.pipelines.types import FaceMotion


def blinks(*closures: float) -> FaceMotion:
    """A motion in which both eyes are closed so far and nothing else moves."""
    shapes = upper_face_shapes()
    closing = shapes["eyeBlinkLeft"] + shapes["eyeBlinkRight"]
    vertices = neutral_vertices() + np.array(closures)[:, None, None] * closing
    still = np.zeros((len(closures), 3), np.float32)
    return FaceMotion(vertices.astype(np.float32), neutral_vertices(), still, still, Fraction(25))


def with_eyes_painted(colour, rings=(RIGHT_EYE, LEFT_EYE), grow: float = 1.0) -> tuple[torch.Tensor, np.ndarray]:
    """The sample portrait (H, W, 3) with what lies within the lids in one colour, and where (H, W) that is."""
    image, track = example_portrait()
    cover = Image.new("L", (image.shape[1], image.shape[0]))
    for ring in rings:
        points = track.points[0, list(ring), :2]
        points = points.mean(axis=0) + (points - points.mean(axis=0)) * grow
        ImageDraw.Draw(cover).polygon([tuple(point) for point in points], fill=255)
    picture = Image.fromarray((image.numpy() * 255).round().astype(np.uint8))
    picture.paste(colour, mask=cover.filter(ImageFilter.GaussianBlur(0.5)))
    return torch.from_numpy(np.array(picture)).float() / 255, np.array(cover) > 0


def test_a_shut_lid_leaves_no_slit():
    image, track = example_portrait()
    eyes = InstantRenderer(image, track).eyes
    green, inside = with_eyes_painted((0, 255, 0))
    renderer = InstantRenderer(green, track)
    renderer.eyes = eyes
    half, shut = renderer.render(blinks(0.5, 1.0))[0]
    greenness = lambda frame: (frame[..., 1] - frame[..., [0, 2]].amax(dim=-1)).numpy()  # noqa: E731
    assert (greenness(half) > 0.3)[inside].mean() > 0.2
    assert (greenness(shut) > 0.1).sum() == 0


def test_lids_close_evenly():
    """Each step of a blink covers more of the eye, and the picture moves in small steps."""
    image, track = example_portrait()
    frames = InstantRenderer(image, track).render(blinks(*np.linspace(0, 1, 9)))[0]
    middles = [track.points[0, list(ring), :2].mean(axis=0).round().astype(int) for ring in (RIGHT_EYE, LEFT_EYE)]
    for x, y in middles:
        eye = frames[:, y - 12 : y + 13, x - 20 : x + 21]
        from_picture = (eye - eye[0]).abs().mean(dim=(1, 2, 3))
        assert (from_picture.diff() > -0.003).all()
        assert (eye.diff(dim=0).abs().mean(dim=(1, 2, 3)) < 0.45 * from_picture[-1]).all()


@pytest.mark.parametrize(
    ("colour", "rings"),
    [((190, 180, 170), (RIGHT_EYE, LEFT_EYE)), ((30, 22, 15), (LEFT_EYE,)), ((205, 170, 145), (RIGHT_EYE,))],
)
def test_blank_and_hidden_eyes_do_not_blink_nor_does_the_other(colour, rings):
    image, _ = with_eyes_painted(colour, rings, grow=1.6)
    renderer = InstantRenderer(image, example_portrait()[1])
    assert renderer.eyes == ()
    nose = int(example_portrait()[1].points[0, 5, 1])
    assert (renderer.render(blinks(1.0))[0][0] - image)[:nose].abs().max() < 0.02


def test_an_eye_that_a_turned_head_hides_does_not_blink():
    image, track = example_portrait()
    points = track.points.copy()
    ring = list(LEFT_EYE)
    middle = points[0, ring].mean(axis=0)
    points[0, ring] = middle + (points[0, ring] - middle) * [0.2, 1, 1]
    assert InstantRenderer(image, replace(track, points=points)).eyes == ()


def looking(right: float, up: float) -> FaceMotion:
    """A motion whose eyes turn by these degrees, to the right of the picture and up, and nothing else moves."""
    return replace(blinks(0.0), gaze=np.array([[right, up]], np.float32))


@pytest.mark.parametrize(("right", "up"), [(10, 0), (-10, 0), (0, -10)])
def test_gaze_moves_the_irises_inside_the_lids(right, up):
    image, track = example_portrait()
    renderer = InstantRenderer(image, track)
    frame = renderer.render(looking(right, up))[0][0]
    for iris, ring in ((468, RIGHT_EYE), (473, LEFT_EYE)):
        x, y = track.points[0, iris, :2].round().astype(int)
        rows, columns = np.mgrid[y - 9 : y + 10, x - 14 : x + 15]
        before, after = (
            np.clip(0.45 - picture[y - 9 : y + 10, x - 14 : x + 15].mean(dim=-1).numpy(), 0, 1)
            for picture in (image, frame)
        )
        if right:
            moved = (after * columns).sum() / after.sum() - (before * columns).sum() / before.sum()
            assert moved * np.sign(right) > 0.5
        else:  # the iris comes lower, and goes on under the upper lid
            assert np.abs(after - before)[rows > y + 2].sum() > 0.5
        low, high = track.points[0, list(ring), :2].min(axis=0), track.points[0, list(ring), :2].max(axis=0)
        outside = torch.ones(image.shape[:2], dtype=torch.bool)
        outside[int(low[1]) - 2 : int(high[1]) + 3, int(low[0]) - 2 : int(high[0]) + 3] = False
        around = slice(y - 25, y + 26), slice(x - 30, x + 31)
        assert (frame - image).abs().amax(dim=-1)[around][outside[around]].max() < 0.05


@pytest.mark.parametrize("closure", [-0.1, -0.05, -0.001, 0.001, 0.05])
def test_lids_that_hardly_move_leave_the_skin_around_the_eyes(closure):
    image, track = example_portrait()
    shapes = upper_face_shapes()
    weight = {"eyeBlink": closure} if closure > 0 else {"eyeWide": -closure / 0.12}
    moved = sum(amount * (shapes[f"{name}Left"] + shapes[f"{name}Right"]) for name, amount in weight.items())
    looked = looking(2, 1)
    motion = replace(looked, vertices=looked.vertices + moved.astype(np.float32))
    frame = InstantRenderer(image, track).render(motion)[0][0]
    for ring in (RIGHT_EYE, LEFT_EYE):
        low, high = track.points[0, list(ring), :2].min(axis=0), track.points[0, list(ring), :2].max(axis=0)
        width, middle = high[0] - low[0], (low + high) / 2
        for rows in (
            slice(int(middle[1] - 0.8 * width), int(low[1] - 0.25 * width)),
            slice(int(high[1] + 5), int(high[1] + 25)),
        ):
            change = (frame - image)[rows, int(low[0]) : int(high[0])].abs()
            assert change.mean() < 0.03


def test_a_lid_comes_out_of_the_brows_shadow():
    """Skin that is dark under the brow is as light as the cheek, or nearly, where it covers the eye."""
    image, track = example_portrait()
    points = track.points[0, :, :2].astype(int)
    shaded = image.clone()
    for ring, brow in ((RIGHT_EYE, 105), (LEFT_EYE, 334)):
        eye = points[list(ring)]
        shaded[points[brow][1] : eye[:, 1].min() + 2, eye[:, 0].min() - 8 : eye[:, 0].max() + 9] *= 0.4
    shut = InstantRenderer(shaded, track).render(blinks(1.0))[0][0].mean(dim=-1)
    for ring in (RIGHT_EYE, LEFT_EYE):
        x, y = points[list(ring)].mean(axis=0).astype(int)
        lid, cheek = shut[y - 3 : y + 1, x - 6 : x + 7], shut[y + 16 : y + 24, x - 6 : x + 7]
        assert lid.mean() > 0.65 * cheek.mean()


def test_a_lid_in_the_light_keeps_the_hue_that_shade_has_on_this_skin():
    """Shade on skin is redder than skin in the light; a shut lid, which is less bright than a cheek, is no grey one."""
    image, track = example_portrait()
    warm = image ** torch.tensor([0.8, 1.1, 1.5])
    frame = InstantRenderer(warm, track).render(blinks(1.0))[0][0]
    for ring in (RIGHT_EYE, LEFT_EYE):
        x, y = track.points[0, list(ring), :2].mean(axis=0).astype(int)
        lid, cheek = (frame[rows, x - 6 : x + 7].mean(dim=(0, 1)) for rows in (slice(y - 3, y), slice(y + 16, y + 24)))
        assert lid[0] / lid[2] > cheek[0] / cheek[2]


def test_a_statue_does_not_blink():
    image, track = example_portrait()
    renderer = InstantRenderer(image, track)
    assert eyelids(renderer.mesh, renderer.layer, stone=0.0)
    assert not eyelids(renderer.mesh, renderer.layer, stone=1.0)


def test_make_up_leaves_neither_a_hard_edge_nor_coloured_specks_on_a_lid():
    image, track = example_portrait()
    eyes, around = (with_eyes_painted((0, 0, 0), grow=grow)[1] for grow in (1.0, 1.5))
    where, picture = around & ~eyes, image.clone()
    # Black has no hue, but its bytes may have one.
    hues = np.random.default_rng(0).integers(0, 4, (where.sum(), 3)) / 255
    picture[torch.from_numpy(where)] = torch.from_numpy(hues).float()
    half_shut, shut = InstantRenderer(picture, track).render(blinks(0.6, 1.0))[0]
    assert float((half_shut[..., [1, 2]] - half_shut[..., :1]).amax(dim=-1)[torch.from_numpy(where)].max()) < 0.06
    for ring in (RIGHT_EYE, LEFT_EYE):
        points = track.points[0, list(ring), :2]
        half = np.ptp(points[:, 0]) / 2
        x, lid = points[:, 0].mean(), points[:, 1].min()
        strip = shut[round(lid - 0.35 * half) : round(lid + 0.15 * half), round(x - 0.4 * half) : round(x + 0.4 * half)]
        assert float(strip.mean(dim=-1).diff(dim=0).abs().max()) < 0.05


def test_no_lash_is_brighter_than_the_skin():
    """The eye's white in the strip of the lashes would line a shut lid."""
    image, track = example_portrait()
    for eye in InstantRenderer(image, track).eyes:
        assert float(eye.textures.strands.min()) < 0.5
        assert float(eye.textures.strands.max()) <= 1
