"""The Instant renderer: what must stay unchanged, and what must follow the motion."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from talking_portrait.models.face.face_mesh import face_mesh
from talking_portrait.models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from talking_portrait.models.face.mouth_shapes import mouth_vertices, neutral_vertices
from talking_portrait.models.face.upper_face_shapes import upper_face_shapes
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.head_pose import euler_to_matrix
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.image.affine_sampling import apply_map, invert_map, sample_picture, turned_map
from talking_portrait.pipelines.instant.animate import fit_portrait
from talking_portrait.pipelines.instant.renderer.expression_field import ExpressionField
from talking_portrait.pipelines.instant.renderer.face_opening import Aperture
from talking_portrait.pipelines.instant.renderer.head_field import HeadField
from talking_portrait.pipelines.instant.renderer.mouth_shape import Speaking
from talking_portrait.pipelines.instant.renderer.portrait_mesh import PortraitMesh
from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
from talking_portrait.pipelines.instant.renderer.warp import Layer, invert, sample_field
from talking_portrait.pipelines.types import FaceMotion, FaceTrack


@pytest.fixture(scope="module")
def portrait() -> tuple[torch.Tensor, FaceTrack]:
    return example_portrait()


@pytest.fixture(scope="module")
def renderer(portrait) -> InstantRenderer:
    return InstantRenderer(*portrait)


def motion_of(
    controls: np.ndarray | None = None,
    rotation: np.ndarray | None = None,
    blink: np.ndarray | None = None,
    frames: int = 1,
) -> FaceMotion:
    """A motion from mouth controls (F, 6), Euler angles (F, 3) and eye closures (F,)."""
    frames = max(frames, *(len(part) for part in (controls, rotation, blink) if part is not None), 1)
    vertices = np.repeat(neutral_vertices()[None], frames, axis=0)
    if controls is not None:
        vertices = vertices + mouth_vertices(controls)
    if blink is not None:
        shapes = upper_face_shapes()
        vertices = vertices + np.asarray(blink)[:, None, None] * (shapes["eyeBlinkLeft"] + shapes["eyeBlinkRight"])
    still = np.zeros((frames, 3), np.float32)
    return FaceMotion(
        vertices=vertices.astype(np.float32),
        neutral=neutral_vertices(),
        rotation=still if rotation is None else np.asarray(rotation, np.float32),
        translation=still,
        fps=Fraction(25),
    )


def at_work(frames: int, amount: float = 1.0) -> Speaking:
    """A mouth that speaks all the time, or by another `amount`."""
    return Speaking(np.full(frames, amount), np.full(frames, amount))


def random_motion(frames: int) -> FaceMotion:
    time = np.arange(frames) / 25
    controls = np.zeros((frames, 6))
    controls[:, 0] = 0.3 + 0.3 * np.sin(9 * time)
    controls[:, 2] = np.clip(np.sin(4 * time), 0, 1)
    rotation = np.stack([3 * np.sin(2 * time), 6 * np.sin(3 * time), 2 * np.sin(time)], axis=-1)
    return motion_of(controls, rotation, np.clip(np.sin(5 * time), 0, 1))


def test_a_still_face_is_the_picture_bit_by_bit(portrait, renderer):
    frames, masks = renderer.render(motion_of(frames=3))
    assert torch.equal(frames, portrait[0][None].expand(3, -1, -1, -1))
    assert not masks.any()
    assert all(
        torch.equal(frame, renderer.image_uint8) for batch in renderer.frames_uint8(motion_of()) for frame in batch
    )


def test_pixels_outside_the_mask_are_the_pictures_own(portrait, renderer):
    image = portrait[0]
    frames, masks = renderer.render(random_motion(6))
    for frame, mask in zip(frames, masks, strict=True):
        assert 0.02 < mask.mean() < 0.7
        assert torch.equal(frame[mask == 0], image[mask == 0])
        assert (frame - image).abs().amax(dim=-1)[mask == 1].mean() > 0.005
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_bytes_are_the_same_frames(renderer):
    motion = random_motion(3)
    frames, _ = renderer.render(motion)
    as_bytes = torch.cat(list(renderer.frames_uint8(motion)))
    assert as_bytes.dtype == torch.uint8
    assert ((frames * 255).round().int() - as_bytes.int()).abs().max() <= 1


def test_the_batch_size_changes_nothing(renderer):
    motion = random_motion(10)
    whole = torch.cat(list(renderer.frames_uint8(motion, batch=10)))
    for batch in (1, 3):
        parts = list(renderer.frames_uint8(motion, batch=batch))
        assert {len(part) for part in parts} <= {batch, 10 % batch}
        assert (torch.cat(parts).int() - whole.int()).abs().max() <= 1, "rounding may tip a byte"


def test_frames_come_one_batch_at_a_time(renderer):
    """Half an hour of motion costs no more than its first frames until they are requested."""
    motion = motion_of(frames=1)
    reports: list[int] = []
    long = replace(
        motion,
        vertices=np.broadcast_to(motion.vertices, (45_000, 468, 3)),
        rotation=np.zeros((45_000, 3)),
        translation=np.zeros((45_000, 3)),
    )
    stream = renderer.frames_uint8(long, batch=2, progress=lambda done, total: reports.append(done))
    assert len(next(stream)) == 2
    assert len(next(stream)) == 2
    assert reports == [2]


def test_progress_may_stop_the_work(renderer):
    class StopError(Exception):
        pass

    def stop(done, total, preview=None):
        raise StopError

    with pytest.raises(StopError):
        list(renderer.frames(random_motion(20), batch=2, progress=stop))


def test_the_mouth_opens_as_far_as_in_the_motion(renderer):
    """Between the moved edges of the lips lies as much as the motion has, in eye distances."""
    controls = np.zeros((8, 6))
    controls[:, 0] = np.linspace(0, 0.6, 8)
    motion = motion_of(controls)
    opening = np.linalg.norm(motion.vertices[:, 13] - motion.vertices[:, 14], axis=-1)
    opening /= np.linalg.norm(motion.neutral[33] - motion.neutral[263])
    mesh, mouth = renderer.mesh, renderer.lips.mouth
    moved = mesh.move(motion, np.arange(8), at_work(8)).expression.numpy()
    points = mesh.points[None] + moved
    # The lips' edges lie a little outside the landmarks, and they are soft.
    middle = len(mouth.upper) // 2
    rims = (mouth.lower - mouth.upper)[middle] - (mesh.points[14] - mesh.points[13]) @ mouth.down
    gaps = (points[:, 14] - points[:, 13]) @ mouth.down + rims - renderer.lips.edge / 2
    reports = gaps.clip(min=0) / mesh.eye_distance
    assert reports[0] == 0
    assert np.corrcoef(opening, reports)[0, 1] > 0.99
    assert 0.85 < np.std(reports) / np.std(opening) < 1.15
    assert 0.85 < reports[1] / opening[1] < 1.15


def test_landmarks_of_shut_lips_may_cross(portrait):
    points = portrait[1].points[0, :468, :2].astype(float)
    upper, lower = list(UPPER_INNER_LIP), list(LOWER_INNER_LIP)
    crossed = points.copy()
    crossed[upper] = (points[upper] + points[lower]) / 2 + [0, 0.4]
    crossed[lower] = crossed[upper] - [0, 0.8]
    as_found, as_shut = (Aperture(places, MOUTH_CORNERS, upper, lower) for places in (points, crossed))
    assert as_shut.down == pytest.approx(as_found.down)
    assert as_shut.down[1] > 0.9


def canonical_mesh(pitch: float, yaw: float) -> PortraitMesh:
    """The canonical face as a portrait, turned by degrees."""
    turned = face_mesh().vertices @ euler_to_matrix(np.array([pitch, yaw, 0.0])).T
    points = turned * [12.0, -12.0, -12.0] + [256.0, 256.0, 0.0]
    return PortraitMesh(replace(example_portrait()[1], points=points[None].astype(np.float32), image_size=(512, 512)))


def openings_of_a_face_turned_by(pitch: float, yaw: float = 0.0) -> np.ndarray:
    """What two openings of the jaw come to in the picture, in eye distances, for the canonical face as a portrait."""
    mesh = canonical_mesh(pitch, yaw)
    moved = mesh.move(motion_of(np.eye(6)[[0]] * [[0.2], [0.5]]), np.arange(2), at_work(2, 0.0)).expression.numpy()
    return (moved[:, 14] - moved[:, 13])[:, 1] / mesh.eye_distance


@pytest.mark.parametrize("pitch", [-12.0, 12.0, 20.0])
def test_raised_and_bowed_faces_show_the_same_openings(pitch):
    assert openings_of_a_face_turned_by(pitch) == pytest.approx(openings_of_a_face_turned_by(0.0), rel=0.06)


def test_a_profile_opens_its_mouth_but_not_wide():
    level, turned, profile = (openings_of_a_face_turned_by(0.0, yaw) for yaw in (0.0, 30.0, 55.0))
    assert turned[1] > 0.85 * level[1]
    assert profile[0] > 0.6 * level[0]
    assert profile[1] < 0.8 * level[1]


def test_what_ends_inside_the_picture_is_not_repeated_beyond_its_border():
    head = torch.zeros(1, 4, 20, 20)
    head[..., 4:, 5:15] = 1.0
    layer = Layer.mirrored_around(head, 0, 0, margin=6)
    assert not layer.values[..., :6, :].any()
    assert layer.values[..., -6:, 11:21].all()
    assert torch.equal(layer.values[..., 6:26, 6:26], head)


def test_teeth_are_covered_when_lips_close(portrait, renderer):
    """The example portrait smiles with bright teeth; in speech, a closed mouth must show lips."""
    image, track = portrait
    x, y = track.points[0, [13, 14], :2].mean(axis=0).round().astype(int)
    controls = np.zeros((40, 6))
    controls[:, 0] = 0.4
    controls[20, 0] = 0.0
    frame = renderer.render(motion_of(controls))[0][20]
    before, after = image[y - 2 : y + 3, x - 6 : x + 7], frame[y - 2 : y + 3, x - 6 : x + 7]
    redness = lambda patch: float((patch[..., 0] - patch[..., 2]).mean())  # noqa: E731
    assert redness(after) > 1.5 * redness(before)


def test_a_blink_hides_both_irises_and_leaves_the_cheeks(portrait, renderer):
    image, track = portrait
    frames, _ = renderer.render(motion_of(blink=np.array([1.0])))
    for iris, cheek in ((468, 50), (473, 280)):
        x, y = track.points[0, iris, :2].round().astype(int)
        dark = image[y - 1 : y + 2, x - 1 : x + 2].mean()
        assert frames[0, y - 1 : y + 2, x - 1 : x + 2].mean() > dark + 0.15
        x, y = track.points[0, cheek, :2].round().astype(int)
        around = slice(y - 2, y + 3), slice(x - 2, x + 3)
        torch.testing.assert_close(frames[0][around], image[around], atol=1 / 255, rtol=0)


def test_a_tilted_heads_mouth_leaves_its_shut_eyes(portrait):
    """The box of pixels around a tilted mouth reaches an eye, but the mouth is painted around the lips alone."""
    image, track = portrait
    height, width = image.shape[:2]
    turn = turned_map((width / 2, height / 2), width, 45.0, (height, width))
    tilted = sample_picture(image, turn, (height, width))
    upright = np.eye(4)
    upright[:2, :2] = turn[:, :2]
    track = replace(track, points=apply_map(invert_map(turn), track.points), matrix=upright @ track.matrix)
    renderer = InstantRenderer(tilted, track)
    quiet, speaking = np.zeros((1, 6)), np.array([[0.7, 0, 0, 0, 0, 0]])
    frames = [renderer.render(motion_of(controls, blink=np.ones(1)))[0][0] for controls in (quiet, speaking)]
    for corners in ((33, 133), (362, 263)):
        x, y = track.points[0, list(corners), :2].mean(axis=0).astype(int)
        eyes = [frame[y - 8 : y + 8, x - 8 : x + 8] for frame in frames]
        assert (eyes[0] - eyes[1]).abs().max() < 0.1


def least_area_ratio(forward: torch.Tensor, grid) -> float:
    """The least ratio of a moved triangle's area to its own at rest, over all triangles of three nodes of a cell."""
    nodes = torch.from_numpy(grid.nodes()).float().view(1, grid.rows, grid.columns, 2)
    moved = nodes + forward.permute(0, 2, 3, 1)
    cell = (nodes[0, 1, 1] - nodes[0, 0, 0]).prod()
    corners = [moved[:, :-1, :-1], moved[:, :-1, 1:], moved[:, 1:, 1:], moved[:, 1:, :-1]]
    least = np.inf
    for i in range(4):
        here, after, before = corners[i], corners[(i + 1) % 4], corners[i - 1]
        a, b = after - here, before - here
        least = min(least, float((a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).min() / cell))
    return least


