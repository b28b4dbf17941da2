"""Whether the Comfy registry and comfy-test would take the pack, as far as that can be said without them:

    python -m tests.registry [FOLDER]

FOLDER (build/registry) is a virtual environment with comfy-cli and comfy-test, whose own checks are run on the package
that comfy-cli would upload. The other checks are this file's; `test_registry.py` runs them in the suite.
"""

from __future__ import annotations

import ast
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOADER = ROOT / "tests" / "nodes" / "load_as_comfyui_does.py"
MAX_FILE, MAX_ALL = 5_000_000, 20_000_000
NEEDED = ("__init__.py", "LICENSE", "README.md", "pyproject.toml", "requirements.txt", "requirements-vocals.txt")
KINDS = {".py", ".md", ".txt", ".toml", ".json", ".jpg", ".png", ".npz", ".flac", ".safetensors", ".tflite"}
NAMES = {"LICENSE", "NOTICE", ".gitignore", ".comfyignore"}
ACCELERATORS = {"NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal"}
SUSPECT = re.compile(r"(?<![\w.])(eval|exec|compile|__import__)\(|builtins|os\.(system|popen)|subprocess")
RUNS_PROGRAMS = re.compile(r"""\bpip\b.{0,40}\binstall\b|os\.system|shell\s*=\s*True""")
ACCEPTED = {
    "models/": (" -- use operations.", "networks run without ComfyUI too; its model patchers move and cast them whole"),
    "pipelines/training/syncanimation/syncers.py": (" -- use operations.", "a network that is trained here"),
    "pipelines/training/": ("torch.autocast() -- ", "ComfyUI has no training of its own"),
    "pipelines/audiodvp/animate.py": ("torch.autocast() -- ", "the renderer's layers run without ComfyUI too"),
}
"""What comfy-test's rules find and why it stays, by the beginning of the file's name."""


def packed_files() -> list[str]:
    """The names of the files that the registry's package holds: those that git tracks, less .comfyignore's."""

    def listed(*options: str) -> set[str]:
        done = subprocess.run(["git", "ls-files", *options], cwd=ROOT, capture_output=True, text=True, check=True)
        return set(done.stdout.splitlines())

    return sorted(listed() - listed("--cached", "--ignored", "--exclude-from=.comfyignore"))


def table_of(text: str, name: str) -> dict[str, str]:
    """The one-line texts of a table in a TOML file; Python 3.10 has no reader of its own."""
    body = text.split(f"\n[{name}]\n")[1].split("\n[")[0]
    return dict(re.findall(r'^([\w-]+) = "(.*)"$', body, re.M))


def metadata_problems(text: str) -> list[str]:
    """What the registry would refuse or leave out of a pyproject.toml."""
    project, urls, comfy = (table_of(text, name) for name in ("project", "project.urls", "tool.comfy"))
    problems = []
    rules = [
        ("name", project.get("name", ""), r"[a-z][a-z0-9._-]{0,98}[a-z0-9]"),
        ("version", project.get("version", ""), r"\d+\.\d+\.\d+"),
        ("description", project.get("description", ""), r".{20,500}"),
        ("requires-python", project.get("requires-python", ""), r">=3\.\d+"),
        ("Repository", urls.get("Repository", ""), r"https://github\.com/[\w.-]+/[\w.-]+"),
        ("PublisherId", comfy.get("PublisherId", ""), r"[a-z0-9][a-z0-9-]*"),
        ("DisplayName", comfy.get("DisplayName", ""), r"[\w -]+"),
        ("requires-comfyui", comfy.get("requires-comfyui", ""), r">=\d+\.\d+\.\d+"),
        ("Icon", comfy.get("Icon", ""), r"https://\S+\.(png|svg|jpg|gif)"),
    ]
    problems += [f"{name} is {value!r}" for name, value, rule in rules if not re.fullmatch(rule, value)]
    for found in re.findall(r'"Environment :: (?:GPU|NPU) :: (.+)"', text):
        if found not in ACCELERATORS:
            problems.append(f"the registry does not know the accelerator {found!r}")
    if not re.search(r'"Operating System :: (OS Independent|Microsoft|POSIX|MacOS)', text):
        problems.append("no operating system is named")
    if not re.search(r'^license = \{ (file|text) = ".+" \}$', text, re.M):
        problems.append("no license is named")
    return problems


def icon_problems(content: bytes) -> list[str]:
    width, height = struct.unpack(">II", content[16:24]) if content[:8] == b"\x89PNG\r\n\x1a\n" else (0, 0)
    return [] if 0 < width == height <= 400 else [f"the icon has {width} x {height} pixels, but at most 400 x 400 fit"]


def file_problems(name: str, content: bytes) -> list[str]:
    """What is wrong with one file of the package."""
    path = Path(name)
    problems = []
    if path.suffix not in KINDS and path.name not in NAMES:
        problems.append(f"{name} is of a kind that the package has no use for")
    if len(content) > MAX_FILE:
        problems.append(f"{name} has {len(content)} bytes")
    if path.suffix == ".py":
        problems += code_problems(name, content)
    if path.suffix == ".json":
        json.loads(content)
    return problems


