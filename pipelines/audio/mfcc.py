"""Mel-frequency cepstral coefficients (MFCC) in the two recipes that talking-face systems were trained with.

The common part computes what python_speech_features' defaults do (16 kHz, 25 ms rectangular windows every 10 ms,
512-point spectrum, 26 mel filters, 13 coefficients, lifter 22, the first one replaced by the log energy); the recipes
differ in what they make of it.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Literal

import numpy as np
import torch

from ..errors import TalkingPortraitError, quoted
from ..types import Audio, Progress, SpeechFeatures, no_progress
from .waveform import SPEECH_RATE, check_audio, mono, resample

WINDOW, HOP, SPECTRUM = 400, 160, 512
FILTERS, COEFFICIENTS, LIFTER = 26, 13, 22
PRE_EMPHASIS = 0.97
SMALLEST = float(np.finfo(float).eps)
BLOCK_ROWS = 100
"""Windows whose spectra are in memory at once: complex, and overlapping, they take forty times the sound's memory."""
ROWS_A_SECOND = Fraction(SPEECH_RATE, HOP)
VIDEO_FPS, VIDEO_ROWS = Fraction(25), 28
"""AudioDVP's frame rate, and the rows that belong to a frame."""
SILENCE = 1920
"""Samples of it at both ends of AudioDVP's sound."""

Recipe = Literal["anitalker", "audiodvp"]


