"""What the mouth network trains on: six-second crops of the spoken corpus and of measured lips, varied at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from ....models.speech.acoustic_encoder import acoustic_filters, acoustic_input, band_power, log_bands
from ....models.speech.mouth_network import CONTROLS, MouthConfig, frame_level, mel_filters, speech_level
from .lips import CURVES, SpokenLips
from .synthetic.corpus import MEL_RATE, Spoken, vary
from .synthetic.targets import mouth_targets, pause_controls, stress

CROP = 600
"""Mel frames in a training crop: six seconds."""
FRAMES = CROP // 2
"""Control frames in it."""
TEMPO = (0.82, 1.22)
"""How much faster a crop of measured lips is than its recording."""
EDGE = 15
"""Control frames beside a silence in which the mouth may be another."""
LipsCrop = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Twin = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Crops(torch.utils.data.Dataset):
    """Endless crops; number n is always the same for the same seed.

    An item: `power` mel power (CROP, mels), `targets` (CROP // 2, 7), `phones` the phone's class (CROP // 2,).
    """

    def __init__(self, corpus: list[Spoken], backgrounds: list[np.ndarray], seed: int) -> None:
        self.backgrounds, self.seed = backgrounds, seed
        self.rows = []  # mel, controls and activity of one utterance side by side
        self.phones = []
        for spoken in corpus:
            stressed = stress(spoken.mel, spoken.phones, spoken.edges)
            controls, activity, phones = mouth_targets(spoken.phones, spoken.edges, stressed, len(spoken.mel))
            self.rows.append(np.concatenate([spoken.mel, controls, activity[:, None]], axis=1).astype(np.float16))
            self.phones.append(phones.astype(np.int8))

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, 1, number])
        mels = MouthConfig().mels
        speech = rng.random() < 0.75
        rows, phones = self.spoken(rng) if speech else self.silent()
        return {
            "power": torch.from_numpy(vary(10 ** rows[:, :mels], self.backgrounds, rng, speech)),
            "targets": torch.from_numpy(rows[::2, mels:].copy()),
            "phones": torch.from_numpy(phones[::2].copy()),
        }

    def silent(self, frames: int = CROP) -> tuple[np.ndarray, np.ndarray]:
        """Frames without speech, which `vary` lays its backgrounds over, or leaves empty."""
        rest = np.zeros((frames, self.rows[0].shape[1]), np.float32)
        rest[:, : MouthConfig().mels] = -8
        return rest, np.zeros(frames, np.int64)

    def spoken(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Utterances at a random, changing tempo with pauses between, cut to CROP frames."""
        tempo = rng.uniform(0.85, 1.2)
        rows: list[np.ndarray] = []
        phones: list[np.ndarray] = []
        length = 0
        while length < CROP:
            pick = int(rng.integers(len(self.rows)))
            source = self.rows[pick]
            start = rng.uniform(0, 0.7 * len(source)) if not length else 0.0
            hurry = np.repeat(rng.uniform(0.8, 1.25, CROP // 30 + 1), 30)[: CROP - length]
            places = start + np.cumsum(tempo * hurry) - tempo * hurry[0]
            places = places[places < len(source) - 1]
            low = places.astype(int)
            part = (places - low)[:, None].astype(np.float32)
            rows.append(source[low].astype(np.float32) * (1 - part) + source[low + 1].astype(np.float32) * part)
            phones.append(self.phones[pick][low].astype(np.int64))
            length += len(places)
            if length < CROP and rng.random() < 0.4:
                whole = int(rng.integers(35, 200))
                pause, quiet = self.silent(min(CROP - length, whole))
                seconds = np.arange(len(pause)) / MEL_RATE
                moved = slice(MouthConfig().mels, MouthConfig().mels + len(CONTROLS))
                pause[:, moved] = pause_controls(seconds, whole / MEL_RATE - seconds)
                if rng.random() < 0.3:  # what is as loud as the speech, but only between its sentences
                    sound = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
                    start = int(rng.integers(len(sound) - len(pause) + 1))
                    loud = sound[start : start + len(pause)] * 10 ** rng.uniform(-5, -3)
                    pause[:, : loud.shape[1]] = np.log10(loud + 1e-8)
                rows.append(pause)
                phones.append(quiet)
                length += len(pause)
        return np.concatenate(rows), np.concatenate(phones)


def lips_crop(
    clips: Sequence[SpokenLips], backgrounds: list[np.ndarray], varied: float, random: np.random.Generator
) -> LipsCrop:
    """Of a random clip, longer ones more often, with FRAMES control frames: mel power (2 FRAMES, mels), encoder input
    (2 FRAMES, 80), curves (FRAMES, 4) and known (FRAMES,)."""
    sizes = np.sqrt([min(len(clip.curves), 1500) for clip in clips])
    clip = clips[random.choice(len(clips), p=sizes / sizes.sum())]
    tempo = random.uniform(*TEMPO)
    length = math.ceil(FRAMES * tempo) + 1
    start = int(random.integers(0, max(1, len(clip.curves) - length + 1)))
    assert clip.sound.acoustic_power is not None
    sounds = (clip.sound.power, clip.sound.acoustic_power)
    spoken = [sound[2 * start : 2 * (start + length)].numpy() for sound in sounds]
    power, acoustic = (np.exp(_at_tempo(np.log(np.maximum(rows, 1e-12)), tempo, CROP)) for rows in spoken)
    shown = np.column_stack([clip.curves, clip.known])[start : start + length]
    curves, known = np.split(_at_tempo(shown, tempo, FRAMES), [len(CURVES)], axis=1)
    level = speech_level(frame_level(clip.sound.power))
    if random.random() < varied:
        noise = _noise(power, backgrounds, random)
        power = vary(power + noise, backgrounds, random, True)
        acoustic = acoustic + noise @ _acoustic_bands(power.shape[1])
        level = level + random.normal(0, 3)
    bands = acoustic_input(torch.from_numpy(acoustic), level)
    quiet = float(np.quantile(power.mean(axis=1), 0.02))
    lacking, missing = CROP - len(power), FRAMES - len(curves)
    power = np.pad(power, ((0, lacking), (0, 0)), constant_values=quiet).astype(np.float32)
    bands = torch.nn.functional.pad(bands, (0, 0, 0, lacking), value=float(bands.quantile(0.02)))
    curves, known = (np.pad(rows, ((0, missing), (0, 0))).astype(np.float32) for rows in (curves, known > 0.99))
    return torch.from_numpy(power), bands, torch.from_numpy(curves), torch.from_numpy(known[:, 0])


def _at_tempo(rows: np.ndarray, tempo: float, frames: int) -> np.ndarray:
    """Rows (F, N) spoken `tempo` times as fast, up to `frames` of them."""
    places = np.arange(min(frames, int((len(rows) - 1) / tempo) + 1)) * tempo
    low = np.minimum(places.astype(int), len(rows) - 2)
    part = (places - low)[:, None].astype(np.float32)
    between: np.ndarray = rows[low] * (1 - part) + rows[low + 1] * part
    return between


def _noise(power: np.ndarray, backgrounds: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """One time in five a sound near power (frames, mels) in level, else 0: clean recordings teach no noise."""
    if random.random() < 0.8:
        return np.zeros_like(power)
    background = _background(backgrounds, len(power), random)
    noise: np.ndarray = background * np.float32(np.quantile(power.mean(axis=1), 0.9) * 10 ** -random.uniform(0.6, 2.0))
    return noise


def _background(backgrounds: list[np.ndarray], frames: int, random: np.random.Generator) -> np.ndarray:
    """Power (frames, mels) of a sound without speech, 1 on average."""
    background = backgrounds[int(random.integers(len(backgrounds)))]
    rows = background[(int(random.integers(len(background))) + np.arange(frames)) % len(background)]
    louder: np.ndarray = rows / max(float(rows.mean()), 1e-9)
    return louder


def twin(crop: LipsCrop, backgrounds: list[np.ndarray], random: np.random.Generator) -> Twin:
    """The same speech in another place, as mel power and encoder input, and where (FRAMES,) the same mouth speaks it.

    Half of them begin or end in silence, of which half have no other sound; all others have one 10 to 45 dB below the
    speech.
    """
    power, bands = crop[0], band_power(crop[1])
    silence = torch.zeros(FRAMES)
    cut = random.random() < 0.5
    if cut:
        length = int(FRAMES * random.uniform(0.2, 0.8))
        silence[slice(0, length) if random.random() < 0.5 else slice(FRAMES - length, FRAMES)] = 1
        still = silence.repeat_interleave(2)[:, None]
        power, bands = power * (1 - still), torch.lerp(bands, band_power(acoustic_input(torch.zeros(1), 0.0)), still)
    if not cut or random.random() < 0.5:
        power, bands = with_background(power, bands, backgrounds, random)
    beside = torch.nn.functional.max_pool1d(silence[None], 2 * EDGE + 1, 1, EDGE)[0]
    return power, log_bands(bands), 1 - beside


def with_background(
    power: torch.Tensor, acoustic: torch.Tensor, backgrounds: list[np.ndarray], random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mel power (frames, mels) and the acoustic encoder's (frames, 80) of speech over a sound 10 to 45 dB below it."""
    background = _background(backgrounds, len(power), random)
    beside = torch.from_numpy(background @ _acoustic_bands(power.shape[1]))
    ratio = 10 ** -random.uniform(1.0, 4.5)
    return (
        power + ratio * _loud(power) * torch.from_numpy(background),
        acoustic + ratio * _loud(acoustic) * beside / beside.mean().clamp(min=1e-9),
    )


def _loud(power: torch.Tensor) -> torch.Tensor:
    """Power of the loud frames of (frames, bands)."""
    return power.mean(dim=1).quantile(0.9)


def other_sound(backgrounds: list[np.ndarray], random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mel power and encoder input of what is no speech, as loud as speech would be."""
    power = torch.from_numpy(vary(np.zeros((CROP, backgrounds[0].shape[1])), backgrounds, random, False))
    acoustic = power @ torch.from_numpy(_acoustic_bands(power.shape[1]))
    return power, acoustic_input(acoustic, speech_level(frame_level(power)))


@cache
def _acoustic_bands(mels: int) -> np.ndarray:
    """What takes power in the network's bands to that in the encoder's, (mels, 80): between the centres of bands."""
    own, acoustic = mel_filters(mels).numpy(), acoustic_filters().numpy()
    centres = [filters @ np.linspace(0, 1, filters.shape[1]) / filters.sum(1) for filters in (own, acoustic)]
    return np.stack([np.interp(centres[1], centres[0], one) for one in np.eye(mels)]).astype(np.float32) * acoustic.sum(
        1
    )
