"""Synthetic speech with the exact times of its phones: the training data of the Instant driver's mouth.

Two free synthesisers, both Debian packages, speak text of our own: flite (its `-psdur` prints when each phone ends;
statistical and diphone voices cut from real speakers) and espeak-ng (phoneme events through libespeak-ng; formant
synthesis, many languages and voice variants). Both sets of phone names are mapped onto one small set of articulatory
classes. Needed for training only; nothing here runs when a portrait is animated.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import unicodedata
import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from .....models.speech.mouth_network import SAMPLE_RATE
from ....errors import TalkingPortraitError
from ....files.scratch import temporary_folder
from .text import LANGUAGES, compose

PHONES = (
    "sil", "p", "b", "m", "f", "v", "th", "t", "d", "n", "l", "s", "z", "sh", "ch", "k", "ng", "h", "r", "w", "y",
    "aa", "ae", "ah", "ax", "eh", "ey", "ih", "iy", "ao", "ow", "uh", "uw", "er", "yu", "oe",
)  # fmt: skip
"""Articulatory classes: rest, consonants by place and manner, vowels by height, backness and rounding."""
PHONE_INDEX = {name: index for index, name in enumerate(PHONES)}

ARPABET: dict[str, tuple[str, ...]] = {
    "pau": ("sil",), "p": ("p",), "b": ("b",), "m": ("m",), "f": ("f",), "v": ("v",), "th": ("th",), "dh": ("th",),
    "t": ("t",), "d": ("d",), "n": ("n",), "l": ("l",), "s": ("s",), "z": ("z",), "sh": ("sh",), "zh": ("sh",),
    "ch": ("ch",), "jh": ("ch",), "k": ("k",), "g": ("k",), "ng": ("ng",), "hh": ("h",), "r": ("r",), "w": ("w",),
    "y": ("y",), "aa": ("aa",), "ae": ("ae",), "ah": ("ah",), "ax": ("ax",), "eh": ("eh",), "ih": ("ih",),
    "iy": ("iy",), "ao": ("ao",), "uh": ("uh",), "uw": ("uw",), "er": ("er",), "axr": ("er",), "ey": ("ey", "ih"),
    "ay": ("aa", "ih"), "aw": ("aa", "uh"), "ow": ("ow", "uh"), "oy": ("ao", "ih"),
}  # fmt: skip
"""flite's phones; diphthongs are two classes in a row."""

IPA: dict[str, str] = {
    letter: name
    for name, letters in json.loads(Path(__file__).with_name("ipa.json").read_text(encoding="utf-8")).items()
    for letter in letters.split()
}
"""One class for one IPA letter; marks for length, stress, nasality and aspiration are passed over."""

VOWELS = frozenset(PHONES[PHONE_INDEX["aa"] :])

FLITE_VOICES = ("slt", "rms", "kal16", "awb")
ESPEAK_VARIANTS = (
    "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2", "klatt3",
    "klatt4", "Alex", "Alicia", "Andrea", "Andy", "Annie", "Antonio", "aunty", "belinda", "benjamin", "boris", "caleb",
    "david", "ed", "edward", "Gene", "Gene2", "grandma", "grandpa", "Henrique", "Hugo", "iven", "Jacky", "john", "Lee",
    "Linda", "marcelo", "Marco", "Mario", "max", "Michael", "michel", "miguel", "norbert", "pablo", "paul", "pedro",
    "quincy", "rob", "robert", "sandro", "shelby", "steph", "travis", "victor", "whisper", "zac",
)  # fmt: skip
HELD_OUT_FLITE = ("awb",)
HELD_OUT_VARIANTS = ("f4", "m7", "Andy", "Linda", "quincy", "steph")
"""Voices that are not in the training data; the metrics of the model card are measured on them."""


@dataclass(frozen=True)
class Utterance:
    """`waveform` (samples,) float32 at 16 kHz; `phones` (N,) indices into PHONES; `edges` (N + 1,) seconds; `voice`."""

    waveform: np.ndarray
    phones: np.ndarray
    edges: np.ndarray
    voice: str


def ipa_classes(symbol: str) -> list[str]:
    """The classes of one espeak phoneme, which can be several letters: a diphthong, an affricate, a syllabic l."""
    letters = unicodedata.normalize("NFD", symbol)
    if len(letters) > 1:
        letters = letters.replace("\N{MODIFIER LETTER SMALL J}", "")
    classes = [IPA[letter] for letter in letters if letter in IPA]
    merged: list[str] = []
    for name in classes:
        if name == "sh" and merged and merged[-1] in ("t", "d"):
            merged[-1] = "ch"
        else:
            merged.append(name)
    return merged


def _split(classes: list[str] | tuple[str, ...], start: float, end: float) -> list[tuple[str, float]]:
    """(class, end) pairs over start..end; of two vowels the first takes 60 %."""
    if len(classes) == 2 and classes[0] in VOWELS and classes[1] in VOWELS:
        shares = [0.6, 1.0]
    else:
        shares = [(i + 1) / len(classes) for i in range(len(classes))]
    return [(name, start + share * (end - start)) for name, share in zip(classes, shares, strict=True)]


def _utterance(waveform: np.ndarray, segments: list[tuple[str, float]], voice: str) -> Utterance:
    """Join equal neighbours' rests, drop empty segments and close the last one at the end of the sound."""
    phones: list[int] = []
    edges = [0.0]
    for name, end in segments:
        end = min(end, len(waveform) / SAMPLE_RATE)
        if end <= edges[-1]:
            continue
        if name == "sil" and phones and phones[-1] == 0:
            edges[-1] = end
            continue
        phones.append(PHONE_INDEX[name])
        edges.append(end)
    if len(waveform) / SAMPLE_RATE > edges[-1]:
        phones.append(0)
        edges.append(len(waveform) / SAMPLE_RATE)
    return Utterance(waveform.astype(np.float32), np.array(phones, np.int16), np.array(edges, np.float32), voice)


