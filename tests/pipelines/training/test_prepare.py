"""From videos to clips: where they are cut, what is written, and that what is done is not done again."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from talking_portrait.__main__ import main
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.face import Face
from talking_portrait.pipelines.face.shots import GAP, Frame, find_clips, find_cuts, thumbnail
from talking_portrait.pipelines.files.example import example_portrait, example_speech
from talking_portrait.pipelines.files.video import VideoWriter
from talking_portrait.pipelines.training.data import prepare as training_data
from talking_portrait.pipelines.training.data.clips import read_clips
from talking_portrait.pipelines.training.data.prepare import Recipe, find_videos, prepare
from talking_portrait.pipelines.types import Audio

TASK = Path(__file__).parents[4] / "shared" / "data" / "face_landmarker.task"
RECIPE = Recipe(Fraction(25), 128, "face", 0.4, 1.0)
SIZE = 96


class PortraitLandmarker:
    """Returns the shipped portrait's landmarks for every picture, except a dark one, which has no face."""

    name = "portrait"

    def __init__(self) -> None:
        self.points = example_portrait()[1].points[0] * SIZE / 512

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        if picture[:, :, 2].mean() < 60:  # a dark frame has no face
            return []
        points = self.points * picture.shape[0] / SIZE
        return [Face(points, np.full(52, 0.25, np.float32), 0.9)]


def write_video(path: Path, frames: list[np.ndarray], *, sound: bool = True) -> Path:
    seconds = len(frames) / 25
    speech = Audio(example_speech().waveform[:, : round(16000 * seconds)], 16000) if sound else None
    with VideoWriter(path, (SIZE, SIZE), Fraction(25), speech) as video:
        for frame in frames:
            video.write(frame)
    return path


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    from PIL import Image

    picture = (example_portrait()[0] * 255).byte().numpy()
    return np.array(Image.fromarray(picture).resize((SIZE, SIZE)))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, portrait: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    other = 255 - portrait[:, ::-1] // 2  # another shot
    write_video(folder / "plain.mp4", [portrait] * 15)
    write_video(folder / "cut.mp4", [portrait] * 15 + [other] * 15, sound=False)
    write_video(folder / "nobody.mp4", [np.zeros_like(portrait)] * 15)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_clips_are_written_and_reported(videos: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    ticks: list[int] = []
    count = prepare(
        find_videos([videos]),
        tmp_path,
        PortraitLandmarker(),
        RECIPE,
        say=messages.append,
        progress=lambda done, total, preview=None: ticks.append(done),
    )
    assert count == 3
    broken, cut, without_face, plain = messages
    assert broken.startswith("broken.mp4: left out. broken.mp4 ")
    assert cut.startswith("cut.mp4: 2 clips") and cut.endswith("of 1.2 s in all, without sound.")  # noqa: PT018
    assert without_face == "nobody.mp4: no face is seen for 0.4 s on end without a cut, so nothing was kept."
    assert plain == "plain.mp4: 1 clip of 0.6 s in all."
    assert len(ticks) == 2 * 15 + 2 * 30 + 15

    first, second, whole = read_clips(tmp_path)
    assert (first.frames, second.frames, second.start) == (15, 15, 15)
    assert first.person == "cut"
    assert (whole.person, whole.fps, whole.size, whole.frames) == ("plain", 25, 128, 15)
    assert whole.has_speech
    assert not first.has_speech
    assert len(whole.array("speech")) == 15 * 640
    assert whole.array("points").shape == (15, 478, 3)
    assert whole.array("vertices").shape == (15, 468, 3)
    assert whole.array("matrix").shape == (15, 4, 4)
    assert whole.array("blendshapes").shape == (15, 52)
    assert whole.picture(14).shape == (128, 128, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".manifest.lock", "clips", "manifest.json"]


def test_points_lie_where_they_lay_in_the_whole_picture(videos: Path, tmp_path: Path, portrait: np.ndarray) -> None:
    prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE)
    (clip,) = read_clips(tmp_path)
    cut, whole = clip.array("points")[3], PortraitLandmarker().points
    picture = clip.picture(3)
    for index in (1, 33, 263, 61, 291, 152):
        x, y = cut[index, :2]
        u, v = whole[index, :2]
        near = picture[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].mean(axis=(0, 1))
        there = portrait[int(v) - 1 : int(v) + 2, int(u) - 1 : int(u) + 2].mean(axis=(0, 1))
        assert np.abs(near - there).max() < 30, index


