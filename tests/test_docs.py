"""What the documentation tells people to type, follow and look at is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from talking_portrait import __main__ as command_line

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PROGRAM = re.compile(r"(?:python -m talking_portrait|python custom_nodes/talking-portrait|talking-portrait) ")
MAKE = re.compile(r"^\s*(?:\w+=\S+ )*make ([a-z-]+(?: [a-z-]+)*)")


def typed(page: Path) -> list[str]:
    """Lines of code blocks and code between words, without their comments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    indented = re.findall(r"^    (\S.*)$", text, re.M)
    fenced = [line for block in re.findall(r"```(?:bash|sh|)\n(.*?)```", text, re.S) for line in block.splitlines()]
    between = re.findall(r"`([^`\n]+)`", text)
    return [line.split("  #")[0].strip() for line in [*indented, *fenced, *between]]


COMMANDS = sorted(
    {
        line[found.end() :]
        for page in PAGES
        for line in typed(page)
        if (found := PROGRAM.match(line)) and "…" not in line and "..." not in line and line != "talking-portrait run"
    }
)


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 25
    assert any(line.startswith("animate --image") for line in COMMANDS)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its sub-command and options exist, and nothing that it needs is left out."""
    try:
        command_line._parser().parse_args(shlex.split(line))
    except SystemExit:
        pytest.fail(capsys.readouterr().err.splitlines()[-1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_targets_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", text):
        file, _, heading = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), f"{page.name} leads to {target}, which is not there"
        if heading:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.M)
            assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in typed(page):
        if found := MAKE.match(line):
            assert set(found[1].split()) <= targets, f"{page.name}: make {found[1]}"


def test_every_complaint_has_what_to_do() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert sorted(map(int, re.findall(r"^\| C(\d+) \|", text, re.M))) == list(range(1, 33))


def test_pages_are_reached_from_the_readme() -> None:
    linked, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        linked.add(page)
        for target in re.findall(r"\]\((?!https?:)([^)#]+\.md)", page.read_text(encoding="utf-8")):
            if (place := (page.parent / target).resolve()) not in linked and place.exists():
                left.append(place)
    assert {page for page in PAGES if page.parent.name == "docs"} <= linked | {ROOT / "docs" / "architecture.md"}
