"""The mouth's training corpus on disk (mel power and phone times) and how each crop of it is varied.

Everything that can be done to mel power is done when a crop is drawn, so that no crop comes twice: vocal-tract
length, tempo, room, colour, band limits, noise, music, gain, silence. What needs the waveform (pitch, voice, rate) is
the synthesisers' part.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .....models.array_file import read_arrays
from .....models.speech.acoustic_encoder import BANDS, acoustic_filters
from .....models.speech.mouth_network import FFT, HOP, SAMPLE_RATE, MouthConfig, mel_filters, mel_power
from ....errors import TalkingPortraitError
from ....files.output_paths import replacing, writing
from ....types import Progress, no_progress
from .speech import PHONES, Espeak, require_synthesisers, speak_random

SHARD = 200
"""Utterances in one file."""
MEL_RATE = SAMPLE_RATE // HOP
_QUIET = 1e-9
_LOUDEST = 20.0
"""Far beyond every log10 of mel power."""


@dataclass(frozen=True)
class Spoken:
    """One utterance: `mel` (frames, mels) log10 of power at 100 Hz, `phones` (N,), `edges` (N + 1,) seconds, `voice`.

    `acoustic` (frames, 80) is the same as `mel` in the bands of the acoustic encoder, None where it was not read.
    """

    mel: np.ndarray
    phones: np.ndarray
    edges: np.ndarray
    voice: str
    acoustic: np.ndarray | None = None


def waveform_mel(waveform: np.ndarray, filters: torch.Tensor) -> np.ndarray:
    """Mel power (frames, mels) by filters (mels, size // 2 + 1), frame k centred on sample k * HOP."""
    reach = filters.shape[1] - 1
    padded = torch.nn.functional.pad(torch.from_numpy(waveform).float(), (reach, FFT // 2 + HOP))
    return mel_power(padded, filters).numpy()


def _shard_path(job: tuple[Path, int, int, bool]) -> Path:
    folder, _, number, held_out = job
    return folder / f"{'held' if held_out else 'speech'}-{number:04d}.npz"


def _make_shard(job: tuple[Path, int, int, bool]) -> None:
    folder, seed, number, held_out = job
    torch.set_num_threads(1)
    path = _shard_path(job)
    filters = mel_filters(MouthConfig().mels)
    espeak = Espeak()
    rng = np.random.default_rng([seed, number, int(held_out)])
    mels, acoustic, phones, edges, voices, sizes = [], [], [], [], [], []
    for _ in range(SHARD):
        spoken = speak_random(espeak, rng, held_out)
        mel, bands = (waveform_mel(spoken.waveform, each) for each in (filters, acoustic_filters()))
        mels.append(np.log10(mel + _QUIET).astype(np.float16))
        acoustic.append(np.log10(bands[: len(mel)] + _QUIET).astype(np.float16))
        phones.append(spoken.phones)
        edges.append(spoken.edges)
        voices.append(spoken.voice)
        sizes.append((len(mel), len(spoken.phones)))
    with replacing(path) as partial:
        np.savez(partial, mel=np.concatenate(mels), phones=np.concatenate(phones), edges=np.concatenate(edges),
                 voices=np.array(voices), sizes=np.array(sizes), acoustic=np.concatenate(acoustic))  # fmt: skip


def make_corpus(
    folder: Path, seed: int, shards: int, held_out_shards: int, workers: int, progress: Progress = no_progress
) -> None:
    """Speak `shards` files of training and `held_out_shards` of held-out utterances; files that exist are kept."""
    jobs = [(folder, seed, n, True) for n in range(held_out_shards)] + [(folder, seed, n, False) for n in range(shards)]
    jobs = [job for job in jobs if not _shard_path(job).exists()]
    if not jobs:
        return
    require_synthesisers()
    _require_import()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # espeak-ng keeps state between utterances, so each file gets a process of its own and is the same every time.
    context = get_context("spawn")
    errors = context.SimpleQueue()
    running: dict[Any, Any] = {}
    done = 0
    try:
        while done < len(jobs):
            for job in jobs[done + len(running) :][: workers - len(running)]:
                process = context.Process(target=_speak, args=(job, errors))
                process.start()
                running[process.sentinel] = process
            for sentinel in wait(running):
                code = _ended(running.pop(sentinel))
                if code:
                    ended = f"a process ended with code {code}; start again with fewer --workers."
                    raise TalkingPortraitError(
                        f"The corpus can't be spoken: {ended if errors.empty() else errors.get()}"
                    )
                done += 1
                progress(done, len(jobs))
    finally:
        for process in running.values():
            process.terminate()
            _ended(process)


def _speak(job: tuple[Path, int, int, bool], errors: SimpleQueue[str]) -> None:
    """What a process does: an error that users can mend is put into `errors`."""
    # Ctrl-C reaches all processes of a terminal; the first ends the others, which then remove what they have begun.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
    try:
        _make_shard(job)
    except TalkingPortraitError as error:
        errors.put(str(error))
        sys.exit(1)


def _ended(process: Any) -> int:
    process.join()
    return int(process.exitcode)


def _require_import() -> None:
    """Raises TalkingPortraitError where a new process could not import the pack, which was started as a folder."""
    pack = __name__.partition(".")[0]
    if not any(finder.find_spec(pack, None) for finder in sys.meta_path):
        raise TalkingPortraitError(
            f"The processes that speak the corpus can't import {pack}; install it (pip install --no-deps -e FOLDER) "
            f"and train by: python -m {pack} train"
        )


def read_corpus(
    folder: Path, held_out: bool = False, *, acoustic: bool = False, shards: int | None = None
) -> list[Spoken]:
    """All utterances of the folder's training or held-out files, or those of the first `shards` of them.

    `acoustic` reads the bands of the acoustic encoder as well. Raises TalkingPortraitError for a damaged file.
    """
    spoken = []
    for path in sorted(folder.glob("held-????.npz" if held_out else "speech-????.npz"))[:shards]:
        try:
            spoken += _read_shard(path, acoustic)
        except Exception as error:  # zip, NumPy and their decoders each have their own for a damaged file
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise TalkingPortraitError(
                f"{path} is no part of a spoken corpus ({reason}); remove it, and it is spoken again."
            ) from None
    return spoken


def _read_shard(path: Path, acoustic: bool) -> list[Spoken]:
    """Raises ValueError or whatever its decoder raises for a damaged file, or one without `acoustic` bands."""
    names = ("mel", "phones", "edges", "voices", "sizes", *["acoustic"] * acoustic)
    arrays = read_arrays(path, names)
    if acoustic and "acoustic" not in arrays:
        raise ValueError("an earlier version spoke it, without what the acoustic encoder takes")
    mel, phones, edges, voices, sizes = (arrays[name] for name in names[:5])
    bands = arrays.get("acoustic")
    if sizes.ndim != 2 or sizes.shape != (len(voices), 2) or sizes.dtype.kind not in "iu" or sizes.min(initial=2) < 1:
        raise ValueError("its sizes are not those of utterances")
    frames, spoken_phones = (int(count) for count in sizes.sum(0))
    if mel.shape != (frames, MouthConfig().mels) or phones.shape != (spoken_phones,):
        raise ValueError("its arrays are not as long as its sizes say")
    if edges.shape != (spoken_phones + len(sizes),) or edges.dtype.kind != "f" or mel.dtype.kind != "f":
        raise ValueError("its arrays are not as long as its sizes say")
    if bands is not None and (bands.shape != (frames, BANDS) or bands.dtype.kind != "f"):
        raise ValueError("its arrays are not as long as its sizes say")
    levels = [rows.astype(np.float32) for rows in (mel, bands) if rows is not None]
    if not all((np.abs(rows) < _LOUDEST).all() for rows in levels) or not np.isfinite(edges).all():
        raise ValueError("its values are no levels and times")
    if phones.dtype.kind not in "iu" or not ((phones >= 0) & (phones < len(PHONES))).all():
        raise ValueError("it has phones that are not known")
    spoken, mel_end, phone_end, edge_end = [], 0, 0, 0
    for (frames, count), voice in zip(sizes.tolist(), voices, strict=True):
        mel_end, phone_end, edge_end = mel_end + frames, phone_end + count, edge_end + count + 1
        times = edges[edge_end - count - 1 : edge_end]
        if frames < 2 or (np.diff(times) < 0).any():
            raise ValueError("an utterance has no length, or its phones' times fall")
        rows = slice(mel_end - frames, mel_end)
        encoded = None if bands is None else bands[rows]
        spoken.append(Spoken(mel[rows], phones[phone_end - count : phone_end], times, str(voice), encoded))
    return spoken


def warp_bands(mel: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Move the mel axis by `shifts` bands, given at evenly spaced places along it: another mouth and vowel space."""
    bands = mel.shape[1]
    source = np.arange(bands) + np.interp(np.arange(bands), np.linspace(0, bands - 1, len(shifts)), shifts)
    low = np.clip(np.floor(source).astype(int), 0, bands - 2)
    part = np.clip(source - low, 0, 1).astype(np.float32)
    return mel[:, low] * (1 - part) + mel[:, low + 1] * part


def room(mel: np.ndarray, seconds: float, direct_db: float) -> np.ndarray:
    """Add a diffuse tail to mel power: exponential decay by 60 dB in `seconds`, `direct_db` under the direct sound."""
    from scipy.signal import lfilter

    keep = 10 ** (-6 / (seconds * MEL_RATE))
    tail = lfilter([0, 1 - keep], [1, -keep], mel, axis=0)
    return (mel + 10 ** (direct_db / 10) * tail).astype(np.float32)


def whispered(mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mel power as if whispered: no voice below the first formant, and the flutter of breath in every band."""
    bands = mel.shape[1]
    voice = np.clip(1 - np.arange(bands) / rng.uniform(6, 14), 0, 1)
    # A band's power is a mean over the bins of its filter, so the wide ones flutter less.
    bins = np.linspace(1, 8, bands)
    flutter = rng.gamma(bins, 1 / bins, mel.shape)
    return (mel * 10 ** (-rng.uniform(1, 3) * voice) * flutter).astype(np.float32)


def vary(mel: np.ndarray, backgrounds: list[np.ndarray], rng: np.random.Generator, speech: bool) -> np.ndarray:
    """Mel power (frames, mels) of the same speech from another mouth, in another room, through another channel.

    Without `speech` the backgrounds are alone, as loud as speech would be.
    """
    bands = mel.shape[1]
    mel = np.maximum(mel, _QUIET)
    # The common part is the length of the vocal tract, the rest how one speaker's formants lie apart from another's.
    voice = warp_bands(np.log10(mel), rng.normal(0, 1.4) + rng.normal(0, 0.7, 6))
    if rng.random() < 0.5:  # wider or sharper formants, breath and harmonics
        near = (voice + np.roll(voice, 1, axis=1) + np.roll(voice, -1, axis=1)) / 3
        near[:, [0, -1]] = voice[:, [0, -1]]
        voice = voice + rng.uniform(-0.5, 1.0) * (near - voice)
    if rng.random() < 0.5:  # flatter or livelier spectra, and flatter or livelier loudness
        middle = voice.mean(1, keepdims=True)
        loudness = middle.mean() + (middle - middle.mean()) * rng.uniform(0.75, 1.1)
        voice = loudness + (voice - middle) * rng.uniform(0.75, 1.15)
    mel = 10**voice
    if rng.random() < 0.06:
        mel = whispered(mel, rng)
    if rng.random() < 0.5:
        mel = room(mel, rng.uniform(0.15, 0.9), rng.uniform(-16, 0))
    knots = rng.normal(0, rng.uniform(0, 5), 6)
    colour = np.interp(np.linspace(0, 5, bands), np.arange(6), knots) + rng.uniform(-9, 9) * np.linspace(-1, 1, bands)
    mel = mel * 10 ** (colour / 10)
    if rng.random() < 0.3:  # automatic gain and speakers who come and go
        swing = np.interp(np.linspace(0, 4, len(mel)), np.arange(5), rng.uniform(-5, 5, 5))
        mel = mel * 10 ** (swing[:, None] / 10)
    loud = np.quantile(mel.mean(1), 0.9) + _QUIET if speech else 1e-2
    for _ in range(int(rng.integers(0, 3) if speech else rng.choice([0, 1, 1, 1, 1, 2]))):
        background = backgrounds[int(rng.integers(len(backgrounds)))]
        start = int(rng.integers(len(background)))
        rows = np.arange(start, start + len(mel)) % len(background)
        ratio = rng.uniform(6, 45)
        mel = mel + background[rows] * loud * 10 ** (-ratio / 10)
    if rng.random() < 0.25:  # telephone, small loudspeakers, low bit rates
        top, bottom = int(rng.integers(26, bands)), int(rng.integers(0, 5))
        mel = mel.copy()
        mel[:, top:] *= 10 ** -rng.uniform(2, 6)
        mel[:, :bottom] *= 10 ** -rng.uniform(1, 4)
    return (mel * 10 ** rng.uniform(-2.0, 1.0)).astype(np.float32)
