"""The mouth's training data, without the synthesisers where possible."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from talking_portrait.models.face.mouth_shapes import lip_opening
from talking_portrait.pipelines.training.instant.synthetic.backgrounds import KINDS, make_backgrounds
from talking_portrait.pipelines.training.instant.synthetic.corpus import vary, warp_bands, whispered
from talking_portrait.pipelines.training.instant.synthetic.speech import (
    ARPABET,
    HELD_OUT_FLITE,
    HELD_OUT_VARIANTS,
    IPA,
    PHONE_INDEX,
    PHONES,
    Espeak,
    flite,
    ipa_classes,
    speak_random,
)
from talking_portrait.pipelines.training.instant.synthetic.targets import mouth_targets
from talking_portrait.pipelines.training.instant.synthetic.text import LANGUAGES, compose


def spell(text: str, seconds: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    phones = np.array([PHONE_INDEX[name] for name in text.split()])
    return phones, np.arange(len(phones) + 1) * seconds


def openings(text: str, seconds: float = 0.1) -> np.ndarray:
    phones, edges = spell(text, seconds)
    controls, _, _ = mouth_targets(phones, edges, np.ones(len(phones)), int(edges[-1] * 100))
    assert controls.min() >= 0
    assert controls.max() <= 1
    return lip_opening(controls)


@pytest.mark.parametrize("phone", ["p", "b", "m"])
@pytest.mark.parametrize("vowel", ["aa", "iy", "uw", "ae"])
@pytest.mark.parametrize("seconds", [0.05, 0.1])
def test_bilabials_close_between_any_vowels(phone: str, vowel: str, seconds: float):
    gap = openings(f"sil {vowel} {vowel} {phone} {vowel} {vowel} sil", seconds)
    during = slice(int(3 * seconds * 100), int(4 * seconds * 100))
    assert gap[during].min() < 0.01
    assert gap.max() > 0.02


def test_labiodentals_touch_and_other_consonants_stay_open():
    for phone in ("f", "v"):
        assert openings(f"aa {phone} aa")[10:20].min() < 0.03
    for phone in ("t", "s", "k", "l", "n"):
        assert openings(f"aa {phone} aa")[10:20].min() > 0.03


def test_open_vowels_open_more_than_close_ones_and_rounding_narrows():
    middle = {vowel: openings(f"t {vowel} {vowel} {vowel} t")[25] for vowel in ("aa", "eh", "iy", "uw")}
    assert middle["aa"] > middle["eh"] > middle["iy"] > middle["uw"]


def test_the_lips_lead_the_sound_and_sink_in_silence():
    phones, edges = spell("sil aa sil")[0], np.array([0.0, 0.5, 0.8, 1.3])
    gap = lip_opening(mouth_targets(phones, edges, np.ones(3), 130)[0])
    assert gap[:5].max() < 0.01
    assert gap[46] > 0.05
    assert gap[55:75].min() > 0.15
    assert (np.diff(gap[85:]) < 0).all()
    assert gap[-1] < 0.05


def test_louder_vowels_open_the_jaw_further():
    phones, edges = spell("t aa aa t")
    jaw = [mouth_targets(phones, edges, np.full(4, amount), 40)[0][:, 0].max() for amount in (0.7, 1.0, 1.3)]
    assert jaw[0] < jaw[1] < jaw[2]


def test_phone_names_of_both_synthesisers_are_known_classes():
    assert set(IPA.values()) <= set(PHONES)
    assert {name for classes in ARPABET.values() for name in classes} <= set(PHONES)
    assert ipa_classes("oʊ") == ["ow", "uh"]
    assert ipa_classes("tʃ") == ["ch"]
    assert ipa_classes("uː") == ["uw"]
    assert ipa_classes("ɔ̃") == ["ao"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_is_random_but_repeatable(language: str):
    texts = [compose(np.random.default_rng(seed), language, 12) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0].split()) == 12


def test_another_vocal_tract_moves_the_bands():
    mel = np.zeros((3, 40), np.float32)
    mel[:, 20] = 1
    assert warp_bands(mel, np.full(6, -2.0)).argmax(1).tolist() == [22, 22, 22]
    np.testing.assert_allclose(warp_bands(mel, np.zeros(6)), mel, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(set(KINDS), key=lambda kind: kind.__name__))
def test_every_kind_of_background_sounds_and_is_drawn_at_random(kind):
    first, again, other = (kind(np.random.default_rng(seed), 32000) for seed in (1, 1, 2))
    assert first.shape == (32000,)
    np.testing.assert_allclose(first, again, atol=1e-5)
    assert not np.allclose(first, other, atol=1e-3)
    for seed in range(6):
        sound = kind(np.random.default_rng(seed), 32000)
        assert np.isfinite(sound).all()
        assert sound.std() > 0


def test_a_whisper_has_no_voice_and_keeps_its_vowels():
    mel = np.full((400, 40), 1e-4, np.float32)
    mel[:, :8] *= 100
    mel[:, 25:28] *= 10
    breath = whispered(mel, np.random.default_rng(0)).mean(0)
    assert breath[0] < 0.2 * mel[0, 0]
    assert breath[26] == pytest.approx(mel[0, 26], rel=0.2)


def test_varied_speech_is_finite_and_never_twice_the_same():
    backgrounds = make_backgrounds(0, 6)
    assert all(abs(sound.mean() - 1) < 1e-3 for sound in backgrounds)
    rng = np.random.default_rng(0)
    mel = rng.random((200, 40)).astype(np.float32) ** 4 * 1e-3
    first, second = vary(mel, backgrounds, rng, True), vary(mel, backgrounds, rng, True)
    assert first.shape == mel.shape
    assert np.isfinite(first).all()
    assert (first >= 0).all()
    assert not np.allclose(first, second, rtol=0.01)


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_reports_phone_times():
    spoken = flite("a baby", "slt", 1.0, 120.0)
    names = [PHONES[phone] for phone in spoken.phones]
    assert names[0] == names[-1] == "sil"
    assert names.count("b") == 2
    assert spoken.edges[-1] == pytest.approx(len(spoken.waveform) / 16000, abs=1e-3)
    assert (np.diff(spoken.edges) > 0).all()


def test_espeak_reports_phone_times_and_held_out_voices_are_separate():
    try:
        espeak = Espeak()
    except ValueError as error:
        pytest.skip(str(error))
    spoken = espeak.speak("Mama", "de", "", 150, 50, 50)
    assert [PHONES[phone] for phone in spoken.phones].count("m") == 2
    rng = np.random.default_rng(0)
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    for held_out in (False, True):
        for _ in range(6):
            voice = speak_random(espeak, rng, held_out).voice
            known = HELD_OUT_FLITE if voice.startswith("flite/") else HELD_OUT_VARIANTS
            name = voice.split("/")[1] if voice.startswith("flite/") else voice.partition("+")[2]
            assert (name in known) == held_out
