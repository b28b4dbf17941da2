"""AniTalker's audio side: HuBERT states two to a video frame, and MFCC."""

from __future__ import annotations

import torch
from talking_portrait.models.checkpoints import rename_keys, strict_load
from talking_portrait.models.speech import loading
from talking_portrait.models.speech.encoder import SpeechEncoder
from talking_portrait.pipelines.audio import mfcc as recipes
from talking_portrait.pipelines.audio.speech_features import encode, paired_frames
from talking_portrait.pipelines.types import Audio

from .goldens import Golden, runner


@runner("anitalker", "hubert")
def hubert(golden: Golden) -> None:
    make, seed = golden.weights.value, golden.meta["seed"]
    state = {
        name.partition(".")[2]: torch.from_numpy(make(seed, name, shape))
        for name, shape in golden.meta["manifest"].items()
    }
    model = loading.build(golden.meta["config"], hubert=True)
    strict_load(model, rename_keys(state, loading.WEIGHT_NORM), path=golden.path)
    encoder = SpeechEncoder(model, golden.name)

    wave = golden.tensor("wave")
    golden.compare("input_values", encoder.prepare(wave)[None])
    for samples, expected in golden.meta["frames_for_samples"].items():
        frames = encoder.frames(int(samples))
        golden.check(f"frames of {samples}", frames, expected["T"])
        golden.check(f"video frames of {samples}", paired_frames(frames), expected["F"])
    paired = encode(Audio(wave[None], 16000), encoder, timing="paired").states.transpose(0, 1)
    golden.check("video frames", paired.shape[1] // 2, golden.meta["F"])
    golden.compare("audio_driven", paired[None])
    # The last state is repeated once; where that makes an odd number, a stack not yet cut to pairs has one more.
    stock = encode(Audio(wave[None], 16000), encoder, timing="stock").states.transpose(0, 1)
    stack = torch.cat([stock, stock[:, -1:]], dim=1)
    cut = "stack" in golden and golden.tensors["stack"].shape == paired.shape
    golden.compare("stack", paired if cut else stack)


@runner("anitalker", "mfcc")
def mfcc(golden: Golden) -> None:
    wave = golden.tensor("wave")
    golden.compare("feat_f64", recipes.with_slopes(recipes.cepstra(wave.numpy())))
    states = recipes.mfcc(Audio(wave[None], 16000), recipe="anitalker").states
    golden.compare("audio_driven", states[:, 0][None])
    golden.check("video frames", len(states) // 4, golden.meta["F"])
    for samples, rows in golden.meta["rows_for_samples"].items():
        golden.check(f"rows of {samples}", recipes.row_count(int(samples)), rows)
    golden.compare("filterbank", recipes.filterbank())
    if "feat_silence_f64" in golden:
        first, last = map(int, golden.matched("note", r"samples (\d+)\.\.(\d+) zeroed").groups())
        silenced = wave.clone()
        silenced[first : last + 1] = 0
        golden.compare("feat_silence_f64", recipes.with_slopes(recipes.cepstra(silenced.numpy())))
