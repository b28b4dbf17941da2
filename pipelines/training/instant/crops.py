"""What the mouth network trains on: six-second crops of the spoken corpus, varied at random, with their targets."""

from __future__ import annotations

import numpy as np
import torch

from ....models.speech.mouth_network import MouthConfig
from .corpus import Spoken, vary
from .targets import mouth_targets, stress

CROP = 600
"""Mel frames in a training crop: six seconds."""


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
                pause, quiet = self.silent(min(CROP - length, int(rng.integers(35, 200))))
                if rng.random() < 0.3:  # what is as loud as the speech, but only between its sentences
                    sound = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
                    start = int(rng.integers(len(sound) - len(pause) + 1))
                    loud = sound[start : start + len(pause)] * 10 ** rng.uniform(-5, -3)
                    pause[:, : loud.shape[1]] = np.log10(loud + 1e-8)
                rows.append(pause)
                phones.append(quiet)
                length += len(pause)
        return np.concatenate(rows), np.concatenate(phones)
