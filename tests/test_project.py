"""Rules of the whole project: allowed imports, required packages, forbidden calls."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOST_MODULES = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "nodes"}
HEAVY = {"mediapipe", "insightface", "audio_separator", "imageio_ffmpeg", "diffusers", "transformers", "scipy", "PIL"}
FORBIDDEN = {"torchvision", "torchaudio", "librosa", "moviepy", "xformers"}


def sources(*folders: str) -> list[Path]:
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return files + ([ROOT / "__init__.py"] if "nodes" in folders else [])


@cache
def imports(path: Path) -> list[tuple[ast.stmt, str, int, bool]]:
    """(statement, module, level, at top) for each import; `level` counts the leading dots."""
    tree = ast.parse(path.read_text())

    def waits(node: ast.AST) -> bool:
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        return typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)

    deep = {child for parent in ast.walk(tree) if waits(parent) for child in ast.walk(parent)}
    found: list[tuple[ast.stmt, str, int, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, alias.name, 0, node not in deep) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node, node.module or "", node.level, node not in deep))
    return found


@pytest.mark.parametrize(("layer", "forbidden"), [("models", {"pipelines", "nodes"}), ("pipelines", {"nodes"})])
def test_layers_import_in_one_direction(layer, forbidden):
    for path in sources(layer):
        depth = len(path.relative_to(ROOT).parts)
        for node, module, level, _ in imports(path):
            reached = module.split(".")[0] if level == depth else ""
            assert reached not in forbidden, f"{path}:{node.lineno} imports {module}"


SYSTEMS = {"instant", "aniportrait", "anitalker", "apasco", "audiodvp", "syncanimation"}
FACE_FILES = 20
"""The face has more nouns than other subjects."""
LONG_FILES = {
    "nodes/host.py": "the one file that may import ComfyUI",
    "nodes/standalone/core_nodes.py": "one class for each of ComfyUI's nodes, with nothing shared that could move out",
    "pipelines/workflow/formats.py": "one conversion, whose steps share its state",
}


def reached(path: Path, node: ast.stmt, module: str, level: int) -> list[list[str]]:
    """What a relative import leads to, as paths inside the pack: one for each name."""
    folder = list(path.relative_to(ROOT).parts[:-1])
    place = folder[: len(folder) - level + 1] + (module.split(".") if module else [])
    names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
    return [[*place, name] for name in names] if level else []


def test_systems_do_not_import_each_other():
    for path in sources("models", "pipelines"):
        own = SYSTEMS.intersection(path.relative_to(ROOT).parts)
        if not own:
            continue
        for node, module, level, _ in imports(path):
            for place in reached(path, node, module, level):
                others = SYSTEMS.intersection(place) - own
                assert not others, (
                    f"{path}:{node.lineno} imports from {others}; what two systems need has its own folder"
                )


def test_what_systems_share_imports_none_of_them():
    shared = (
        "audio",
        "diffusion",
        "evaluation",
        "face",
        "files",
        "image",
        "model_files",
        "motion",
        "person",
        "provenance",
        "vocals",
        "workflow",
    )
    for path in sources(*(f"pipelines/{name}" for name in shared), "models/face", "models/diffusion", "models/speech"):
        for node, module, level, _ in imports(path):
            for place in reached(path, node, module, level):
                assert not SYSTEMS.intersection(place), f"{path}:{node.lineno} imports {'.'.join(place)}"


def test_a_node_lies_in_the_folder_of_its_category_and_imports_no_other():
    from talking_portrait.nodes.extension import NODES

    for node in NODES:
        folder, _ = node.__module__.removeprefix("talking_portrait.nodes.").split(".")
        assert node.GET_SCHEMA().category == f"Talking Portrait/{folder}"
    folders = {node.__module__.split(".")[2] for node in NODES}
    for path in sources(*(f"nodes/{folder}" for folder in sorted(folders))):
        for node, module, level, _ in imports(path):
            for place in reached(path, node, module, level):
                assert not (place[0] == "nodes" and place[1] in folders), f"{path}:{node.lineno} imports another node"


def pipeline_calls(statements: list[ast.stmt], functions: set[str]) -> int:
    """How many calls of these functions are in the statements, on the way through branches that has most of them."""
    count = 0
    for number, statement in enumerate(statements):
        if isinstance(statement, ast.If):
            after = pipeline_calls(statements[number + 1 :], functions)
            leaves = isinstance(statement.body[-1], ast.Return | ast.Raise)
            taken = pipeline_calls(statement.body, functions) + (0 if leaves else after)
            return count + max(taken, pipeline_calls(statement.orelse, functions) + after)
        names = [call.func for call in ast.walk(statement) if isinstance(call, ast.Call)]
        count += sum(isinstance(name, ast.Name) and name.id in functions for name in names)
    return count


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("check(a)\nreturn run(a)", 2),
        ("if a:\n    return run(a)\nreturn run(b)", 1),
        ("if a:\n    b = run(a)\nreturn run(b)", 2),
        ("for frame in run(a):\n    keep(frame)", 1),
    ],
)
def test_calls_are_counted_along_the_longest_way(source, calls):
    assert pipeline_calls(ast.parse(source).body, {"run", "check"}) == calls


def test_a_node_makes_one_call_into_a_pipeline():
    """Loading models is no such call, nor are the conversions of sockets' values in `nodes/`, nor are constructors."""
    from talking_portrait.nodes.extension import NODES

    for node in NODES:
        path = Path(sys.modules[node.__module__].__file__)
        functions = set()
        for statement, module, level, _ in imports(path):
            for place in reached(path.resolve(), statement, module, level):
                if place[0] == "pipelines" and place[-2] != "errors" and place[-1].islower():
                    assert not ROOT.joinpath(*place).with_suffix(".py").is_file(), f"{path} imports a whole module"
                    functions.add(place[-1])
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bodies = {entry.name: entry.body for entry in ast.walk(tree) if isinstance(entry, ast.FunctionDef)}
        calls = sum(pipeline_calls(body, functions) for body in bodies.values())
        assert calls <= 1, f"{path} calls {calls} functions of pipelines, one after the other"


