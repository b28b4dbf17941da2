"""The registry's rules that need no other program; `make registry` runs those of comfy-cli and comfy-test too."""

from __future__ import annotations

import shutil

import pytest
from talking_portrait.nodes.extension import NODES

from . import registry

in_git = pytest.mark.skipif(
    not (registry.ROOT / ".git").exists() or shutil.which("git") is None, reason="the package is what git tracks"
)


@in_git
def test_the_package_holds_what_the_nodes_need_and_nothing_else() -> None:
    """Nor a script of the front end: the pack has none, and `file_problems` names a file of such a kind."""
    files = {name: (registry.ROOT / name).read_bytes() for name in registry.packed_files()}
    assert registry.package_problems(files) == []


def test_the_metadata_are_complete() -> None:
    assert registry.metadata_problems((registry.ROOT / "pyproject.toml").read_text("utf-8")) == []
    assert registry.icon_problems((registry.ROOT / "docs" / "icon.png").read_bytes()) == []


def test_every_node_has_an_id_of_its_own() -> None:
    ids = registry.ids_in_code()
    assert sorted(ids) == sorted(node.GET_SCHEMA().node_id for node in NODES), "each is stated once, in full"
    assert all(node.startswith("TalkingPortrait") for node in ids)


@in_git
def test_autocast_stands_only_where_it_is_accepted() -> None:
    """By comfy-test's rule, which the suite does not run."""
    accepted = tuple(begin for begin, (words, _) in registry.ACCEPTED.items() if words.startswith("torch.autocast"))
    files = (file for file in registry.packed_files() if file.endswith(".py"))
    found = [file for file in files if "torch.autocast(" in (registry.ROOT / file).read_text("utf-8")]
    assert found
    assert all(file.startswith(accepted) for file in found), found


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('version = "0.1.0"', 'version = "0.1"', "version is '0.1'"),
        ("GPU :: NVIDIA CUDA", "GPU :: NVIDIA", "the registry does not know the accelerator 'NVIDIA'"),
        ('PublisherId = "talking-portrait"', "", "PublisherId is ''"),
        ("Operating System :: OS Independent", "Operating System", "no operating system is named"),
    ],
)
def test_missing_metadata_are_named(old: str, new: str, problem: str) -> None:
    text = (registry.ROOT / "pyproject.toml").read_text("utf-8")
    assert registry.metadata_problems(text.replace(old, new)) == [problem]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("nodes/a.py", b"eval('1')", "calls eval"),
        ("nodes/a.py", b"import subprocess\nsubprocess.run(['pip', 'install', 'x'])", "installs packages"),
        ("nodes/a.py", "x = '\u2192'".encode(), "can't be read on Windows"),
        ("web/a.js", b"", "has no use for"),
        ("models/a.safetensors", bytes(registry.MAX_FILE + 1), "bytes"),
    ],
)
def test_files_that_the_registry_would_refuse_are_named(name: str, content: bytes, problem: str) -> None:
    (found,) = registry.file_problems(name, content)
    assert problem in found
