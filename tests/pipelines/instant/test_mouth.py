"""Instant's mouth: shapes that differ, teeth that stay or show, a smile that leaves, an inside like the picture."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from talking_portrait.models.face.face_mesh import FACE_OVAL, LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_EYE
from talking_portrait.models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from talking_portrait.models.face.mouth_shapes import mouth_vertices, neutral_vertices
from talking_portrait.pipelines.face.head_pose import head_matrix
from talking_portrait.pipelines.face.metric_mesh import project
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.image.luma import LUMA
from talking_portrait.pipelines.instant.animate import fit_portrait
from talking_portrait.pipelines.instant.driver.idle import idle_lips
from talking_portrait.pipelines.instant.driver.prosody import RATE
from talking_portrait.pipelines.instant.renderer.face_opening import Aperture, inside_ring
from talking_portrait.pipelines.instant.renderer.lip_edges import (
    inside_kept,
    inside_shown,
    lip_above,
    lip_edge,
    side_light,
)
from talking_portrait.pipelines.instant.renderer.mouth_interior import (
    YELLOW_LIGHT,
    YELLOWEST,
    MouthInterior,
    _own_teeth,
    palette_of,
)
from talking_portrait.pipelines.instant.renderer.mouth_shape import MouthShape, trimmed_part
from talking_portrait.pipelines.instant.renderer.picture_style import (
    LOWER_LIP,
    SKIN,
    PictureStyle,
    pixels_inside,
    skin_colour,
    teeth_brightness,
)
from talking_portrait.pipelines.instant.renderer.portrait_mesh import LipControls, PortraitMesh
from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
from talking_portrait.pipelines.types import FaceMotion, FaceTrack

from ...gallery import HOLD, SHAPES, gallery_motion

COLUMN = {name: HOLD // 2 + HOLD * place for place, name in enumerate(SHAPES)}
"""The frame of the gallery's motion in which a shape stands."""
CHEEKS = (205, 425, 50, 280)


class Spoken:
    """A portrait's gallery: `points` (F, 468, 2) of its face without the head's motion, and `frames` where asked."""

    def __init__(self, image: torch.Tensor, track: FaceTrack) -> None:
        self.renderer = InstantRenderer(image, track)
        mesh, self.motion = self.renderer.mesh, gallery_motion()
        self.shape = mesh.move(self.motion, np.arange(self.motion.frames), mesh.mouth.speaking(self.motion))
        self.points = mesh.points + self.shape.expression.numpy()
        self.eye = mesh.eye_distance

    def frame(self, name: str) -> np.ndarray:
        """(H, W, 3) in 0..1; shapes do not depend on what comes before them here, smiles do."""
        chosen = slice(COLUMN["rest"], None, HOLD)
        if not hasattr(self, "frames"):
            rows = {k: getattr(self.motion, k)[chosen] for k in ("vertices", "rotation", "translation", "blendshapes")}
            self.frames = self.renderer.render(replace(self.motion, **rows))[0].numpy()
        return self.frames[list(SHAPES).index(name)]

    def inside(self, name: str) -> np.ndarray:
        """Brightness (N,) of the pixels between the lips beside the cheeks' skin."""
        picture, points = self.frame(name), self.points[COLUMN[name]]
        skin = np.median([picture[int(y), int(x)] @ LUMA for x, y in points[list(CHEEKS)]])
        return pixels_inside(picture, points[list(LIPS_INNER)]) @ LUMA / skin

    def opening(self, name: str) -> float:
        points = self.points[COLUMN[name]]
        return float(np.linalg.norm(points[14] - points[13])) / self.eye

    def width(self, name: str) -> float:
        right, left = self.points[COLUMN[name]][list(MOUTH_CORNERS)]
        return float(np.linalg.norm(left - right)) / self.eye


@pytest.fixture(scope="module")
def smiling() -> Spoken:
    return Spoken(*fit_portrait(*example_portrait(), 256))