def test_what_is_done_is_skipped_and_what_was_begun_is_begun_again(videos: Path, tmp_path: Path) -> None:
    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done == 50:
            raise KeyboardInterrupt

    both = [videos / "plain.mp4", videos / "cut.mp4"]
    with pytest.raises(KeyboardInterrupt):
        prepare(both, tmp_path, PortraitLandmarker(), RECIPE, progress=cancel)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".manifest.lock", "clips", "manifest.json"]
    messages: list[str] = []
    assert prepare(both, tmp_path, PortraitLandmarker(), RECIPE, say=messages.append) == 3
    assert messages[0] == "plain.mp4: done before."
    assert messages[1].startswith("cut.mp4: 2 clips")
    assert len(read_clips(tmp_path)) == 3
    newer = tmp_path / "plain.mp4"
    shutil.copy(videos / "plain.mp4", newer)
    assert prepare([newer], tmp_path, PortraitLandmarker(), RECIPE, person="ann") == 4
    assert {clip.person for clip in read_clips(tmp_path)} == {"plain", "cut", "ann"}


# --- what lies in the folder already ---


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(folder: Path, *names: str) -> dict[str, bytes]:
    """Files that are not the program's; their contents, by path."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the only copy of {name}")
    return contents(folder)


def test_other_files_in_the_folder_stay_and_are_no_clips(videos: Path, tmp_path: Path) -> None:
    kept = put(
        tmp_path / "data",
        "clips/anna/take1.mp4",
        "clips/notes.txt",
        "clips/.DS_Store",
        ".scratch/plan.txt",
        ".prepare-12345678/plan.txt",
        "speech.npy",
    )
    (tmp_path / "data" / "clips" / "elsewhere").symlink_to(tmp_path / "data" / "clips" / "anna")
    with pytest.raises(TalkingPortraitError, match="holds no prepared clips"):
        read_clips(tmp_path / "data")
    for _ in range(2):
        assert prepare(find_videos([videos / "plain.mp4"]), tmp_path / "data", PortraitLandmarker(), RECIPE) == 1
        assert kept.items() <= contents(tmp_path / "data").items()
        assert (tmp_path / "data" / "clips" / "elsewhere").is_symlink()
        assert [clip.person for clip in read_clips(tmp_path / "data")] == ["plain"]


@pytest.mark.parametrize("name", ["speech_features.npy", "heard.npy"])
def test_clips_stay_when_the_manifest_is_lost_and_are_replaced_by_equal_ones(
    videos: Path, tmp_path: Path, name: str
) -> None:
    prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE)
    (clip,) = read_clips(tmp_path)
    (tmp_path / "manifest.json").unlink()
    prepare([videos / "broken.mp4"], tmp_path, PortraitLandmarker(), RECIPE)
    assert read_clips(tmp_path) == [clip]
    np.save(clip.folder / name, np.zeros(3))
    (tmp_path / "manifest.json").unlink(missing_ok=True)
    assert prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE) == 1
    assert read_clips(tmp_path) == [clip]
    assert not clip.has("speech_features")
    assert not (clip.folder / name).exists()


def test_clips_of_a_changed_video_are_replaced_but_not_what_was_put_beside_them(videos: Path, tmp_path: Path) -> None:
    video, data = tmp_path / "talk.mp4", tmp_path / "data"
    shutil.copy(videos / "cut.mp4", video)
    prepare([video], data, PortraitLandmarker(), RECIPE)
    first, second = read_clips(data)
    put(first.folder, "notes.txt", "frames/cover.png")
    (second.folder / "frames" / "000001.jpg").unlink()
    (second.folder / "frames" / "000001.jpg").symlink_to(video)
    shutil.copy(videos / "plain.mp4", video)
    assert prepare([video], data, PortraitLandmarker(), RECIPE) == 1
    (clip,) = read_clips(data)
    assert (clip.frames, clip.source) == (15, "talk.mp4")
    assert sorted(contents(first.folder)) == ["frames/cover.png", "notes.txt"]
    assert not second.folder.exists()
    assert video.is_file()


def test_a_manifest_can_not_have_others_folders_removed(videos: Path, tmp_path: Path) -> None:
    video, data = tmp_path / "talk.mp4", tmp_path / "data"
    shutil.copy(videos / "plain.mp4", video)
    prepare([video], data, PortraitLandmarker(), RECIPE)
    (clip,) = read_clips(data)
    named = ["../../precious", "..", "", "anna", "anna-abcdef-000", clip.folder.name, "linked-abcdef-000"]
    kept = put(tmp_path / "precious", "a.txt") and put(data / "clips", "anna/b.txt", "anna-abcdef-000/clip.json")
    (data / "clips" / "linked-abcdef-000").symlink_to(shutil.copytree(clip.folder, tmp_path / "copied-abcdef-000"))
    path = data / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["videos"][str(video)]["clips"] = named
    path.write_text(json.dumps(manifest))
    shutil.copy(videos / "cut.mp4", video)
    assert prepare([video], data, PortraitLandmarker(), RECIPE) == 2
    assert (tmp_path / "precious" / "a.txt").is_file()
    assert {name: kept[name] for name in ("anna/b.txt", "anna-abcdef-000/clip.json")}.items() <= contents(
        data / "clips"
    ).items()
    assert (tmp_path / "copied-abcdef-000" / "clip.json").is_file()
    assert not clip.folder.exists()


@pytest.mark.parametrize("text", ["[]", '{"name": "my web site"}', "{}", "not json", '{"recipe": {}, "videos": [1]}'])
def test_a_manifest_of_something_else_is_left_alone(videos: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(TalkingPortraitError, match="is no list of prepared videos, so it was left alone"):
        prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE)
    assert (tmp_path / "manifest.json").read_text() == text


def test_a_folder_in_a_clips_place_is_reported(videos: Path, tmp_path: Path) -> None:
    prepare([videos / "plain.mp4"], tmp_path / "first", PortraitLandmarker(), RECIPE)
    (clip,) = read_clips(tmp_path / "first")
    kept = put(tmp_path / "data", f"clips/{clip.folder.name}/mine.txt")
    messages: list[str] = []
    assert prepare([videos / "plain.mp4"], tmp_path / "data", PortraitLandmarker(), RECIPE, say=messages.append) == 0
    assert "is in the way, but no clip of this program; move it elsewhere." in messages[0]
    assert contents(tmp_path / "data") == kept | {".manifest.lock": b""}


def test_a_damaged_clip_is_still_an_error(videos: Path, tmp_path: Path) -> None:
    prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE)
    (clip,) = read_clips(tmp_path)
    for damage in (lambda path: path.write_text("{"), Path.unlink):
        damage(clip.folder / "clip.json")
        with pytest.raises(TalkingPortraitError, match="is no prepared clip"):
            read_clips(tmp_path)


def test_what_a_killed_run_left_is_removed_and_what_a_running_one_works_on_is_not(videos: Path, tmp_path: Path) -> None:
    killed = put(tmp_path, ".clips.abcd1234.part/talking_portrait.lock", ".clips.abcd1234.part/faces.raw")
    running = tmp_path / ".clips.abcd5678.part"
    running.mkdir()
    with FileLock(running / "talking_portrait.lock"):
        prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE)
        assert running.is_dir()
    assert not killed.keys() & contents(tmp_path).keys()
    changed = (videos / "plain.mp4").with_name("again.mp4")
    changed.write_bytes((videos / "plain.mp4").read_bytes())
    prepare([changed], tmp_path, PortraitLandmarker(), RECIPE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".manifest.lock", "clips", "manifest.json"]


def test_two_runs_at_once_do_not_interfere(videos: Path, tmp_path: Path) -> None:
    """One begins and ends while the other is running."""

    def other(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done == 20:
            assert prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE) == 1

    assert prepare([videos / "cut.mp4"], tmp_path, PortraitLandmarker(), RECIPE, progress=other) == 3
    assert sorted(clip.source for clip in read_clips(tmp_path)) == ["cut.mp4", "cut.mp4", "plain.mp4"]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    named = [name for video in manifest["videos"].values() for name in video["clips"]]
    assert sorted(named) == [clip.folder.name for clip in read_clips(tmp_path)]


def test_a_cancelled_run_leaves_nothing(videos: Path, tmp_path: Path) -> None:
    def cancel(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([videos / "cut.mp4"], tmp_path / "new" / "data", PortraitLandmarker(), RECIPE, progress=cancel)
    assert list(tmp_path.iterdir()) == []
    put(tmp_path, "data/mine.txt")
    with pytest.raises(KeyboardInterrupt):
        prepare([videos / "cut.mp4"], tmp_path / "data", PortraitLandmarker(), RECIPE, progress=cancel)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine.txt"]


def test_one_folder_has_one_recipe(videos: Path, tmp_path: Path) -> None:
    prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE)
    with pytest.raises(TalkingPortraitError, match=r"prepared by another recipe \(fps 25.*fps 30"):
        prepare([], tmp_path, PortraitLandmarker(), Recipe())
    assert json.loads((tmp_path / "manifest.json").read_text())["recipe"]["fps"] == "25"


def test_bad_input_is_reported_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for options, words in (
        (["--size", "100"], "multiple of 8 from 128"),
        (["--shortest", "9", "--longest", "3"], "9.0 to 3.0 s"),
        (["--fps", "0"], "frame rate is 0"),
    ):
        assert main(["prepare", str(tmp_path), "--out", str(tmp_path / "out"), *options]) == 2
        assert words in capsys.readouterr().err
    assert main(["prepare", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "holds no video" in capsys.readouterr().err
    with pytest.raises(TalkingPortraitError, match="holds no prepared clips; make some with"):
        read_clips(tmp_path)
    (tmp_path / "a.mp4").touch()
    for out in (tmp_path, tmp_path / "new" / "out"):
        assert main(["prepare", str(tmp_path), "--out", str(out)]) == 2
        assert "name a folder outside of it with --out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mp4"]


def test_a_real_face_is_found_by_the_command(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if not TASK.is_file():
        pytest.skip(f"no face_landmarker.task at {TASK}")
    pytest.importorskip("mediapipe")
    command = ["prepare", str(videos / "plain.mp4"), "--out", str(tmp_path), "--landmarks", str(TASK)]
    assert main([*command, "--shortest", "0.4", "--size", "128"]) == 0
    assert "1 clip of 0.6 s" in capsys.readouterr().out
    (clip,) = read_clips(tmp_path)
    assert clip.frames == 18  # 15 frames of 25 a second are 18 of 30
    points = clip.array("points")
    eyes = np.linalg.norm(points[:, 33, :2] - points[:, 263, :2], axis=1)
    assert (eyes > 20).all()
    assert (np.abs(points[:, :, :2].mean(axis=1) - 64) < 20).all()


# --- where clips begin and end ---


def frames_of(text: str) -> list[Frame]:
    """A letter for each frame: "." shows the face, "-" does not, "|" begins another shot."""
    return [Frame(0.5 if c == "|" else 0.001, None if c == "-" else (50.0, 50.0), 20.0) for c in text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("..........", [(0, 10)]),
        (".....|.....", [(0, 5), (5, 11)]),
        ("..---...", [(0, 8)]),
        ("..----...", [(0, 2), (6, 9)]),
        ("---....--", [(3, 7)]),
        (".|.", [(1, 3)]),
        ("-----", []),
        ("", []),
        ("." * 25, [(0, 8), (8, 16), (16, 25)]),
    ],
)
def test_clips_end_at_cuts_and_where_the_face_is_lost(text: str, expected: list[tuple[int, int]]) -> None:
    frames = frames_of(text)
    assert find_clips(frames, find_cuts(frames, 25), 2, 11) == expected


@settings(max_examples=60)
@given(st.text(alphabet="....|-", max_size=120), st.integers(1, 6), st.integers(6, 30))
def test_clips_never_overlap_and_always_show_the_face(text: str, shortest: int, longest: int) -> None:
    frames = frames_of(text)
    cuts = find_cuts(frames, 25)
    clips = find_clips(frames, cuts, shortest, longest)
    assert all(a[1] <= b[0] for a, b in zip(clips, clips[1:], strict=False))
    for start, end in clips:
        assert shortest <= end - start <= longest
        assert not [cut for cut in cuts if start < cut < end]
        assert "-" * (GAP + 1) not in text[start:end]


def test_motion_is_no_cut_and_another_face_is_one() -> None:
    moving = [Frame(0.05, (50.0 + i, 50.0), 20.0) for i in range(30)]
    assert find_cuts(moving, 25) == []
    moving[20] = Frame(0.05, (90.0, 50.0), 20.0)
    assert find_cuts(moving, 25) == [20, 21]
    np.testing.assert_allclose(thumbnail(np.full((40, 60, 3), 255, np.uint8)), np.ones((32, 32)), atol=1e-6)


def test_landmarks_without_irises_are_trained_on(videos: Path, tmp_path: Path) -> None:
    class WithoutIrises(PortraitLandmarker):
        def __init__(self) -> None:
            super().__init__()
            self.points = self.points[:468]

    prepare([videos / "plain.mp4"], tmp_path, WithoutIrises(), RECIPE)
    (clip,) = read_clips(tmp_path)
    assert clip.array("points").shape == (15, 468, 3)


@pytest.mark.parametrize("left", [(), ("clip.json",)])
def test_a_clip_whose_removal_was_interrupted_is_prepared_anew(videos: Path, tmp_path: Path, left: tuple[str]) -> None:
    prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE)
    (clip,) = read_clips(tmp_path)
    for path in sorted(clip.folder.rglob("*"), reverse=True):
        if path.name not in left:
            path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "manifest.json").unlink()
    assert prepare([videos / "plain.mp4"], tmp_path, PortraitLandmarker(), RECIPE) == 1
    assert [found.folder for found in read_clips(tmp_path)] == [clip.folder]
    assert clip.picture(14).shape == (128, 128, 3)


def test_clips_of_a_former_state_of_a_video_go_before_its_entry_changes(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a run that is killed between leaves none that no list has."""
    video = tmp_path / "v.mp4"
    shutil.copy(videos / "plain.mp4", video)
    prepare([video], tmp_path / "out", PortraitLandmarker(), RECIPE)
    shutil.copy(videos / "cut.mp4", video)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training_data, "replacing", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare([video], tmp_path / "out", PortraitLandmarker(), RECIPE)
    assert prepare([video], tmp_path / "out", PortraitLandmarker(), RECIPE) == 2
    assert len(read_clips(tmp_path / "out")) == 2
