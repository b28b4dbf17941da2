"""Frame counts from the length of the audio: exact for every length and rate."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.timing import as_rate, frame_count, frame_time, sample_index

rates = st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000])
fps = st.sampled_from([Fraction(1), Fraction(24), Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(60)])


@given(samples=st.integers(1, 10**9), rate=rates, fps=fps)
def test_frames_cover_the_sound_and_not_one_more(samples, rate, fps):
    frames = frame_count(samples, rate, fps)
    sound = Fraction(samples, rate)
    assert frame_time(frames, fps) >= sound > frame_time(frames - 1, fps)


@given(parts=st.lists(st.integers(0, 10**6), min_size=1, max_size=20), fps=fps)
def test_joining_whole_frames_never_drifts(parts, fps):
    rate = fps.numerator * 100
    samples = [part * rate // fps.numerator * fps.denominator for part in parts]
    assert sum(frame_count(s, rate, fps) for s in samples) == frame_count(sum(samples), rate, fps)


@given(index=st.integers(0, 10**6), rate=rates, fps=fps)
def test_a_frame_starts_at_its_sample(index, rate, fps):
    first = sample_index(index, rate, fps)
    assert Fraction(first, rate) <= frame_time(index, fps) < Fraction(first + 1, rate)


@pytest.mark.parametrize(
    ("given_rate", "exact"),
    [
        (25, Fraction(25)),
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (12.5, Fraction(25, 2)),
        ("30000/1001", Fraction(30000, 1001)),
    ],
)
def test_rates_are_exact(given_rate, exact):
    assert as_rate(given_rate) == exact


@pytest.mark.parametrize("bad", [0, -25, 1000, float("nan"), float("inf"), "fast", None])
def test_impossible_rates_are_refused_in_a_sentence(bad):
    with pytest.raises(TalkingPortraitError, match=r"frame rate is .* 1 to 240"):
        as_rate(bad)


@example(Fraction(1001, 1000))
@given(st.one_of(st.fractions(1, 240), st.floats(1, 240), st.fractions(1, 1 + Fraction(1, 50))))
def test_every_rate_that_is_taken_is_one(fps):
    rate = as_rate(fps)
    assert 1 <= rate <= 240
    assert as_rate(rate) == rate
    assert abs(rate - Fraction(fps)) < Fraction(1, 100)
