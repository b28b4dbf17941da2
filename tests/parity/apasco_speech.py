"""Hallo's (and so APasco's) audio features."""

from __future__ import annotations

import torch
from talking_portrait.models.checkpoints import strict_load
from talking_portrait.models.speech import loading
from talking_portrait.models.speech.encoder import SpeechEncoder, resample_time
from talking_portrait.pipelines.apasco.audio_context import audio_windows
from talking_portrait.pipelines.audio.speech_features import encode
from talking_portrait.pipelines.timing import frame_count
from talking_portrait.pipelines.types import Audio

from .goldens import Golden, runner


@runner("apasco", "wav2vec")
def wav2vec(golden: Golden) -> None:
    meta = golden.meta
    make, prefix = golden.weights.make, meta["prefix"]
    state = {k: torch.from_numpy(make(meta["weight_seed"], prefix + k, shape)) for k, shape in meta["keys"].items()}
    model = loading.build(meta["config"])
    strict_load(model, state, path=golden.path)
    encoder = SpeechEncoder(model, "wav2vec2-tiny")

    rate, fps = meta["sample_rate"], meta["fps"]
    audio = Audio(golden.tensor("in.pcm16").float()[None] / 32768, rate)
    wave = encoder.prepare(audio.waveform[0])
    golden.compare("out.normalised_waveform", wave, atol=1e-5, rtol=0)
    features = encoder.convolve(wave)
    golden.compare("out.conv_features_nopad", features, atol=2e-6, rtol=1e-4)
    interpolated = resample_time(features, meta["audio_length_frames_nopad"])
    golden.compare("out.interpolated_nopad", interpolated, atol=2e-6, rtol=1e-4)

    # Hallo keeps the states after each layer; the one before the first layer is dropped.
    golden.compare("out.embedding_nopad", encode(audio, encoder, fps=fps).states[:, 1:])
    padded = encode(audio, encoder, fps=fps, frame_multiple=meta["clip_length"])
    golden.compare("out.embedding", padded.states[:, 1:])
    last = encode(audio, encoder, fps=fps, frame_multiple=meta["clip_length"], layers="last")
    golden.compare("out.last_hidden_padded", last.states[:, 0])
    for name in ("audio_length_frames", "audio_length_frames_nopad"):
        golden.check(name, frame_count(audio.samples, rate, fps), meta[name])
    golden.compare("out.window", audio_windows(padded.states[:, 1:], 0, len(padded.states))[0])
