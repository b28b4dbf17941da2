"""SyncNet's distance between lips and sound, measured as the public syncnet_python does.

Video at 25 frames and MFCC at 100 rows a second: the lips of frames t to t + 4 are compared with rows 4 t to 4 t + 19,
and with those of up to 15 frames before and after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from ...models.face.face_mesh import VERTICES
from ...models.syncnet import FRAMES, ROWS, SIDE, SyncNet
from ..audio.mfcc import cepstra
from ..audio.waveform import SPEECH_RATE, mono, resample
from ..files.video import VideoFile
from ..packages import load_opencv
from ..progress import share
from ..types import Audio, Progress
from .watched_face import WatchedFace

FPS = Fraction(25)
ROWS_A_FRAME = 4
REACH = 15
"""Frames to either side by which lips and sound are shifted against each other."""
LEAST_FRAMES = 50
"""Two seconds; in shorter videos most shifts compare with what lies beyond the sound's ends, which counts as zeros."""
MARGIN = 0.4
"""Of half the face's box: room beside it, and twice that below it."""
SMOOTHED = 13
"""Frames over which the median of the box's place and size is taken."""
BORDER = 110
"""Grey beyond the picture."""
SCALE = 32768
"""Of whole numbers of 16 bits, of which the network's MFCC are made."""
BATCH = 8
PART = 1000
"""Frames whose distances are computed at once."""


@dataclass(frozen=True)
class LipSync:
    """`distance` (LSE-D): mean distance of lips and sound where they fit best. `confidence` (LSE-C): the median over
    all shifts minus that. `offset`: frames of 25 a second by which the lips are late there."""

    distance: float
    confidence: float
    offset: int


def lip_sync(
    video: VideoFile, face: WatchedFace, audio: Audio, network: SyncNet, *, progress: Progress
) -> LipSync | None:
    """Of a video whose face was watched, and its sound; None for less than two seconds of both."""
    video = replace(video, fps=FPS)
    wave = mono(resample(audio, SPEECH_RATE)).numpy()
    boxes = face_boxes(face)
    count = min(len(boxes), len(wave) * FPS // SPEECH_RATE)
    if count < LEAST_FRAMES:
        return None
    count -= FRAMES  # as published, one less than there could be
    rows = torch.from_numpy(cepstra(wave * SCALE).astype(np.float32))
    sounds = sound_embeddings(network, rows, count, share(progress, 0, 0.1))
    lips = lip_embeddings(network, _crops(video, boxes), count, share(progress, 0.1, 1))
    return align(lips, sounds)


def face_boxes(face: WatchedFace) -> np.ndarray:
    """Middle and half the longer side (F, 3) of the box round the face in frames of 25 a second, smoothed."""
    from scipy.signal import medfilt

    count = round(face.frames / face.fps * FPS)
    numbers = np.minimum(np.round(np.arange(count) * float(face.fps / FPS)).astype(int), face.frames - 1)
    points = face.flat[numbers, :VERTICES]
    low, high = points.min(axis=1), points.max(axis=1)
    boxes = np.column_stack([(low + high) / 2, (high - low).max(axis=1) / 2])
    # The ends are repeated, while the published median counts zeros beyond them.
    padded = np.pad(boxes, ((SMOOTHED // 2, SMOOTHED // 2), (0, 0)), mode="edge")
    return medfilt(padded, (SMOOTHED, 1))[SMOOTHED // 2 : -(SMOOTHED // 2)]


def _crops(video: VideoFile, boxes: np.ndarray) -> Iterator[np.ndarray]:
    for frame, box in zip(video.frames(), boxes, strict=False):
        yield face_crop(frame, box)


def face_crop(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(3, 224, 224) uint8, blue, green and red, of a frame (H, W, 3): the box with room beside and below."""
    x, y, half = box
    left, right = (int(np.floor(x + side * half * (1 + MARGIN))) for side in (-1, 1))
    top, bottom = int(np.floor(y - half)), int(np.floor(y + half * (1 + 2 * MARGIN)))
    bottom, right = max(bottom, top + 1), max(right, left + 1)
    crop = np.full((bottom - top, right - left, 3), BORDER, np.uint8)
    inner = frame[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0), ::-1]
    crop[max(-top, 0) :, max(-left, 0) :][: inner.shape[0], : inner.shape[1]] = inner
    return load_opencv().resize(crop, (SIDE, SIDE)).transpose(2, 0, 1)


@torch.no_grad()
def sound_embeddings(network: SyncNet, rows: torch.Tensor, count: int, progress: Progress) -> torch.Tensor:
    """(count, 1024) of MFCC (rows, 13): embedding t is of rows 4 t to 4 t + 19."""
    embeddings: list[torch.Tensor] = []
    for part in rows.unfold(0, ROWS, ROWS_A_FRAME).transpose(1, 2)[:count].split(BATCH):
        embeddings.append(network.embed_sound(part))
        progress(min(BATCH * len(embeddings), count), count)
    return torch.cat(embeddings)


@torch.no_grad()
def lip_embeddings(network: SyncNet, crops: Iterator[np.ndarray], count: int, progress: Progress) -> torch.Tensor:
    """(count, 1024) of crops in order: embedding t is of crops t to t + 4."""
    embeddings: list[torch.Tensor] = []
    held: deque[np.ndarray] = deque(maxlen=FRAMES + BATCH - 1)
    done = 0
    for number, crop in enumerate(islice(crops, count + FRAMES - 1)):
        held.append(crop)
        whole = number + 2 - FRAMES
        if whole > done and (whole - done == BATCH or whole == count):
            stack = torch.from_numpy(np.stack(held)[done - whole - FRAMES + 1 :]).float()
            embeddings.append(network.embed_lips(stack.unfold(0, FRAMES, 1).permute(0, 4, 1, 2, 3)))
            done = whole
        progress(done, count)
    return torch.cat(embeddings)


def align(lips: torch.Tensor, sounds: torch.Tensor) -> LipSync:
    """Of embeddings (T, n) of the same times."""
    padded = F.pad(sounds, (0, 0, REACH, REACH))
    sums = torch.zeros(2 * REACH + 1)
    for start in range(0, len(lips), PART):
        own = lips[start : start + PART]
        for shift in range(len(sums)):
            sums[shift] += F.pairwise_distance(own, padded[start + shift : start + shift + len(own)]).sum()
    distances = sums / len(lips)
    best = int(distances.argmin())
    least = float(distances[best])
    return LipSync(least, float(distances.median()) - least, REACH - best)
