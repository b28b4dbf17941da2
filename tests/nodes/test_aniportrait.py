"""AniPortrait's nodes on tiny weights under the published names: speech, motion and drawings to frames; bad input.

Long, as all of it goes through the same graph of nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.nodes import extension, host
from talking_portrait.nodes.aniportrait_files import AUDIO, FILES
from talking_portrait.nodes.loaded_models import LoadedAniPortrait
from talking_portrait.nodes.standalone import command as cli
from talking_portrait.nodes.standalone import core_nodes as core_stand_ins
from talking_portrait.nodes.standalone import node_api as standalone
from talking_portrait.pipelines.aniportrait.settings import AnimationState, Networks
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.landmark_payload import from_payload
from talking_portrait.pipelines.face.metric_mesh import metric_mesh
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.timing import as_rate, frame_count

from ..tiny_weights.aniportrait import write_all

NODES = {node.__name__: node for node in extension.NODES}
ROOT = Path(__file__).parents[2]
TASK = ROOT.parent / "shared" / "data" / "face_landmarker.task"
SIZE = 64


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_all(folder)
    return folder


@pytest.fixture(autouse=True)
def in_that_folder(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(models))


@pytest.fixture(scope="module")
def sample() -> tuple:
    return NODES["Example"].execute().args


@pytest.fixture(scope="module")
def aniportrait(models: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKING_PORTRAIT_MODELS", str(models))
        return load()


@pytest.fixture(scope="module")
def encoders(models: Path) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKING_PORTRAIT_MODELS", str(models))
        vae = core_stand_ins.VAELoader.execute("sd-vae-ft-mse.safetensors").args[0]
        clip = core_stand_ins.CLIPVisionLoader.execute("sd-image-variations-image-encoder.bin").args[0]
    return {"vae": vae, "clip_vision": clip}


def load(dtype: str = "auto", **changes):
    return NODES["LoadAniPortrait"].execute(**{**FILES, **changes}, dtype=dtype).args[0]


def sound(sample: tuple, seconds: float = 0.2) -> dict:
    audio = sample[1]
    return {**audio, "waveform": audio["waveform"][..., : round(seconds * audio["sample_rate"])]}


def speak(aniportrait, sample: tuple, head_pose: str = "still", fps: float = 30.0, **changes):
    inputs = {"audio": sound(sample), "style": 3, **changes}
    return NODES["AniPortraitAudioMotion"].execute(aniportrait, sample[2], head_pose, fps=fps, **inputs).args[0]


def animate(aniportrait, sample: tuple, encoders: dict, **changes):
    inputs = {"width": SIZE, "height": SIZE, "steps": 1, "cfg": 3.5, "scheduler": "ddim", "seed": 1, "fps": 30.0}
    inputs |= {"mode": "reference", "portrait": sample[0], "landmarks": sample[2], **encoders, **changes}
    return NODES["AniPortraitSampler"].execute(aniportrait, **inputs).args


@pytest.fixture(scope="module")
def motion(aniportrait, sample):
    return speak(aniportrait, sample)


def test_speech_becomes_the_motion_of_this_face(aniportrait, sample, motion):
    mesh, _ = metric_mesh(from_payload(sample[2]).points[0], (512, 512))
    assert motion.frames == 6
    assert motion.fps == 30
    assert motion.pose == "head"
    assert not motion.rotation.any()
    offsets = motion.vertices - mesh
    assert 0 < abs(offsets).max() < 1, "tiny weights move the face by millimetres from where it is in the portrait"
    assert offsets.std(axis=0).max() > 0
    assert speak(aniportrait, sample, fps=25.0).frames == 5
    head = speak(aniportrait, sample, "predicted")
    np.testing.assert_allclose(head.vertices, motion.vertices, atol=1e-5)
    assert head.rotation.any()
    assert abs(speak(aniportrait, sample, "predicted", style=4).rotation - head.rotation).max() > 1e-3
    np.testing.assert_allclose(speak(aniportrait, sample, "predicted").rotation, head.rotation, atol=1e-5)


def test_one_bar_counts_all_of_the_work_on_speech(aniportrait, sample):
    for head_pose in ("still", "predicted"):
        reports = []
        watching = standalone.Session(
            progress=lambda done, total, preview=None, reports=reports: reports.append((done, total))
        )
        with standalone.use_session(watching):
            speak(aniportrait, sample, head_pose)
        assert len(reports) >= (3 if head_pose == "still" else 6)
        assert reports == sorted(reports)
        assert {total for _, total in reports} == {100}
        assert reports[-1] == (100, 100)


@pytest.mark.parametrize("samples", [1637, 3210, 4000, 4001])
@pytest.mark.parametrize("fps", [24.0, 25.0, 29.97, 30.0, 60.0])
def test_frames_cover_the_speech_at_any_rate(aniportrait, sample, samples, fps):
    audio = {**sample[1], "waveform": sample[1]["waveform"][..., :samples]}
    motion = speak(aniportrait, sample, audio=audio, fps=fps)
    assert motion.frames == frame_count(samples, 16000, as_rate(fps))


def test_the_head_follows_a_template_or_another_motion(aniportrait, sample, models):
    template = np.arange(18.0).reshape(3, 6)
    np.save(models / "talking_portrait" / "nod.npy", template)
    info = NODES["AniPortraitAudioMotion"].GET_NODE_INFO_V1()
    assert info["input"]["optional"]["template"][1]["options"] == ["none", "nod.npy"]
    played = speak(aniportrait, sample, "template", template="nod.npy")
    there_and_back = template[[0, 1, 2, 1, 0, 1]]
    np.testing.assert_allclose(np.hstack([played.rotation, played.translation]), there_and_back)
    turned = NODES["ReenactMotion"].execute(sample[2], sample[2], 25.0, 1, 1, 1, "absolute").args[0]
    follows = speak(aniportrait, sample, "motion", head_motion=turned)
    assert follows.pose == "camera"
    np.testing.assert_allclose(follows.rotation, turned.rotation.repeat(6, axis=0))


def test_features_of_its_own_encoder_give_the_same_face(aniportrait, sample, motion):
    encoder = NODES["LoadSpeechEncoder"].execute("aniportrait/audio2mesh.pt").args[0]
    features = NODES["EncodeSpeech"].execute(sound(sample), encoder, 30.0, "resampled").args[0]
    alike = speak(aniportrait, sample, audio=None, features=features)
    np.testing.assert_allclose(alike.vertices, motion.vertices, atol=1e-4)
    stock = NODES["EncodeSpeech"].execute(sound(sample), encoder, 30.0, "stock").args[0]
    with pytest.raises(TalkingPortraitError, match="AniPortrait Audio Motion: The speech features are .* stock at 50"):
        speak(aniportrait, sample, audio=None, features=stock)


def test_a_motion_and_its_drawings_make_the_same_video(aniportrait, sample, encoders, motion):
    reports = []
    watching = standalone.Session(progress=lambda done, total, preview=None: reports.append((done, total, preview)))
    with standalone.use_session(watching):
        images, fps, state, _ = animate(aniportrait, sample, encoders, motion=motion, window=4, overlap=1)
    assert images.shape == (6, SIZE, SIZE, 3)
    assert 0 <= images.min() < images.max() <= 1
    assert fps == 30.0
    assert state.frames == 6
    assert reports[0][2].shape == (512, 512, 3)
    assert [done for done, *_ in reports] == sorted(done for done, *_ in reports)
    assert reports[-1][0] == reports[-1][1]
    assert sum(preview is not None for *_, preview in reports) >= 3, "the portrait, rough pictures and decoded frames"
    drawn, rate = NODES["DrawPose"].execute(motion, SIZE, SIZE, sample[2]).args
    assert rate == 30.0
    again, fps, *_ = animate(aniportrait, sample, encoders, pose_frames=drawn, fps=12.0, window=4, overlap=1)
    assert fps == 12.0
    torch.testing.assert_close(again, images, atol=1e-4, rtol=0)
    assert not torch.allclose(animate(aniportrait, sample, encoders, motion=motion, seed=2)[0], images, atol=0.01)
    swapped = animate(aniportrait, sample, encoders, pose_frames=drawn.flip(-1), swap_colours=True, window=4, overlap=1)
    torch.testing.assert_close(swapped[0], images, atol=1e-4, rtol=0)


def test_a_video_continues_from_a_state(aniportrait, sample, encoders, motion):
    drawn = NODES["DrawPose"].execute(motion, SIZE, SIZE, sample[2]).args[0]
    options = {"mode": "seamless", "window": 4, "overlap": 1, "continued": True}
    first, _, state, _ = animate(aniportrait, sample, encoders, pose_frames=drawn[:3], **options)
    then, _, last, _ = animate(aniportrait, sample, encoders, pose_frames=drawn[3:], previous=state, **options)
    alone, *_ = animate(aniportrait, sample, encoders, pose_frames=drawn[3:], **options)
    assert len(first) == len(then) == 3
    assert last.frames == 6
    assert not torch.allclose(then, alone, atol=1e-3)


def test_cancelling_stops_within_a_step(aniportrait, sample, encoders, motion):
    calls = []

    def cancel(done, total, preview=None):
        calls.append(done)
        if done:
            raise KeyboardInterrupt

    with standalone.use_session(standalone.Session(progress=cancel)), pytest.raises(KeyboardInterrupt):
        animate(aniportrait, sample, encoders, motion=motion, steps=3)
    assert calls == [0, 1]


def test_drawings_have_the_portraits_face_wherever_the_motion_comes_from(sample, motion):
    drawn = NODES["DrawPose"].execute(motion, 512, 512, sample[2]).args[0]
    assert drawn.shape == (6, 512, 512, 3)
    levels = (drawn[0] * 255).round()
    assert {(10, 200, 10), (180, 200, 10), (10, 200, 180)} <= {tuple(c) for c in levels.reshape(-1, 3).int().tolist()}
    instant = NODES["InstantDriver"].execute(sound(sample), 10.0, 0, 0, 0, 0, 0, 0).args[0]
    still = NODES["DrawPose"].execute(instant, 512, 512, sample[2]).args[0]
    points = from_payload(sample[2]).points[0][:468]
    for picture in (drawn[0], still[0]):
        y, x = torch.nonzero(picture.sum(dim=-1), as_tuple=True)
        assert abs(int(x.min()) - points[:, 0].min()) < 12
        assert abs(int(x.max()) - points[:, 0].max()) < 12
        assert abs(int(y.max()) - points[:, 1].max()) < 12
    narrow = NODES["DrawPose"].execute(instant, 256, 512, sample[2]).args[0]
    x = torch.nonzero(narrow[0].sum(dim=-1))[:, 1]
    assert abs(int(x.min()) - points[:, 0].min() / 2) < 8, "squeezed with the portrait"


# --- bad input ---


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path, models, monkeypatch, sample):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    with pytest.raises(TalkingPortraitError) as raised:
        load()
    message = str(raised.value)
    reference = tmp_path / "talking_portrait" / "aniportrait" / "reference_unet.pth"
    assert message.startswith(f"Load AniPortrait: The model files {reference}, ")
    assert "https://" in message
    assert message.endswith("models get aniportrait")
    shutil.copytree(models / "talking_portrait", tmp_path / "talking_portrait")
    folder = tmp_path / "talking_portrait" / "aniportrait"
    for name in FILES:
        hidden = (folder / Path(FILES[name]).name).rename(tmp_path / "hidden")
        if name in AUDIO:
            with pytest.raises(TalkingPortraitError, match=f"AniPortrait Audio Motion: .*get aniportrait_{name}$"):
                speak(load(), sample, "predicted")
        else:
            with pytest.raises(TalkingPortraitError, match=f"{FILES[name]} is missing; .*get aniportrait_{name}$"):
                load()
        hidden.rename(folder / Path(FILES[name]).name)


def test_a_file_of_another_system_is_named_for_what_it_is(models):
    with pytest.raises(TalkingPortraitError, match="is AniPortrait's audio2pose, but AniPortrait's pose_guider"):
        load(pose_guider="aniportrait/audio2pose.pt")
    with pytest.raises(TalkingPortraitError, match="an SD 1.5 UNet, but AniPortrait's motion_module"):
        load(motion_module="aniportrait/denoising_unet.pth")


def test_half_precision_on_a_cpu_and_weights_of_nan_are_refused(models, sample, encoders, motion):
    if not torch.accelerator.is_available():
        with pytest.raises(TalkingPortraitError, match="float16, which a CPU"):
            load("float16")
    state = torch.load(models / "talking_portrait" / FILES["pose_guider"], weights_only=True)
    state["final_proj.bias"][3] = float("nan")
    torch.save(state, models / "talking_portrait" / "broken.pth")
    with pytest.raises(TalkingPortraitError, match=r"broken.pth holds weights that are no numbers .*final_proj.bias"):
        animate(load(pose_guider="broken.pth"), sample, encoders, motion=motion)
    state = torch.load(models / "talking_portrait" / FILES["motion_module"], weights_only=True)
    key = next(name for name in state if name.endswith("proj_out.bias"))
    torch.save({**state, key: torch.full_like(state[key], float("nan"))}, models / "talking_portrait" / "broken.pth")
    with pytest.raises(TalkingPortraitError, match=r"broken.pth holds weights that are no numbers"):
        animate(load(motion_module="broken.pth"), sample, encoders, motion=motion)


def state(value: float = 0.0, drawings: int = 3, frames: int = 3) -> AnimationState:
    pictures = torch.zeros(drawings, SIZE, SIZE, 3, dtype=torch.uint8)
    return AnimationState(torch.full((1, 4, 3, SIZE // 8, SIZE // 8), value), pictures, frames)


BAD = {
    "nothing to follow": ({}, "Neither a motion nor pose frames are connected"),
    "a long window": ({"window": 33}, '"window" is 33, but a number from 1 to 32 is expected'),
    "an overlap like the window": ({"window": 4, "overlap": 4}, "overlap"),
    "an odd size": ({"width": 65}, "steps of 8"),
    "no VAE": ({"vae": "vae"}, 'The input "vae" is'),
    "no CLIP": ({"clip_vision": None}, 'The input "clip_vision" is'),
    "a text as state": ({"previous": "state", "mode": "seamless"}, "the state of a sampler is expected"),
    "a state without drawings": ({"previous": state(drawings=2), "mode": "seamless"}, "of the same last frames of a"),
    "a state of a whole that is less": ({"previous": state(frames=2), "mode": "seamless"}, "connect the output state"),
    "a state of NaN": ({"previous": state(torch.nan), "mode": "seamless"}, "sampler before gave values that are not"),
    "too wide a picture": ({"width": 2**31}, '"width" is 2147483648, but a number from 64 to 2048'),
    "drawings of another shape": ({"pose_frames": torch.rand(2, 64, 128, 3)}, "another shape"),
    "landmarks of another picture": ({"portrait": torch.rand(1, 96, 64, 3)}, "of a picture of 512 x 512 pixels, but"),
    "no drawings": ({"pose_frames": torch.rand(0, 64, 64, 3)}, "pose_frames"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_sampled_is_reported(aniportrait, sample, encoders, motion, case):
    changes, words = BAD[case]
    follows = {} if case == "nothing to follow" or "pose_frames" in changes else {"motion": motion}
    with pytest.raises(TalkingPortraitError, match=words) as raised:
        animate(aniportrait, sample, encoders, **{**follows, **changes})
    assert str(raised.value).startswith("AniPortrait Sampler: ")
    assert "\n" not in str(raised.value)


WITHOUT_NETWORKS = {case: BAD[case] for case in BAD if case not in ("a text as state",)}


@pytest.mark.parametrize("case", WITHOUT_NETWORKS)
def test_nothing_is_read_before_inputs_are_checked(sample, encoders, motion, case):
    def read():
        raise AssertionError("gigabytes were read")

    unread = host.ManagedModule(read)
    aniportrait = LoadedAniPortrait(Networks(unread, unread, unread), unread, unread)
    changes, words = WITHOUT_NETWORKS[case]
    follows = {} if case == "nothing to follow" or "pose_frames" in changes else {"motion": motion}
    with pytest.raises(TalkingPortraitError, match=words):
        animate(aniportrait, sample, encoders, **{**follows, **changes})


def test_what_head_movement_needs_is_checked_before_a_network_runs(aniportrait, sample, monkeypatch):
    def run(*_: object, **__: object) -> None:
        raise AssertionError("a network ran")

    monkeypatch.setattr("talking_portrait.pipelines.aniportrait.face_motion.predict_offsets", run)
    np.save(Path(os.environ["TALKING_PORTRAIT_MODELS"]) / "talking_portrait" / "flat.npy", np.zeros(6))
    for changes, words in (
        ({"head_pose": "predicted", "style": 100}, "0 to 99"),
        ({"head_pose": "nodding"}, "is 'nodding' .str., but predicted, template, motion or still is expected"),
        ({"head_pose": "template", "template": "flat.npy"}, "a head-pose template"),
        ({"head_pose": "motion"}, "none is connected"),
        ({"fps": 0.0}, '"fps" is 0.0, but a number from 1 to 240'),
    ):
        with pytest.raises(TalkingPortraitError, match=words):
            speak(aniportrait, sample, **changes)


def test_both_audio_networks_are_named_where_both_are_missing(tmp_path, models, monkeypatch, sample):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    shutil.copytree(models / "talking_portrait", tmp_path / "talking_portrait")
    for name in AUDIO:
        (tmp_path / "talking_portrait" / FILES[name]).unlink()
    loaded = load()
    names = " .*/".join(("", FILES["audio2mesh"] + ",", FILES["audio2pose"]))
    with pytest.raises(TalkingPortraitError, match=f"The model files{names} are"):
        speak(loaded, sample, "predicted")
    for name in AUDIO:
        shutil.copy(models / "talking_portrait" / FILES[name], tmp_path / "talking_portrait" / FILES[name])
    assert speak(loaded, sample, "predicted").frames, "what came since is read"


def test_what_speech_lacks_is_reported(aniportrait, sample):
    silent = {"waveform": torch.zeros(1, 1, 0), "sample_rate": 16000}
    for changes, words in (
        ({"audio": None}, "No audio is connected"),
        ({"audio": silent}, "audio"),
        ({"head_pose": "motion"}, "none is connected"),
        ({"head_pose": "template"}, "no .npy file is chosen"),
        ({"head_pose": "template", "template": "gone.npy"}, "gone.npy is not in"),
        ({"head_pose": "predicted", "style": 100}, "0 to 99"),
    ):
        with pytest.raises(TalkingPortraitError, match=words):
            speak(aniportrait, sample, **changes)


def test_a_motion_on_the_portraits_head_needs_the_portraits_face(motion, sample):
    with pytest.raises(TalkingPortraitError, match="Draw Pose: .*the portrait's landmarks are expected"):
        NODES["DrawPose"].execute(motion, 64, 64)
    with pytest.raises(TalkingPortraitError, match="Draw Pose: The picture shows no face"):
        NODES["DrawPose"].execute(motion, 64, 64, {**sample[2], "frames": [[]]})


# --- frames between frames ---


class Blend(torch.nn.Module):
    """A network as ComfyUI's RIFE is called: it mixes two frames, and records the times of its calls."""

    pad_align = 64

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.times = []

    def extract_features(self, image):
        return image

    def forward(self, img0, img1, timestep=0.5, cache=None):
        assert img0.shape == img1.shape
        assert img0.shape[1:] == (3, 64, 64)
        assert timestep.shape == (1, 1, 64, 64)
        assert {img0.dtype, img1.dtype, timestep.dtype} == {self.weight.dtype}
        self.times.append(float(timestep.mean()))
        return img0 * (1 - timestep) + img1 * timestep


