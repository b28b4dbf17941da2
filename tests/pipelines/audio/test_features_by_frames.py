"""Speech features that are computed a part at a time: those of the whole, at any frame rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from talking_portrait.models.audiodvp.audio_features import AudioFeatures, AudioFeaturesConfig
from talking_portrait.pipelines.audio import mouth_states
from talking_portrait.pipelines.audiodvp.atnet import Atnet
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.person.speech import MFCC, Encoder, features_by_frames, speech_features
from talking_portrait.pipelines.timing import as_rate, frame_count
from talking_portrait.pipelines.types import Audio

from .test_mouth_states import tiny

RATES = ("12.5", "23.976", "24", "25", "29.97", "30", "59.94")


def recording(seconds: float = 7.03) -> Audio:
    """Speech that becomes ten times as loud, beside a constant offset: a part alone has another level and colour."""
    wave = example_speech().waveform[:, : round(16000 * seconds)]
    return Audio(0.01 + wave * torch.linspace(0.1, 1, wave.shape[1]), 16000)


def atnet() -> Atnet:
    torch.manual_seed(0)
    return Atnet(AudioFeatures(AudioFeaturesConfig((4, 4, 4, 4, 8), hidden=16, features=8)).eval())


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", ["acoustic", "earlier", "without an acoustic encoder", MFCC, "atnet"])
def test_parts_are_as_the_whole_at_any_rate(rate: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mouth_states, "_SEGMENT", 60)
    encoder: Encoder
    encoder = (
        MFCC
        if kind == MFCC
        else atnet()
        if kind == "atnet"
        else tiny(blocks=kind == "acoustic", earlier=kind == "earlier")
    )
    audio, fps = recording(), as_rate(rate)
    whole = speech_features(audio, fps, None, encoder)
    frames = frame_count(audio.samples, audio.sample_rate, fps)
    assert whole.frames == frames
    read = features_by_frames(audio, fps, encoder)
    random = np.random.default_rng(int(fps))
    ends = sorted({0, frames, *random.integers(1, frames, 5).tolist()})
    parts = [read(range(start, stop)) for start, stop in zip(ends, ends[1:], strict=False)]
    assert {(part.model, part.fps, part.timing) for part in parts} == {(whole.model, whole.fps, whole.timing)}
    torch.testing.assert_close(torch.cat([part.states for part in parts]), whole.states, atol=1e-4, rtol=1e-4)
    loud = float(torch.cat([part.states for part in parts]).std())
    assert loud > 1e-3  # no comparison of nothing with nothing
