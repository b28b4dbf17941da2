"""Audio to mouth controls: closed where there is no speech, the same whole or in pieces, like a real speaker."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.models.face.face_mesh import mouth_opening
from talking_portrait.models.face.mouth_shapes import lip_opening, neutral_vertices
from talking_portrait.models.speech.mouth_network import CONTROLS
from talking_portrait.pipelines.audio import speech_activity as gate
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.instant.driver.mouth_controls import MouthControls, as_controls, mouth_controls
from talking_portrait.pipelines.instant.driver.prosody import analyse
from talking_portrait.pipelines.types import Audio

from .everyday_sounds import RATE, WITHOUT_SPEECH, whispered

MUSIC = ("rock", "chords", "band")
SPEECH = Path(__file__).parents[4] / "shared" / "data" / "speech"


def opening(controls: MouthControls, fps: int = 25) -> np.ndarray:
    return mouth_opening(neutral_vertices() + controls.vertices_at(fps))


def vowels(seconds: float, rate: int = 16000, syllables: float = 2) -> torch.Tensor:
    """Something voice-like: a buzz of 120 Hz through two resonances that comes and goes `syllables` times a second."""
    from scipy.signal import lfilter

    t = np.arange(int(seconds * rate)) / rate
    sound = (np.diff(np.floor(t * 120), prepend=0) > 0).astype(float)
    for hertz in (700, 1200):
        pole = 0.97 * np.exp(2j * np.pi * hertz / rate)
        sound = lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], sound)
    sound *= np.clip(np.sin(2 * np.pi * syllables * t), 0, None)
    return torch.from_numpy(0.3 * sound / np.abs(sound).max()).float()


def test_a_voice_opens_the_mouth_and_long_pauses_close_it():
    sound = example_speech().waveform[0, : 10 * RATE].clone()
    sound[2 * RATE : 5 * RATE] = sound[7 * RATE :] = 0
    gap = opening(mouth_controls(Audio(sound[None], RATE)))
    assert min(gap[10:45].mean(), gap[135:170].mean()) > 0.05
    assert max(gap[65:100].max(), gap[195:].max()) < 0.005


def test_short_pauses_stay_half_open():
    """Measured speakers hold 50 to 60 % of their range in pauses of up to 0.6 s, and close in every fifth."""
    speech = example_speech().waveform[0].clone()
    pauses = range(1, 13, 2)
    for second in pauses:
        speech[second * RATE : round((second + 0.4) * RATE)] = 0
    gap = opening(mouth_controls(Audio(speech[None, : 14 * RATE], RATE)))
    inside = np.concatenate([gap[second * 25 + 3 : second * 25 + 8] for second in pauses])
    assert inside.mean() > 0.3 * gap.mean()
    assert (inside < 0.03).mean() < 0.5


def test_quiet_speech_after_loud_speech_moves_the_lips_too():
    speech = _speech()
    quiet = np.concatenate([speech, speech * 10 ** (-22 / 20)])
    gap = opening(mouth_controls(Audio(torch.from_numpy(quiet)[None], RATE)))
    loud, soft = gap[: len(gap) // 2], gap[len(gap) // 2 :]
    assert (soft > 0.05).sum() > 0.5 * (loud > 0.05).sum()


def test_stereo_whose_channels_cancel_counts_as_one_channel():
    speech = torch.from_numpy(_speech())
    one = opening(mouth_controls(Audio(speech[None], RATE)))
    two = opening(mouth_controls(Audio(torch.stack([speech, -speech]), RATE)))
    assert np.corrcoef(one, two)[0, 1] > 0.97
    assert 0.9 < two.std() / one.std() < 1.1


def test_the_same_audio_gives_the_same_controls():
    audio = Audio(vowels(2.0)[None], 16000)
    np.testing.assert_allclose(mouth_controls(audio).values, mouth_controls(audio).values, atol=1e-5)


def test_pieces_make_the_whole_without_a_seam():
    audio = Audio(vowels(9.0)[None], 16000)
    whole = mouth_controls(audio)
    for chunk in (37, 150):
        pieces = mouth_controls(audio, chunk=chunk)
        np.testing.assert_allclose(pieces.values, whole.values, atol=1e-5)
        np.testing.assert_allclose(pieces.activity, whole.activity, atol=1e-5)


@pytest.mark.parametrize("sound", WITHOUT_SPEECH.values(), ids=WITHOUT_SPEECH.keys())
def test_what_is_no_speech_leaves_the_mouth_closed_and_still(sound: torch.Tensor):
    controls = mouth_controls(Audio(sound[None], RATE))
    assert opening(controls).max() < 0.005
    assert np.linalg.norm(controls.vertices_at(25), axis=-1).max() < 0.06  # cm


def test_the_last_word_before_music_and_the_first_after_it_move_the_lips(monkeypatch):
    speech = _speech()
    music = WITHOUT_SPEECH["band"].numpy()[: 5 * RATE]
    music = music * np.sqrt((speech**2).mean() / (music**2).mean())
    audio = Audio(torch.from_numpy(np.concatenate([speech, music, speech]))[None], RATE)
    judged = opening(mouth_controls(audio))
    monkeypatch.setattr(gate, "voice_probability", lambda audio, frames: np.ones(frames))
    believed = opening(mouth_controls(audio))
    for part in (slice(0, 6 * 25), slice(11 * 25, None)):
        np.testing.assert_allclose(judged[part], believed[part], atol=1e-3)
    assert judged[8 * 25 : 9 * 25].max() < 0.005


@pytest.mark.parametrize("sound", ["band", "rain", "brass"])
def test_a_phrase_at_either_end_with_another_sound_beside_it_moves_the_lips(sound: str):
    """A greeting before the music begins: 0.7 seconds, and five of what is no speech."""
    speech = example_speech().waveform[0, 2 * RATE : round(2.7 * RATE)].numpy()
    other = WITHOUT_SPEECH[sound].numpy()[: 5 * RATE]
    other = other * speech.std() / other.std()
    first = opening(mouth_controls(Audio(torch.from_numpy(np.concatenate([speech, other]))[None], RATE)))
    last = opening(mouth_controls(Audio(torch.from_numpy(np.concatenate([other, speech]))[None], RATE)))
    assert min(first[3:15].mean(), last[-15:-3].mean()) > 0.05
    assert max(first[2 * 25 :].max(), last[: 4 * 25].max()) < 0.005


@pytest.mark.parametrize("background", ["pink", "hum", "white"])
def test_single_words_between_noisy_pauses_move_the_lips(background: str):
    """One word of 0.6 seconds and three seconds of a microphone's noise, 15 dB below it."""
    word = example_speech().waveform[0, 2 * RATE : round(2.6 * RATE)]
    pause = torch.zeros(3 * RATE)
    sound = torch.cat([pause, word, pause, word, pause[: round(0.8 * RATE)]])
    noise = WITHOUT_SPEECH[background][: len(sound)]
    gap = opening(mouth_controls(Audio((sound + word.std() * 10 ** (-15 / 20) * noise / noise.std())[None], RATE)))
    assert min(gap[75:90].mean(), gap[165:180].mean()) > 0.04
    assert max(gap[:60].max(), gap[100:150].max()) < 0.005