class Patcher:
    """What Load Frame Interpolation Model of ComfyUI gives: a ModelPatcher, as far as it matters here."""

    def __init__(self):
        self.model, self.load_device = Blend(), torch.device("cpu")

    def model_dtype(self):
        return self.model.weight.dtype


def test_the_core_loader_of_interpolation_networks_can_be_connected():
    """Its output's type in ComfyUI's comfy_extras/nodes_frame_interpolation.py, from 0.33 on."""
    inputs = NODES["FrameInterpolation"].GET_NODE_INFO_V1()["input"]
    assert inputs["optional"]["model"][0] == "INTERP_MODEL"


def test_frames_are_put_between_frames_in_the_published_order(monkeypatch):
    monkeypatch.setattr("talking_portrait.nodes.host.ManagedModule.load", lambda self, memory=0: torch.device("cpu"))
    frames, patcher = torch.rand(3, 40, 24, 3), Patcher()
    images, fps = NODES["FrameInterpolation"].execute(frames, 10.0, 2, patcher).args
    assert images.shape == (7, 40, 24, 3)
    assert fps == 30.0
    assert torch.equal(images[::3], frames)
    assert patcher.model.times == pytest.approx([2 / 3, 0.5] * 2)
    torch.testing.assert_close(images[1], frames[0] + (frames[1] - frames[0]) / 3)


