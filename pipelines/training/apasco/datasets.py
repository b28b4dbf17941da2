"""Datasets of clips for APasco's and Hallo's two stages; `../data/datasets.py` has what they share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from ....models.diffusion.layout import MOTION_FRAMES
from ....models.face.face_mesh import LIPS_INNER, LIPS_OUTER, VERTICES
from ...apasco.audio_context import audio_windows
from ...apasco.geometry import normalised
from ...apasco.masks import RegionMasks, training_masks
from ...errors import TalkingPortraitError
from ..data.clips import Clip
from ..data.datasets import Clips, Item, check_frames, check_rate

FPS = 25
APART = 30
"""Frames between the two pictures of an item where the clip is long enough."""
_LIPS = sorted({*LIPS_INNER, *LIPS_OUTER})


class FacePictures(Clips):
    """Two pictures of a person, the face's region and the person's embedding.

    An item: `reference` and `picture` (H, W, 3) uint8, `region` (3, 1, H, W) in 0..1, `embedding` (512,).
    """

    def __init__(self, clips: Sequence[Clip], seed: int, shortest: int = 1) -> None:
        identified = [clip for clip in clips if clip.has("identity")]
        if not identified:
            raise TalkingPortraitError(
                "No clip has a face embedding; run prepare again with --face-detector and --face-recogniser."
            )
        super().__init__(identified, seed, shortest)

    def item(self, clip: Clip, rng: np.random.Generator) -> Item:
        first = int(rng.integers(clip.frames))
        if first + APART < clip.frames:
            second = int(rng.integers(first + APART, clip.frames))
        elif first > APART:
            second = int(rng.integers(0, first - APART))
        else:
            second = int(rng.integers(clip.frames))
        return {
            "reference": torch.from_numpy(clip.picture(first)),
            "picture": torch.from_numpy(clip.picture(second)),
            "region": _masks(clip).located((clip.size, clip.size))[0],
            "embedding": torch.from_numpy(np.array(clip.array("identity"))),
        }


class SpokenVideos(FacePictures):
    """Frames of a person who speaks, those before them, another picture, the face's regions, its mesh, speech features.

    An item: `pictures` (1 + 2, H, W, 3) the reference and the frames before, `frames` (F, H, W, 3), all uint8;
    `region`, `embedding` as in `FacePictures`; `masks0` ... (3, h, w) for each of `levels` resolutions; `windows`
    (F, 5, layers, channels); `portrait` (468, 3) and `meshes` (F, 468, 3) in units of the reference's face.
    """

    def __init__(self, clips: Sequence[Clip], seed: int, frames: int = 14, levels: int = 4) -> None:
        check_frames(frames)
        check_rate(clips, FPS)
        spoken = [clip for clip in clips if clip.has("speech_features")]
        if not spoken:
            raise TalkingPortraitError("No clip has speech features; run prepare again with --speech-encoder.")
        super().__init__(spoken, seed, frames + MOTION_FRAMES + 1)
        self.frames, self.levels = frames, levels
        self.audio_shape = _speech_features(self.clips[0]).shape[1:]
        """Layers and channels of the speech features."""

    def item(self, clip: Clip, rng: np.random.Generator) -> Item:
        start = int(rng.integers(MOTION_FRAMES, clip.frames - self.frames + 1))
        reference = int(rng.integers(clip.frames))
        numbers = range(start, start + self.frames)
        before = range(start - MOTION_FRAMES, start)
        size, masks = (clip.size, clip.size), _masks(clip)
        points = np.array(clip.array("points")[:, :VERTICES], dtype=np.float64)
        geometry = normalised(points[reference], points[list(numbers)])
        states = torch.from_numpy(np.array(_speech_features(clip, self.audio_shape))).float()
        levels = masks.levels((clip.size // 8, clip.size // 8), self.levels)
        return {
            "pictures": torch.from_numpy(np.stack([clip.picture(i) for i in (reference, *before)])),
            "frames": torch.from_numpy(np.stack([clip.picture(i) for i in numbers])),
            "region": masks.located(size)[0],
            "embedding": torch.from_numpy(np.array(clip.array("identity"))),
            "windows": audio_windows(states, numbers.start, numbers.stop)[0],
            "portrait": geometry.portrait[0],
            "meshes": geometry.meshes[0],
            **{f"masks{level}": mask[:, 0] for level, mask in enumerate(levels)},
        }


def still_lips(meshes: torch.Tensor, portrait: torch.Tensor) -> torch.Tensor:
    """Meshes (B, F, P, 3) whose lips go where the rest of the face goes, in the shape of the portrait's (B, P, 3).

    Frames to be learnt show their own lips; a network that always gets those need not use the speech.
    """
    rest = portrait[:, None]
    others = torch.ones(meshes.shape[2], dtype=torch.bool, device=meshes.device)
    others[_LIPS] = False
    moved = (meshes - rest)[:, :, others].mean(dim=2, keepdim=True)
    return torch.where(others[:, None], meshes, rest + moved)


def _speech_features(clip: Clip, expected: tuple[int, ...] | None = None) -> np.ndarray:
    """(frames, layers, channels); TalkingPortraitError for another form, or other layers and channels than expected."""
    states = clip.array("speech_features")
    if states.ndim != 3 or not len(states) or expected not in (None, states.shape[1:]):
        raise TalkingPortraitError(
            f"The speech features of {clip.folder} are of the form {states.shape}, but (frames, layers, channels) as "
            "in the other clips is expected; remove its speech_features.npy and run prepare again with "
            "--speech-encoder."
        )
    return states


@lru_cache(maxsize=256)
def _masks(clip: Clip) -> RegionMasks:
    return training_masks(np.array(clip.array("points")), (clip.size, clip.size))
