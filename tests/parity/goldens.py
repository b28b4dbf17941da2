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

It answers for every golden of its system whose name, or the module that it says it is of, begins with that text; the
longest match wins. What a golden does not store need not be compared: `compare` passes over it. What it stores must be:
each tensor is an input that the runner takes with `tensor` or `array`, or it is compared, or `leave_out` says why not.
Tensors named `out.` are compared and those named `trap.` are shown to differ, whoever takes them besides.
"""

from __future__ import annotations

import importlib.util
import json
import re
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
    """The runner with the longest name that the golden's own name begins with, or else its file's, or its module's."""
    for title in (golden.kind, golden.name, str(golden.meta.get("module", ""))):
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
    _taken: set[str] = field(default_factory=set)
    _compared: set[str] = field(default_factory=set)

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
        """A stored input. For a result that is to be compared, see `tensors`."""
        self._taken.add(name)
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

    def matched(self, where: str, pattern: str) -> re.Match[str]:
        """The first match of `pattern` in the JSON's text under `where`, for numbers inside prose."""
        text = str(self.meta.get(where, ""))
        match = re.search(pattern, text)
        assert match, f"{self}: {where!r} should match {pattern!r}, but is {text!r}"
        return match

    # --- comparison ---

    @property
    def tolerance(self) -> tuple[float, float]:
        """(absolute, relative) allowed error."""
        given = self.meta.get("tolerance", self.meta.get("tol"))
        if not isinstance(given, dict) or "atol" not in given:
            raise KeyError(f"{self} states no single tolerance; pass atol and rtol to compare()")
        return float(given["atol"]), float(given.get("rtol", 0.0))

    @property
    def allowed(self) -> dict[str, float]:
        """The same as arguments of `check`."""
        atol, rtol = self.tolerance
        return {"atol": atol, "rtol": rtol}

    def compare(
        self,
        name: str,
        value: torch.Tensor | np.ndarray | float,
        *,
        atol: float | None = None,
        rtol: float | None = None,
    ) -> None:
        """Fails unless `value` equals the stored tensor: |difference| <= atol + rtol * |stored|, shapes alike.

        Tensors of which the golden keeps a sample only ("subsampled") are sampled in the same way first, and their
        statistics compared. What the golden does not store at all is passed over; see the module.
        """
        if name not in self:
            return
        if atol is None and rtol is None:
            atol, rtol = self.tolerance
        atol, rtol = atol or 0.0, rtol or 0.0
        got = _numpy(value)
        sampled = self.meta.get("subsampled", {}).get(name)
        if sampled:
            assert list(got.shape) == sampled["shape"], f"{name}: shape {got.shape}, expected {sampled['shape']}"
            self._compare_statistics(f"{name}.stat", got, atol, rtol)
            got = got.reshape(-1)[(np.arange(sampled["K"], dtype=np.int64) * sampled["step"]) % got.size]
            name = f"{name}.vals"
        self._compared.add(name)
        self.check(name, got, self.tensors[name], atol=atol, rtol=rtol)

    def _compare_statistics(self, name: str, value: np.ndarray, atol: float, rtol: float) -> None:
        """Mean, deviation, least, largest and mean size of a whole tensor; none moves by more than its values may."""
        if name in self.tensors:
            x, stored = value.astype(np.float64), self.tensors[name]
            statistics = np.array([x.mean(), x.std(), x.min(), x.max(), np.abs(x).mean()])
            self._compared.add(name)
            self.check(name, statistics, stored, atol=atol + rtol * float(stored.abs().max()))

    def compare_overall(
        self, name: str, value: torch.Tensor, *, mean: float | None = None, rms: float | None = None
    ) -> None:
        """For results of which single values may be far out: limits for the mean of the errors' sizes, or for their
        root mean square as a part of the stored tensor's own."""
        if name not in self:
            return
        stored = self.tensors[name].double()
        assert value.shape == stored.shape, f"{name}: shape {tuple(value.shape)}, expected {tuple(stored.shape)}"
        error = value.double() - stored
        self._compared.add(name)
        if mean is not None:
            self.check(f"{name} mean error", error.abs().mean(), 0.0, atol=mean)
        if rms is not None:
            self.check(f"{name} rms error", (error.square().mean() / stored.square().mean()).sqrt(), 0.0, atol=rms)

    def thinned(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """`value` at the places that the golden keeps of it: every n-th along each axis.

        n is what the name ends in ("_s4", "_ds2") where that gives the stored length, and follows from the lengths
        otherwise. Sizes that no n explains are left as they are, for `compare` to refuse.
        """
        if name not in self or value.ndim != self.tensors[name].ndim:
            return value
        named = re.search(r"_d?s(\d+)$", name)
        for axis, (length, kept) in enumerate(zip(value.shape, self.tensors[name].shape, strict=True)):
            strides = [*([int(named[1])] if named else []), *range(1, length + 1)]
            stride = next((n for n in strides if -(-length // n) == kept), 1)
            value = value[(slice(None),) * axis + (slice(None, None, stride),)]
        return value

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
        got, wanted = _numpy(value), _numpy(expected)
        assert got.shape == wanted.shape, f"{name}: shape {got.shape}, expected {wanted.shape}"
        if not wanted.size:
            self.worst[name] = 0.0
            return
        got, wanted = got.astype(np.float64), wanted.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.abs(got - wanted)
        same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))  # equal infinities and NaN count as equal
        error = np.where(same, 0.0, error)
        allowed = np.asarray(atol + rtol * np.abs(wanted))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(error == 0, 0.0, error / allowed)
        worst = float(ratio.max())
        self.worst[name] = max(self.worst.get(name, 0.0), worst)
        at = np.unravel_index(int(np.argmax(np.nan_to_num(ratio, nan=np.inf))), wanted.shape)
        assert worst <= 1, (
            f"{name}{[int(i) for i in at]} is {got[at]:.7g}, expected {wanted[at]:.7g}: "
            f"error {error[at]:.3g}, allowed {allowed[at]:.3g}; {int((ratio > 1).sum())} of {wanted.size} are out"
        )

    def differs(self, name: str, value: torch.Tensor | np.ndarray) -> None:
        """Fails when `value` equals a stored trap: what a plausible mistake would give."""
        atol, rtol = self.tolerance
        self._compared.add(name)
        got, trap = _numpy(value).astype(np.float64), _numpy(self.tensors[name]).astype(np.float64)
        same = got.shape == trap.shape and bool(np.all(np.abs(got - trap) <= atol + rtol * np.abs(trap)))
        assert not same, f"{name}: the result equals the trap"

    def leave_out(self, *names: str, reason: str) -> None:
        """Names stored tensors that need no comparison, and why."""
        assert reason
        self._compared.update(names)

    def run(self, function: Runner) -> None:
        """Runs a runner and makes sure that the golden is whole, and that something and everything was compared."""
        lost = sorted(set(self.meta.get("tensors", {})) - set(self.tensors))
        assert not lost, f"{self}: the JSON lists tensors that are not stored: {', '.join(lost)}"
        function(self)
        assert self.worst, f"{self}: the runner compared nothing"
        inputs = {name for name in self._taken if not name.startswith(("out.", "trap."))}
        overlooked = sorted(set(self.tensors) - self._compared - inputs)
        assert not overlooked, f"{self}: nothing was compared with {', '.join(overlooked)}"


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
