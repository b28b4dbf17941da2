"""`talking_portrait run` without ComfyUI, from a file to files."""

from __future__ import annotations

import argparse
import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from talking_portrait.__main__ import main
from talking_portrait.nodes.standalone import command as cli
from talking_portrait.nodes.standalone import core_nodes as core_stand_ins
from talking_portrait.nodes.standalone import node_api as standalone
from talking_portrait.pipelines.audio.waveform import check_audio
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.images import read_image, write_image
from talking_portrait.pipelines.files.sound import read_audio, write_wav
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.types import Audio
from talking_portrait.pipelines.workflow.run import run_graph

ROOT = Path(__file__).parents[3]
PREFIX = "TalkingPortrait"
DRIVE = {"fps": 5, "seed": 0, "mouth": 1, "head": 1, "brows": 1, "blinks": 1, "drift": 1}
TALK = {
    "2": {"class_type": "LoadAudio", "inputs": {"audio": "speech.wav"}},
    "3": {"class_type": f"{PREFIX}InstantDriver", "inputs": {"audio": ["2", 0], **DRIVE}},
    "4": {"class_type": f"{PREFIX}PreviewMotion", "inputs": {"motion": ["3", 0], "size": 64}},
    "5": {"class_type": "CreateVideo", "inputs": {"images": ["4", 0], "fps": ["4", 2], "audio": ["2", 0]}},
    "6": {
        "class_type": "SaveVideo",
        "inputs": {"video": ["5", 0], "filename_prefix": "video/talk", "format": "auto", "codec": "auto"},
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    write_wav(tmp_path / "speech.wav", Audio(torch.randn(2, 12000) * 0.1, 16000))
    (tmp_path / "talk.json").write_text(json.dumps(TALK))
    return tmp_path


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_commands(parser.add_subparsers())
    options = parser.parse_args(["run", *arguments])
    return options.run(options)


@pytest.fixture
def toy_names(monkeypatch):
    """A node Name that gives the text it is set to."""

    class Name(standalone.ComfyNode):
        @classmethod
        def define_schema(cls):
            return standalone.Schema(
                "Name", inputs=[standalone.String.Input("name")], outputs=[standalone.String.Output()]
            )

        @classmethod
        def execute(cls, name):
            return standalone.NodeOutput(name)

    monkeypatch.setitem(core_stand_ins.STAND_INS, "Name", Name)


def changed(folder: Path, **nodes) -> str:
    """The name of a workflow file like TALK, with nodes put in or taken out."""
    graph = {key: entry for key, entry in {**TALK, **nodes}.items() if entry is not None}
    (folder / "changed.json").write_text(json.dumps(graph))
    return "changed.json"


def test_a_graph_becomes_a_video_and_its_name_is_printed(folder, capsys):
    assert run("talk.json") == 0
    assert run("talk.json", "--set", "6.filename_prefix=other", "--set", "Instant Driver.fps=10", "--out", "there") == 0
    printed = capsys.readouterr().out.split()
    assert [Path(line) for line in printed] == [Path("out/video/talk_00001_.mp4"), Path("there/other_00001_.mp4")]
    video = open_video(folder / "out" / "video" / "talk_00001_.mp4")
    assert len(list(video.frames())) == 4
    assert video.size == (64, 64)
    assert read_audio(folder / "out" / "video" / "talk_00001_.mp4").waveform.shape[0] == 2
    assert len(list(open_video(folder / "there" / "other_00001_.mp4").frames())) == 8


def test_results_are_numbered_and_never_written_over(folder):
    assert run("talk.json") == 0
    assert run("talk.json") == 0
    names = sorted(path.name for path in (folder / "out" / "video").iterdir())
    assert names == ["talk_00001_.mp4", "talk_00002_.mp4"]


def test_the_editors_format_runs_too(folder):
    ui = json.loads((ROOT / "example_workflows" / "preview_motion.json").read_text(encoding="utf-8"))
    (folder / "ui.json").write_text(json.dumps(ui))
    sets = ["2.fps=1", "4.size=64", "4.plot_width=320", "4.plot_height=240", "7.filename_prefix=face"]
    assert run("ui.json", *(part for entry in sets for part in ("--set", entry))) == 0
    frames = list(open_video(folder / "out" / "face_00001_.mp4").frames())
    assert len(frames) == 17
    assert read_image(folder / "out" / "preview" / "image_00001_.png").shape == (240, 320, 3)


def test_files_for_loaders_may_lie_anywhere_when_the_user_names_them(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "my voice.wav"
    (folder / "speech.wav").rename(elsewhere)
    assert run("talk.json") == 2
    assert run("talk.json", "--set", f"2.audio={elsewhere}") == 0
    assert run("talk.json", "--input", str(elsewhere.parent), "--set", "2.audio=my voice.wav") == 0


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/hostname", "..\\secret.wav", "C:\\secret.wav"])
def test_a_workflow_can_not_read_outside_the_input_folder(folder, capsys, name):
    (folder.parent / "secret.wav").write_bytes(b"secret")
    assert run(changed(folder, **{"2": {"class_type": "LoadAudio", "inputs": {"audio": name}}})) == 2
    assert "leads out of the input folder" in capsys.readouterr().err


def test_a_prompt_of_a_newer_comfyui_names_the_codec_within_the_format(folder, capsys):
    saved = {"video": ["5", 0], "filename_prefix": "talk", "format": "auto", "format.codec": "auto"}
    assert run(changed(folder, **{"6": {"class_type": "SaveVideo", "inputs": saved}}), "--out", "results") == 0
    assert open_video(folder / "results" / "talk_00001_.mp4").size == (64, 64)


def test_a_node_without_inputs_takes_none(folder, capsys):
    example = {"class_type": f"{PREFIX}Sample", "inputs": {}}
    path = changed(folder, **{"9": example, "3": {**TALK["3"], "inputs": {"audio": ["9", 1], **DRIVE}}})
    assert run(path, "--set", "9.file=mine.mp4") == 2
    assert f"Node 9 ({PREFIX}Sample) has no input 'file'; it has none at all." in capsys.readouterr().err
    for name in (r"C:\Users\me\a.wav", r"\\nas\share\a.wav", "/nowhere/a.wav"):
        assert run("talk.json", "--set", f"2.audio={name}") == 2
        assert f"The input file {name} does not exist; check" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../secret.wav [output]", "/etc/hostname [temp]", "..\\secret.wav [input]"])
def test_nor_outside_the_other_folders(folder, capsys, name):
    (folder.parent / "secret.wav").write_bytes(b"secret")
    assert run(changed(folder, **{"2": {"class_type": "LoadAudio", "inputs": {"audio": name}}})) == 2
    assert f"leads out of the {name.split('[')[1][:-1]} folder" in capsys.readouterr().err


def test_a_loader_may_name_the_folder_of_its_file(folder, capsys):
    (folder / "results" / "sub").mkdir(parents=True)
    (folder / "results" / "preview").mkdir()
    speech = (folder / "speech.wav").rename(folder / "results" / "sub" / "said.wav")
    with_audio = {name: {"2": {"class_type": "LoadAudio", "inputs": {"audio": name}}} for name in NAMES}
    for name in NAMES[:2]:
        assert run(changed(folder, **with_audio[name]), "--out", "results") == 0
    for name, kind in zip(NAMES[2:], ("input", "input", "temp"), strict=True):
        assert run(changed(folder, **with_audio[name]), "--out", "results") == 2
        assert f"is not in the {kind} folder" in capsys.readouterr().err
    speech.rename(folder / "results" / "preview" / "audio_00001_.wav")
    assert run(changed(folder, **with_audio[NAMES[4]]), "--out", "results") == 0
    (folder / "results" / "preview" / "audio_00001_.wav").rename(folder / "speech.wav")
    assert run(changed(folder, **with_audio[NAMES[3]]), "--out", "results") == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
@pytest.mark.parametrize("place", ["{}", "{} [input]", "{} [output]", "{} [temp]", "--set"])
def test_what_is_no_file_is_called_what_it_is(folder, capsys, place):
    inside = {"{} [output]": folder / "out", "{} [temp]": folder / "out" / "preview"}.get(place, folder)
    inside.mkdir(parents=True, exist_ok=True)
    (inside / "sub.wav").mkdir()
    os.mkfifo(inside / "pipe.wav")
    (inside / "gone.wav").symlink_to("nowhere")
    (inside / "round.wav").symlink_to("round.wav")
    for name, what in (
        ("sub", "is a folder, but an ordinary file is expected"),
        ("pipe", "is a pipe, but an ordinary file is expected"),
        ("gone", "is a link to nowhere, which does not exist"),
        ("round", "can't be opened"),
    ):
        if place == "--set":
            assert run("talk.json", "--set", f"2.audio={inside / name}.wav") == 2
        else:
            loader = {"class_type": "LoadAudio", "inputs": {"audio": place.format(f"{name}.wav")}}
            assert run(changed(folder, **{"2": loader})) == 2
        error = capsys.readouterr().err
        assert f"{name}.wav {what}" in error
        assert "is not in the" not in error


NAMES = [
    "sub/said.wav [output]",
    "sub\\said.wav [output]",
    "sub/said.wav",
    "speech.wav [input]",
    "audio_00001_.wav [temp]",
]


def test_sound_that_is_longer_than_the_frames_ends_with_them(folder):
    write_wav(folder / "longer.wav", Audio(torch.randn(1, 30000) * 0.1, 16000))
    longer = {"class_type": "LoadAudio", "inputs": {"audio": "longer.wav"}}
    video = {**TALK["5"], "inputs": {**TALK["5"]["inputs"], "audio": ["9", 0]}}
    assert run(changed(folder, **{"5": video, "9": longer})) == 0
    made = folder / "out" / "video" / "talk_00001_.mp4"
    assert len(list(open_video(made).frames())) == 4  # of 5 a second
    assert float(read_audio(made).seconds) == pytest.approx(0.8, abs=0.07)  # AAC ends with a whole block


def test_a_file_with_longer_sound_keeps_it_when_it_is_only_saved(folder, monkeypatch):
    """As in ComfyUI, which copies the streams of a video that nothing has changed."""
    audio = Audio(torch.randn(1, 32000) * 0.1, 16000)
    parts = (torch.rand(4, 16, 16, 3), audio, Fraction(5))
    monkeypatch.setattr(core_stand_ins.VideoPayload, "components", lambda payload: parts)
    (folder / "file.mp4").touch()
    graph = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "file.mp4"}},
        "2": {**TALK["6"], "inputs": {**TALK["6"]["inputs"], "video": ["1", 0]}},
    }
    (folder / "copy.json").write_text(json.dumps(graph))
    assert run("copy.json") == 0
    assert float(read_audio(folder / "out" / "video" / "talk_00001_.mp4").seconds) == pytest.approx(
        2, abs=0.07
    )  # AAC ends with a whole block


