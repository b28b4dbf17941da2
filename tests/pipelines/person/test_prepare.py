"""A video of one person becomes a folder: what is in it, what is left out, and what can't be used."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from talking_portrait.models.speech.mouth_network import MouthConfig, MouthNetwork
from talking_portrait.pipelines.audio.mouth_states import MouthEncoder, shipped_encoder
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.ffmpeg import executable
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.person import prepare as prepare_module
from talking_portrait.pipelines.person.person import (
    CROPS,
    ENCODER,
    META,
    SOUND,
    SPEECH,
    TRACK,
    USABLE,
    Person,
    open_person,
)
from talking_portrait.pipelines.person.prepare import Settings, prepare_person
from talking_portrait.pipelines.person.speech import MFCC
from talking_portrait.pipelines.timing import frame_end

from ...speaking_person import SIZE, MarkLandmarker, Scene, speaking, write_video

SMALL = Settings(crop_size=128)
CUT = 0.71
"""Of the progress: the stage that cuts the crops has begun."""


def prepare(video: Path, folder: Path, landmarker: MarkLandmarker | None = None, **options: object) -> Person:
    return prepare_person(video, folder, settings=SMALL, landmarker=landmarker or MarkLandmarker(), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "ann.mp4", speaking(2.4))


@pytest.fixture(scope="module")
def made(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("person") / "ann"
    prepare(video, folder)
    return folder


@pytest.fixture
def person(made: Path, tmp_path: Path) -> Path:
    """A prepared person that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "ann"))


def test_the_folder_holds_all_of_the_person(made: Path, video: Path) -> None:
    ann = open_person(made)
    assert (ann.frames, ann.fps, ann.size, ann.shots) == (60, 25, (SIZE, SIZE), ((0, 60),))
    assert ann.usable.all()
    assert ann.source.read_bytes() == video.read_bytes()

    frames = list(ann.full_frames())
    assert len(frames) == 60
    crops = ann.crops([0, 59])
    box = (ann.box.left, ann.box.top, ann.box.left + ann.box.side, ann.box.top + ann.box.side)
    for crop, frame in zip(crops, (frames[0], frames[59]), strict=True):
        expected = Image.fromarray(frame).resize((128, 128), Image.Resampling.BICUBIC, box)
        assert np.abs(crop.astype(float) - np.asarray(expected)).mean() < 1

    track = ann.track()
    assert track.found.all()
    assert ann.box.left <= track.points[..., 0].min() and track.points[..., 0].max() <= ann.box.left + ann.box.side  # noqa: PT018
    audio, speech = ann.audio(), ann.speech()
    assert audio is not None
    assert (audio.samples, audio.sample_rate) == (38400, 16000)
    assert (speech.frames, speech.fps, speech.model) == (60, 25, shipped_encoder().name)


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30000, 1001), Fraction(60)])
def test_a_person_keeps_the_rate_of_the_video(tmp_path: Path, fps: Fraction) -> None:
    ann = prepare(write_video(tmp_path / "ann.mp4", speaking(2.1, fps), fps=fps), tmp_path / "ann")
    audio, speech = ann.audio(), ann.speech()
    assert audio is not None
    assert ann.fps == speech.fps == fps
    assert ann.frames == speech.frames == round(2.1 * fps)
    assert audio.samples == frame_end(ann.frames, 16000, fps)


def test_another_rate_can_be_chosen(tmp_path: Path) -> None:
    video = write_video(tmp_path / "ann.mp4", speaking(2.2, Fraction(50)), fps=Fraction(50))
    ann = prepare_person(video, tmp_path / "ann", settings=Settings(128, Fraction(25)), landmarker=MarkLandmarker())
    assert (ann.fps, ann.frames, ann.speech().frames) == (25, 55, 55)
    assert len(list(ann.full_frames())) == 55