@pytest.mark.parametrize("turn", [None, (0.0, 30.0), (15.0, -60.0), (-25.0, 20.0)])
def test_no_motion_folds_skin_or_head(renderer, turn):
    """Random mouths, turns, shifts and blinks, far beyond what a driver makes."""
    random = np.random.default_rng(3)
    count = 16
    controls = random.uniform(0, 1, (count, 6)) * random.integers(0, 2, (count, 6))
    controls[0, 0] = 1.0
    motion = motion_of(controls, random.normal(0, 14, (count, 3)), random.uniform(-0.2, 1, count))
    motion = replace(motion, translation=random.normal(0, 4, (count, 3)).astype(np.float32))
    mesh = renderer.mesh if turn is None else canonical_mesh(*turn)
    skin, head = ExpressionField(mesh, torch.device("cpu")), HeadField(mesh, torch.device("cpu"))
    shape = mesh.move(motion, np.arange(count), at_work(count))
    for forward, grid in (
        *((field, skin.grid) for field in skin.forward(shape.expression)),
        (head.forward(shape.camera_motion, shape.breath), head.grid),
    ):
        assert least_area_ratio(forward, grid) > 0.2
        assert forward.abs().max() > 1.0
    for backward, grid in (
        (skin.backward(shape.expression), skin.grid),
        ([head.backward(head.forward(shape.camera_motion, shape.breath))], head.grid),
    ):
        assert min(least_area_ratio(field, grid) for field in backward) > 0.2


