"""The VIDEO output of renderers: the frames and the sound of IMAGE and Create Video, without the frames in memory."""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from talking_portrait.nodes import host
from talking_portrait.nodes.standalone import command
from talking_portrait.nodes.standalone import node_api as standalone
from talking_portrait.nodes.standalone.core_nodes import VideoPayload
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.sound import NoSoundError, read_audio, write_wav
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.types import Audio
from talking_portrait.pipelines.workflow.run import NodeFailedError, run_graph

from ..tiny_weights.systems import write_systems

ROOT = Path(__file__).parents[2]
LOADERS: dict[str, Any] = {
    "sample": {"class_type": "TalkingPortraitSample", "inputs": {}},
    "speech": {"class_type": "LoadAudio", "inputs": {"audio": "voice.wav"}},
    "film": {"class_type": "LoadVideo", "inputs": {"file": "film.mp4"}},
    "driver": {
        "class_type": "TalkingPortraitInstantDriver",
        "inputs": {
            **dict.fromkeys(("seed", "mouth", "head", "brows", "blinks", "drift"), 1),
            "audio": ["speech", 0],
            "fps": 25,
        },
    },
    "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "sd-vae-ft-mse.safetensors"}},
    "clip": {
        "class_type": "CLIPVisionLoader",
        "inputs": {"clip_name": "sd-image-variations-image-encoder.bin"},
    },
    "aniportrait": {
        "class_type": "TalkingPortraitLoadAniPortrait",
        "inputs": {
            **{name: f"aniportrait/{name}.pth" for name in ("reference_unet", "denoising_unet", "motion_module")},
            "pose_guider": "aniportrait/pose_guider.pth",
            "audio2mesh": "aniportrait/audio2mesh.pt",
            "audio2pose": "aniportrait/audio2pose.pt",
            "dtype": "auto",
        },
    },
    "anitalker": {
        "class_type": "TalkingPortraitLoadAniTalker",
        "inputs": {"stage1": "anitalker/stage1.ckpt", "stage2": "anitalker/stage2_pose_only_mfcc.ckpt"},
    },
    "mfcc": {"class_type": "TalkingPortraitSpeechMFCC", "inputs": {"audio": ["speech", 0], "recipe": "anitalker"}},
    "codes": {
        "class_type": "TalkingPortraitAniTalkerMotion",
        "inputs": {
            **{"anitalker": ["anitalker", 0], "features": ["mfcc", 0], "portrait": ["sample", 0], "control": "none"},
            **{"yaw": 0, "pitch": 0, "roll": 0, "location": 0.5, "scale": 0.5, "steps": 2, "seed": 0},
        },
    },
    "apasco": {"class_type": "TalkingPortraitLoadAPasco", "inputs": {"net": "hallo/net.pth", "dtype": "auto"}},
    "encoder": {
        "class_type": "TalkingPortraitLoadSpeechEncoder",
        "inputs": {"file": "wav2vec2-base-960h.safetensors"},
    },
    "features": {
        "class_type": "TalkingPortraitEncodeSpeech",
        "inputs": {"audio": ["speech", 0], "encoder": ["encoder", 0], "fps": 25, "timing": "resampled"},
    },
    "masks": {
        "class_type": "TalkingPortraitRegionMasks",
        "inputs": {"landmarks": ["sample", 2], "face_ratio": 1.2, "lip_ratio": 2},
    },
    "embedding": {
        "class_type": "TalkingPortraitFaceEmbedding",
        "inputs": {
            "image": ["sample", 0],
            "detector": "insightface/scrfd_10g_bnkps.onnx",
            "recogniser": "insightface/glintr100.onnx",
            "no_face": "nobody",
        },
    },
}
SAMPLING = {"width": 64, "height": 72, "steps": 1, "cfg": 1, "seed": 1, "vae": ["vae", 0], "portrait": ["sample", 0]}
RENDERERS: dict[str, tuple[dict[str, Any], int]] = {
    "InstantRender": ({"image": ["sample", 0], "landmarks": ["sample", 2], "motion": ["driver", 0]}, 3),
    "AniTalkerRender": ({"anitalker": ["anitalker", 0], "portrait": ["sample", 0], "motion": ["codes", 0]}, 2),
    "AniPortraitSampler": (
        {
            **SAMPLING,
            **{"aniportrait": ["aniportrait", 0], "clip_vision": ["clip", 0], "scheduler": "ddim", "fps": 25},
            **{"mode": "seamless", "motion": ["driver", 0], "landmarks": ["sample", 2], "stretch": 1},
        },
        3,
    ),
    "APascoSampler": (
        {
            **SAMPLING,
            **{"apasco": ["apasco", 0], "features": ["features", 0], "embedding": ["embedding", 0]},
            **{"masks": ["masks", 0], "pose_weight": 1, "face_weight": 1, "lip_weight": 1, "clip_length": 4},
        },
        3,
    ),
}
"""Inputs of each renderer in the graph, and the number of its VIDEO output."""
DUBBED: dict[str, tuple[dict[str, Any], int]] = {
    "DubVideo": ({"video": ["film", 0], "face": "largest", "index": 0, "end": "back and forth", "jaw": 1.0}, 3)
}
"""The same of what takes film.mp4, which its test writes."""
FILM_MB = 0.5
"""For each second of a film and of its speech: where the face is, and the motion."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_systems(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def surroundings(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models, a temporary folder of its own, and voice.wav: half a second in stereo."""
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(models))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    noise = 0.1 * torch.randn(2, 12000, generator=torch.Generator().manual_seed(0))
    write_wav(tmp_path / "voice.wav", Audio(noise, 24000))


