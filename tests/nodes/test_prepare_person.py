"""Prepare Person: VIDEO of any kind becomes a person in the output folder."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.models.audiodvp.audio_features import AudioFeatures, AudioFeaturesConfig
from talking_portrait.nodes import host
from talking_portrait.nodes.loaded_models import LoadedSpeechEncoder
from talking_portrait.nodes.person import prepare_person as module
from talking_portrait.nodes.person.prepare_person import PreparePerson
from talking_portrait.nodes.standalone import node_api
from talking_portrait.nodes.standalone.core_nodes import LoadVideo, SaveVideo, VideoPayload
from talking_portrait.nodes.video_input import video_file
from talking_portrait.pipelines.audiodvp.fitted_face import FittedFace
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.files.sound import read_audio
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.person.person import Person
from talking_portrait.pipelines.syncanimation.avatar import open_avatar
from talking_portrait.pipelines.syncanimation.preparation import head_tracking, parts
from talking_portrait.pipelines.types import Audio

from ..morphable_face import morphable_face
from ..speaking_person import MarkLandmarker, picture, speaking, write_video


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The output folder of a run."""
    session = node_api.Session(input_folder=tmp_path, output_folder=tmp_path / "out")
    token = node_api._session.set(session)
    yield tmp_path / "out"
    node_api._session.reset(token)


@pytest.fixture
def landmarkers(monkeypatch: pytest.MonkeyPatch) -> list[MarkLandmarker]:
    made: list[MarkLandmarker] = []

    def landmarker(engine: Any) -> MarkLandmarker:
        made.append(MarkLandmarker())
        return made[-1]

    monkeypatch.setattr(module, "landmarker", landmarker)
    return made


def in_memory(seconds: float = 2.2) -> VideoPayload:
    frames = np.stack([picture(scene) for scene in speaking(seconds)])
    sound = Audio(example_speech().waveform[:, : round(16000 * seconds)], 16000)
    return VideoPayload(torch.from_numpy(frames).float() / 255, sound, Fraction(25))


def test_a_loaded_video_becomes_a_person_once(folder: Path, landmarkers: list[MarkLandmarker], tmp_path: Path) -> None:
    write_video(tmp_path / "ann.mp4", speaking(2.2))
    (video,) = LoadVideo.execute("ann.mp4").args
    person, report = PreparePerson.execute(video, "ann", crop_size=128).args
    assert isinstance(person, Person)
    assert person.folder == folder / "persons" / "ann"
    assert report == "The person's face is usable in 2.2 of 2.2 s."
    assert FittedFace.read(person.folder).frames == 55

    again, said = PreparePerson.execute(video, "ann", crop_size=128).args
    assert said == report
    assert (again.folder, again.frames) == (person.folder, 55)
    assert [bool(landmarker.calls) for landmarker in landmarkers] == [True, False]
    with pytest.raises(TalkingPortraitError, match="Prepare Person: .* give another folder"):
        PreparePerson.execute(in_memory(seconds=2.0), "ann", crop_size=128)


