"""Speech features: frame counts and rates of each timing, long clips in windows, bad input."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from talking_portrait.models.speech.encoder import SpeechEncoder, normalise_wave, resample_time
from talking_portrait.pipelines.audio.overlapping_windows import CONTEXT_SECONDS, WHOLE_SECONDS, blended_windows
from talking_portrait.pipelines.audio.speech_features import encode
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.timing import frame_count
from talking_portrait.pipelines.types import Audio


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(3)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
    )
    return SpeechEncoder(Wav2Vec2Model(config).eval(), "wav2vec2-32")


def sound(seconds: float, rate: int = 16000, channels: int = 1) -> Audio:
    generator = torch.Generator().manual_seed(1)
    return Audio(0.1 * torch.randn(channels, round(seconds * rate), generator=generator), rate)


@pytest.mark.parametrize("fps", [24, 25, Fraction(30000, 1001)])
@pytest.mark.parametrize("seconds", [0.1, 1.03])
def test_resampled_gives_a_state_for_each_video_frame(encoder: SpeechEncoder, fps: Any, seconds: float) -> None:
    audio = sound(seconds)
    features = encode(audio, encoder, fps=fps)
    assert features.states.shape == (frame_count(audio.samples, 16000, Fraction(fps)), 3, 32)
    assert (features.fps, features.timing, features.model) == (Fraction(fps), "resampled", "wav2vec2-32")
    assert features.states.dtype == torch.float32


@torch.no_grad()
def test_resampling_stands_before_the_transformer(encoder: SpeechEncoder) -> None:
    audio = sound(1)
    expected = encoder.transform(resample_time(encoder.convolve(normalise_wave(audio.waveform[0])), 25)).transpose(0, 1)
    torch.testing.assert_close(encode(audio, encoder, fps=25).states, expected, atol=1e-4, rtol=1e-4)
    stock = encode(audio, encoder, timing="stock").states.transpose(0, 1)
    after = resample_time(stock, 25).transpose(0, 1)
    assert not torch.allclose(after, expected, atol=1e-2)


def test_stock_is_the_encoders_own_rate(encoder: SpeechEncoder) -> None:
    features = encode(sound(1), encoder, timing="stock")
    assert features.states.shape[0] == 49
    assert features.fps == 50


@pytest.mark.parametrize(("samples", "frames"), [(400, 2), (720, 2), (16000, 50), (20811, 64), (32000, 100)])
def test_paired_repeats_the_last_frame_and_keeps_pairs(encoder: SpeechEncoder, samples: int, frames: int) -> None:
    features = encode(sound(samples / 16000), encoder, timing="paired")
    stock = encode(sound(samples / 16000), encoder, timing="stock").states
    assert features.states.shape[0] == frames
    assert features.fps == 50
    common = min(frames, len(stock))
    torch.testing.assert_close(features.states[:common], stock[:common], atol=1e-4, rtol=1e-4)
    if frames > len(stock):
        torch.testing.assert_close(features.states[-1], stock[-1], atol=1e-4, rtol=1e-4)


def test_silence_fills_frames_up_to_a_multiple(encoder: SpeechEncoder) -> None:
    features = encode(sound(1), encoder, fps=25, frame_multiple=16)
    assert features.frames == 32
    assert features.padding == 7
    whole = encode(sound(1.28), encoder, fps=25, frame_multiple=16)
    assert (whole.frames, whole.padding) == (32, 0)


def test_last_layer_alone(encoder: SpeechEncoder) -> None:
    every, last = encode(sound(1), encoder), encode(sound(1), encoder, layers="last")
    torch.testing.assert_close(last.states, every.states[:, -1:], atol=1e-4, rtol=1e-4)


def test_rate_and_channels_do_not_matter(encoder: SpeechEncoder) -> None:
    base = sound(1, 48000)
    many = Audio(base.waveform.repeat(8, 1), 48000)
    torch.testing.assert_close(encode(many, encoder).states, encode(base, encoder).states, atol=1e-5, rtol=1e-4)
    assert encode(sound(1, 8000), encoder).frames == 25
    assert encode(sound(1, 44100), encoder).frames == 25


def test_silence_gives_finite_states(encoder: SpeechEncoder) -> None:
    assert torch.isfinite(encode(Audio(torch.zeros(1, 16000), 16000), encoder).states).all()


@given(
    frames=st.integers(1, 4000), seconds=st.floats(1, 60), rate=st.sampled_from([Fraction(25), Fraction(30000, 1001)])
)
@settings(max_examples=60)
def test_windows_cover_every_frame_with_weight_one(frames: int, seconds: float, rate: Fraction) -> None:
    total = torch.zeros(frames)
    for start, end, weight in blended_windows(frames, seconds, rate):
        assert 0 <= start < end <= frames
        assert end - start <= seconds * rate + 2 * CONTEXT_SECONDS * rate + 1
        assert weight.min() >= 0
        total[start:end] += weight
    torch.testing.assert_close(total, torch.ones(frames))


@torch.no_grad()
def test_windows_leave_no_seam_where_attention_is_local(encoder: SpeechEncoder) -> None:
    """Without attention a frame depends on a fraction of a second, so windows must give what one pass gives."""
    attention = [layer.attention.out_proj for layer in encoder.model.encoder.layers]
    kept = [(layer.weight.clone(), layer.bias.clone()) for layer in attention]
    try:
        for layer in attention:
            layer.weight.zero_()
            layer.bias.zero_()
        whole = encode(sound(9), encoder, chunk_seconds=30).states
        parts = encode(sound(9), encoder, chunk_seconds=2).states
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)
    finally:
        for layer, (weight, bias) in zip(attention, kept, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


def test_windows_are_an_approximation_and_the_default_is_one_pass(encoder: SpeechEncoder) -> None:
    default = encode(sound(6), encoder).states
    torch.testing.assert_close(
        encode(sound(6), encoder, chunk_seconds=WHOLE_SECONDS).states, default, atol=1e-4, rtol=1e-4
    )
    parts = encode(sound(6), encoder, chunk_seconds=2).states
    assert parts.shape == default.shape
    assert not torch.allclose(parts, default, atol=1e-4)


@pytest.mark.parametrize("chunk_seconds", [None, 2])
def test_layers_mixed_on_the_way_are_those_mixed_afterwards(
    encoder: SpeechEncoder, chunk_seconds: float | None
) -> None:
    shares = torch.tensor([0.2, 0.5, 0.3])
    every = encode(sound(6), encoder, timing="paired", chunk_seconds=chunk_seconds)
    mixed = encode(sound(6), encoder, timing="paired", chunk_seconds=chunk_seconds, mix=shares)
    assert mixed.states.shape == (every.frames, 1, 32)
    torch.testing.assert_close(
        mixed.states[:, 0], torch.einsum("n,fnc->fc", shares, every.states), atol=1e-4, rtol=1e-4
    )
    assert every.mixed == ()
    assert mixed.mixed == pytest.approx(shares.tolist())


def test_a_mix_of_another_number_of_layers_is_reported(encoder: SpeechEncoder) -> None:
    with pytest.raises(TalkingPortraitError, match="has 3 hidden states, but 25 are to be mixed"):
        encode(sound(1), encoder, mix=torch.ones(25) / 25)


@pytest.mark.parametrize("seconds", [0.1, 6, 10.1, 21])
@pytest.mark.parametrize("chunk_seconds", [None, 2])
def test_progress_rises_to_the_end(encoder: SpeechEncoder, chunk_seconds: float | None, seconds: float) -> None:
    calls: list[tuple[int, int]] = []
    encode(
        sound(seconds),
        encoder,
        chunk_seconds=chunk_seconds,
        progress=lambda done, total, preview=None: calls.append((done, total)),
    )
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert {total for _, total in calls} == {len(calls)}


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_cancelling_stops_within_a_step(encoder: SpeechEncoder, stop_at: int) -> None:
    class CancelledError(Exception):
        pass

    calls = 0

    def progress(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        nonlocal calls
        calls += 1
        if done == stop_at:
            raise CancelledError

    with pytest.raises(CancelledError):
        encode(sound(1), encoder, progress=progress)
    assert calls == stop_at


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (None, "no audio"),
        (Audio(torch.zeros(1, 0), 16000), "empty"),
        (Audio(torch.zeros(1, 1), 16000), "1 samples"),
        (Audio(torch.full((1, 16000), torch.nan), 16000), "NaN"),
    ],
)
def test_bad_sound_gets_a_sentence(encoder: SpeechEncoder, audio: Any, words: str) -> None:
    with pytest.raises(TalkingPortraitError, match=words):
        encode(audio, encoder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fps": 0}, "frame rate"),
        ({"fps": 1000}, "frame rate"),
        ({"timing": "odd"}, "timing"),
        ({"chunk_seconds": 0.1}, "chunk"),
        ({"frame_multiple": 0}, "frame multiple is 0"),
        ({"frame_multiple": 1.5}, "frame multiple is 1.5"),
        ({"layers": "some"}, "layers are 'some'"),
    ],
)
def test_bad_options_get_a_sentence(encoder: SpeechEncoder, options: dict[str, Any], words: str) -> None:
    with pytest.raises(TalkingPortraitError, match=words):
        encode(sound(1), encoder, **options)