def test_folders_and_files_hold_one_subject():
    for folder in {path.parent for path in sources("models", "pipelines", "nodes")} - {ROOT}:
        most = FACE_FILES if folder == ROOT / "pipelines" / "face" else 14
        count = sum(path.name != "__init__.py" for path in folder.glob("*.py"))
        assert count <= most, f"{folder} holds {count} files; more than {most} are two subjects"
    for path in sources("models", "pipelines", "nodes"):
        name, lines = path.relative_to(ROOT).as_posix(), len(path.read_text().splitlines())
        assert lines <= 400 or name in LONG_FILES, f"{name} has {lines} lines; more than 400 are two subjects"


def test_only_the_host_file_imports_comfyui():
    for path in sources("models", "pipelines", "nodes"):
        if path == ROOT / "nodes" / "host.py":
            continue
        for node, module, level, _ in imports(path):
            assert level or module.split(".")[0] not in HOST_MODULES, f"{path}:{node.lineno} imports {module}"


def test_imports_inside_the_pack_are_relative_and_heavy_ones_lazy():
    for path in sources("models", "pipelines", "nodes"):
        for node, module, level, at_top in imports(path):
            name = module.split(".")[0]
            assert level or name not in {"talking_portrait", *FORBIDDEN}, f"{path}:{node.lineno} imports {module}"
            if at_top and not level:
                assert name not in HEAVY, f"{path}:{node.lineno} imports {module} at the top"


def requirements(kind: str = "") -> dict[str, str]:
    """From the names in requirements.txt, or requirements-<kind>.txt, to their lines."""
    text = (ROOT / f"requirements{'-' * bool(kind)}{kind}.txt").read_text()
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return {re.split(r"[\[<>=~! ;]", line)[0].lower().replace("_", "-"): line for line in lines if line}


def test_requirements_leave_the_host_its_own():
    required = requirements()
    assert required.keys() >= {"diffusers", "transformers", "mediapipe", "insightface", "safetensors", "einops"}
    assert required.keys() >= {"imageio-ffmpeg", "av"}
    assert not required.keys() & {"torch", "torchvision", "torchaudio", "numpy"}
    assert not [line for line in required.values() if "==" in line or "<" in line]
    # OpenCV's packages overwrite each other's files; this one comes with mediapipe in any case.
    assert [name for name in required if name.startswith("opencv")] == ["opencv-contrib-python"]


def test_what_must_be_compiled_is_not_required():
    must_be_compiled = {"audio-separator", "diffq", "onnx2torch", "onnx2torch-py313", "samplerate", "pesq"}
    assert not requirements().keys() & must_be_compiled
    vocals = requirements("vocals")
    assert vocals.keys() & must_be_compiled == {"audio-separator"}
    # pip passes over this line in `pip install -r`, where no extra is requested.
    assert vocals["audio-separator"].endswith('; extra == "vocals"')
    assert not vocals.keys() & {"torch", "torchvision", "torchaudio", "numpy"}


def test_every_package_that_is_imported_is_declared():
    names = {"c2pa": "c2pa-python", "cv2": "opencv-contrib-python", "PIL": "pillow", "yaml": "pyyaml"}
    declared = (
        requirements()
        | requirements("standalone")
        | requirements("vocals")
        | requirements("c2pa")
        | requirements("ray")
    )
    for path in [*sources("models", "pipelines", "nodes"), ROOT / "__main__.py"]:
        for node, module, level, _ in imports(path):
            name = module.split(".")[0]
            if level or name in sys.stdlib_module_names or name in HOST_MODULES:
                continue
            package = names.get(name, name.lower().replace("_", "-"))
            assert package in declared, f"{path}:{node.lineno} imports {name}, which no requirements file names"


