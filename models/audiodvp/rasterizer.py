"""A rasteriser of triangle meshes in plain PyTorch, differentiable with respect to the vertices.

The rule that decides whether a pixel is inside of a triangle is that of AudioDVP's CUDA kernel, which follows
tf_mesh_renderer (Genova et al., CVPR 2018): edge functions from the adjugate of the three clip-space vertices, without
culling of back faces. Where the kernel leaves the result of equal depths to chance, the last triangle is taken here.

Which triangle a pixel shows is found without gradients. The barycentric coordinates of that triangle are then computed
with autograd, so gradients reach x, y and w of its vertices, never z, and there is none at silhouettes; this equals the
kernel's own backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from ..errors import TalkingPortraitError

EDGE_TOLERANCE = 1e-5
"""How far below 0 an edge function may be; it is not normalised, so small triangles grow more (published)."""
CHUNK_CANDIDATES, ACCELERATOR_CANDIDATES = 250_000, 4_000_000
"""Pairs of a triangle and a pixel of its box that are tested at once, on a CPU and elsewhere: 100 MB and 1.6 GB, about.

Larger chunks are no faster on two CPU cores; an accelerator takes longer to be given small ones than to compute them.
"""


class Raster(NamedTuple):
    """What a rasterised mesh shows at each pixel.

    `triangle_id` (B, H, W) int32, 0 on the background; `barycentric` (B, H, W, 3), perspective-correct, 0 on the
    background, which alone distinguishes it from triangle 0; `depth` (B, H, W), z / w in -1..1, 1 on the background,
    without gradient.
    """

    triangle_id: torch.Tensor
    barycentric: torch.Tensor
    depth: torch.Tensor


def rasterize(clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]) -> Raster:
    """Rasterises meshes that share their triangles.

    Args:
        clip: vertices (B, V, 4) in clip space; x / w and y / w of -1 and 1 are the image's borders, row 0 is y = -1.
        triangles: vertex numbers (F, 3) in either winding; F may be 0, and is at most 2**24.
        size: (height, width) of the image in pixels.

    Raises TalkingPortraitError for vertices that are NaN or infinite, and for triangles without a vertex.
    """
    _check(clip, triangles)
    clip = clip if clip.dtype == torch.float64 else clip.float()
    triangles = triangles.to(clip.device, torch.int64)
    height, width = size
    with torch.no_grad():
        visible = _visible_triangles(clip, triangles, height, width)
    covered = (visible >= 0).nonzero()[:, 0]
    ids, place = visible[covered], covered % (height * width)

    corners = _corners(clip, triangles, covered // (height * width), ids).permute(2, 1, 0)
    x, y = _centres(place % width, width, clip.dtype), _centres(place // width, height, clip.dtype)
    edges = _edge_values(corners, x, y)
    barycentric = edges / edges.sum(0)
    with torch.no_grad():
        depth = _depth(barycentric, corners)

    pixels = len(clip) * height * width
    shape = (len(clip), height, width)
    return Raster(
        ids.new_zeros(pixels).index_copy(0, covered, ids).to(torch.int32).view(shape),
        clip.new_zeros(pixels, 3).index_copy(0, covered, barycentric.T).view(*shape, 3),
        clip.new_ones(pixels).index_copy(0, covered, depth).view(shape),
    )


def interpolate(raster: Raster, triangles: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
    """Attributes (B, V, C) of the vertices at each pixel, as (B, C, H, W); 0 on the background."""
    batch, height, width = raster.triangle_id.shape
    weights = raster.barycentric.flatten(0, 2)
    covered = (weights.detach() != 0).any(1).nonzero()[:, 0]
    triangles = triangles.to(attributes.device, torch.int64)
    ids = raster.triangle_id.flatten()[covered].long()
    corners = _corners(attributes, triangles, covered // (height * width), ids)
    values = (weights[covered, :, None] * corners).sum(1)
    image = values.new_zeros(batch * height * width, values.shape[-1]).index_copy(0, covered, values)
    return image.view(batch, height, width, -1).permute(0, 3, 1, 2)


def shade(raster: Raster, triangles: torch.Tensor, colours: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (B, 3, H, W) in 0..1 on black, and alpha (B, 1, H, W), from the colours (B, V, 3) of the vertices."""
    return interpolate(raster, triangles, colours).clamp(0, 1), coverage(raster)


def coverage(raster: Raster) -> torch.Tensor:
    """Alpha (B, 1, H, W): 1 where a mesh is, 0 on the background."""
    return (2 * raster.barycentric.sum(-1)).clamp(0, 1)[:, None]


def _check(clip: torch.Tensor, triangles: torch.Tensor) -> None:
    if clip.ndim != 3 or clip.shape[-1] != 4 or triangles.ndim != 2 or triangles.shape[-1] != 3:
        raise TalkingPortraitError(
            f"A mesh has vertices of the shape {tuple(clip.shape)} and triangles of {tuple(triangles.shape)}, but "
            "(batch, vertices, 4) and (triangles, 3) are expected; check the face model's file."
        )
    bad = ~clip.detach().isfinite().all(-1)
    if bad.any():
        raise TalkingPortraitError(
            f"{int(bad.sum())} of {bad.numel()} vertices of a mesh are no finite numbers, so it can't be drawn; check "
            "the coefficients of its face, which a fit that diverged makes NaN."
        )
    if triangles.numel() and (int(triangles.min()) < 0 or int(triangles.max()) >= clip.shape[1]):
        raise TalkingPortraitError(
            f"A mesh of {clip.shape[1]} vertices has triangles with the vertices {int(triangles.min())} to "
            f"{int(triangles.max())}, but 0 to {clip.shape[1] - 1} are expected; check the face model's file."
        )


