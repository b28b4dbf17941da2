"""The comparison itself: what it accepts, what it refuses, and which runner belongs to which golden."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from . import goldens
from .goldens import Golden, find_goldens, find_runner, runner


@pytest.fixture
def example(tmp_path: Path) -> Golden:
    folder = tmp_path / "acme" / "goldens"
    folder.mkdir(parents=True)
    meta = {
        "case": "wave_two",
        "tol": {"atol": 0.1, "rtol": 0.01},
        "subsampled": {"big": {"shape": [4, 5], "K": 8, "step": 3}},
    }
    (folder / "wave_7.json").write_text(json.dumps(meta))
    big = np.arange(20, dtype=np.float32)
    tensors: dict[str, np.ndarray] = {
        "x": np.array([1.0, 100.0], np.float32),
        "odd": np.array([np.inf, np.nan], np.float32),
        "big.vals": big[(np.arange(8) * 3) % 20],
        "big.stat": np.array([9.5, big.std(), 0.0, 19.0, 9.5]),
    }
    save_file(tensors, folder / "wave_7.safetensors")
    (tmp_path / "acme" / "weights.py").write_text("def one(seed):\n    return seed + 1\n")
    return next(find_goldens(tmp_path))


def test_tolerance_is_absolute_plus_relative(example: Golden) -> None:
    example.compare("x", np.array([1.1, 101.0]))
    assert example.worst["x"] == pytest.approx(1 / 1.1)
    with pytest.raises(AssertionError, match=r"x\[1\] is 101.2, expected 100"):
        example.compare("x", np.array([1.0, 101.2]))


@pytest.mark.parametrize("value", [[np.nan, 100.0], [1.0, np.inf]])
def test_a_result_that_is_not_finite_never_passes(example: Golden, value: list[float]) -> None:
    with pytest.raises(AssertionError):
        example.compare("x", np.array(value))


def test_stored_infinities_equal_the_same_infinities(example: Golden) -> None:
    example.compare("odd", np.array([np.inf, np.nan]))
    with pytest.raises(AssertionError):
        example.compare("odd", np.array([-np.inf, np.nan]))


def test_shape_must_agree(example: Golden) -> None:
    with pytest.raises(AssertionError, match="shape"):
        example.compare("x", np.ones((1, 2)))


def test_single_numbers_compare_too(example: Golden) -> None:
    example.check("frames", 32, 32)
    with pytest.raises(AssertionError, match="frames.* is 31, expected 32"):
        example.check("frames", 31, 32)


def test_a_sampled_tensor_is_compared_at_its_samples(example: Golden) -> None:
    example.compare("big", np.arange(20.0).reshape(4, 5))
    with pytest.raises(AssertionError, match=r"big.vals\[2\]"):
        example.compare("big", np.arange(20.0).reshape(4, 5) + 3 * (np.arange(20).reshape(4, 5) == 6))


def test_a_sampled_tensor_is_compared_beside_its_samples_by_its_statistics(example: Golden) -> None:
    with pytest.raises(AssertionError, match=r"big.stat\[3\] is 40, expected 19"):
        example.compare("big", np.where(np.arange(20) == 17, 40.0, np.arange(20.0)).reshape(4, 5))


def test_what_a_golden_does_not_store_is_passed_over(example: Golden) -> None:
    example.compare("y", np.zeros(3))
    assert not example.worst


@pytest.mark.parametrize(
    ("name", "stride", "size"),
    [("picture_s4", 4, (3, 90, 61)), ("picture_ds3", 3, (3, 7, 5)), ("picture", 2, (3, 8, 9))],
)
def test_a_thinned_tensor_is_compared_at_the_places_that_are_kept(
    example: Golden, name: str, stride: int, size: tuple[int, ...]
) -> None:
    whole = torch.rand(size, generator=torch.Generator().manual_seed(3))
    example.tensors[name] = whole[:, ::stride, ::stride].clone()
    example.compare(name, example.thinned(name, whole), atol=0.0)
    example.tensors[name][2, -1, -1] += 0.01
    with pytest.raises(AssertionError, match=rf"{name}\[2, "):
        example.compare(name, example.thinned(name, whole), atol=1e-3)


def test_sizes_that_no_thinning_explains_do_not_pass(example: Golden) -> None:
    example.tensors["wide"] = torch.zeros(3, 8)
    with pytest.raises(AssertionError, match="shape"):
        example.compare("wide", example.thinned("wide", torch.zeros(3, 7)))


def test_an_overall_comparison_lets_single_values_be_out(example: Golden) -> None:
    example.tensors["flat"] = torch.full((4, 25), 2.0)
    value = example.tensors["flat"].clone()
    value[1, 1] = 3.0
    example.compare_overall("flat", value, mean=0.011, rms=0.051)
    with pytest.raises(AssertionError, match=r"flat mean error\[\] is 0.01"):
        example.compare_overall("flat", value, mean=0.009)
    with pytest.raises(AssertionError, match=r"flat rms error\[\] is 0.05"):
        example.compare_overall("flat", value, rms=0.049)
    with pytest.raises(AssertionError, match="shape"):
        example.compare_overall("flat", value[:1], mean=1.0)


def test_numbers_in_prose_are_found_or_the_golden_fails(example: Golden) -> None:
    example.meta["note"] = "rows 3 and 7"
    assert example.matched("note", r"rows (\d+) and (\d+)").groups() == ("3", "7")
    with pytest.raises(AssertionError, match="'note' should match"):
        example.matched("note", r"columns (\d+)")


def test_a_trap_must_not_be_equalled(example: Golden) -> None:
    example.differs("x", np.array([1.0, 90.0]))
    with pytest.raises(AssertionError, match="trap"):
        example.differs("x", np.array([1.0, 100.0]))


def test_a_run_overlooks_nothing(example: Golden) -> None:
    with pytest.raises(AssertionError, match="compared nothing"):
        example.run(lambda g: None)
    with pytest.raises(AssertionError, match="nothing was compared with big.stat, big.vals, odd"):
        example.run(lambda g: g.compare("x", np.array([1.0, 100.0])))


def test_inputs_need_no_comparison_but_outputs_do(example: Golden) -> None:
    def reads(golden: Golden) -> None:
        for name in golden.tensors:
            golden.tensor(name)
        golden.check("frames", 32, 32)

    example.run(reads)
    for name in ("out.y", "trap.y"):
        example.tensors[name] = torch.ones(2)
        with pytest.raises(AssertionError, match=f"nothing was compared with {name}"):
            example.run(reads)
        del example.tensors[name]


def test_a_tensor_that_the_json_lists_must_be_there(example: Golden) -> None:
    example.meta["tensors"] = {"x": {}, "y": {}}
    with pytest.raises(AssertionError, match="lists tensors that are not stored: y"):
        example.run(lambda g: g.leave_out(*g.tensors, reason="none"))


def test_weights_come_from_the_goldens_own_folder(example: Golden) -> None:
    assert example.weights.one(4) == 5


def test_the_longest_name_wins_and_the_goldens_own_name_counts(
    example: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(goldens, "_runners", {})
    assert find_runner(example) is None
    short = runner("acme", "wave")(lambda g: None)
    assert find_runner(example) is short
    long = runner("acme", "wave_two")(lambda g: None)
    runner("other", "wave_two_x")(lambda g: None)
    assert find_runner(example) is long
    with pytest.raises(ValueError, match="two runners"):
        runner("acme", "wave")(lambda g: None)


def test_a_golden_of_another_name_is_found_by_its_module(example: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goldens, "_runners", {})
    example.meta["module"] = "oscillator with two waves"
    by_module = runner("acme", "oscillator")(lambda g: None)
    assert find_runner(example) is by_module
