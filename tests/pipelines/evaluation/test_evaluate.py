"""Evaluations of small videos whose landmarks are drawn into them, and of pictures that change as they should."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.__main__ import main
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.evaluation.evaluate import evaluate
from talking_portrait.pipelines.evaluation.measures import KINDS, Kind, Measure
from talking_portrait.pipelines.evaluation.networks import Networks
from talking_portrait.pipelines.evaluation.report import Report, write_report
from talking_portrait.pipelines.evaluation.steadiness import seam, steadiness
from talking_portrait.pipelines.face.face import Face
from talking_portrait.pipelines.face.identity import FoundFace
from talking_portrait.pipelines.files.images import read_image
from talking_portrait.pipelines.files.sound import write_wav
from talking_portrait.pipelines.files.video import VideoWriter, open_video
from talking_portrait.pipelines.types import Audio, no_progress

from ...speaking_person import MarkLandmarker, Scene, speaking, write_video


def numbers(report: Report) -> dict[str, float | None]:
    return {measure.kind.name: measure.value for measure in report.measures}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "ann.mp4", speaking(3))


class Flat:
    """In the place of SyncNet: the same embedding for any lips and any sound."""

    def embed_sound(self, mfcc: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(mfcc), 4)

    def embed_lips(self, crops: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(crops), 4)


def mean_difference(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """In the place of LPIPS."""
    return (image - target).abs().mean((1, 2, 3))


@pytest.fixture(scope="module")
def report(video: Path) -> Report:
    networks = Networks(None, mean_difference, Flat())  # type: ignore[arg-type]
    return evaluate(video, None, MarkLandmarker(), reference=video, window=25, networks=networks)


def test_every_measure_of_a_video_that_is_its_own_reference(report: Report) -> None:
    found = numbers(report)
    assert list(found) == [kind.name for kind in KINDS]
    assert (found["frames"], found["frames without a face"], found["missing frames"]) == (75, 0, 0)
    assert found["duration difference"] == pytest.approx(0, abs=1)
    assert found["landmark distance"] == pytest.approx(0, abs=1e-3)
    assert found["mouth landmark distance"] == pytest.approx(0, abs=1e-3)
    assert found["opening correlation"] == pytest.approx(1)
    assert (found["LPIPS"], found["mouth LPIPS"], found["SyncNet offset"]) == (0, 0, 0)
    assert found["SyncNet distance"] == pytest.approx(0, abs=1e-3)
    why = {measure.kind.name: measure.why for measure in report.measures}
    assert why["closure F1"] == why["closure recall"] == "the reference's lips never close"
    assert found["opening deviation"] > 0.01  # type: ignore[operator]
    assert found["jitter"] == pytest.approx(0, abs=0.01)
    assert {name for name, value in found.items() if value is None} <= {
        "identity drift", "movement in silence", "dark inside the mouth", "teeth", "background change",
        "closure recall", "closure F1", "audio-lip lag",
    }  # fmt: skip
    assert why["audio-lip lag"].startswith("several lags fit about as well"), "these lips do not follow the speech"
    assert all((measure.value is None) == bool(measure.why) for measure in report.measures)


def test_other_lips_and_other_lengths_show_in_the_numbers(video: Path, tmp_path: Path) -> None:
    scenes = [replace(scene, opening=scene.opening / 4) for scene in speaking(2.6)]
    other = write_video(tmp_path / "other.mp4", scenes, sound=None)
    write_wav(tmp_path / "long.wav", Audio(torch.randn(1, 48000) * 0.1, 16000))
    found = numbers(evaluate(other, tmp_path / "long.wav", MarkLandmarker(), reference=video))
    assert (found["frames"], found["missing frames"]) == (65, 10)
    assert found["duration difference"] == pytest.approx(-400, abs=1)
    assert found["mouth landmark distance"] > 0.3  # type: ignore[operator]
    assert found["mouth landmark distance"] > 1.5 * found["landmark distance"]  # type: ignore[operator]
    assert found["window seams"] is None


def test_without_sound_and_reference_the_reason_stands_in_place_of_a_number(tmp_path: Path) -> None:
    quiet = write_video(tmp_path / "quiet.mp4", [Scene()] * 15, sound=None)
    why = {measure.kind.name: measure.why for measure in evaluate(quiet, None, MarkLandmarker()).measures}
    assert why["audio-lip correlation"] == why["missing frames"] == "no sound"
    assert why["closure F1"] == "needs a reference video"
    assert why["jaw slope"] == "the lips do not move"
    assert why["SyncNet offset"] == "needs SyncNet's file (models get evaluation)"
    assert why["LPIPS"] == "needs LPIPS' files (models get evaluation)"
    assert why["identity drift"] == "needs InsightFace's files (models get evaluation)"


class Trembling(MarkLandmarker):
    """The points of a still picture, as they tremble from frame to frame."""

    def faces(self, image: np.ndarray, min_confidence: float) -> list[Face]:
        noise = np.random.default_rng(self.calls).normal(0, 0.02, (478, 3))
        return [replace(face, points=face.points + noise) for face in super().faces(image, 0.5)]


def test_lips_of_a_still_picture_go_with_nothing(tmp_path: Path, video: Path) -> None:
    path = write_video(tmp_path / "still.mp4", [Scene(opening=0.4)] * 52)
    found = evaluate(path, None, Trembling(), reference=video).measures
    why = {measure.kind.name: measure.why for measure in found if measure.why}
    names = ("audio-lip correlation", "audio-lip lag", "opening and width", "jaw slope", "opening correlation")
    assert {why.get(name) for name in names} == {"the lips do not move"}


def test_frames_without_the_face_are_counted(tmp_path: Path) -> None:
    scenes = [Scene(persons=0 if 10 <= number < 15 else 1) for number in range(50)]
    path = write_video(tmp_path / "gap.mp4", scenes)
    assert numbers(evaluate(path, None, MarkLandmarker()))["frames without a face"] == pytest.approx(10, abs=2.1)


@pytest.mark.parametrize(
    ("scenes", "options", "words"),
    [
        ([Scene(persons=0)] * 12, {}, "shows no face that can be found, so there is nothing to measure; give one of"),
        ([Scene()] * 4, {}, "is too short to measure its movement: it has 4 of at least 10 frames; give a longer one."),
        ([Scene()] * 12, {"window": -1}, "The window is -1 frames, but 0 (not known) to 10000 is expected."),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, scenes: list[Scene], options: dict, words: str) -> None:
    path = write_video(tmp_path / "video.mp4", scenes)
    with pytest.raises(TalkingPortraitError, match=words.replace("(", r"\(").replace(")", r"\)")):
        evaluate(path, None, MarkLandmarker(), **options)


class Recogniser:
    """A recogniser whose embedding turns away by 90 degrees over `pictures` calls."""

    def __init__(self, pictures: int) -> None:
        self.pictures, self.calls = pictures, 0

    def faces(self, picture: torch.Tensor) -> list[FoundFace]:
        angle = np.pi / 2 * self.calls / max(self.pictures - 1, 1)
        self.calls += 1
        return [FoundFace(np.array([0, 0, 9, 9]), np.array([np.cos(angle), np.sin(angle)], np.float32))]


def test_identity_that_turns_into_another_drifts(video: Path) -> None:
    silence = Audio(torch.zeros(1, 48000), 16000)
    networks = Networks(Recogniser(100_000), None, Flat())  # type: ignore[arg-type]
    steady = evaluate(video, silence, MarkLandmarker(), networks=networks)
    turning = evaluate(video, None, MarkLandmarker(), networks=Networks(Recogniser(3)))  # type: ignore[arg-type]
    assert numbers(steady)["identity drift"] == pytest.approx(0, abs=1e-3)
    assert numbers(turning)["identity drift"] == pytest.approx(1, abs=1e-3)
    why = {measure.kind.name: measure.why for measure in steady.measures}
    names = ("audio-lip correlation", "audio-lip lag", "movement in silence", "SyncNet distance", "SyncNet offset")
    assert {why[name] for name in names} == {"the sound is silent"}, "which lips can't be measured by"


def painted(path: Path, frames: np.ndarray) -> Path:
    with VideoWriter(path, frames.shape[1:3], open_rate := 25, crf=0) as writer:  # type: ignore[arg-type]
        assert open_rate == 25
        writer.write(frames)
    return path


def test_flicker_background_and_seams_are_those_of_the_pictures(tmp_path: Path) -> None:
    """The face's box flickers by 40 levels, all else is still but for a change of 20 levels at frame 30."""
    frames = np.full((60, 96, 96, 3), 100, np.uint8)
    frames[::2, 40:56, 40:56] += 40
    frames[30:] += 20
    still = steadiness(open_video(painted(tmp_path / "still.mp4", frames)), (38, 38, 58, 58), window=30, expected=0,
                       progress=no_progress)  # fmt: skip
    assert still.flicker.jitter < 1.0
    assert still.background == pytest.approx(20 * 30 / 59, abs=1)
    assert still.seam > 10
    assert still.flicker.drift == pytest.approx(20, abs=1)
    frames[::2, :20] += 10
    flickering = steadiness(open_video(painted(tmp_path / "flicker.mp4", frames)), (38, 38, 58, 58), window=30,
                            expected=0, progress=no_progress)  # fmt: skip
    assert flickering.flicker.borders > 5
    assert flickering.flicker.jitter == pytest.approx(still.flicker.jitter + 10 * 20 / 95, abs=0.5)


