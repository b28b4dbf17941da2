"""A blink leaves spectacles where they are."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from talking_portrait.models.face.mouth_shapes import neutral_vertices
from talking_portrait.models.face.upper_face_shapes import upper_face_shapes
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.instant.animate import fit_portrait
from talking_portrait.pipelines.instant.renderer.eyes.eyelids import eyelids
from talking_portrait.pipelines.instant.renderer.eyes.spectacles import LEAST_BRIDGE, bridge_contrast
from talking_portrait.pipelines.instant.renderer.portrait_mesh import PortraitMesh
from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
from talking_portrait.pipelines.instant.renderer.warp import Layer
from talking_portrait.pipelines.types import FaceMotion

FINE = 4
"""The drawing is made so many times larger and then scaled down, so that its edges are soft."""
BLACK, WHITE, BROWN, RED, GOLD = (15, 15, 18), (238, 236, 232), (90, 50, 25), (150, 25, 30), (200, 160, 60)


def worn(colour, *, width=0.2, top=1.1, bottom=-1.2, lens=None) -> tuple[torch.Tensor, np.ndarray]:
    """The sample portrait (H, W, 3) with spectacles, and where (H, W) their frame is.

    `width`, `top` and `bottom` (above the eyes' middles) are in eye half widths; `lens` is a colour with alpha.
    """
    image, track = example_portrait()
    points = track.points[0, :, :2]
    height, across = image.shape[:2]
    frame = Image.new("L", (across * FINE, height * FINE))
    lenses = Image.new("RGBA", frame.size)
    half = np.linalg.norm(points[263] - points[362]) / 2
    centres = [(points[33] + points[133]) / 2, (points[362] + points[263]) / 2]
    pen = round(width * half * FINE)
    for x, y in centres:
        box = [x - 1.5 * half, y - top * half, x + 1.5 * half, y - bottom * half]
        box = [FINE * value for value in box]
        ImageDraw.Draw(frame).rounded_rectangle(box, radius=0.5 * half * FINE, outline=255, width=pen)
        ImageDraw.Draw(lenses).rounded_rectangle(box, radius=0.5 * half * FINE, fill=lens or (0, 0, 0, 0))
    (x0, y0), (x1, y1) = centres
    bridge = [(x0 + 1.4 * half, y0 - 0.5 * half), (x1 - 1.4 * half, y1 - 0.5 * half)]
    ImageDraw.Draw(frame).line([(FINE * x, FINE * y) for x, y in bridge], fill=255, width=pen)
    picture = Image.fromarray((image.numpy() * 255).round().astype(np.uint8)).convert("RGBA")
    picture = Image.alpha_composite(picture, lenses.resize(picture.size, Image.Resampling.BOX)).convert("RGB")
    cover = frame.resize(picture.size, Image.Resampling.BOX)
    picture.paste(colour, mask=cover)
    return torch.from_numpy(np.array(picture)).float() / 255, np.array(cover) > 128


@pytest.fixture(scope="module")
def blink():
    """A motion of one frame in which both eyes are shut and nothing else moves."""
    closing = upper_face_shapes()
    shut = neutral_vertices() + closing["eyeBlinkLeft"] + closing["eyeBlinkRight"]
    still = np.zeros((1, 3), np.float32)
    return FaceMotion(shut[None].astype(np.float32), neutral_vertices(), still, still, Fraction(25))


def render(image, motion):
    renderer = InstantRenderer(image, example_portrait()[1])
    return renderer, renderer.render(motion)[0][0]


def test_a_face_without_spectacles_has_no_bridge_and_blinks(bare_blink):
    track = example_portrait()[1]
    renderer, change = bare_blink
    assert abs(bridge_contrast(renderer.layer, track.points[0, :, :2])) < 0.5 * LEAST_BRIDGE
    assert len(renderer.eyes) == 2
    assert change.max() > 0.2


def test_brows_that_meet_are_no_bridge():
    image, track = example_portrait()
    points, picture = track.points[0, :, :2], image.clone()
    left, right = points[[133, 362], 0].astype(int)
    brow = int(points[[107, 336], 1].mean())
    picture[brow - 5 : brow + 5, left:right] *= 0.4
    layer = Layer(picture.permute(2, 0, 1)[None], 0, 0)
    assert abs(bridge_contrast(layer, points)) < 0.8 * LEAST_BRIDGE


@pytest.mark.parametrize("hat", [False, True])
def test_the_brim_of_a_hat_does_not_become_a_lid(hat):
    image, track = fit_portrait(*example_portrait(), 256)
    picture, brim = image.clone(), int(track.points[0, [159, 386], 1].min()) - 2
    if hat:
        picture[:brim] = torch.tensor([0.95, 0.9, 0.6])
        picture[brim:] *= 0.4
    layer = Layer(torch.cat([picture.permute(2, 0, 1), torch.ones(1, *picture.shape[:2])])[None], 0, 0)
    assert len(eyelids(PortraitMesh(track), layer, stone=0.0)) == (0 if hat else 2)


def test_freckles_on_a_nose_are_no_bridge():
    image, track = fit_portrait(*example_portrait(), 1024)
    points, picture = track.points[0, :, :2], image.clone()
    (left, top), (right, bottom) = points[133].astype(int), points[362].astype(int)
    nose = picture[top - 60 : bottom + 60, left:right]
    nose[torch.rand(nose.shape[:2], generator=torch.Generator().manual_seed(0)) < 0.12] *= 0.7
    layer = Layer(picture.permute(2, 0, 1)[None], 0, 0)
    assert abs(bridge_contrast(layer, points)) < 0.8 * LEAST_BRIDGE


@pytest.mark.parametrize(
    ("colour", "width", "top"),
    [
        *[(BLACK, 0.2, top) for top in (0.65, 0.8, 0.95, 1.3)],
        *[(BROWN, 0.2, 1.1), (RED, 0.25, 0.8), (WHITE, 0.25, 1.1), (GOLD, 0.1, 0.65), (BLACK, 0.1, 0.95)],
    ],
)
def test_a_blink_leaves_the_frame_alone(blink, colour, width, top):
    image, frame = worn(colour, width=width, top=top)
    _, shut = render(image, blink)
    half = 17  # pixels of the sample's eyes
    moved = ((shut - image).abs().amax(dim=-1) > 0.12).numpy()
    assert (moved & frame).sum() < 0.03 * half**2


@pytest.fixture(scope="module")
def bare_blink(blink):
    """The renderer of the portrait without spectacles, and how its picture changes in a blink."""
    renderer, shut = render(example_portrait()[0], blink)
    return renderer, (shut - example_portrait()[0]).abs()


@pytest.mark.parametrize(("colour", "top"), [(BLACK, 1.2), (BROWN, 0.95), (RED, 0.8), (BLACK, 0.65)])
def test_eyes_shut_behind_a_frame_however_near_the_lid_it_lies(blink, bare_blink, colour, top):
    image, _ = worn(colour, top=top)
    renderer, shut = render(image, blink)
    bare, usual = bare_blink
    assert len(renderer.eyes) == 2
    # In the openings of the eyes there is the lid that there is without spectacles, drawn out of less skin.
    for eye in bare.eyes:
        x, y = eye.eye.middle.round().astype(int)
        there = (slice(y - 3, y + 4), slice(x - 6, x + 7))
        assert (shut - image)[there].abs().mean() > 0.5 * usual[there].mean()


def test_a_frown_as_low_as_a_bridge_leaves_the_blink_as_it_is():
    image, track = example_portrait()
    points, frowning = track.points[0, :, :2], image.clone()
    left, right = points[[133, 362], 0].astype(int)
    row = round(points[[133, 362], 1].mean() - 0.3 * (right - left))
    frowning[row - 4 : row + 4, left:right] *= 0.4
    usual, frown = (
        Layer(torch.cat([picture.permute(2, 0, 1), torch.ones(1, *picture.shape[:2])])[None], 0, 0)
        for picture in (image, frowning)
    )
    assert abs(bridge_contrast(frown, points)) > 2 * LEAST_BRIDGE
    mesh = PortraitMesh(track)
    for eye, free in zip(eyelids(mesh, frown, 0.0), eyelids(mesh, usual, 0.0), strict=True):
        torch.testing.assert_close(eye.box, free.box)
        assert eye.sides == free.sides


@pytest.mark.parametrize("lens", [(12, 12, 16, 250), (40, 25, 15, 215)])
def test_eyes_behind_dark_glasses_do_not_blink(blink, lens):
    image, _ = worn(BLACK, lens=lens)
    renderer, shut = render(image, blink)
    assert renderer.eyes == ()
    points = example_portrait()[1].points[0, :, :2]
    for x, y in (points[[33, 133]].mean(axis=0), points[[362, 263]].mean(axis=0)):
        eye = (slice(round(y) - 10, round(y) + 10), slice(round(x) - 16, round(x) + 16))
        assert (shut - image)[eye].abs().max() < 0.05
