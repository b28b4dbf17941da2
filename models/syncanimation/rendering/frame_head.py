"""The head's pixels of one picture, without gradients: samples in waves, so that rays end where the head is opaque."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .camera import Camera, Rays, rays
from .encodings import spherical_harmonics
from .fields import HeadField, bounded
from .marching import NEAREST, OPAQUE, STEP, Samples, march, occupied_box
from .tri_plane import plane_features

FAINT = 2e-5
"""Samples that add less to their pixel have no colour: of 16 of them nobody sees anything in 8 bits."""
_END = -math.log(OPAQUE / 2)
_CPU_WAVE, _CPU_RAYS = 4, 4096
"""Samples of a ray, and rays, that pass the networks at once; larger tensors leave a CPU's caches."""
_WAVE, _RAYS = 8, 2**17


class HeadPixels(NamedTuple):
    """Image (n, 3) on black and opacity (n,) of all pixels."""

    image: torch.Tensor
    opacity: torch.Tensor

    @classmethod
    def none(cls, background: torch.Tensor) -> HeadPixels:
        return cls(torch.zeros_like(background), torch.zeros_like(background[:, 0]))


@dataclass(frozen=True)
class PreparedHead:
    """The head's networks for one frame's audio and expression.

    What is constant in the frame is multiplied into the matrices: sigma_net's first layer takes the attention vectors
    as linear functions of the attention nets' hidden values, and color_net's first layer the geometry features as a
    linear function of sigma_net's.
    """

    field: HeadField
    layout: torch.Tensor | None
    tables: torch.Tensor
    attention: torch.Tensor  # (hidden, 36)
    direct: torch.Tensor  # (64, 36)
    attended: torch.Tensor  # (64, hidden)
    second: torch.Tensor  # (64, 64)
    density: torch.Tensor  # (64,)
    geometry: torch.Tensor  # (64, 64)
    harmonics: torch.Tensor  # (64, 16)
    constant: torch.Tensor  # (64,)
    colour: torch.Tensor  # (3, 64)

    def densities(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (n, 3) to density (n,) and the hidden values (n, 64) that the colour needs."""
        config = self.field.config.grid
        features = plane_features(points, self.tables, config, self.layout, compiled=self.field.compiled)
        features = features.to(self.direct.dtype)
        hidden = (features @ self.attention.T).relu_()
        values = torch.addmm(features @ self.direct.T, hidden, self.attended.T).relu_()
        values = (values @ self.second.T).relu_()
        return (values @ self.density).float().exp(), values

    def ray_terms(self, directions: torch.Tensor) -> torch.Tensor:
        """Directions (R, 3) to what they and the individual code add to color_net's hidden values, (R, 64)."""
        terms = spherical_harmonics(directions).to(self.harmonics.dtype) @ self.harmonics.T
        return terms + self.constant

    def colours(self, values: torch.Tensor, terms: torch.Tensor) -> torch.Tensor:
        """Hidden values and the rays' terms (n, 64) to colours (n, 3)."""
        hidden = torch.addmm(terms, values, self.geometry.T).relu_()
        return bounded((hidden @ self.colour.T).float())


def fast_dtype(device: torch.device) -> torch.dtype:
    """The type of numbers in which a device computes a picture's networks fastest, where pictures look the same.

    A picture in bfloat16 is at most about 1 of 255 levels from one in float32.
    """
    if device.type == "cuda":
        return torch.float16
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if device.type == "cpu" and has_bfloat16 and has_bfloat16() else torch.float32


def prepare_head(
    field: HeadField,
    audio: torch.Tensor,
    expression: torch.Tensor,
    code: torch.Tensor,
    dtype: torch.dtype = torch.float32,
) -> PreparedHead:
    """`audio` (1, 32), `expression` (1, 7) and `code` (1, 4) of the frame; the networks run in `dtype`."""
    features = 3 * field.config.grid.outputs
    first, second, last = field.sigma_net.parameters()
    split = [features, audio.shape[1], field.config.expressions]
    direct, by_audio, by_expression = first.split(split, 1)
    inner, outer = field.aud_ch_att_net.parameters()
    attention: list[torch.Tensor] = [inner]
    attended = [(by_audio * audio) @ outer]
    if field.config.expressions:
        inner, outer = field.eye_att_net.parameters()
        attention.append(inner)
        attended.append((by_expression * expression) @ outer)
    colour_first, colour_last = field.color_net.parameters()
    split = [colour_first.shape[1] - field.config.geometry - code.shape[1], field.config.geometry, code.shape[1]]
    harmonics, geometry, by_code = colour_first.split(split, 1)
    matrices = (
        torch.cat(attention),
        direct,
        torch.cat(attended, 1),
        second,
        last[0],
        geometry @ last[1:],
        harmonics,
        by_code @ code[0],
        colour_last,
    )
    return PreparedHead(field, field.layout(), field.tables, *(matrix.to(dtype) for matrix in matrices))


def render_head_pixels(
    head: PreparedHead, occupied: torch.Tensor, camera: Camera, pose: torch.Tensor, density_scale: float = 1.0
) -> HeadPixels:
    """All pixels of a camera; rays are cast where the occupied cells may be seen."""
    size = (camera.height, camera.width)
    image = torch.zeros(*size, 3, device=pose.device)
    opacity = torch.zeros(size, device=pose.device)
    top, bottom, left, right = visible_part(camera, pose, occupied_box(occupied))
    if bottom <= top or right <= left:
        return HeadPixels(image.view(-1, 3), opacity.flatten())
    rows = torch.arange(top, bottom, device=pose.device)[:, None]
    pixels = (rows * camera.width + torch.arange(left, right, device=pose.device)).flatten()
    view = rays(camera, pose, pixels)
    samples = march(view, occupied)
    shown, covered = composite_in_waves(head, view, samples, density_scale)
    image.view(-1, 3)[pixels] = shown
    opacity.view(-1)[pixels] = covered
    return HeadPixels(image.view(-1, 3), opacity.flatten())


def visible_part(camera: Camera, pose: torch.Tensor, box: torch.Tensor) -> tuple[int, int, int, int]:
    """First and last row and column, the last excluded, of the pixels that may see a box (6,)."""
    corners = torch.tensor(list(itertools.product(*box.view(2, 3).T.tolist())), device=pose.device)
    x, y, z = ((corners - pose[:3, 3]) @ pose[:3, :3]).unbind(1)
    if box[0] >= box[3]:
        return 0, 0, 0, 0
    if float(z.min()) <= NEAREST:
        return 0, camera.height, 0, camera.width
    column, row = x / z * camera.focal_x + camera.centre_x, y / z * camera.focal_y + camera.centre_y
    edges = []
    for place, length in ((row, camera.height), (column, camera.width)):
        low, high = float(place.min()), float(place.max())
        edges += [max(math.floor(low) - 1, 0), min(math.ceil(high) + 1, length)]
    return edges[0], edges[1], edges[2], edges[3]


class _Wave(NamedTuple):
    """The next few samples of rays that are not opaque yet.

    `numbers` (b,) are the samples' and `owner` (b,) their rays'. `weights` (b,) is what each adds to its pixel,
    `before` (b,) the light that reaches it, and `values` (b, 64) what its colour needs.
    """

    numbers: torch.Tensor
    owner: torch.Tensor
    weights: torch.Tensor
    before: torch.Tensor
    values: torch.Tensor


def _waves(head: PreparedHead, samples: Samples, density_scale: float) -> Iterator[_Wave]:
    wave, many = (_CPU_WAVE, _CPU_RAYS) if samples.counts.device.type == "cpu" else (_WAVE, _RAYS)
    count = samples.counts.long()
    first = count.cumsum(0) - count
    thickness = torch.zeros(len(count), device=count.device)
    steps = torch.arange(wave, device=count.device)
    for start in range(0, int(count.max()) if len(count) else 0, wave):
        alive = ((count > start) & (thickness < _END)).nonzero()[:, 0]
        for some in alive.split(many):
            slots = start + steps
            valid = slots < count[some, None]
            index = (first[some, None] + slots)[valid]
            density, values = head.densities(samples.points[index])
            thick = torch.zeros(valid.shape, device=count.device)
            thick[valid] = density * (STEP * density_scale)
            passed = F.pad(thick, (1, 0)).cumsum(1) + thickness[some, None]
            thickness[some] = passed[:, -1]
            before = torch.exp(-passed[:, :-1])[valid]
            weights = before * -torch.expm1(-thick[valid]) * (before >= OPAQUE)
            yield _Wave(index, some[:, None].expand_as(valid)[valid], weights, before, values)


def composite_in_waves(
    head: PreparedHead, view: Rays, samples: Samples, density_scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (R, 3) on black and opacity (R,) of rays."""
    image = torch.zeros_like(view.directions)
    opacity = torch.zeros_like(image[:, 0])
    terms = head.ray_terms(view.directions)
    for wave in _waves(head, samples, density_scale):
        opacity.index_add_(0, wave.owner, wave.weights)
        seen = (wave.weights > FAINT).nonzero()[:, 0]
        ray = wave.owner[seen]
        colour = head.colours(wave.values[seen], terms[ray])
        image.index_add_(0, ray, wave.weights[seen, None] * colour)
    return image, opacity


def until_opaque(head: PreparedHead, samples: Samples, density_scale: float = 1.0) -> torch.Tensor:
    """Which samples (m,) come before their ray's end, or so little behind that rounding may decide."""
    near = torch.zeros(len(samples.ray), dtype=torch.bool, device=samples.ray.device)
    for wave in _waves(head, samples, density_scale):
        near[wave.numbers] = wave.before >= OPAQUE / 2
    return near
