"""The training loop: losses fall, and an interrupted run continues as if uninterrupted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.core.checkpoints import newest_checkpoint
from talking_portrait.pipelines.training.core.loop import train
from talking_portrait.pipelines.training.core.trainer import Objective, Plan, trainable

from . import training_bench as bench
from .toy_trainer import Adder, Plain, Rivals, Sums, run
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


def test_the_moving_average_is_what_is_written(tmp_path: Path) -> None:
    trainer, expected = Adder(), {}
    title = [name for name, _ in trainer.network.named_parameters()]

    def follow(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        for name in title:
            now = trainer.network.get_parameter(name).detach().clone()
            expected[name] = 0.7 * expected[name] + 0.3 * now if name in expected else now

    run(tmp_path / "whole", 8, trainer, average=0.7, progress=follow)
    written = load_file(tmp_path / "whole" / "adder.safetensors")
    torch.testing.assert_close({name: written[name] for name in title}, expected)
    apart = (written["0.weight"] - trainer.network.get_parameter("0.weight")).abs().max()
    assert apart > 1e-2  # the trainer itself stands where the last step led to
    torch.testing.assert_close(written["1.running_mean"], trainer.network.get_buffer("1.running_mean"))

    run(tmp_path / "parts", 5, average=0.7)
    run(tmp_path / "parts", 8, average=0.7)
    torch.testing.assert_close(load_file(tmp_path / "parts" / "adder.safetensors"), written, atol=1e-3, rtol=1e-3)
    (tmp_path / "parts" / "adder.safetensors").unlink()
    run(tmp_path / "parts", 8, average=0.7)  # a finished run is only written out
    torch.testing.assert_close(load_file(tmp_path / "parts" / "adder.safetensors"), written, atol=1e-3, rtol=1e-3)
    with pytest.raises(TalkingPortraitError, match="go on with the options that the run began with"):
        run(tmp_path / "parts", 9)


def test_pictures_show_the_moving_average(tmp_path: Path) -> None:
    class Seen(Plain):
        def picture(self, batch):
            self.reports = self.network[0].weight.detach().clone()
            return super().picture(batch)

    trainer = run(tmp_path, 6, Seen(), average=0.9, picture_every=6)
    torch.testing.assert_close(trainer.reports, load_file(tmp_path / "adder.safetensors")["0.weight"])
    assert not torch.allclose(trainer.reports, trainer.network[0].weight, atol=1e-3)


class Muons(Plain):
    """The first matrix moves by Muon, all else by AdamW at a tenth of the rate."""

    title = "muons"

    def objectives(self) -> list[Objective]:
        return [Objective(trainable(self), self.loss, factors={"": 0.1, MATRIX: 1.0}, muon=[MATRIX])]


MATRIX = "network.0.weight"


class Slopes(Muons):
    """Gradients that do not change: one of different steepness in four directions, and ones."""

    def loss(self, batch, step):
        steepness = torch.eye(16, 4) * torch.tensor([1.0, 0.5, 0.4, 0.3])
        return (self.network[0].weight * steepness).sum() + self.network[3].weight.sum()


def test_muon_moves_what_it_is_given_and_adamw_the_rest(tmp_path: Path) -> None:
    before, trainer = Adder(), run(tmp_path, 1, Slopes(), weight_decay=0.0, muon_weight_decay=0.0, rate=0.1)
    step = (before.network[0].weight - trainer.network[0].weight).detach()
    lengths = torch.linalg.svdvals(step) / (16 / 4) ** 0.5  # a tall matrix goes as much further
    assert lengths.min() > 0.06  # Muon goes about as far in all directions,
    assert lengths.max() < 0.13
    steps = (before.network[3].weight - trainer.network[3].weight).detach()
    torch.testing.assert_close(steps, torch.full_like(steps, 0.01), rtol=1e-2, atol=0)  # and AdamW's first is the rate

    decayed = run(tmp_path / "decay", 1, Slopes(), rate=0.1, weight_decay=0.0, muon_weight_decay=1.0)
    torch.testing.assert_close(decayed.network[0].weight, trainer.network[0].weight - 0.1 * before.network[0].weight)


def test_a_pytorch_without_muon_is_told_of_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    run(tmp_path / "adamw", 1, Plain())
    with pytest.raises(TalkingPortraitError, match=r"Muon came with PyTorch 2.9, but this is .+; install a newer one"):
        run(tmp_path / "muon", 1, Muons())


def test_a_run_in_parts_with_muon_is_the_run_in_one(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 8, Muons(), average=0.5)
    stop_after(tmp_path / "parts", 7, steps=8, trainer=Muons(), average=0.5)
    parts = run(tmp_path / "parts", 8, Muons(), average=0.5)
    bench.assert_same_log(read_log(tmp_path / "parts"), read_log(tmp_path / "whole"))
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), atol=1e-3, rtol=1e-3)
    others = Muons()
    others.objectives = lambda: Adder.objectives(others)
    with pytest.raises(TalkingPortraitError, match="go on with the options that the run began with"):
        run(tmp_path / "parts", 9, others, average=0.5)


def test_a_gradient_that_overflows_stops_both_optimisers(tmp_path: Path) -> None:
    class Overflowing(Muons):
        def loss(self, batch, step):
            return 1e36 * self.network[0].weight.sum() + self.network[3].weight.sum()

    before = Adder()
    trainer = run(tmp_path, 1, Overflowing(), precision="fp16")
    for layer in (0, 3):
        torch.testing.assert_close(trainer.network[layer].weight, before.network[layer].weight)


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
    part = tmp_path / "checkpoints" / ".step-00000010.abcd1234.part"
    part.mkdir()
    (part / "talking_portrait.lock").touch()
    (part / "step-00000010.safetensors").write_bytes(b"half")
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
    with pytest.raises(TalkingPortraitError, match="is no checkpoint that training can continue from"):
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
    assert Plan(steps=100, rate=2.0, decay="cosine", floor=0.02).rate_at(100) == pytest.approx(0.04)
    assert Plan(steps=100, rate=1.0, decay="cosine", floor=0.02).rate_at(50) == pytest.approx(0.51)
    assert Plan(steps=100, rate=1.0, warmup=10, decay="linear", floor=0.5).rate_at(0) == pytest.approx(0.1)
    assert {Plan(steps=100, rate=2.0).rate_at(step) for step in range(100)} == {2.0}


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 100_000_000},
        {"batch": 0},
        {"keep": 0},
        {"warmup": -1},
        {"picture_every": -1},
        {"workers": -1},
        {"seed": -1},
        {"rate": 0.0},
        {"rate": math.nan},
        {"rate": math.inf},
        {"clip": -1.0},
        {"clip": math.inf},
        {"floor": 1.5},
        {"floor": math.nan},
        {"average": 1.0},
        {"average": -0.1},
    ],
)
def test_impossible_plans_are_refused(options: dict) -> None:
    with pytest.raises(TalkingPortraitError, match="expected|above 0|between 0 and 1"):
        Plan(**{"steps": 1} | options)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_while_reading_a_sample_comes_out_as_it_was(tmp_path: Path, workers: int) -> None:
    plan = Plan(steps=3, workers=workers, batch=2)
    with pytest.raises(TalkingPortraitError) as caught:
        train(Plain(), Damaged(), plan, tmp_path)
    assert str(caught.value) == "Sample 3 is damaged; prepare it again."


class Damaged(Sums):
    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        if number == 3:
            raise TalkingPortraitError("Sample 3 is damaged; prepare it again.")
        return super().__getitem__(number)


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_of_different_sizes_are_reported_in_a_sentence(tmp_path: Path, workers: int) -> None:
    with pytest.raises(TalkingPortraitError) as caught:
        train(Plain(), Growing(), Plan(steps=3, workers=workers, batch=2), tmp_path)
    assert "x is (1,) in one and (2,) in another" in str(caught.value)
    assert "\n" not in str(caught.value)


class Growing(Sums):
    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"x": torch.zeros(number + 1)}
