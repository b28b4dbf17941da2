"""Restores faces of pictures and videos: cut out in the alignment of the network's training, sharpened, pasted back.

The alignment is FFHQ's: two eyes, nose and the corners of the mouth at fixed places of a square. In a video the cut
moves as smoothly as the head in spite of jitter in the landmarks, because a network invents other pores in each frame
that is a little shifted.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from ...models.face.face_mesh import FACE_OVAL, LEFT_EYE, NOSE_TIP, OUTER_MOUTH_CORNERS, RIGHT_EYE
from ...models.gfpgan import GFPGAN
from ..errors import TalkingPortraitError
from ..finite import check_finite
from ..image.affine_sampling import apply_map, box_map, invert_map, over_white, sample_picture
from ..memory import HalvingBatches, Managed, loaded
from ..progress import share
from ..types import FaceTrack, Progress, no_progress
from .face import Landmarker
from .face_tracking import NoFaceError
from .landmarks import detect, detect_all, open_landmarker
from .paste import BorderColour, paste_frame
from .smoothing import average_over_time

TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""The eye on the picture's left, that on its right, tip of the nose, mouth corners left and right, in 512 x 512 pixels.

Source: the FFHQ mean face that GFPGAN's training pictures were aligned to.
"""
TEMPLATE_SIDE = 512
MOST_FACES = 16
"""Tracked at once, when all are to be restored."""
MOST_SMOOTHING = 1000
"""Beyond any clip's length it would average the same frames."""
FINDING = 0.4
"""Of the work, what detecting faces takes."""
CUT = 0.5
"""A face that jumps by this part of its cut's side from one frame to the next is in another shot."""
OVAL_GROWTH = 1.06
"""How much larger than the landmarks' outline the pasted part is."""
OVAL_SOFTNESS = 0.04
"""Spread of the soft edge, over the cut's side."""


@dataclass(frozen=True)
class RestoreReport:
    """How many of `frames` had a face that was restored, and how many were passed through as they came."""

    frames: int
    restored: int

    def __str__(self) -> str:
        if self.restored == self.frames:
            return f"A face was restored in all {self.frames} frames."
        return (
            f"A face was restored in {self.restored} of {self.frames} frames; the others show none and are unchanged."
        )


def report_on(tracks: Sequence[FaceTrack], frames: int) -> RestoreReport:
    """Counts of what `restored_frames` does with these tracks."""
    found = np.zeros(frames, dtype=bool)
    for track in tracks:
        found |= np.broadcast_to(track.found, frames)
    return RestoreReport(frames, int(found.sum()))


def alignment(track: FaceTrack, smoothing: float = 1.0) -> np.ndarray:
    """Maps (F, 2, 3) from the pixels of a 512 x 512 cut to the picture's, by turning, scaling and shifting alone.

    `smoothing`: 0 takes each frame by itself; 1 averages over about three frames on either side, not beyond a cut.
    """
    anchors = np.stack([_anchors(points) for points in track.points])
    middle, template = anchors.mean(axis=1, keepdims=True), TEMPLATE - TEMPLATE.mean(axis=0)
    # As complex numbers, the similarity with the least squared error is one division.
    wanted = template[:, 0] + 1j * template[:, 1]
    points = (anchors - middle) @ np.array([1, 1j])
    turn = (points @ wanted.conj()) / (np.abs(wanted) ** 2).sum()
    values = np.column_stack([turn.real, turn.imag, middle[:, 0]])
    if smoothing > 0:
        for shot in _shots(values):
            values[shot] = average_over_time(values[shot], 3 * smoothing)
    a, b = values[:, 0], values[:, 1]
    linear = np.stack([np.stack([a, -b], axis=-1), np.stack([b, a], axis=-1)], axis=1)
    return np.concatenate([linear, (values[:, 2:] - linear @ TEMPLATE.mean(axis=0))[..., None]], axis=-1)


def _anchors(points: np.ndarray) -> np.ndarray:
    """(5, 2) of the template's points in landmarks (P, 3)."""
    eyes = [points[list(ring), :2].mean(axis=0) for ring in (RIGHT_EYE, LEFT_EYE)]
    return np.stack([*eyes, points[NOSE_TIP, :2], *points[list(OUTER_MOUTH_CORNERS), :2]])