def test_a_still_video_has_no_seam_and_a_steady_one_hardly_any() -> None:
    assert seam(np.zeros(30), 25) == 1
    assert seam(np.full(30, 2.0), 25) == pytest.approx(1)
    assert seam(np.where(np.arange(30) == 12, 9.0, 3.0), 25) == pytest.approx(3)


@pytest.mark.parametrize(
    ("low", "high", "value", "place"),
    [(1, 2, 0.5, "below"), (1, 2, 1.5, "within"), (1, 2, 3, "above"), (None, 2, -9, "within"), (None, None, 1, ""),
     (1, None, 0.5, "below"), (1, None, 9, "within"), (1, 2, None, "")],
)  # fmt: skip
def test_a_value_lies_below_within_or_above_the_range(
    low: float | None, high: float | None, value: float | None, place: str
) -> None:
    measure = Measure(Kind("it", "", "", low, high), value)
    assert measure.place == place
    assert measure.range == {(1, 2): "1 to 2", (None, 2): "up to 2", (1, None): "from 1 on"}.get((low, high), "")


def test_tables_and_picture_say_the_same(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path, report)
    table = json.loads((tmp_path / "evaluation.json").read_text())["measures"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "evaluation.csv").read_text())))
    assert [entry["measure"] for entry in table] == [row["measure"] for row in rows] == [kind.name for kind in KINDS]
    for entry, row in zip(table, rows, strict=True):
        assert (row["value"] == "") == (entry["value"] is None)
        assert row["value"] == "" or float(row["value"]) == pytest.approx(entry["value"], rel=1e-4, abs=1e-6)
        assert entry["measure"] in report.text()
    picture = read_image(tmp_path / "curves.png")
    assert picture.shape == (960, 1280, 3)
    assert picture.std() > 0.05


def test_a_table_that_does_not_fit_is_named(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TalkingPortraitError, match=r"evaluation.json can't be written \(No space left on device\)"):
        write_report(tmp_path, report)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_the_table_and_writes_the_folder(video: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from talking_portrait.pipelines.face import landmarks

    monkeypatch.setattr(landmarks, "open_landmarker", lambda path=None: MarkLandmarker())
    folder = tmp_path / "new" / "report"
    assert main(["evaluate", str(video), "--reference", str(video), "--out", str(folder)]) == 0
    printed, said = capsys.readouterr()
    assert "closure F1" in printed
    assert "real speakers" in printed
    assert f"{folder}: evaluation.json, evaluation.csv, curves.png" in said
    assert sorted(path.name for path in folder.iterdir()) == ["curves.png", "evaluation.csv", "evaluation.json"]
    assert main(["evaluate", str(video), "--out", str(video)]) == 2
    assert "is a file; name another with --out." in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def test_every_measure_is_defined_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    defined = {
        name for line in text.splitlines() if line.startswith("| ") for name in line.split(" | ")[0][2:].split(", ")
    }
    assert {kind.name for kind in KINDS} <= defined
