"""The rows of a batch: a portrait, speech, a renderer and its settings each, and the file that becomes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import TalkingPortraitError, check_seed, check_whole_numbers, quoted
from ..files.input_paths import existing_file
from ..files.output_paths import cut_to_bytes
from ..packages import VERSION
from ..renderers import FILM_OPTIONS, INSTANT, RENDERERS, check_option_names, is_to_dub, refuse_film_options
from ..workflow.result_names import plain_name

KEYS = ("portrait", "audio", "renderer", "settings", "name")
OF_EVERY_RENDERER = ("fps", "longest_side", "crf", "mark", "device", "models", "face", *FILM_OPTIONS)
NO_SETTINGS = ("image", "audio", "out", "renderer", "progress", "motion")
"""Arguments of `animate` that a row gives in another place, or can't."""
MAX_STEM_BYTES = 100


@dataclass(frozen=True)
class Job:
    """One row: `settings` are arguments of the Python API's `animate`; `numbers` are the manifest's lines that ask for
    it, `target` the file to write, named by the contents of what it is made from."""

    numbers: tuple[int, ...]
    portrait: Path
    audio: Path
    renderer: str
    target: Path
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(manifest: Path, out: Path) -> list[Job]:
    """The jobs of a manifest, a JSON object on each line; rows that are the same become one job.

    Paths are relative to the manifest's folder. Raises TalkingPortraitError, which names the line, for what is no row.
    """
    try:
        text = existing_file(manifest, "manifest").read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TalkingPortraitError(
            f"{manifest.name} is no text in UTF-8, but a JSON object on each line is expected; save it as UTF-8."
        ) from None
    jobs: dict[Path, Job] = {}
    digests: dict[Path, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise TalkingPortraitError(
                f"Line {number} of {manifest.name} is no JSON, but an object such as "
                '{"portrait": "a.png", "audio": "a.wav"} is expected on each line.'
            ) from None
        try:
            job = _job(number, row, manifest.parent, out, digests)
        except TalkingPortraitError as error:
            raise TalkingPortraitError(f"Line {number} of {manifest.name}: {error}") from None
        known = jobs.get(job.target)
        numbers = (*known.numbers, number) if known else job.numbers
        jobs[job.target] = Job(numbers, job.portrait, job.audio, job.renderer, job.target, job.settings)
    if not jobs:
        raise TalkingPortraitError(f"{manifest.name} has no rows; give one JSON object on each line.")
    return list(jobs.values())


def _job(number: int, row: Any, folder: Path, out: Path, digests: dict[Path, str]) -> Job:
    if not isinstance(row, dict) or not {"portrait", "audio"} <= row.keys():
        raise TalkingPortraitError(f"The row is {quoted(row)}, but an object with portrait and audio is expected.")
    surplus = sorted(row.keys() - set(KEYS))
    if surplus:
        raise TalkingPortraitError(f"The row has {quoted(surplus[0])}, but only {', '.join(KEYS)} are known.")
    texts = {name: row.get(name, default) for name, default in (("portrait", ""), ("audio", ""), ("name", ""))}
    renderer, settings = row.get("renderer", INSTANT), row.get("settings", {})
    for name, value in texts.items():
        if not isinstance(value, str):
            raise TalkingPortraitError(f"The {name} is {quoted(value)}, but text is expected.")
        if not value and name != "name":
            raise TalkingPortraitError(f"The {name} is empty, but the name of a file is expected.")
    if renderer not in RENDERERS:
        raise TalkingPortraitError(
            f"The renderer is {quoted(renderer)}, but one of {', '.join(RENDERERS)} is expected."
        )
    if not isinstance(settings, dict):
        raise TalkingPortraitError(
            f'The settings are {quoted(settings)}, but an object is expected, such as {{"seed": 3}}.'
        )
    misplaced = next((name for name in settings if name in NO_SETTINGS), None)
    if misplaced:
        raise TalkingPortraitError(
            f"The settings have {quoted(misplaced)}, which is no setting of a row; a row has {', '.join(KEYS)}."
        )
    check_option_names(renderer, settings, OF_EVERY_RENDERER)
    check_whole_numbers(settings)
    check_seed(settings.get("seed", 0))
    if texts["name"] and plain_name(texts["name"]) != texts["name"]:
        raise TalkingPortraitError(f"The name is {quoted(texts['name'])}, but a plain file name is expected.")
    portrait, audio = (existing_file(folder / texts[name], name) for name in ("portrait", "audio"))
    if not is_to_dub(portrait, renderer, settings.get("longest_side")):
        refuse_film_options({name: settings.get(name) for name in FILM_OPTIONS}, "the portrait")
    stem = texts["name"] or f"{portrait.stem}_{audio.stem}"
    content = [VERSION, renderer, json.dumps(settings, sort_keys=True)]
    content += [_digest(path, digests) for path in (portrait, audio)]
    key = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
    target = out / f"{cut_to_bytes(plain_name(stem) or 'video', MAX_STEM_BYTES)}_{key}.mp4"
    return Job((number,), portrait, audio, renderer, target, settings)


def _digest(path: Path, digests: dict[Path, str]) -> str:
    """SHA-256 of a file, computed once."""
    if path not in digests:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digests[path] = digest.hexdigest()
    return digests[path]