def test_a_label_is_left_out_and_reported(folder, capsys):
    ui = json.loads((ROOT / "example_workflows" / "preview_motion.json").read_text(encoding="utf-8"))
    ui["nodes"].append({"id": 99, "type": "Label (rgthree)", "inputs": [], "outputs": [{"type": "*", "links": None}]})
    (folder / "ui.json").write_text(json.dumps(ui))
    sets = ["2.fps=1", "4.size=64", "4.plot_width=320", "4.plot_height=240", "7.filename_prefix=face"]
    assert run("ui.json", *(part for entry in sets for part in ("--set", entry))) == 0
    stderr = capsys.readouterr().err
    assert "Left out, as nothing is connected to it and it is not known here: Label (rgthree) (node 99)\n" in stderr


def test_comfyuis_nodes_of_one_value_give_it_to_several(folder, capsys):
    write_image(folder / "a.png", torch.rand(4, 6, 3))

    def node(number, kind, stored=None, links=(), **inputs):
        sockets = [{"name": name, "type": "*", "link": link} for name, link in inputs.items()]
        outputs = [{"type": "*", "links": list(links)}, {"type": "*"}]
        values = {"widgets_values": list(stored.values()), "widgets_values_named": stored} if stored else {}
        return {"id": number, "type": kind, "inputs": sockets, "outputs": outputs, **values}

    combo = {"choice": "b", "index": 1, "option1": "a", "option2": "b"}
    nodes = [
        node(1, "LoadImage", {"image": "a.png", "upload": "image"}),
        node(2, "CustomCombo", combo),
        node(3, "PrimitiveString", {"value": "text"}),
        node(4, "SaveImage", images=1, filename_prefix=2),
        node(5, "SaveImage", images=1, filename_prefix=3),
    ]
    links = [[1, 1, 0, 4, 0, "IMAGE"], [2, 2, 0, 4, 1, "STRING"], [3, 3, 0, 5, 1, "STRING"]]
    (folder / "flow.json").write_text(json.dumps({"nodes": nodes, "links": links}))
    assert run("flow.json") == 0
    assert sorted(capsys.readouterr().out.split()) == ["out/b_00001_.png", "out/text_00001_.png"]
    info = {kind: entry.GET_NODE_INFO_V1() for kind, entry in cli.registry().items()}
    for kind in ("PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean", "PrimitiveStringMultiline"):
        assert cli.registry()[kind].execute(value=1).args == (1,)
        assert list(info[kind]["input"]["required"]) == ["value"]


