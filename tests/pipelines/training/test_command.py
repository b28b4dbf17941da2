"""`talking_portrait train`, from files on the disk to files on the disk, with networks small enough for a CPU."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import talking_portrait.__main__ as command_line
import torch
from safetensors.torch import load_file
from talking_portrait.__main__ import main
from talking_portrait.models.apasco.loading import load_net
from talking_portrait.pipelines.commands import train as train_command
from talking_portrait.pipelines.commands.shared.weight_options import find_weights
from talking_portrait.pipelines.training.aniportrait.command import Stage1
from talking_portrait.pipelines.training.data.clips import read_clips

from . import training_bench as bench


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench.make_work(tmp_path_factory.mktemp("work"))


def train(work: Path, name: str, *options: str, out: str = "", data: str = "data", plan: Sequence[str] = ()) -> int:
    plan = plan or ("--steps", "1", "--batch", "2", "--precision", "fp32", "--workers", "0", "--picture-every", "0")
    return main(["train", name, "--data", str(work / data), "--out", str(work / (out or name)), *options, *plan])


def encoders(work: Path) -> list[str]:
    return ["--vae", str(work / "vae.safetensors"), "--clip-vision", str(work / "clip.safetensors")]


def test_aniportraits_stages_follow_each_other(work: Path, capsys: pytest.CaptureFixture) -> None:
    unet = ["--unet", str(work / "unet.safetensors"), "--pose-guider", str(work / "guider.safetensors")]
    assert train(work, "aniportrait-stage1", *unet, *encoders(work)) == 0
    written = capsys.readouterr().out
    for name in ("reference_unet", "denoising_unet", "pose_guider"):
        assert str(work / "aniportrait-stage1" / f"{name}.safetensors") in written
    stage1 = ["--stage1", str(work / "aniportrait-stage1"), "--frames", "4"]
    assert train(work, "aniportrait-stage2", *stage1, *encoders(work), "--recompute") == 0
    motion = work / "aniportrait-stage2" / "motion_module.safetensors"
    assert all(".motion_modules." in name for name in load_file(motion))
    again = [*stage1, "--motion-module", str(motion), *encoders(work)]
    assert train(work, "aniportrait-stage2", *again, out="again") == 0


@pytest.mark.parametrize(
    ("given", "card", "precision"),
    [
        ([], False, "fp32"),
        ([], True, "fp16"),
        (["--precision", "fp16"], False, "fp16"),
        (["--precision", "bf16"], True, "bf16"),
    ],
)
def test_half_precision_is_for_graphics_cards_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: list[str], card: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: card)
    line = [
        "train",
        "aniportrait-stage1",
        "--data",
        "d",
        "--out",
        "o",
        "--unet",
        "u",
        "--vae",
        "v",
        "--clip-vision",
        "c",
    ]
    options = command_line._parser("train").parse_args([*line, *given])
    assert train_command._plan(options, Stage1.defaults).precision == precision


@pytest.mark.parametrize("name", ["audio2mesh", "audio2pose"])
def test_audio_networks_start_from_an_encoder_or_from_their_own_weights(work: Path, name: str) -> None:
    begin = ["--speech-encoder", str(work / "speech_encoder.safetensors"), "--frames", "30"]
    assert train(work, name, *begin) == 0
    result = work / name / f"{name}.safetensors"
    assert any(key.endswith("conv.weight_g") for key in load_file(result))
    assert train(work, name, "--start", str(result), "--frames", "30", out=f"{name}-on") == 0


@pytest.mark.slow
def test_apascos_stages_follow_each_other(work: Path) -> None:
    unet = ["--unet", str(work / "unet.safetensors"), "--vae", str(work / "vae.safetensors")]
    assert train(work, "apasco-stage1", *unet, data="data25") == 0
    rest = ["--vae", str(work / "vae.safetensors"), "--frames", "4"]
    begin = ["--stage1", str(work / "apasco-stage1"), "--geometry", "--learnt-weights"]
    assert train(work, "apasco-stage2", *begin, *rest, data="data25") == 0
    net = work / "apasco-stage2" / "net.safetensors"
    networks = load_net(net)
    assert networks.mesh_encoder is not None
    assert train(work, "apasco-stage2", "--net", str(net), *rest, data="data25", out="net-on") == 0


def test_resume_continues_a_run(work: Path, capsys: pytest.CaptureFixture) -> None:
    begin = ["--speech-encoder", str(work / "speech_encoder.safetensors"), "--frames", "30"]
    plan = ["--batch", "2", "--workers", "0"]
    assert train(work, "audio2mesh", *begin, out="mesh", plan=["--steps", "2", *plan]) == 0
    assert train(work, "audio2mesh", *begin, out="mesh", plan=["--steps", "4", *plan]) == 2
    assert "go on with it by --resume" in capsys.readouterr().err
    assert train(work, "audio2mesh", *begin, "--resume", out="mesh", plan=["--steps", "4", *plan]) == 0
    assert [line["step"] for line in bench.read_log(work / "mesh")] == [1, 2, 3, 4]


def test_bad_input_is_reported_in_a_sentence(work: Path, capsys: pytest.CaptureFixture) -> None:
    speech_encoder = str(work / "speech_encoder.safetensors")
    unet = ["--unet", str(work / "unet.safetensors"), "--vae", str(work / "vae.safetensors")]
    for name, options, data, words in (
        ("audio2mesh", ["--speech-encoder", speech_encoder], "nowhere", "holds no prepared clips"),
        (
            "audio2mesh",
            ["--speech-encoder", speech_encoder],
            "data25",
            "25 frames a second, but this network works at 30",
        ),
        ("audio2mesh", ["--speech-encoder", speech_encoder], "data", "None of the 1 clips has the 150 frames"),
        ("audio2pose", ["--start", speech_encoder, "--frames", "30"], "data", "AniPortrait's audio2pose is expected"),
        ("aniportrait-stage1", [*unet[:2], *encoders(work), "--unconditional", "nan"], "data", "a share from 0 to 1"),
        (
            "aniportrait-stage1",
            ["--unet", speech_encoder, *encoders(work)],
            "data",
            "an SD 1.5 UNet in diffusers' spelling",
        ),
        ("aniportrait-stage2", ["--stage1", str(work), *encoders(work)], "data", "holds no reference_unet"),
        ("apasco-stage1", unet, "data", "run prepare again with --face-detector"),
        (
            "apasco-stage2",
            ["--net", speech_encoder, *unet[2:], "--frames", "4"],
            "data25",
            "net.pth of Hallo or APasco",
        ),
    ):
        assert train(work, name, *options, data=data, out="bad") == 2, name
        stderr = capsys.readouterr().err.strip()
        assert words in stderr
        assert "\n" not in stderr
        assert not (work / "bad").exists()
    assert train(work, "audio2mesh", "--speech-encoder", speech_encoder, "--frames", "30", out="unet.safetensors") == 2
    assert "is a file, but a folder" in capsys.readouterr().err


def test_speech_features_of_folders_prepared_earlier_are_still_read(work: Path, tmp_path: Path) -> None:
    from talking_portrait.models.speech.loading import load_speech_encoder
    from talking_portrait.pipelines.training.data.clip_features import add_speech_features

    shutil.copytree(work / "data25", tmp_path / "data25")
    (clip,) = read_clips(tmp_path / "data25")
    former = (clip.folder / "speech_features.npy").rename(clip.folder / "heard.npy")
    assert clip.has("speech_features")
    np.testing.assert_array_equal(clip.array("speech_features"), np.load(former))
    assert add_speech_features([clip], load_speech_encoder(work / "speech_encoder.safetensors")) == 0
    assert not (clip.folder / "speech_features.npy").exists()
    np.save(clip.folder / "speech_features.npy", np.ones(3))
    assert clip.array("speech_features").shape == (3,)


def test_prepare_adds_what_apasco_needs(work: Path, tmp_path: Path) -> None:
    from talking_portrait.models.speech.loading import load_speech_encoder
    from talking_portrait.pipelines.face.identity import FoundFace
    from talking_portrait.pipelines.training.data.clip_features import add_identity, add_speech_features

    class Recogniser:
        def __init__(self) -> None:
            self.calls = 0

        def faces(self, picture: torch.Tensor) -> list[FoundFace]:
            self.calls += 1
            boxes = [np.array([0, 0, 4, 4]), np.array([0, 0, 9, 9])]
            found = [FoundFace(box, np.full(512, box[2], np.float32)) for box in boxes]
            return found if self.calls > 2 else []

    shutil.copytree(work / "data", tmp_path / "data")
    clips = read_clips(tmp_path / "data")
    assert add_speech_features(clips, load_speech_encoder(work / "speech_encoder.safetensors")) == 0
    assert clips[0].array("speech_features").shape == (70, 1, 32)
    recogniser = Recogniser()
    assert add_identity(clips, recogniser) == 0  # type: ignore[arg-type]
    assert (clips[0].array("identity") == 9).all()
    assert recogniser.calls == 3
    assert add_identity(clips, recogniser) == 0  # type: ignore[arg-type]
    assert recogniser.calls == 3


@pytest.mark.parametrize("options", [["--speech-encoder"], ["--face-detector", "--face-recogniser"]])
def test_files_of_something_else_are_named_before_videos_are_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.onnx").write_text("<html>")
    given = [part for name in options for part in (name, "words.onnx")]
    assert main(["prepare", "no.mp4", "--out", "out", *given]) == 2
    assert "words.onnx is" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["words.onnx"]


def test_missing_weights_are_named_at_once_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path / "models"))
    out, own = tmp_path / "out", tmp_path / "own.bin"
    files = ["--face-detector", "scrfd_10g_bnkps.onnx", "--face-recogniser", "glintr100.onnx"]
    assert main(["prepare", "no.mp4", "--out", str(out), "--speech-encoder", str(own), *files]) == 2
    said = capsys.readouterr().err
    insightface = tmp_path / "models" / "talking_portrait" / "insightface"
    assert (
        f"files {own}, {insightface / 'scrfd_10g_bnkps.onnx'}, {insightface / 'glintr100.onnx'} are missing; " in said
    )
    assert said.endswith("models get apasco\n")
    assert not out.exists()
    assert train(tmp_path, "apasco-stage1", "--unet", "my-unet.ckpt", "--vae", "sd-vae-ft-mse.safetensors") == 2
    said = capsys.readouterr().err
    assert f"files my-unet.ckpt, {tmp_path / 'models/vae/sd-vae-ft-mse.safetensors'} are missing; " in said
    assert "models get sd15_unet, then: " in said
    own = tmp_path / "made"
    assert train(tmp_path, "apasco-stage2", "--stage1", str(own), "--vae", "sd-vae-ft-mse.safetensors") == 2
    said = capsys.readouterr().err
    assert "sd-vae-ft-mse.safetensors is missing; " in said
    assert said.endswith(f"; and there is no {own} for --stage1; check names and folders.\n")
    files = ["--face-model", str(own), "--parser", f"{own}.pth", "--landmarks", "face_landmarker.task"]
    assert main(["person", "prepare", "no.mp4", "--out", str(out), *files]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'models/detection/face_landmarker.task'} is missing; " in said
    assert f"there is no {own} for --face-model, no {own}.pth for --parser; " in said
    assert train(tmp_path, "audio2mesh", "--start", str(own)) == 2
    assert capsys.readouterr().err == f"error: There is no {own} for --start; check names and folders.\n"


def test_weights_are_found_in_their_model_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    places = {"vae": "vae/mine.pt", "face_detector": "talking_portrait/insightface/scrfd_10g_bnkps.onnx"}
    for place in places.values():
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    (tmp_path / "here.pt").touch()
    here = {"unet": Path("here.pt"), "lpips": "", "speech_encoder": None}
    options = Namespace(vae=Path("mine.pt"), face_detector=Path("scrfd_10g_bnkps.onnx"), **here)
    find_weights(options)
    assert vars(options) == {**here, **{name: tmp_path / place for name, place in places.items()}}
    options = Namespace(lpips="mine.pt")
    (tmp_path / "talking_portrait" / "mine.pt").touch()
    find_weights(options)
    assert options.lpips == str(tmp_path / "talking_portrait" / "mine.pt"), "of the option's own type"