def test_collars_keep_still_below_a_dropping_chin(renderer):
    mesh, skin = renderer.mesh, renderer.skin
    shape = mesh.move(motion_of(np.array([[0.4, 0, 0, 0, 0, 0]])), np.arange(1), at_work(1, 0))
    chin = mesh.points[152]
    places = chin + np.outer([0.0, 0.25, 0.5], [0, mesh.eye_distance])
    moved = skin.sample(skin.forward(shape.expression)[1], torch.from_numpy(places).float()[None, None])
    drop, near, far = moved[0, 0, :, 1].tolist()
    assert drop > 0.08 * mesh.eye_distance
    assert near < 0.4 * drop
    assert abs(far) < 0.1 * drop


def test_inversion_undoes_a_field(renderer):
    controls = np.zeros((1, 6))
    controls[0, 0] = 0.6
    shape = renderer.mesh.move(motion_of(controls), np.arange(1), at_work(1))
    skin = renderer.skin
    forward = skin.forward(shape.expression)[0]
    backward = invert(forward, skin.grid, skin.nodes).permute(0, 2, 3, 1)
    back = backward + sample_field(forward, skin.grid, skin.nodes + backward)
    above = skin.nodes[..., 1] < renderer.mesh.points[13, 1]
    assert back[0][above].norm(dim=-1).max() < 0.2


