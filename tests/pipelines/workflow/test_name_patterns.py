"""Patterns in the names of results, filled in as the editor and the server do it."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
import torch
from talking_portrait.__main__ import main
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.workflow import formats
from talking_portrait.pipelines.workflow.formats import to_prompt
from talking_portrait.pipelines.workflow.name_patterns import filled_by_editor, filled_by_server

NOW = datetime(2031, 3, 7, 4, 5, 6)


@pytest.mark.parametrize(
    ("prefix", "filled"),
    [
        ("a", "a"),
        ("%date:yyyy-MM-dd%", "2031-03-07"),
        ("%date:yy.M.d%", "31"),  # as in the editor, what is behind the point is lost
        ("%date:d_M_yy%/%date:hhmmss%", "7_3_31/040506"),
        ("%date:h:m:s%", "4:5:6"),
        ("%date:yyy%", "yyy"),
        ("%Sampler.seed% %Sampler.scale%", "7 1"),
        ("%Sampler.on%%Sampler.none%", "true"),
        ("%Sampler.text%", "a_b_c___d"),
        ("%Sampler.nothing%%Nobody.seed%", "%Sampler.nothing%%Nobody.seed%"),
        ("%year% %width%", "%year% %width%"),
        ("100%", "100%"),
        ("%%", "%%"),
        ("%a.b.c%", "%a.b.c%"),
    ],
)
def test_the_editor_fills_in_dates_and_widgets(prefix, filled):
    values = {"seed": 7, "scale": 1.0, "on": True, "none": None, "text": 'a/b\\c<:"d'}

    def widget(node: str, name: str) -> object:
        return {"Sampler": values}[node][name]

    assert filled_by_editor(prefix, widget, NOW) == filled


@pytest.mark.parametrize(
    ("prefix", "filled"),
    [
        ("a", "a"),
        ("%year%-%month%-%day%/%hour%%minute%%second%", "2031-03-07/040506"),
        ("%width%x%height%", "30x20"),
        ("%date:yyyy%%Year%%", "%date:yyyy%%Year%%"),
    ],
)
def test_the_server_fills_in_the_time_and_the_size(prefix, filled):
    assert filled_by_server(prefix, 30, 20, NOW) == filled


INFO = {
    "Sampler": {"input": {"required": {"seed": ["INT", {}], "text": ["STRING", {}]}}, "display_name": "A sampler"},
    "SaveImage": {"input": {"required": {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {}]}}},
    "Other": {"input": {"required": {"filename_prefix": ["STRING", {}]}}},
}


def workflow(prefix: str) -> dict[str, object]:
    def node(number: int, kind: str, values: list[object], **more: object) -> dict[str, object]:
        return {"id": number, "type": kind, "widgets_values": values, "inputs": [], "outputs": [], **more}

    inner = {"id": "sub", "nodes": [node(1, "Sampler", [9, "fixed", "in"], title="Inner")], "links": []}
    return {
        "nodes": [
            node(1, "Sampler", [1, "fixed", "one"], title="First", properties={"Node name for S&R": "Sampler"}),
            node(2, "Sampler", [2, "fixed", "two"], title="Sampler"),
            node(3, "PrimitiveNode", [5], title="Number", outputs=[{"type": "INT", "links": None}]),
            node(4, "SaveImage", [prefix]),
            node(5, "Other", [prefix]),
            node(6, "sub", []),
        ],
        "links": [],
        "definitions": {"subgraphs": [inner]},
    }


@pytest.mark.parametrize(
    ("prefix", "filled"),
    [
        ("%Sampler.seed%", "1"),
        ("%First.text%", "one"),
        ("%Number.value%", "5"),
        ("%Inner.text%", "in"),
        ("%A sampler.seed%", "%A sampler.seed%"),
        ("%Sampler.width%", "%Sampler.width%"),
    ],
)
def test_a_node_is_meant_by_its_name_for_searches_and_then_by_its_title(prefix, filled):
    prompt = to_prompt(workflow(prefix), INFO)
    assert prompt["4"]["inputs"]["filename_prefix"] == filled
    assert prompt["5"]["inputs"]["filename_prefix"] == prefix  # the editor leaves other nodes' alone


def test_a_run_fills_in_both(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(formats, "datetime", type("Now", (), {"now": staticmethod(lambda: NOW)}))
    write_image(tmp_path / "a.png", torch.rand(20, 30, 3))
    ui = {
        "nodes": [
            {"id": 1, "type": "LoadImage", "title": "Face", "widgets_values": ["a.png", "image"], "inputs": [],
             "outputs": [{"type": "IMAGE", "links": [1]}]},
            {"id": 2, "type": "SaveImage", "widgets_values": ["%Face.image%/%date:yyyy%_%width%x%height%"],
             "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": []},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    }  # fmt: skip
    (tmp_path / "flow.json").write_text(json.dumps(ui))
    assert main(["run", "flow.json"]) == 0
    assert capsys.readouterr().out == "out/a.png/2031_30x20_00001_.png\n"


@pytest.mark.parametrize(
    ("prefix", "made"),
    [("sub/deep/x", "sub/deep/x_00001_.png"), ("sub\\x", "sub/x_00001_.png"), ("ab:c", "ab:c_00001_.png")],
)
def test_folders_in_a_prefix_are_made_inside_the_output_folder(tmp_path, monkeypatch, capsys, prefix, made):
    assert save_as(tmp_path, monkeypatch, prefix) == 0
    assert capsys.readouterr().out == f"out/{made}\n"


@pytest.mark.parametrize(
    "prefix", ["../x", "a/../../x", "/tmp/x", "//host/x", "\\\\host\\x", "C:x", "c:\\x", "..", "a/.."]
)
def test_no_prefix_leads_out_of_the_output_folder(tmp_path, monkeypatch, capsys, prefix):
    assert save_as(tmp_path, monkeypatch, prefix) == 2
    assert "leads out of the output folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nor_does_a_link_in_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    assert save_as(tmp_path, monkeypatch, "sub/x") == 3
    assert "leads out of" in capsys.readouterr().err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def save_as(folder, monkeypatch, prefix: str) -> int:
    monkeypatch.chdir(folder)
    write_image(folder / "a.png", torch.rand(20, 30, 3))
    flow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }
    (folder / "flow.json").write_text(json.dumps(flow))
    return main(["run", "flow.json"])