def test_widgets_that_a_servers_older_pack_lacks_are_said(capsys, monkeypatch):
    info = {name: node.GET_NODE_INFO_V1() for name, node in cli.registry().items()}
    older = info[f"{PREFIX}InstantDriver"]
    del older["input"]["optional"]["weights"]
    older["input_order"]["optional"].remove("weights")
    monkeypatch.setattr(cli.comfy_client, "fetch_node_info", lambda *_: info)
    monkeypatch.setattr(cli.comfy_client, "run_on_server", lambda *_, **__: cli.comfy_client.ServerRun())
    words = (
        "Instant Driver (node 2) has no weights in the ComfyUI at http://a:1, so what the workflow sets there is not"
    )
    for folder in ("", "api"):
        run(str(ROOT / "example_workflows" / folder / "instant.json"), "--server", "http://a:1")
        assert capsys.readouterr().err.startswith(f"{words} used; update")
    del info[f"{PREFIX}InstantRender"]
    assert run(str(ROOT / "example_workflows" / "api" / "instant.json"), "--server", "http://a:1") == 2
    assert "InstantRender, which the ComfyUI at http://a:1 does not have; install" in capsys.readouterr().err


def test_the_instant_example_makes_a_video(folder):
    sample = {"class_type": f"{PREFIX}Sample", "inputs": {}}
    inputs = {"image": ["1", 0], "landmarks": ["1", 2], "motion": ["3", 0]}
    render = {"class_type": f"{PREFIX}InstantRender", "inputs": inputs}
    assert run(changed(folder, **{"1": sample, "4": render})) == 0
    video = open_video(folder / "out" / "video" / "talk_00001_.mp4")
    frames = [frame.astype(float) for frame in video.frames()]
    assert len(frames) == 4
    assert video.size == (512, 512)
    assert max(abs(frame - frames[0]).mean() for frame in frames) > 0.2


