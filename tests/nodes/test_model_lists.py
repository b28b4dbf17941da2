"""Lists of model files: what is there, what is chosen, and what users are told about files that are missing."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from talking_portrait.nodes import checked_node, extension, host, model_paths
from talking_portrait.nodes.standalone.command import registry
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.model_files.store import list_files
from talking_portrait.pipelines.model_files.table import MODEL_FILES
from talking_portrait.pipelines.workflow.check import GraphRefusedError, check_graph

NODES = {node.__name__: node for node in extension.NODES}
LISTS = {
    "LoadSpeechEncoder": {"file": "wav2vec2_base_960h"},
    "SeparateVocals": {"model": "kim_vocal_2"},
    "LoadFaceRestorer": {"file": "gfpgan"},
    "FaceEmbedding": {"detector": "antelope_scrfd_10g_bnkps", "recogniser": "antelope_glintr100"},
    "LoadAniTalker": {"stage1": "anitalker_stage1", "stage2": "anitalker_audio_only_hubert"},
    "LoadAPasco": {"net": "hallo_net"},
    "LoadAniPortrait": {
        name: f"aniportrait_{name}"
        for name in ("reference_unet", "denoising_unet", "motion_module", "pose_guider", "audio2mesh", "audio2pose")
    },
}
"""Nodes, their lists, and what the table of models calls the file that each list begins with."""
CASES = [(node, entry, known) for node, lists in LISTS.items() for entry, known in lists.items()]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    return tmp_path


def listed(node: str, entry: str) -> dict:
    return NODES[node].GET_NODE_INFO_V1()["input"]["required"][entry][1]


def put(models: Path, known: str, content: bytes = b"") -> Path:
    (model,) = list_files(known)
    path = models / model.folder / model.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_every_list_with_a_models_file_is_tested_here():
    names = {model.file for model in MODEL_FILES}
    for name, node in NODES.items():
        inputs = node.GET_NODE_INFO_V1()["input"]["required"]
        lists = {entry for entry, (_, options) in inputs.items() if options.get("default") in names}
        assert lists == set(LISTS.get(name, {})), name


@pytest.mark.parametrize(("node", "entry", "known"), CASES)
def test_a_list_holds_only_the_files_that_are_there(models, node, entry, known):
    """ComfyUI offers a workflow's missing file for download where the list lacks it."""
    (model,) = list_files(known)
    assert listed(node, entry)["options"] == []
    assert listed(node, entry)["default"] == model.file
    put(models, known)
    assert listed(node, entry)["options"] == [model.file]
    assert listed(node, entry)["default"] == model.file


@pytest.mark.parametrize("node", ["LoadAudioDVP", "LoadSyncAnimation", "LoadInstantDriver"])
def test_a_list_of_own_files_without_any_says_how_one_is_made(models, node):
    assert listed(node, "file")["options"] == []
    with pytest.raises(TalkingPortraitError, match=f"No file of {models}.* is chosen, but .*; train one with Train "):
        NODES[node].execute("")


def test_windows_lists_files_as_workflows_name_them(monkeypatch):
    """Else ComfyUI would offer a file for download that is there."""
    names = ["aniportrait\\pose_guider.pth", "hubert\\model.safetensors", "net.pth"]
    monkeypatch.setattr(host, "IN_COMFYUI", True)
    folders = SimpleNamespace(get_filename_list=lambda category: names)
    monkeypatch.setattr(host, "folder_paths", folders, raising=False)
    listed = host.model_names(host.OWN_CATEGORY, folder_files=("model.safetensors",))
    assert listed == ["aniportrait/pose_guider.pth", "hubert", "net.pth"]


def test_of_several_speech_encoders_one_that_is_there_is_chosen(models):
    put(models, "chinese_hubert_large")
    assert listed("LoadSpeechEncoder", "file")["default"] == "chinese-hubert-large.bin"
    put(models, "wav2vec2_base_960h")
    assert listed("LoadSpeechEncoder", "file")["default"] == "wav2vec2-base-960h.safetensors"


