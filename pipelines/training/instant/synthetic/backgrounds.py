"""Sounds without speech, the mouth closed: noise, music, percussion, bursts, plucked strings, machines, tones.

All of it is drawn at random. They lie under the speech of the training crops and fill the crops that have none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .....models.speech.mouth_network import SAMPLE_RATE, MouthConfig, mel_filters
from ....types import Progress, no_progress
from .corpus import waveform_mel

SECONDS = 6


def _noise(rng: np.random.Generator, samples: int, steepest: float = 1.2) -> np.ndarray:
    """Noise of standard deviation 1 with a random spectral slope."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    hertz = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 20)
    sound = np.fft.irfft(spectrum * hertz ** -rng.uniform(-0.3, steepest), samples)
    return sound / sound.std()


def _in_band(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """What a random band-pass of one to five octaves, or a resonance, leaves of a sound."""
    from scipy.signal import butter, sosfilt

    low = 10 ** rng.uniform(1.7, 3.6)
    high = min(low * 2 ** rng.uniform(0.7, 5), 7800)
    return sosfilt(butter(int(rng.integers(1, 4)), [low, high], "band", fs=SAMPLE_RATE, output="sos"), sound)


def _add(sound: np.ndarray, part: np.ndarray, start: int) -> None:
    """Lay `part` into `sound` from `start` on, as far as it reaches."""
    stop = min(start + len(part), len(sound))
    sound[start:stop] += part[: stop - start]


def _swell(rng: np.random.Generator, samples: int, decibels: float) -> np.ndarray:
    knots = rng.uniform(-decibels, decibels, int(rng.integers(3, 25)))
    return 10 ** (np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, len(knots)), knots) / 20)


def coloured(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Steady or swelling noise and, at times, mains hum."""
    sound = _noise(rng, samples)
    if rng.random() < 0.3:
        sound = _in_band(rng, sound)
    if rng.random() < 0.7:
        sound = sound * _swell(rng, samples, rng.uniform(3, 15))
    if rng.random() < 0.3:
        t = np.arange(samples) / SAMPLE_RATE
        mains = rng.choice([50, 60])
        sound += sound.std() * sum(np.sin(2 * np.pi * mains * k * t) / k for k in range(1, 8)) * rng.uniform(0.2, 2)
    return sound


def music(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Chords, a melody with vibrato and noise on the beat."""
    sound = np.zeros(samples)
    beat = int(SAMPLE_RATE * 60 / rng.uniform(60, 150))
    root = rng.uniform(80, 220)
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.5 else [0, 2, 3, 5, 7, 8, 10])
    rolloff = rng.uniform(0.7, 2.0)
    for start in range(0, samples, beat):
        degree = int(rng.integers(0, 7))
        notes = [scale[(degree + k) % 7] for k in (0, 2, 4)] if rng.random() < 0.7 else []
        notes += [scale[int(rng.integers(0, 7))] + 12 for _ in range(int(rng.integers(0, 3)))]
        t = np.arange(int(beat * rng.choice([0.5, 1, 2]))) / SAMPLE_RATE
        decay = np.exp(-t * rng.uniform(0.3, 6)) * np.minimum(1, t * rng.uniform(20, 300))
        for note in notes:
            hertz = root * 2 ** (note / 12)
            phase = 2 * np.pi * hertz * t + rng.uniform(0, 0.1) * np.sin(2 * np.pi * 5.5 * t) * hertz / 5.5 * 0.1
            partials = range(1, min(12, int(7500 / hertz) + 1))
            _add(sound, decay * sum(np.sin(k * phase) / k**rolloff for k in partials), start)
        if rng.random() < 0.6:
            hit = rng.standard_normal(len(t)) * np.exp(-t * rng.uniform(20, 80)) * rng.uniform(0.3, 3)
            _add(sound, hit, start)
    return sound