@pytest.fixture(scope="module")
def closed(smiling: Spoken) -> Spoken:
    """A portrait with closed lips: the smiling one as it says m."""
    track = fit_portrait(*example_portrait(), 256)[1]
    points = track.points.copy()
    points[0, :468, :2] = smiling.points[COLUMN["m"]]
    lips = list(zip(LIPS_INNER[1:10], LIPS_INNER[:10:-1], strict=True))
    for upper, lower in lips:
        points[0, [upper, lower]] = points[0, [upper, lower]].mean(axis=0)
    return Spoken(torch.from_numpy(smiling.frame("m")), replace(track, points=points))


def test_visemes_differ(closed):
    assert closed.renderer.mesh.mouth.closed
    assert closed.width("u") < 0.75 * closed.width("rest")
    assert closed.width("o") < 0.9 * closed.width("jaw .4")
    assert closed.width("ee") > 1.1 * closed.width("rest")
    assert closed.opening("jaw .7") > 1.5 * closed.opening("jaw .4")
    assert closed.opening("m") < 0.02


def test_lips_thicken_when_they_pucker(closed):
    def thickness(name: str) -> float:
        points = closed.points[COLUMN[name]]
        return float(np.linalg.norm(points[0] - points[13]) + np.linalg.norm(points[17] - points[14]))

    assert thickness("u") > 1.08 * thickness("rest")
    assert thickness("f/v") < 0.95 * thickness("rest"), "the lower lip rolls in"


def test_a_wide_mouth_is_an_oval(closed):
    points = closed.points[COLUMN["jaw .7"]]
    gaps = np.linalg.norm(points[list(LIPS_INNER[1:10])] - points[list(LIPS_INNER[:10:-1])], axis=1)
    assert (gaps[[2, 6]] > 0.7 * gaps[4]).all()
    assert (gaps[[0, 8]] > 0.3 * gaps[4]).all()
    assert (gaps[[0, 8]] < 0.7 * gaps[4]).all()


@pytest.mark.parametrize("bowed", [-15, 0, 15])
def test_a_chin_goes_down_by_the_same_part_of_an_opening_in_every_view(bowed):
    """The jaw of the mesh goes back as much as down, which a face that looks down would hide."""
    head = neutral_vertices().astype(np.float64)
    matrix = head_matrix(np.array([bowed, 0, 0]), np.array([0, 0, -60]))
    depth = (head @ matrix[2, :3])[:, None]
    points = project(head, matrix, (512, 512))
    pixels = float(np.linalg.norm(points[263] - points[33]) / np.linalg.norm(head[263] - head[33]))
    mesh = PortraitMesh(
        FaceTrack(np.concatenate([points, -depth * pixels], 1)[None], np.ones(1, bool), (512, 512), matrix[None])
    )
    opening = np.linspace(0.1, 0.5, 9)
    vertices = head + mouth_vertices(np.outer(opening, [1, 0, 0, 0, 0, 0]))
    still = np.zeros((9, 3))
    motion = FaceMotion(vertices.astype(np.float32), neutral_vertices(), still, still, Fraction(25))
    moved = mesh.points + mesh.move(motion, np.arange(9), mesh.mouth.speaking(motion)).expression.numpy()
    opened = np.linalg.norm(moved[:, 14] - moved[:, 13], axis=1)
    fallen = np.linalg.norm(moved[:, 152] - moved[:, 1], axis=1)
    assert 1.2 < np.polyfit(opened, fallen, 1)[0] < 1.55
    drops = (moved - mesh.points)[-1, :, 1]
    assert (np.abs(drops[[199, 175, 148, 377]] / drops[152] - 1) < 0.25).all(), "a chin is one bone"
    assert 0.2 < drops[[172, 397]].mean() / drops[152] < 0.6, "the jaw's line goes along"