@pytest.mark.parametrize("node", [name for name in LISTS if name.startswith("Load")])
def test_a_saved_workflow_is_accepted_once_its_files_are_there(models, node):
    """And else refused, for all of them and with the way to get them."""
    inputs = NODES[node].GET_NODE_INFO_V1()["input"]["required"]
    values = {entry: options["default"] for entry, (_, options) in inputs.items() if "default" in options}
    nodes = {**registry(), "Show": Show}
    prompt = {
        "1": {"class_type": NODES[node].GET_SCHEMA().node_id, "inputs": values},
        "2": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    with pytest.raises(GraphRefusedError, match="models get ") as refused:
        check_graph(prompt, nodes)
    assert all(list_files(known)[0].file in str(refused.value) for known in LISTS[node].values())
    for known in LISTS[node].values():
        put(models, known)
    assert check_graph(prompt, nodes)["1"]["inputs"] == values


class Show:
    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict:  # noqa: N802 (ComfyUI's name)
        return {"input": {"required": {"value": ("*", {})}}, "output": [], "output_node": True}


@pytest.mark.parametrize("node", LISTS)
def test_all_files_that_a_node_lacks_are_named_at_once(models, node):
    files = {entry: list_files(known)[0] for entry, known in LISTS[node].items()}
    others = {"FaceEmbedding": {"no_face": "stop"}, "SeparateVocals": {"enabled": True}}.get(node, {})
    if node in ("LoadAniPortrait", "LoadAPasco"):
        others = {"dtype": "auto"}
    if node in ("FaceEmbedding", "SeparateVocals"):
        image, audio, _ = NODES["Example"].execute().args
        others |= {"image": image} if node == "FaceEmbedding" else {"audio": audio}
    with pytest.raises(TalkingPortraitError) as raised:
        NODES[node].execute(**{entry: model.file for entry, model in files.items()}, **others)
    message = str(raised.value)
    assert message.startswith(f"{NODES[node].define_schema().display_name}: The model file")
    for model in files.values():
        assert model.file in message
        assert model.page in message
    folder = next(iter(files.values())).folder
    assert str(models / folder) in message
    assert "models get " in message
    assert "\n" not in message


def test_commands_for_two_files_fetch_no_more_than_those(models):
    with pytest.raises(TalkingPortraitError) as raised:
        NODES["LoadAniTalker"].execute("anitalker/stage1.ckpt", "anitalker/stage2_full_control_mfcc.ckpt")
    commands = str(raised.value).partition("or run: ")[2].split(", then: ")
    assert [command.rpartition(" ")[2] for command in commands] == ["anitalker_stage1", "anitalker_full_control_mfcc"]
    with pytest.raises(TalkingPortraitError) as raised:
        NODES["LoadAniTalker"].execute("anitalker/stage1.ckpt", "mine.ckpt")
    folder = models / "talking_portrait"
    assert (
        f"The model files {folder / 'anitalker/stage1.ckpt'}, {folder / 'mine.ckpt'} are missing; put them there, or "
        in (str(raised.value))
    )
    put(models, "anitalker_stage1")
    with pytest.raises(TalkingPortraitError, match="mine.ckpt is missing; .*get anitalker_audio_only_hubert$"):
        NODES["LoadAniTalker"].execute("anitalker/stage1.ckpt", "mine.ckpt")


def test_a_connected_encoder_and_a_separator_that_is_off_need_no_files(models):
    assert NODES["LoadSpeechEncoder"].validate_inputs("wav2vec2-base-960h.safetensors") is not True
    assert NODES["LoadSpeechEncoder"].validate_inputs("wav2vec2-base-960h.safetensors", None) is True
    assert NODES["SeparateVocals"].validate_inputs("Kim_Vocal_2.onnx", True) is not True
    assert NODES["SeparateVocals"].validate_inputs("Kim_Vocal_2.onnx", False) is True


@pytest.mark.parametrize("node", LISTS)
def test_a_name_that_comes_by_a_link_is_left_to_execute(models, node):
    assert NODES[node].validate_inputs(**dict.fromkeys(LISTS[node])) is True


# --- results that a host keeps


@pytest.mark.parametrize("node", LISTS)
def test_a_loader_runs_anew_when_a_file_comes_or_changes(models, node):
    names = {entry: list_files(known)[0].file for entry, known in LISTS[node].items()}
    seen = [NODES[node].fingerprint_inputs(**names)]
    for known in LISTS[node].values():
        path = put(models, known, b"one")
        seen.append(NODES[node].fingerprint_inputs(**names))
        path.write_bytes(b"longer")
        seen.append(NODES[node].fingerprint_inputs(**names))
    assert len(set(seen)) == len(seen)
    assert NODES[node].fingerprint_inputs(**names) == seen[-1], "the same files give the same"
    for value in (None, ["1", 0], "../../x", ""):
        assert NODES[node].fingerprint_inputs(**dict.fromkeys(names, value)) == ()
    assert NODES[node].fingerprint_inputs() == (), "ComfyUI gives it no inputs that are linked"


@pytest.mark.parametrize("node", ["DetectLandmarks", "RestoreFaces"])
def test_faces_are_detected_anew_with_a_better_model(models, node):
    before = NODES[node].fingerprint_inputs()
    opencv = NODES["DetectLandmarks"].fingerprint_inputs(engine="opencv")
    path = put(models, "face_landmarker", b"task")
    after = NODES[node].fingerprint_inputs()
    assert after != before
    assert NODES[node].fingerprint_inputs() == after
    path.write_bytes(b"another")
    assert NODES[node].fingerprint_inputs() != after
    assert NODES["DetectLandmarks"].fingerprint_inputs(engine="opencv") == opencv, "which does not use the file"


def test_a_file_that_cannot_be_read_has_no_fingerprint(tmp_path):
    assert model_paths.fingerprint([None, tmp_path / "gone"]) == ()


class Endings:
    """A view of the endings of one category, as the hiddenswitch distribution of ComfyUI hands out."""

    def __init__(self, stored: set[str]) -> None:
        self.stored = stored

    def __iter__(self):
        return (letter for ending in self.stored for letter in ending)

    def update(self, others: set[str]) -> None:
        self.stored.update(others)


class FolderNames(dict):
    """That distribution's table: it hands out views, and an assignment empties what they show before it reads them."""

    def __getitem__(self, category):
        paths, endings = super().__getitem__(category)
        return (path for path in paths), Endings(endings)

    def __setitem__(self, category, value):
        if category in self:
            super().__getitem__(category)[0].clear()
        super().__setitem__(category, (list(value[0]), set(value[1])))


@pytest.mark.parametrize("table", [dict, FolderNames])
@pytest.mark.parametrize("own", [None, "/other"])
def test_our_folder_lists_our_files_in_every_table(monkeypatch, table, own):
    shared = {".yaml"}
    known = table({"talking_portrait": ([own], shared)} if own else {})
    folders = SimpleNamespace(folder_names_and_paths=known, models_dir="/models")
    monkeypatch.setattr(host, "IN_COMFYUI", True)
    monkeypatch.setattr(host, "folder_paths", folders, raising=False)
    for _ in range(2):
        host.register_model_folders()
    # Folders of an extra_model_paths.yaml are added to ComfyUI's own, which that distribution does by itself.
    usual = [] if own and table is FolderNames else ["/models/talking_portrait"]
    assert host.model_folders("talking_portrait") == [Path(folder) for folder in (*usual, own) if folder]
    assert host.model_folders("detection") == [Path("/models/detection")]
    assert set(dict.__getitem__(known, "talking_portrait")[1]) >= {*host.MODEL_ENDINGS, *(shared if own else ())}
    if table is dict:
        assert shared == {".yaml"}


def choices() -> dict[str, list[str]]:
    return {
        f"{name}.{entry.id}": entry.as_dict()["options"]
        for name, node in NODES.items()
        for entry in node.define_schema().inputs
        if entry.io_type == "COMBO"
    }


def test_choices_that_list_files_are_those_that_the_check_of_choices_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lists = []
    for names in ([], ["one.safetensors", "two.pth"]):
        monkeypatch.setattr(host, "model_names", lambda *_, names=names, **__: list(names))
        lists.append(choices())
    differ = {place.partition(".")[2] for place in lists[0] if lists[0][place] != lists[1][place]}
    assert differ == checked_node.FILE_CHOICES
    fixed = {place.partition(".")[2] for place in lists[0] if lists[0][place] == lists[1][place]}
    assert not fixed & checked_node.FILE_CHOICES - {"file"}, "Load AudioDVP and its like list the output folder"


@pytest.mark.parametrize("place", [p for p in choices() if p.partition(".")[2] not in checked_node.FILE_CHOICES])
def test_a_choice_that_there_is_not_is_one_sentence_in_every_node(place: str) -> None:
    """A link from a node of any kind may bring it, past the host's own check."""
    name, _, entry = place.partition(".")
    (checked,) = [value for key, value in _checked(name).items() if key == entry]
    with pytest.raises(
        TalkingPortraitError, match=f'The input "{entry}" is .nonsense. .str., but .* or .* is expected'
    ):
        checked_node._check_values({entry: checked}, {entry: "nonsense"})
    for choice in checked.choices:
        checked_node._check_values({entry: checked}, {entry: choice})


def numbers() -> list[tuple[str, str]]:
    """Node and input of all widgets for numbers."""
    return [
        (name, entry.id)
        for name, node in NODES.items()
        for entry in node.define_schema().inputs
        if entry.io_type in ("INT", "FLOAT")
    ]


def test_a_number_outside_of_its_widgets_range_is_one_sentence_in_every_node() -> None:
    """As the host refuses it where it is typed, but not where a link brings it."""
    for name, entry in numbers():
        checked = _checked(name)[entry]
        lowest, highest = checked.range
        assert math.isfinite(lowest), f"{name}.{entry} has no least value"
        assert math.isfinite(highest), f"{name}.{entry} has no largest value"
        for wrong in (lowest - 1, highest + max(abs(highest), 1), math.nan, math.inf):
            if checked.io_type == "INT" and not isinstance(wrong, int):
                continue
            with pytest.raises(TalkingPortraitError, match=rf'^The input "{entry}" is .*, but .* (to|are) '):
                checked_node._plain(entry, wrong, checked)
        for right in (lowest, highest) if checked.io_type == "INT" else (lowest, highest, highest * (1 + 1e-9)):
            assert checked_node._plain(entry, right, checked) == right


def _checked(name: str) -> checked_node.Checked:
    return checked_node._checked_inputs(NODES[name].define_schema.__func__, NODES[name])
