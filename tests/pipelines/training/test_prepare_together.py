"""Several `prepare` into one folder at once, ones that were killed, and videos of unusual names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.data.clips import is_own_clip, read_clips
from talking_portrait.pipelines.training.data.prepare import prepare

from .test_prepare import RECIPE, PortraitLandmarker, portrait, videos  # noqa: F401 (fixtures)


def once(at: int, happens):
    """Progress that does something at frame `at`, the first time it comes there."""
    left = [happens]

    def progress(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done == at and left:
            left.pop()()

    return progress


def test_one_video_prepared_twice_at_once_is_there_once(videos: Path, tmp_path: Path) -> None:  # noqa: F811
    def other() -> None:
        assert prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE) == 1

    assert prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE, progress=once(20, other)) == 1
    assert [clip.source for clip in read_clips(tmp_path)] == ["plain.mp4"]
    assert len(list((tmp_path / "clips").iterdir())) == 1


def test_one_that_is_cancelled_does_not_take_the_folder_of_another(videos: Path, tmp_path: Path) -> None:  # noqa: F811
    """It takes the folders away again that it has made, in which there is nothing yet."""

    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done == 20:
            assert prepare([videos / "plain.mp4"], folder, PortraitLandmarker(), RECIPE, progress=once(20, stop)) == 1

    def stop() -> None:
        (folder / "clips").rmdir()

    folder = tmp_path / "data"
    assert prepare([videos / "cut.mp4"], folder, PortraitLandmarker(), RECIPE, progress=cancel) == 3
    assert len(read_clips(folder)) == 3


def test_what_a_killed_run_left_goes_though_all_is_done(videos: Path, tmp_path: Path) -> None:  # noqa: F811
    prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE)
    left = tmp_path / ".clips.abcd1234.part"
    left.mkdir()
    (left / "talking_portrait.lock").touch()
    messages: list[str] = []
    prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE, say=messages.append)
    assert messages == ["plain.mp4: done before."]
    assert not left.exists()


def test_a_folder_that_goes_while_it_is_filled_is_one_sentence(videos: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "data"
    with pytest.raises(
        TalkingPortraitError, match=r"data can't be a training folder \(No such file or directory\); check"
    ):
        prepare(
            [videos / "plain.mp4"],
            folder,
            PortraitLandmarker(),
            RECIPE,
            progress=once(5, lambda: shutil.rmtree(folder)),
        )


@pytest.mark.skipif(os.name != "posix", reason="of POSIX's file names")
@pytest.mark.parametrize("name", [b"\xff\xfe", "\U0001f600".encode() * 62, "\u89c6".encode() * 83, b"a\xffb", b"-"])
def test_a_video_of_any_name_gives_clips_that_are_known_again(
    videos: Path,  # noqa: F811
    tmp_path: Path,
    name: bytes,
) -> None:
    video = tmp_path / os.fsdecode(name + b".mp4")
    shutil.copy(videos / "plain.mp4", video)
    folder = tmp_path / "data"
    messages: list[str] = []
    assert prepare([video], folder, PortraitLandmarker(), RECIPE) == 1
    assert prepare([video], folder, PortraitLandmarker(), RECIPE, say=messages.append) == 1
    assert messages == [f"{video.name}: done before."]
    (clip,) = read_clips(folder)
    assert is_own_clip(clip.folder)
    assert clip.person == video.stem
