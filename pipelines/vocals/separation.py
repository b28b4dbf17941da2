"""A recording parted into voices and everything else, so that music does not move the lips."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..audio.waveform import check_audio, resample
from ..errors import TalkingPortraitError
from ..files.scratch import temporary_folder
from ..files.sound import write_wav
from ..types import Audio, Progress, no_progress
from .separators import SAMPLE_RATE, open_separator

SEGMENT_SECONDS = 120
"""Longer recordings pass in segments, so that memory does not grow with length."""
FADE_SECONDS = 2
"""Over which neighbouring segments are blended."""
STEPS = 100
"""Progress is counted in hundredths of a segment."""


def separate(
    audio: Audio,
    model_path: str | Path,
    *,
    device: torch.device | None = None,
    scratch: Path | None = None,
    progress: Progress = no_progress,
) -> tuple[Audio, Audio]:
    """(vocals, background): as long as the recording, at its rate and with its channels; their sum is the recording.

    audio-separator runs the model at 44.1 kHz in stereo: a mono recording on both sides, more than two channels in
    pairs. Silent stretches are not run.

    Args:
        model_path: Kim_Vocal_2.onnx or another file that `vocal_models.open_separator` takes.
        device: where the network runs; the CPU by default.
        scratch: where the waves that the library reads are put for as long as it does; the system's own folder for
            such files by default. A minute takes 21 MB, never more than two minutes at once.
        progress: called at each chunk that the network handles; may raise to cancel. Nothing is left behind.

    Raises TalkingPortraitError for bad audio, a file that is no separator, or a separator without a vocals stem.
    """
    audio = check_audio(audio)
    separator, module = open_separator(Path(model_path), device or torch.device("cpu"))
    channels = audio.waveform.shape[0]
    pairs = [(i, min(i + 1, channels - 1)) for i in range(0, channels, 2)]
    vocals = torch.zeros_like(audio.waveform)
    for number, (left, right) in enumerate(pairs):

        def report(done: float, number: int = number) -> None:
            progress(round((number + done) * STEPS), len(pairs) * STEPS)

        stereo = resample(Audio(audio.waveform[[left, right]], audio.sample_rate), SAMPLE_RATE).waveform
        found = _separate_stereo(stereo, separator, module, scratch, report)
        found = resample(Audio(found, SAMPLE_RATE), audio.sample_rate).waveform[:, : audio.samples]
        if left == right:
            vocals[left, : found.shape[1]] = found.mean(dim=0)
        else:
            vocals[left : right + 1, : found.shape[1]] = found
    return Audio(vocals, audio.sample_rate), Audio(audio.waveform - vocals, audio.sample_rate)


def _separate_stereo(
    stereo: torch.Tensor,
    separator: Any,
    module: types.ModuleType,
    scratch: Path | None,
    report: Callable[[float], None],
) -> torch.Tensor:
    """(2, samples) at 44.1 kHz to its vocals, in segments whose ends are blended."""
    samples = stereo.shape[1]
    length, fade = round(SEGMENT_SECONDS * SAMPLE_RATE), round(FADE_SECONDS * SAMPLE_RATE)
    count = max(math.ceil((samples - fade) / (length - fade)), 1)
    ramp = (torch.arange(fade) + 1) / (fade + 1)
    vocals = torch.zeros_like(stereo)
    for i in range(count):
        start = i * (length - fade)
        end = samples if i == count - 1 else start + length

        def step(done: float, i: int = i) -> None:
            report((i + done) / count)

        part = _run(stereo[:, start:end], separator, module, scratch, step)
        if i > 0:
            part[:, :fade] *= ramp
        if i < count - 1:
            part[:, -fade:] *= 1 - ramp
        vocals[:, start:end] += part
    report(1.0)
    return vocals


def _run(
    stereo: torch.Tensor,
    separator: Any,
    module: types.ModuleType,
    scratch: Path | None,
    step: Callable[[float], None],
) -> torch.Tensor:
    """One run of audio-separator: a wave file in, the stems caught before they are written.

    The wave goes in at a peak of one, because the library multiplies what its MDX networks give by the peak.
    """
    level = float(stereo.abs().max())
    if level == 0:
        return stereo.clone()
    stems: dict[str, torch.Tensor] = {}

    def catch(path: str, source: Any, name: str) -> None:
        stems[name.lower()] = torch.as_tensor(source).T.float()

    separator.final_process = catch
    with temporary_folder("vocals", scratch) as folder:
        path = folder / "mix.wav"
        write_wav(path, Audio(stereo / level, SAMPLE_RATE))
        try:
            with _watched(module, step), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # 0 / 0 where windows begin, which is cut off, and old torch names
                separator.separate(str(path))
        finally:
            separator.clear_file_specific_paths()
    if "vocals" not in stems:
        raise TalkingPortraitError(
            f"The model {separator.model_name} gives {', '.join(sorted(stems)) or 'nothing'}, but one with vocals is "
            "needed, for instance Kim_Vocal_2.onnx."
        )
    vocals = torch.zeros_like(stereo)
    found = stems["vocals"][:, : stereo.shape[1]] * level
    vocals[:, : found.shape[1]] = found
    return vocals


@contextmanager
def _watched(module: types.ModuleType, step: Callable[[float], None]) -> Iterator[None]:
    """Puts our own counter where the library counts chunks with tqdm: no bar is printed, and any chunk may be last."""
    furthest = 0.0

    def counted(chunks: Iterable[Any]) -> Iterator[Any]:
        nonlocal furthest
        every = list(chunks)
        for i, chunk in enumerate(every):
            furthest = max(furthest, i / len(every))
            step(furthest)
            yield chunk

    original = vars(module)["tqdm"]
    vars(module)["tqdm"] = counted
    try:
        yield
    finally:
        vars(module)["tqdm"] = original
