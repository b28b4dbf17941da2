"""The rasteriser: which pixels a triangle covers, what they show, and the gradients of its vertices."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.models.audiodvp import rasterizer
from talking_portrait.models.audiodvp.rasterizer import EDGE_TOLERANCE, Raster, interpolate, rasterize, shade
from talking_portrait.models.errors import TalkingPortraitError

SIZE = (22, 30)
NO_TRIANGLES = torch.zeros(0, 3, dtype=torch.int32)


def vertices(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.float32)


def random_mesh(seed: int, triangles: int = 40, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangles of all sizes and both windings, some of them partly or wholly behind the camera."""
    generator = torch.Generator().manual_seed(seed)
    position = torch.randn(batch, 3 * triangles, 3, generator=generator)
    position[..., :2] *= 3
    depth = 3 + 3 * position[..., 2]
    clip = torch.stack([*position[..., :2].unbind(-1), 1.02 * depth - 0.2, depth], -1)
    order = torch.randperm(3 * triangles, generator=generator)
    return clip, order.view(-1, 3).int()


def centres(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return x.double() / (width / 2) - 1, y.double() / (height / 2) - 1


def one_by_one(clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]) -> tuple[Raster, torch.Tensor]:
    """The published rule for one mesh (V, 4), a triangle at a time in double precision; and the pixels that are clear.

    A pixel is not clear where an edge is close to its limit, or two triangles lie close behind each other.
    """
    height, width = size
    px, py = centres(size)
    point = torch.stack([px, py, torch.ones_like(px)], -1)
    ids, weights = torch.zeros(size, dtype=torch.int32), torch.zeros(*size, 3, dtype=torch.float64)
    nearest, clear = torch.ones(size, dtype=torch.float64), torch.ones(size, dtype=torch.bool)
    for number, triangle in enumerate(triangles.tolist()):
        corners = clip[triangle].double()
        if (corners[:, 3] < 0).all():
            continue
        matrix = corners[:, [0, 1, 3]].T
        determinant = torch.linalg.det(matrix)
        edges = point @ (torch.linalg.inv(matrix) * determinant.abs()).T
        box = torch.ones(size, dtype=torch.bool)
        if (corners[:, 3] > 0).all():
            x, y = ((corners[:, axis] / corners[:, 3] + 1) * side / 2 for axis, side in ((0, width), (1, height)))
            column, row = torch.arange(width)[None], torch.arange(height)[:, None]
            box = (column >= x.min().floor()) & (column < x.max().ceil())
            box = box & (row >= y.min().floor()) & (row < y.max().ceil())
        inside = box & (edges >= -EDGE_TOLERANCE).all(-1) & (edges > 0).any(-1)
        b = edges / edges.sum(-1, keepdim=True)
        z = (b @ corners[:, 2]) / (b @ corners[:, 3])
        clear &= ~(box & ((edges + EDGE_TOLERANCE).abs() < 1e-4 * edges.abs().amax(-1, keepdim=True)).any(-1))
        clear &= ~(inside & ((z - nearest).abs() < 1e-4) | (inside & (z.abs() - 1).abs().lt(1e-4)))
        shown = inside & (z >= -1) & (z <= 1) & (z <= nearest)
        ids[shown], nearest[shown], weights[shown] = number, z[shown], b[shown]
    return Raster(ids, weights, nearest), clear