def graph(renderer: str, *outputs: str, **changes: Any) -> dict[str, Any]:
    """A renderer with `outputs` connected: "video" to Save Video, "images" to Create Video and Save Video."""
    inputs, video = (RENDERERS | DUBBED)[renderer]
    prompt = dict(LOADERS)
    inputs = {**inputs, "audio": ["speech", 0], **changes}
    prompt["render"] = {"class_type": f"TalkingPortrait{renderer}", "inputs": inputs}
    saved = {"format": "auto", "codec": "auto"}
    if "video" in outputs:
        inputs = {**saved, "video": ["render", video], "filename_prefix": "streamed"}
        prompt["save"] = {"class_type": "SaveVideo", "inputs": inputs}
    if "images" in outputs:
        inputs = {"images": ["render", 0], "audio": ["speech", 0], "fps": 25}
        prompt["create"] = {"class_type": "CreateVideo", "inputs": inputs}
        inputs = {**saved, "video": ["create", 0], "filename_prefix": "created"}
        prompt["save images"] = {"class_type": "SaveVideo", "inputs": inputs}
    return prompt


def run(prompt: dict[str, Any], folder: Path, progress: Any = None) -> list[Path]:
    session = standalone.Session(input_folder=folder, output_folder=folder / "out")
    if progress:
        session = standalone.Session(progress=progress, input_folder=folder, output_folder=folder / "out")
    with standalone.use_session(session):
        run_graph(prompt, command.registry())
    return sorted((folder / "out").glob("*.mp4"))


def frames_of(path: Path) -> np.ndarray:
    return np.stack(list(open_video(path).frames())).astype(np.float32)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_video_alone_gives_the_frames_and_the_sound_of_both(renderer, tmp_path, monkeypatch):
    made = []
    wrapped = standalone.NodeOutput.__init__

    def reports(self: Any, *args: Any, **options: Any) -> None:
        wrapped(self, *args, **options)
        made.append(args)

    monkeypatch.setattr(standalone.NodeOutput, "__init__", reports)
    (alone,) = run(graph(renderer, "video"), tmp_path)
    alone = alone.rename(tmp_path / "alone.mp4")
    number = RENDERERS[renderer][1]
    (outputs,) = [args for args in made if len(args) == number + 1 and isinstance(args[number], VideoPayload)]
    assert outputs[0] is None, "no frames were kept"
    made.clear()
    created, streamed = run(graph(renderer, "video", "images"), tmp_path)
    del outputs, made[:]
    expected = frames_of(created)
    assert len(expected) == (12 if renderer == "AniTalkerRender" else 13), "whole frames of features, for AniTalker"
    for path in (alone, streamed):
        assert len(frames_of(path)) == len(expected)
        assert np.abs(frames_of(path) - expected).mean() < 0.5
        assert 0 <= float(read_audio(path).seconds - read_audio(created).seconds) < 0.05
        assert read_audio(path).waveform.shape[0] == 2
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == [], "temporary files go with their videos"


