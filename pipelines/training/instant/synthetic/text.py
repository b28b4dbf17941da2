"""Text for the synthesisers: words from short lists of our own in random order, and made-up words.

Meaning does not matter, only that every phone meets every other; made-up words bring the rare neighbours. Words are
written in each language's own spelling, so that espeak-ng reads them by that language's rules.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WORDS: dict[str, list[str]] = {
    language: " ".join(lines).split()
    for language, lines in json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8")).items()
}
WORDS["en"] = WORDS["en-us"]
LANGUAGES = ("en-us", "en", *(language for language in WORDS if language not in ("en-us", "en")))

_ONSETS = "p b m f v t d n l s z k g r w h j sh ch br pl st tr fl sp gr sm th bl kr"
_VOWELS = "a e i o u a e i o u ai au oo ee ou oi"
_CODAS = ["", "", "", "", "m", "n", "p", "b", "t", "s", "l", "r", "k", "f", "v", "mp", "nd", "st"]
_LATIN_EXCEPT = ("ru", "hi", "ja", "cmn-latn-pinyin")


def _made_up(rng: np.random.Generator) -> str:
    return "".join(
        f"{rng.choice(_ONSETS.split())}{rng.choice(_VOWELS.split())}{rng.choice(_CODAS)}"
        for _ in range(int(rng.integers(1, 4)))
    )


def compose(rng: np.random.Generator, language: str, words: int) -> str:
    """`words` words of `language` in random order; a fifth of them made up, commas and full stops in between."""
    vocabulary = WORDS[language]
    said = []
    for index in range(words):
        invent = language not in _LATIN_EXCEPT and rng.random() < 0.2
        word = _made_up(rng) if invent else str(rng.choice(vocabulary))
        mark = rng.random()
        if index < words - 1 and mark < 0.12:
            word += "," if mark < 0.07 else "."
        said.append(word)
    return " ".join(said) + "."
