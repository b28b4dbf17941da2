"""AniTalker's nodes on tiny weights in the published files' names: every variant to frames, and bad input."""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from talking_portrait.nodes import extension
from talking_portrait.nodes.standalone import command as cli
from talking_portrait.nodes.standalone import node_api as standalone
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.types import MotionLatents, SpeechFeatures

from ..tiny_weights import gfpgan
from ..tiny_weights.anitalker import SIZE, STAGE2, write_models

NODES = {node.__name__: node for node in extension.NODES}
FILES = {name: f"anitalker/{name}.ckpt" for name in STAGE2}
POSE = "stage2_pose_only_hubert"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    gfpgan.write_models(folder)
    return folder


@pytest.fixture(autouse=True)
def in_that_folder(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(models))


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    return NODES["Example"].execute().args[0]


def sound(seconds: float = 0.6) -> dict:
    audio = example_speech()
    return {"waveform": audio.waveform[None, :, : round(seconds * audio.sample_rate)], "sample_rate": audio.sample_rate}


def load(file: str = POSE):
    return NODES["LoadAniTalker"].execute("anitalker/stage1.ckpt", FILES[file]).args[0]


def encode_speech(file: str = POSE, seconds: float = 0.6, **options):
    if file.endswith("mfcc"):
        return NODES["SpeechMFCC"].execute(sound(seconds), "anitalker").args[0]
    encoder = NODES["LoadSpeechEncoder"].execute("chinese-hubert-large.bin").args[0]
    return NODES["EncodeSpeech"].execute(sound(seconds), encoder, 25.0, "paired", **options).args[0]


def move(anitalker, features, portrait, control="none", yaw=0.0, steps=4, seed=0, **options):
    numbers = (yaw, 0.0, 0.0, 0.5, 0.5)
    return (
        NODES["AniTalkerMotion"]
        .execute(anitalker, features, portrait, control, *numbers, steps, seed, **options)
        .args[0]
    )


@pytest.mark.parametrize("file", STAGE2)
def test_every_variant_runs_from_speech_to_frames(file: str, portrait: torch.Tensor) -> None:
    reports = []
    watching = standalone.Session(progress=lambda done, total, preview=None: reports.append((done, total)))
    anitalker = load(file)
    control = "numbers" if STAGE2[file].pose else "none"
    with standalone.use_session(watching):
        motion = move(anitalker, encode_speech(file), portrait, control, yaw=10)
        images, fps, _ = NODES["AniTalkerRender"].execute(anitalker, portrait, motion, 4).args
    frames = 14 if file.endswith("mfcc") else 15  # MFCC has one frame less, as published
    assert images.shape == (frames, SIZE, SIZE, 3)
    assert fps == 25.0
    assert 0 <= images.min() < images.max() <= 1
    assert (images[0] - images[-1]).abs().max() > 0.01
    assert reports[-1] == (frames, frames)


def test_a_video_drives_a_portrait(portrait: torch.Tensor) -> None:
    anitalker = load()
    frames = torch.rand(3, 40, 40, 4, generator=torch.Generator().manual_seed(0))
    node = NODES["AniTalkerMotionFromVideo"]
    motion = node.execute(anitalker, frames, 29.97, "absolute").args[0]
    images, fps, _ = NODES["AniTalkerRender"].execute(anitalker, portrait, motion).args
    assert len(images) == 3
    assert fps == pytest.approx(30000 / 1001)
    relative = node.execute(anitalker, frames, 25.0, "relative", portrait).args[0]
    assert not torch.allclose(relative.codes, motion.codes, atol=1e-3)
    with pytest.raises(TalkingPortraitError, match="no portrait is connected"):
        node.execute(anitalker, frames, 25.0, "relative")


