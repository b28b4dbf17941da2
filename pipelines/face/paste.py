"""Pastes rendered crops back over the frames they were cut from.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
import torch

from ...models.curves import smoothstep
from ..errors import TalkingPortraitError
from ..image.affine_sampling import invert_map, map_corners, sample_picture
from ..image.frame_workers import FrameWorkers
from ..progress import result_of
from ..types import Crop, Progress, no_progress

BorderColour = tuple[torch.Tensor, torch.Tensor]
"""Gain and shift of each channel."""
COLOUR_MEMORY = 0.8
"""How much of the colour correction of the frame before stays; new frames fade in, so that it can't flicker."""


def paste_back(
    frames: torch.Tensor,
    crop: Crop,
    source: torch.Tensor | None = None,
    *,
    feather: float = 0.1,
    mask: torch.Tensor | None = None,
    colour_match: float = 0.0,
    progress: Progress = no_progress,
) -> torch.Tensor:
    """All frames of `paste_frames` as one batch (N, H, W, C)."""
    source = crop.source if source is None else source
    total = len(frames)
    result: torch.Tensor | None = None
    for index, frame in enumerate(
        paste_frames(frames, crop, source, count=total, feather=feather, mask=mask, colour_match=colour_match)
    ):
        if result is None:
            result = torch.empty(total, *frame.shape, dtype=frame.dtype)
        result[index] = frame
        progress(index + 1, total)
    if result is None:
        raise TalkingPortraitError("There are no frames to paste back, but at least one is expected.")
    return result


def paste_frames(
    frames: Iterable[torch.Tensor],
    crop: Crop,
    source: torch.Tensor | None = None,
    *,
    count: int | None = None,
    feather: float = 0.1,
    mask: torch.Tensor | None = None,
    colour_match: float = 0.0,
) -> Iterator[torch.Tensor]:
    """Pastes frames (h, w, 3 or 4) into the pictures they were cut from, a few at once, in constant memory.

    `frames` may have another size than the crop, for instance after an upscaler; `count` is how many there are, if
    that is known, so that a mismatch raises at once. `source` (1 or N, H, W, C), by default the pictures in `crop`;
    grey gets three channels, and one picture is used for all frames. `feather` 0..0.5 is the width of the soft border
    over the crop's shorter side; a side of the crop that lies on or beyond the picture's edge has none. `mask` (h, w)
    or (1 or N, h, w) in 0..1 lets through only part of the crop, as a frame's alpha does. `colour_match` 0..1 brings
    the brightness and contrast of each channel to the picture's, judged in the border. Every pixel outside the mask is
    the source's, bit for bit; an alpha channel too.
    Raises TalkingPortraitError if the numbers of frames or the sizes don't fit.
    """
    source = crop.source if source is None else source
    if source is None:
        raise TalkingPortraitError("There is no picture to paste into; connect the pictures that were cropped.")
    if source.shape[-1] == 1:  # what is pasted may have colours
        source = source.expand(*source.shape[:-1], 3)
    _check_paste(crop, source, mask, count, feather, colour_match)
    border_colour: BorderColour | None = None
    pending: deque[Future[tuple[torch.Tensor, BorderColour | None]]] = deque()
    with FrameWorkers(torch.device("cpu")) as workers:
        # A colour correction follows from the frame before, so such frames go one after the other.
        at_once = 1 if colour_match > 0 else workers.size
        for index, frame in enumerate(frames):
            matrix = _of_frame(crop.matrix, index).copy()
            matrix[:, :2] *= np.array([crop.size[1] / frame.shape[1], crop.size[0] / frame.shape[0]])
            paste = partial(
                paste_frame,
                feather=feather,
                mask=mask if mask is None or mask.ndim == 2 else _of_frame(mask, index),
                colour_match=colour_match,
                border_colour=border_colour,
            )
            pending.append(workers.submit(paste, frame, _of_frame(source, index), matrix))
            if len(pending) == at_once:
                result, border_colour = result_of(pending.popleft())
                yield result
        while pending:
            yield result_of(pending.popleft())[0]