def test_lips_part_as_far_as_is_visible_of_small_openings_too(closed):
    """What is trimmed from closed lips goes little by little as they part, and widens their opening only so far."""
    mesh, jaws = closed.renderer.mesh, np.linspace(0.02, 0.3, 12)
    mouth, trimmed = MouthShape(mesh), 0.03 * mesh.eye_distance
    vertices = (neutral_vertices() + mouth_vertices(np.outer(jaws, [1, 0, 0, 0, 0, 0]))).astype(np.float32)
    still = np.zeros((len(jaws), 3), np.float32)
    motion = FaceMotion(vertices, neutral_vertices(), still, still, Fraction(25))

    def parted(trimmed: float) -> np.ndarray:
        mouth.fit_edges(np.zeros(len(UPPER_INNER_LIP)), 0.0, trimmed)
        lips = mesh.in_picture(mouth.fitted(motion, np.arange(len(jaws))))[:, [13, 14], 1]
        return lips[:, 1] - lips[:, 0]

    less, wanted = parted(trimmed), parted(0.0)
    np.testing.assert_allclose(less + trimmed * trimmed_part(less, trimmed), wanted, rtol=0.06)
    assert (less < wanted).all()


@pytest.mark.parametrize("portrait", ["smiling", "closed"])
@pytest.mark.parametrize("name", ["jaw .4", "jaw .7"])
def test_open_mouths_show_teeth_and_are_not_dark(portrait, name, request):
    """The bounds are those of neural renderers' clips."""
    inside = request.getfixturevalue(portrait).inside(name)
    assert (inside < 0.25).mean() <= 0.35
    assert (inside > 0.62).mean() >= 0.2


def test_round_lips_show_no_teeth(closed):
    assert (closed.inside("o") > 0.75).mean() < 0.1


def test_the_pictures_own_teeth_stay_where_they_are(smiling):
    picture, points = smiling.renderer.image.numpy(), smiling.renderer.mesh.points
    for name in ("jaw .4", "jaw .7"):
        x, y = (0.5 * points[13] + 0.5 * points[14]).round().astype(int)
        around = slice(y - 1, y + 2), slice(x - 4, x + 5)
        assert np.abs(smiling.frame(name)[around] - picture[around]).mean() < 0.06


def test_round_lips_show_none_of_the_pictures_teeth_and_f_one_row_of_them():
    """Green teeth, so that every pixel of them shows."""
    image, track = fit_portrait(*example_portrait(), 256)
    pixels = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1) + 0.5
    teeth = torch.from_numpy(inside_ring(pixels, track.points[0, list(LIPS_INNER), :2]))
    spoken = Spoken(torch.where(teeth[..., None], torch.tensor([0.1, 0.9, 0.1]), image), track)

    def green(name: str) -> np.ndarray:
        """The most in each column of the middle third of the mouth."""
        x = spoken.points[COLUMN[name]][list(MOUTH_CORNERS), 0]
        columns = slice(*np.interp([0.35, 0.65], [0, 1], np.sort(x)).astype(int))
        red, green, blue = np.moveaxis(spoken.frame(name)[:, columns], -1, 0)
        return (green - np.maximum(red, blue)).max(axis=0)

    assert green("jaw .4").min() > 0.7
    assert green("u").max() < 0.05
    assert green("m").max() < 0.05
    assert green("f/v").min() > 0.3


def test_lips_that_show_teeth_shut_with_a_dark_line(smiling):
    light, points = smiling.frame("m") @ LUMA, smiling.points[COLUMN["m"]]
    for upper, lower in zip(LIPS_INNER[3:8], LIPS_INNER[-3:-8:-1], strict=True):
        x, y = points[[upper, lower]].mean(axis=0).astype(int)
        column = light[y - 6 : y + 7, x]
        assert column[4:9].min() < 0.75 * np.median(column)


def test_skin_that_parting_lips_draw_out_at_their_corners_is_dark(closed):
    """Between the lips beside a corner; nothing outside them, further away, or where lips part no more than before."""
    lips, far = closed.renderer.lips, closed.renderer.lips.mouth.half
    places = torch.tensor([[far, far, 0], [-1, far, 0], [far, 0, 0], [far, far, -far]])
    colours = torch.ones(4, 4, 1, 1)
    lips._shade_corners(colours, *places.view(4, 3, 1, 1).unbind(1))
    assert (colours[0, :3] < 0.3).all()
    assert (colours[1:] == 1).all()


