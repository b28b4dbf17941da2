"""Options of `make parity`, one test item for each golden, and the table at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from .goldens import OWN_GOLDENS, SHARED_GOLDENS, Golden, find_goldens, find_runner, load_runners

_results: dict[str, Golden] = {}
_without_runner: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity", "comparison with the numbers of the published systems")
    group.addoption("--goldens", default="", help="folder of goldens; default ../shared/parity, tests/data/goldens")
    group.addoption("--system", default="", help="only this system's goldens, for instance aniportrait")
    group.addoption("--only-runnable", action="store_true", help="leave out goldens without a runner")


def pytest_configure(config: pytest.Config) -> None:
    # getoption with a default here and below: the options exist only when pytest was started on this folder.
    given, system = config.getoption("--goldens", default=""), config.getoption("--system", default="")
    if given and not Path(given).is_dir():
        raise pytest.UsageError(f"--goldens names {given}, which is no folder.")
    if (given or system) and not _chosen(config):
        systems = sorted({golden.system for folder in _folders(config) for golden in find_goldens(folder)})
        raise pytest.UsageError(
            f"No golden of {system or 'any system'} in {', '.join(map(str, _folders(config)))}; "
            f"expected <system>/goldens/*.json. Systems there: {', '.join(systems) or 'none'}."
        )


def _folders(config: pytest.Config) -> list[Path]:
    given = config.getoption("--goldens", default="")
    return [Path(given).resolve()] if given else [SHARED_GOLDENS, OWN_GOLDENS]


def _chosen(config: pytest.Config) -> list[Golden]:
    system = config.getoption("--system", default="")
    return [golden for folder in _folders(config) for golden in find_goldens(folder, system)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden" not in metafunc.fixturenames:
        return
    load_runners()
    goldens = _chosen(metafunc.config)
    if metafunc.config.getoption("--only-runnable", default=False):
        goldens = [golden for golden in goldens if find_runner(golden)]
    metafunc.parametrize("golden", goldens, ids=str)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> dict[str, Golden]:
    """Where a golden's errors are kept for the table."""
    return _results


@pytest.fixture
def without_runner() -> list[str]:
    return _without_runner


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _results:
        terminalreporter.section("parity: largest error as a part of the allowed one")
        for name, golden in _results.items():
            worst = max(golden.worst, key=lambda tensor: golden.worst[tensor], default="")
            terminalreporter.write_line(f"{golden.worst.get(worst, 0.0):9.2g}  {name}  ({worst})")
    for name in _without_runner:
        terminalreporter.write_line(f"no runner yet: {name}", red=True)
