"""Datasets of AniPortrait's training stages: pictures with drawn faces, and speech with face and head movement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ....models.aniportrait.audio2mesh import FPS
from ....models.aniportrait.audio2pose import IDENTITIES
from ....models.speech.encoder import SAMPLE_RATE, normalise_wave
from ...aniportrait.pictures import clip_pixels
from ...aniportrait.pose_image import draw_pose_image
from ...errors import TalkingPortraitError
from ...face.head_pose import split_matrix
from ...motion.reenact import most_neutral_frame
from ...timing import sample_index
from ..data.clips import Clip
from ..data.datasets import Clips, Item, check_frames, check_rate


class PortraitVideos(Clips):
    """A picture of a face, and frames of the same clip with their drawings.

    `frames` of an item, 1 for single pictures; `strides` between them, each as likely, of those that fit the clip.

    An item: `reference` (H, W, 3) and `frames` (F, H, W, 3), `drawings` (F, H, W, 3), all uint8;
    `clip_image` (3, 224, 224) the reference as CLIP's input.
    """

    def __init__(self, clips: Sequence[Clip], seed: int, frames: int = 1, strides: tuple[int, ...] = (1,)) -> None:
        check_frames(frames)
        super().__init__(clips, seed, frames)
        self.frames, self.strides = frames, strides

    def item(self, clip: Clip, rng: np.random.Generator) -> Item:
        stride = int(rng.choice(self.strides))
        if (self.frames - 1) * stride >= clip.frames:
            stride = min(self.strides)
        stride = min(stride, (clip.frames - 1) // max(self.frames - 1, 1)) or 1
        start = int(rng.integers(clip.frames - (self.frames - 1) * stride))
        numbers = [start + i * stride for i in range(self.frames)]
        points = clip.array("points")
        reference = clip.picture(int(rng.integers(clip.frames)))
        size = (clip.size, clip.size)
        return {
            "reference": torch.from_numpy(reference),
            "frames": torch.from_numpy(np.stack([clip.picture(i) for i in numbers])),
            "drawings": torch.from_numpy(np.stack([draw_pose_image(np.array(points[i]), size) for i in numbers])),
            "clip_image": clip_pixels(torch.from_numpy(reference).float() / 255)[0],
        }


class SpokenClips(Clips):
    """Slices of clips with speech, `frames` long, at AniPortrait's 30 frames a second."""

    def __init__(self, clips: Sequence[Clip], seed: int, frames: int) -> None:
        check_frames(frames)
        check_rate(clips, FPS)
        super().__init__([clip for clip in clips if clip.has_speech], seed, frames)
        self.frames = frames

    def slice(self, clip: Clip, rng: np.random.Generator) -> tuple[int, int, torch.Tensor]:
        """First frame, end, and the sound between them (samples,), normalised over the whole clip."""
        start = int(rng.integers(clip.frames - self.frames + 1))
        wave = normalise_wave(torch.from_numpy(np.array(clip.array("speech"))))
        first = sample_index(start, SAMPLE_RATE, clip.fps)
        length = sample_index(self.frames, SAMPLE_RATE, clip.fps)  # the same for all, so that they make a batch
        return start, start + self.frames, wave[first : first + length]


class SpokenShapes(SpokenClips):
    """Speech and how the face moves from its rest: `wave` (samples,), `offsets` (F, 468, 3) in cm.

    The rest is the clip's calmest frame, as nothing else of that face is known.
    """

    def item(self, clip: Clip, rng: np.random.Generator) -> Item:
        start, end, wave = self.slice(clip, rng)
        vertices = clip.array("vertices")
        rest = vertices[most_neutral_frame(clip.array("blendshapes")[:, 1:])]
        return {"wave": wave, "offsets": torch.from_numpy(vertices[start:end] - rest)}


class SpokenPoses(SpokenClips):
    """Speech, head movement and the person's number: `wave` (samples,), `poses` (F, 6), `identity` ().

    Poses are Euler angles in degrees and cm, in the head's own frame from where it is at the slice's beginning, as
    sampling begins every piece at rest. Identities are numbers of persons in the order of their names.
    """

    def __init__(self, clips: Sequence[Clip], seed: int, frames: int) -> None:
        check_frames(frames)
        super().__init__(clips, seed, frames)
        self.persons = sorted({clip.person for clip in self.clips})
        if len(self.persons) > IDENTITIES:
            raise TalkingPortraitError(
                f"The clips show {len(self.persons)} persons, but this network has {IDENTITIES} ways of moving; "
                "prepare fewer videos, or name who is seen in several of them by --person."
            )

    def item(self, clip: Clip, rng: np.random.Generator) -> Item:
        start, end, wave = self.slice(clip, rng)
        matrices = np.array(clip.array("matrix")[start:end], dtype=np.float64)
        poses = np.concatenate(split_matrix(np.linalg.inv(matrices[0]) @ matrices), axis=-1)
        return {
            "wave": wave,
            "poses": torch.from_numpy(poses.astype(np.float32)),
            "identity": torch.tensor(self.persons.index(clip.person)),
        }