def test_the_smile_leaves_in_speech_wholly_for_m_and_is_back_in_pauses(smiling):
    mesh = smiling.renderer.mesh
    right, left = mesh.points[list(MOUTH_CORNERS)]
    fallen = {
        name: smiling.points[COLUMN[name]][list(MOUTH_CORNERS), 1].mean() - (right + left)[1] / 2 for name in SHAPES
    }
    assert 0.01 * smiling.eye < fallen["ee"]
    assert 1.2 * fallen["ee"] < fallen["m"]
    assert smiling.width("m") < 0.95 * float(np.linalg.norm(left - right)) / smiling.eye
    controls = np.zeros((75, 6))
    controls[:25, 0] = 0.4
    still = np.zeros((75, 3), np.float32)
    motion = FaceMotion(neutral_vertices() + mouth_vertices(controls), neutral_vertices(), still, still, Fraction(25))
    speaking = mesh.mouth.speaking(motion)
    assert speaking.relaxing[12] > 0.99
    assert speaking.relaxing[60] < 0.01
    assert speaking.closing[60] > 0.99, "the lips of a pause are closed"


def test_lips_that_idle_leave_the_portraits_smile(smiling):
    prosody = SimpleNamespace(frames=round(30 * RATE), speech=np.zeros(round(30 * RATE), bool))
    offsets = mouth_vertices(idle_lips(prosody, seed=0))
    assert np.abs(offsets).max() > 0.05
    still = np.zeros((len(offsets), 3), np.float32)
    motion = FaceMotion(neutral_vertices() + offsets, neutral_vertices(), still, still, Fraction(RATE))
    speaking = smiling.renderer.mesh.mouth.speaking(motion)
    assert max(speaking.relaxing.max(), speaking.closing.max()) < 0.01


def test_a_lower_lip_goes_under_the_teeth_where_lip_press_rests_there():
    press = np.concatenate([np.zeros(10), np.full(8, 0.7), np.zeros(10), np.linspace(0, 1, 5), np.ones(5)])
    still = np.zeros((len(press), 3), np.float32)
    vertices = np.repeat(neutral_vertices()[None], len(press), axis=0)
    motion = FaceMotion(vertices, neutral_vertices(), still, still, Fraction(25), lip_press=press)
    tuck = LipControls.of(motion, np.arange(len(press))).tuck
    assert (tuck[11:17] > 0.9).all()
    assert (tuck[20:] < 0.1).all(), "lips that close pass by"


def test_teeth_are_as_cream_as_the_light_makes_the_whites_of_the_eyes():
    image, track = example_portrait()
    mesh = InstantRenderer(image, track).mesh
    picture = image[..., :3].numpy()
    brown = picture * np.float32([0.7, 0.5, 0.35])
    for ring in (RIGHT_EYE, LEFT_EYE):
        low, high = mesh.points[list(ring)].min(axis=0).astype(int), mesh.points[list(ring)].max(axis=0).astype(int) + 1
        eye = slice(low[1], high[1]), slice(low[0], high[0])
        brown[eye] = picture[eye]

    def teeth(picture: np.ndarray) -> np.ndarray:
        return palette_of(picture, mesh, PictureStyle.of(picture, mesh.points, mesh.eye_distance)).teeth

    def blue(picture: np.ndarray) -> float:
        red, green, blue = teeth(picture)
        assert red >= green > blue
        return float(blue / green)

    faded = picture @ LUMA[:, None] * np.float32([0.85, 0.8, 0.7])
    assert blue(picture) > YELLOWEST
    assert blue(brown) == pytest.approx(YELLOWEST, abs=0.02)
    assert blue(picture * np.float32([1.0, 0.8, 0.35])) == pytest.approx(YELLOW_LIGHT, abs=0.02)
    assert blue(faded) == pytest.approx(0.7 / 0.8, abs=0.03), "a picture of one hue has no white"
    assert np.ptp(teeth(picture @ LUMA[:, None] * np.ones(3, np.float32))) < 1e-3, "a grey one has no hue"