def test_a_person_is_prepared_for_the_system_that_is_chosen(
    folder: Path, landmarkers: list[MarkLandmarker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "STEPS", 3)
    monkeypatch.setattr(head_tracking, "FOCAL_LENGTHS", np.array([2.0]))
    with pytest.raises(TalkingPortraitError, match=r"Prepare Person: There is no 'bisenet\.pth' in .*detection"):
        PreparePerson.execute(in_memory(), "ann", crop_size=128, prepare_for="both", parser="bisenet.pth")
    person, _ = PreparePerson.execute(in_memory(), "ann", crop_size=128, prepare_for="syncanimation").args
    avatar = open_avatar(person)
    assert (avatar.size, avatar.usable.sum()) == (128, 55)
    with pytest.raises(TalkingPortraitError, match="no fitted face"):
        FittedFace.read(person.folder)
    PreparePerson.execute(in_memory(), "ann", crop_size=128, prepare_for="both", avatar_size="128")
    assert FittedFace.read(person.folder).frames == 55


def test_files_of_the_published_program_are_chosen_from_our_own_folder(
    folder: Path, landmarkers: list[MarkLandmarker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    monkeypatch.setattr(host, "model_folders", lambda *categories: [models])
    for chosen, words in (
        ({"face_model": "bfm.safetensors"}, r"no 'bfm\.safetensors' in .*, but a face model is expected; make one"),
        ({"regressor": "resnet50_ft_weight.pkl"}, r"no 'resnet50_ft_weight\.pkl' in .*VGGFace2"),
        ({"atnet": "atnet_lstm_18.pth"}, r"no 'atnet_lstm_18\.pth' in .*ATVGnet"),
    ):
        with pytest.raises(TalkingPortraitError, match=f"Prepare Person: There is {words}"):
            PreparePerson.execute(in_memory(), "ann", crop_size=128, **chosen)

    save_file({"x": torch.zeros(2)}, models / "other.safetensors")
    (models / "resnet50_ft_weight.pkl").write_bytes(b"")
    for chosen, words in (
        ({"face_model": "other.safetensors"}, "a face model"),
        ({"regressor": "resnet50_ft_weight.pkl"}, "is to fit a face model, but none is given"),
        ({"atnet": "other.safetensors"}, "ATnet"),
    ):
        with pytest.raises(TalkingPortraitError, match=words):
            PreparePerson.execute(in_memory(), "ann", crop_size=128, **chosen)
    assert not folder.exists()

    torch.manual_seed(0)
    network = AudioFeatures(AudioFeaturesConfig((2, 2, 2, 2, 4), hidden=8, features=6))
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, models / "atnet.pth")
    morphable_face(4).save(models / "bfm.safetensors")
    person, _ = PreparePerson.execute(
        in_memory(), "ann", crop_size=128, face_model="bfm.safetensors", atnet="atnet.pth"
    ).args
    assert person.speech().model == "atnet"
    assert FittedFace.read(person.folder).expression.shape == (55, 4)
    encoder = LoadedSpeechEncoder(SimpleNamespace(), SimpleNamespace())
    with pytest.raises(TalkingPortraitError, match="encoder is connected and an ATnet is chosen"):
        PreparePerson.execute(in_memory(), "ann", encoder, crop_size=128, atnet="atnet.pth")


def test_frames_in_memory_become_a_person(folder: Path, landmarkers: list[MarkLandmarker]) -> None:
    person, _ = PreparePerson.execute(in_memory(), "ann", crop_size=128).args
    assert (person.frames, person.fps) == (55, 25)
    assert person.audio().samples == 35200


@pytest.mark.parametrize("name", ["", " ", "../ann", "a/b", "C:\\ann", ".ann", "nul", "ann\n", "x" * 400])
def test_a_name_that_no_folder_can_have_is_refused(folder: Path, landmarkers: list[MarkLandmarker], name: str) -> None:
    with pytest.raises(TalkingPortraitError, match="The person's name is"):
        PreparePerson.execute(in_memory(), name, crop_size=128)
    assert not folder.exists()


@pytest.mark.parametrize("size", ["nonsense", "", "64", "1e9"])
def test_a_size_that_a_link_brings_and_no_avatar_has_is_refused(folder: Path, size: str) -> None:
    with pytest.raises(TalkingPortraitError, match="avatar_size. is .*, but auto, 128, 256 or 512 is expected"):
        PreparePerson.execute(in_memory(), "ann", avatar_size=size)
    assert not folder.exists()


@pytest.mark.parametrize("video", [None, "ann.mp4", torch.zeros(1, 4, 4, 3)])
def test_what_is_no_video_is_refused(folder: Path, landmarkers: list[MarkLandmarker], video: Any) -> None:
    with pytest.raises(TalkingPortraitError, match='Prepare Person: The input "video" is .*connect Load Video'):
        PreparePerson.execute(video, "ann")


class ComfyVideo:
    """A VIDEO of ComfyUI, from a file on the disk or in memory, whole or a part."""

    def __init__(self, source: str | BytesIO, trim: tuple[float, float] = (0.0, 0.0)) -> None:
        self.source, self.trim = source, trim

    def get_stream_source(self) -> str | BytesIO:
        return self.source

    def get_active_trim_window(self) -> tuple[float, float]:
        return self.trim

    def save_to(self, path: str) -> None:
        write_video(Path(path), speaking(self.trim[1]))


def test_videos_of_comfyui_are_files_as_long_as_they_are_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "ann.mp4", speaking(1))
    with video_file(ComfyVideo(str(path))) as own:
        assert own == path
    with video_file(ComfyVideo(BytesIO(path.read_bytes()))) as copy:
        assert copy.read_bytes() == path.read_bytes()
    assert not copy.exists()
    for source in (str(path), BytesIO(path.read_bytes())):
        with video_file(ComfyVideo(source, (0.2, 0.4))) as part:
            frames = list(open_video(part).frames())
            whole = list(open_video(path).frames(5))
            assert len(frames) == 10, "the part, not the file that it is of"
            assert np.abs(np.float32(frames) - whole[:10]).mean() < 1, "as filmed"
            assert read_audio(part).waveform.shape[1] == round(0.4 * 16000)
        assert not part.exists()
    with video_file(ComfyVideo(str(path), (0.28, 0.0))) as part:
        assert len(list(open_video(part).frames())) == 18, "to its end"
    with pytest.raises(TalkingPortraitError, match="ends before 3 s"), video_file(ComfyVideo(str(path), (3.0, 1.0))):
        pass


def test_frames_in_memory_become_a_file_that_shows_them(tmp_path: Path) -> None:
    """Whatever sides they have, transparent or not: ComfyUI's own encoder refuses odd sides and a fourth channel."""
    scene = torch.from_numpy(picture(speaking(0.1)[0])).float() / 255
    frames = scene[:71, :93].repeat(3, 1, 1, 1)
    clear = torch.cat([frames, torch.zeros_like(frames[..., :1])], dim=-1)
    for images, expected in ((frames, frames), (clear, torch.ones_like(frames))):
        with video_file(VideoPayload(images, Audio(torch.zeros(1, 16000), 16000), Fraction(24))) as path:
            video = open_video(path)
            shown = torch.from_numpy(np.stack(list(video.frames()))).float() / 255
            assert (video.fps, read_audio(path).waveform.shape[1]) == (24, 2000)
        assert (shown[:, :71, :93] - expected).abs().mean() < 0.01
    for samples in (0, 80):  # such a sound is none, whatever the video is used for
        with video_file(
            VideoPayload(frames, {"waveform": torch.zeros(1, 1, samples), "sample_rate": 8000}, Fraction(24))
        ) as path:
            assert open_video(path).size == (72, 94)
            with pytest.raises(TalkingPortraitError, match="no sound track"):
                read_audio(path)
    broken = VideoPayload(frames * torch.nan, None, Fraction(24))
    with pytest.raises(TalkingPortraitError, match='Picture 0 of the input "video" holds NaN'), video_file(broken):
        pass


def test_a_video_of_frames_is_saved_as_before(folder: Path) -> None:
    (saved,) = SaveVideo.execute(in_memory(), "video/ann", "auto", "auto").ui["images"]
    assert len(list(open_video(folder / saved["subfolder"] / saved["filename"]).frames())) == 55


def test_results_go_to_the_hosts_output_folder(folder: Path) -> None:
    assert host.output_folder() == folder