def _shots(values: np.ndarray) -> list[slice]:
    """Runs of frames without a jump."""
    side = np.hypot(values[:-1, 0], values[:-1, 1]) * TEMPLATE_SIDE
    jumps = np.linalg.norm(np.diff(values[:, 2:], axis=0), axis=1) > CUT * side
    ends = [0, *(np.flatnonzero(jumps) + 1), len(values)]
    return [slice(start, end) for start, end in zip(ends, ends[1:], strict=False)]


def restore_faces(
    images: torch.Tensor,
    tracks: Sequence[FaceTrack] | None,
    network: Managed,
    *,
    landmarker: Callable[[], Landmarker] = open_landmarker,
    all_faces: bool = False,
    strength: float = 1.0,
    batch: int = 4,
    smoothing: float = 1.0,
    colour_match: float = 0.5,
    enlarge: float = 1.0,
    progress: Progress = no_progress,
) -> tuple[Iterator[torch.Tensor], RestoreReport]:
    """`restored_frames`, and in how many pictures there is a face.

    Args:
        tracks: of the faces in `images`, or None: they are detected here, after everything else was checked.
        landmarker: opens the engine for that.
        all_faces: detect up to `MOST_FACES`, and not only the one nearest to the middle.
    """
    _check(images, tracks or (), strength, enlarge, smoothing)
    if tracks is None:
        tracks = _detected(images, landmarker(), all_faces, share(progress, 0.0, FINDING))
        progress = share(progress, FINDING, 1.0)
    frames = restored_frames(
        images,
        tracks,
        network,
        strength=strength,
        batch=batch,
        smoothing=smoothing,
        colour_match=colour_match,
        enlarge=enlarge,
        progress=progress,
    )
    return frames, report_on(tracks, len(images))