@pytest.mark.parametrize("seed", range(6))
def test_it_draws_what_the_published_rule_draws(seed: int) -> None:
    clip, triangles = random_mesh(seed)
    expected, clear = one_by_one(clip[0], triangles, SIZE)
    raster = rasterize(clip, triangles, SIZE)
    assert clear.float().mean() > 0.9
    assert expected.barycentric.any(-1)[clear].float().mean() > 0.2
    assert (raster.triangle_id[0] == expected.triangle_id)[clear].all()
    torch.testing.assert_close(raster.barycentric[0][clear].double(), expected.barycentric[clear], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(raster.depth[0][clear].double(), expected.depth[clear], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_interpolated_vertices_project_to_the_pixels_that_show_them(seed: int) -> None:
    clip, triangles = random_mesh(seed, batch=2)
    raster = rasterize(clip, triangles, SIZE)
    point = interpolate(raster, triangles, clip)
    covered = raster.barycentric.sum(-1) > 0.5
    assert covered.any()
    for axis, expected in zip((0, 1), centres(SIZE), strict=True):
        found = (point[:, axis] / point[:, 3])[covered].double()
        torch.testing.assert_close(found, expected.expand_as(covered)[covered], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close((point[:, 2] / point[:, 3])[covered], raster.depth[covered], atol=1e-3, rtol=1e-3)
    assert not point.movedim(1, -1)[~covered].any()


@pytest.mark.parametrize("size", [(4, 4), (5, 9), (1, 1)])
def test_a_square_of_two_triangles_covers_the_whole_image(size: tuple[int, int]) -> None:
    square = vertices((-1, -1, 0, 1), (1, -1, 0, 1), (-1, 1, 0, 1), (1, 1, 0, 1))
    triangles = torch.tensor([[0, 1, 2], [2, 1, 3]])
    image, alpha = shade(rasterize(square, triangles, size), triangles, torch.ones(1, 4, 3))
    assert image.shape == (1, 3, *size)
    torch.testing.assert_close(image, torch.ones_like(image))
    torch.testing.assert_close(alpha, torch.ones_like(alpha))


def test_row_0_is_the_side_of_negative_y_and_the_background_is_black() -> None:
    triangle = vertices((-1, -1, 0, 1), (1, -1, 0, 1), (-1, 0, 0, 1))
    image, alpha = shade(
        rasterize(triangle, torch.tensor([[0, 1, 2]]), (8, 8)),
        torch.tensor([[0, 1, 2]]),
        triangle[..., 3:].expand(1, 3, 3),
    )
    assert alpha[0, 0, 0, :6].all()
    assert not alpha[0, 0, 4:].any()
    assert not image[0, :, 4:].any()


def test_colours_are_limited_to_0_and_1() -> None:
    triangle, index = vertices((-3, -3, 0, 1), (3, -3, 0, 1), (0, 3, 0, 1)), torch.tensor([[0, 1, 2]])
    raster = rasterize(triangle, index, (4, 4))
    colours = torch.tensor([-2.0, 0.5, 7.0]).expand(1, 3, 3)
    image, _ = shade(raster, index, colours)
    torch.testing.assert_close(image[0, :, 2, 2], torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1], [2, 0, 1]])
def test_of_triangles_at_the_same_depth_the_last_one_is_shown(order: list[int]) -> None:
    """At w = 1 and z = 0.5 no rounding makes one of the triangles nearer."""
    corners = vertices((-1, -1, 0.5, 1), (1, -1, 0.5, 1), (-1, 1, 0.5, 1), (9, 9, 0.5, 1), (9, 8, 0.5, 1))
    triangles = torch.tensor([[0, 1, 2], order, [2, 1, 0], [3, 4, 3]])
    raster = rasterize(corners, triangles, (8, 8))
    covered = raster.barycentric.sum(-1) > 0.5
    assert covered.any()
    assert (raster.triangle_id[covered] == 2).all()


def test_a_nearer_triangle_hides_a_later_one() -> None:
    near, far = 0.25, 0.75
    corners = vertices(*[(x, y, z, 1) for z in (near, far) for x, y in ((-3, -3), (3, -3), (0, 3))])
    raster = rasterize(corners, torch.tensor([[0, 1, 2], [3, 4, 5]]), (6, 6))
    assert not raster.triangle_id.any()
    torch.testing.assert_close(raster.depth[0, 3, 3], torch.tensor(near))


@pytest.mark.parametrize(("z", "shown"), [(-1.001, False), (-0.999, True), (0.999, True), (1.001, False)])
def test_what_is_nearer_than_the_near_plane_or_behind_the_far_one_is_not_shown(z: float, shown: bool) -> None:
    corners = vertices((-3, -3, z, 1), (3, -3, z, 1), (0, 3, z, 1))
    raster = rasterize(corners, torch.tensor([[0, 1, 2]]), (4, 4))
    assert bool(raster.barycentric[0, 2, 2].any()) is shown
    assert float(raster.depth[0, 2, 2]) == pytest.approx(z if shown else 1)


def test_triangles_behind_the_camera_are_not_drawn() -> None:
    behind = vertices((-3, -3, -1, -1), (3, -3, -1, -1), (0, 3, -1, -1))
    raster = rasterize(behind, torch.tensor([[0, 1, 2]]), (4, 4))
    assert not raster.barycentric.any()


def test_of_a_triangle_that_passes_the_camera_the_part_in_front_is_drawn() -> None:
    """A floor below the camera, that one corner of which lies behind: it ends at the horizon, y = 0."""

    def clip(x: float, forward: float) -> tuple[float, float, float, float]:
        return x, 1.0, 1.02 * forward - 0.2, forward

    floor = vertices(clip(-60, 20), clip(60, 20), clip(0, -5))
    raster = rasterize(floor, torch.tensor([[0, 1, 2]]), (20, 20))
    covered = raster.barycentric[0].sum(-1) > 0.5
    assert not covered[:10].any()
    assert covered[12:19, 9:11].all()


@pytest.mark.parametrize("corners", [3, 0])
def test_a_mesh_without_triangles_is_all_background(corners: int) -> None:
    raster = rasterize(torch.ones(2, corners, 4, requires_grad=True), NO_TRIANGLES, SIZE)
    image, alpha = shade(raster, NO_TRIANGLES, torch.ones(2, corners, 3))
    assert image.shape == (2, 3, *SIZE)
    assert not image.any()
    assert not alpha.any()
    assert not raster.triangle_id.any()
    assert (raster.depth == 1).all()


def test_triangles_without_area_are_not_drawn() -> None:
    clip, _ = random_mesh(1)
    assert not rasterize(clip, torch.tensor([[3, 3, 5], [7, 7, 7]]), SIZE).barycentric.any()


def test_no_mesh_gives_no_image() -> None:
    assert rasterize(torch.ones(0, 3, 4), torch.tensor([[0, 1, 2]]), SIZE).depth.shape == (0, *SIZE)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("column", range(4))
def test_vertices_that_are_no_numbers_are_refused(bad: float, column: int) -> None:
    clip, triangles = random_mesh(2)
    clip[0, 5, column] = bad
    with pytest.raises(TalkingPortraitError, match="^1 of 120 vertices .* no finite numbers"):
        rasterize(clip, triangles, SIZE)


@pytest.mark.parametrize("vertex", [-1, 120])
def test_triangles_with_vertices_that_are_not_there_are_refused(vertex: int) -> None:
    clip, triangles = random_mesh(2)
    triangles[4, 1] = vertex
    with pytest.raises(TalkingPortraitError, match="120 vertices"):
        rasterize(clip, triangles, SIZE)


def test_other_shapes_are_refused() -> None:
    clip, triangles = random_mesh(2)
    for vertices_, index in ((clip[0], triangles), (clip[..., :3], triangles), (clip, triangles[:, :2])):
        with pytest.raises(TalkingPortraitError, match="shape"):
            rasterize(vertices_, index, SIZE)


def same(first: Raster, second: Raster) -> None:
    """Alike but for pixels at the border of a triangle, of which rounding decides."""
    alike = (first.triangle_id == second.triangle_id) & ((first.depth - second.depth).abs() < 1e-3)
    assert alike.float().mean() > 0.99
    torch.testing.assert_close(first.barycentric[alike], second.barycentric[alike], atol=1e-2, rtol=1e-2)


def test_a_batch_of_three_gives_the_same_as_each_mesh_alone() -> None:
    clip, triangles = random_mesh(3, batch=3)
    together = rasterize(clip, triangles, SIZE)
    for number, mesh in enumerate(clip):
        same(Raster(*(values[number : number + 1] for values in together)), rasterize(mesh[None], triangles, SIZE))


@pytest.mark.parametrize("candidates", [1, 300, 5000])
def test_work_in_small_parts_gives_the_same(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, triangles = random_mesh(4, batch=2)
    whole = rasterize(clip, triangles, SIZE)
    monkeypatch.setattr(rasterizer, "CHUNK_CANDIDATES", candidates)
    same(whole, rasterize(clip, triangles, SIZE))


def test_parts_are_bounded_by_the_largest_triangle() -> None:
    area = torch.tensor([1, 999_999, 1, 400, 3_000_000, 2, 5])
    parts = list(rasterizer._chunks(area))
    assert [first for first, _ in parts] == [0, *(last for _, last in parts[:-1])]
    assert parts[-1][1] == len(area)
    limit = rasterizer.CHUNK_CANDIDATES + int(area.max())
    assert all(int(area[first:last].sum()) <= limit for first, last in parts)


# --- gradients ---


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Two overlapping triangles in perspective, in double precision; no pixel's centre lies near an edge."""
    corners = vertices(
        (-2.4, -1.7, 1.9, 2.1), (2.6, -1.4, 2.5, 2.8), (-0.3, 2.9, 2.9, 3.2),
        (-1.1, -2.1, 1.4, 1.7), (2.3, 1.9, 3.1, 3.4), (-2.2, 1.6, 2.2, 2.6),
    )  # fmt: skip
    return corners.double(), torch.tensor([[0, 1, 2], [5, 4, 3]])


def test_gradients_are_those_of_finite_differences() -> None:
    clip, triangles = scene()
    covered = rasterize(clip, triangles, (6, 7)).triangle_id
    assert set(covered.flatten().tolist()) == {0, 1}
    colours = torch.rand(1, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def image(vertices_: torch.Tensor, colours_: torch.Tensor) -> torch.Tensor:
        return interpolate(rasterize(vertices_, triangles, (6, 7)), triangles, colours_)

    assert torch.autograd.gradcheck(image, (clip.requires_grad_(), colours.requires_grad_()), eps=1e-7, atol=1e-5)


def published_gradient(
    clip: torch.Tensor, triangles: torch.Tensor, raster: Raster, upstream: torch.Tensor
) -> torch.Tensor:
    """The backward pass of the published kernel for one mesh, a pixel at a time."""
    result, (px, py) = torch.zeros_like(clip), centres(raster.triangle_id.shape[1:])
    for row, column in (raster.barycentric[0].sum(-1) >= 0.9).nonzero().tolist():
        triangle = triangles[raster.triangle_id[0, row, column]].long()
        (x0, x1, x2), (y0, y1, y2), _, (w0, w1, w2) = clip[triangle].T
        u, v = px[row, column], py[row, column]
        dx = [v * (w1 - w2) - (y1 - y2), v * (w2 - w0) - (y2 - y0)]
        dy = [(x1 - x2) - u * (w1 - w2), (x2 - x0) - u * (w2 - w0)]
        dw = [u * (y1 - y2) - v * (x1 - x2), u * (y2 - y0) - v * (x2 - x0)]
        for d in (dx, dy, dw):
            d.append(-(d[0] + d[1]))
        edges = torch.stack(
            [
                x2 * dx[0] + y2 * dy[0] + w2 * dw[0],
                x2 * dx[1] + y2 * dy[1] + w2 * dw[1],
                x1 * dx[2] + y1 * dy[2] + w1 * dw[2],
            ]
        )
        for axis, d in ((0, dx), (1, dy), (3, dw)):
            slope = sum(g * part for g, part in zip(upstream[row, column], d, strict=True))
            result[triangle, axis] += edges / edges.sum() ** 2 * slope
    return result


def test_gradients_are_those_of_the_published_kernel() -> None:
    clip, triangles = scene()
    clip.requires_grad_()
    raster = rasterize(clip, triangles, (6, 7))
    upstream = torch.randn(6, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (raster.barycentric[0] * upstream).sum().backward()
    assert clip.grad is not None
    expected = published_gradient(clip.detach()[0], triangles, raster, upstream)
    torch.testing.assert_close(clip.grad[0], expected)
    assert expected.abs().max() > 0.1
    assert not clip.grad[..., 2].any()


def test_half_precision_is_computed_in_single() -> None:
    clip, triangles = random_mesh(5)
    half = clip.half()
    same(rasterize(half, triangles, SIZE), rasterize(half.float(), triangles, SIZE))