def _speech() -> np.ndarray:
    return example_speech().waveform[0, : 6 * RATE].numpy()


@pytest.mark.parametrize(
    ("music", "decibels", "alike"),
    [("rain", 20, 0.6), *((name, level, alike) for name in MUSIC for level, alike in ((20, 0.7), (10, 0.45)))],
)
def test_speech_over_music_moves_as_without_and_music_alone_rests(music: str, decibels: int, alike: float):
    speech = _speech()
    background = WITHOUT_SPEECH[music].numpy()
    background = background / background.std() * speech.std() * 10 ** (-decibels / 20)
    mixed = np.concatenate([background, background])
    mixed[: len(speech)] += speech
    alone = opening(mouth_controls(Audio(torch.from_numpy(speech)[None], RATE)))
    gap = opening(mouth_controls(Audio(torch.from_numpy(mixed).float()[None], RATE)))
    assert np.corrcoef(alone, gap[: len(alone)])[0, 1] > alike
    assert gap[len(alone) + 12 :].max() < 0.005


def test_whispered_words_move_the_lips_as_spoken_ones_do():
    speech = _speech()
    voice, breath = (
        opening(mouth_controls(Audio(torch.from_numpy(sound)[None], RATE))) for sound in (speech, whispered(speech))
    )
    assert np.corrcoef(voice, breath)[0, 1] > 0.6
    assert 0.7 < breath.std() / voice.std() < 1.4


