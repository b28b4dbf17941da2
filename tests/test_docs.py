"""What the documentation tells people to type, follow and look at is there."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import shlex
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
import talking_portrait
from talking_portrait import __main__ as command_line
from talking_portrait.pipelines.renderers import check_option_names

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
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


CLIENT = "python examples/api_client.py "
CLIENT_LINES = sorted({line.split(CLIENT)[1] for page in PAGES for line in typed(page) if CLIENT in line})


@pytest.mark.parametrize("line", CLIENT_LINES)
def test_a_line_of_the_api_client_is_one(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It gets as far as the server or as its files, none of which is there."""
    monkeypatch.chdir(ROOT)
    main = runpy.run_path(str(ROOT / "examples" / "api_client.py"))["main"]
    elsewhere = ["--server", "http://127.0.0.1:9", "--out", str(tmp_path)]
    assert main([*shlex.split(line.removesuffix(" &")), *elsewhere]) == 1
    assert re.match(r"error: .*(127\.0\.0\.1:9|portrait\.jpg)", capsys.readouterr().err)


PYTHON = re.compile(r"^    import talking_portrait as tp\n(?:    .*\n)+", re.M)
CALLS = [
    call
    for page in PAGES
    for block in PYTHON.findall(page.read_text(encoding="utf-8"))
    for call in ast.walk(ast.parse(textwrap.dedent(block)))
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
]


def test_lines_of_python_are_found() -> None:
    assert len(CALLS) >= 9


@pytest.mark.parametrize("call", CALLS, ids=ast.unparse)
def test_a_line_of_python_fits_its_function(call: ast.Call) -> None:
    """The function exists, and takes what it is given: its settings, too, that are in no signature."""
    assert isinstance(call.func, ast.Attribute)
    name, given = call.func.attr, {word.arg: word.value for word in call.keywords if word.arg is not None}
    assert name in talking_portrait.__all__
    bound = inspect.signature(getattr(talking_portrait, name)).bind(*call.args, **given)
    settings = bound.arguments.get("options", bound.arguments.get("settings", {}))
    chosen = {key: ast.literal_eval(bound.arguments[key]) for key in ("renderer", "system") if key in bound.arguments}
    if name == "animate":
        check_option_names(chosen.get("renderer", "instant"), settings)
    elif name == "train_person":
        system = import_module(f"talking_portrait.pipelines.training.{chosen.get('system', 'audiodvp')}.settings")
        system.Settings(**{key: ast.literal_eval(value) for key, value in settings.items()})
    else:
        assert not settings


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


def test_pages_that_code_and_help_name_are_there() -> None:
    folders = ("nodes", "pipelines", "models", "tests", "web", "examples")
    files = [file for folder in folders for ending in ("py", "md") for file in (ROOT / folder).rglob(f"*.{ending}")]
    named = {
        (file.relative_to(ROOT).as_posix(), page)
        for file in files
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert not {(file, page) for file, page in named if not (ROOT / page).exists()}


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
    assert {page for page in PAGES if page.parent != ROOT} <= linked | {ROOT / "docs" / "architecture.md"}