def test_an_extreme_opening_is_inverted_too(renderer):
    shape = renderer.mesh.move(motion_of(np.array([[0.9, 0, 0, 0, 0, 0]])), np.arange(1), at_work(1))
    skin = renderer.skin
    forward = skin.forward(shape.expression)[1]
    backward = invert(forward, skin.grid, skin.nodes).permute(0, 2, 3, 1)
    back = backward + sample_field(forward, skin.grid, skin.nodes + backward)
    along, across = renderer.lips.tables.local(skin.nodes + backward[0])
    below = across > renderer.lips.tables.at(along)[1]
    assert back[0][below].norm(dim=-1).quantile(0.999) < 0.3


@pytest.mark.parametrize("side", [80, 160, 1100])
def test_other_sizes(portrait, side):
    """Faces from some 25 pixels to several hundred: the frame has the picture's size and moves alike."""
    image, track = portrait
    scale = side / image.shape[0]
    resized = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size=(side, side), mode="bilinear")
    picture = resized[0].permute(1, 2, 0)
    small = InstantRenderer(picture, replace(track, points=track.points * scale, image_size=(side, side)))
    frames, masks = small.render(random_motion(2))
    assert frames.shape == (2, side, side, 3)
    assert torch.isfinite(frames).all()
    assert 0.02 < masks[1].mean() < 0.7


def test_a_picture_whose_rows_and_columns_are_swapped_in_memory_gives_the_same(portrait):
    image, track = fit_portrait(*portrait, 96)
    turned = image.transpose(0, 1).contiguous().transpose(0, 1)
    motion = random_motion(1)
    assert torch.allclose(
        *(InstantRenderer(picture, track).render(motion)[0] for picture in (turned, image)), atol=1e-3
    )


def test_only_the_tracked_face_moves(portrait):
    image, track = portrait
    height, width = image.shape[:2]
    pair = torch.cat([image, image], dim=1)
    frames, masks = InstantRenderer(pair, replace(track, image_size=(height, 2 * width))).render(random_motion(3))
    assert torch.equal(frames[:, :, int(1.2 * width) :], pair[None, :, int(1.2 * width) :].expand(3, -1, -1, -1))
    assert masks[:, :, :width].any()