def test_teeth_are_no_yellower_than_skin():
    """Lenses before the eyes, and brown eyes in the shade, are."""
    image, track = example_portrait()
    mesh = InstantRenderer(image, track, eyes=False).mesh
    picture = image[..., :3].numpy() * np.float32([1.0, 1.0, 0.85])
    for ring in (RIGHT_EYE, LEFT_EYE):
        low, high = mesh.points[list(ring)].min(axis=0).astype(int), mesh.points[list(ring)].max(axis=0).astype(int) + 1
        picture[low[1] : high[1], low[0] : high[0]] *= np.float32([1.0, 0.8, 0.4])
    teeth = palette_of(picture, mesh, PictureStyle.of(picture, mesh.points, mesh.eye_distance)).teeth
    skin = skin_colour(picture, mesh.points)
    assert skin[2] / skin[1] < YELLOWEST
    assert teeth[2] / teeth[1] > skin[2] / skin[1] - 0.01


def test_a_mouths_inside_is_lit_from_the_side_that_its_lips_are(closed):
    mouth, mesh = closed.renderer.lips.mouth, closed.renderer.mesh
    plain = 0.6 * closed.renderer.image.numpy()
    height, width = plain.shape[:2]
    pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    light = np.exp(0.4 * np.clip(mouth.local(pixels)[..., 0] / mouth.half, -1, 1))[..., None]
    rise = side_light(plain * light, mouth) - side_light(plain, mouth)
    assert 0.25 < rise < 0.45

    def layers(picture: np.ndarray) -> np.ndarray:
        style = PictureStyle.of(picture, mesh.points, mesh.eye_distance)
        inside = MouthInterior(picture, mesh, mouth, style, mouth.middle_gap(), 0.0, torch.device("cpu"))
        return inside.layers[:, :3].numpy()

    lit, even = layers(plain * light), layers(plain)
    # Half a half width to both sides.
    middle, half = lit.shape[-1] // 2, lit.shape[-1] // 6
    near, far = slice(middle - half - 2, middle - half + 3), slice(middle + half - 2, middle + half + 3)
    for layer in range(3):
        ratio, usual = (values[layer, ..., far].mean() / values[layer, ..., near].mean() for values in (lit, even))
        assert np.log(ratio / usual) == pytest.approx(rise, abs=0.06)


def test_lips_of_which_one_is_in_the_shade_do_not_tell_a_side():
    mouth, picture = flat_mouth(0), np.full((160, 160, 3), 0.5)
    across = np.linspace(0.6, 1.4, 160)[:, None]
    picture[:80] *= across
    picture[80:] *= across[::-1]
    assert side_light(picture, mouth) == 0
    picture[80:] *= across * across
    assert side_light(picture, mouth) > 0.2


