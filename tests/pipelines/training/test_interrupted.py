"""`talking_portrait train` killed with no warning, and in two processes: real stages with tiny networks."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from talking_portrait.__main__ import main
from talking_portrait.pipelines.training.aniportrait.stage1 import AniPortraitStage1
from talking_portrait.pipelines.training.apasco.stage1 import APascoStage1
from talking_portrait.pipelines.training.core import loop

from . import training_bench as bench

HALTING = Path(__file__).with_name("halted_training.py")
SEED = 42
STAGES = {"aniportrait-stage1": AniPortraitStage1, "apasco-stage1": APascoStage1}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench.make_work(tmp_path_factory.mktemp("work"))


def command(work: Path, stage: str, out: Path, *plan: str) -> list[str]:
    """What follows `talking_portrait`; one sample at once, unless `plan` has more."""
    own = {
        "aniportrait-stage1": ["--pose-guider", "guider", "--clip-vision", "clip", "--data", "data"],
        "apasco-stage1": ["--data", "data25"],
    }[stage]
    named = {"guider", "clip", "unet", "vae"}
    files = ["--unet", "unet", "--vae", "vae", *own]
    paths = [str(work / f"{word}.safetensors") if word in named else word for word in files]
    paths[-1] = str(work / paths[-1])
    common = ["--batch", "1", "--precision", "fp32", "--workers", "0", "--picture-every", "0", "--seed", str(SEED)]
    return ["train", stage, *paths, "--out", str(out), *common, *plan]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on Windows")
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["aniportrait-stage1", "apasco-stage1"])
def test_a_killed_stage_goes_on_as_if_it_had_not_been(work: Path, tmp_path: Path, stage: str) -> None:
    """Killed in its third step, after the checkpoint of the second, and while it writes that of the fourth."""
    plan = ["--steps", "6", "--save-every", "2", "--rate", "1e-3"]
    killed = command(work, stage, tmp_path / "killed", *plan)
    bench.kill(HALTING, "step", 3, *killed)
    assert [line["step"] for line in bench.read_log(tmp_path / "killed")] == [1, 2]
    bench.kill(HALTING, "checkpoint", 1, *killed, "--resume")
    part, whole = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert whole == "step-00000002.safetensors"
    assert re.fullmatch(r"\.step-00000004\.[a-z0-9_]{8}\.part", part)
    assert [line["step"] for line in bench.read_log(tmp_path / "killed")] == [1, 2, 3, 4]
    assert main([*killed, "--resume"]) == 0
    assert main(command(work, stage, tmp_path / "whole", *plan)) == 0
    # Other kernels in the other process round otherwise, and six steps enlarge that to some 1e-3; without AdamW's state
    # the losses would differ by 3e-2 at least.
    bench.assert_same_log(bench.read_log(tmp_path / "killed"), bench.read_log(tmp_path / "whole"), rel=1e-2)
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))
    written = sorted((tmp_path / "whole").glob("*.safetensors"))
    assert len(written) >= 3
    for path in written:
        found, expected = load_file(tmp_path / "killed" / path.name), load_file(path)
        assert found.keys() == expected.keys()
        apart = torch.cat([(found[name] - tensor).flatten() for name, tensor in expected.items()])
        # Six steps of AdamW move most weights by some 3e-3; those whose gradient is nothing but rounding differ.
        assert apart.square().mean().sqrt() < 2e-4, path.name


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["aniportrait-stage1", "apasco-stage1"])
def test_two_processes_learn_what_one_would_from_the_same_samples(
    work: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process takes both samples in turn, each with the random numbers of the process that would have it."""
    bench.in_two_processes("-m", "talking_portrait", *command(work, stage, tmp_path / "two", "--steps", "2"))
    trainer = STAGES[stage]
    loss = trainer.loss

    def loss_of_a_process(self: torch.nn.Module, batch: dict, step: int) -> torch.Tensor:
        loop.seed_everything(SEED, step, next(ranks))
        return loss(self, batch, step)

    def in_turn() -> Iterator[int]:
        while True:
            yield from (0, 1)

    ranks = in_turn()
    monkeypatch.setattr(trainer, "loss", loss_of_a_process)
    assert main(command(work, stage, tmp_path / "one", "--steps", "2", "--accumulate", "2")) == 0
    bench.assert_same_log(bench.read_log(tmp_path / "two"), bench.read_log(tmp_path / "one"))
