"""Where there is speech: as the mouth network predicts it, near moments in which Silero's detector finds a voice.

The mouth network takes a third of the music in games for speech, the detector a hundredth; and only the network knows
when a mouth moves. What counts as a voice was chosen on 22 recordings of speakers and 150 sounds of games, and tried on
other music (docs/measurements/speech-to-lips.md).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from ...models.curves import smoothstep
from ...models.speech.mouth_network import FRAME_RATE, SAMPLE_RATE, speech_level
from ...models.speech.voice_detector import BEFORE, CHUNK, VoiceDetector, load_voice_detector
from ..progress import check_interrupted
from ..types import Audio
from .mouth_states import convolved_logits
from .mouth_weights import DEFAULT_WEIGHTS, open_mouth
from .phrase_level import levelled_sound
from .waveform import check_audio, mono_at

SPOKEN = (0.06, 0.20)
"""Speech activity under which there is none, and from which it is certain."""
_VOICE = (0.35, 0.60)
"""The detector's probability up to which there is no voice, and from which there is one."""
_LASTING, _NEAR = 9, 51
"""Control frames over which it is averaged, and within which the highest counts: consonants have no voice."""
_PIECE = 1024
"""Chunks that are computed together."""
_LEVEL_DB = -20.0
"""The speech level, in dB of full scale over a chunk, at which the detector gets a recording."""
_MOST_GAIN_DB = 60.0
"""By how much it is made louder at most: what is quieter is hardly more than the last bit's noise."""


@torch.inference_mode()
def speech_activity(audio: Audio) -> np.ndarray:
    """Speech activity (T,) in 0..1 of any sound, 50 a second, by the mouth network that ships.

    Raises TalkingPortraitError for audio that `check_audio` refuses.
    """
    network = open_mouth(DEFAULT_WEIGHTS)
    audio = mono_at(check_audio(audio), SAMPLE_RATE)
    predicted = torch.sigmoid(convolved_logits(network, levelled_sound(network, audio))[:, -1])
    return certain_activity(predicted.numpy(), audio)


def certain_activity(predicted: np.ndarray, audio: Audio) -> np.ndarray:
    """Speech activity (T,) in 0..1 as the network predicts it, where there is a voice in the sound it is of."""
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    lasting = uniform_filter1d(voice_probability(audio, len(predicted)), _LASTING, mode="nearest")
    near = maximum_filter1d(lasting, _NEAR, mode="nearest")
    certain: np.ndarray = predicted * smoothstep(*_VOICE, near)
    return certain


@torch.inference_mode()
def voice_probability(audio: Audio, frames: int) -> np.ndarray:
    """The probability (frames,) in 0..1 of a voice at each control frame, 50 a second."""
    detector = _detector()
    wave = mono_at(audio, SAMPLE_RATE).waveform[0]
    padded = torch.nn.functional.pad(wave, (BEFORE, -len(wave) % CHUNK))
    # A constant offset, as sound cards add it, is no sound; a mean is none where a voice's pulses point to one side.
    padded[BEFORE : BEFORE + len(wave)] -= wave.median()
    chunks = padded.unfold(0, BEFORE + CHUNK, CHUNK)
    loudness = torch.linalg.vector_norm(chunks, dim=1) / (BEFORE + CHUNK) ** 0.5
    level = float(speech_level(20 * torch.log10(loudness + 1e-9)))
    gain = 10 ** (min(_LEVEL_DB - level, _MOST_GAIN_DB) / 20)
    probabilities, state = [], None
    for piece in chunks.split(_PIECE):
        check_interrupted()
        probability, state = detector(piece * gain, state)
        probabilities.append(probability)
    middles = (np.arange(len(chunks)) + 0.5) * CHUNK / SAMPLE_RATE
    return np.interp(np.arange(frames) / FRAME_RATE, middles, torch.cat(probabilities).numpy())


@cache
def _detector() -> VoiceDetector:
    return load_voice_detector()
