"""Files are put in place completely, and never overwrite another."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.output_paths import file_to_write, new_file, put_in_place, remove_own, replacing


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
    with new_file(tmp_path / name) as file:
        file.partial.write_text("new")
    assert file.path == tmp_path / given
    assert names(tmp_path) == sorted([*there, given])
    assert all((tmp_path / other).read_text() == "other" for other in there)


def test_links_and_folders_take_a_name_too(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a_00001_.png").mkdir()
    with new_file(tmp_path / "a.png") as file:
        file.partial.write_text("new")
    assert file.path.name == "a_00002_.png"
    assert not (tmp_path / "nowhere.png").exists()


def test_a_name_is_free_again_when_nothing_came_of_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "a.png") as file:
        write_and_fail(file.partial)
    assert names(tmp_path) == []


def test_of_many_at_once_each_gets_its_own_name(tmp_path: Path) -> None:
    def write(number: int) -> str:
        with new_file(tmp_path / "a_00001_.txt") as file:
            file.partial.write_text(str(number))
        return file.path.name

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(write, range(40)))
    assert len(set(given)) == 40
    assert [(tmp_path / name).read_text() for name in given] == [str(number) for number in range(40)]


def test_without_hard_links_no_name_is_taken_twice_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    for number in range(3):
        with new_file(tmp_path / "a_00001_.txt") as file:
            file.partial.write_text(str(number))
    assert names(tmp_path) == ["a_00001_.txt", "a_00002_.txt", "a_00003_.txt"]
    assert (tmp_path / "a_00003_.txt").read_text() == "2"


def test_a_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("mine")
    path.chmod(0o444)
    with pytest.raises(TalkingPortraitError, match="a.mp4 is write-protected, so it is not replaced; give"):
        file_to_write(path)


def test_a_finished_folder_replaces_own_files_alone(tmp_path):
    made, place, own = tmp_path / "made", tmp_path / "crops", re.compile(r"\d\.png")
    for folder, names in ((made, ("0.png",)), (place, ("0.png", "1.png", "mine.txt"))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(folder.name)
    (place / "run").mkdir()
    put_in_place(made, place, own)
    assert sorted(path.name for path in place.iterdir()) == ["0.png", "mine.txt", "run"]
    assert (place / "0.png").read_text() == "made"
    remove_own(place, own)
    assert sorted(path.name for path in place.iterdir()) == ["mine.txt", "run"]


@pytest.mark.skipif(os.name != "posix", reason="of POSIX's links")
def test_own_files_are_not_removed_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.png").write_text("the only copy")
    (tmp_path / "crops").symlink_to("elsewhere")
    remove_own(tmp_path / "crops", re.compile(r"\d\.png"))
    assert (tmp_path / "elsewhere" / "0.png").read_text() == "the only copy"
