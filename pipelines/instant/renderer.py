"""Instant's renderer: one picture, warped and completed so that its face does what a motion says.

Everything that depends on the portrait alone is computed once. For each batch of frames the head's motion and the
expression become displacement fields on small grids, the fields grow to the pixels of the moving box, and the picture
is sampled there once; mouth and eyes are painted over in their own small boxes. Pixels outside the moving box are
the picture's own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import TalkingPortraitError
from ..types import FaceMotion, FaceTrack, Progress, no_progress
from .expression_field import ExpressionField
from .eyelids import eyelids
from .head_field import HeadField
from .head_matte import HeadMatte
from .lips import Lips
from .portrait_mesh import PortraitMesh, PoseAndShape
from .warp import Layer

DEFAULT_BATCH = 8
MOVED = 1 / 256
"""Pixels of displacement below which a pixel keeps the picture's own value."""


class InstantRenderer:
    """Animates one portrait.

    Args:
        image: the portrait (H, W, 3), float in 0..1.
        track: one frame of landmarks in that picture; with several faces in it, only this one moves.
        device: where to render.

    Raises:
        TalkingPortraitError: when picture and landmarks do not belong together or hold no face.
    """

    def __init__(self, image: torch.Tensor, track: FaceTrack, *, device: torch.device | str = "cpu") -> None:
        image = _checked(image, track)
        self.device = torch.device(device)
        self.image = image.to(self.device)
        self.image_uint8 = (self.image * 255).round().to(torch.uint8)
        self.mesh = PortraitMesh(track)
        self.head = HeadField(self.mesh, self.device)
        self.skin = ExpressionField(self.mesh, self.device)
        picture = image.numpy()
        self.lips = Lips(picture, self.mesh, self.skin, self.device)
        self.eyes = eyelids(self.mesh, self.device)
        left, top, right, bottom = self.head.box
        matte = HeadMatte(picture, self.mesh, self.head.box)
        alpha = matte.alpha.to(self.device)
        self.head.hold_at_edges(alpha)
        self.backdrop = matte.backdrop.to(self.device)
        """(3, h, w): the moving box without the head."""
        inside = self.image[top:bottom, left:right].permute(2, 0, 1)
        self.covered = (alpha[0] > 0) | (inside != self.backdrop).any(dim=0)
        self.layer = Layer(torch.cat([inside - (1 - alpha) * self.backdrop, alpha])[None], left, top)
        """The head, premultiplied with its matte, and the matte: four channels of the moving box."""
        y = torch.arange(top, bottom, device=self.device) + 0.5
        x = torch.arange(left, right, device=self.device) + 0.5
        self.pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)

    def frames(
        self, motion: FaceMotion, *, batch: int = DEFAULT_BATCH, progress: Progress = no_progress
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Frames (B, H, W, 3) in 0..1 and masks (B, H, W), 1 where something moved, batch by batch on the CPU.

        Outside its mask every frame equals the picture bit by bit; without any motion it is the picture.
        """
        left, top, right, bottom = self.head.box
        for box, moved in self._boxes(motion, batch, progress):
            count = len(box)
            frames = self.image[None].repeat(count, 1, 1, 1)
            masks = torch.zeros(frames.shape[:3], device=self.device)
            here = frames[:, top:bottom, left:right]
            frames[:, top:bottom, left:right] = torch.where(moved[..., None], box.permute(0, 2, 3, 1), here)
            masks[:, top:bottom, left:right] = moved.float()
            yield frames.cpu(), masks.cpu()

    def frames_uint8(
        self, motion: FaceMotion, *, batch: int = DEFAULT_BATCH, progress: Progress = no_progress
    ) -> Iterator[torch.Tensor]:
        """The same frames (B, H, W, 3) as bytes, for video files."""
        left, top, right, bottom = self.head.box
        for box, moved in self._boxes(motion, batch, progress):
            frames = self.image_uint8[None].repeat(len(box), 1, 1, 1)
            colours = box.mul(255).add_(0.5).to(torch.uint8).permute(0, 2, 3, 1)
            here = frames[:, top:bottom, left:right]
            frames[:, top:bottom, left:right] = torch.where(moved[..., None], colours, here)
            yield frames.cpu()

    def render(
        self, motion: FaceMotion, *, batch: int = DEFAULT_BATCH, progress: Progress = no_progress
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All frames (F, H, W, 3) and masks (F, H, W) at once; memory grows with the length."""
        frames, masks = zip(*self.frames(motion, batch=batch, progress=progress), strict=True)
        return torch.cat(frames), torch.cat(masks)

    def _boxes(self, motion: FaceMotion, batch: int, progress: Progress) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Colours (B, 3, h, w) of the moving box in 0..1, and which of its pixels moved (B, h, w) bool."""
        _check_motion(motion)
        batch = max(1, batch)
        speaking = self.mesh.speech_activity(motion)
        for start in range(0, motion.frames, batch):
            stop = min(start + batch, motion.frames)
            shape = self.mesh.move(motion, slice(start, stop), speaking)
            with torch.inference_mode():
                box, moved = self._draw(shape)
                yield box, moved
            progress(stop, motion.frames)

    def _draw(self, shape: PoseAndShape) -> tuple[torch.Tensor, torch.Tensor]:
        shape = shape.to(self.device)
        rows, columns = self.pixels.shape[:2]
        backward = self.head.backward(shape.camera_motion)
        grown = F.interpolate(backward, size=(rows, columns), mode="bilinear", align_corners=True)
        positions = self.pixels + grown.permute(0, 2, 3, 1)
        upper, lower = self.skin.backward(shape.expression)
        skin = self.skin.sample(self.lips.choose(upper, lower), positions)
        sources = positions + skin
        layer = self.layer.sample(sources)
        moved = (sources - self.pixels).abs().amax(dim=-1) > MOVED
        moved &= (layer != 0).any(dim=1) | self.covered

        for eye, closure in zip(self.eyes, shape.closure.unbind(1), strict=True):
            if closure.abs().max() > 1e-4:
                part = self._part(eye.box, shape)
                under = layer[:, :, part[0], part[1]]
                layer[:, :, part[0], part[1]] = eye.paint(self.layer, sources[:, part[0], part[1]], closure, under)
                moved[:, part[0], part[1]] |= closure.abs()[:, None, None] > 1e-4
        if shape.expression.abs().max() > MOVED:
            part = self._part(self.lips.box, shape)
            mouth = self.lips.paint(self.layer, positions[:, part[0], part[1]], upper, lower, shape.jaw)
            layer[:, :, part[0], part[1]] = mouth
        box = layer[:, :3] + (1 - layer[:, 3:]) * self.backdrop
        return box.clamp_(0, 1), moved

    def _part(self, corners: torch.Tensor, shape: PoseAndShape) -> tuple[slice, slice]:
        """Rows and columns of the moving box that `corners` (N, 2) of the portrait can reach in these frames."""
        travel = self.head.travel(corners, shape.camera_motion)
        left, top, right, bottom = self.head.box
        margin = 2 + shape.expression.abs().max()
        low = (travel.amin(dim=(0, 1)) - margin).floor().long()
        high = (travel.amax(dim=(0, 1)) + margin).ceil().long()
        x0, y0 = int((low[0] - left).clamp(0, right - left)), int((low[1] - top).clamp(0, bottom - top))
        x1, y1 = int((high[0] - left).clamp(0, right - left)), int((high[1] - top).clamp(0, bottom - top))
        return slice(y0, max(y1, y0)), slice(x0, max(x1, x0))


def _checked(image: torch.Tensor, track: FaceTrack) -> torch.Tensor:
    if image.ndim != 3 or image.shape[-1] != 3:
        raise TalkingPortraitError(
            f"The portrait has the shape {tuple(image.shape)}, but one colour picture (height, width, 3) is expected."
        )
    if tuple(image.shape[:2]) != tuple(track.image_size):
        raise TalkingPortraitError(
            f"The portrait is {image.shape[1]} x {image.shape[0]} pixels, but its landmarks were found in a picture of "
            f"{track.image_size[1]} x {track.image_size[0]}; run Detect Landmarks on this very picture."
        )
    if not torch.isfinite(image).all():
        raise TalkingPortraitError("The portrait holds values that are not numbers; load the picture anew.")
    return image.detach().cpu().float().clamp(0, 1)


def _check_motion(motion: FaceMotion) -> None:
    if motion.frames == 0:
        raise TalkingPortraitError("The face motion has no frames; make one from at least a moment of sound.")
    for name in ("vertices", "neutral", "rotation", "translation"):
        if not np.isfinite(getattr(motion, name)).all():
            raise TalkingPortraitError(
                f"The face motion's {name} holds values that are not numbers; make the motion anew."
            )
