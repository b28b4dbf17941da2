"""Files are put in place completely, and never overwrite another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from talking_portrait.pipelines.files.output_paths import free_name, replacing, unfinished


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(path: Path) -> None:
    path.write_text("ne")
    raise ZeroDivisionError


def test_a_file_is_replaced_only_by_what_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "log.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as partial:
        write_and_fail(partial)
    assert target.read_text() == "old"
    with replacing(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["log.txt"]


@pytest.mark.parametrize(
    ("name", "there", "given"),
    [
        ("a.png", [], "a.png"),
        ("a.png", ["a.png"], "a_00001_.png"),
        ("a.png", ["a.png", "a_00001_.png"], "a_00002_.png"),
        ("a_00001_.png", ["a_00001_.png"], "a_00002_.png"),
        ("a_00009_.png", ["a_00009_.png"], "a_00010_.png"),
        ("a_99999_.png", ["a_99999_.png"], "a_100000_.png"),
        ("a_1_.png", ["a_1_.png"], "a_1__00001_.png"),
        ("a", ["a"], "a_00001_"),
    ],
)
def test_a_name_that_is_taken_is_counted_on(tmp_path: Path, name: str, there: list[str], given: str) -> None:
    for other in there:
        (tmp_path / other).write_text("other")
    with free_name(tmp_path / name) as place:
        place.write_text("new")
    assert place == tmp_path / given
    assert names(tmp_path) == sorted([*there, given])
    assert all((tmp_path / other).read_text() == "other" for other in there)


def test_links_and_folders_take_a_name_too(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a_00001_.png").mkdir()
    with free_name(tmp_path / "a.png") as place:
        assert place.name == "a_00002_.png"
    assert not (tmp_path / "nowhere.png").exists()


def test_a_name_is_free_again_when_nothing_came_of_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), free_name(tmp_path / "a.png") as place:
        write_and_fail(place)
    assert names(tmp_path) == []


def test_of_many_at_once_each_gets_its_own_name(tmp_path: Path) -> None:
    def write(number: int) -> str:
        with free_name(tmp_path / "a_00001_.txt") as place:
            place.write_text(str(number))
        return place.name

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(write, range(40)))
    assert len(set(given)) == 40
    assert [(tmp_path / name).read_text() for name in given] == [str(number) for number in range(40)]


def test_long_names_that_differ_in_their_number_are_not_written_to_one_file(tmp_path: Path) -> None:
    start = "a very long start of a name that many files have in common"
    assert unfinished(tmp_path / f"{start}_00001_.mp4") != unfinished(tmp_path / f"{start}_00002_.mp4")