def test_every_package_is_installed_with_the_pack():
    listed = set(re.findall(r'^    "talking_portrait([.\w]*)",$', (ROOT / "pyproject.toml").read_text(), re.M))
    folders = {path.parent.relative_to(ROOT) for path in sources("models", "pipelines", "nodes")}
    assert listed == {"." + ".".join(folder.parts) if folder.parts else "" for folder in folders}


def test_every_data_file_is_installed_with_the_pack():
    table = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[tool.setuptools.package-data]")[1]
    patterns = {
        path
        for package, globs in re.findall(r'^"talking_portrait([.\w]*)" = \[(.+)\]$', table.split("\n[")[0], re.M)
        for pattern in re.findall(r'"(.+?)"', globs)
        for path in (ROOT / package.replace(".", "/").strip("/")).glob(pattern)
    }
    beside_code = [path for folder in ("models", "pipelines", "nodes") for path in (ROOT / folder).rglob("*.*")]
    data = {path for path in beside_code if path.suffix not in (".py", ".pyc") and path.is_file()}
    assert data <= patterns


def test_every_code_file_decodes_in_windows_own_encoding():
    """The registry's syntax check opens files without naming an encoding, which is cp1252 on Windows."""
    for path in [*sources("models", "pipelines", "nodes"), ROOT / "__main__.py"]:
        content = path.read_bytes()
        try:
            ast.parse(content.decode("cp1252"))
            content.decode("utf-8").encode("cp1252")
        except (UnicodeError, SyntaxError) as error:
            pytest.fail(f"{path}: {error}; write the letter as an escape or keep the text in a data file")


def test_no_file_is_large_and_nothing_unsafe_is_called():
    unsafe = re.compile(
        r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|(?<![.\w])(eval|exec)\(|os\.system\(|shell\s*=\s*True|"
        r"\.cuda\(\)|cuda:\d|mediapipe\.solutions"
    )
    for path in sources("models", "pipelines", "nodes"):
        assert not (match := unsafe.search(path.read_text())), f"{path}: {match}"
    assert all(path.stat().st_size < 5_000_000 for path in ROOT.glob("[!.]*/**/*") if "build" not in path.parts[:-1])


def test_points_of_the_face_mesh_are_named_once():
    from talking_portrait.models.face import face_mesh

    pairs = [getattr(face_mesh, name) for name in dir(face_mesh) if name.endswith("_CORNERS")]
    assert len(pairs) == 4
    named = re.compile("|".join(rf"\b{right}, {left}\b" for right, left in pairs))
    single = r"NOSE_(TIP|BASE|BRIDGE)|CHIN|CHEEKS|(INNER|OUTER)_(UPPER|LOWER)_LIP"
    points = re.compile(rf"^_?({single})\b[^=\n]*= [(\[]*\d", re.MULTILINE)
    for path in sources("models", "pipelines"):
        if path.name != "face_mesh.py":
            text = path.read_text(encoding="utf-8")
            assert not (found := named.search(text) or points.search(text)), f"{path}: {found}"


def test_importing_the_pack_loads_nothing_heavy_and_touches_nothing():
    networks = {f"talking_portrait.models.{name}" for name in ("diffusion.unet", "apasco.networks", "gfpgan")}
    heavy = sorted((HEAVY | {"cv2", "onnxruntime", "aiohttp"} | networks) - {"PIL"})
    code = (
        "import sys, torch, numpy; before = set(sys.modules)\n"
        "import socket; socket.socket.connect = None\n"
        "import pathlib, os; pathlib.Path.mkdir = os.mkdir = os.makedirs = None\n"
        "import asyncio, talking_portrait\n"
        "extension = asyncio.run(talking_portrait.comfy_entrypoint())\n"
        "asyncio.run(extension.get_node_list())\n"
        f"print(sorted((set(sys.modules) - before) & set({heavy})))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("system", ["instant", "aniportrait", "anitalker", "apasco"])
def test_every_system_has_prepare_portrait_and_animate(system):
    system_module = importlib.import_module(f"talking_portrait.pipelines.{system}.animate")
    for name in ("prepare_portrait", "animate"):
        assert callable(getattr(system_module, name, None)), f"{system} has no {name}"


@pytest.mark.parametrize("system", ["audiodvp"])
def test_every_system_of_one_person_has_open_person_and_animate(system):
    system_module = importlib.import_module(f"talking_portrait.pipelines.{system}.animate")
    for name in ("open_person", "animate"):
        assert callable(getattr(system_module, name, None)), f"{system} has no {name}"