def test_rotation_is_applied_and_late_sound_stays_late(video: Path, tmp_path: Path) -> None:
    turned, late = tmp_path / "turned.mp4", tmp_path / "late.mp4"
    run = [executable(), "-loglevel", "error", "-i", str(video)]
    subprocess.run([*run, "-itsoffset", "1", "-i", str(video), "-map", "0:v", "-map", "1:a", "-t", "2.4", "-vf",
                    "transpose=1", str(turned)], check=True)  # fmt: skip
    subprocess.run([run[0], "-loglevel", "error", "-display_rotation:v:0", "90", "-i", str(turned), "-c", "copy",
                    str(late)], check=True)  # fmt: skip
    ann, plain = prepare(late, tmp_path / "late"), open_video(video)
    assert np.abs(next(ann.full_frames()).astype(float) - next(plain.frames())).mean() < 4
    audio = ann.audio()
    assert audio is not None
    loud = audio.waveform[0].abs() > 0.02
    assert not loud[:15000].any()
    assert loud[16000:].any()


def test_segments_of_others_and_without_the_face_are_left_out_and_said(tmp_path: Path) -> None:
    scenes = [
        *speaking(2),
        *[Scene(persons=2, place=1)] * 30,
        *speaking(1.6, place=2),
        *[Scene(persons=0, place=2)] * 20,
        *speaking(0.4, place=1),
    ]
    lines: list[str] = []
    ann = prepare(write_video(tmp_path / "ann.mp4", scenes), tmp_path / "ann", say=lines.append)
    assert ann.shots == ((0, 50), (80, 120))
    assert np.flatnonzero(ann.usable).tolist() == [*range(50), *range(80, 120)]
    assert lines == [
        "The person's face is usable in 3.6 of 6.0 s.",
        "2.00 to 3.20 s are left out: the person's face is not found.",
        "4.80 to 5.60 s are left out: the person's face is not found.",
        "5.60 to 6.00 s are left out: the shot is too short.",
    ]


def test_the_same_person_is_followed_while_another_is_there(tmp_path: Path) -> None:
    scenes = [
        *speaking(2, persons=3),
        *[Scene(persons=2)] * 40,  # Ann is gone, Bob is not her
        *speaking(2, persons=3),
    ]
    ann = prepare(write_video(tmp_path / "two.mp4", scenes), tmp_path / "ann")
    assert ann.shots == ((0, 50), (90, 140))
    assert ann.track().points[ann.usable, :, 0].mean() < SIZE / 2, "Ann is on the left"
    report = json.loads((tmp_path / "ann" / "meta.json").read_text())["report"]
    assert report[1] == "Other faces are seen in 75% of the video; the person is who is in most of it."


def test_the_person_is_who_is_seen_most_and_not_who_is_seen_first(tmp_path: Path) -> None:
    scenes = [*[Scene(persons=2, place=1)] * 40, *speaking(3)]
    assert prepare(write_video(tmp_path / "host.mp4", scenes), tmp_path / "ann").shots == ((40, 115),)


def test_a_head_that_is_turned_away_is_not_usable(tmp_path: Path) -> None:
    angles = [0] * 40 + [2, 4, 6, 7, 8, 8, 8, 8, 8, 7, 6, 4, 2] + [0] * 40
    scenes = [Scene(yaw=yaw, opening=number % 7 / 7) for number, yaw in enumerate(angles)]
    ann = prepare(write_video(tmp_path / "turns.mp4", scenes), tmp_path / "ann")
    turned = [number for number, yaw in enumerate(angles) if yaw >= 7]
    assert not ann.usable[turned].any()
    assert ann.usable[:40].all()
    assert ann.usable[-40:].all()


