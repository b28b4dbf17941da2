"""The mouth network's trainer and command, with a corpus of noise in place of the synthesisers'."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from talking_portrait.__main__ import main
from talking_portrait.models.speech.mouth_network import CONTROLS, MouthNetwork, load_mouth_network, save_mouth_network
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.instant import command as mouth_command
from talking_portrait.pipelines.training.instant.mouth import MouthTrainer, new_mouth_network, training_copy
from talking_portrait.pipelines.training.instant.synthetic import corpus
from talking_portrait.pipelines.training.instant.synthetic.corpus import read_corpus

from . import toy_mouth
from . import training_bench as bench

JOB = Path(toy_mouth.__file__)


def weights(folder: Path) -> torch.Tensor:
    """All that was learnt, as one vector."""
    return torch.cat(
        [weight.detach().flatten() for weight in load_mouth_network(folder / "mouth.safetensors").parameters()]
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on Windows")
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    bench.kill(JOB, "step", 4, tmp_path / "killed", 6)
    assert [line["step"] for line in bench.read_log(tmp_path / "killed")] == [1, 2, 3]
    toy_mouth.run(tmp_path / "killed", 6)
    toy_mouth.run(tmp_path / "whole", 6)
    bench.assert_same_log(bench.read_log(tmp_path / "killed"), bench.read_log(tmp_path / "whole"), rel=1e-2)
    moved = weights(tmp_path / "whole") - weights(start_of(tmp_path))
    assert (weights(tmp_path / "killed") - weights(tmp_path / "whole")).norm() < 0.02 * moved.norm()


def start_of(folder: Path) -> Path:
    """The network that a run begins with, written out."""
    toy_mouth.run(folder / "start", 1, rate=1e-12)
    return folder / "start"


def test_the_same_number_is_the_same_crop_whatever_was_drawn_before() -> None:
    crops = toy_mouth.crops(3)
    first = crops[5]
    crops[0]
    again, other, elsewhere = crops[5], crops[6], toy_mouth.crops(4)[5]
    assert {name: tuple(value.shape) for name, value in first.items()} == {
        "power": (600, 40),
        "targets": (300, len(CONTROLS) + 1),
        "phones": (300,),
    }
    torch.testing.assert_close(again, first)
    for different in (other, elsewhere):
        assert not torch.allclose(different["power"], first["power"], rtol=0.01)


def test_another_seed_is_another_run_and_a_trained_network_is_gone_on_with(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        toy_mouth.run(tmp_path / name, 2, seed=seed)
    first = weights(tmp_path / "first")
    torch.testing.assert_close(weights(tmp_path / "again"), first, atol=1e-3, rtol=0)
    assert (weights(tmp_path / "other") - first).norm() > 0.1 * first.norm()
    start = load_mouth_network(tmp_path / "first" / "mouth.safetensors")
    further = toy_mouth.run(tmp_path / "further", 2, training_copy(start, 0.05, toy_mouth.CONFIG.phones), seed=1)
    torch.testing.assert_close(further.network.average, start.average)
    assert (weights(tmp_path / "further") - first).norm() < 0.5 * (weights(tmp_path / "other") - first).norm()


def test_the_hidden_matrices_move_by_muon_and_the_rest_more_slowly_by_adamw() -> None:
    trainer = MouthTrainer(new_mouth_network([toy_mouth.make_spoken()], toy_mouth.CONFIG))
    (objective,) = trainer.objectives()
    assert objective.parameters.keys() == dict(trainer.named_parameters()).keys()
    assert set(objective.muon) == {
        f"network.blocks.{block}.{name}.weight" for block in (0, 1) for name in ("convolve", "mix")
    }
    assert {objective.factor(name) for name in objective.muon} == {1.0}
    assert {objective.factor(name) for name in objective.parameters if name not in objective.muon} == {0.075}


def test_the_network_learns_and_is_written_as_the_driver_reads_it(tmp_path: Path) -> None:
    trainer = toy_mouth.run(tmp_path, 30, batch=8, picture_every=30)
    losses = [line["loss"] for line in bench.read_log(tmp_path)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    written = load_mouth_network(tmp_path / "mouth.safetensors")
    assert written.config == replace(toy_mouth.CONFIG, phones=0)
    with safe_open(tmp_path / "mouth.safetensors", framework="pt") as file:
        assert file.metadata()["data"] == "noise"
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    difference = written.stem.weight - trainer.network.stem.weight
    assert difference.norm() > 1e-3  # what is written is the average, not where the last step led to
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["step-00000030.png"]


def test_the_picture_shows_targets_above_predictions() -> None:
    trainer = MouthTrainer(new_mouth_network([toy_mouth.make_spoken()], toy_mouth.CONFIG)).eval()
    torch.nn.init.zeros_(trainer.network.head.weight)
    trainer.network.head.bias.data = torch.linspace(-3, 3, 7)
    batch = {name: value[None] for name, value in toy_mouth.crops()[0].items()}
    with torch.no_grad():
        picture = trainer.picture(batch)
    assert picture.shape == (7 * 28, 300, 3)
    for number, level in enumerate(torch.linspace(-3, 3, 7).sigmoid()):
        band = picture[number * 28 : number * 28 + 28]
        torch.testing.assert_close(band[0, :, 0], batch["targets"][0, :, number].clamp(0, 1))
        torch.testing.assert_close(band[23], level.expand(300, 3), atol=1e-4, rtol=1e-4)
        assert not band[24:].any()


# --- the command ---


def write_shard(path: Path, count: int = 2, **changes: np.ndarray) -> None:
    spoken = [toy_mouth.make_spoken(seed) for seed in range(count)]
    arrays = {
        "mel": np.concatenate([one.mel for one in spoken]),
        "phones": np.concatenate([one.phones for one in spoken]),
        "edges": np.concatenate([one.edges for one in spoken]),
        "voices": np.array([one.voice for one in spoken]),
        "sizes": np.array([(len(one.mel), len(one.phones)) for one in spoken]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays | changes)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a whole corpus of noise, so that no synthesiser is needed."""
    monkeypatch.setattr(mouth_command, "BACKGROUNDS", 3)
    for name in ("speech-0000", "held-0000", "held-0001", "held-0002"):
        write_shard(tmp_path / "work" / "corpus" / f"{name}.npz")
    return tmp_path / "work"