def _resample(waveform: np.ndarray, rate: int) -> np.ndarray:
    from scipy.signal import resample_poly

    ratio = Fraction(SAMPLE_RATE, rate)
    return resample_poly(waveform, ratio.numerator, ratio.denominator) if ratio != 1 else waveform


def flite(text: str, voice: str, stretch: float, pitch: float) -> Utterance:
    """Speak English with flite: `stretch` multiplies durations, `pitch` is the mean in Hz."""
    with temporary_folder("flite") as folder:
        path = folder / "speech.wav"
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}", "--setf",
                   f"int_f0_target_mean={pitch:.1f}", "-t", text, "-o", str(path), "-psdur"]  # fmt: skip
        try:
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except FileNotFoundError as error:
            raise TalkingPortraitError(
                "flite was not found, but training needs it: apt-get install flite espeak-ng."
            ) from error
        with wave.open(str(path)) as file:
            rate = file.getframerate()
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    segments: list[tuple[str, float]] = []
    start = 0.0
    for item in printed.split():
        name, end = item.rsplit(":", 1)
        segments += _split(ARPABET[name], start, float(end))
        start = float(end)
    return _utterance(_resample(sound, rate), segments, f"flite/{voice}")


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT of espeak-ng's speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int), ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int), ("user_data", ctypes.c_void_p), ("id", _EventId),
    ]  # fmt: skip


class Espeak:
    """espeak-ng in this process, synchronous, with phoneme events as IPA."""

    _SYNCHRONOUS, _PHONEME_EVENTS_IPA, _PHONEME, _RATE, _PITCH, _RANGE, _UTF8 = 2, 3, 7, 1, 3, 4, 1
    _SHORTEST_PAUSE = 0.07

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise TalkingPortraitError(
                "libespeak-ng.so.1 was not found, but training needs it: apt-get install flite espeak-ng."
            ) from error
        self.rate = self.library.espeak_Initialize(self._SYNCHRONOUS, 0, None, self._PHONEME_EVENTS_IPA)
        self.pieces: list[bytes] = []
        self.events: list[tuple[int, str]] = []
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self.callback = signature(self._receive)  # the library keeps the pointer, so this object must
        self.library.espeak_SetSynthCallback(self.callback)

    def _receive(self, samples, count: int, events) -> int:
        if samples and count:
            self.pieces.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type:
            if events[index].type == self._PHONEME:
                self.events.append((events[index].sample, events[index].id.string.decode("utf-8", "ignore")))
            index += 1
        return 0

    def speak(
        self, text: str, language: str, variant: str, words_per_minute: int, pitch: int, spread: int
    ) -> Utterance:
        """`pitch` and `spread` (pitch range) are espeak's 0..100."""
        voice = f"{language}+{variant}" if variant else language
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise TalkingPortraitError(f"espeak-ng has no voice {voice}; install the package espeak-ng-data.")
        for parameter, value in ((self._RATE, words_per_minute), (self._PITCH, pitch), (self._RANGE, spread)):
            self.library.espeak_SetParameter(parameter, value, 0)
        self.pieces, self.events = [], []
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 1, 0, self._UTF8, None, None)
        sound = np.frombuffer(b"".join(self.pieces), np.int16) / 32768
        segments: list[tuple[str, float]] = []
        events = [(s, e) for s, e in self.events if not e.startswith("(")]  # "(en)" marks a change of language
        ends = [s for s, _ in events[1:]] + [len(sound)]
        if events:
            segments.append(("sil", events[0][0] / self.rate))
        begin: float | None = None
        for (start, symbol), end in zip(events, ends, strict=True):
            classes = ipa_classes(symbol) or ["sil"]
            begin = start / self.rate if begin is None else begin
            if classes == ["sil"] and end / self.rate - begin < self._SHORTEST_PAUSE:
                continue  # the silent part of the consonant that follows
            segments += _split(classes, begin, end / self.rate)
            begin = None
        return _utterance(_resample(sound, self.rate), segments, f"espeak/{voice}")


def speak_random(espeak: Espeak, rng: np.random.Generator, held_out: bool = False) -> Utterance:
    """One random utterance: 55 % flite's voices (nearer to real speakers), else espeak-ng in some language."""
    if rng.random() < 0.55:
        voices = [v for v in FLITE_VOICES if (v in HELD_OUT_FLITE) == held_out]
        text = compose(rng, "en-us", words=int(rng.integers(5, 22)))
        return flite(text, str(rng.choice(voices)), float(rng.uniform(0.75, 1.35)), float(rng.uniform(75, 260)))
    variants = [v for v in ESPEAK_VARIANTS if (v in HELD_OUT_VARIANTS) == held_out]
    language = str(rng.choice(LANGUAGES))
    text = compose(rng, language, words=int(rng.integers(4, 18)))
    return espeak.speak(
        text, language, str(rng.choice(variants)), int(rng.integers(110, 230)), int(rng.integers(15, 90)),
        int(rng.integers(10, 95)),
    )  # fmt: skip


def require_synthesisers() -> None:
    """Raise TalkingPortraitError unless both programs are there."""
    if not any(os.access(Path(folder) / "flite", os.X_OK) for folder in os.get_exec_path()):
        raise TalkingPortraitError("flite was not found, but training needs it: apt-get install flite espeak-ng.")
    Espeak()
