"""What this program runs on, and what is wrong with it: versions, device, ComfyUI, model files, ffmpeg."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import TalkingPortraitError, reason_of
from .files.ffmpeg import executable
from .model_files.model_file import OWN_CATEGORY
from .model_files.store import Folders, check, default_folders, extra_paths_file, models_command
from .model_files.table import MODEL_FILES
from .packages import PACK, VERSION, first_line, load_opencv, pip_install
from .provenance.marking import new_marking

OLDEST_PYTHON = (3, 10)
OLDEST_COMFYUI = (0, 3, 64)
VERSION_FILES = ("comfyui_version.py", "pyproject.toml")
"""Where ComfyUI's folder says its version."""
MODULES = {
    "av": "av",
    "diffusers": "diffusers",
    "einops": "einops",
    "filelock": "filelock",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "insightface": "insightface",
    "mediapipe": "mediapipe",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "pillow": "PIL",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "torch": "torch",
    "transformers": "transformers",
}
"""By the package's name, what is imported of it."""
OLDEST = {
    "av": "14.2",
    "diffusers": "0.30",
    "einops": "0.7",
    "filelock": "3.12",
    "imageio-ffmpeg": "0.5",
    "insightface": "1.0",
    "mediapipe": "0.10.30",
    "pillow": "10.1",
    "safetensors": "0.4.2",
    "scipy": "1.10",
    "transformers": "4.50",
}
"""The versions of requirements.txt."""


@dataclass(frozen=True)
class Finding:
    """One line about one thing; with `problem` it is a sentence that says what to do."""

    text: str
    problem: bool = False


def diagnose(folders: Folders = default_folders) -> Iterator[Finding]:
    """Looks at one thing after the other; nothing is changed and nothing is fetched."""
    for look in (_python, _packages, _opencv, _device, _ffmpeg, _comfyui, lambda: _models(folders), _marking):
        yield from _guarded(look)