def test_without_an_interpolation_network_a_sentence_names_its_loader():
    with pytest.raises(TalkingPortraitError, match="Frame Interpolation: No interpolation network is connected; "):
        NODES["FrameInterpolation"].execute(torch.rand(2, 8, 8, 3), 10.0, 2)
    with pytest.raises(TalkingPortraitError, match="but a frame interpolation network is expected"):
        NODES["FrameInterpolation"].execute(torch.rand(2, 8, 8, 3), 10.0, 2, "film")


# --- example workflows from the command line ---


def run(workflow: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_commands(parser.add_subparsers())
    options = parser.parse_args(["run", str(workflow), *arguments])
    return options.run(options)


def small_version(name: str, folder: Path) -> Path:
    """An example as it is, but with small frames, one step and a short piece of the sample's speech."""
    prompt = json.loads((ROOT / "example_workflows" / "api" / f"{name}.json").read_text())
    small = {"width": SIZE, "height": SIZE, "steps": 1}
    for entry in prompt.values():
        entry["inputs"] |= {key: value for key, value in small.items() if key in entry["inputs"]}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(prompt))
    return path


def made(folder: Path) -> Path:
    (path,) = folder.rglob("*.mp4")
    return path


@pytest.mark.parametrize("name", ["aniportrait_audio", "aniportrait_instant"])
def test_the_examples_that_speak_run_from_the_command_line(name, tmp_path, monkeypatch):
    monkeypatch.setattr("talking_portrait.pipelines.files.example.example_speech", short_speech)
    assert run(small_version(name, tmp_path), "--out", str(tmp_path / "out")) == 0
    frames = list(open_video(made(tmp_path / "out")).frames())
    assert len(frames) == (6 if name == "aniportrait_audio" else 5)
    assert frames[0].shape == (SIZE, SIZE, 3)


def short_speech():
    whole = example_speech()
    return replace(whole, waveform=whole.waveform[:, : round(0.2 * whole.sample_rate)])


@pytest.mark.skipif(not TASK.is_file(), reason="no face landmark model beside the repository")
def test_the_example_that_a_video_drives_runs_from_the_command_line(tmp_path, models, monkeypatch):
    (models / "detection").mkdir(exist_ok=True)
    shutil.copy(TASK, models / "detection")
    monkeypatch.setattr("talking_portrait.pipelines.files.example.example_speech", short_speech)
    workflow = small_version("aniportrait_video", tmp_path)
    assert run(workflow, "--out", str(tmp_path / "out")) == 0
    assert len(list(open_video(made(tmp_path / "out")).frames())) == 5


def test_the_example_of_a_newer_comfyui_names_what_the_command_line_lacks(tmp_path, capsys):
    assert run(small_version("aniportrait_interpolated", tmp_path), "--out", str(tmp_path / "out")) != 0
    assert "FrameInterpolationModelLoader" in capsys.readouterr().err
