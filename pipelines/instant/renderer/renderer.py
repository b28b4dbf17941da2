"""Instant's renderer: frames of one picture whose face is warped by a face motion.

Everything that depends on the portrait alone is computed once. For each batch of frames the head's motion and the
expression become displacement fields on small grids, the fields are interpolated at the pixels of the moving box, and
the picture is sampled there once; mouth and eyes are painted over in their own small boxes. Pixels outside the moving
box are the picture's own.

What numbers without a source were tuned on is not recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, repeat

import numpy as np
import torch

from ...errors import TalkingPortraitError
from ...finite import all_finite
from ...image.affine_sampling import LEAST_ALPHA, over_white
from ...image.frame_workers import FrameWorkers
from ...progress import check_interrupted, result_of
from ...types import FaceMotion, FaceTrack, Progress, no_progress
from ..source_check import check_upright
from .expression_field import ExpressionField
from .eyes.eyelids import eyelids
from .face_light import FaceLight
from .head_field import HeadField
from .head_matte import HeadMatte
from .lips import Lips
from .moving_pixels import MovingPixels
from .picture_style import PictureStyle
from .portrait_mesh import PortraitMesh, PoseAndShape
from .warp import Layer, sample_field

FIELD_BATCH = 8
"""Frames whose displacement fields are computed together."""
BATCH_PIXELS = 16_000_000
"""Pixels of all frames of a batch, where the caller sets no batch size."""
MIN_REACH = 8.0
"""Pixels of displacement that the first list of moving pixels allows for, at least."""
MIN_BOX = 3
"""Sides of the smallest box that is painted, where a head has left the picture: slopes need neighbours."""
MIN_CLOSURE = 3e-3
"""Eye closures below this leave the lids as they are: they would move by a twentieth of a pixel."""


@dataclass(frozen=True)
class FrameFields:
    """One frame's shape and its backward fields (1, 2, rows, columns) on the head's and the skin's grids.

    `moved_head` is the head's forward field. `head_reach` and `skin_reach` are how far in pixels, at most, either moves
    anything here and in near frames. `light` (1, 1, rows, columns) on the skin's grid is the part of its brightness
    that moved skin gains.
    """

    shape: PoseAndShape
    moved_head: torch.Tensor
    head: torch.Tensor
    upper: torch.Tensor
    lower: torch.Tensor
    skin: torch.Tensor
    light: torch.Tensor
    head_reach: float
    skin_reach: float


class InstantRenderer:
    """Animates one portrait.

    Args:
        image: the portrait (H, W, 3 or 4), float in 0..1; the fourth channel is alpha.
        track: one frame of landmarks in that picture; with several faces in it, only this one moves.
        device: where to render.
        eyes: whether lids and eyes are prepared, which takes a while in a large picture; without, they stay.

    Raises:
        TalkingPortraitError: when picture and landmarks do not belong together or hold no face, and for a picture
            that is upside down.
    """

    def __init__(
        self, image: torch.Tensor, track: FaceTrack, *, device: torch.device | str = "cpu", eyes: bool = True
    ) -> None:
        image = _checked(image, track)
        self.transparent = image.shape[-1] == 4 and bool((image[..., 3] < 1).any())
        """Whether something of the picture is transparent."""
        image = _without_hidden_colours(image) if self.transparent else image[..., :3].contiguous()
        self.device = torch.device(device)
        self.image = image.to(self.device)
        self.image_uint8 = (self.image * 255).round().to(torch.uint8)
        self.mesh = PortraitMesh(track)
        check_upright(self.mesh)
        self.head = HeadField(self.mesh, self.device)
        self.skin = ExpressionField(self.mesh, self.device)
        picture = image[..., :3].numpy()
        style = PictureStyle.of(picture, self.mesh.points, self.mesh.eye_distance)
        self.light = FaceLight(picture, self.mesh)
        check_interrupted()
        self.lips = Lips(picture, self.mesh, self.skin, style, self.device)
        left, top, right, bottom = self.head.box
        inside = image[top:bottom, left:right].permute(2, 0, 1)
        cut_out = inside[3:] if self.transparent else None
        shown = over_white(image)
        matte = HeadMatte(shown.numpy(), self.mesh, self.head.box, cut_out)
        self.head.hold_at_edges(matte.alpha.to(self.device))
        self.head.weight *= matte.motion_share
        backdrop = matte.backdrop
        check_interrupted()
        if self.transparent:
            # Both from what lies over white, so that they are equal, to the last bit, where there is no head.
            inside = _premultiplied(shown[top:bottom, left:right].permute(2, 0, 1), 1 - inside[3:])
            backdrop = _premultiplied(backdrop, matte.clear)
        self.backdrop = backdrop.to(self.device)
        """(3 or 4, h, w): the moving box without the head, premultiplied with its alpha where it has one."""
        self.layer = self._layer(inside - (1 - matte.alpha) * backdrop, matte.alpha)
        """The head, premultiplied with alpha and with its matte, and the matte: 4 or 5 channels of the moving box."""
        check_interrupted()
        self.fine = self.layer.finer()
        face = self.layer
        if self.transparent:
            face = self._layer(image[top:bottom, left:right, :3].permute(2, 0, 1), torch.ones_like(matte.alpha))
        self.eyes = eyelids(self.mesh, face, style.stone) if eyes else ()
        self.covered = ((matte.alpha[0] > 0) | (inside != backdrop).any(dim=0)).to(self.device)
        self.pixels: MovingPixels | None = None
        self.reach = (0.0, 0.0)

    def frames(
        self, motion: FaceMotion, *, batch: int | None = None, progress: Progress = no_progress
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Frames (B, H, W, 3) in 0..1 and masks (B, H, W), 1 where something moved, batch by batch on the CPU.

        Frames are (B, H, W, 4) with alpha where something of the picture is transparent. Outside its mask every frame
        equals the picture bit by bit, but for white where that is transparent; without any motion it is the picture.
        `batch` is how many frames are yielded at once and changes nothing else.
        """
        for frames, masks in self._batches(motion, batch, progress, self.image, masked=True):
            assert masks is not None
            yield frames, masks

    def frames_uint8(
        self, motion: FaceMotion, *, batch: int | None = None, progress: Progress = no_progress
    ) -> Iterator[torch.Tensor]:
        """The same frames (B, H, W, 3 or 4) as bytes, for video files."""
        for frames, _ in self._batches(motion, batch, progress, self.image_uint8, masked=False):
            yield frames

    def _layer(self, colours: torch.Tensor, matte: torch.Tensor) -> Layer:
        """Colours (C, h, w) and a matte (1, h, w) of the moving box as a layer."""
        left, top, right, bottom = self.head.box
        values = torch.cat([colours, matte])[None].to(self.device)
        return Layer.mirrored_around(values, left, top, margin=max(bottom - top, right - left) // 8)

    def render(
        self, motion: FaceMotion, *, batch: int | None = None, progress: Progress = no_progress
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All frames (F, H, W, 3 or 4) and masks (F, H, W) at once; memory grows with the length."""
        frames, masks = zip(*self.frames(motion, batch=batch, progress=progress), strict=True)
        return torch.cat(frames), torch.cat(masks)

    def _batches(
        self, motion: FaceMotion, batch: int | None, progress: Progress, picture: torch.Tensor, *, masked: bool
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Frames like `picture`, float or bytes, up to `batch` at once; with masks if they are to be `masked`."""
        motion.check()
        height, width = picture.shape[:2]
        batch = max(1, min(motion.frames, batch or min(FIELD_BATCH, BATCH_PIXELS // (height * width))))
        upcoming = self._frame_fields(motion)
        with FrameWorkers(self.device) as workers:
            ready = workers.submit(list, islice(upcoming, batch))
            for start in range(0, motion.frames, batch):
                fields = result_of(ready)
                count = len(fields)
                farthest = max(f.head_reach for f in fields), max(f.skin_reach for f in fields)
                pixels = result_of(workers.submit(self._reach, *farthest))
                still = pixels.of_picture(picture)
                frames = picture[None].repeat(count, 1, 1, 1)
                masks = torch.zeros(count, height, width, device=self.device) if masked else None
                # One worker alone computes the next fields while the others draw the frames before.
                ready = workers.submit(list, islice(upcoming, batch))
                workers.map(
                    self._draw, fields, repeat(pixels), repeat(still), frames, repeat(None) if masks is None else masks
                )
                yield frames.cpu(), None if masks is None else masks.cpu()
                progress(start + count, motion.frames)

    def _frame_fields(self, motion: FaceMotion) -> Iterator[FrameFields]:
        """The fields of each frame, computed in blocks of fixed size, so that no number depends on the batch."""
        speaking = self.mesh.mouth.speaking(motion)
        for start in range(0, motion.frames, FIELD_BATCH):
            indices = np.minimum(np.arange(start, start + FIELD_BATCH), motion.frames - 1)
            shape = self.mesh.move(motion, indices, speaking, self.light).to(self.device)
            moved_head = self.head.forward(shape.camera_motion, shape.breath)
            head = self.head.backward(moved_head)
            upper, lower = self.skin.backward(shape.expression)
            skin = self.lips.choose(upper, lower)
            light = self.skin.spread(shape.light - 1)
            light = self.skin.sample(light, self.skin.nodes + skin.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            reach = float(head.abs().max()), float(skin.abs().max())
            for i in range(min(FIELD_BATCH, motion.frames - start)):
                one = slice(i, i + 1)
                yield FrameFields(
                    shape.frame(i), moved_head[one], head[one], upper[one], lower[one], skin[one], light[one], *reach
                )

    def _draw(
        self,
        fields: FrameFields,
        pixels: MovingPixels,
        still: torch.Tensor,
        frame: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> None:
        """Draws one frame (H, W, 3 or 4), which holds the picture, and its mask (H, W) if there is one, still empty.

        `still` (3 or 4, N) are the picture's own colours at `pixels`.
        """
        shape = fields.shape
        if shape.still:
            return
        sources, light = pixels.sources(self.fine, fields.head, fields.skin, fields.light, self.skin.grid)
        # What did not move keeps the picture's own value, which sampling would change by rounding.
        colours, moved = pixels.colours(self.fine, sources, light)
        drawn = _chosen(moved, _in_units_of(frame.dtype, _straight(colours)), still)
        for channel, values in zip(frame.view(-1, len(drawn)).unbind(1), drawn, strict=True):
            channel.scatter_(0, pixels.index, values)
        if mask is not None:
            mask.view(-1).scatter_(0, pixels.index, moved.float())
        for eye, closure in zip(self.eyes, shape.closure[0], strict=False):
            lids = bool(closure.abs() > MIN_CLOSURE)
            if lids or shape.gaze.any():
                box, positions = self._box(eye.box if lids else eye.ball_box, fields)
                closure = closure if lids else torch.zeros_like(closure)
                sources = positions + self.skin.sample(fields.skin, positions)
                colours, where = eye.paint(self.fine, sources, closure[None], shape.gaze)
                self._paint(self._lit(colours, positions, fields), where, box, frame, mask)
        if shape.expression.any():
            heights = self.lips.heights(shape.expression)
            box, positions = self._box(self.lips.box(heights), fields)
            colours = self.lips.paint(self.fine, positions, fields.upper, fields.lower, shape.jaw, shape.lips)
            colours = self._lit(colours, positions, fields)
            self._paint(colours, self.lips.around(positions, heights), box, frame, mask)

    def _lit(self, colours: torch.Tensor, positions: torch.Tensor, fields: FrameFields) -> torch.Tensor:
        """Samples (1, 4 or 5, h, w) of the layer in the light at `positions` (1, h, w, 2), the head's motion undone."""
        light = 1 + self.skin.sample(fields.light, positions).permute(0, 3, 1, 2)
        return torch.cat([colours[:, :3] * light, colours[:, 3:]], dim=1)

    def _paint(
        self,
        layer: torch.Tensor,
        where: torch.Tensor,
        box: tuple[int, int, int, int],
        frame: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> None:
        """Puts a piece (1, 4 or 5, h, w) of the head into a frame and its mask, inside `where` (1, h, w)."""
        x0, y0, x1, y1 = box
        left, top = self.head.box[:2]
        backdrop = self.backdrop[:, y0 - top : y1 - top, x0 - left : x1 - left]
        colours = torch.addcmul(layer[0, :-1] + backdrop, layer[0, -1:], backdrop, value=-1).clamp_(0, 1)
        here = frame[y0:y1, x0:x1]
        drawn = torch.stack(_in_units_of(frame.dtype, _straight(colours)).unbind(0), dim=-1)
        here.copy_(_chosen(where[0, ..., None], drawn, here))
        if mask is not None:
            mask[y0:y1, x0:x1].masked_fill_(where[0], 1)

    def _box(self, corners: torch.Tensor, fields: FrameFields) -> tuple[tuple[int, int, int, int], torch.Tensor]:
        """The box of pixels (left, top, right, bottom) that `corners` (N, 2) of the portrait reach in a frame.

        Also its positions (1, h, w, 2) with the head's motion undone.
        """
        travel = self.head.travel(corners, fields.moved_head)[0]
        margin = 2 + (fields.skin.abs().max() if len(corners) else 0)
        left, top, right, bottom = self.head.box
        low = (travel.amin(dim=0) - margin).floor().long().tolist()
        high = (travel.amax(dim=0) + margin).ceil().long().tolist()
        x0, y0 = min(max(low[0], left), right - MIN_BOX), min(max(low[1], top), bottom - MIN_BOX)
        x1, y1 = min(max(high[0], x0 + MIN_BOX), right), min(max(high[1], y0 + MIN_BOX), bottom)
        y = torch.arange(y0, y1, device=self.device) + 0.5
        x = torch.arange(x0, x1, device=self.device) + 0.5
        pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        return (x0, y0, x1, y1), pixels + sample_field(fields.head, self.head.grid, pixels)

    def _reach(self, head: float, skin: float) -> MovingPixels:
        """Pixels among which are all that change when the head moves nothing further than `head`, and the expression
        nothing further than `skin` pixels."""
        if self.pixels is None or head > self.reach[0] or skin > self.reach[1]:
            # Some room, so that motions that grow slowly do not make a new list each time.
            head, skin = self.reach = max(self.reach[0], 1.2 * head, MIN_REACH), max(self.reach[1], 1.2 * skin)
            near = _grown(self.covered, math.ceil(head) + 2)
            near |= _grown(self.covered, math.ceil(head + skin) + 2) & self._around_face(math.ceil(head))
            free = self.head.grown_weight(self.covered.shape) > 0
            left, top, _, _ = self.head.box
            self.pixels = MovingPixels.of(
                near & free,
                left,
                top,
                self.image.shape[1],
                self.head.grid,
                self.skin.grid,
                self.fine,
                self.backdrop,
                self.covered,
            )
        return self.pixels

    def _around_face(self, margin: int) -> torch.Tensor:
        """Where (h, w) in the moving box the expression's grid lies, or comes to lie when a head moves by `margin`."""
        left, top, _, _ = self.head.box
        grid = self.skin.grid
        rows = slice(max(0, int(grid.top) - top - margin), max(0, int(grid.bottom) - top + margin + 1))
        columns = slice(max(0, int(grid.left) - left - margin), max(0, int(grid.right) - left + margin + 1))
        face = torch.zeros_like(self.covered)
        face[rows, columns] = True
        return face


def _in_units_of(kind: torch.dtype, colours: torch.Tensor) -> torch.Tensor:
    """Colours (C, ...) in 0..1 as they are, or in bytes; they are overwritten then."""
    return colours.mul_(255).add_(0.5).to(torch.uint8) if kind == torch.uint8 else colours


def _chosen(mask: torch.Tensor, drawn: torch.Tensor, still: torch.Tensor) -> torch.Tensor:
    """`drawn` where `mask` is set, else `still`; of bytes by their bits, as `torch.where` takes forty times as long."""
    if drawn.dtype != torch.uint8:
        return torch.where(mask, drawn, still)
    bits = mask.view(torch.uint8).neg()
    return (drawn ^ still).bitwise_and_(bits).bitwise_xor_(still)


def _straight(colours: torch.Tensor) -> torch.Tensor:
    """Colours (3, ...) as they are; those premultiplied with an alpha (4, ...) divided by it, and white without any."""
    if len(colours) == 3:
        return colours
    alpha = colours[3:]
    divided = torch.cat([(colours[:3] / alpha.clamp(min=LEAST_ALPHA)).clamp_(max=1), alpha])
    return torch.where(alpha > LEAST_ALPHA, divided, _transparent(colours).view(4, *[1] * (colours.ndim - 1)))


def _without_hidden_colours(image: torch.Tensor) -> torch.Tensor:
    """A picture (H, W, 4) that is white where it is transparent."""
    return torch.where(image[..., 3:] > LEAST_ALPHA, image, _transparent(image))


def _transparent(like: torch.Tensor) -> torch.Tensor:
    """The colour and alpha (4,) of what is not there; programs that know no alpha show white."""
    return like.new_tensor([1.0, 1.0, 1.0, 0.0])


def _premultiplied(over_white: torch.Tensor, clear: torch.Tensor) -> torch.Tensor:
    """Colours times alpha, and alpha (4, h, w), of what is transparent by `clear` (1, h, w) and lies over white."""
    return torch.cat([(over_white - clear).clamp(min=0), 1 - clear])


def _grown(mask: torch.Tensor, distance: int) -> torch.Tensor:
    """`mask` (h, w) and all within `distance` pixels along both axes."""
    for axis in (0, 1):
        length = mask.shape[axis]
        place = torch.arange(length, device=mask.device)
        counts = mask.cumsum(axis, dtype=torch.int32)
        before = counts.index_select(axis, (place - distance - 1).clamp(min=0))
        before = torch.where((place > distance).view(-1, 1) if axis == 0 else place > distance, before, 0)
        mask = counts.index_select(axis, (place + distance).clamp(max=length - 1)) > before
    return mask


def _checked(image: torch.Tensor, track: FaceTrack) -> torch.Tensor:
    if image.ndim != 3 or image.shape[-1] not in (3, 4):
        raise TalkingPortraitError(
            f"The portrait has the shape {tuple(image.shape)}, but one colour picture (height, width, 3 or 4) is "
            "expected."
        )
    if tuple(image.shape[:2]) != tuple(track.image_size):
        raise TalkingPortraitError(
            f"The portrait is {image.shape[1]} x {image.shape[0]} pixels, but its landmarks were found in a picture of "
            f"{track.image_size[1]} x {track.image_size[0]}; run Detect Landmarks on this very picture."
        )
    if not all_finite(image):
        raise TalkingPortraitError("The portrait holds values that are not numbers; load the picture anew.")
    # Turned pictures come with their rows and columns swapped in memory; pixels are written by their place there.
    return image.detach().cpu().float().clamp(0, 1).contiguous()
