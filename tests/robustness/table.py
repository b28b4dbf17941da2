"""Writes docs/robustness.md from the rows:

python -m tests.robustness.table
"""

from __future__ import annotations

from pathlib import Path

from .rows import SECTIONS, Row

PAGE = Path(__file__).parents[2] / "docs" / "robustness.md"
TESTS = "tests/robustness/test_table.py"
OPENING = f"""# What comes of bad input

Made of [tests/robustness/rows.py](../tests/robustness/rows.py) by `python -m tests.robustness.table`. Sentences stand
as the pack says them, with ... for what varies; figures are those that the named tests in `tests/` hold. Rows without a
test's name are run as they stand by [{TESTS}](../{TESTS}), with files that it makes by
their names. What to do about a problem is in [troubleshooting.md](troubleshooting.md).
"""


def page() -> str:
    """The page as it is to be."""
    parts = [OPENING]
    for title, rows in SECTIONS.items():
        parts.append(f"\n## {title}\n\n| what comes | way in | what comes of it | test |\n|---|---|---|---|\n")
        parts += [_line(row) for row in rows]
    return "".join(parts)


def _line(row: Row) -> str:
    way = row.way if row.test else f"`{row.way}`"
    result = f"*{row.sentence}*" if row.sentence else row.figure
    test = f"`{row.test}`" if row.test else ""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (row.given, way, result, test)) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