def test_consonants_without_a_voice_count_as_speech_within_it():
    audio = Audio(torch.from_numpy(_speech())[None], RATE)
    controls = mouth_controls(audio)
    prosody = analyse(audio, controls.activity, controls.rate)
    activity = np.interp(np.arange(prosody.frames) / 100, np.arange(len(controls.activity)) / 50, controls.activity)
    voiceless = prosody.speech & ~prosody.voiced
    assert voiceless.sum() > 50
    assert (activity[voiceless] > 0.5).mean() > 0.9


@pytest.mark.parametrize("decibels", [-30, -50])
def test_lips_do_not_depend_on_the_level_of_the_recording(decibels: int):
    speech = _speech()
    quiet = np.round(speech * 10 ** (decibels / 20) * 32768) / 32768  # as 16 bits hold it
    assert np.abs(quiet).max() < 0.04
    loud, soft = (opening(mouth_controls(Audio(torch.from_numpy(s).float()[None], RATE))) for s in (speech, quiet))
    assert np.corrcoef(loud, soft)[0, 1] > 0.97
    assert 0.9 < soft.std() / loud.std() < 1.1


def test_one_word_in_a_long_silence_moves_the_lips_as_by_itself():
    word = vowels(1.0, syllables=0.5)
    alone = opening(mouth_controls(Audio(torch.nn.functional.pad(word, (8000, 8000))[None], RATE)))
    lost = opening(mouth_controls(Audio(torch.nn.functional.pad(word, (8000, 60 * RATE))[None], RATE)))
    assert alone.max() > 0.05
    np.testing.assert_allclose(lost[: len(alone)], alone, atol=0.02)
    assert not lost[len(alone) :].any()


def test_the_number_of_threads_changes_rounding_alone():
    audio = Audio(torch.from_numpy(_speech())[None], RATE)
    before = torch.get_num_threads()
    predicted = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            predicted.append(mouth_controls(audio).values)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(predicted[1], predicted[0], atol=1e-5)
    np.testing.assert_allclose(predicted[2], predicted[0], atol=1e-5)


def _predicted(**controls: np.ndarray | float) -> np.ndarray:
    """What the network might predict for two seconds of speech."""
    predicted = np.zeros((100, len(CONTROLS) + 1), np.float32)
    predicted[:, -1] = 1
    for name, value in controls.items():
        predicted[:, CONTROLS.index(name)] = value
    return predicted


def test_a_likely_closure_is_complete_and_the_lips_near_each_other_before():
    press = np.zeros(100)
    press[48:52] = 0.3
    gap = lip_opening(as_controls(_predicted(jaw=0.4, press=press), Fraction(2)).values)
    assert gap[48:52].max() < 0.03
    assert gap[46] < 0.8 * gap[20]  # 40 ms before
    assert (np.diff(gap[30:49]) < 1e-6).all()
    assert (np.diff(gap[51:70]) > -1e-6).all()
    hinted = lip_opening(as_controls(_predicted(jaw=0.4, press=press / 2), Fraction(2)).values)
    assert hinted.min() > 0.03