def _detected(images: torch.Tensor, engine: Landmarker, all_faces: bool, progress: Progress) -> list[FaceTrack]:
    def show(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        progress(done, total, over_white(images[max(done, 1) - 1]))

    if all_faces:
        return detect_all(images, engine, most=MOST_FACES, progress=show)
    try:
        return [detect(images, engine, choose="nearest", progress=show)[0]]
    except NoFaceError:
        return []


def restored_frames(
    images: torch.Tensor,
    tracks: Sequence[FaceTrack],
    network: Managed,
    *,
    strength: float = 1.0,
    batch: int = 4,
    smoothing: float = 1.0,
    colour_match: float = 0.5,
    enlarge: float = 1.0,
    progress: Progress = no_progress,
) -> Iterator[torch.Tensor]:
    """Pictures (H, W, C) one by one, their faces restored; a frame without a face comes as it is.

    Args:
        images: (F, H, W, 3 or 4) in 0..1.
        tracks: the faces in them, each of F frames, or of one for all.
        network: a GFPGAN.
        strength: 0..1, weight of the restored face.
        batch: faces that pass the network at once; fewer where memory does not suffice.
        smoothing: of the cut over time, see `alignment`.
        colour_match: 0..1, brings the restored face to the brightness and contrast that the picture has round it.
        enlarge: 1..4, the pictures' growth; the restored faces keep what detail the network gave.

    Raises TalkingPortraitError when tracks and pictures do not belong together, and for values out of range.
    """
    _check(images, tracks, strength, enlarge, smoothing)
    frames = len(images)
    maps = [np.broadcast_to(alignment(track, smoothing), (frames, 2, 3)) for track in tracks]
    shrinking = HalvingBatches(batch, "face")
    side = cast(GFPGAN, network.module).config.size
    colours: list[BorderColour | None] = [None] * len(tracks)
    for start in range(0, frames, batch):
        numbers = range(start, min(start + batch, frames))
        wanted = [
            (number, face)
            for number in numbers
            for face, track in enumerate(tracks)
            if track.found[number if track.frames > 1 else 0]
        ]
        cut = [_cut(images[number], maps[face][number], side) for number, face in wanted]
        results = iter(_restored(torch.stack(cut), network, shrinking) if cut else ())
        for number in numbers:
            picture = _enlarged(images[number].detach().to("cpu", torch.float32), enlarge)
            for _, face in (one for one in wanted if one[0] == number):
                matrix = maps[face][number] * enlarge
                mask = strength * _face_mask(tracks[face], number, maps[face][number], side)
                picture, colours[face] = paste_frame(
                    next(results),
                    picture,
                    _at_side(matrix, side),
                    feather=0.05,
                    mask=mask,
                    colour_match=colour_match,
                    border_colour=colours[face],
                )
            progress(number + 1, frames, over_white(picture))
            yield picture


def _at_side(matrix: np.ndarray, side: int) -> np.ndarray:
    """A map of the template's pixels as one of the network's."""
    return np.column_stack([matrix[:, :2] * (TEMPLATE_SIDE / side), matrix[:, 2]])


def _cut(picture: torch.Tensor, matrix: np.ndarray, side: int) -> torch.Tensor:
    """The aligned face (3, side, side) in -1..1."""
    cut = sample_picture(over_white(picture).detach().to("cpu", torch.float32), _at_side(matrix, side), (side, side))
    return cut.permute(2, 0, 1) * 2 - 1


def _restored(faces: torch.Tensor, network: Managed, shrinking: HalvingBatches) -> torch.Tensor:
    """(B, S, S, 3) in 0..1."""

    @torch.no_grad()
    def work(start: int, end: int) -> torch.Tensor:
        restorer, device = loaded(network, GFPGAN)
        dtype = next(restorer.parameters()).dtype
        result = restorer(faces[start:end].to(device, dtype)).to("cpu", torch.float32)
        check_finite(result, "The face restorer", "its file is damaged, or it needs float32")
        return (result.clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 1)

    return torch.cat(list(shrinking.each(len(faces), work)))


def _face_mask(track: FaceTrack, number: int, matrix: np.ndarray, side: int) -> torch.Tensor:
    """(side / 4, side / 4) in 0..1: the face's outline in the cut, grown a little, with a soft edge."""
    from PIL import Image, ImageDraw

    points = track.points[number if track.frames > 1 else 0][list(FACE_OVAL), :2]
    small = max(side // 4, 1)
    outline = apply_map(invert_map(matrix), points) * (small / TEMPLATE_SIDE)
    centre = outline.mean(axis=0)
    outline = centre + (outline - centre) * OVAL_GROWTH
    shape = Image.new("L", (small, small))
    ImageDraw.Draw(shape).polygon([tuple(point) for point in outline.tolist()], fill=255)
    filled = torch.from_numpy(np.asarray(shape, dtype=np.float32) / 255)
    return _blurred(filled, OVAL_SOFTNESS * small)


def _blurred(mask: torch.Tensor, spread: float) -> torch.Tensor:
    reach = int(np.ceil(3 * spread))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(spread, 1e-3)) ** 2)
    weights = weights / weights.sum()
    rows = F.conv2d(mask[None, None], weights[None, None, None], padding=(0, reach))
    return F.conv2d(rows, weights[None, None, :, None], padding=(reach, 0))[0, 0]


def _enlarged(picture: torch.Tensor, enlarge: float) -> torch.Tensor:
    if enlarge == 1:
        return picture
    height, width = picture.shape[:2]
    size = (round(height * enlarge), round(width * enlarge))
    return sample_picture(picture, box_map(0, 0, width, height, size), size)


def _check(
    images: torch.Tensor, tracks: Sequence[FaceTrack], strength: float, enlarge: float, smoothing: float
) -> None:
    if not (0 <= strength <= 1 and 1 <= enlarge <= 4):
        raise TalkingPortraitError(
            f"The strength is {strength} and the enlargement {enlarge}, but 0 to 1 and 1 to 4 are expected."
        )
    if not 0 <= smoothing <= MOST_SMOOTHING:
        raise TalkingPortraitError(f"The smoothing is {smoothing}, but 0 to {MOST_SMOOTHING} is expected; 1 is usual.")
    for track in tracks:
        track.check_pictures(images)