def test_grey_pictures_stay_grey(portrait):
    image, track = portrait
    grey = image.mean(dim=-1, keepdim=True).expand(-1, -1, 3).contiguous()
    frames, _ = InstantRenderer(grey, track).render(random_motion(3))
    assert (frames.amax(dim=-1) - frames.amin(dim=-1)).max() < 0.02


def test_a_camera_pose_moves_from_its_first_frame(renderer):
    rotation = np.array([[10.0, 20, 5], [10, 20, 5], [13, 26, 5]])
    absolute = replace(motion_of(rotation=rotation), pose="camera")
    frames = torch.cat(list(renderer.frames_uint8(absolute)))
    moved = (frames.int() - renderer.image_uint8.int()).abs()
    assert moved[:2].max() <= 1, "rounding may tip a byte"
    assert moved[2].max() > 20


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda image, track: (image[..., 0], track), "one colour picture"),
        (lambda image, track: (image[:100], track), "run Detect Landmarks on this very picture"),
        (lambda image, track: (image * float("nan"), track), "not numbers"),
        (lambda image, track: (image, replace(track, points=track.points[:, :100])), "Detect Landmarks"),
        (lambda image, track: (image, replace(track, points=track.points * np.nan)), "hold no face"),
        (
            lambda image, track: (image[:1, :1], replace(track, points=track.points * 0, image_size=(1, 1))),
            "hold no face",
        ),
    ],
)
def test_unusable_portraits_get_one_sentence(portrait, change, hint):
    with pytest.raises(TalkingPortraitError, match=hint):
        InstantRenderer(*change(*portrait))


def test_unusable_motion_gets_one_sentence(renderer):
    motion = random_motion(2)
    with pytest.raises(TalkingPortraitError, match="no frames"):
        list(
            renderer.frames(
                replace(motion, **{k: getattr(motion, k)[:0] for k in ("vertices", "rotation", "translation")})
            )
        )
    with pytest.raises(TalkingPortraitError, match="rotation holds values that are not numbers"):
        list(renderer.frames(replace(motion, rotation=motion.rotation * np.nan)))


@pytest.mark.parametrize("move", [(40, 0, 0), (-40, 0, 0), (0, 100, 0), (0, -100, 0), (0, 0, 30), (0, 0, 100)])
def test_a_head_may_leave_the_picture(renderer, move):
    motion = motion_of(controls=np.full((2, 6), 0.4, np.float32), blink=np.ones(2))
    frames, _ = renderer.render(replace(motion, translation=np.tile(np.float32(move), (2, 1))))
    assert torch.isfinite(frames).all()


def test_bytes_outside_the_mask_are_the_pictures_own(portrait):
    from talking_portrait.pipelines.instant.animate import fit_portrait

    image, track = fit_portrait(*portrait, 160)
    small = InstantRenderer(image, track)
    motion = motion_of(controls=np.full((2, 6), 0.3, np.float32), rotation=np.float32([[2, 3, 1], [-2, 4, 0]]))
    _, masks = small.render(motion)
    frames = torch.cat(list(small.frames_uint8(motion)))
    outside = masks == 0
    assert outside.any()
    assert torch.equal(frames[outside], small.image_uint8.expand_as(frames)[outside])


def test_a_face_that_scaling_leaves_nothing_of_is_one_sentence():
    from talking_portrait.pipelines.instant.animate import fit_portrait

    picture, track = example_portrait()
    banner = torch.nn.functional.pad(picture, (0, 0, 0, 9 * picture.shape[1]))
    track = replace(track, image_size=(banner.shape[0], banner.shape[1]))
    with pytest.raises(TalkingPortraitError, match="less than a pixel .* 16 pixels; choose a larger size, or crop"):
        fit_portrait(banner, track, 16)


def test_a_breath_lifts_the_shoulders_and_leaves_the_face(portrait, renderer):
    image, track = portrait
    breathing = replace(motion_of(frames=3), breath=np.float32([0, 1, 2]))
    shape = renderer.mesh.move(breathing, np.arange(3), renderer.mesh.mouth.speaking(breathing))
    moved = renderer.head.forward(shape.camera_motion, shape.breath)
    assert moved[0].abs().max() < 1e-3
    lift = -moved[:, 1].amin(dim=(1, 2)) / renderer.mesh.pixels_per_cm
    assert lift[1:].tolist() == pytest.approx([0.4, 0.8], rel=0.2)
    frames, masks = renderer.render(breathing)
    mouth = int(track.points[0, 0, 1])
    assert torch.equal(frames[2, :mouth], image[:mouth])
    assert masks[2, mouth:].mean() > 0.1
