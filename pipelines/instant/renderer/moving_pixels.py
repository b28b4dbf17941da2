"""The pixels that a motion can reach, and how they get their colours: the renderer's inner loop.

Only these pixels are computed, as one flat list. Displacement fields stay on their small grids and are scaled there to
the units of the next step, so that each pixel costs three samplings and a few additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch

from .warp import Grid, Layer, bilinear

MOVED = 1 / 256
"""Pixels of displacement from which a pixel counts as moved."""


@dataclass(frozen=True)
class MovingPixels:
    """N pixels of a picture, row by row.

    `index` (N,) in the flattened picture. `in_head`, `in_skin`, `in_layer` (2, N): their places in the -1..1
    coordinates of both fields' grids and of the layer. `backdrop` (3 or 4, N): what is visible where the head has
    left. `covered` (N,) bool: whether the head, or a wisp of it, is there in the picture.
    """

    index: torch.Tensor
    in_head: torch.Tensor
    in_skin: torch.Tensor
    in_layer: torch.Tensor
    backdrop: torch.Tensor
    covered: torch.Tensor

    @classmethod
    def of(
        cls,
        mask: torch.Tensor,
        left: int,
        top: int,
        width: int,
        head: Grid,
        skin: Grid,
        layer: Layer,
        backdrop: torch.Tensor,
        covered: torch.Tensor,
    ) -> MovingPixels:
        """The pixels of a box whose `mask` (h, w) is set.

        The box has its upper left corner at (`left`, `top`) of a picture `width` pixels wide; `backdrop`
        (3 or 4, h, w), `covered` (h, w).
        """
        rows, columns = mask.nonzero(as_tuple=True)
        places = torch.stack([columns + left + 0.5, rows + top + 0.5], dim=-1)
        return cls(
            index=(rows + top) * width + columns + left,
            in_head=head.normalised(places).t().contiguous(),
            in_skin=skin.normalised(places).t().contiguous(),
            in_layer=layer.normalised(places).t().contiguous(),
            backdrop=backdrop[:, rows, columns].contiguous(),
            covered=covered[rows, columns],
        )

    def sources(
        self, layer: Layer, head: torch.Tensor, skin: torch.Tensor, light: torch.Tensor, skin_grid: Grid
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Displacements (2, N), in the layer's coordinates, from each pixel to where its colour comes from.

        Also the factors (N,) of that colour. `head` and `skin` are backward fields (1, 2, rows, columns), `light`
        (1, 1, rows, columns) is how much of the skin's brightness is added; the head's motion is undone first.
        """
        to_layer = layer.scale(head)
        shift = _sample(head * to_layer.view(1, 2, 1, 1), self.in_head)
        in_skin = torch.addcmul(self.in_skin, shift, (skin_grid.scale(head) / to_layer)[:, None])
        of_skin = _sample(torch.cat([skin * to_layer.view(1, 2, 1, 1), light], dim=1), in_skin)
        return shift.add_(of_skin[:2]), of_skin[2] + 1

    def colours(self, layer: Layer, sources: torch.Tensor, light: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Colours (3 or 4, N) in 0..1 from displacements (2, N) in a `light` (N,), and which pixels (N,) they change.

        A pixel changes when it samples another place than its own and the head is, or was, visible there.
        """
        values = layer.at((self.in_layer + sources).t()[None, None])[0, :, 0]
        least_x, least_y = (MOVED * layer.scale(sources)).tolist()
        across, down = sources.abs()
        # As `values.any(dim=0)`, which takes three times as long.
        there = reduce(torch.maximum, values.abs()) > 0
        changed = ((across > least_x) | (down > least_y)) & (self.covered | there)
        if len(self.backdrop) == 4:  # light changes no alpha
            light = torch.stack([light, light, light, torch.ones_like(light)])
        head = torch.addcmul(self.backdrop, values[:-1], light)
        return torch.addcmul(head, values[-1:], self.backdrop, value=-1).clamp_(0, 1), changed

    def of_picture(self, picture: torch.Tensor) -> torch.Tensor:
        """Their colours (C, N) in a picture (H, W, C)."""
        return picture.view(-1, picture.shape[-1])[self.index].t().contiguous()


def _sample(field: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return bilinear(field, places.t()[None, None])[0, :, 0]
