"""Fills parts of a picture from what is around them: smooth parts by mean colours, structured ones by patches.

Patches are found as in "PatchMatch" (Barnes 2009) and averaged as in "Space-time completion" (Wexler 2007), at a low
resolution; the pixels themselves are then copied at the picture's own.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ..progress import check_interrupted
from .windows import grown, large_box_mean

LONGEST_SIDE, LEVELS = 256, 4
"""Pixels of the longer side at which patches are compared at last, and how often that is halved before."""
PATCH = 7
"""Pixels of a patch's side."""
ROUNDS = 4
"""How often patches are searched and averaged on each coarse level; once on the last."""
DEPTH = 0.13
"""How deep into what is covered patches go, over the longer side: a turning head uncovers no more."""
HEIGHT_WEIGHT = 0.05
"""Square colour difference that counts as much as a shift over the whole height: sky, sea and walls lie in layers."""
SEAM = 0.008, 0.02
"""Over the longer side, how wide the edge is at which what is copied is compared with what is there, and how far along
it the differences are averaged."""
SURE = 0.05
"""Part of the pixels around that are compared, from which their difference is taken as it is."""
COARSE, RELAXED = 128, 24
"""Pixels of the longer side up to which what is filled becomes the mean of its neighbours so many times, and seldomer
beyond: it goes on smoothly from what is next to it, whatever is far away."""
STRUCTURE_FROM = 0.012
"""Mean difference to the blurred picture around the head, of white, from which a background has structure."""


def filled_background(picture: torch.Tensor, known: torch.Tensor, *, patches: bool = True) -> torch.Tensor:
    """The picture (C, h, w) with what is not `known` (1, h, w), in 0..1, grown in from around.

    A fourth channel is how transparent it is: what is white for that alone is no structure. Without `patches` always by
    mean colours.
    """
    smooth = _mean_fill(picture, known)
    if not patches:
        return smooth
    height, width = picture.shape[1:]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = (max(PATCH, round(height * scale)), max(PATCH, round(width * scale)))
    certain = -F.adaptive_max_pool2d(-(known >= 0.99).float(), size)[0] > 0.5
    band = (grown(certain[None].float(), round(DEPTH * max(size)))[0] > 0.5) & ~certain
    if not band.any() or _structure(picture[:3], known * (1 - picture[3:].sum(dim=0)), size) < STRUCTURE_FROM:
        return smooth
    shifts = _best_shifts(picture, smooth, certain, band, size)
    if shifts is None:
        return smooth
    return _copied(picture, known, smooth, shifts, band)


