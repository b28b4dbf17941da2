"""SyncAnimation from end to end: a trained person speaks, from audio alone or with another's motion."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from ...models.syncanimation.rendering.camera import renderer_pose
from ...models.syncanimation.rendering.frame_head import fast_dtype
from ...models.syncanimation.rendering.renderer import Renderer
from ...models.syncanimation.rendering.tri_plane import can_compile
from ..audio.waveform import check_audio
from ..errors import TalkingPortraitError, check_kind, check_seed, quoted
from ..files.images import to_uint8
from ..image.affine_sampling import box_map, sample_picture
from ..image.frame_workers import FrameWorkers
from ..memory import Managed, Resident, loaded
from ..person.person import Person
from ..person.speech import Encoder
from ..progress import result_of
from ..types import Audio, FaceMotion, Progress, no_progress
from .closed_lips import closed
from .conditions import REFERENCES, SMOOTHINGS, Conditions, Reference, Smoothing, conditions, limited_poses
from .motion_pose import fitted, motion_expressions, motion_poses
from .person_model import PersonModel, open_model
from .portrait import Portrait

__all__ = ["Drive", "animate", "frames_of", "open_model"]

_log = logging.getLogger(__name__)
SCALES = (0.5, 2.0)
"""Of the upper body."""
BYTES_PER_PIXEL = 16 * 4 * 700
"""Of the renderer's work on a pixel of the head, about: at most 16 samples."""
COMPILED_FRAMES = 1500
"""Speech of so many frames and more is worth the seconds that compiled kernels take to be made on a graphics card; the
first piece does not wait for them."""
PREVIEW_SIDE = 512


@dataclass(frozen=True)
class Drive:
    """How a person is driven.

    `pose` and `expression` are motions that replace what is predicted from the speech. `reference`: what the syncers
    start from: the first frame of the training, noise, or as the public program has it (see `conditions`). `smoothing`
    of predicted poses. `torso_scale` above 1 shows more of the surroundings and a smaller person, below 1 the reverse;
    the picture's lower edge stays where it is. `seed`: same seed, same frames. `close_in_silence`: lips close where
    nothing is said for 0.7 s and more; otherwise, as published, they do what they did in the pauses of the training.

    Raises TalkingPortraitError for a value outside its range.
    """

    pose: FaceMotion | None = None
    expression: FaceMotion | None = None
    reference: Reference = "first frame"
    smoothing: Smoothing = "centred"
    torso_scale: float = 1.0
    seed: int = 0
    close_in_silence: bool = True

    def __post_init__(self) -> None:
        for name, motion in (("pose", self.pose), ("expression", self.expression)):
            if motion is not None and not isinstance(motion, FaceMotion):
                raise TalkingPortraitError(
                    f"The {name} is {quoted(motion)}, but a FaceMotion is expected; give one that drive returns."
                )
        check_kind("torso-scale", self.torso_scale, 1.0)
        check_kind("close-in-silence", self.close_in_silence, True)
        if not SCALES[0] <= self.torso_scale <= SCALES[1]:
            raise TalkingPortraitError(
                f"The upper body's scale is {self.torso_scale}, but {SCALES[0]:g} to {SCALES[1]:g} is expected; 1 "
                "leaves it as it was trained."
            )
        for name, choices in (("reference", REFERENCES), ("smoothing", SMOOTHINGS)):
            if getattr(self, name) not in choices:
                raise TalkingPortraitError(
                    f"The {name} is {quoted(getattr(self, name))}, but one of {', '.join(choices)} is expected."
                )
        check_seed(self.seed)


