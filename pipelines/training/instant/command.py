"""The mouth network's trainer on the command line: it makes its own data, so it takes one folder for all."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...types import Progress

if TYPE_CHECKING:
    from .crops import Crops
    from .mouth import MouthTrainer

BACKGROUNDS = 900
"""Sounds without speech, six seconds each, to lay under the crops."""
_HELD_OUT_SHARDS = 3
_DROPOUT = 0.05


class Mouth:
    name = "instant-mouth"
    help = "Instant's mouth network: speech to mouth movement, from nothing but two speech synthesisers"
    defaults: dict[str, Any] = {
        "steps": 3000,
        "batch": 12,
        "rate": 0.02,
        "warmup": 100,
        "decay": "cosine",
        "floor": 0.02,
        "betas": (0.9, 0.98),
        "weight_decay": 0.02,
        "muon_weight_decay": 0.01,
        "average": 0.995,
        "precision": "bf16",
        "seed": 0,
    }
    """Those of the first run of the shipped network, found by trying, on the metrics of `evaluate`.

    A second run continued it with --start (docs/instant-driver.md).
    """

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        command.add_argument("--work", type=Path, required=True, help="gets the spoken corpus and the run")
        command.add_argument("--out", type=Path, help="where the weights go too, beside WORK/mouth.safetensors")
        command.add_argument("--start", type=Path, help="weights to continue from (default: random ones)")
        command.add_argument("--shards", type=int, default=60, help="files of 200 utterances (about 17 minutes) each")
        command.add_argument(
            "--workers", type=int, default=2, dest="speakers", metavar="N", help="processes that speak the corpus"
        )
        command.add_argument("--corpus", type=Path, help="a corpus that was spoken before (default: WORK/corpus)")
        command.add_argument("--threads", type=int, default=1, help="threads that train")

    def open(self, options: argparse.Namespace, report: Callable[[str, str], Progress]) -> tuple[MouthTrainer, Crops]:
        """The trainer and its crops; what is missing of the corpus is spoken before.

        `report(label, unit)` returns what is called with the progress of one part of that.
        """
        import torch

        from ....models.speech.mouth_network import MouthConfig, without_acoustic_encoder
        from ...audio.mouth_weights import open_mouth
        from ..core.run_settings import check_option
        from .crops import Crops
        from .mouth import MouthTrainer, new_mouth_network, training_copy
        from .synthetic.backgrounds import make_backgrounds
        from .synthetic.corpus import MEL_RATE, SHARD, make_corpus, read_corpus
        from .synthetic.speech import HELD_OUT_FLITE, HELD_OUT_VARIANTS, PHONES

        check_option("shards", options.shards, 1, 10_000)
        check_option("workers", options.speakers, 1, 1000)
        check_option("threads", options.threads, 1, 1000)
        torch.set_num_threads(options.threads)
        start = without_acoustic_encoder(open_mouth(options.start)) if options.start else None
        folder = _corpus(options)
        progress = report("speaking the corpus", "files")
        make_corpus(folder, options.seed, options.shards, _HELD_OUT_SHARDS, options.speakers, progress)
        corpus = read_corpus(folder)[: options.shards * SHARD]
        if start:
            network = training_copy(start, _DROPOUT, len(PHONES))
        else:
            network = new_mouth_network(corpus, MouthConfig(dropout=_DROPOUT, phones=len(PHONES)))
        hours = sum(len(spoken.mel) for spoken in corpus) / MEL_RATE / 3600
        voices = len({spoken.voice for spoken in corpus})
        description = {
            "data": f"synthetic speech only: flite and espeak-ng, {hours:.1f} hours, {voices} voices, random words of "
            "own lists; no recordings of people",
            "held_out": ", ".join(HELD_OUT_FLITE + HELD_OUT_VARIANTS),
            "seed": str(options.seed),
            "start": options.start.name if start else "random weights",
            "steps": str(options.steps),
            "batch": str(options.batch),
            "licence": "Apache-2.0",
        }
        backgrounds = make_backgrounds(options.seed, BACKGROUNDS, report("making backgrounds", "sounds"))
        return MouthTrainer(network, description), Crops(corpus, backgrounds, options.seed)

    def finish(self, options: argparse.Namespace, written: Path) -> dict[str, float]:
        """Copies the network to where it was wanted; returns its metrics on held-out voices."""
        from ....models.speech.mouth_network import load_mouth_network
        from ...files.output_paths import whole_file
        from .mouth import evaluate
        from .synthetic.corpus import read_corpus

        if options.out:
            with whole_file(options.out) as partial:
                shutil.copyfile(written, partial)
        return evaluate(load_mouth_network(written), read_corpus(_corpus(options), held_out=True))


def _corpus(options: argparse.Namespace) -> Path:
    return Path(options.corpus or options.work / "corpus")
