"""The mouth's trainer with a network and a corpus small enough to be run many times.

python toy_mouth.py step 3 FOLDER STEPS        halts as halted_training.py does
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from talking_portrait.models.speech.mouth_network import MouthConfig, MouthNetwork
from talking_portrait.pipelines.training.core.loop import seed_everything, train
from talking_portrait.pipelines.training.core.trainer import Plan
from talking_portrait.pipelines.training.instant.command import Mouth
from talking_portrait.pipelines.training.instant.crops import Crops
from talking_portrait.pipelines.training.instant.mouth import MouthTrainer, new_mouth_network
from talking_portrait.pipelines.training.instant.synthetic.backgrounds import make_backgrounds
from talking_portrait.pipelines.training.instant.synthetic.corpus import Spoken
from talking_portrait.pipelines.training.instant.synthetic.speech import PHONE_INDEX, PHONES

CONFIG = MouthConfig(channels=16, dilations=(1, 2), dropout=0.05, phones=len(PHONES))
PLAN = {"batch": 2, "warmup": 1, "average": 0.6, "precision": "fp32", "save_every": 2, "picture_every": 0}


def make_spoken(seed: int = 0) -> Spoken:
    """An utterance of 0.8 s in random noise."""
    phones = np.array([PHONE_INDEX[name] for name in ["sil", "t", "aa", "p", "iy", "f", "uw", "sil"]])
    mel = np.log10(np.random.default_rng(seed).random((80, CONFIG.mels)) * 1e-3 + 1e-9).astype(np.float16)
    return Spoken(mel, phones, np.arange(len(phones) + 1) * 0.1, "made up")


def crops(seed: int = 0) -> Crops:
    return Crops([make_spoken(number) for number in range(3)], make_backgrounds(0, 3), seed)


def run(folder: Path, steps: int, network: MouthNetwork | None = None, **options: Any) -> MouthTrainer:
    """Trains, or goes on where a run has been."""
    resume, progress = options.pop("resume", True), options.pop("progress", lambda *_: None)
    plan = Plan(**Mouth.defaults | PLAN | {"steps": steps} | options)
    seed_everything(plan.seed, 0)
    trainer = MouthTrainer(network or new_mouth_network([make_spoken()], CONFIG), {"data": "noise"})
    train(trainer, crops(plan.seed), plan, folder, resume=resume, progress=progress)
    return trainer


if __name__ == "__main__":
    from halted_training import halt_at

    torch.set_num_threads(1)
    halt_at(sys.argv[1], int(sys.argv[2]))
    run(Path(sys.argv[3]), int(sys.argv[4]))
