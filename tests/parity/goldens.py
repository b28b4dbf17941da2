"""Goldens: a published system's inputs and outputs as numbers, and the functions ("runners") that recompute them.

A folder of goldens is laid out `<system>/goldens/<name>.json` with tensors in a `.safetensors` of the same stem (and
any pictures beside it), `<system>/weights.py` (numbers for every weight, from a seed and a key), `<system>/keys/*.json`
(names and shapes of state dicts) and `<system>/assets/`. Seeds, configuration, sizes and tolerance come from the
golden itself, so another set of the same form runs without a change here.

A runner is written in a module `<system>_<subject>.py` beside this file:

    from .goldens import Golden, runner

    @runner("aniportrait", "projection")
    def projection(golden: Golden) -> None:
        golden.compare("projected", project(golden.array("verts"), ...))

It answers for every golden of its system whose name begins with that text; the longest match wins. Every stored tensor
must be read or compared by the runner, or named in `golden.leave_out(...)` with the reason: a number nobody looks at
proves nothing.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_GOLDENS = REPOSITORY.parent / "shared" / "parity"
OWN_GOLDENS = REPOSITORY / "tests" / "data" / "goldens"

Runner = Callable[["Golden"], None]
_runners: dict[tuple[str, str], Runner] = {}


def runner(system: str, name: str) -> Callable[[Runner], Runner]:
    """Registers a function for the goldens of `system` whose name begins with `name`."""

    def register(function: Runner) -> Runner:
        if (system, name) in _runners:
            raise ValueError(f"two runners for {system}/{name}: {_runners[system, name]} and {function}")
        _runners[system, name] = function
        return function

    return register


def find_runner(golden: Golden) -> Runner | None:
    """The runner with the longest name that the golden's own name, or else its file's, begins with."""
    for title in (golden.kind, golden.name):
        names = [name for system, name in _runners if system == golden.system and title.startswith(name)]
        if names:
            return _runners[golden.system, max(names, key=len)]
    return None


@dataclass
class Golden:
    """One golden: its JSON as `meta`, its tensors, weights and files, and the comparison with what we compute."""

    system: str
    path: Path
    meta: dict[str, Any]
    worst: dict[str, float] = field(default_factory=dict)  # name -> largest error as a part of the allowed one
    _seen: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def kind(self) -> str:
        """What the golden calls itself, which stays when the file is named otherwise."""
        titles = (self.meta.get(key) for key in ("name", "case", "golden"))
        return next((title for title in titles if isinstance(title, str)), self.name)

    @property
    def folder(self) -> Path:
        """The system's folder, with weights.py, keys/ and assets/."""
        return next(parent for parent in self.path.parents if parent.name == "goldens").parent

    def __repr__(self) -> str:
        return f"{self.system}/{self.name}" + ("@tests" if OWN_GOLDENS in self.path.parents else "")

    # --- what is stored ---

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        path = self.path.with_suffix(".safetensors")
        if not path.exists():
            return {}
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors or f"{name}.vals" in self.tensors

    def tensor(self, name: str) -> torch.Tensor:
        """A stored input."""
        self._seen.add(name)
        return self.tensors[name]

    def array(self, name: str) -> np.ndarray:
        """A stored input as NumPy."""
        return self.tensor(name).numpy()

    def file(self, name: str) -> Path:
        """A file beside the golden, for instance a picture that its JSON names."""
        return self.path.parent / name

    def kit(self, name: str) -> Path:
        """A file of the system's folder, or of the shared kit where a set of goldens comes without its own."""
        own = self.folder / name
        return own if own.exists() else SHARED_GOLDENS / self.system / name

    def asset(self, name: str) -> Path:
        return self.kit(f"assets/{name}")

    def keys(self, name: str) -> dict[str, Any]:
        """A manifest by the name that the golden gives it: `x`, `x.json` or `keys/x.json`."""
        file = name.removeprefix("keys/").removesuffix(".json") + ".json"
        return json.loads(self.kit(f"keys/{file}").read_text())

    @cached_property
    def weights(self) -> ModuleType:
        """The system's own weights.py."""
        path = self.kit("weights.py")
        spec = importlib.util.spec_from_file_location(f"parity_weights_{self.system}", path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    # --- comparison ---

    @property
    def tolerance(self) -> tuple[float, float]:
        """(absolute, relative) allowed error."""
        given = self.meta.get("tolerance", self.meta.get("tol"))
        if not isinstance(given, dict) or "atol" not in given:
            raise KeyError(f"{self} states no single tolerance; pass atol and rtol to compare()")
        return float(given["atol"]), float(given.get("rtol", 0.0))

    def compare(
        self,
        name: str,
        value: torch.Tensor | np.ndarray | float,
        *,
        atol: float | None = None,
        rtol: float | None = None,
    ) -> None:
        """Fails unless `value` equals the stored tensor: |difference| <= atol + rtol * |stored|, shapes alike.

        Tensors of which the golden keeps a sample only ("subsampled") are sampled in the same way first.
        """
        if atol is None and rtol is None:
            atol, rtol = self.tolerance
        got = _numpy(value)
        sampled = self.meta.get("subsampled", {}).get(name)
        if sampled:
            assert list(got.shape) == sampled["shape"], f"{name}: shape {got.shape}, expected {sampled['shape']}"
            got = got.reshape(-1)[(np.arange(sampled["K"], dtype=np.int64) * sampled["step"]) % got.size]
            self._seen.add(f"{name}.stat")
            name = f"{name}.vals"
        self.check(name, got, self.array(name), atol=atol or 0.0, rtol=rtol or 0.0)

    def check(
        self,
        name: str,
        value: torch.Tensor | np.ndarray | float,
        expected: torch.Tensor | np.ndarray | float | list[Any],
        *,
        atol: float = 0.0,
        rtol: float = 0.0,
    ) -> None:
        """`compare` with numbers that stand in the JSON or a picture; exact unless a tolerance is given."""
        got, want = _numpy(value), _numpy(expected)
        assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
        if not want.size:
            self.worst[name] = 0.0
            return
        got, want = got.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.abs(got - want)
        same = (got == want) | (np.isnan(got) & np.isnan(want))  # equal infinities and NaN count as equal
        error = np.where(same, 0.0, error)
        allowed = np.asarray(atol + rtol * np.abs(want))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(error == 0, 0.0, error / allowed)
        worst = float(ratio.max())
        self.worst[name] = max(self.worst.get(name, 0.0), worst)
        at = np.unravel_index(int(np.argmax(np.nan_to_num(ratio, nan=np.inf))), want.shape)
        assert worst <= 1, (
            f"{name}{[int(i) for i in at]} is {got[at]:.7g}, expected {want[at]:.7g}: "
            f"error {error[at]:.3g}, allowed {allowed[at]:.3g}; {int((ratio > 1).sum())} of {want.size} values are out"
        )

    def differs(self, name: str, value: torch.Tensor | np.ndarray) -> None:
        """Fails when `value` equals a stored trap: what a plausible mistake would give."""
        atol, rtol = self.tolerance
        got, trap = _numpy(value).astype(np.float64), self.array(name).astype(np.float64)
        same = got.shape == trap.shape and bool(np.all(np.abs(got - trap) <= atol + rtol * np.abs(trap)))
        assert not same, f"{name}: the result equals the trap"

    def leave_out(self, *names: str, reason: str) -> None:
        """Names stored tensors that need no look, and says why."""
        assert reason
        self._seen.update(names)

    def run(self, function: Runner) -> None:
        """Runs a runner and makes sure that it compared something and overlooked nothing."""
        function(self)
        assert self.worst, f"{self}: the runner compared nothing"
        overlooked = sorted(set(self.tensors) - self._seen)
        assert not overlooked, f"{self}: nobody looked at {', '.join(overlooked)}"


def _numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def find_goldens(folder: Path, system: str = "") -> Iterator[Golden]:
    """Every golden below `folder`, in order; `system` keeps one system's."""
    for path in sorted(folder.glob("*/goldens/**/*.json")):
        owner = path.relative_to(folder).parts[0]
        if system in ("", owner):
            yield Golden(owner, path, json.loads(path.read_text()))


def load_runners() -> None:
    """Imports every runner module beside this file."""
    for path in sorted(Path(__file__).parent.glob("*_*.py")):
        if not path.name.startswith("test_"):
            importlib.import_module(f"{__package__}.{path.stem}")
