"""AniPortrait's diffusion, whole: a portrait and drawn faces become frames.

animation = animate(networks, codec, encoder, portrait, drawings, Settings(), progress=progress)
for frames in animation:      # (B, H, W, 3), as they are finished
    ...
animation.state               # what a next call continues from
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import cast

import torch

from ...models.diffusion.unet import UNet
from ..diffusion.latents import ImageCodec, PictureEncoder
from ..types import FaceMotion, FaceTrack, Progress, no_progress
from .modes import SamplingJob, reference_video, seamless_video
from .portrait import check_landmarks, prepare_portrait
from .pose_drawings import PoseDrawings
from .settings import (
    AnimationState,
    Drawings,
    Networks,
    Settings,
    check_drawings,
    check_settings,
    check_state,
    check_window,
)

__all__ = ["Animation", "AnimationState", "Drawings", "Networks", "Settings", "animate", "prepare_portrait"]


class Animation(Iterator[torch.Tensor]):
    """Frames (B, H, W, 3) float32 on the CPU in 0..1, batch after batch, each frame once and in order.

    `frames` is how many there will be, `state` what a next call continues from; None until all frames have left.
    Leaving early (`close`, or an exception out of `progress`) frees everything.
    """

    def __init__(self, frames: int, run: Callable[[Animation], Generator[torch.Tensor]]) -> None:
        self.frames = frames
        self.state: AnimationState | None = None
        self._run = run(self)

    def __next__(self) -> torch.Tensor:
        return next(self._run)

    def close(self) -> None:
        """Frees what an unfinished animation holds."""
        self._run.close()


def animate(
    networks: Networks,
    codec: ImageCodec,
    encoder: PictureEncoder,
    portrait: torch.Tensor,
    drawings: Drawings | FaceMotion,
    settings: Settings | None = None,
    *,
    track: FaceTrack | None = None,
    state: AnimationState | None = None,
    progress: Progress = no_progress,
) -> Animation:
    """A portrait (H, W, 3) in 0..1 that does what the drawn faces show, one frame for each.

    Inputs are checked at once, the networks' own limits last, as that may read a file; the work begins when the first
    frames are requested.

    Args:
        portrait: any size; it is squeezed to `settings.size`, as published, so crop it to that shape before.
        drawings: or a motion, which is drawn onto `track`, the portrait's landmarks, frame by frame on request.
        state: of the clip before this one, in "seamless" mode, with the same portrait and size.
        progress: called after each run of a network with the windows and frames done and to do, with a rough picture
            after each step, and after each batch of decoded frames with the last of them.

    Raises TalkingPortraitError for impossible settings, no or unfitting drawings or landmarks, half precision on a CPU,
    a state of another size or mode, networks that give NaN, and memory that suffices for nothing.
    """
    settings = settings or Settings()
    if track is not None:
        check_landmarks(portrait, track)
    faces = PoseDrawings(drawings, settings.size, track) if isinstance(drawings, FaceMotion) else drawings
    check_settings(settings)
    check_drawings(faces, settings.size)
    check_state(state, settings)
    check_window(settings, cast(UNet, networks.denoising_unet.module).config.motion_frames)

    def run(animation: Animation) -> Generator[torch.Tensor]:
        prepared = prepare_portrait(networks, codec, encoder, portrait, settings.size)
        job = SamplingJob(networks, codec, faces, settings, prepared)
        if settings.mode == "reference":
            animation.state = yield from reference_video(job, progress)
        else:
            animation.state = yield from seamless_video(job, state, progress)

    return Animation(len(faces), run)
