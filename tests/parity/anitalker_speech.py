"""AniTalker's audio side: HuBERT states two to a video frame, and MFCC."""

from __future__ import annotations

import re

import torch
from talking_portrait.models.checkpoints import rename_keys, strict_load
from talking_portrait.models.speech import loading
from talking_portrait.models.speech.encoder import SpeechEncoder
from talking_portrait.pipelines import mfcc as recipes
from talking_portrait.pipelines.speech import encode
from talking_portrait.pipelines.types import Audio

from .goldens import Golden, runner


@runner("anitalker", "hubert")
def hubert(golden: Golden) -> None:
    make, seed = golden.weights.value, golden.meta["seed"]
    state = {
        name.removeprefix("hub."): torch.from_numpy(make(seed, name, shape))
        for name, shape in golden.meta["manifest"].items()
    }
    model = loading.build(golden.meta["config"], hubert=True)
    strict_load(model, rename_keys(state, loading.WEIGHT_NORM), path=golden.path)
    encoder = SpeechEncoder(model, "hubert-tiny")

    wave = golden.tensor("wave")
    if "input_values" in golden:
        golden.compare("input_values", encoder.prepare(wave)[None])
    for samples, expected in golden.meta["frames_for_samples"].items():
        golden.check(f"frames of {samples}", encoder.frames(int(samples)), expected["T"])
    stack = encode(Audio(wave[None], 16000), encoder, timing="paired").states.transpose(0, 1)
    golden.check("video frames", stack.shape[1] // 2, golden.meta["F"])
    for name in ("stack", "audio_driven"):
        if name in golden:
            golden.compare(name, stack if name == "stack" else stack[None])


@runner("anitalker", "mfcc")
def mfcc(golden: Golden) -> None:
    wave = golden.tensor("wave")
    if "feat_f64" in golden:
        golden.compare("feat_f64", recipes.with_slopes(recipes.cepstra(wave.numpy())))
    states = recipes.mfcc(Audio(wave[None], 16000), recipe="anitalker").states
    golden.compare("audio_driven", states[:, 0][None])
    golden.check("video frames", len(states) // 4, golden.meta["F"])
    for samples, rows in golden.meta["rows_for_samples"].items():
        golden.check(f"rows of {samples}", recipes.row_count(int(samples)), rows)
    if "filterbank" in golden:
        golden.compare("filterbank", recipes.filterbank())
    if "feat_silence_f64" in golden:
        silenced = re.search(r"samples (\d+)\.\.(\d+) zeroed", golden.meta["note"])
        assert silenced, "the note does not say which samples are silent"
        quiet = wave.clone()
        quiet[int(silenced[1]) : int(silenced[2]) + 1] = 0
        golden.compare("feat_silence_f64", recipes.with_slopes(recipes.cepstra(quiet.numpy())))