def _drum(rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """One instrument: skin, metal, wood or hands; each stroke differs a little from the last."""
    decay, pitch, drop = 10 ** rng.uniform(0.5, 2.2), 10 ** rng.uniform(1.6, 3.0), rng.uniform(0, 1.5)
    partials = np.concatenate([[1.0], rng.uniform(1.3, 6, int(rng.integers(0, 5)))])
    tonal = rng.choice([0.0, rng.uniform(0, 2)])
    slow = rng.uniform(0.0, 0.03) if rng.random() < 0.3 else 0.0005
    strikes = int(rng.integers(2, 6)) if rng.random() < 0.25 else 1
    length = int(SAMPLE_RATE * min(1.2, 7 / decay + 4 * slow))
    t = np.arange(length) / SAMPLE_RATE
    band = int(rng.integers(1 << 32))

    def stroke() -> np.ndarray:
        rustle = _in_band(np.random.default_rng(band), rng.standard_normal(length))
        rustle = rustle / (np.abs(rustle).max() + 1e-9)
        bend = np.cumsum(pitch * (1 + drop * np.exp(-t * 25))) / SAMPLE_RATE
        ring = sum(np.sin(2 * np.pi * ratio * bend) * np.exp(-t * decay * ratio) / ratio for ratio in partials)
        hit = (rustle + tonal * ring) * np.exp(-t * decay * rng.uniform(0.9, 1.1)) * (1 - np.exp(-t / slow))
        whole = np.zeros(length + 800)
        for strike in range(strikes):
            _add(whole, hit * rng.uniform(0.5, 1), strike and int(rng.uniform(60, 250) * strike))
        return whole * rng.uniform(0.8, 1.1)

    return stroke


def percussion(rng: np.random.Generator, samples: int) -> np.ndarray:
    """One to five drums, each repeating a rhythm of its own over sixteen steps, at times with music."""
    sound = np.zeros(samples)
    step = SAMPLE_RATE * 60 / rng.uniform(60, 180) / 4
    swing = rng.choice([0.0, 0.15, 0.3])
    for _ in range(int(rng.integers(1, 6))):
        stroke, loudness = _drum(rng), 10 ** rng.uniform(-1, 0)
        rhythm = np.tile(rng.random(int(rng.choice([4, 8, 16]))) < rng.uniform(0.06, 0.8), 16)[:16]
        rhythm[0] |= not rhythm.any()
        offset = int(rng.integers(16))
        for place in range(int(samples / step)):
            if rhythm[(place + offset) % 16] and rng.random() < 0.95:
                start = (place + swing * (place % 2)) * step + rng.normal(0, 60)
                _add(sound, loudness * rng.uniform(0.4, 1) * stroke(), max(0, int(start)))
    if rng.random() < 0.25:
        tune = music(rng, samples)
        sound += tune * sound.std() / (tune.std() + 1e-9) * 10 ** rng.uniform(-1, 0.3)
    return sound


def bursts(rng: np.random.Generator, samples: int) -> np.ndarray:
    """One knock to a shower of drops: footsteps, keys, applause, fire, rain, birds, doors, all at random moments."""
    sound = np.zeros(samples)
    rate = 10 ** rng.uniform(-0.7, 2.3)
    low, high = np.sort(10 ** rng.uniform(2, 3.8, 2))
    slowest = rng.uniform(0.5, 2.3)
    chirping, spread = rng.choice([0.0, 0.0, rng.random(), 1.0]), rng.uniform(0, 1.5)
    shared = int(rng.integers(1 << 32))
    for _ in range(max(1, rng.poisson(rate * samples / SAMPLE_RATE))):
        decay = 10 ** rng.uniform(slowest, 2.8)
        t = np.arange(int(SAMPLE_RATE * min(0.8, 6 / decay))) / SAMPLE_RATE
        if rng.random() < chirping:
            hertz = rng.uniform(low, high) * 2 ** (rng.uniform(-1, 1) * t * 8)
            burst = np.sin(2 * np.pi * np.cumsum(np.minimum(hertz, 7800)) / SAMPLE_RATE)
        else:
            burst = rng.standard_normal(len(t))
            if rate < 30:
                burst = _in_band(np.random.default_rng(shared), burst)
            burst = burst / (np.abs(burst).max() + 1e-9)
        burst = burst * np.exp(-t * decay) * np.minimum(1, t * 10 ** rng.uniform(1.8, 3.5))
        _add(sound, burst * np.exp(rng.normal(0, spread)), int(rng.integers(samples)))
    if rng.random() < 0.4:
        sound += _noise(rng, samples) * sound.std() * 10 ** rng.uniform(-2, 0)
    return _in_band(rng, sound) if rng.random() < 0.3 else sound


def plucked(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Strings, keys and bells: notes whose higher partials die first, coloured by a body's resonances."""
    from scipy.signal import lfilter

    sound = np.zeros(samples)
    root, inharmonic = 10 ** rng.uniform(1.6, 2.7), rng.choice([0.0, 0.0, rng.uniform(0, 0.01), 0.2])
    decay, damping, rolloff = 10 ** rng.uniform(-0.3, 1.3), rng.uniform(0.0, 0.6), rng.uniform(0.2, 1.8)
    notes = root * 2 ** (np.array([0, 2, 3, 5, 7, 8, 10, 12, 15, 19]) / 12)
    step = int(SAMPLE_RATE * rng.uniform(0.08, 0.6))
    attack = 10 ** rng.uniform(1.3, 3)
    for start in range(0, samples, step):
        if rng.random() < 0.25:
            continue
        t = np.arange(int(SAMPLE_RATE * min(2.0, 5 / decay))) / SAMPLE_RATE
        for hertz in rng.choice(notes, int(rng.choice([1, 1, 2, 3]))):
            partials = np.arange(1, max(2, min(25, int(7500 / hertz))))
            stretched = hertz * partials * (1 + inharmonic * (partials - 1))
            for number, partial in zip(partials, stretched, strict=True):
                if partial < 7800:
                    swing = np.sin(2 * np.pi * partial * t + rng.uniform(0, 6))
                    fade = np.exp(-t * decay * (1 + damping * number)) * np.minimum(1, t * attack)
                    _add(sound, swing * fade / number**rolloff, start)
    for _ in range(int(rng.integers(0, 4))):
        pole = rng.uniform(0.9, 0.985) * np.exp(2j * np.pi * 10 ** rng.uniform(2, 3.5) / SAMPLE_RATE)
        sound = lfilter([1, -1], [1, -2 * pole.real, abs(pole) ** 2], sound)
    return sound


def machine(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Engines, fans, saws, helicopters: a turning pulse through resonances, with noise that turns along."""
    from scipy.signal import lfilter

    speed = 10 ** rng.uniform(0.8, 2.3) * 2 ** np.interp(
        np.linspace(0, 1, samples), np.linspace(0, 1, 8), np.cumsum(rng.normal(0, rng.choice([0.02, 0.3]), 8))
    )
    phase = np.cumsum(speed) / SAMPLE_RATE
    pulse = (np.diff(np.floor(phase), prepend=0) > 0).astype(float) * rng.uniform(0.7, 1, samples)
    turning = 1 + rng.uniform(0, 1) * np.sin(2 * np.pi * phase * rng.choice([0.25, 0.5, 1]))
    sound = rng.uniform(0, 10) * pulse + _noise(rng, samples) * turning * rng.uniform(0.02, 1)
    for _ in range(int(rng.integers(1, 5))):
        pole = rng.uniform(0.8, 0.98) * np.exp(2j * np.pi * 10 ** rng.uniform(1.7, 3.6) / SAMPLE_RATE)
        sound = lfilter([1, -1], [1, -2 * pole.real, abs(pole) ** 2], sound)
    return sound * _swell(rng, samples, rng.uniform(0, 6))


def tones(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Steady or gliding tones, sirens, beeps, hum, knocks: everyday sounds that a voice is easily taken for."""
    t = np.arange(samples) / SAMPLE_RATE
    sound = np.zeros(samples)
    for _ in range(int(rng.integers(1, 4))):
        start = 10 ** rng.uniform(1.5, 3.6)
        depth, pace = rng.choice([0, 0, 0.3, rng.uniform(0, 2)]), 10 ** rng.uniform(-1.3, 1.0)
        wave = np.sin(2 * np.pi * pace * t + rng.uniform(0, 6))
        hertz = np.minimum(start * 2 ** ((np.sign(wave) if rng.random() < 0.2 else wave) * depth), 7800)
        phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
        partials = range(1, 2 if rng.random() < 0.6 else 7)
        pulse = 1 if rng.random() < 0.6 else np.clip(np.sin(2 * np.pi * rng.uniform(0.3, 6) * t) * 5, 0, 1)
        sound += pulse * sum(np.sin(k * phase) / k for k in partials) * rng.uniform(0.1, 1)
    if rng.random() < 0.4:
        for place in rng.integers(0, samples - 4000, int(rng.integers(1, 20))):
            knock = np.exp(-np.arange(4000) / rng.uniform(30, 800))
            sound[place : place + 4000] += knock * rng.standard_normal(4000)
    return sound + 10 ** rng.uniform(-4, -1) * rng.standard_normal(samples)


def hiss(rng: np.random.Generator, samples: int) -> np.ndarray:
    """White noise, as of amplifiers and microphones: coloured noise is seldom as bright."""
    return rng.standard_normal(samples)


KINDS = (coloured, music, percussion, bursts, plucked, machine, tones, percussion, bursts, hiss)
"""Percussion and bursts are the hardest to separate from consonants, so there are more of them."""


def make_backgrounds(seed: int, count: int, progress: Progress = no_progress) -> list[np.ndarray]:
    """Mel power (600, mels) of `count` sounds of six seconds, 0 dB loud, no speech."""
    filters = mel_filters(MouthConfig().mels)
    rng = np.random.default_rng([seed, 7])
    sounds = []
    for index in range(count):
        sound = KINDS[index % len(KINDS)](rng, SECONDS * SAMPLE_RATE)
        mel = waveform_mel(sound.astype(np.float32), filters)[: SECONDS * 100]
        sounds.append((mel / mel.mean()).astype(np.float32))
        progress(len(sounds), count)
    return sounds