def paste_frame(
    frame: torch.Tensor,
    picture: torch.Tensor,
    matrix: np.ndarray,
    *,
    feather: float = 0.1,
    mask: torch.Tensor | None = None,
    colour_match: float = 0.0,
    border_colour: BorderColour | None = None,
) -> tuple[torch.Tensor, BorderColour | None]:
    """One frame (h, w, 3 or 4) pasted into a picture (H, W, 3 or 4), and the colour correction for the next frame.

    `matrix` (2, 3) leads from the frame's pixels to the picture's; `border_colour` is what the frame before gave. The
    rest is as in `paste_frames`.
    """
    picture = picture.detach().to("cpu", torch.float32)
    frame = frame.detach().to("cpu", torch.float32)
    part, to_frame = _covered_part(matrix, frame.shape[:2], picture.shape[:2])
    result = picture.clone()
    if part is not None:
        rows, columns = part
        size = (rows.stop - rows.start, columns.stop - columns.start)
        weight = _feathered(to_frame, size, frame.shape[:2], feather, matrix, picture.shape[:2])
        if mask is not None:
            weight = weight * _sampled_mask(mask, to_frame, size, frame.shape[:2])
        below = picture[rows, columns]
        above = sample_picture(frame, to_frame, size)
        if above.shape[-1] == 4:
            weight, above = weight * above[..., 3], above[..., :3]
        if colour_match > 0:
            border_colour = _remembered(border_colour, _border_colour(above, below[..., :3], weight))
            gain, shift = border_colour
            above = above + colour_match * (above * (gain - 1) + shift)
        result[rows, columns] = _blended(below, above.clamp(0, 1), weight)
    return result, border_colour


def _covered_part(
    matrix: np.ndarray, frame_size: tuple[int, ...], picture_size: tuple[int, ...]
) -> tuple[tuple[slice, slice] | None, np.ndarray]:
    """The rows and columns of the picture under the frame, and the map from their pixels to the frame's."""
    corners = map_corners(matrix, (frame_size[0], frame_size[1]))
    low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)), [picture_size[1], picture_size[0]]).astype(int)
    to_frame = invert_map(matrix)
    to_frame[:, 2] += to_frame[:, :2] @ low
    if (high <= low).any():
        return None, to_frame
    return (slice(low[1], high[1]), slice(low[0], high[0])), to_frame


def _feathered(
    to_frame: np.ndarray,
    size: tuple[int, int],
    frame_size: tuple[int, ...],
    feather: float,
    matrix: np.ndarray,
    picture_size: tuple[int, ...],
) -> torch.Tensor:
    """Weights (rows, columns) of the pasted frame: 1 inside, falling smoothly to 0 at its sides."""
    height, width = frame_size[:2]
    x = torch.arange(size[1], dtype=torch.float64) + 0.5
    y = torch.arange(size[0], dtype=torch.float64)[:, None] + 0.5
    (a, b, c), (d, e, f) = to_frame.tolist()
    u, v = a * x + b * y + c, d * x + e * y + f
    # Distances to the left, right, top and bottom side; a side beyond the picture's edge needs no soft border.
    corners = map_corners(matrix, (height, width))
    limit = np.array([picture_size[1], picture_size[0]], dtype=np.float64)
    ends = ((0, 2), (1, 3), (0, 1), (2, 3))
    soft = [not _beyond(corners[list(pair)], limit) for pair in ends]
    border = max(feather * min(height, width), 1e-6)
    weight = torch.ones(size, dtype=torch.float64)
    for distance, is_soft in zip((u, width - u, v, height - v), soft, strict=True):
        share = (distance / border).clamp(0, 1) if is_soft else (distance >= 0).double()
        weight = torch.minimum(weight, share)
    return smoothstep(0, 1, weight).float()


