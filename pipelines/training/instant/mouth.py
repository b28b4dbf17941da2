"""Train the Instant driver's mouth network from nothing but two speech synthesisers.

    python -m talking_portrait.pipelines.training.instant.mouth --work FOLDER [--steps N] [--out mouth.safetensors]

Speaks the corpus into FOLDER (kept for the next run), trains on it, prints the metrics on held-out voices and writes
the weights. One seed decides all of it but for rounding.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from ....models.face.face_mesh import mouth_opening
from ....models.face.mouth_shapes import lip_opening, neutral_vertices
from ....models.instant.mouth_network import (
    CONTROLS,
    FRAME_RATE,
    MouthConfig,
    MouthNetwork,
    load_mouth_network,
    normalise,
    save_mouth_network,
)
from ...files.output_paths import replacing
from ...instant.driver.mouth_controls import MouthControls, as_controls
from .backgrounds import make_backgrounds
from .corpus import MEL_RATE, Spoken, make_corpus, read_corpus, vary
from .speech import HELD_OUT_FLITE, HELD_OUT_VARIANTS, PHONES
from .targets import mouth_targets, stress

log = logging.getLogger(__name__)

CROP = 600
"""Mel frames in a training crop: six seconds."""
BACKGROUNDS = 900
"""Sounds without speech, six seconds each, to lay under the crops."""
PRESS = CONTROLS.index("press")


class Crops(IterableDataset):
    """Endless random crops: mel power (CROP, mels), targets (CROP // 2, 7), phone class (CROP // 2,)."""

    def __init__(self, corpus: list[Spoken], backgrounds: list[np.ndarray], seed: int) -> None:
        self.backgrounds, self.seed = backgrounds, seed
        self.rows = []  # mel, controls and activity of one utterance side by side
        self.phones = []
        for spoken in corpus:
            stressed = stress(spoken.mel, spoken.phones, spoken.edges)
            controls, activity, phones = mouth_targets(spoken.phones, spoken.edges, stressed, len(spoken.mel))
            self.rows.append(np.concatenate([spoken.mel, controls, activity[:, None]], axis=1).astype(np.float16))
            self.phones.append(phones.astype(np.int8))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng(self.seed)
        mels = MouthConfig().mels
        while True:
            speech = rng.random() < 0.75
            rows, phones = self.spoken(rng) if speech else self.silent()
            power = vary(10 ** rows[:, :mels], self.backgrounds, rng, speech)
            yield torch.from_numpy(power), torch.from_numpy(rows[::2, mels:].copy()), torch.from_numpy(phones[::2])

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


def loss_of(
    logits: torch.Tensor, phone_logits: torch.Tensor, targets: torch.Tensor, phones: torch.Tensor
) -> torch.Tensor:
    """Squared error of controls and of the lip opening they make, cross entropy of press, activity and phone class."""
    functional = torch.nn.functional
    guess = torch.sigmoid(logits)
    controls = functional.mse_loss(guess[..., : len(CONTROLS)], targets[..., : len(CONTROLS)])
    opening = functional.mse_loss(lip_opening(guess[..., :-1]) / 0.06, lip_opening(targets[..., :-1]) / 0.06)
    press = functional.binary_cross_entropy_with_logits(logits[..., PRESS], targets[..., PRESS])
    activity = functional.binary_cross_entropy_with_logits(logits[..., -1], targets[..., -1])
    phone = functional.cross_entropy(phone_logits.flatten(0, 1), phones.flatten())
    return 10 * controls + opening + 1.5 * press + 0.3 * activity + 0.3 * phone


def masked(mel: torch.Tensor) -> torch.Tensor:
    """Crops (batch, frames, mels) without some bands and moments: the network must lean on no single cue."""
    crops, frames, bands = mel.shape
    for size, widest, axis in ((bands, 6, 1), (bands, 6, 1), (frames, 14, 2), (frames, 14, 2), (frames, 14, 2)):
        start = torch.randint(0, size, (crops, 1))
        width = torch.randint(0, widest + 1, (crops, 1))
        places = torch.arange(size)
        mel = mel.masked_fill(((places >= start) & (places < start + width)).unsqueeze(axis), 0.0)
    return mel


def average_spectrum(corpus: list[Spoken]) -> torch.Tensor:
    """Mean level (mels,) of the loud frames of clean speech in dB below the speech level, as `normalise` needs it."""
    flat = torch.zeros(MouthConfig().mels)
    means = []
    for spoken in corpus[:: max(1, len(corpus) // 400)]:
        power = 10 ** torch.from_numpy(spoken.mel.astype(np.float32))
        energy = 10 * torch.log10(power.mean(-1) + 1e-12)
        level = torch.quantile(energy, 0.95)
        decibels = 10 * torch.log10(power + 10 ** ((level - 50) / 10)) - level
        means.append(decibels[energy > level - 22].mean(0))
    return torch.stack(means).mean(0) if means else flat


def train(
    corpus: list[Spoken],
    backgrounds: list[np.ndarray],
    *,
    steps: int,
    batch: int,
    hidden_rate: float,
    other_rate: float,
    seed: int,
    config: MouthConfig,
    checkpoint: Path,
    start: MouthNetwork | None = None,
) -> MouthNetwork:
    """Muon and AdamW with warm-up and cosine decay; returns the exponential moving average of the weights.

    `start` is a trained network of the same sizes to go on from; the phone classifier begins anew.
    """
    torch.manual_seed(seed)
    network = MouthNetwork(config)
    if start is None:
        network.average.copy_(average_spectrum(corpus))
    else:
        network.load_state_dict(start.state_dict(), strict=False)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    # Muon learns the same from less than half as much speech; it is made for the hidden layers' matrices.
    hidden = [weight for block in network.blocks for weight in block.parameters() if weight.ndim == 2]
    chosen = {id(weight) for weight in hidden}
    others = [weight for weight in network.parameters() if id(weight) not in chosen]
    optimisers = (
        torch.optim.Muon(hidden, lr=hidden_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=other_rate, weight_decay=0.02, betas=(0.9, 0.98)),
    )

    def pace(step: int) -> float:
        return min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, pace) for optimiser in optimisers]
    crops = Crops(corpus, backgrounds, seed)
    loader = iter(DataLoader(crops, batch_size=batch))
    running = 0.0
    for step in range(steps):
        power, targets, phones = next(loader)
        mel = masked(normalise(power, network.average))
        with torch.autocast("cpu", torch.bfloat16):
            logits, phone_logits = network(mel)
        loss = loss_of(logits.float(), phone_logits.float(), targets, phones)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
        averaged.update_parameters(network)
        running += loss.item()
        if (step + 1) % 100 == 0:
            log.info("step %d of %d: loss %.4f", step + 1, steps, running / 100)
            running = 0.0
        if (step + 1) % 500 == 0:
            with replacing(checkpoint) as partial:
                torch.save(averaged.module.state_dict(), partial)
    result = copy.deepcopy(network)
    result.load_state_dict(averaged.module.state_dict())
    return result.eval()


@torch.no_grad()
def evaluate(network: MouthNetwork, held_out: list[Spoken]) -> dict[str, float]:
    """Metrics on held-out voices, clean, at 25 fps and through the mesh.

    Correlation of the lip opening with its target; p, b, m whose lips come closer than 0.03 eye distances and f, v
    closer than 0.04 while the phone lasts (40 ms of lead and the frame it ends in counted in); right speech activity.
    """
    fps = 25
    correlations, closed, touched, right, frames = [], [], [], 0, 0
    for spoken in held_out:
        power = 10 ** torch.from_numpy(spoken.mel.astype(np.float32))
        logits, _ = network(normalise(power, network.average)[None])
        guess = torch.sigmoid(logits[0]).numpy()
        stressed = stress(spoken.mel, spoken.phones, spoken.edges)
        targets, activity, _ = mouth_targets(spoken.phones, spoken.edges, stressed, len(spoken.mel))
        seconds = Fraction(len(guess), FRAME_RATE)
        predicted = as_controls(guess, seconds)
        meant = MouthControls(targets[::2], activity[::2], FRAME_RATE, seconds)
        opening, truth = (mouth_opening(neutral_vertices() + c.vertices_at(fps)) for c in (predicted, meant))
        correlations.append(np.corrcoef(truth, opening)[0, 1])
        right += int(((guess[:, -1] > 0.5) == (activity[::2] > 0.5)).sum())
        frames += len(guess)
        for phone, start, end in zip(spoken.phones, spoken.edges[:-1], spoken.edges[1:], strict=True):
            span = opening[max(0, int((start - 0.04) * fps)) : math.ceil(end * fps) + 1]
            if len(span) and PHONES[phone] in ("p", "b", "m"):
                closed.append(span.min() < 0.03)
            elif len(span) and PHONES[phone] in ("f", "v"):
                touched.append(span.min() < 0.04)
    return {
        "opening correlation": float(np.nanmean(correlations)),
        "bilabials closed": float(np.mean(closed)),
        "labiodentals touching": float(np.mean(touched)),
        "speech activity": right / frames,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the corpus and checkpoints")
    parser.add_argument("--out", type=Path, default=None, help="where the weights go (default: WORK/mouth.safetensors)")
    parser.add_argument("--start", type=Path, default=None, help="weights to go on from (default: random ones)")
    parser.add_argument("--shards", type=int, default=60, help="files of 200 utterances (about 17 minutes) each")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rate", type=float, default=0.02, help="peak learning rate of the hidden layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that speak the corpus")
    parser.add_argument("--threads", type=int, default=1, help="threads that train")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    folder = arguments.work / "corpus"
    make_corpus(folder, arguments.seed, arguments.shards, 3, arguments.workers)
    corpus = read_corpus(folder)[: arguments.shards * 200]
    hours = sum(len(spoken.mel) for spoken in corpus) / MEL_RATE / 3600
    log.info("%d utterances, %.1f hours, %d voices", len(corpus), hours, len({spoken.voice for spoken in corpus}))
    network = train(
        corpus,
        make_backgrounds(arguments.seed, BACKGROUNDS),
        steps=arguments.steps,
        batch=arguments.batch,
        hidden_rate=arguments.rate,
        other_rate=arguments.rate * 0.075,
        seed=arguments.seed,
        config=MouthConfig(dropout=0.05, phones=len(PHONES)),
        checkpoint=arguments.work / "checkpoint.pt",
        start=load_mouth_network(arguments.start) if arguments.start else None,
    )
    out = arguments.out or arguments.work / "mouth.safetensors"
    description = {
        "data": f"synthetic speech only: flite and espeak-ng, {hours:.1f} hours, "
        f"{len({spoken.voice for spoken in corpus})} voices, random words of own lists; no recordings of people",
        "held_out": ", ".join(HELD_OUT_FLITE + HELD_OUT_VARIANTS),
        "seed": str(arguments.seed),
        "start": arguments.start.name if arguments.start else "random weights",
        "steps": str(arguments.steps),
        "batch": str(arguments.batch),
        "licence": "Apache-2.0",
    }
    with replacing(out) as partial:
        save_mouth_network(network, partial, description)
    for name, value in evaluate(load_mouth_network(out), read_corpus(folder, held_out=True)).items():
        log.info("held-out %s: %.3f", name, value)


if __name__ == "__main__":
    main()
