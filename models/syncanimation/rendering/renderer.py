"""A person's renderer: head, torso and their grids, and the pixels that a camera sees of them.

`render_head` and `render_torso` give what the losses compare, with gradients. `render_frame` gives whole pictures and
computes no more than they need.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from .camera import Camera, Rays, pixel_coordinates, widened_coordinates
from .fields import HeadConfig, HeadField, TorsoConfig, TorsoField
from .frame_head import HeadPixels, prepare_head, render_head_pixels, until_opaque
from .marching import BOX, Samples, add_up, composite, march
from .occupancy import OccupancyGrid, TorsoOccupancy, cell_places

_CELLS_AT_ONCE = 2**14
VISIBLE = 1 - 1e-4
"""Opacity of the head from which on nothing is rendered behind it."""
PRUNED = 0.6
"""Part of the samples that counted in the last call, below which hidden ones are looked for and left out."""


class HeadRender(NamedTuple):
    """What n rays show of the head before a background, and what the losses of its training take.

    `image` (n, 3) in 0..1; `opacity`, `depth`, `ambient_audio`, `ambient_expression` and `uncertainty` (n,);
    `points` (m, 3) are all samples, without gradient.
    """

    image: torch.Tensor
    opacity: torch.Tensor
    depth: torch.Tensor
    ambient_audio: torch.Tensor
    ambient_expression: torch.Tensor
    uncertainty: torch.Tensor
    points: torch.Tensor


class TorsoRender(NamedTuple):
    """Image (n, 3) in 0..1 with its background, alpha (n, 1), and how far coordinates were moved (n, 2)."""

    image: torch.Tensor
    alpha: torch.Tensor
    offset: torch.Tensor


class FrameRender(NamedTuple):
    """Image (H, W, 3) in 0..1, and what of it is head and torso, (H, W) in 0..1 each."""

    image: torch.Tensor
    head_opacity: torch.Tensor
    torso_alpha: torch.Tensor


class Renderer(nn.Module):
    """Head and torso of one person. `pose` is always a renderer's pose (4, 4), see `camera.renderer_pose`."""

    def __init__(self, head: HeadField | None = None, torso: TorsoField | None = None) -> None:
        super().__init__()
        self.head = head or HeadField(HeadConfig())
        self.torso = torso or TorsoField(TorsoConfig())
        self.occupancy, self.torso_occupancy = OccupancyGrid(), TorsoOccupancy()
        self._counted = 1.0

    def render_head(
        self,
        view: Rays,
        audio: torch.Tensor,
        expression: torch.Tensor,
        background: torch.Tensor,
        *,
        code: int = 0,
        noise: torch.Tensor | None = None,
        density_scale: float = 1.0,
    ) -> HeadRender:
        """Renders n rays with gradients.

        Args:
            audio: code (1, 32) of `HeadField.encode_audio`.
            expression: (1, 7)
            background: colours (n, 3) in 0..1; in training the frame's torso over the clean background.
            code: row of the individual codes, a training frame's number; 0 in driving.
            noise: part of a step (n,) in 0..1 by which each ray's samples are moved on; in training only.
            density_scale: what densities are multiplied by.
        """
        samples = march(view, self.occupancy.occupied(), noise)
        marched = max(len(samples.ray), 1)
        if self._counted < PRUNED:
            samples = self._without_hidden(samples, audio, expression, density_scale)
        found = self.head(
            samples.points,
            view.directions[samples.ray],
            audio,
            expression,
            self.head.individual_codes[code : code + 1],
        )
        pixels = composite(samples, found.density * density_scale, found.colour)
        image = pixels.image + (1 - pixels.opacity)[:, None] * background
        self._counted = float(pixels.reached.sum()) / marched
        return HeadRender(
            image.clamp(0, 1),
            pixels.opacity,
            pixels.depth,
            add_up(samples, found.ambient_audio * pixels.reached),
            add_up(samples, found.ambient_expression * pixels.reached),
            add_up(samples, found.uncertainty * pixels.weights),
            samples.points.detach(),
        )

    @torch.no_grad()
    def _without_hidden(
        self, samples: Samples, audio: torch.Tensor, expression: torch.Tensor, density_scale: float
    ) -> Samples:
        """Leaves out samples behind their ray's end, which add nothing to any result nor gradient.

        To find them costs a fifth of what it costs to compute all of them with gradients.
        """
        head = prepare_head(self.head, audio, expression, self.head.individual_codes[:1])
        return samples.select(until_opaque(head, samples, density_scale))

    def render_torso(
        self,
        coordinates: torch.Tensor,
        pose: torch.Tensor,
        background: torch.Tensor,
        *,
        code: int = 0,
        known: torch.Tensor | None = None,
    ) -> TorsoRender:
        """Renders n places of `pixel_coordinates` over colours (n, 3), with gradients, the pose's too.

        Alpha and offset are 0 where the torso's grid is empty, but for places that are `known` (n,) to show it.
        """
        shown = self.torso_occupancy.occupied(coordinates)
        places = (shown if known is None else shown | known).nonzero()[:, 0]
        found = self.torso(coordinates[places], pose, self.torso.individual_codes_torso[code : code + 1])
        alpha = coordinates.new_zeros(len(coordinates), 1).index_copy(0, places, found.alpha.float())
        colour = coordinates.new_zeros(len(coordinates), 3).index_copy(0, places, found.colour.float())
        offset = coordinates.new_zeros(len(coordinates), 2).index_copy(0, places, found.offset.float())
        return TorsoRender(colour * alpha + background * (1 - alpha), alpha, offset)

    @torch.no_grad()
    def render_frame(
        self,
        camera: Camera,
        pose: torch.Tensor,
        audio: torch.Tensor,
        expression: torch.Tensor,
        background: torch.Tensor,
        *,
        code: int = 0,
        torso_scale: float = 1.0,
        torso: bool = True,
        head: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> FrameRender:
        """Renders one picture over the background (H, W, 3).

        `torso_scale` above 1 shows a smaller person, with more around, whose body stays on the picture's lower edge.
        `head` and `torso` leave a part out. The head's networks run in `dtype`; see `frame_head.fast_dtype`.
        Arguments otherwise as in `render_head`.
        """
        view = camera.widened(torso_scale)
        size = (camera.height, camera.width)
        background = background.reshape(-1, 3)
        alpha = torch.zeros(len(background), 1, device=background.device)
        front = self._head_pixels(view, pose, audio, expression, code, dtype) if head else HeadPixels.none(background)
        behind = background
        if torso:
            places = (front.opacity < VISIBLE).nonzero()[:, 0]
            coordinates = widened_coordinates(pixel_coordinates(camera, places), torso_scale)
            shown = self.render_torso(coordinates, pose, background[places], code=code)
            behind = background.index_copy(0, places, shown.image)
            alpha = alpha.index_copy(0, places, shown.alpha)
        image = (front.image + (1 - front.opacity)[:, None] * behind).clamp(0, 1)
        return FrameRender(image.view(*size, 3), front.opacity.view(size), alpha.view(size))

    def _head_pixels(
        self,
        camera: Camera,
        pose: torch.Tensor,
        audio: torch.Tensor,
        expression: torch.Tensor,
        code: int,
        dtype: torch.dtype,
    ) -> HeadPixels:
        prepared = prepare_head(self.head, audio, expression, self.head.individual_codes[code : code + 1], dtype)
        return render_head_pixels(prepared, self.occupancy.occupied(), camera, pose)

    @torch.no_grad()
    def update_occupancy(
        self,
        audio: torch.Tensor,
        expression: torch.Tensor,
        *,
        part: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Measures the head's density at random places of `part` of the cells, for the audio and expression of a frame.

        Published: every 16 iterations, all cells, a random frame. `part` may be 1, 1/8 or 1/27.
        """
        cells = self.occupancy.lattice(part, generator)
        head = prepare_head(self.head, audio, expression, self.head.individual_codes[:1])
        found = []
        for some in cells.split(_CELLS_AT_ONCE):
            noise = torch.rand(len(some), 3, generator=generator).to(cells.device)
            found.append(head.densities(cell_places(some, noise))[0])
        if found:
            self.occupancy.update(cells, torch.cat(found))

    @torch.no_grad()
    def update_torso_occupancy(
        self, pose: torch.Tensor, *, code: int = 0, generator: torch.Generator | None = None
    ) -> None:
        """Measures the torso's alpha everywhere for the pose of a frame, at random places of the grid's cells."""
        codes = self.torso.individual_codes_torso[code : code + 1]
        self.torso_occupancy.update(self.torso(self.torso_occupancy.places(generator), pose, codes).alpha)

    def mark_unseen(self, camera: Camera, poses: torch.Tensor) -> None:
        """Leaves out what no camera of the renderer's poses (N, 4, 4) sees; once, before the head's training."""
        self.occupancy.mark_unseen(camera, poses, BOX)