def test_without_audio_the_video_is_silent(tmp_path):
    prompt = graph("InstantRender", "video")
    del prompt["render"]["inputs"]["audio"]
    (path,) = run(prompt, tmp_path)
    with pytest.raises(NoSoundError):
        read_audio(path)


def test_sound_goes_on_where_a_continued_sampler_does(tmp_path):
    """Half a second is silent at first and loud then: the second sampler begins in the loud part."""
    wave = 0.3 * torch.randn(1, 24000).sign()
    wave[:, :7680] = 0  # 8 frames of 25 a second
    write_wav(tmp_path / "voice.wav", Audio(wave, 24000))
    prompt = graph("APascoSampler", "video", frames=8)
    again = {**prompt["render"]["inputs"], "frames": 0, "previous": ["render", 2]}
    prompt["again"] = {"class_type": "TalkingPortraitAPascoSampler", "inputs": again}
    inputs = {**prompt["save"]["inputs"], "video": ["again", 3], "filename_prefix": "then"}
    prompt["save again"] = {"class_type": "SaveVideo", "inputs": inputs}
    first, second = run(prompt, tmp_path)
    assert [len(frames_of(path)) for path in (first, second)] == [8, 17]
    loud = [float(read_audio(path).waveform[:, 2400:-2400].abs().mean()) for path in (first, second)]
    assert loud[0] < 0.02 < 0.1 < loud[1]


@pytest.mark.parametrize("renderer", RENDERERS)
def test_cancelling_leaves_no_file(renderer, tmp_path):
    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if total > 12 and done > 0.8 * total:  # not in the driver or a loader, whose totals are smaller or done before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(graph(renderer, "video"), tmp_path, cancel)
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_an_odd_picture_is_encoded_in_both_ways(tmp_path):
    """Sides grow by one repeated row or column, as H.264 needs even ones."""
    prompt = graph("InstantRender", "video")
    crop = {"images": ["sample", 0], "landmarks": ["sample", 2], "size": 133, "framing": "head", "scale": 1}
    prompt["crop"] = {
        "class_type": "TalkingPortraitCropPortrait",
        "inputs": {**crop, "upright": False, "follow": False},
    }
    prompt["render"]["inputs"] |= {"image": ["crop", 0], "landmarks": ["crop", 2]}
    (path,) = run(prompt, tmp_path)
    assert open_video(path).size == (134, 134)
    prompt |= {name: entry for name, entry in graph("InstantRender", "images").items() if name not in prompt}
    assert [open_video(path).size for path in run(prompt, tmp_path)] == [(134, 134)] * 3


def test_a_disk_that_is_full_is_reported(tmp_path, monkeypatch):
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(NodeFailedError, match="can't be written .No space left on device.; free some space"):
        run(graph("InstantRender", "video"), tmp_path)
    assert not (tmp_path / "out").exists()


def linked(prompt: dict[str, Any] | None, own_id: str = "render", outputs: tuple[int, ...] = (0, 1)) -> bool | None:
    return host.are_linked(SimpleNamespace(hidden=SimpleNamespace(prompt=prompt, unique_id=own_id)), outputs)


def test_links_of_outputs_are_found_in_the_prompt():
    assert linked(graph("InstantRender", "video")) is False
    assert linked(graph("InstantRender", "video", "images")) is True
    assert linked(graph("InstantRender", "video"), outputs=(3,)) is True
    masked = graph("InstantRender", "video")
    masked["show"] = {
        "class_type": "MaskPreview",
        "inputs": {"mask": ["render", 1], "numbers": [0, 1], "name": "render"},
    }
    assert linked(masked) is True
    assert linked(masked, outputs=(2,)) is False
    assert linked(graph("InstantRender", "video"), own_id="12.0.0.3") is True, "a node that another one put there"
    assert linked(None) is None
    assert linked({}) is None