BAD = {
    "short": (speaking(1), 1.0, "lasts 1.0 s"),
    "nobody": ([Scene(persons=0)] * 60, 1.0, "shows no face that can be found"),
    "half": ([*speaking(2), *[Scene(persons=0)] * 60], 1.0, "in 2.0 of the 4.4 s"),
    "mute": (speaking(2.4), None, "has no sound, but training needs a person's speech"),
    "silent": (speaking(2.4), 0.0, "is silent, but training needs a person's speech"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_video_that_can_not_be_used_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    scenes, sound, words = BAD[kind]
    video = write_video(tmp_path / f"{kind}.mp4", scenes, sound=sound)
    with pytest.raises(TalkingPortraitError) as error:
        prepare(video, tmp_path / "person")
    assert words in str(error.value)
    assert str(error.value).count(". ") == 0
    assert not (tmp_path / "person").exists()


def test_a_silent_video_can_be_taken_for_driving_alone(tmp_path: Path) -> None:
    video = write_video(tmp_path / "mute.mp4", speaking(2.4), sound=None)
    ann = prepare_person(video, tmp_path / "ann", settings=Settings(128, silent=True), landmarker=MarkLandmarker())
    assert ann.audio() is None
    with pytest.raises(TalkingPortraitError, match="has no speech, which training needs"):
        ann.speech()


@pytest.mark.parametrize("size", [100, 64, 2048, 256.0])
def test_a_size_that_no_network_takes_is_refused(size: int) -> None:
    with pytest.raises(TalkingPortraitError, match="a multiple of 64 from 128 to 1024"):
        Settings(size)


def stopping(at: float):
    """A progress that is interrupted once so much is done."""

    def progress(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        if done / total > at:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_preparation_goes_on_at_its_stage(video: Path, tmp_path: Path) -> None:
    folder, first = tmp_path / "ann", MarkLandmarker()
    with pytest.raises(KeyboardInterrupt):
        prepare(video, folder, first, progress=stopping(CUT + 0.1))
    assert first.calls > 60
    with pytest.raises(TalkingPortraitError, match=r"not prepared to the end \(still to do: crops, speech\)"):
        open_person(folder)
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]

    second = MarkLandmarker()
    assert prepare(video, folder, second).frames == 60
    assert not second.calls, "the face was tracked again"

    third = MarkLandmarker()
    prepare(video, folder, third)
    assert not third.calls


def other_encoder() -> MouthEncoder:
    torch.manual_seed(1)
    return MouthEncoder(MouthNetwork(MouthConfig(channels=8, dilations=(1,))).eval())


def test_a_person_keeps_the_encoder_that_it_was_prepared_with(
    made: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a later version of the pack ships, or an earlier one took."""
    old = tmp_path / "old"
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "shipped_encoder", other_encoder)
        prepare(video, old)
        assert prepare(video, made).speech().model == shipped_encoder().name
    person = prepare(video, old)
    encoder = person.mouth_encoder()
    assert encoder is not None
    assert person.speech().model == encoder.name == other_encoder().name
    (old / ENCODER).write_bytes((made / ENCODER).read_bytes())
    with pytest.raises(TalkingPortraitError, match=r"mouth.safetensors is missing or damaged"):
        person.mouth_encoder()

    plain = prepare(video, tmp_path / "mfcc", encoder=MFCC)
    assert (plain.speech().model, plain.mouth_encoder()) == (MFCC, None)
    assert prepare(video, tmp_path / "mfcc").speech().model == MFCC
    with pytest.raises(TalkingPortraitError, match=r"prepared from ann.mp4 with .*speech mfcc-audiodvp, not from"):
        prepare(video, tmp_path / "mfcc", encoder=shipped_encoder())


def test_a_preparation_begun_with_another_encoder_goes_on(video: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(video, tmp_path / "ann", progress=stopping(CUT + 0.1), encoder=MFCC)
    landmarker = MarkLandmarker()
    assert prepare(video, tmp_path / "ann", landmarker).speech().model == shipped_encoder().name
    assert not landmarker.calls


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.speaking_person import MarkLandmarker
from talking_portrait.pipelines.person.prepare import Settings, prepare_person
from talking_portrait.pipelines.person.speech import MFCC
def progress(done, total, preview=None):
    if done / total > float(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
prepare_person(sys.argv[1], sys.argv[2], settings=Settings(128), landmarker=MarkLandmarker(), progress=progress)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
@pytest.mark.parametrize("at", [0.5, CUT + 0.1])
def test_a_killed_preparation_goes_on_and_leaves_nothing(video: Path, tmp_path: Path, at: float) -> None:
    folder, root = tmp_path / "ann", Path(__file__).parents[3]
    command = [sys.executable, "-c", KILLED, str(video), str(folder), str(root), str(at)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    landmarker = MarkLandmarker()
    assert prepare(video, folder, landmarker).usable.all()
    assert (landmarker.calls > 0) == (at < CUT)
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]


def test_a_full_disk_is_said_and_work_goes_on_once_there_is_room(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, picture: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_frame", refuse)
        with pytest.raises(TalkingPortraitError, match=r"No space left on device.*goes on where it stopped"):
            prepare(video, tmp_path / "ann")
    landmarker = MarkLandmarker()
    assert prepare(video, tmp_path / "ann", landmarker).frames == 60
    assert not landmarker.calls


def test_two_programs_never_work_on_one_person(video: Path, tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    with (
        FileLock(tmp_path / "ann" / prepare_module._LOCK),
        pytest.raises(TalkingPortraitError, match="being prepared by another program"),
    ):
        prepare(video, tmp_path / "ann")


def test_a_folder_of_something_else_is_left_alone(video: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("months of work")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TalkingPortraitError, match=r"holds other files \(thesis.txt\)"):
        prepare(video, tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_finished_person_is_not_replaced_but_an_unfinished_one_is(video: Path, person: Path, tmp_path: Path) -> None:
    other = write_video(tmp_path / "other.mp4", speaking(2.2))
    with pytest.raises(TalkingPortraitError, match=r"prepared from ann.mp4 .*; give another folder"):
        prepare(other, person)
    with pytest.raises(TalkingPortraitError, match="crop_size 128, .* not from this video with crop_size 256"):
        prepare_person(video, person, landmarker=MarkLandmarker())

    with pytest.raises(KeyboardInterrupt):
        prepare(video, tmp_path / "begun", progress=stopping(CUT + 0.1))
    assert prepare(other, tmp_path / "begun").frames == 55


@pytest.mark.parametrize("name", [TRACK, USABLE, SPEECH, ENCODER, SOUND, f"{CROPS}/000007.png", "source.mp4"])
@pytest.mark.parametrize("how", ["gone", "cut", "empty"])
def test_a_damaged_file_is_named(person: Path, name: str, how: str) -> None:
    path = person / name
    content = path.read_bytes()
    path.unlink() if how == "gone" else path.write_bytes(content[: len(content) // 3] if how == "cut" else b"")
    if (name, how) in ((SOUND, "gone"), (SPEECH, "gone")):
        assert open_person(person)
        return
    with pytest.raises(TalkingPortraitError, match=path.name.replace("source", "(source|video)")):
        read_all(open_person(person))


def read_all(person: Person) -> None:
    person.track(), person.crops(range(person.frames)), person.audio(), person.speech(), person.mouth_encoder()
    assert sum(1 for _ in person.full_frames()) == person.frames


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "is no description of a prepared person"),
        ("[]", "is no description of a prepared person"),
        ("[" * 100_000, "is no description of a prepared person"),
        ('{"version": 1, "source": {}, "finished": 5}', "is no description of a prepared person"),
        ('{"version": 1, "source": [], "finished": []}', "is no description of a prepared person"),
        ('{"version": 99, "source": {}, "finished": []}', "another version of this pack"),
    ],
)
def test_a_description_of_something_else_is_refused(person: Path, content: str, words: str) -> None:
    (person / META).write_text(content)
    with pytest.raises(TalkingPortraitError, match=words):
        open_person(person)


@pytest.mark.parametrize("entry", ["fps", "frames", "size", "crop", "crop_size", "shots"])
@pytest.mark.parametrize("value", [None, "x", 0, [], {}, float("inf"), 1e300, "1e999999999", [float("inf")] * 2])
def test_a_description_with_wrong_entries_is_refused(person: Path, entry: str, value: object) -> None:
    meta = json.loads((person / META).read_text())
    meta[entry] = value
    (person / META).write_text(json.dumps(meta))
    with pytest.raises(TalkingPortraitError, match=r"(meta.json|usable.npy) is missing or damaged"):
        open_person(person)


@pytest.mark.parametrize(
    "change",
    [
        *({"points": np.full((60, 478, 3), 1e300)}, {"points": np.full((60, 478, 3), np.nan)}, {"found": np.ones(60)}),
        *({"image_size": np.array([0, 0])}, {"matrix": np.zeros((60, 4, 4), complex)}, {"score": np.zeros(3)}),
    ],
)
def test_landmarks_that_no_tracking_finds_are_refused(person: Path, change: dict[str, np.ndarray]) -> None:
    with np.load(person / TRACK) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(person / TRACK, **{**arrays, **change})
    with pytest.raises(TalkingPortraitError, match=f"{TRACK} is missing or damaged"):
        open_person(person).track()


def test_a_crop_that_is_another_file_starts_no_program_and_fills_no_memory(person: Path, monkeypatch) -> None:
    crop = person / CROPS / "000000.png"
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    Image.new("RGB", (128, 128)).save(crop, format="EPS")
    with pytest.raises(TalkingPortraitError, match="000000.png is missing or damaged"):
        open_person(person).crops([0])
    Image.new("RGB", (128, 128)).save(crop)
    wide = crop.read_bytes().replace((128).to_bytes(4, "big") * 2, (50_000).to_bytes(4, "big") * 2)
    crop.write_bytes(wide[:29] + zlib.crc32(wide[12:29]).to_bytes(4, "big") + wide[33:])
    with pytest.raises(TalkingPortraitError, match="000000.png is missing or damaged"):
        open_person(person).crops([0])


def test_what_others_put_into_the_folder_stays(video: Path, tmp_path: Path) -> None:
    """Also when a description names a copy of the video that lies elsewhere."""
    folder, other = tmp_path / "begun", write_video(tmp_path / "other.mp4", speaking(2.2))
    with pytest.raises(KeyboardInterrupt):
        prepare(video, folder, progress=stopping(0.01))
    meta = json.loads((folder / META).read_text())
    meta["source"]["file"] = "../other.mp4"
    (folder / META).write_text(json.dumps(meta))
    (folder / CROPS).mkdir()
    mine = [folder / CROPS / "mine.txt", folder / "source.psd"]
    for path in mine:
        path.write_text("the only copy")
    with pytest.raises(KeyboardInterrupt):
        prepare(other, folder, progress=stopping(0.01))
    assert [path.read_text() for path in mine] == ["the only copy"] * 2
    assert other.is_file()


def test_a_description_does_not_say_where_the_video_is_copied_to(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    with pytest.raises(KeyboardInterrupt):
        prepare(video, folder, progress=stopping(0.01))
    meta = json.loads((folder / META).read_text())
    meta["source"]["file"], meta["finished"] = "../escaped.mp4", []
    (folder / META).write_text(json.dumps(meta))
    with pytest.raises(KeyboardInterrupt):
        prepare(video, folder, progress=stopping(0.01))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun"]


def test_a_folder_without_a_person_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TalkingPortraitError, match="make one of a video with Prepare Person"):
        open_person(tmp_path)
    with pytest.raises(TalkingPortraitError, match="The person's folder .*nowhere does not exist"):
        open_person(tmp_path / "nowhere")