def _mean_fill(picture: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """What is not known is filled with means of wider and wider surroundings: pull and push over a pyramid."""
    levels = [(picture * known, known)]
    while max(levels[-1][1].shape[1:]) > 1:
        colours, weight = (F.avg_pool2d(part[None], 2, ceil_mode=True)[0] for part in levels[-1])
        levels.append((colours, weight))
    colours, weight = levels[-1]
    filled = colours / weight if float(weight) > 0 else picture.mean(dim=(1, 2), keepdim=True)
    for colours, weight in reversed(levels[:-1]):
        check_interrupted()
        above = F.interpolate(filled[None], size=weight.shape[1:], mode="bilinear", align_corners=False)[0]
        share = (4 * weight).clamp(0, 1)
        own = colours / weight.clamp(min=1e-6) * share
        filled = own + above * (1 - share)
        for _ in range(int(RELAXED * min(1.0, COARSE / max(weight.shape[1:])) ** 2)):
            around = F.avg_pool2d(filled[None], 3, stride=1, padding=1, count_include_pad=False)[0]
            filled = own + around * (1 - share)
    return filled


def _structure(picture: torch.Tensor, known: torch.Tensor, size: tuple[int, int]) -> float:
    """Mean difference between the known part of the picture and its blurred self."""
    small = F.interpolate(picture[None], size=size, mode="area")
    weight = F.interpolate((known >= 0.99).float()[None], size=size, mode="area")
    blurred, share = (F.avg_pool2d(part, 9, stride=1, padding=4) for part in (small * weight, weight))
    inner = (weight > 0.99) & (share > 0.2)
    if not inner.any():
        return 0.0
    return float((small - blurred / share.clamp(min=1e-3)).abs().mean(dim=1, keepdim=True)[inner].mean())


def _best_shifts(
    picture: torch.Tensor, smooth: torch.Tensor, certain: torch.Tensor, band: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor | None:
    """How far away (2, rows, columns), down and right, the patch is that continues the background at each pixel.

    None where nothing known is large enough for a patch.
    """
    generator = torch.Generator().manual_seed(0)
    shifts: torch.Tensor | None = None
    estimate: torch.Tensor | None = None
    for level in reversed(range(LEVELS)):
        here = tuple(max(PATCH, math.ceil(side / 2**level)) for side in size)
        known, todo = (
            F.interpolate(mask[None, None].float(), size=here, mode="area")[0, 0] for mask in (certain, band)
        )
        known_here, todo_here = known > 0.999, (todo > 0) & (known <= 0.999)
        whole = -grown(-known_here[None].float(), PATCH // 2)[0] > 0.5
        edge = PATCH // 2
        whole[:edge], whole[-edge:], whole[:, :edge], whole[:, -edge:] = False, False, False, False
        if not whole.any() or not todo_here.any():
            continue
        small = F.interpolate(picture[None], size=here, mode="area")[0]
        guess = estimate if estimate is not None else smooth
        guess = F.interpolate(guess[None], size=here, mode="bilinear", align_corners=False)[0]
        estimate = torch.where(known_here, small, guess)
        search = _Search(whole, todo_here, shifts, generator)
        for _ in range(ROUNDS if level else 1):
            search.improve(estimate)
            estimate = search.averaged(estimate, known_here)
        shifts = search.shifts()
    if shifts is not None and shifts.shape[1:] != size:
        return None
    return shifts


class _Search:
    """The nearest patch of the known background for every pixel to fill, all pixels at once."""

    def __init__(
        self, whole: torch.Tensor, todo: torch.Tensor, coarser: torch.Tensor | None, generator: torch.Generator
    ) -> None:
        """`whole` and `todo` (h, w): where the middles of patches to take are, and pixels to fill."""
        self.whole, self.generator = whole, generator
        self.height, self.width = whole.shape
        self.rows, self.columns = todo.nonzero(as_tuple=True)
        self.order = torch.full(whole.shape, -1)
        self.order[self.rows, self.columns] = torch.arange(len(self.rows))
        self.sources = whole.flatten().nonzero()[:, 0]
        pick = torch.randint(len(self.sources), (len(self.rows),), generator=generator)
        self.best = self.sources[pick]
        if coarser is not None:
            finer = 2 * F.interpolate(coarser[None].float(), size=whole.shape, mode="nearest")[0].long()
            self._take(
                self._at(
                    self.rows + finer[0, self.rows, self.columns], self.columns + finer[1, self.rows, self.columns]
                )
            )

    def improve(self, estimate: torch.Tensor) -> None:
        """Searches anew with patches of `estimate` (C, h, w)."""
        half = PATCH // 2
        padded = F.pad(estimate[None], (half,) * 4, mode="replicate")
        self.patches = F.unfold(padded, PATCH)[0].t().contiguous()
        self.own = self.patches[self.rows * self.width + self.columns]
        self.cost = self._cost(self.best, torch.arange(len(self.best)))
        for jump in (8, 4, 2, 1):
            for down, right in ((0, jump), (0, -jump), (jump, 0), (-jump, 0)):
                self._follow(down, right)
        reach = max(self.height, self.width) // 2
        while reach >= 1:
            self._try_around(reach)
            reach //= 2
        self._try_along(rows=True)
        self._try_along(rows=False)

    def averaged(self, estimate: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """`estimate` (C, h, w) with the mean of all patches that cover a pixel, but where it is `known` (h, w)."""
        count = self.height * self.width
        columns = torch.zeros(count, self.patches.shape[1] + 1)
        weight = 1 / (self.cost + 1e-4)
        here = self.rows * self.width + self.columns
        columns[here, :-1], columns[here, -1] = self.patches[self.best] * weight[:, None], weight
        size, half = (self.height, self.width), PATCH // 2
        total = F.fold(columns[:, :-1].t()[None], size, PATCH, padding=half)[0]
        share = F.fold(columns[:, -1:].expand(-1, PATCH**2).t()[None], size, PATCH, padding=half)[0]
        return torch.where(known | (share[0] < 1e-3), estimate, total / share.clamp(min=1e-6))

    def shifts(self) -> torch.Tensor:
        """Shifts (2, h, w) to the best patch, 0 where nothing is filled."""
        field = torch.zeros(2, self.height, self.width, dtype=torch.long)
        field[0, self.rows, self.columns] = self.best // self.width - self.rows
        field[1, self.rows, self.columns] = self.best % self.width - self.columns
        return field

    def _at(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Flat places of pixels, -1 where there is no patch to take."""
        inside = (rows >= 0) & (rows < self.height) & (columns >= 0) & (columns < self.width)
        place = rows.clamp(0, self.height - 1) * self.width + columns.clamp(0, self.width - 1)
        return torch.where(inside & self.whole.flatten()[place], place, -1)

    def _take(self, candidates: torch.Tensor) -> None:
        self.best = torch.where(candidates >= 0, candidates, self.best)

    def _cost(self, places: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """How unlike the patches at flat places are to those of pixels to fill, by number."""
        height = (places // self.width - self.rows[pixels]) / self.height
        return (self.patches[places] - self.own[pixels]).square().mean(dim=1) + HEIGHT_WEIGHT * height.square()

    def _compare(self, candidates: torch.Tensor) -> None:
        ok = (candidates >= 0).nonzero()[:, 0]
        cost = self._cost(candidates[ok], ok)
        better = cost < self.cost[ok]
        self.best[ok[better]], self.cost[ok[better]] = candidates[ok[better]], cost[better]

    def _follow(self, down: int, right: int) -> None:
        """Tries the shift of the pixel that lies so far away."""
        rows, columns = self.rows + down, self.columns + right
        inside = (rows >= 0) & (rows < self.height) & (columns >= 0) & (columns < self.width)
        order = torch.where(inside, self.order[rows.clamp(0, self.height - 1), columns.clamp(0, self.width - 1)], -1)
        there = self.best[order.clamp(min=0)]
        candidates = self._at(there // self.width - down, there % self.width - right)
        self._compare(torch.where(order >= 0, candidates, -1))

    def _try_around(self, reach: int) -> None:
        """Tries random places around the best ones."""
        by = torch.randint(-reach, reach + 1, (2, len(self.best)), generator=self.generator)
        self._compare(self._at(self.best // self.width + by[0], self.best % self.width + by[1]))

    def _try_along(self, rows: bool) -> None:
        """Tries random places in the pixels' own rows or columns: horizons, door frames and shelves go on straight."""
        length = self.width if rows else self.height
        place = torch.randint(0, length, (len(self.best),), generator=self.generator)
        self._compare(self._at(self.rows, place) if rows else self._at(place, self.columns))


def _copied(
    picture: torch.Tensor, known: torch.Tensor, smooth: torch.Tensor, shifts: torch.Tensor, band: torch.Tensor
) -> torch.Tensor:
    """`smooth` (C, h, w), but pixels in `band` (rows, columns) are those that lie as far away as `shifts` say.

    Their colours are changed so that there is no step from those that are `known` (1, h, w) beside them.
    """
    from scipy.ndimage import distance_transform_edt

    height, width = picture.shape[1:]
    rows, columns = band.shape
    # What pixels just outside would be, copied from as far away as their neighbours, is compared with what they are.
    nearest = torch.from_numpy(distance_transform_edt(~band.numpy(), return_distances=False, return_indices=True))
    shifts = shifts[:, nearest[0].long(), nearest[1].long()]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    row, column = (y * rows // height).clamp(max=rows - 1), (x * columns // width).clamp(max=columns - 1)
    down = (y + (shifts[0, row, column] * (height / rows)).round().long()).clamp(0, height - 1)
    right = (x + (shifts[1, row, column] * (width / columns)).round().long()).clamp(0, width - 1)
    copied = picture[:, down, right]
    near, along = (max(1, round(share * max(height, width))) for share in SEAM)
    rim = known * known[:, down, right] * grown(1 - known, near)
    weight = large_box_mean(rim, along)
    step = large_box_mean((picture - copied) * rim, along) / weight.clamp(min=1e-6)
    copied = (copied + _mean_fill(step, (weight / SURE).clamp(max=1))).clamp(0, 1)
    covered = F.interpolate(band[None, None].float(), size=(height, width), mode="bilinear", align_corners=False)[0]
    return torch.lerp(smooth, copied, covered)
