"""The training loop: losses fall, and an interrupted run continues as if uninterrupted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.core.checkpoints import newest_checkpoint
from talking_portrait.pipelines.training.core.trainer import Plan

from . import training_bench as bench
from .toy_trainer import Adder, Plain, Rivals, run
from .training_bench import read_log

JOB = Path(__file__).with_name("toy_trainer.py")


def test_it_learns(tmp_path: Path) -> None:
    run(tmp_path, 100, Plain(), rate=3e-2, batch=16, accumulate=1, save_every=1000)
    losses = [line["loss"] for line in read_log(tmp_path)]
    assert len(losses) == 100
    assert sum(losses[-10:]) < 0.02 * sum(losses[:10])


@pytest.mark.parametrize("options", [{}, {"precision": "bf16", "decay": "cosine"}, {"precision": "fp16", "workers": 1}])
def test_a_run_in_parts_is_the_run_in_one(tmp_path: Path, options: dict) -> None:
    whole = run(tmp_path / "whole", 12, **options)
    stop_after(tmp_path / "parts", 4, steps=12, **options)  # before its first checkpoint, and then after it
    stop_after(tmp_path / "parts", 7, steps=12, **options)
    parts = run(tmp_path / "parts", 12, **options)
    rel = 1e-3 if not options else 0.05
    bench.assert_same_log(read_log(tmp_path / "parts"), read_log(tmp_path / "whole"), rel=rel)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), atol=rel, rtol=rel)


def stop_after(folder: Path, last: int, *, steps: int, **options: object) -> None:
    def stop(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, steps, progress=stop, **options)


def test_two_processes_learn_from_what_one_would(tmp_path: Path) -> None:
    bench.in_two_processes(JOB, tmp_path / "two", 6)
    log = read_log(tmp_path / "two")
    assert [line["step"] for line in log] == list(range(1, 7))
    run(tmp_path / "one", 6, Plain())
    bench.assert_same_log(log, read_log(tmp_path / "one"))


def test_every_sample_comes_once_whatever_the_pieces(tmp_path: Path) -> None:
    assert run(tmp_path / "a", 3, batch=4, accumulate=1).batch_numbers == list(range(12))
    assert run(tmp_path / "b", 3, batch=2, accumulate=2).batch_numbers == list(range(12))
    again = run(tmp_path / "b", 4, batch=2, accumulate=2)
    assert again.batch_numbers == [12, 13, 14, 15]


def test_pieces_add_up_to_one_gradient(tmp_path: Path) -> None:
    logs = []
    for batch, accumulate in ((8, 1), (2, 4)):
        run(tmp_path / str(batch), 5, Plain(), batch=batch, accumulate=accumulate)
        logs.append(read_log(tmp_path / str(batch)))
    bench.assert_same_log(*logs)


def test_each_optimizer_moves_its_own_network(tmp_path: Path) -> None:
    trainer = run(tmp_path, 1, Rivals(), accumulate=1, weight_decay=0.0)
    assert trainer.hunter.weight.item() == pytest.approx(0.01, rel=1e-3)  # Adam's first step is the rate
    assert trainer.hare.weight.item() == pytest.approx(1.005, rel=1e-4)
    run(tmp_path / "parts", 3, Rivals(), accumulate=1)
    parts = run(tmp_path / "parts", 6, Rivals(), accumulate=1)
    whole = run(tmp_path / "whole", 6, Rivals(), accumulate=1)
    torch.testing.assert_close(parts.hare.weight, whole.hare.weight)
    names = {"step", "rate", "hunt", "hunt gradient", "flight", "flight gradient"}
    assert set(read_log(tmp_path / "whole")[0]) == names


def test_the_folder_holds_the_last_checkpoints_pictures_and_the_network(tmp_path: Path) -> None:
    trainer = run(tmp_path, 22, keep=2, save_every=4, picture_every=11)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000020.safetensors",
        "step-00000022.safetensors",
    ]
    assert [path.name for path in sorted((tmp_path / "pictures").iterdir())] == [
        "step-00000011.png",
        "step-00000022.png",
    ]
    exported = load_file(tmp_path / "adder.safetensors")
    assert all(torch.equal(tensor, exported[name]) for name, tensor in trainer.network.state_dict().items())
    assert trainer.network.training
    assert not trainer.frozen.training


def test_what_a_killed_run_was_writing_is_ignored_and_removed(tmp_path: Path) -> None:
    run(tmp_path, 5)
    part = tmp_path / "checkpoints" / ".step-00000010.1234.part.safetensors"
    part.write_bytes(b"half")
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "rate": 0.01, "loss": 9.0}\n{"step": 7, "ra')
    run(tmp_path, 10)
    assert not part.exists()
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, 11))
    assert read_log(tmp_path)[5]["loss"] != 9.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("adder.safetensors", "somebody's"),
        ("adder.safetensors", ""),
        ("pictures/step-00000003.png", "somebody's"),
        ("log.jsonl", "somebody's"),
        ("log.jsonl", '{"step": 1, "loss": 2.0}\n'),
        ("log.jsonl", '{"step": 1, "rate": 1.0}\n[1]\n'),
        ("log.jsonl", '{"time": 1'),
    ],
)
def test_files_of_others_are_not_written_over(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    with pytest.raises(TalkingPortraitError, match=f"{file.name} would be written over, but no training run wrote it"):
        run(tmp_path, 3, picture_every=3)
    assert file.read_text() == text


def test_checkpoints_of_others_are_kept(tmp_path: Path) -> None:
    run(tmp_path, 5)
    folder = tmp_path / "checkpoints"
    others = ["step-best.safetensors", "step-00000001.safetensors", ".download.part", ".step-00000002.safetensors.part"]
    for name in others:
        (folder / name).write_bytes(b"somebody's")
    run(tmp_path, 25, keep=2)
    own = ["step-00000020.safetensors", "step-00000025.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*others, *own])


def test_a_run_is_neither_overwritten_nor_resumed_by_another_trainer(tmp_path: Path) -> None:
    run(tmp_path, 5)
    with pytest.raises(TalkingPortraitError, match="5 steps already; go on with it by --resume"):
        run(tmp_path, 10, resume=False)
    with pytest.raises(TalkingPortraitError, match="is a checkpoint of adder, but rivals is to go on"):
        run(tmp_path, 10, Rivals())
    larger = Adder()
    larger.network[0] = torch.nn.Linear(4, 16)
    with pytest.raises(TalkingPortraitError, match="written with other networks"):
        run(tmp_path, 10, larger)
    newest_checkpoint(tmp_path / "checkpoints").write_bytes(b"\0" * 100)
    with pytest.raises(TalkingPortraitError, match="is no checkpoint that training can go on from"):
        run(tmp_path, 10)


def test_a_finished_run_is_only_written_out(tmp_path: Path) -> None:
    run(tmp_path, 5)
    (tmp_path / "adder.safetensors").unlink()
    assert run(tmp_path, 5).batch_numbers == []
    assert (tmp_path / "adder.safetensors").is_file()


def test_losses_that_are_no_numbers_stop_the_run(tmp_path: Path) -> None:
    class Exploding(Adder):
        def loss(self, batch, step):
            return super().loss(batch, step) * (math.inf if step == 6 else 1)

    with pytest.raises(TalkingPortraitError, match=r"At step 7 the loss is inf"):
        run(tmp_path, 10, Exploding())
    assert newest_checkpoint(tmp_path / "checkpoints").name == "step-00000005.safetensors"


def test_the_rate_rises_and_falls() -> None:
    plan = Plan(steps=100, rate=1.0, warmup=10, decay="linear")
    assert plan.rate_at(0) == pytest.approx(0.1)
    assert plan.rate_at(50) == pytest.approx(0.5)
    assert Plan(steps=100, rate=1.0, decay="cosine").rate_at(50) == pytest.approx(0.5)
    assert {Plan(steps=100, rate=2.0).rate_at(step) for step in range(100)} == {2.0}


@pytest.mark.parametrize("options", [{"steps": 0}, {"batch": 0}, {"rate": 0.0}, {"clip": -1.0}, {"keep": 0}])
def test_impossible_plans_are_refused(options: dict) -> None:
    with pytest.raises(TalkingPortraitError, match="expected|above 0"):
        Plan(**{"steps": 1} | options)