def code_problems(name: str, content: bytes) -> list[str]:
    """What a scan of the registry, or Windows, would not take."""
    try:
        text = content.decode("utf-8")
        text.encode("cp1252")
    except UnicodeError as error:
        return [f"{name} can't be read on Windows ({error})"]
    problems: list[str] = []
    if not SUSPECT.search(text):
        return problems
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            if call in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "builtins.eval"):
                problems.append(f"{name}:{node.lineno} calls {call}")
            if call.startswith("subprocess.") and RUNS_PROGRAMS.search(ast.unparse(node)):
                problems.append(f"{name}:{node.lineno} installs packages or starts a shell")
    return problems


def package_problems(files: dict[str, bytes]) -> list[str]:
    """What is wrong with the package as a whole and with its files, from their names to their content."""
    problems = [f"{name} is missing" for name in NEEDED if name not in files]
    problems += [f"{name} is packed" for name in files if name.split("/")[0] in ("tests", "build", "out", ".ci")]
    size = sum(map(len, files.values()))
    if size > MAX_ALL:
        problems.append(f"the package has {size} bytes")
    for name, content in files.items():
        problems += file_problems(name, content)
    examples = [Path(name) for name in files if re.fullmatch(r"example_workflows/[^/]+\.json", name)]
    problems += [f"{path} has no picture" for path in examples if path.with_suffix(".jpg").as_posix() not in files]
    return problems


def loaded_nodes(pack: Path) -> set[str]:
    """The ids of the nodes of a folder, loaded as ComfyUI does."""
    done = subprocess.run([sys.executable, str(LOADER), str(pack)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{pack} can't be loaded as ComfyUI loads it:\n{done.stderr[-2000:]}")
    return set(json.loads(done.stdout.splitlines()[-1])["nodes"])


def ids_in_code() -> list[str]:
    """All node ids that the code states."""
    files = (ROOT / "nodes").rglob("*.py")
    return [node for path in files for node in re.findall(r'(?:node_id=|NODE_ID = )"(\w+)"', path.read_text("utf-8"))]


def comfy_test_problems(tools: Path, pack: Path) -> list[str]:
    """What comfy-test's static levels find, less what is accepted."""
    command = [str(tools / "comfy-test"), "lint", "--json", "--strict", str(pack)]
    lint = subprocess.run(command, capture_output=True, text=True, check=False)
    results: dict[str, Any] = json.loads(lint.stdout)["results"]
    problems, accepted, file = [], 0, ""
    for level, result in results.items():
        if result["passed"]:
            continue
        for line in str(result["details"]).splitlines():
            found = re.fullmatch(r"\s*Line (\d+).*?: (.*)", line)
            if line.endswith(":") and not found:
                file = line.strip(" :")
            elif found:
                known = any(file.startswith(begin) and words in found[2] for begin, (words, _) in ACCEPTED.items())
                accepted += known
                problems += [] if known else [f"comfy-test ({level}): {file}:{found[1]} {found[2]}"]
        if not accepted and not problems:
            problems.append(f"comfy-test ({level}): {result['error']}")
    if accepted:
        print(f"comfy-test: {accepted} lines of kinds that stay:")
        for begin, (words, reason) in ACCEPTED.items():
            print(f"  {begin}* {words.strip(' -')}: {reason}")
    return problems


def comfy_cli_problems(tools: Path) -> list[str]:
    """What comfy-cli's checks before publishing say about the checkout."""
    command = [str(tools / "comfy"), "--skip-prompt", "--no-enable-telemetry", "node", "validate"]
    surroundings = {**os.environ, "HOME": str(tools.parent / "home")}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode or re.search(r"\b(warnings?|errors?)\b", said, re.I):
        return [f"comfy node validate: {said.strip()}"]
    return []


def packed_by_comfy_cli(tools: Path, target: Path) -> None:
    code = f"from comfy_cli.file_utils import zip_files; zip_files({str(target)!r})"
    subprocess.run([str(tools / "python"), "-c", code], cwd=ROOT, check=True)


def main(folder: Path) -> int:
    tools = folder / "bin"
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    problems = metadata_problems(text) + icon_problems((ROOT / "docs" / "icon.png").read_bytes())
    problems += comfy_cli_problems(tools)
    with tempfile.TemporaryDirectory() as temporary:
        packed, pack = Path(temporary) / "node.zip", Path(temporary) / "talking-portrait"
        packed_by_comfy_cli(tools, packed)
        with zipfile.ZipFile(packed) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
            archive.extractall(pack)
        if others := sorted(set(files) ^ set(packed_files())):
            problems.append(f"comfy-cli packs other files than expected: {others[:5]}")
        problems += package_problems(files) + comfy_test_problems(tools, pack)
        nodes = loaded_nodes(pack)
    if sorted(nodes) != sorted(ids_in_code()):
        problems.append(f"the package has other nodes than the code ({nodes ^ set(ids_in_code())}), or one twice")
    for problem in problems:
        print(problem)
    size = sum(map(len, files.values()))
    print(f"{len(files)} files of {size / 1e6:.1f} MB, {len(nodes)} nodes, {len(problems)} problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "registry").resolve()))