def mfcc(
    audio: Audio, *, recipe: Recipe, fps: Fraction = VIDEO_FPS, progress: Progress = no_progress
) -> SpeechFeatures:
    """Speech features without a network.

    "anitalker": 39 columns (13 coefficients, their slope over one neighbour, their slope over two), 100 rows a second,
    cut to four rows for each frame of 25 fps video. States are (rows, 1, 39).
    "audiodvp": for each frame of video at `fps` the 28 rows around it without their energy, after 0.12 s of silence at
    both ends. States are (frames, 28, 12): the middle axis is time in steps of 10 ms. This is ATnet's input at 25 fps.

    Raises TalkingPortraitError for audio of less than 721 samples at 16 kHz (45 ms), too short for one row of states.
    """
    if recipe not in ("anitalker", "audiodvp"):
        raise TalkingPortraitError(f"The MFCC recipe is {quoted(recipe)}, but anitalker or audiodvp is expected.")
    wave = _speech_wave(audio)
    if recipe == "anitalker":
        rows = with_slopes(cepstra(wave, progress))
        states = rows[: len(rows) // 4 * 4, None]
    else:
        rows = cepstra(_with_silence(wave), progress)
        states = video_windows(rows, video_starts(len(rows), fps))
    if not len(states):
        raise _too_short(len(wave), recipe)
    rate = ROWS_A_SECOND if recipe == "anitalker" else fps
    return SpeechFeatures(torch.from_numpy(states.astype(np.float32)), rate, f"mfcc-{recipe}", "stock")


def _speech_wave(audio: Audio) -> np.ndarray:
    wave: np.ndarray = mono(resample(check_audio(audio), SPEECH_RATE)).numpy()
    return wave


def _with_silence(wave: np.ndarray) -> np.ndarray:
    return np.pad(wave, SILENCE)


def _too_short(samples: int, recipe: Recipe) -> TalkingPortraitError:
    shortest = WINDOW + 2 * HOP + 1 if recipe == "anitalker" else WINDOW + 26 * HOP + 1 - 2 * SILENCE
    return TalkingPortraitError(
        f"The audio has {samples} samples at {SPEECH_RATE} Hz, but these features need at least {shortest} "
        f"({shortest * 1000 / SPEECH_RATE:.0f} ms); use a longer recording."
    )


def row_count(samples: int) -> int:
    """Rows that cover `samples`; the last window is filled with zeros."""
    return 1 if samples <= WINDOW else 1 - (WINDOW - samples) // HOP


def cepstra(wave: np.ndarray, progress: Progress = no_progress) -> np.ndarray:
    """(samples,) float32 at 16 kHz to (rows, 13) float64: log energy and 12 liftered coefficients each 10 ms."""
    from scipy.fft import dct

    rows = row_count(len(wave))
    lifter = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    coefficients = np.empty((rows, COEFFICIENTS))
    for start in range(0, rows, BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, rows)
        frames = _windows(wave, start, end)
        power = np.abs(np.fft.rfft(frames, SPECTRUM)) ** 2 / SPECTRUM
        energy = np.log(_positive(power.sum(axis=1)))
        block = dct(np.log(_positive(power @ filterbank().T)), type=2, axis=1, norm="ortho")[:, :COEFFICIENTS] * lifter
        block[:, 0] = energy
        coefficients[start:end] = block
        progress(end, rows)
    return coefficients


def _windows(wave: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Windows `start` to `stop` of the pre-emphasised sound, (windows, WINDOW) float64; zeros follow its end."""
    first, end = start * HOP, (stop - 1) * HOP + WINDOW
    emphasised = wave[first:end].copy()  # in the wave's own float32, as the source does
    before = wave[max(first - 1, 0) : first + len(emphasised) - 1]
    emphasised[len(emphasised) - len(before) :] -= PRE_EMPHASIS * before
    padded = np.zeros(end - first)
    padded[: len(emphasised)] = emphasised
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, SMALLEST, values)


@cache
def filterbank() -> np.ndarray:
    """(26, 257) triangles, evenly spaced in mel from 0 to 8 kHz, with corners on whole spectrum bins."""
    top = 2595 * np.log10(1 + SPEECH_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1)
    corners = np.floor((SPECTRUM + 1) * hertz / SPEECH_RATE)
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(SPECTRUM // 2 + 1)
    rising = np.where((bins >= left) & (bins < middle), (bins - left) / (middle - left), 0)
    falling = np.where((bins >= middle) & (bins < right), (right - bins) / (right - middle), 0)
    return rising + falling


def slope(rows: np.ndarray, reach: int) -> np.ndarray:
    """Least-squares slope of each column over `reach` rows to both sides, the ends repeated."""
    padded = np.pad(rows, ((reach, reach), (0, 0)), mode="edge")
    steps = range(1, reach + 1)
    rises = (k * (padded[reach + k :][: len(rows)] - padded[reach - k :][: len(rows)]) for k in steps)
    return np.asarray(sum(rises)) / (2 * sum(k * k for k in steps))


def with_slopes(rows: np.ndarray) -> np.ndarray:
    """(rows, 13) to AniTalker's (rows, 39): both slopes are of the coefficients; the second is no slope of slopes."""
    return np.concatenate([rows, slope(rows, 1), slope(rows, 2)], axis=1)


def video_windows(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(rows, 13) to AudioDVP's (frames, 28, 12): columns 1 to 12 of the 28 rows from each start on."""
    return rows[starts[:, None] + np.arange(VIDEO_ROWS), 1:]


def video_starts(rows: int, fps: Fraction = VIDEO_FPS) -> np.ndarray:
    """The first row of each frame's window, as many as there are whole windows, maybe none: 4k at 25 fps."""
    last = rows - VIDEO_ROWS
    first = [round(frame * ROWS_A_SECOND / fps) for frame in range(max(int(last * fps / ROWS_A_SECOND) + 2, 0))]
    return np.array([row for row in first if row <= last], dtype=np.int64)


def video_mfcc_by_frames(audio: Audio, fps: Fraction) -> Callable[[range], torch.Tensor]:
    """What gives the states (n, 28, 12) of the recipe "audiodvp" for any consecutive frames of a recording.

    They are those of the whole; frames beyond its last window have that one. Raises as `mfcc`.
    """
    wave = _with_silence(_speech_wave(audio))
    starts = video_starts(row_count(len(wave)), fps)
    if not len(starts):
        raise _too_short(len(wave) - 2 * SILENCE, "audiodvp")

    def states(frames: range) -> torch.Tensor:
        wanted = starts[np.minimum(np.asarray(frames), len(starts) - 1)]
        low, high = int(wanted[0]), int(wanted[-1]) + VIDEO_ROWS
        before = min(low, 1)  # the sample before the first one counts, too
        rows = cepstra(wave[(low - before) * HOP : (high - 1) * HOP + WINDOW])[before:]
        return torch.from_numpy(video_windows(rows, wanted - low).astype(np.float32))

    return states
