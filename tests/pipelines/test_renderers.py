"""Every system from its files, as `animate --renderer` runs it: tiny weights, real files in, real files out."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import talking_portrait as tp
import torch
from talking_portrait.__main__ import main
from talking_portrait.pipelines import renderers
from talking_portrait.pipelines.commands.shared.progress_bar import ProgressBar
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.motion_file import load_motion
from talking_portrait.pipelines.files.sound import read_audio, write_wav
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.types import Audio, no_progress

from ..tiny_weights.systems import write_systems

FAST = {
    "instant": {"size": "96"},
    "aniportrait": {"size": "64", "steps": "1", "cfg": "1"},
    "anitalker": {"steps": "2"},
    "apasco": {"size": "64", "steps": "1", "cfg": "1"},
}
SIZES = {"instant": 96, "aniportrait": 64, "anitalker": 32, "apasco": 64}
RATES = {"instant": 25, "aniportrait": 30, "anitalker": 25, "apasco": 25}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_systems(tmp_path_factory.mktemp("models"))


def voice(path: Path, seconds: float) -> Path:
    samples = round(16000 * seconds)
    write_wav(path, Audio(0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0)), 16000))
    return path


def command(renderer: str, models: Path, sound: Path, out: Path, **options: str) -> list[str]:
    given = {"renderer": renderer, "audio": str(sound), "out": str(out), **FAST[renderer], **options}
    if renderer != "instant":
        given["models"] = str(models)
    return ["animate", *(part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value))]


@pytest.mark.parametrize("renderer", renderers.RENDERERS)
@pytest.mark.parametrize("seconds", [1.01])
def test_frames_cover_the_sound_and_the_sound_is_there(renderer, seconds, models, tmp_path, capsys):
    sound, out = voice(tmp_path / "voice.wav", seconds), tmp_path / "out.mp4"
    assert main(command(renderer, models, sound, out)) == 0
    video, rate = open_video(out), RATES[renderer]
    frames = -(-Fraction(str(seconds)) * rate // 1)
    assert (video.size, video.fps) == ((SIZES[renderer],) * 2, rate)
    assert len(list(video.frames())) == frames
    assert f"{frames} frames at {rate} fps" in capsys.readouterr().out
    assert 0 <= float(read_audio(out).seconds) - seconds < 0.1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "voice.wav"]


@pytest.mark.parametrize("renderer", renderers.RENDERERS)
def test_an_interruption_in_the_middle_leaves_nothing(renderer, models, tmp_path, monkeypatch):
    sound = voice(tmp_path / "voice.wav", 0.8)
    calls = []

    def interrupt(self: ProgressBar, done: int, total: int, preview: torch.Tensor | None = None) -> None:
        calls.append(done)
        if self._label == "rendering" and done >= 0.8 * total:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "__call__", interrupt)
    assert main(command(renderer, models, sound, tmp_path / "out.mp4")) == 130
    assert calls
    assert [path.name for path in tmp_path.iterdir()] == ["voice.wav"]


@pytest.mark.parametrize("renderer", renderers.WITH_FILES)
def test_all_missing_files_are_reported_at_once(renderer, tmp_path, models, capsys):
    sound = voice(tmp_path / "voice.wav", 0.2)
    empty = tmp_path / "nothing"
    assert main(command(renderer, empty, sound, tmp_path / "out.mp4")) == 2
    said = capsys.readouterr().err
    files = renderers.renderer_module(renderer).FILES
    assert said.count(str(empty)) == len(files) + 1, "each file, and the folder in the command"
    assert f'models get {renderer} --models "{empty}"' in said
    assert said.count("\n") == 1
    name = next(iter(files)).replace("_", "-")
    assert main([*command(renderer, models, sound, tmp_path / "out.mp4"), f"--{name}", "none.pth"]) == 2
    assert f"The file none.pth for --{name}" in capsys.readouterr().err


def test_a_file_can_be_named_by_its_path_or_in_its_folder(models, tmp_path):
    sound = voice(tmp_path / "voice.wav", 0.2)
    for stage2 in ("anitalker/stage2_pose_only_mfcc.ckpt", "anitalker/stage2_audio_only_hubert.ckpt"):
        path = str(models / "talking_portrait" / stage2)
        for named in (stage2, path):
            assert main([*command("anitalker", models, sound, tmp_path / "out.mp4"), "--stage2", named]) == 0


def test_a_model_that_takes_mfcc_needs_no_speech_encoder(models, tmp_path, capsys):
    own = tmp_path / "models"
    own.mkdir()
    (own / "talking_portrait").symlink_to(models / "talking_portrait")
    sound = voice(tmp_path / "voice.wav", 0.2)
    started = [*command("anitalker", own, sound, tmp_path / "out.mp4"), "--stage2"]
    assert main([*started, "anitalker/stage2_full_control_mfcc.ckpt"]) == 0
    assert main([*started, "anitalker/stage2_full_control_hubert.ckpt"]) == 2
    said = capsys.readouterr().err
    assert f"The model file {own / 'audio_encoders' / 'chinese-hubert-large.bin'} is missing" in said
    assert f'models get chinese_hubert_large --models "{own}"' in said


def test_a_saved_motion_moves_aniportrait_without_its_audio_networks(models, tmp_path, capsys):
    sound, kept = voice(tmp_path / "voice.wav", 0.4), tmp_path / "m.npz"
    assert main(["motion", "--audio", str(sound), "--out", str(kept), "--fps", "10"]) == 0
    own = tmp_path / "models"
    for file in models.rglob("*.*"):
        if "audio2" not in file.name:
            link = own / file.relative_to(models)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    out, again = tmp_path / "out.mp4", tmp_path / "again.npz"
    moved = command("aniportrait", own, sound, out, motion=str(kept), save_motion=str(again))
    assert main(moved) == 0
    video = open_video(out)
    assert (video.fps, len(list(video.frames()))) == (10, 4)
    assert load_motion(again).frames == 4
    capsys.readouterr()
    for renderer in ("anitalker", "apasco"):
        assert main(command(renderer, models, sound, out, motion=str(kept))) == 2
        assert "moves the face by the speech alone" in capsys.readouterr().err
        assert main(command(renderer, models, sound, out, save_motion=str(again))) == 2
        assert "makes no face motion" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("renderer", "options", "words"),
    [
        ("instant", ["--steps", "3"], "--steps was given, which instant does not take"),
        ("instant", ["--vae", "x", "--cfg", "2"], "--cfg, --vae were given, which instant does not take"),
        ("aniportrait", ["--mouth", "2"], "mouth was given, but the renderer aniportrait takes framing, size, fps"),
        ("anitalker", ["--fps", "30"], "fps was given, but the renderer anitalker takes framing, steps, seed, batch"),
        ("aniportrait", ["--scheduler", "euler"], "The scheduler is 'euler', but one of ddim"),
        ("apasco", ["--framing", "all"], "The framing is 'all', but one of none"),
        ("apasco", ["--size", "8"], "The size is 8 pixels"),
        ("apasco", ["--steps", "0"], "Sampling in 0 steps"),
        ("apasco", ["--guide-from", "0.8", "--guide-to", "0.2"], "Guidance of 1.0 from 0.8 to 0.2 of the steps"),
        ("aniportrait", ["--window", "99"], "The window is 99 frames"),
        ("aniportrait", ["--dtype", "float16"], "float16, which a CPU cannot compute well"),
    ],
)
def test_what_a_renderer_cannot_do_is_reported(renderer, options, words, models, tmp_path, capsys):
    sound = voice(tmp_path / "voice.wav", 0.2)
    assert main([*command(renderer, models, sound, tmp_path / "out.mp4"), *options, "--device", "cpu"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("renderer", "kept"), [("aniportrait", {"mode": "seamless", "window": 16}), ("apasco", {"clip": 16})]
)
def test_what_makes_diffusion_faster_is_passed_on(renderer, kept, models, tmp_path, monkeypatch, capsys):
    found = []

    def taken(*inputs, **options):
        found.extend(value for value in inputs if hasattr(value, "deep_every"))
        raise TalkingPortraitError("seen")

    monkeypatch.setattr(renderers.renderer_module(renderer), "animate", taken)
    sound = voice(tmp_path / "voice.wav", 0.2)
    line = command(renderer, models, sound, tmp_path / "out.mp4")
    for options in ([], ["--guide-from", "0.1", "--guide-to", "0.5", "--deep-every", "2", "--compiled"]):
        assert main([*line, *options]) == 2
        assert "seen" in capsys.readouterr().err
    published, fast = found
    assert (published.guided, published.deep_every, published.compiled) == ((0.0, 1.0), 1, False)
    assert fast == replace(published, guided=(0.1, 0.5), deep_every=2, compiled=True, **kept)


@pytest.mark.parametrize("renderer", ["aniportrait", "apasco"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guide_from": 0.8, "guide_to": 0.2}, "from 0.8 to 0.2 of the steps"),
        ({"deep_every": 0}, "deep_every is 0"),
        ({"steps": 0}, "0 steps"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_a_file_is_read(renderer, options, said, models, tmp_path):
    for file in models.rglob("*.*"):
        empty = tmp_path / file.relative_to(models)
        empty.parent.mkdir(parents=True, exist_ok=True)
        empty.touch()
    picture, track = example_portrait()
    chosen = renderers.Renderer(renderer, options, folders=lambda name: [tmp_path / name])
    with pytest.raises(TalkingPortraitError, match=said):
        chosen.speech_video(
            picture,
            track,
            Audio(0.1 * torch.randn(1, 3200), 16000),
            None,
            device=torch.device("cpu"),
            stage=lambda label, unit: no_progress,
        )


@pytest.mark.parametrize("renderer", ["aniportrait", "apasco"])
def test_a_whole_picture_keeps_its_shape(renderer, models, tmp_path):
    picture, track = example_portrait()
    chosen = renderers.Renderer(
        renderer, {"framing": "none", "size": 96, "steps": 1, "cfg": 1.0}, folders=lambda name: [models / name]
    )
    wide = torch.cat([picture, picture[:, :128]], dim=1)
    speech = Audio(0.1 * torch.randn(1, 3200), 16000)
    video = chosen.speech_video(
        wide,
        replace(track, image_size=(512, 640)),
        speech,
        None,
        device=torch.device("cpu"),
        stage=lambda label, unit: no_progress,
    )
    assert next(video.frames).shape[1:] == (80, 96, 3)


@pytest.mark.parametrize("renderer", renderers.WITH_FILES)
def test_the_python_api_names_the_same_renderers(renderer, models, tmp_path):
    fast = {name: float(value) if name == "cfg" else int(value) for name, value in FAST[renderer].items()}
    side = fast.pop("size", None)
    reports = []
    out = tp.animate(
        example_portrait()[0],
        Audio(0.1 * torch.randn(2, 8820), 44100),
        tmp_path / "out.mp4",
        renderer=renderer,
        longest_side=side,
        models=models,
        progress=lambda done, total, preview=None: reports.append((done, total)),
        **fast,
    )
    assert len(list(open_video(out).frames())) == RATES[renderer] / 5
    assert reports[-1][0] == reports[-1][1]
    with pytest.raises(TalkingPortraitError, match="mouth was given, but the renderer"):
        tp.animate(example_portrait()[0], out, tmp_path / "x.mp4", renderer=renderer, models=models, mouth=1)
    with pytest.raises(TalkingPortraitError, match="The steps is '2', but a whole number is expected"):
        tp.animate(example_portrait()[0], out, tmp_path / "x.mp4", renderer=renderer, models=models, steps="2")
    if renderer != "anitalker":
        with pytest.raises(TalkingPortraitError, match="The compiled is 1, but true or false is expected"):
            tp.animate(example_portrait()[0], out, tmp_path / "x.mp4", renderer=renderer, models=models, compiled=1)
    with pytest.raises(TalkingPortraitError, match="The renderer is 'none'"):
        tp.animate(example_portrait()[0], out, tmp_path / "x.mp4", renderer="none")


class Held:
    """Counts the batches that are in memory, by what becomes of them once a renderer has yielded them."""

    def __init__(self, batches: Iterator[torch.Tensor]) -> None:
        self.batches = batches
        self.alive: list[weakref.ref[torch.Tensor]] = []
        self.most = self.frames = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in self.batches:
            self.alive.append(weakref.ref(batch))
            self.frames += len(batch)
            self.most = max(self.most, sum(len(one) for ref in self.alive if (one := ref()) is not None))
            yield batch
            del batch
            gc.collect()


@pytest.mark.parametrize(
    ("renderer", "window", "seconds"), [("aniportrait", 8, 0.5), ("anitalker", 16, 1), ("apasco", 32, 2)]
)
def test_no_more_than_a_window_of_frames_is_held(renderer, window, seconds, models, tmp_path):
    """The batch at hand and the one before it, however long the sound is."""
    given = {name: float(value) if name == "cfg" else int(value) for name, value in FAST[renderer].items()}
    chosen = renderers.Renderer(renderer, given, folders=lambda name: [models / name])
    picture, track = example_portrait()
    speech = Audio(0.1 * torch.randn(1, int(seconds * 16000)), 16000)
    video = chosen.speech_video(
        picture, track, speech, None, device=torch.device("cpu"), stage=lambda label, unit: no_progress
    )
    held = Held(video.frames)
    assert write_stream(tmp_path / "out.mp4", held, video.fps) == video.count == seconds * RATES[renderer]
    assert held.frames == video.count
    assert 0 < held.most <= window


def test_a_stream_that_fails_is_closed_and_leaves_no_file(tmp_path):
    closed = []

    def batches(fail_at: int) -> Iterator[torch.Tensor]:
        try:
            for number in range(3):
                if number == fail_at:
                    raise TalkingPortraitError("The third batch failed.")
                yield torch.rand(2, 33, 45, 3)
        finally:
            closed.append(fail_at)

    for fail_at in (0, 2):
        with pytest.raises(TalkingPortraitError, match="third batch"):
            write_stream(tmp_path / "a.mp4", batches(fail_at), Fraction(25))
    with pytest.raises(TalkingPortraitError, match="ends in"):
        write_stream(tmp_path / "a.txt", batches(9), Fraction(25))
    with pytest.raises(TalkingPortraitError, match="no frames"):
        write_stream(tmp_path / "a.mp4", iter([]), Fraction(25))
    assert closed == [0, 2]
    assert list(tmp_path.iterdir()) == []
    assert write_stream(tmp_path / "odd.mp4", batches(9), Fraction(25)) == 6
    assert open_video(tmp_path / "odd.mp4").size == (34, 46)