@pytest.mark.parametrize(("timing", "warned"), [("stock", True), ("paired", False)])
def test_a_timing_that_anitalker_overrules_is_named(
    timing: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = NODES["LoadSpeechEncoder"].execute("chinese-hubert-large.bin").args[0]
    features = NODES["EncodeSpeech"].execute(sound(0.6), encoder, 25.0, timing, anitalker=load()).args[0]
    assert features.timing == "paired"
    assert any(f'the timing "{timing}" is not used' in line for line in caplog.messages) == warned


def test_layers_mixed_by_the_encoder_move_the_portrait_alike(portrait: torch.Tensor) -> None:
    anitalker = load()
    every, mixed = encode_speech(), encode_speech(anitalker=anitalker)
    assert (every.states.shape[1], mixed.states.shape[1]) == (3, 1)
    torch.testing.assert_close(
        move(anitalker, mixed, portrait).codes, move(anitalker, every, portrait).codes, atol=1e-3, rtol=1e-3
    )
    with pytest.raises(TalkingPortraitError, match="Encode Speech: The model .* takes MFCC"):
        encode_speech(anitalker=load("stage2_pose_only_mfcc"))


def test_the_head_follows_numbers_curves_and_a_motion(portrait: torch.Tensor) -> None:
    anitalker, features = load("stage2_full_control_mfcc"), encode_speech("stage2_full_control_mfcc")
    _, _, landmarks = NODES["Example"].execute().args
    driver = {"fps": 25.0, "seed": 0, "mouth": 1, "head": 1, "brows": 1, "blinks": 1, "drift": 1}
    follow = NODES["InstantDriver"].execute(audio=sound(), **driver).args[0]
    results = [
        move(anitalker, features, portrait),
        move(anitalker, features, portrait, "numbers"),
        move(anitalker, features, portrait, "numbers", yaw=30),
        move(anitalker, features, portrait, "numbers", curves="yaw 0:0 0.5:30"),
        move(anitalker, features, portrait, "face motion", motion=follow),
        move(anitalker, features, portrait, "face motion", motion=follow, landmarks=landmarks),
        move(anitalker, features, portrait, noise="published"),
    ]
    for i, one in enumerate(results):
        assert all(not torch.allclose(one.codes, other.codes, atol=1e-4) for other in results[:i])
    drawn = SimpleNamespace(interp_array=lambda places: np.full(len(places), 5 / 6))
    for same in ({"yaw": 30, "curves": "yaw 0:30"}, {"curves": "yaw 0:9", "yaw_curve": drawn}):
        constant = move(anitalker, features, portrait, "numbers", **same)
        torch.testing.assert_close(constant.codes, results[2].codes, atol=1e-5, rtol=0)


def test_steps_that_no_stride_gives_are_raised(portrait: torch.Tensor) -> None:
    anitalker, features = load(), encode_speech()
    made, next_one = (move(anitalker, features, portrait, steps=steps) for steps in (37, 38))
    torch.testing.assert_close(made.codes, next_one.codes, atol=1e-5, rtol=0)


def test_a_crop_as_in_training_goes_in_and_back(portrait: torch.Tensor) -> None:
    _, _, landmarks = NODES["Example"].execute().args
    cut, crop, _ = NODES["CropPortrait"].execute(portrait, landmarks, 256, "AniTalker", 1.0, False, False).args
    anitalker = load()
    motion = NODES["AniTalkerMotionFromVideo"].execute(anitalker, cut, 25.0, "absolute").args[0]
    images, *_ = NODES["AniTalkerRender"].execute(anitalker, cut, motion).args
    pasted = NODES["PasteBack"].execute(images, crop, 0.1).args[0]
    assert pasted.shape == portrait.shape
    changed = (pasted != portrait).any(dim=-1)
    assert 0.05 < changed.float().mean() < 1


def shortened(graph: dict, folder: Path) -> None:
    """Puts the beginning of the sample's speech in its place."""
    import soundfile

    audio = sound()
    soundfile.write(folder / "short.wav", audio["waveform"][0].T.numpy(), audio["sample_rate"])
    (sample,) = (key for key, entry in graph.items() if entry["class_type"] == "TalkingPortraitSample")
    for entry in graph.values():
        entry["inputs"].update({name: ["short", 0] for name, link in entry["inputs"].items() if link == [sample, 1]})
    graph["short"] = {"class_type": "LoadAudio", "inputs": {"audio": "short.wav"}}


EXAMPLES = sorted((Path(__file__).parents[2] / "example_workflows" / "api").glob("anitalker*.json"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_run_to_a_video(
    path: Path, portrait: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    graph = json.loads(path.read_text(encoding="utf-8"))
    shortened(graph, tmp_path)
    for entry in graph.values():
        inputs = entry["inputs"]
        if "steps" in inputs:
            inputs["steps"] = 3
        landmarks = inputs.get("landmarks")
        if landmarks and graph[landmarks[0]]["class_type"] == "TalkingPortraitDetectLandmarks":
            # The network that finds faces is no part of the repository; the film shows the sample portrait.
            inputs["landmarks"] = [next(k for k, e in graph.items() if e["class_type"] == "TalkingPortraitSample"), 2]
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    parser = argparse.ArgumentParser()
    cli.add_commands(parser.add_subparsers())
    options = parser.parse_args(["run", "graph.json"])
    assert options.run(options) == 0
    (made,) = (tmp_path / "out").rglob("*.mp4")
    film = open_video(made)
    assert film.fps == 25
    pasted = path.stem in ("anitalker", "anitalker_restored", "anitalker_video")
    assert film.size == ((512, 512) if pasted else (SIZE, SIZE))
    # 0.6 s; four rows of MFCC a frame, of which the last frame has too few
    assert len(list(film.frames())) == (len(encode_speech("mfcc").states) // 4 if "mfcc" in path.stem else 15)


def test_files_in_each_others_place_are_named_for_what_they_are() -> None:
    with pytest.raises(TalkingPortraitError, match="Load AniTalker: stage1.ckpt is AniTalker's stage 1"):
        NODES["LoadAniTalker"].execute("anitalker/stage1.ckpt", "anitalker/stage1.ckpt")
    with pytest.raises(TalkingPortraitError, match="Load AniTalker: stage2_pose_only_hubert.ckpt is an AniTalker"):
        NODES["LoadAniTalker"].execute(FILES[POSE], FILES[POSE])
    with pytest.raises(TalkingPortraitError, match="chinese-hubert-large.bin"):
        NODES["LoadAniTalker"].execute("anitalker/stage1.ckpt", "../audio_encoders/chinese-hubert-large.bin")


BAD = {
    "MFCC to HuBERT": (lambda p: move(load(), encode_speech("mfcc"), p), "takes HuBERT's 3 states of 64 channels"),
    "HuBERT to MFCC": (lambda p: move(load("stage2_pose_only_mfcc"), encode_speech(), p), "takes MFCC with 39 columns"),
    "no control": (
        lambda p: move(load("stage2_audio_only_hubert"), encode_speech("stage2_audio_only_hubert"), p, "numbers"),
        "by the voice alone, but controls were given",
    ),
    "no motion": (lambda p: move(load(), encode_speech(), p, "face motion"), "none is connected"),
    "other landmarks": (
        lambda p: move(load(), encode_speech(), p[:, ::2, ::2], landmarks=NODES["Example"].execute().args[2]),
        "of a picture of 512 x 512 pixels, but the portrait is 256 x 256",
    ),
    "no drawn curve": (
        lambda p: move(load(), encode_speech(), p, "numbers", pitch_curve={"points": [[0, 0]]}),
        "(dict), but a curve is expected; connect ComfyUI's Curve Editor.",
    ),
    "no curve": (lambda p: move(load(), encode_speech(), p, "numbers", curves="yaw fast"), "is no curve"),
    "steps": (
        lambda p: move(load(), encode_speech(), p, steps=1),
        '"steps" is 1, but a number from 2 to 1000 is expected',
    ),
    "no square": (lambda p: move(load(), encode_speech(), p[:, :300]), "512 x 300 pixels, but a square"),
    "4K": (lambda p: move(load(), encode_speech(), torch.zeros(1, 2160, 3840, 3)), "3840 x 2160 pixels, but a square"),
    "no portrait": (lambda p: move(load(), encode_speech(), p[:0]), 'The input "portrait" is'),
    "empty video": (
        lambda p: NODES["AniTalkerMotionFromVideo"].execute(load(), p[:0], 25.0, "absolute"),
        'The input "images" is',
    ),
    "no model": (lambda p: move("stage1.ckpt", encode_speech(), p), "a loaded AniTalker"),
}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_reported_by_the_node_in_a_sentence(call, words: str, portrait: torch.Tensor) -> None:
    with pytest.raises(TalkingPortraitError) as raised:
        call(portrait)
    message = str(raised.value)
    assert words in message
    assert message.startswith(("AniTalker Motion: ", "AniTalker Motion from Video: "))
    assert "\n" not in message


@pytest.mark.parametrize(
    ("stage", "file", "key"),
    [
        ("stage 1", "stage1", "lia.dec.to_rgbs.0.bias"),
        ("stage 1", "stage1", "lia.enc.fc.4.bias"),
        ("stage 2", POSE, "ema_model.out_proj.bias"),
    ],
)
def test_weights_of_nan_are_reported_with_their_stage(models: Path, portrait, stage: str, file: str, key: str) -> None:
    folder = models / "talking_portrait"
    state = torch.load(folder / "anitalker" / f"{file}.ckpt", weights_only=True)
    torch.save({**state, key: torch.full_like(state[key], torch.nan)}, folder / "broken.bin")
    names = ("broken.bin", FILES[POSE]) if file == "stage1" else ("anitalker/stage1.ckpt", "broken.bin")
    with pytest.raises(TalkingPortraitError, match=r"^Load AniTalker: broken.bin holds weights that are no numbers"):
        NODES["LoadAniTalker"].execute(*names)
    anitalker = NODES["LoadAniTalker"].execute("anitalker/stage1.ckpt", FILES[POSE]).args[0]
    network = (anitalker.stage1 if file == "stage1" else anitalker.stage2).module
    network.state_dict()[key.partition(".")[2]].fill_(torch.nan)  # as after an overflow
    with pytest.raises(
        TalkingPortraitError, match=rf"^AniTalker (Motion|Render): AniTalker's {stage} gave values that"
    ):
        NODES["AniTalkerRender"].execute(anitalker, portrait, move(anitalker, encode_speech(), portrait))


def test_missing_files_are_reported_with_the_way_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    with pytest.raises(TalkingPortraitError) as raised:
        load()
    stages = [
        tmp_path / "talking_portrait" / "anitalker" / f"{name}.ckpt" for name in ("stage1", "stage2_pose_only_hubert")
    ]
    assert str(raised.value).startswith(f"Load AniTalker: The model files {stages[0]}, {stages[1]} are missing; ")
    assert str(raised.value).count("https://huggingface.co/taocode/anitalker_ckpts") == 1


class CancelledError(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 3, 6])
def test_cancelling_stops_each_node(stop_at: int, portrait: torch.Tensor) -> None:
    anitalker, features = load(), encode_speech()
    motion = move(anitalker, features, portrait)
    calls = 0

    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise CancelledError

    runs = (
        lambda: move(anitalker, features, portrait, steps=10),
        lambda: NODES["AniTalkerRender"].execute(anitalker, portrait, motion, 2),
        lambda: NODES["AniTalkerMotionFromVideo"].execute(
            anitalker, portrait.expand(7, -1, -1, -1), 25.0, "absolute", None, 1
        ),
    )
    with standalone.use_session(standalone.Session(progress=cancel)):
        for run in runs:
            calls = 0
            with pytest.raises(CancelledError):
                run()
            assert calls == stop_at


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda codes: {"codes": codes * torch.nan}, "not numbers everywhere .* make them with AniTalker Motion"),
        (lambda codes: {"codes": codes.double()}, r"of the type float64, but a float32 tensor \(frames, numbers\)"),
        (lambda codes: {"codes": codes[:0]}, r"of the shape \(0, 20\)"),
        (lambda codes: {"codes": codes.to("meta")}, 'on the device "meta"'),
        (lambda codes: {"codes": codes.numpy()}, "of the type ndarray"),
        (lambda _: {"fps": None}, "frame rate is None, but a number from 1 to 240 is expected"),
        (lambda _: {"fps": float("nan")}, "frame rate is nan"),
    ],
)
def test_motion_latents_that_other_nodes_made_are_checked(change, words: str, portrait: torch.Tensor) -> None:
    codes = torch.zeros(2, 20)
    motion = MotionLatents(**{"codes": codes, "fps": Fraction(25), **change(codes)})
    with pytest.raises(TalkingPortraitError, match=f"^AniTalker Render: The motion latents.*{words}"):
        NODES["AniTalkerRender"].execute(load(), portrait, motion)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"states": torch.full((4, 3, 64), torch.inf)}, "not numbers everywhere .* make them with Encode Speech"),
        ({"states": torch.zeros(4, 3, 64).half()}, "of the type float16"),
        ({"states": torch.zeros(4, 64)}, r"of the shape \(4, 64\)"),
        ({"states": None}, "of the type NoneType"),
        ({"fps": Fraction(0)}, "frame rate is 0"),
        ({"padding": 5}, "5 rows of silence .* 0 to 4"),
        ({"timing": None}, "say timing None"),
        ({"mixed": (torch.nan,)}, "shares"),
    ],
)
def test_speech_features_that_other_nodes_made_are_checked(changes, words: str, portrait: torch.Tensor) -> None:
    features = SpeechFeatures(**{"states": torch.zeros(4, 3, 64), "fps": Fraction(50), "model": "m", **changes})
    with pytest.raises(TalkingPortraitError, match=f"^AniTalker Motion: The speech features.*{words}"):
        move(load(), features, portrait)


def test_lengths_of_windows_and_curves_from_links_are_checked(portrait: torch.Tensor) -> None:
    anitalker, features = load(), encode_speech()
    for seconds in (float("nan"), -1.0):
        with pytest.raises(TalkingPortraitError, match='"window_seconds" is (nan|-1.0), but a number from 0 to 600 is'):
            move(anitalker, features, portrait, window_seconds=seconds)
    with pytest.raises(TalkingPortraitError, match='"yaw_curve" is .* but a curve is expected'):
        move(anitalker, features, portrait, "numbers", yaw_curve=SimpleNamespace(interp_array=3))
    with pytest.raises(TalkingPortraitError, match=r'^AniTalker Motion: "x+ \.\.\." is no curve'):
        move(anitalker, features, portrait, "numbers", curves="x" * 5000)
