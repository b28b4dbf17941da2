"""AudioDVP's audio input."""

from __future__ import annotations

import numpy as np
from talking_portrait.pipelines.audio import mfcc as recipes
from talking_portrait.pipelines.types import Audio

from .goldens import Golden, runner


@runner("personal", "dvp_mfcc")
def dvp_mfcc(golden: Golden) -> None:
    wave = golden.tensor("wave")
    states = recipes.mfcc(Audio(wave[None], 16000), recipe="audiodvp").states
    golden.compare("first_window", states[0])
    golden.compare("last_window", states[-1])
    golden.compare("num_windows", np.array([len(states)]))
    silence = np.zeros(int(golden.matched("notes", r"padded (\d+) zeros")[1]), np.float32)
    golden.compare("mfcc", recipes.cepstra(np.concatenate([silence, wave.numpy(), silence])))
    golden.compare("saved", np.array([len(states) // 25 * 25]))  # the published script writes whole seconds only