def _guarded(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A look whose own failure is a finding."""
    try:
        yield from look()
    except TalkingPortraitError as error:
        yield Finding(str(error), problem=True)
    except (OSError, RuntimeError) as error:
        yield Finding(f"Something could not be looked at ({reason_of(error)}); check that disk and driver.", True)


def _python() -> Iterator[Finding]:
    yield Finding(f"Talking Portrait {VERSION} in {PACK}")
    yield Finding(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}: {sys.executable}")
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("This Python is too old; install Python 3.10 or newer and the pack's requirements in it.", True)


def _packages() -> Iterator[Finding]:
    found = []
    for package, module in MODULES.items():
        try:
            import_module(module)
        except ImportError as error:
            yield Finding(f"{package} can't be loaded ({first_line(error)}); run: {pip_install(package)}", problem=True)
            continue
        found.append(f"{package} {_version(package)}")
        oldest = OLDEST.get(package)
        if oldest is not None and _numbers(_version(package)) < _numbers(oldest):
            upgrade = pip_install(f'"{package}>={oldest}"')
            yield Finding(
                f"{package} is {_version(package)}, but {oldest} or newer is needed; run: {upgrade}", problem=True
            )
    yield Finding(", ".join(found))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers of a version for comparison; an unknown one is newer than all."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:3])
    return numbers or (10**6,)


def _opencv() -> Iterator[Finding]:
    yield Finding(f"OpenCV {load_opencv().__version__}")


def _device() -> Iterator[Finding]:
    import torch

    if not torch.accelerator.is_available():
        threads = torch.get_num_threads()
        counted = f"{threads} thread{'' if threads == 1 else 's'}"
        yield Finding(f"device: CPU, {counted}; Instant needs no more, the other systems do")
        return
    device = torch.accelerator.current_accelerator()
    torch.ones(8, device=device).sum().item()
    name, memory = str(device), ""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name, memory = torch.cuda.get_device_name(), f", {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    yield Finding(f"device: {name}{memory}")


def _ffmpeg() -> Iterator[Finding]:
    path = executable()
    run = subprocess.run([path, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False, timeout=60)
    if run.returncode:
        yield Finding(f"ffmpeg at {path} does not run; run: {pip_install('--force-reinstall imageio-ffmpeg')}", True)
    elif "libx264" not in run.stdout:
        yield Finding(f"ffmpeg at {path} has no libx264, which videos need; unset IMAGEIO_FFMPEG_EXE.", problem=True)
    else:
        yield Finding(f"ffmpeg: {path}")


def _comfyui(pack: Path = PACK) -> Iterator[Finding]:
    if pack.parent.name != "custom_nodes":
        yield Finding("ComfyUI: none around this folder; put it into ComfyUI/custom_nodes to have the nodes there")
        return
    yield from _other_copies(pack)
    if not pack.name.isascii() or " " in pack.name:
        yield Finding(
            f"ComfyUI's page gets no templates and no help from the folder {pack}, as its name has spaces or letters "
            "beyond A to Z; rename it to talking-portrait.",
            problem=True,
        )
    folder = pack.parent.parent
    if not any((folder / name).exists() for name in ("main.py", "comfy", *VERSION_FILES)):
        yield Finding(
            f"ComfyUI: {folder} is a base directory without its program, whose version and extra_model_paths.yaml "
            "are not looked at"
        )
        return
    text = ""
    for name in VERSION_FILES:
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            break
    match = re.search(r"^(?:__version__|version)\s*=\s*[\"'](\d+)\.(\d+)\.(\d+)", text, re.MULTILINE)
    if match is None:
        yield Finding(f"ComfyUI's version in {folder} can't be read; update ComfyUI to 0.3.64 or newer.", problem=True)
        return
    number = tuple(map(int, match.groups()))
    said = ".".join(match.groups())
    if number < OLDEST_COMFYUI:
        yield Finding(f"ComfyUI {said} in {folder} is too old; update it to 0.3.64 or newer.", problem=True)
    else:
        yield Finding(f"ComfyUI {said} in {folder}")


def _other_copies(pack: Path) -> Iterator[Finding]:
    """Folders beside the pack that ComfyUI takes for this pack too; it uses the nodes of the one it loads last."""
    for other in sorted(pack.parent.iterdir()):
        project = other / "pyproject.toml"
        if other.name in (pack.name, "__pycache__") or other.name.endswith(".disabled") or not project.is_file():
            continue
        if _PROJECT_NAME.search(project.read_text(encoding="utf-8", errors="replace")):
            yield Finding(
                f"Talking Portrait is installed twice, in {pack} and in {other}; remove one of these folders.",
                problem=True,
            )


_PROJECT_NAME = re.compile(r"^name\s*=\s*[\"']talking-portrait[\"']", re.MULTILINE)


def _models(folders: Folders) -> Iterator[Finding]:
    extra = extra_paths_file() if folders is default_folders else None
    place = folders(OWN_CATEGORY)[0].parent
    yield Finding(f"model files are looked for in {place}; {extra or 'no extra_model_paths.yaml'} adds folders to it")
    rows = {row.model: row for row in check(folders, checksums=False)}
    systems = sorted({system for model in MODEL_FILES for system in model.systems})
    for row in rows.values():
        if row.state.startswith("wrong"):
            get = models_command(f"get {row.model.name}")
            yield Finding(f"{row.path} is broken ({row.state}); remove it and run: {get}", problem=True)
    for system in systems:
        own = [row for model, row in rows.items() if system in model.systems]
        here = sum(row.state != "missing" for row in own)
        more = "" if here == len(own) else f"; {models_command(f'get {system}')} fetches those that can be downloaded"
        yield Finding(f"models of {system}: {here} of {len(own)} files are here{more}")


def _marking() -> Iterator[Finding]:
    state = "on" if new_marking().invisible else "turned off by the environment"
    yield Finding(f"invisible mark of videos: {state}")