@pytest.mark.parametrize("name", [5, None, {}, True, "x" * 5000, "a\0b.wav", "\ud800.wav", ""])
@pytest.mark.parametrize(("kind", "key"), [("LoadImage", "image"), ("LoadAudio", "audio"), ("LoadVideo", "file")])
def test_a_name_that_no_file_has_is_refused_in_one_sentence(folder, toy_nodes, kind, key, name):
    graph = {
        "1": {"class_type": kind, "inputs": {key: name}},
        "2": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    (folder / "odd.json").write_text(json.dumps(graph))
    with pytest.raises(TalkingPortraitError) as refused:
        run_graph(json.loads((folder / "odd.json").read_text()), {**cli.registry(), **toy_nodes})
    assert len(str(refused.value)) < 400
    assert "Value not in list" in str(refused.value) or "is not in the input folder" in str(refused.value)


@pytest.mark.parametrize("prefix", ["x" * 300, "a\0b", "\ud800", "é" * 150, "y" * 300 + "/a"])
@pytest.mark.parametrize("kind", ["SaveVideo", "SaveImage", "SaveAudio"])
def test_a_result_needs_a_name_that_a_file_can_have(folder, capsys, kind, prefix):
    source = {"SaveVideo": ["5", 0], "SaveImage": ["4", 0], "SaveAudio": ["2", 0]}[kind]
    key = {"SaveVideo": "video", "SaveImage": "images", "SaveAudio": "audio"}[kind]
    inputs = {**TALK["6"]["inputs"], key: source, "filename_prefix": prefix}
    assert run(changed(folder, **{"6": {"class_type": kind, "inputs": inputs}})) == 2
    stderr = capsys.readouterr().err
    assert "is one that no file can have" in stderr
    assert len(stderr) < 400
    assert not [path for path in (folder / "out").rglob("*") if path.is_file()]


def test_a_name_may_come_from_another_node_and_is_checked_then(folder, capsys, toy_names):
    named = {**TALK["6"], "inputs": {**TALK["6"]["inputs"], "filename_prefix": ["9", 0]}}
    for name, code in (("plain", 0), ("../evil", 3)):
        assert run(changed(folder, **{"6": named, "9": {"class_type": "Name", "inputs": {"name": name}}})) == code
    assert "leads out of the output folder" in capsys.readouterr().err
    assert (folder / "out" / "plain_00001_.mp4").is_file()


@pytest.mark.parametrize("prefix", ["../evil", "/tmp/evil", "a/../../evil", "C:evil", ""])
def test_a_workflow_can_not_write_outside_the_output_folder(folder, capsys, prefix):
    save = {**TALK["6"], "inputs": {**TALK["6"]["inputs"], "filename_prefix": prefix}}
    assert run(changed(folder, **{"6": save})) == 2
    assert "leads out of the output folder" in capsys.readouterr().err
    assert not list(folder.parent.glob("evil*"))


def test_what_goes_wrong_has_its_exit_code_and_sentence(folder, capsys):
    assert run(changed(folder, **{"3": {"class_type": "Nowhere", "inputs": {}}})) == 2
    silent = {**TALK, "5": {**TALK["5"], "inputs": {**TALK["5"]["inputs"], "audio": ["9", 0]}}}
    assert run(changed(folder, **silent)) == 2
    assert run("talk.json", "--set", "SeparateVocals.enabled=false") == 2
    rate = {**TALK["3"], "inputs": {**TALK["3"]["inputs"], "fps": 1000}}
    assert run(changed(folder, **{"3": rate})) == 2
    stderr = capsys.readouterr().err
    assert "node Nowhere does not exist" in stderr
    assert "no node is called 'SeparateVocals'" in stderr
    assert "Value 1000.0 bigger than max of 240.0: fps" in stderr
    write_wav(folder / "speech.wav", Audio(torch.zeros(1, 1), 16000))
    assert run("talk.json") == 3
    assert "error: Load Audio: The audio has 1 samples" in capsys.readouterr().err


def test_cancelling_leaves_nothing_behind(folder, monkeypatch, capsys):
    monkeypatch.setattr(cli.ProgressBar, "__call__", interrupt_the_saving)
    assert main(["run", "talk.json"]) == 130
    assert sorted(path.name for path in folder.iterdir()) == ["speech.wav", "talk.json"]
    assert capsys.readouterr().err.endswith("\ninterrupted\n")


def interrupt_the_saving(line, done, total, preview=None):
    if line._label == "Save Video" and done == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("out", ["speech.wav", "speech.wav/deeper", "/proc/out", "x" * 5000])
def test_the_output_folder_is_checked_first(folder, monkeypatch, capsys, out):
    monkeypatch.setattr(cli, "run_graph", None)  # it would fail, had it been called
    assert run("talk.json", "--out", out) == 2
    stderr = capsys.readouterr().err.strip()
    assert "The folder" in stderr
    assert len(stderr) < 500
    assert sorted(path.name for path in folder.iterdir()) == ["speech.wav", "talk.json"]


def test_a_wait_without_a_server_is_said_to_have_no_effect(folder, capsys):
    assert run("talk.json", "--timeout", "5", "--set", "1.nothing=3") == 2
    assert "--timeout has no effect without --server." in capsys.readouterr().err


def test_a_server_without_an_address_is_none_and_a_wait_has_an_end(folder, capsys):
    assert run("talk.json", "--server", "") == 6
    for wait in ("nan", "-1", "inf"):
        assert run("talk.json", "--server", "http://127.0.0.1:1", "--timeout", wait) == 2
    stderr = capsys.readouterr().err
    assert "'' is no address" in stderr
    assert stderr.count("but a number above 0 is expected") == 3


def test_a_link_among_the_results_leads_nowhere(folder):
    (folder / "out" / "video").mkdir(parents=True)
    (folder / "out" / "video" / "talk_00001_.mp4").symlink_to(folder / "elsewhere.mp4")
    assert run("talk.json") == 0
    assert not (folder / "elsewhere.mp4").exists()
    assert (folder / "out" / "video" / "talk_00002_.mp4").is_file()


def test_a_video_whose_sound_is_damaged_is_not_taken_for_a_silent_one(folder, monkeypatch, capsys):
    assert run("talk.json") == 0
    monkeypatch.setattr(core_stand_ins, "read_audio", lambda path: check_audio({"waveform": None, "sample_rate": 0}))
    graph = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "out/video/talk_00001_.mp4"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    (folder / "cut.json").write_text(json.dumps(graph))
    assert run("cut.json") == 3
    assert "Get Video Components: The audio has" in capsys.readouterr().err


def test_a_separator_that_nothing_needs_is_never_run(folder):
    separate = {
        "class_type": f"{PREFIX}SeparateVocals",
        "inputs": {"audio": ["2", 0], "model": "missing.onnx", "enabled": True},
    }
    prompt = {**TALK, "7": separate, "8": {"class_type": "PreviewAudio", "inputs": {"audio": ["2", 0]}}}
    with standalone.use_session(standalone.Session(input_folder=folder, output_folder=folder / "out")):
        result = run_graph(prompt, cli.registry())
    assert "7" not in result.executed
    assert result.executed.count("2") == 1
    assert result.ui["8"]["audio"][0]["filename"] == "audio_00001_.wav"
    used = {**prompt, "3": {**TALK["3"], "inputs": {**TALK["3"]["inputs"], "audio": ["7", 0]}}}
    (folder / "used.json").write_text(json.dumps(used))
    assert run("used.json") == 2
    assert run("used.json", "--set", f"{PREFIX}SeparateVocals.enabled=false") == 0


def test_a_picture_is_loaded_with_its_mask_and_saved(folder):
    write_image(folder / "face.png", torch.rand(8, 6, 3))
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "face.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "again"}},
    }
    (folder / "copy.json").write_text(json.dumps(graph))
    assert run("copy.json") == 0
    assert torch.equal(read_image(folder / "out" / "again_00001_.png"), read_image(folder / "face.png"))


def test_a_video_without_sound_is_refused_by_the_driver(folder, capsys):
    assert run("talk.json") == 0
    silent = dict(TALK)
    silent["5"] = {"class_type": "CreateVideo", "inputs": {"images": ["4", 0], "fps": ["4", 2]}}
    assert run(changed(folder, **silent)) == 0
    graph = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "out/video/talk_00002_.mp4"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": f"{PREFIX}InstantDriver", "inputs": {**DRIVE, "audio": ["2", 1], "fps": ["2", 2]}},
        "4": {"class_type": f"{PREFIX}PreviewMotion", "inputs": {"motion": ["3", 0], "size": 64}},
        "5": {"class_type": "PreviewImage", "inputs": {"images": ["4", 1]}},
    }
    (folder / "speech.json").write_text(json.dumps(graph))
    capsys.readouterr()
    assert run("speech.json") == 3
    assert (
        "error: Instant Driver: There is no audio (a video without a sound track gives none)" in capsys.readouterr().err
    )
    assert run("speech.json", "--set", "1.file=out/video/talk_00001_.mp4") == 0
