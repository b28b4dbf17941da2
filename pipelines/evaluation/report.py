"""What an evaluation found: one table, as text, JSON and CSV, and one picture of curves."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files.images import write_image
from ..files.output_paths import whole_file
from .measures import Measure

NAMES = {"json": "evaluation.json", "csv": "evaluation.csv", "curves": "curves.png"}


@dataclass(frozen=True)
class Report:
    """`measures` in order; `facts`: what was measured, and by what; `curves` (H, W, 3) in 0..1."""

    facts: dict[str, str]
    measures: tuple[Measure, ...]
    curves: torch.Tensor

    def text(self) -> str:
        """A table in lines of text."""
        rows = [("measure", "value", "unit", "real speakers", "")]
        for measure in self.measures:
            kind = measure.kind
            note = measure.why or ("" if measure.place in ("", "within") else measure.place)
            rows.append((kind.name, _figure(measure.value), kind.unit, measure.range, note))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        lines += ["  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4])).rstrip()
                  for row in rows]  # fmt: skip
        return "\n".join(lines)

    def json(self) -> str:
        """An object with the facts and a list of measures, whose missing numbers are null."""
        measures = [
            {
                "measure": measure.kind.name,
                "value": measure.value,
                "unit": measure.kind.unit,
                "real_speakers": {"low": measure.kind.low, "high": measure.kind.high},
                "place": measure.place or None,
                "why_missing": measure.why or None,
                "meaning": measure.kind.meaning,
            }
            for measure in self.measures
        ]
        return json.dumps({**self.facts, "measures": measures}, indent=2, ensure_ascii=False) + "\n"

    def csv(self) -> str:
        """One row for each measure; missing numbers are empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["measure", "value", "unit", "real_low", "real_high", "place", "why_missing"])
        for measure in self.measures:
            kind = measure.kind
            numbers = ["" if number is None else f"{number:.6g}" for number in (measure.value, kind.low, kind.high)]
            writer.writerow([kind.name, numbers[0], kind.unit, *numbers[1:], measure.place, measure.why])
        return text.getvalue()


def write_report(folder: Path, report: Report) -> list[Path]:
    """Writes the two tables and the picture into an existing folder, each whole or not at all; their paths."""
    paths = {kind: folder / name for kind, name in NAMES.items()}
    for kind, content in (("json", report.json()), ("csv", report.csv())):
        with whole_file(paths[kind]) as partial:
            partial.write_text(content, encoding="utf-8", errors="backslashreplace")  # a name's bytes that are no UTF-8
    with whole_file(paths["curves"]) as partial:
        write_image(partial, report.curves)
    return list(paths.values())


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if value == int(value) else f"{value:.3g}"
