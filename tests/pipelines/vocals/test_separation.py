"""Separating vocals: real audio-separator code over small networks made here, offline and without leaving files."""

from __future__ import annotations

import json
import shlex
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.types import Audio
from talking_portrait.pipelines.vocals import separation as module
from talking_portrait.pipelines.vocals.separation import separate
from talking_portrait.pipelines.vocals.separators import _mdxc_data

onnx = pytest.importorskip("onnx")
FFT, BINS, FRAMES = 2048, 1024, 16


def write_network(path: Path, share: float, *, name: str = "input", sizes: tuple[int, ...] = (4, BINS, FRAMES)) -> Path:
    """An ONNX file in the form of an MDX network that keeps `share` of the spectrogram."""
    helper, kinds = onnx.helper, onnx.TensorProto
    value = helper.make_tensor("share", kinds.FLOAT, [1], [share])
    shapes = [helper.make_tensor_value_info(n, kinds.FLOAT, ["batch", *sizes]) for n in (name, "output")]
    graph = helper.make_graph(
        [helper.make_node("Mul", [name, "share"], ["output"])], "network", shapes[:1], shapes[1:], [value]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def parameters(path: Path, **changes: Any) -> Path:
    path.with_suffix(".json").write_text(json.dumps({"mdx_n_fft_scale_set": FFT, "primary_stem": "Vocals"} | changes))
    return path


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that takes half of everything for vocals, without network access and with recorded temporary files."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something wanted the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "temporary")
    (tmp_path / "models").mkdir()
    return parameters(write_network(tmp_path / "models" / "half.onnx", 0.5))


def tone(seconds: float, rate: int = 44100, channels: int = 2, level: float = 0.3) -> Audio:
    time = torch.arange(round(seconds * rate)) / rate
    waves = [torch.sin(2 * torch.pi * (500 + 250 * i) * time) for i in range(channels)]
    return Audio(level * torch.stack(waves), rate)


@pytest.mark.parametrize(
    ("rate", "channels", "level"),
    [(44100, 2, 0.3), (16000, 1, 0.95), (48000, 1, 1.5), (22050, 3, 0.01), (8000, 8, 0.3)],
)
def test_length_rate_channels_and_level_are_kept(half: Path, rate: int, channels: int, level: float) -> None:
    audio = tone(0.731, rate, channels, level)
    vocals, background = separate(audio, half)
    for part in (vocals, background):
        assert part.waveform.shape == audio.waveform.shape
        assert part.sample_rate == rate
    torch.testing.assert_close(vocals.waveform + background.waveform, audio.waveform, atol=1e-6 * level, rtol=1e-6)
    inside = slice(rate // 10, -rate // 10)
    error = (vocals.waveform - 0.5 * audio.waveform)[:, inside]
    assert float(error.abs().max()) < 0.02 * level


def test_nothing_is_left_behind_and_no_level_depends_on_loud_parts(half: Path) -> None:
    audio = tone(1)
    audio.waveform[:, :4410] *= 3
    vocals, _ = separate(audio, half)
    quiet = slice(22050, 39690)
    assert float((vocals.waveform - 0.5 * audio.waveform)[:, quiet].abs().max()) < 0.01
    assert not list(Path(tempfile.gettempdir()).iterdir())
    assert {p.name for p in half.parent.iterdir()} == {"half.onnx", "half.json"}


def test_temporary_files_lie_in_the_folder_of_the_host(half: Path, tmp_path: Path) -> None:
    wav_folders: list[Path] = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def watch(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        wav_folders.extend(path.parent for path in scratch.rglob("*.wav"))
        assert not list(Path(tempfile.gettempdir()).iterdir())

    separate(tone(0.5), half, scratch=scratch, progress=watch)
    assert {path.parent for path in wav_folders} == {scratch}
    assert not list(scratch.iterdir())
    with pytest.raises(TalkingPortraitError, match="no room for temporary files"):
        separate(tone(0.5), half, scratch=tmp_path / "gone")


def test_a_model_of_the_accompaniment_gives_vocals_too(half: Path) -> None:
    network = parameters(write_network(half.parent / "inst.onnx", 0.75), primary_stem="Instrumental", compensate=1.0)
    audio = tone(0.8)
    vocals, background = separate(audio, network)
    inside = slice(4410, -4410)
    torch.testing.assert_close(vocals.waveform[:, inside], 0.25 * audio.waveform[:, inside], atol=5e-3, rtol=0)
    torch.testing.assert_close(background.waveform[:, inside], 0.75 * audio.waveform[:, inside], atol=5e-3, rtol=0)


def test_long_recordings_pass_in_segments_without_a_seam(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = tone(3.3)
    whole, _ = separate(audio, half)
    monkeypatch.setattr(module, "SEGMENT_SECONDS", 1)
    monkeypatch.setattr(module, "FADE_SECONDS", 1 / 3)
    parts, _ = separate(audio, half)
    torch.testing.assert_close(parts.waveform, whole.waveform, atol=5e-3, rtol=0)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_the_shortest_recording_passes(half: Path, rate: int) -> None:
    audio = tone(0.026, rate, 1)
    vocals, background = separate(audio, half)
    assert vocals.samples == background.samples == audio.samples
    assert torch.isfinite(vocals.waveform).all()


def test_no_stand_in_for_a_missing_package_stays_behind(half: Path) -> None:
    separate(tone(0.2), half)
    found = sys.modules.get("onnx2torch")
    assert found is None or found.__spec__ is not None


def test_silence_stays_silence(half: Path) -> None:
    audio = Audio(torch.zeros(2, 30000), 44100)
    vocals, background = separate(audio, half)
    assert not vocals.waveform.any()
    assert not background.waveform.any()
    assert vocals.samples == background.samples == 30000


def test_progress_rises_to_the_end(half: Path) -> None:
    calls: list[tuple[int, int]] = []
    separate(tone(1.5, channels=3), half, progress=lambda done, total, preview=None: calls.append((done, total)))
    done = [d for d, _ in calls]
    assert done == sorted(done)
    assert len(set(done)) > 10
    assert calls[-1][0] == calls[-1][1] == 200


def test_cancelling_stops_at_the_next_chunk_and_leaves_nothing(half: Path) -> None:
    class CancelledError(Exception):
        pass

    calls = []

    def progress(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        calls.append(done)
        if len(calls) == 3:
            raise CancelledError

    with pytest.raises(CancelledError):
        separate(tone(2), half, progress=progress)
    assert len(calls) == 3
    assert not list(Path(tempfile.gettempdir()).iterdir())
    assert separate(tone(0.5), half)[0].samples == 22050


def test_the_default_model_needs_no_list_beside_it(half: Path) -> None:
    """Kim_Vocal_2 by its name: 3072 of 3841 bins, so that high frequencies go to the background."""
    network = write_network(half.parent / "Kim_Vocal_2.onnx", 1.0, sizes=(4, 3072, 256))
    audio = tone(0.5)
    vocals, background = separate(audio, network)
    inside = slice(8000, -8000)
    torch.testing.assert_close(vocals.waveform[:, inside], audio.waveform[:, inside], atol=5e-3, rtol=0)
    high = Audio(0.3 * torch.sin(2 * torch.pi * 19000 * torch.arange(22050) / 44100)[None], 44100)
    assert float(separate(high, network)[0].waveform[:, inside].abs().max()) < 0.01


def test_parameters_from_a_list_by_checksum(half: Path) -> None:
    import hashlib

    network = write_network(half.parent / "listed.onnx", 0.5)
    with pytest.raises(TalkingPortraitError, match=r"parameters of listed.onnx are not known; put a listed.json"):
        separate(tone(0.2), network)
    entry = {hashlib.md5(network.read_bytes()).hexdigest(): {"mdx_n_fft_scale_set": FFT, "primary_stem": "Vocals"}}
    (half.parent / "mdx_model_data.json").write_text(json.dumps(entry))
    assert separate(tone(0.2), network)[0].samples == 8820


CONFIG = """
audio: {chunk_size: 7168, dim_f: 512, dim_t: 8, hop_length: 1024, n_fft: 2048, num_channels: 2, sample_rate: 44100}
model: {act: gelu, bottleneck_factor: 4, growth: 4, norm: InstanceNorm, num_blocks_per_scale: 1, num_channels: 4,
        num_scales: 1, num_subbands: 1, scale: !!python/tuple [2, 2]}
training: {instruments: [Vocals, Instrumental], target_instrument: null}
inference: {batch_size: 1, dim_t: 16, num_overlap: 2}
"""


def test_a_checkpoint_with_its_configuration(half: Path) -> None:
    """A small random MDX23C of audio-separator's own class, saved and opened again."""
    yaml = pytest.importorskip("yaml")
    from ml_collections import ConfigDict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from audio_separator.separator.uvr_lib_v5.tfc_tdf_v3 import TFC_TDF_net
    torch.manual_seed(0)
    config = yaml.load(CONFIG, Loader=yaml.FullLoader)
    network = TFC_TDF_net(ConfigDict(config), device=torch.device("cpu"))
    path = half.parent / "voices.ckpt"
    torch.save(network.state_dict(), path)
    with pytest.raises(TalkingPortraitError, match=r"put its YAML beside it as voices.yaml"):
        separate(tone(0.3), path)
    path.with_suffix(".yaml").write_text(CONFIG)
    audio = tone(0.6, 16000, 1)
    vocals, background = separate(audio, path)
    assert vocals.waveform.shape == background.waveform.shape == audio.waveform.shape
    assert torch.isfinite(vocals.waveform).all()
    assert float(vocals.waveform.abs().max()) > 1e-4
    path.with_suffix(".yaml").write_text("training: !!python/object/apply:os.mkdir [ran]")
    with pytest.raises(TalkingPortraitError, match="no configuration of a voice separator"):
        separate(audio, path)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1, 1]\nb: &b [*a, *a]\naudio: *b\nmodel: *b\ntraining: *b\ninference: *b",
        "a: &a {x: 1}\nb: {<<: [*a, *a]}\naudio: {}\nmodel: {}\ntraining: {}\ninference: {}",
        "audio: " + "[" * 20_000,
        "? [1]\n: 2",
        "audio: {}\n" + "#" * 2**20,
    ],
)
def test_a_configuration_that_unfolds_without_end_is_refused(tmp_path: Path, text: str) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "voices.yaml").write_text(text)
    with pytest.raises(TalkingPortraitError, match="voices.yaml is no configuration of a voice separator"):
        _mdxc_data(tmp_path / "voices.ckpt")


@pytest.mark.parametrize("change", [{"mdx_n_fft_scale_set": "x"}, {"mdx_n_fft_scale_set": 10**30}, {"compensate": []}])
def test_parameters_that_no_network_has_are_refused(half: Path, change: dict[str, object]) -> None:
    network = write_network(half.parent / "own.onnx", 0.5)
    network.with_suffix(".json").write_text(json.dumps({"mdx_n_fft_scale_set": FFT, **change}))
    with pytest.raises(TalkingPortraitError, match="correct the own.json beside it"):
        separate(tone(0.2), network)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.onnx", None, "is not there"),
        ("empty.onnx", b"", "is empty"),
        ("page.onnx", b"<html>", "is a web page"),
        ("noise.onnx", b"\xff\xfe\x00 nothing", "damaged or no ONNX"),
        ("model.pth", b"x", "no voice separator by its ending"),
        ("bad.ckpt", b"PK\x03\x04", "cut short"),
    ],
)
def test_a_bad_model_file_gets_one_sentence(half: Path, name: str, content: bytes | None, words: str) -> None:
    path = half.parent / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TalkingPortraitError, match=words) as caught:
        separate(tone(0.2), path)
    assert "\n" not in str(caught.value)