def test_teeth_of_dark_skin_are_as_bright_as_its_light():
    """Skin that is dark by itself shows the light where it is brightest; skin in the dark does not."""
    points = example_portrait()[1].points[0, :468, :2]
    light, dim, dark = (np.full((512, 512, 3), value, np.float32) for value in (0.7, 0.35, 0.35))
    low, high = points[list(FACE_OVAL)].min(axis=0).astype(int), points[list(FACE_OVAL)].max(axis=0).astype(int)
    dark[low[1] : high[1], low[0] + (high[0] - low[0]) // 4 : (low[0] + high[0]) // 2 - 20] = 0.8
    for x, y in points[list(SKIN)].astype(int):
        dark[y - 1 : y + 2, x - 1 : x + 2] = 0.35
    teeth = {name: teeth_brightness(picture, points) for name, picture in zip("LDd", (light, dim, dark), strict=True)}
    assert 1.1 * 0.7 < teeth["L"] < 1.3 * 0.7
    assert teeth["D"] < 0.6 * teeth["L"]
    assert teeth["d"] > max(1.2 * teeth["D"], 1.6 * 0.35)
    shaded = np.full_like(dark, 0.1)
    low, high = points[list(LOWER_LIP)].min(axis=0).astype(int), points[list(LOWER_LIP)].max(axis=0).astype(int) + 1
    shaded[low[1] : high[1], low[0] : high[0]] = 0.5
    assert teeth_brightness(shaded, points) > 1.2 * 0.5, "teeth are in the light of the lips, not of the shaded face"


def test_an_opening_that_only_landmarks_have_keeps_no_inside():
    picture = np.full((200, 200, 3), 0.6, np.float32)
    points = example_portrait()[1].points[0, :468, :2]
    mesh = SimpleNamespace(points=points, eye_distance=100.0, mouth=SimpleNamespace(lip_gap=0.08))
    kept = [inside_kept(picture, flat_mouth(height), mesh, 0.5) for height in (1, 8)]
    assert kept == [0.0, 1.0]


@pytest.mark.parametrize(("light", "kept"), [(0.41, 0.0), (0.44, 0.0), (0.9, 1.0)])
def test_no_inside_is_kept_by_half(light, kept):
    """Half of a picture's inside over the painted one looks like two rows of teeth."""
    picture = np.full((200, 200, 3), 0.6, np.float32)
    points = example_portrait()[1].points[0, :468, :2]
    mesh = SimpleNamespace(points=points, eye_distance=100.0, mouth=SimpleNamespace(lip_gap=0.08))
    mouth = flat_mouth(8)
    places = mouth.places(np.linspace(-0.6, 0.6, 60)[:, None] * mouth.half, np.linspace(*mouth.middle_gap(), 30))
    columns, rows = places.reshape(-1, 2).astype(int).T
    picture[rows, columns] *= light
    assert inside_kept(picture, mouth, mesh, 0.5) == pytest.approx(kept, abs=0.01)


@pytest.mark.parametrize(
    ("light", "kept"),
    [
        ((0.2, 0.2, 0.2, 1, 1, 1), 0.0),
        ((0.6, 0.4, 0.3, 0.8, 1, 0.9), 0.0),
        ((1, 1, 1, 0.2, 0.2, 0.6), 1.0),
        ((0.8, 0.9, 1, 1, 1, 0.9), 1.0),
        ((0.2, 0.2, 0.2, 0.2, 0.2, 0.2), 1.0),
    ],
    ids=["lower teeth", "lower teeth below a bright lip", "upper teeth and a tongue", "a smile", "no teeth"],
)
def test_lower_teeth_do_not_become_a_skulls(light, kept):
    """Rows that the lower lip carries would float in the opening when kept where they are."""
    picture = np.full((200, 200, 3), 0.6, np.float32)
    points = example_portrait()[1].points[0, :468, :2]
    mesh = SimpleNamespace(points=points, eye_distance=100.0, mouth=SimpleNamespace(lip_gap=0.5))
    mouth = flat_mouth(25)
    upper, lower = mouth.edges_at(np.zeros(1))
    top, bottom = mouth.places(np.zeros(1), np.concatenate([upper, lower]))[:, 1]
    for band, share in enumerate(light):
        rows = np.linspace(top, bottom, 7).round().astype(int)[band : band + 2]
        picture[slice(*rows)] *= share
    assert inside_kept(picture, mouth, mesh, 0.5) == pytest.approx(kept, abs=0.01)


def test_edges_of_open_lips_are_found_in_the_picture(smiling):
    """The edge found does not depend on where exactly the landmarks lie."""
    picture, points = smiling.renderer.image.numpy(), smiling.renderer.mesh.points
    edges = []
    for beside in (-1.0, 1.0):
        mouth = Aperture(points, MOUTH_CORNERS, LIPS_INNER[1:10], LIPS_INNER[:10:-1])
        mouth.lower = mouth.lower + 0.05 * beside * mouth.half
        edges.append(lip_edge(picture, mouth, 1))
    middle = slice(len(edges[0]) // 3, -len(edges[0]) // 3)
    assert np.abs(edges[1] - edges[0])[middle].mean() < 0.4 * 0.1 * mouth.half


def flat_mouth(height: float) -> Aperture:
    """120 pixels wide, in the middle of 160 x 160; both lips are up to `height` pixels from the line of its corners."""
    points = np.zeros((468, 2))
    points[list(MOUTH_CORNERS)] = [[20, 80], [140, 80]]
    place = np.linspace(-0.8, 0.8, 9)
    for lip, side in ((UPPER_INNER_LIP, -height), (LOWER_INNER_LIP, height)):
        points[list(lip)] = np.stack([80 + 60 * place, 80 + side * (1 - place**2)], axis=-1)
    return Aperture(points, MOUTH_CORNERS, UPPER_INNER_LIP, LOWER_INNER_LIP)


def test_a_lower_lip_that_landmarks_take_for_the_inside_is_found():
    """Lips shut along a dark line above, and an open mouth whose inside is dark down to the lip, or a tongue's."""
    lips = np.full((160, 160, 3), [0.7, 0.4, 0.4])
    shut, dark = lips.copy(), lips.copy()
    shut[70:75] = 0.1
    dark[70:88] = 0.1
    mouth = flat_mouth(12)
    assert lip_above(shut, mouth)[len(mouth.upper) // 2] == pytest.approx(92 - 75, abs=2.5)
    assert not lip_above(dark, mouth).any()
    wide = flat_mouth(30)
    shut[50:75] = 0.1
    assert not lip_above(shut, wide).any(), "that is a tongue"


def test_a_row_of_teeth_reaches_the_lower_lip_as_a_whole():
    """A smile with one tooth in the shade and corners where nothing is visible, and a mouth without visible teeth."""
    half, picture, mouth = 60.0, np.full((160, 160, 3), 0.6), flat_mouth(6)
    along = np.linspace(-1.5, 1.5, 301) * half
    row = np.abs(along) < half
    picture[:, 60:68] = 0.15
    assert _own_teeth(picture, mouth, along, 0.6)[1][row].min() > 0.9
    assert _own_teeth(0.3 * picture, mouth, along, 0.6)[1][row].max() < 0.1


def test_sharpness_flat_colours_and_stone_are_measured():
    image, track = example_portrait()
    picture, points = image.numpy(), track.points[0, :468, :2].astype(np.float64)
    eye = float(np.linalg.norm(points[33] - points[263]))
    photo = PictureStyle.of(picture, points, eye)
    assert 0.6 < photo.blur < 1.5
    assert photo.drawn == 0
    assert photo.stone == 0
    blurred = PictureStyle.of(gaussian_filter(picture, (2, 2, 0)), points, eye)
    assert 1.8 < blurred.blur < 3.0
    grain = np.random.default_rng(0).normal(0, 0.005, picture.shape)
    more = PictureStyle.of(gaussian_filter(picture, (5, 5, 0)) + grain, points, eye)
    assert 3.5 < more.blur < 6.5, "grain is not blurred"
    assert photo.black.max() < 0.1
    assert PictureStyle.of(0.2 + 0.8 * picture, points, eye).black.min() > 0.19, "a faded picture"
    assert blurred.grain.std() < 0.5 * photo.grain.std()
    flat = PictureStyle.of(np.round(gaussian_filter(picture, (2, 2, 0)) * 4) / 4, points, eye)
    assert flat.drawn > 0.9
    # Without irises it is a statue if its lips have the skin's hue, also where brows throw shadows on the eyes.
    shut = picture.copy()
    low, high = (bound(points[list(LIPS_INNER)], axis=0).astype(int) for bound in (np.min, np.max))
    shut[low[1] : high[1], low[0] : high[0]] = np.median(picture[low[1] : high[1], low[0] : high[0]], (0, 1)) / 2
    for shade in (0.0, 0.5):
        blank = shut.copy()
        for ring in (RIGHT_EYE, LEFT_EYE):
            low, high = points[list(ring)].min(axis=0).astype(int), points[list(ring)].max(axis=0).astype(int) + 1
            across = np.linspace(1 - shade, 1, high[0] - low[0])
            blank[low[1] : high[1], low[0] : high[0]] = (0.6 * across)[None, :, None]
        red = blank.copy()
        lips = points[list(LIPS_OUTER)]
        low, high = lips.min(axis=0).astype(int), lips.max(axis=0).astype(int) + 1
        red[low[1] : high[1], low[0] : high[0]] *= [1, 0.7, 0.7]
        assert PictureStyle.of(red, points, eye).stone == 0
        grey = np.repeat(blank.mean(axis=-1, keepdims=True), 3, axis=-1)
        assert PictureStyle.of(grey, points, eye).stone == 1
        grey[low[1] : high[1], low[0] : high[0]] = 0.9
        assert PictureStyle.of(grey, points, eye).stone == 0, "statues do not show their teeth"
        grey = np.repeat(blank.mean(axis=-1, keepdims=True), 3, axis=-1)
        assert PictureStyle.of(gaussian_filter(grey, (6, 6, 0)), points, eye).stone == 0, "no eyes can be seen"
    grey = np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)
    assert PictureStyle.of(grey, points, eye).stone == 0
    assert PictureStyle.of(grey, points, eye).hues < 1e-3


def test_a_pale_face_of_many_hues_is_no_statue_and_has_a_red_mouth():
    """A drawing: skin nearly white, lips that are a stroke, coloured eyes and hair."""
    image, track = example_portrait()
    mesh, points = PortraitMesh(track), track.points[0, :468, :2].astype(np.float64)
    picture = np.full_like(image.numpy(), 1.0) * [0.99, 0.97, 0.93]
    pale = PictureStyle.of(picture, points, mesh.eye_distance)
    eyes, hair = ((0.1, 0.6, 0.7), (0.2, 0.1, 0.5)), ((0.9, 0.6, 0.1), (0.9, 0.3, 0.5))
    for ring, colours in ((RIGHT_EYE, eyes), (LEFT_EYE, eyes), (FACE_OVAL[:5], hair)):
        x, y = points[list(ring)].mean(axis=0).astype(int)
        for row, colour in zip((y - 25, y), colours, strict=True):
            picture[row : row + 26, x - 40 : x + 41] = colour
    drawing = PictureStyle.of(picture, points, mesh.eye_distance)
    assert pale.hues < 0.01 < 0.12 < drawing.hues
    assert drawing.stone == 0
    dull, red = (palette_of(picture, mesh, style).tongue for style in (pale, drawing))
    assert red[0] / red[1] > 1.25 > 1.1 > dull[0] / dull[1]


@pytest.mark.parametrize(
    ("height", "light", "shown"),
    [(0.2, 0.15, 0.0), (0.2, 0.9, 1.0), (0.7, 0.1, 1.0)],
    ids=["a narrow shadow", "narrow, with teeth", "wide and dark"],
)
def test_a_dark_line_between_lips_that_hardly_part_says_nothing_of_the_teeth(height, light, shown):
    picture = np.full((200, 200, 3), 0.6, np.float32)
    half = 50.0
    picture[round(100 - half * height / 2) : round(100 + half * height / 2)] = 0.6 * light
    mouth = SimpleNamespace(
        half=half,
        edges_at=lambda along: (np.full(along.shape, -half * height / 2), np.full(along.shape, half * height / 2)),
        places=lambda along, across: np.stack(np.broadcast_arrays(along + 100, across + 100), axis=-1),
    )
    assert inside_shown(picture, mouth, 0.6) == pytest.approx(shown, abs=0.01)
