"""Speech features: hidden states of wav2vec2 or HuBERT in the timing that a system was trained with.

"resampled"  the convolutions' features are stretched to one per video frame before the transformer (AniPortrait, Hallo)
"stock"      the encoder's own 50 Hz
"paired"     stock, its last frame repeated once, then cut to two for each frame of 25 fps video (AniTalker)
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import torch

from ...models.speech.encoder import SAMPLE_RATE, SpeechEncoder, resample_time
from ..errors import TalkingPortraitError, quoted
from ..timing import as_rate, frame_count
from ..types import TIMINGS, Audio, Progress, SpeechFeatures, Timing, no_progress
from .overlapping_windows import blended_windows, window_seconds
from .waveform import check_audio, mono, resample

STOCK_FPS = Fraction(50)


@torch.no_grad()
def encode(
    audio: Audio,
    encoder: SpeechEncoder,
    *,
    fps: float | Fraction = 25,
    timing: Timing = "resampled",
    layers: Literal["all", "last"] = "all",
    mix: torch.Tensor | None = None,
    frame_multiple: int = 1,
    chunk_seconds: float | None = None,
    device: torch.device | None = None,
    progress: Progress = no_progress,
) -> SpeechFeatures:
    """Hidden states (frames, layers, channels) of a recording.

    Args:
        audio: any rate and channel count; mixed to mono and resampled to 16 kHz.
        fps: video frame rate, used by "resampled" alone.
        layers: "all" gives the state before the first layer and after each (13 for base, 25 for large), "last" one.
        mix: the share (layers + 1,) of each hidden state: their weighted sum alone is kept, gathered while the encoder
            runs, so that memory holds one state of long speech and not 25. Overrules `layers`.
        frame_multiple: for "resampled": silence after the clip fills frames up to a multiple (Hallo: its clip length);
            the features say how many they are, so that a video can leave them out.
        chunk_seconds: length of the transformer's windows. By default a clip of up to 120 s passes in one piece, which
            is what every published system does, and a longer one in windows of 60 s. Convolutions are exact for any
            length; windows are an approximation, as a frame then depends on its window and at least 2.5 s beyond, not
            the whole clip. Neighbouring windows are blended, so there is no seam.
        device: where to compute; by default where the encoder is.
        progress: called after each chunk of convolutions and each transformer layer.

    Returns: features on the CPU, float32; their fps is `fps` for "resampled", else 50.

    Raises TalkingPortraitError when the clip is too short for one frame, or an option is out of range.
    """
    if timing not in TIMINGS:
        raise TalkingPortraitError(f"The timing is {quoted(timing)}, but resampled, stock or paired is expected.")
    if mix is not None and len(mix) != encoder.layers + 1:
        raise TalkingPortraitError(
            f"{encoder.name} has {encoder.layers + 1} hidden states, but {len(mix)} are to be mixed; "
            "load the speech encoder that the model was trained with."
        )
    if not (isinstance(frame_multiple, int) and frame_multiple >= 1):
        raise TalkingPortraitError(
            f"The frame multiple is {quoted(frame_multiple)}, but a whole number from 1 is expected."
        )
    if layers not in ("all", "last"):
        raise TalkingPortraitError(f"The layers are {quoted(layers)}, but all or last is expected.")
    audio = check_audio(audio)
    rate = as_rate(fps) if timing == "resampled" else STOCK_FPS
    wave = encoder.prepare(mono(resample(audio, SAMPLE_RATE)))
    frames = frame_count(audio.samples, audio.sample_rate, rate)
    missing = -frames % frame_multiple if timing == "resampled" else 0
    if missing:
        wave = torch.nn.functional.pad(wave, (0, round(missing * SAMPLE_RATE / rate)))
        frames += missing

    length = frames if timing == "resampled" else max(encoder.frames(len(wave)), 1)
    windows = list(blended_windows(length, window_seconds(chunk_seconds, length, rate), rate))
    steps = _Steps(progress, encoder.pieces(len(wave)) + len(windows) * encoder.layers)
    features = encoder.convolve(wave, device=device, step=steps.next)
    if timing == "resampled":
        features = resample_time(features, frames)
    whole = layers == "all" and mix is None
    states = torch.zeros(encoder.layers + 1 if whole else 1, length, encoder.channels)
    for start, end, weight in windows:
        part = encoder.transform(features[:, start:end], every_layer=whole, mix=mix, device=device, step=steps.next)
        states[:, start:end] += part * weight[:, None]

    if timing == "paired":
        states = torch.cat([states, states[:, -1:]], dim=1)[:, : 2 * paired_frames(length)]
    shares = () if mix is None else tuple(mix.tolist())
    return SpeechFeatures(states.transpose(0, 1).contiguous(), rate, encoder.name, timing, shares, missing)


def paired_frames(length: int) -> int:
    """Frames of 25 fps video that `length` stock frames give in the "paired" timing, the last one repeated once."""
    return (length + 1) // 2


class _Steps:
    """Counts pieces of work, of `total`."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def next(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)