def test_silence_after_speech_is_exactly_closed():
    sound = torch.cat([vowels(2.0), torch.zeros(32000)])
    gap = opening(mouth_controls(Audio(sound[None], 16000)))
    assert gap[:50].max() > 0.05
    assert gap[65:].max() == 0


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 8), (22050, 2), (44100, 1), (48000, 2)])
def test_any_rate_and_number_of_channels(rate: int, channels: int):
    controls = mouth_controls(Audio(vowels(1.3, rate).repeat(channels, 1), rate))
    assert controls.values.shape == (len(controls.activity), len(CONTROLS))
    assert len(controls.values) >= 1.3 * controls.rate
    assert opening(controls).max() > 0.05


@pytest.mark.parametrize("fps", [1, 10, 24, 25, Fraction(30000, 1001), 50, 60, 120])
def test_frames_cover_the_audio_at_every_rate(fps):
    controls = mouth_controls(Audio(vowels(1.01)[None], 16000))
    assert len(controls.at(fps)) == np.ceil(Fraction(16160, 16000) * fps)


@pytest.mark.parametrize("fps", [10, 12.5, 24, 25, 30, 60])
def test_no_closure_falls_between_two_frames(fps: float):
    for place in range(20, 40):
        values = np.zeros((80, len(CONTROLS)), np.float32)
        values[:, CONTROLS.index("jaw")] = 0.5
        values[place : place + 2, CONTROLS.index("press")] = 1
        controls = MouthControls(values, np.ones(80, np.float32), 50, Fraction(8, 5))
        gap = mouth_opening(neutral_vertices() + controls.vertices_at(fps))
        assert gap.min() < 0.03
        assert (gap > 0.1).sum() >= len(gap) - 4


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (Audio(torch.zeros(1, 1), 16000), "1 samples"),
        (Audio(torch.full((1, 16000), float("nan")), 16000), "NaN"),
        (Audio(torch.zeros(1, 0), 16000), "empty"),
        (None, "no audio"),
    ],
)
def test_bad_audio_is_refused_in_one_sentence(audio, words: str):
    with pytest.raises(TalkingPortraitError, match=words) as caught:
        mouth_controls(audio)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("stop", [2, 7], ids=["in the convolutions", "in the encoder"])
def test_progress_is_reported_and_can_cancel(stop: int):
    class CancelledError(Exception):
        pass

    reports = []

    def watch(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        reports.append((done, total))
        if len(reports) == stop:
            raise CancelledError

    with pytest.raises(CancelledError):
        mouth_controls(Audio(vowels(5.0)[None], 16000), progress=watch, chunk=50)
    assert reports == [(done, 100) for done in (4, 8, 12, 16, 20, 20, 84)[:stop]], "251 frames, of which 200 at once"


def _score(clip: int) -> tuple[float, float]:
    """Correlation with the real speaker's lip opening, at lag 0 and the best within 120 ms."""
    import soundfile

    truth = np.load(SPEECH / f"clip{clip}.npz")
    sound, rate = soundfile.read(SPEECH / f"clip{clip}.flac", dtype="float32", always_2d=True)
    guess = opening(mouth_controls(Audio(torch.from_numpy(sound.T.copy()), rate)))
    real = mouth_opening(truth["landmarks"].astype(np.float32))
    seconds = min(len(real) / float(truth["fps"]), len(guess) / 25)
    times = np.arange(int(seconds * 25)) / 25
    real = np.interp(times, np.arange(len(real)) / float(truth["fps"]), real)
    guess = np.interp(times, np.arange(len(guess)) / 25, guess)
    lags = [np.corrcoef(real[10:-10], np.roll(guess, lag)[10:-10])[0, 1] for lag in range(-3, 4)]
    return lags[3], max(lags)


@pytest.mark.skipif(not SPEECH.is_dir(), reason="no recordings of real speech beside the repository")
def test_it_follows_real_speakers():
    scores = np.array([_score(clip) for clip in (1, 2, 3)])
    at_zero, best = scores.mean(axis=0)
    assert best >= 0.50
    assert at_zero >= 0.40
