"""Sounds without speech, synthesised otherwise than the training data, and speech to mix with them.

Each is (samples,) float32 at 16 kHz with a peak of one half.
"""

from __future__ import annotations

import numpy as np
import torch

RATE = 16000
SECONDS = 8


def _peak(sound: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(0.5 * sound / np.abs(sound).max()).float()


def _band(sound: np.ndarray, low: float, high: float) -> np.ndarray:
    from scipy.signal import butter, sosfilt

    return sosfilt(butter(2, [low, high], "band", fs=RATE, output="sos"), sound)


def noise(colour: float, seconds: float = SECONDS, seed: int = 1) -> np.ndarray:
    """Gaussian noise of standard deviation 1 whose amplitude falls as frequency to the power of `colour`."""
    samples = int(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    sound = np.fft.irfft(spectrum * np.maximum(np.arange(len(spectrum)), 20 * seconds) ** -colour, samples)
    return sound / sound.std()


def _drum(name: str, random: np.random.Generator) -> np.ndarray:
    t = np.arange(RATE // 2) / RATE
    breath = random.standard_normal(len(t))
    if name == "kick":
        return np.sin(2 * np.pi * np.cumsum(50 + 90 * np.exp(-30 * t)) / RATE) * np.exp(-9 * t)
    if name == "snare":
        return 0.6 * _band(breath, 800, 7000) * np.exp(-22 * t) + 0.5 * np.sin(2 * np.pi * 190 * t) * np.exp(-25 * t)
    if name == "hat":
        return _band(breath, 5000, 7900) * np.exp(-60 * t)
    if name == "open hat":
        return _band(breath, 5000, 7900) * np.exp(-8 * t)
    if name == "clap":
        clap = np.zeros(len(t))
        for delay, decay in ((0.0, 150), (0.011, 150), (0.021, 150), (0.030, 35)):
            start = int(delay * RATE)
            clap[start:] += (_band(breath, 900, 3000) * np.exp(-decay * t))[: len(t) - start]
        return clap
    if name == "tom":
        return np.sin(2 * np.pi * np.cumsum(110 + 60 * np.exp(-20 * t)) / RATE) * np.exp(-10 * t)
    if name == "conga":
        partials = ((1, 1, 14), (1.6, 0.5, 22), (2.1, 0.3, 30))
        return sum(loud * np.sin(2 * np.pi * 240 * ratio * t) * np.exp(-decay * t) for ratio, loud, decay in partials)
    assert name == "burst"
    return breath * np.exp(-25 * t)


def drums(beats_a_minute: float, **rhythms: str) -> torch.Tensor:
    """A loop in sixteenths: an x for each stroke of the drum of that name (open_hat for open hat)."""
    random = np.random.default_rng(0)
    step = 60 / beats_a_minute / 4
    sound = np.zeros((SECONDS + 1) * RATE)
    for place in range(int(SECONDS / step)):
        for name, rhythm in rhythms.items():
            if rhythm[place % len(rhythm)] == "x":
                stroke = _drum(name.replace("_", " "), random) * random.uniform(0.7, 1)
                start = int(place * step * RATE)
                sound[start : start + len(stroke)] += stroke
    return _peak(sound[: SECONDS * RATE])


def shower(rate: float, length: float, low: float, high: float, bed: float = 0.0) -> torch.Tensor:
    """`rate` short noises a second, each `length` seconds, over a `bed` of steady noise: drops, claps, steps, keys."""
    random = np.random.default_rng(2)
    sound = bed * noise(0.3)
    for _ in range(int(rate * SECONDS)):
        t = np.arange(int(5 * length * RATE)) / RATE
        burst = _band(random.standard_normal(len(t)), low, high) * np.exp(-t / length / random.uniform(0.6, 1.4))
        start = int(random.integers(len(sound) - len(burst)))
        sound[start : start + len(burst)] += burst * random.uniform(0.2, 1)
    return _peak(sound)


def strokes(rate: float, low: float, high: float, sharpness: float = 1.0) -> torch.Tensor:
    """Noise of one colour that swells `rate` times a second: sawing, sanding, a fan in the wind."""
    t = np.arange(SECONDS * RATE) / RATE
    return _peak(_band(noise(0.0, seed=4), low, high) * np.abs(np.sin(np.pi * rate * t)) ** sharpness)


def rustling() -> torch.Tensor:
    """Paper: crackling in pushes of any length, with pauses."""
    random = np.random.default_rng(5)
    sound, place = np.zeros((SECONDS + 1) * RATE), 0
    while place < SECONDS * RATE:
        samples = int(random.uniform(0.1, 0.6) * RATE)
        crackle = random.standard_normal(samples) * (random.random(samples) < 0.1)
        sound[place : place + samples] += _band(crackle, 1500, 7500) * np.hanning(samples)
        place += samples + int(random.uniform(0, 0.4) * RATE)
    return _peak(sound[: SECONDS * RATE])


def tune(partials: int, resonance: float, seed: int = 6) -> torch.Tensor:
    """A melody of held notes through one resonance, as of brass."""
    from scipy.signal import lfilter

    random = np.random.default_rng(seed)
    sound, place = np.zeros((SECONDS + 1) * RATE), 0
    while place < SECONDS * RATE:
        t = np.arange(int(random.uniform(0.12, 0.6) * RATE)) / RATE
        phase = 2 * np.pi * 340 * 2 ** (random.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12) * t
        note = sum(np.sin(k * phase) / k**0.6 for k in range(1, partials + 1))
        sound[place : place + len(t)] += note * np.clip(20 * np.minimum(t, t[::-1]), 0, 1)
        place += len(t)
    pole = 0.95 * np.exp(2j * np.pi * resonance / RATE)
    return _peak(lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], sound[: SECONDS * RATE]))


def engine() -> torch.Tensor:
    t = np.arange(SECONDS * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(45 + 15 * np.sin(2 * np.pi * 0.2 * t)) / RATE
    sound = sum(np.sin(k * phase + k) / k**0.7 for k in range(1, 30)) * (1 + 0.3 * np.sin(phase / 2))
    return _peak(sound + 0.5 * noise(0.7))


def chords() -> torch.Tensor:
    t = np.arange(SECONDS * RATE) / RATE
    root = 220 * 2 ** (np.array([0, 5, 7, 3])[(t * 1.5).astype(int) % 4] / 12)
    partials = sum(np.sin(2 * np.pi * root * r * k * t) / k for r in (1, 1.25, 1.5) for k in range(1, 6))
    return _peak(np.exp(-3 * (t * 1.5 % 1)) * partials)


def guitar() -> torch.Tensor:
    """Plucked strings (Karplus and Strong 1983)."""
    from scipy.signal import lfilter

    random = np.random.default_rng(3)
    sound = np.zeros((SECONDS + 1) * RATE)
    for start in range(0, SECONDS * RATE, RATE // 4):
        period = int(random.choice([150, 134, 120, 100, 89, 75]))
        pluck = np.zeros(12000)
        pluck[:period] = random.uniform(-1, 1, period)
        loop = np.concatenate([[1], np.zeros(period - 1), [-0.498, -0.498]])
        sound[start : start + len(pluck)] += lfilter([1], loop, pluck)
    return _peak(sound[: SECONDS * RATE])


def tone(hertz: float, depth: float = 0.0) -> torch.Tensor:
    """A pure tone; with `depth` a siren that swings so many hertz to either side twice in four seconds."""
    t = np.arange(SECONDS * RATE) / RATE
    return _peak(np.sin(2 * np.pi * np.cumsum(hertz + depth * np.sin(np.pi * t)) / RATE))


RHYTHM_SECTION = {"kick": "x.......x.x.....", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."}

WITHOUT_SPEECH = {
    "silence": torch.zeros(SECONDS * RATE),
    "hiss": torch.from_numpy(1e-5 * noise(0.0)).float(),
    "tape hiss": torch.from_numpy(1e-3 * noise(0.0)).float(),
    "offset": torch.full((SECONDS * RATE,), 0.3),
    "tone": tone(440),
    "hum": tone(50),
    "siren": tone(900, 300),
    "white": torch.from_numpy(0.1 * noise(0.0)).float(),
    "loud white": torch.from_numpy(0.3 * noise(0.0)).float(),
    "clipped white": torch.from_numpy(noise(0.0)).float().clamp(-1, 1),
    "pink": torch.from_numpy(0.1 * noise(0.5)).float(),
    "brown": torch.from_numpy(0.1 * noise(1.0)).float(),
    "chords": chords(),
    "guitar": guitar(),
    "band": _peak((chords() + drums(110, **RHYTHM_SECTION)).numpy()),
    "rock": drums(110, **RHYTHM_SECTION),
    "disco": drums(124, kick="x...", snare="....x...", open_hat="..x."),
    "hip hop": drums(88, kick="x.....x...x.....", clap="....x.......x...", hat="x.xxx.x.x.xxx.xx"),
    "latin": drums(105, conga="x.xx.xx.xx.x.xxx", tom="............x.x.", hat="x..x"),
    "toms": drums(100, tom="x.x.xx.x"),
    "hats": drums(120, hat="x."),
    "claps": drums(90, clap="x..."),
    "noise bursts": drums(75, burst="x..."),
    "fast noise bursts": drums(100, burst="x.x.x..x"),
    "applause": shower(60, 0.012, 800, 4000),
    "rain": shower(250, 0.004, 1000, 7000, bed=0.05),
    "steps": shower(2, 0.04, 80, 900),
    "typing": shower(7, 0.005, 1000, 6000),
    "engine": engine(),
    "sawing": strokes(2.8, 800, 5000, 1.5),
    "sanding": strokes(6, 1500, 7000),
    "fluttering": strokes(8, 100, 6000, 0.7),
    "rustling": rustling(),
    "brass": tune(10, 1200),
    "reed": tune(16, 700),
}


def whispered(sound: np.ndarray, order: int = 18, window: int = 480) -> np.ndarray:
    """Speech (samples,) at 16 kHz without its voice: noise through its linear prediction, window by window."""
    from scipy.linalg import solve_toeplitz
    from scipy.signal import lfilter

    breath = np.random.default_rng(0).standard_normal(len(sound))
    shape = np.hanning(window)
    lifted = lfilter([1, -0.95], [1], sound)  # left so: whispers lack the low end
    out = np.zeros(len(sound))
    for start in range(0, len(sound) - window, window // 3):
        piece = slice(start, start + window)
        frame = lifted[piece] * shape
        r = np.correlate(frame, frame, "full")[window - 1 : window + order]
        if r[0] > 1e-9:
            r[0] *= 1.0001
            a = solve_toeplitz(r[:order], r[1 : order + 1])
            gain = np.sqrt(max(r[0] - a @ r[1 : order + 1], 0) / (shape**2).sum())
            out[piece] += lfilter([gain], np.concatenate([[1], -a]), breath[piece]) * shape
    return (0.3 * out / np.abs(out).max()).astype(np.float32)
