"""Model folders of a ComfyUI around the pack, from its files alone; tests/comfyui compares them with its own answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from talking_portrait.__main__ import main
from talking_portrait.nodes import host
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.model_files import store
from talking_portrait.pipelines.model_files.comfyui_folders import category_folders

EXTRA = """
other:
    base_path: $DISK/art
    vae: |
        one/

        ../two
    unet: old
    talking_portrait: {root}/own
    detection: models/detection
first:
    is_default: true
    base_path: ../far
    vae: vae
nothing:
relative:
    clip_vision: near
"""


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Around the pack."""
    folder = tmp_path / "ComfyUI"
    for name in ("models", "custom_nodes/pack"):
        (folder / name).mkdir(parents=True)
    (folder / "main.py").touch()
    monkeypatch.setattr(store, "PACK", folder / "custom_nodes" / "pack")
    monkeypatch.delenv("TALKING_PORTRAIT_MODELS", raising=False)
    return folder


def test_folders_are_those_of_comfyui_and_of_its_file(comfyui: Path, tmp_path: Path, monkeypatch) -> None:
    disk, models = tmp_path / "disk", comfyui / "models"
    monkeypatch.setenv("DISK", str(disk))
    assert store.default_folders("vae") == [models / "vae"]
    (comfyui / "extra_model_paths.yaml").write_text(EXTRA.format(root=tmp_path.as_posix()), encoding="utf-8")
    assert store.default_folders("vae") == [
        tmp_path / "far" / "vae",
        models / "vae",
        disk / "art" / "one",
        disk / "two",
    ]
    assert store.default_folders("diffusion_models")[1:] == [models / "unet", disk / "art" / "old"]
    assert store.default_folders("clip_vision") == [models / "clip_vision", comfyui / "near"]
    own = [models / "talking_portrait", tmp_path / "own"]
    assert store.default_folders("talking_portrait") == host.model_folders("talking_portrait") == own
    assert store.searched_folders("detection") == [models / "detection", disk / "art" / "models" / "detection", *own]
    (disk / "two").mkdir(parents=True)
    (disk / "two" / "sd-vae-ft-mse.safetensors").touch()
    assert store.find(*store.list_files("sd_vae_ft_mse")) == disk / "two" / "sd-vae-ft-mse.safetensors"
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    assert store.searched_folders("vae") == [tmp_path / "vae", tmp_path / "talking_portrait"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "line 1 is no YAML"),
        ("- a", "it is no list of names with values"),
        ("a: b", "its part 'a' is no list of names with values"),
        ("a: {vae: [b]}", "'vae' of its part 'a' is no text"),
        ("a: {base_path: 5}", "'base_path' of its part 'a' is no text"),
        ("a: {vae: \udcff}", "can't decode byte"),
    ],
)
def test_a_broken_file_is_one_sentence(comfyui: Path, text: str, said: str, capsys) -> None:
    (comfyui / "extra_model_paths.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(TalkingPortraitError) as raised:
        store.default_folders("vae")
    assert str(raised.value).startswith(f"ComfyUI's {comfyui / 'extra_model_paths.yaml'} can't be read (")
    assert said in str(raised.value)
    assert main(["models", "check", "instant"]) == 2
    assert said in capsys.readouterr().err


def test_an_empty_file_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("#comfyui:\n#    vae: a\n", encoding="utf-8")
    assert category_folders(tmp_path, "vae", tmp_path / "none.yaml") == [tmp_path / "vae"]