def animate(
    model: PersonModel,
    audio: Audio,
    drive: Drive | None = None,
    *,
    head: Person | str | Path | None = None,
    background: torch.Tensor | None = None,
    renderer: Managed | None = None,
    encoder: Encoder | None = None,
    say: Callable[[str], None] = _log.warning,
    progress: Progress = no_progress,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Frames (1, H, W, 3) uint8 and masks (1, H, W) in 0..1 of the person, at its video's rate, as long as the speech.

    Nothing is held but the frame at hand and some seconds of the speech.

    Args:
        head: the prepared person, or the video file that it was prepared from: the face is put into its frames, with
            their poses and expressions ("portrait"); without it the whole picture is generated, at the training's size.
        background: another background (H, W, 3) in 0..1 of any size; by default the person's own.
        renderer: the model's renderer where a host decides its place in memory; by default on the CPU.
        encoder: the speech encoder that the person was prepared with, where it was one.
        say: gets a sentence where the pose had to be limited to what was trained; by default the log does.
        progress: called after each frame.

    Raises TalkingPortraitError for a model without a head, audio that is none, features of another kind than the model
    was trained on, motions that end before the speech, and a head of another person.
    """
    audio, drive = check_audio(audio), drive or Drive()
    model.check_trained()
    total = model.frames_for(audio)
    if head is not None:
        yield from _into_frames(model, audio, head, drive, renderer, encoder, progress)
        return
    poses = None if drive.pose is None else motion_poses(fitted(drive.pose, total, model), model)
    expressions = (
        None if drive.expression is None else motion_expressions(fitted(drive.expression, total, model), model)
    )
    if poses is not None:
        _say_limits(model, poses, say)
    pieces = _driven(model, audio, drive, encoder, poses, expressions)
    behind = model.background / 255 if background is None else _filled(background, model.size)
    rendered = _rendered(model, pieces, total, repeat(behind), renderer, torso_scale=drive.torso_scale)
    for done, (image, mask) in enumerate(rendered, 1):
        yield torch.from_numpy(to_uint8(image))[None], mask[None]
        progress(done, total, _preview(image))


def frames_of(
    model: PersonModel, audio: Audio, drive: Drive | None = None, **options: object
) -> Iterator[torch.Tensor]:
    """The same frames (1, H, W, 3) as bytes, without their masks, for a video file."""
    for frames, _ in animate(model, audio, drive, **options):  # type: ignore[arg-type]
        yield frames


def _into_frames(
    model: PersonModel,
    audio: Audio,
    head: Person | str | Path,
    drive: Drive,
    renderer: Managed | None,
    encoder: Encoder | None,
    progress: Progress,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    total = model.frames_for(audio)
    portrait = Portrait(model, head, total)
    poses, expressions = model.labels.c2w[portrait.numbers], model.labels.expressions[portrait.numbers]
    pieces = _driven(model, audio, drive, encoder, poses, expressions)
    rendered = _rendered(model, pieces, total, portrait.crops(), renderer, torso=False)
    for done, (image, _) in enumerate(rendered, 1):
        frame, mask = portrait.paste(image)
        yield frame[None], mask[None]
        progress(done, total, _preview(frame / 255))


def _driven(
    model: PersonModel,
    audio: Audio,
    drive: Drive,
    encoder: Encoder | None,
    poses: torch.Tensor | None,
    expressions: torch.Tensor | None,
) -> Iterator[Conditions]:
    """The conditions of all frames as `drive` has them; those given replace what is predicted."""
    return conditions(
        model,
        audio,
        encoder,
        poses=poses,
        expressions=expressions,
        reference=drive.reference,
        smoothing=drive.smoothing,
        seed=drive.seed,
        close_in_silence=drive.close_in_silence,
    )


def _rendered(
    model: PersonModel,
    pieces: Iterator[Conditions],
    total: int,
    backgrounds: Iterator[torch.Tensor],
    managed: Managed | None,
    *,
    torso_scale: float = 1.0,
    torso: bool = True,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images (S, S, 3) in 0..1 and masks (S, S) of the `total` frames of all pieces, on the CPU; each has its own
    background."""
    for number, piece in enumerate(pieces):
        compiled = number > 0 and total >= COMPILED_FRAMES
        yield from _rendered_piece(
            model, piece, backgrounds, managed, torso_scale=torso_scale, torso=torso, compiled=compiled
        )


@torch.no_grad()
def _rendered_piece(
    model: PersonModel,
    piece: Conditions,
    backgrounds: Iterator[torch.Tensor],
    managed: Managed | None,
    *,
    torso_scale: float,
    torso: bool,
    compiled: bool,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images (S, S, 3) in 0..1 and masks (S, S) of the frames of a piece, on the CPU; each has its own background.

    `compiled`: by compiled kernels, where the device has them.
    """
    managed = managed or Resident(model.networks.renderer)
    memory = BYTES_PER_PIXEL * model.size**2
    poses = renderer_pose(piece.c2w)
    network, device = loaded(managed, Renderer, memory)
    codes = closed(network.head.encode_audio(piece.windows.to(device)).cpu(), model, piece.closed)
    network.head.compiled = compiled and can_compile(device, network.head.config.grid)

    def draw(
        network: Renderer, device: torch.device, number: int, background: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        frame = network.render_frame(
            model.camera,
            poses[number].to(device),
            codes[number : number + 1].to(device),
            piece.expressions[number : number + 1].to(device),
            background.to(device),
            torso_scale=torso_scale,
            torso=torso,
            dtype=fast_dtype(device),
        )
        mask = 1 - (1 - frame.head_opacity) * (1 - frame.torso_alpha) if torso else frame.head_opacity
        return frame.image.float().cpu(), mask.float().cpu()

    with FrameWorkers(device) as workers:
        coming: deque[Future[tuple[torch.Tensor, torch.Tensor]]] = deque()
        for number in range(len(poses)):
            network, device = loaded(managed, Renderer, workers.size * memory)
            coming.append(workers.submit(draw, network, device, number, next(backgrounds)))
            if len(coming) == workers.size:
                yield _shown(coming.popleft())
        yield from map(_shown, coming)


def _shown(frame: Future[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    image, mask = result_of(frame)
    return image, mask.clamp(0, 1)


def _filled(picture: torch.Tensor, size: int) -> torch.Tensor:
    """The middle of a picture (H, W, 3) that fills a square of `size` pixels."""
    height, width = picture.shape[:2]
    side = min(height, width)
    box = box_map((width - side) / 2, (height - side) / 2, side, side, (size, size))
    return sample_picture(picture[..., :3].float().cpu(), box, (size, size)).clamp(0, 1)


def _say_limits(model: PersonModel, poses: torch.Tensor, say: Callable[[str], None]) -> None:
    _, outside = limited_poses(model, poses)
    if outside.any():
        low, high = np.degrees(model.limits[:, :3].numpy())
        ranges = ", ".join(f"{a:.0f} to {b:.0f}" for a, b in zip(low, high, strict=True))
        say(
            f"In {int(outside.sum())} of {len(poses)} frames the motion's pose lies outside of what the person was "
            f"trained on (camera angles of {ranges} degrees about x, y, z), so it was limited to that."
        )


def _preview(image: torch.Tensor) -> torch.Tensor:
    thinned = max(1, max(image.shape[:2]) // PREVIEW_SIDE)
    return image[::thinned, ::thinned]