def test_networks_of_another_kind_are_refused(half: Path) -> None:
    face = parameters(write_network(half.parent / "face.onnx", 1, name="input.1", sizes=(3, 112, 112)))
    with pytest.raises(TalkingPortraitError, match=r"takes input.1 of the sizes .*no MDX network"):
        separate(tone(0.2), face)
    small = parameters(write_network(half.parent / "small.onnx", 1), mdx_n_fft_scale_set=512)
    with pytest.raises(TalkingPortraitError, match="these are another's"):
        separate(tone(0.2), small)
    drums = parameters(write_network(half.parent / "drums.onnx", 1), primary_stem="Drums")
    with pytest.raises(TalkingPortraitError, match=r"drums gives drums, no drums, but one with vocals is needed"):
        separate(tone(0.2), drums)


def test_a_cut_network_is_reported(half: Path) -> None:
    whole = half.read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TalkingPortraitError, match=r"half.onnx"):
        separate(tone(0.2), half)


@pytest.mark.parametrize("audio", [None, Audio(torch.zeros(1, 1), 44100), Audio(torch.full((1, 9999), np.nan), 44100)])
def test_bad_sound_is_refused_first(tmp_path: Path, audio: Any) -> None:
    with pytest.raises(TalkingPortraitError, match="audio"):
        separate(audio, tmp_path / "missing.onnx")


@pytest.mark.parametrize("name", ["audio_separator", "librosa"])
def test_without_audio_separator_the_error_names_the_commands_that_install_it(half, monkeypatch, name):
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] in ("audio_separator", name)]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TalkingPortraitError, match="Separating vocals needs the package audio-separator") as raised:
        separate(tone(0.1), half)
    assert "\n" not in str(raised.value)
    first, second = (shlex.split(command) for command in str(raised.value).partition("; run: ")[2].split(" && "))
    python = [sys.executable, "-m", "pip", "install"]
    assert first[:-1] == [*python, "-r"]
    assert Path(first[-1]).is_file()
    assert second == [*python, "--no-deps", "audio-separator>=0.30"]