def _beyond(ends: np.ndarray, limit: np.ndarray) -> bool:
    """Whether a side lies on or beyond one edge of the picture, to half a pixel."""
    return bool((ends <= 0.5).all(axis=0).any() or (ends >= limit - 0.5).all(axis=0).any())


def _sampled_mask(
    mask: torch.Tensor, to_frame: np.ndarray, size: tuple[int, int], frame_size: tuple[int, ...]
) -> torch.Tensor:
    one = mask.detach().to("cpu", torch.float32)[..., None]
    to_mask = to_frame * np.array([[one.shape[1] / frame_size[1]], [one.shape[0] / frame_size[0]]])
    return sample_picture(one, to_mask, size)[..., 0]


def _border_colour(above: torch.Tensor, below: torch.Tensor, weight: torch.Tensor) -> BorderColour:
    """Gain and shift for each channel that bring the frame's border to the picture's mean and contrast."""
    share = (weight * (1 - weight))[..., None]
    total = share.sum().clamp(min=1e-6)

    def moments(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = (picture * share).sum(dim=(0, 1)) / total
        return mean, (((picture - mean) ** 2 * share).sum(dim=(0, 1)) / total).sqrt()

    (mean_above, contrast_above), (mean_below, contrast_below) = moments(above), moments(below)
    gain = ((contrast_below + 0.02) / (contrast_above + 0.02)).clamp(0.5, 2.0)
    return gain, mean_below - gain * mean_above


def _remembered(before: BorderColour | None, now: BorderColour) -> BorderColour:
    if before is None:
        return now
    return (
        torch.lerp(now[0], before[0], COLOUR_MEMORY),
        torch.lerp(now[1], before[1], COLOUR_MEMORY),
    )


def _of_frame(items: Any, index: int) -> Any:
    """The item of a frame; a single item is used for all frames."""
    if len(items) > 1 and index >= len(items):
        raise TalkingPortraitError(
            f"There are more than {len(items)} frames to paste, but only {len(items)} pictures, boxes or masks; "
            "give the frames of one and the same video."
        )
    return items[index if len(items) > 1 else 0]


def _blended(below: torch.Tensor, above: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`above` over the colours of `below`; where the weight is 0 the very same numbers."""
    colours = below[..., :3]
    mixed = torch.where(weight[..., None] > 0, torch.lerp(colours, above, weight[..., None]), colours)
    return torch.cat([mixed, below[..., 3:]], dim=-1)


def _check_paste(
    crop: Crop, source: torch.Tensor, mask: torch.Tensor | None, count: int | None, feather: float, colour_match: float
) -> None:
    if source.ndim != 4 or tuple(source.shape[1:3]) != tuple(crop.source_size) or source.shape[-1] not in (3, 4):
        raise TalkingPortraitError(
            f"The pictures to paste into come as {tuple(source.shape)}, but (frames, {crop.source_size[0]}, "
            f"{crop.source_size[1]}, 3 or 4), the size that was cropped, is expected; scale them to that, or crop them."
        )
    if mask is not None and (mask.ndim not in (2, 3) or 0 in mask.shape):
        raise TalkingPortraitError(
            f"The mask comes as {tuple(mask.shape)}, but (height, width) or (frames, height, width) is expected."
        )
    if not (0 <= feather <= 0.5 and 0 <= colour_match <= 1):
        raise TalkingPortraitError(
            f"The feather is {feather} and the colour match {colour_match}, but 0 to 0.5 and 0 to 1 are expected."
        )
    counts = {
        "pictures to paste into": len(source),
        "crop boxes": len(crop.matrix),
        "masks": len(mask) if mask is not None and mask.ndim == 3 else 1,
    }
    for what, number in counts.items():
        if count is not None and number not in (1, count):
            expected = "1" if count == 1 else f"1 or {count}"
            raise TalkingPortraitError(
                f"Frames to paste are {count} and {what} {number}, but {expected} is expected; "
                "give the frames of one and the same video."
            )