def _corners(values: torch.Tensor, triangles: torch.Tensor, mesh: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Values (B, V, C) at the corners of triangle `ids` (n,) of mesh `mesh` (n,), as (n, 3, C)."""
    rows = triangles[ids] + mesh[:, None] * values.shape[1]
    return values.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, (-1, 3))


def _centres(numbers: torch.Tensor, side: int, dtype: torch.dtype) -> torch.Tensor:
    """The centres of columns or rows of an image with `side` of them, in -1..1."""
    return (numbers.to(dtype) + 0.5) / (side / 2) - 1


def _edge_values(corners: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Edge functions (3, n) at points x, y (n,) of triangles with the corners (xyzw, 3, n).

    Edge function k is barycentric coordinate k over w, times the determinant of the corners: row k of the adjugate of
    the matrix whose columns are the corners' x, y and w, times (x, y, 1). Here the point is made the origin first,
    which gives the same value, with far smaller rounding errors where triangles are small.
    """
    right, down = corners[0] - x * corners[3], corners[1] - y * corners[3]
    following, last = (1, 2, 0), (2, 0, 1)
    return torch.stack([right[i] * down[j] - right[j] * down[i] for i, j in zip(following, last, strict=True)])


def _counter_clockwise(corners: torch.Tensor) -> torch.Tensor:
    """Corners (n, 3, xyzw) in the order in which edge functions are positive inside of the triangle."""
    first, second, third = corners[..., [0, 1, 3]].unbind(1)
    normal = torch.linalg.cross(second - first, third - first, dim=-1)
    determinant = (first * normal).sum(-1)
    return torch.where(determinant[:, None, None] < 0, corners[:, [0, 2, 1]], corners)


def _depth(barycentric: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """z / w (n,) of points with the coordinates (3, n) in triangles with the corners (xyzw, 3, n)."""
    return (barycentric * corners[2]).sum(0) / (barycentric * corners[3]).sum(0)


def _visible_triangles(clip: torch.Tensor, triangles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The number of the triangle that each pixel of each mesh shows, as (B * H * W,) int64, or -1.

    Of those that cover it the nearest one, and of several at the same depth the last.
    """
    corners = clip[:, triangles].flatten(0, 1)
    left, top, right, bottom = _boxes(corners, height, width)
    area = (right - left).clamp(min=0) * (bottom - top).clamp(min=0)
    area = torch.where((corners[..., 3] < 0).all(-1), 0, area)
    drawn = area.nonzero()[:, 0]
    area, boxes = area[drawn], torch.stack([left, top, right - left])[:, drawn]
    corners = _counter_clockwise(corners[drawn]).permute(2, 1, 0).contiguous()
    mesh, number = drawn // max(len(triangles), 1), drawn % max(len(triangles), 1)

    depths = torch.full((len(clip) * height * width,), torch.inf, device=clip.device)
    shown = torch.full_like(depths, -1)  # float32: Metal before macOS 15 has no maximum of integers
    for first, last in _chunks(area):
        # Each pixel of each box in this chunk: its triangle, and its column and row.
        repeats = area[first:last]
        triangle = torch.arange(first, last, device=clip.device).repeat_interleave(repeats)
        start = (repeats.cumsum(0) - repeats).repeat_interleave(repeats)
        place = torch.arange(len(triangle), device=clip.device) - start
        left, top, width_here = _selected(boxes, triangle)
        row = place // width_here
        column = place - row * width_here + left
        row = row + top

        x, y = _centres(column, width, clip.dtype), _centres(row, height, clip.dtype)
        edges = _edge_values(_selected(corners, triangle), x, y)
        inside = ((edges.amin(0) >= -EDGE_TOLERANCE) & (edges.amax(0) > 0)).nonzero()[:, 0]
        triangle, edges = triangle[inside], edges[:, inside]
        pixel = (mesh[triangle] * height + row[inside]) * width + column[inside]
        depth = _depth(edges / edges.sum(0), _selected(corners, triangle)).float()
        within = (depth >= -1) & (depth <= 1)
        pixel, depth, triangle = pixel[within], depth[within], triangle[within]

        before = depths.clone()
        depths.scatter_reduce_(0, pixel, depth, "amin")
        shown = torch.where(depths < before, -1, shown)
        nearest = depth == depths[pixel]
        shown.scatter_reduce_(0, pixel[nearest], number[triangle[nearest]].float(), "amax")
    return shown.long()


def _selected(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """values[..., index], which takes several times as long on a CPU."""
    rows = [row.index_select(0, index) for row in values.flatten(0, -2)]
    return torch.stack(rows).unflatten(0, values.shape[:-1])


def _boxes(corners: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Left, top, right and bottom (n,) of the pixels that triangles (n, 3, xyzw) may cover; the last two excluded.

    The whole image for a triangle that is not wholly in front of the camera.
    """
    in_front = (corners[..., 3] > 0).all(-1)
    bounds = []
    for axis, side in ((0, width), (1, height)):
        place = (corners[..., axis] / corners[..., 3] + 1) * (side / 2)
        low = torch.where(in_front, place.amin(-1).floor().clamp(0, side), 0)
        high = torch.where(in_front, place.amax(-1).ceil().clamp(0, side), side)
        bounds.append((low.long(), high.long()))
    (left, right), (top, bottom) = bounds
    return left, top, right, bottom


def _chunks(area: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Runs of triangles, first and last excluded, whose areas add up to as many candidates, or a little more."""
    candidates = CHUNK_CANDIDATES if area.device.type == "cpu" else ACCELERATOR_CANDIDATES
    counts = torch.bincount((area.cumsum(0) - 1) // candidates)
    first = 0
    for count in counts[counts > 0].tolist():
        yield first, first + count
        first += count