def train(work: Path, *options: object) -> int:
    plan = ("--shards", 1, "--batch", 1, "--save-every", 1)
    return main(["train", "instant-mouth", "--work", str(work), *map(str, (*plan, *options))])


def test_the_command_trains_scores_and_goes_on(work: Path, capsys: pytest.CaptureFixture) -> None:
    out = work.parent / "given.safetensors"
    assert train(work, "--steps", 1, "--out", out) == 0
    said = capsys.readouterr().out
    assert "0.0 hours, 1 voices" in said
    for name in ("opening correlation", "bilabials closed", "labiodentals touching", "speech activity"):
        assert f"held-out {name}: " in said
    assert out.read_bytes() == (work / "mouth.safetensors").read_bytes()
    with safe_open(out, framework="pt") as file:
        assert file.metadata()["start"] == "random weights"
        assert json.loads(file.metadata()["config"])["channels"] == 160
    assert train(work, "--steps", 2) == 2
    assert "go on with it by --resume" in capsys.readouterr().err
    assert train(work, "--steps", 2, "--resume") == 0
    assert [line["step"] for line in bench.read_log(work)] == [1, 2]
    assert bench.read_log(work)[0]["rate"] == pytest.approx(0.02 / 100)
    other = work.parent / "other"
    assert train(other, "--corpus", work / "corpus", "--start", out, "--steps", 1) == 0
    with safe_open(other / "mouth.safetensors", framework="pt") as file:
        assert file.metadata()["start"] == out.name
    assert not (other / "corpus").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shards", 0], "--shards 0 was given, but 1 to 10000 is expected"),
        (["--workers", -1], "--workers -1 was given, but 1 to 1000 is expected"),
        (["--threads", 0], "--threads 0 was given, but 1 to 1000 is expected"),
        (["--seed", -1], "Training with seed -1 was requested, but at least 0 is expected"),
        (["--rate", "nan"], "The learning rate is nan"),
        (["--start", "{work}/corpus/speech-0000.npz"], "is no mouth network of Instant"),
        (["--start", "{work}/nowhere.safetensors"], "is no mouth network of Instant"),
        (["--out", "{work}/no/folder.safetensors"], "does not exist; make it first"),
        (["--work", "{work}/corpus/speech-0000.npz"], "is a file, but a folder is expected"),
    ],
)
def test_options_that_cannot_be_are_reported_in_a_sentence(
    work: Path, capsys: pytest.CaptureFixture, options: list, words: str
) -> None:
    assert train(work, *[str(option).format(work=work) for option in options]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


def test_a_network_of_other_bands_is_not_gone_on_with(work: Path, capsys: pytest.CaptureFixture) -> None:
    save_mouth_network(MouthNetwork(replace(toy_mouth.CONFIG, mels=20, phones=0)), work / "other.safetensors", {})
    assert train(work, "--start", work / "other.safetensors") == 2
    assert "it takes 20 bands" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": np.array([(80, 8)])},
        {"sizes": np.array([(80, 8), (-80, 8)])},
        {"sizes": np.array([(80.0, 8.0), (80.0, 8.0)])},
        {"sizes": np.array(160)},
        {"mel": np.zeros((160, 39), np.float16)},
        {"mel": np.full((160, 40), np.nan, np.float16)},
        {"mel": np.full((160, 40), 6e4, np.float16)},
        {"mel": np.array(["speech"] * 160)},
        {"phones": np.full(16, 99)},
        {"phones": np.full(16, 0.5)},
        {"edges": np.full(18, np.inf)},
        {"edges": np.linspace(1, 0, 18)},
        {"edges": np.zeros(17)},
        {"voices": np.array([None, {}], dtype=object)},
    ],
)
def test_a_damaged_corpus_is_reported_in_a_sentence(tmp_path: Path, changes: dict) -> None:
    write_shard(tmp_path / "speech-0000.npz", **changes)
    with pytest.raises(TalkingPortraitError, match=r"speech-0000.npz is no part of a spoken corpus \(.+\); remove it"):
        read_corpus(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_a_truncated_corpus_is_reported_in_a_sentence(tmp_path: Path, keep: int) -> None:
    write_shard(tmp_path / "speech-0000.npz")
    whole = (tmp_path / "speech-0000.npz").read_bytes()
    (tmp_path / "speech-0000.npz").write_bytes(whole[:keep])
    with pytest.raises(TalkingPortraitError, match=r"speech-0000.npz is no part of a spoken corpus"):
        read_corpus(tmp_path)


def test_the_acoustic_bands_are_read_where_they_are_wanted(tmp_path: Path) -> None:
    write_shard(tmp_path / "speech-0000.npz", acoustic=np.full((160, 80), -3, np.float16))
    write_shard(tmp_path / "speech-0001.npz")
    assert [one.acoustic for one in read_corpus(tmp_path)] == [None] * 4
    assert [one.acoustic.shape for one in read_corpus(tmp_path, acoustic=True, shards=1)] == [(80, 80)] * 2
    with pytest.raises(TalkingPortraitError, match=r"speech-0001.npz .+ \(an earlier version spoke it"):
        read_corpus(tmp_path, acoustic=True)
    write_shard(tmp_path / "speech-0001.npz", acoustic=np.zeros((159, 80), np.float16))
    with pytest.raises(TalkingPortraitError, match=r"speech-0001.npz .+ \(its arrays are not as long"):
        read_corpus(tmp_path, acoustic=True)


SPEAKERS = Path(__file__).with_name("toy_speakers.py")


def speak(folder: Path, fault: str) -> list[str]:
    """What is said while a corpus of two files is spoken by two processes."""
    command = [sys.executable, str(SPEAKERS), str(folder), fault]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_every_file_of_the_corpus_is_spoken_by_a_process_of_its_own_unless_it_is_there(tmp_path: Path) -> None:
    assert speak(tmp_path, "none") == ["1 of 2", "2 of 2"]
    first, second = (tmp_path / f"speech-000{number}.npz" for number in (0, 1))
    assert sorted(tmp_path.iterdir()) == [first, second]
    assert first.read_text() != second.read_text()
    first.unlink()
    kept = second.read_text()
    assert speak(tmp_path, "none") == ["1 of 1"]
    assert second.read_text() == kept


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param("error", "There is no voice; install one.", marks=pytest.mark.slow),
        ("killed", "a process ended with code 9; start again with fewer"),
    ],
)
def test_a_process_that_cannot_speak_is_told_in_a_sentence(tmp_path: Path, fault: str, words: str) -> None:
    assert speak(tmp_path, fault)[-1].startswith(f"The corpus can't be spoken: {words}")
    assert not (tmp_path / "speech-0000.npz").exists()


def test_a_pack_that_new_processes_cannot_import_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "require_synthesisers", lambda: None)
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(TalkingPortraitError, match="can't import talking_portrait; install it"):
        corpus.make_corpus(tmp_path, 0, 1, 0, 1)