def test_comfyui_is_asked_for_the_prompt_before_a_node_runs(monkeypatch):
    """`fingerprint_inputs` gets no prompt, but decides whether results of an earlier run serve."""
    node = command.registry()["TalkingPortraitInstantRender"].with_hidden(prompt={}, unique_id="render")
    assert math.isnan(node.fingerprint_inputs()), "not known: the node runs again"
    server: Any = ModuleType("server")
    running: dict[int, Any] = {}
    server.PromptServer = SimpleNamespace(
        instance=SimpleNamespace(prompt_queue=SimpleNamespace(currently_running=running))
    )
    utils: Any = ModuleType("comfy_execution.utils")
    utils.get_executing_context = lambda: None
    monkeypatch.setitem(sys.modules, "server", server)
    monkeypatch.setitem(sys.modules, "comfy_execution", ModuleType("comfy_execution"))
    monkeypatch.setitem(sys.modules, "comfy_execution.utils", utils)
    monkeypatch.setattr(host, "IN_COMFYUI", True)
    assert math.isnan(node.fingerprint_inputs())
    for outputs, keeps in ((("video",), False), (("video", "images"), True), (("images",), True), ((), True)):
        running[0] = (0, "id", graph("InstantRender", *outputs), {})
        assert node.fingerprint_inputs(batch_size=8) is keeps
        reports = node.with_hidden(prompt=running[0][2], unique_id="render")
        assert reports.keeps_frames() is keeps, "the run decides as the fingerprint does"
    older = node.with_hidden(prompt=None, unique_id=None)
    assert math.isnan(older.fingerprint_inputs())
    utils.get_executing_context = lambda: SimpleNamespace(node_id="render")
    running[0] = (0, "id", graph("InstantRender", "video"), {})
    assert older.fingerprint_inputs() is False, "versions that give it no id either say which node is at work"
    running[1] = running[0]
    assert math.isnan(node.fingerprint_inputs()), "which of two prompts it is in is not known"
    assert node.keeps_frames() is True


def test_a_node_that_is_called_by_itself_gives_both(tmp_path):
    registry = command.registry()
    picture, sound, landmarks = registry["TalkingPortraitSample"].execute().args
    motion = (
        registry["TalkingPortraitInstantDriver"]
        .execute({**sound, "waveform": sound["waveform"][..., :1600]}, 10, 1, 1.0, 0.0, 0.0, 0.0, 0.0)
        .args[0]
    )
    images, mask, fps, video = registry["TalkingPortraitInstantRender"].execute(picture, landmarks, motion).args
    assert images.shape == (1, 512, 512, 3)
    assert mask.shape == (1, 512, 512)
    assert fps == 10
    components = video.components()
    assert components[0] is images
    assert components[1:] == (None, 10)
    with pytest.raises(TalkingPortraitError, match="Instant Render: .*audio"):
        registry["TalkingPortraitInstantRender"].execute(picture, landmarks, motion, audio="x")


def test_the_video_can_be_taken_apart(tmp_path):
    prompt = graph("InstantRender")
    prompt["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["render", 3]}}
    save = {"images": ["parts", 0], "filename_prefix": "frame"}
    prompt["save"] = {"class_type": "SaveImage", "inputs": save}
    run(json.loads(json.dumps(prompt)), tmp_path)
    assert len(list((tmp_path / "out").glob("frame_*.png"))) == 13


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux's /proc")
@pytest.mark.parametrize("renderer", [*RENDERERS, *DUBBED])
def test_a_long_video_takes_no_more_memory_than_a_short_one(renderer, models, tmp_path):
    """What the node adds to what is there when it begins, and all of it, inputs included, for 100 seconds and for 10.

    The C library gives back what is freed; else it keeps some, the more the larger the pieces were.
    """
    (tmp_path / "models").symlink_to(models)
    script = [sys.executable, "-m", "tests.nodes.streamed_memory", renderer]
    given_back = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    (short_begins, short_peak), (begins, peak) = (
        map(
            int,
            subprocess.check_output(
                [*script, str(seconds), str(tmp_path)], cwd=ROOT, text=True, env={**os.environ, **given_back}
            ).split(),
        )
        for seconds in (10, 100)
    )
    more = 0.05 * short_peak + (90 * FILM_MB if renderer in DUBBED else 0)
    assert peak - begins <= short_peak - short_begins + more
    assert peak <= short_peak + more
