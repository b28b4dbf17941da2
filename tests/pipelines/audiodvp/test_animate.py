"""Driving a person's model: frames, masks, windows across batches, and input that can't be used."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.__main__ import main
from talking_portrait.models.audiodvp.neural_renderer import NeuralRenderer
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.speech.mouth_network import MouthConfig, MouthNetwork, without_acoustic_encoder
from talking_portrait.pipelines.audio import mouth_states
from talking_portrait.pipelines.audio.mouth_states import MouthEncoder, shipped_encoder
from talking_portrait.pipelines.audiodvp.animate import _expression, animate, frames_of, open_model
from talking_portrait.pipelines.audiodvp.expression import predict_expression
from talking_portrait.pipelines.audiodvp.person_model import METADATA, PersonModel
from talking_portrait.pipelines.files.sound import write_wav
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.person.person import Person, open_person
from talking_portrait.pipelines.person.speech import MFCC, speech_features
from talking_portrait.pipelines.timing import frame_count
from talking_portrait.pipelines.types import Audio

from ...toy_person import RATE, SIZE, TINY, make_person, speech, toy_model

SECONDS = 1.0


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return open_person(make_person(tmp_path_factory.mktemp("people") / "ann", seconds=SECONDS))


@pytest.fixture(scope="module")
def model(person: Person) -> PersonModel:
    return toy_model(person.folder)


def driven(model: PersonModel, audio: Audio, person: Person, **options: object) -> tuple[np.ndarray, np.ndarray]:
    pieces = list(animate(model, audio, person, **options))  # type: ignore[arg-type]
    return torch.cat([frames for frames, _ in pieces]).numpy(), torch.cat([masks for _, masks in pieces]).numpy()


def test_bytes_outside_of_the_mask_are_the_videos_and_the_head_turns_back_at_its_end(
    model: PersonModel, person: Person
) -> None:
    frames, masks = driven(model, speech(2.5, seed=3), person)
    video = list(person.full_frames())
    assert (len(frames), len(video)) == (63, 25)
    assert frames.shape[1:] == (*SIZE, 3)
    order = [*range(25), *range(23, 0, -1), *range(25)]
    for frame, mask, number in zip(frames, masks, order, strict=False):
        np.testing.assert_array_equal(frame[mask == 0], video[number][mask == 0])
        assert 0.01 < (mask > 0).mean() < 0.5
        assert (frame[mask > 0.5] != video[number][mask > 0.5]).any()


@pytest.mark.parametrize("samples", [640, 641, RATE // 3, 12345])
def test_the_audio_decides_how_many_frames_there_are(model: PersonModel, person: Person, samples: int) -> None:
    audio = Audio(speech(2).waveform[:, :samples], RATE)
    for fps in (Fraction(25), Fraction(30000, 1001), Fraction(12)):
        at_fps = replace(model, video=replace(model.video, fps=fps))
        assert at_fps.frames_for(audio) == frame_count(samples, RATE, fps)
        if fps == 25:
            assert len(driven(at_fps, audio, person)[0]) == frame_count(samples, RATE, fps)


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(12)])
def test_a_head_video_of_another_rate_drives_at_that_rate(tmp_path: Path, fps: Fraction) -> None:
    person = open_person(make_person(tmp_path / "bob", seconds=SECONDS, fps=fps))
    audio = speech(1.4, seed=1)
    frames, _ = driven(toy_model(person.folder), audio, person)
    assert len(frames) == frame_count(audio.samples, audio.sample_rate, fps)


@pytest.mark.parametrize("batch", [3, 50])
def test_batches_of_any_size_give_the_same_frames(model: PersonModel, person: Person, batch: int) -> None:
    audio = speech(1.3, seed=2)
    (one, masks), (other, same_masks) = driven(model, audio, person), driven(model, audio, person, batch=batch)
    assert np.abs(one.astype(int) - other).max() <= 1
    np.testing.assert_allclose(masks, same_masks, atol=1e-6)


def test_frames_depend_on_three_neighbours_and_no_more(model: PersonModel, person: Person) -> None:
    """With another expression in one frame, the seven frames around it change."""
    from talking_portrait.pipelines.audiodvp import animate as module

    numbers, expression = np.arange(15), model.face.expression[:15].clone()
    changed = expression.clone()
    changed[7] += 8
    results = [
        [face.astype(int) for face, *_ in module._generated(model, numbers, each, module.Resident(model.renderer), 4)]
        for each in (expression, changed)
    ]
    moved = [i for i in range(15) if (results[0][i] != results[1][i]).mean() > 0.01]
    assert moved == [4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("kind", ["temporal", "affine"])
@pytest.mark.parametrize("chunk", [1, 5, 40])
def test_speech_in_pieces_gives_the_same_expression(kind: str, chunk: int) -> None:
    from talking_portrait.models.audiodvp.speech_to_expression import new_speech_to_expression

    torch.manual_seed(0)
    network = new_speech_to_expression(kind, 20, 3).eval()  # type: ignore[arg-type]
    if kind == "temporal":  # blocks begin as the identity
        for block in network.network.blocks:  # type: ignore[union-attr]
            torch.nn.init.normal_(block.mix.weight, 0, 0.1)
    features = torch.randn(60, 20)
    whole = network(features[None])[0]
    torch.testing.assert_close(predict_expression(network, features, chunk=chunk), whole, rtol=1e-4, atol=1e-5)


def test_an_offset_begins_later_in_the_video(model: PersonModel, person: Person) -> None:
    frames, masks = driven(model, speech(0.2), person, offset=7)
    video = list(person.full_frames())
    np.testing.assert_array_equal(frames[0][masks[0] == 0], video[7][masks[0] == 0])
    with pytest.raises(TalkingPortraitError, match="first frame is -1"):
        driven(model, speech(0.2), person, offset=-1)


def test_a_run_can_be_cancelled_after_any_frame(model: PersonModel, person: Person) -> None:
    class CancelledError(Exception):
        pass

    reported: list[int] = []

    def progress(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        reported.append(done)
        assert total == 25
        assert preview is not None
        assert preview.ndim == 3
        if done == 3:
            raise CancelledError

    with pytest.raises(CancelledError):
        driven(model, speech(1), person, progress=progress)
    assert reported == [1, 2, 3]


def test_frames_stay_in_memory_one_at_a_time(model: PersonModel, person: Person) -> None:
    for frames in frames_of(model, speech(0.5), person):
        assert frames.shape == (1, *SIZE, 3)
        assert frames.dtype == torch.uint8


def test_memory_that_runs_out_makes_batches_smaller(model: PersonModel, person: Person) -> None:
    class Small(NeuralRenderer):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            if len(windows) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(windows)

    small = Small(TINY).eval()
    small.load_state_dict(model.renderer.state_dict())
    audio = speech(0.8)
    frames, _ = driven(replace(model, renderer=small), audio, person, batch=8)
    expected, _ = driven(model, audio, person)
    assert np.abs(frames.astype(int) - expected).max() <= 1


def test_a_saved_model_drives_as_before(model: PersonModel, person: Person, tmp_path: Path) -> None:
    model.save(tmp_path / "ann.safetensors")
    loaded = open_model(tmp_path / "ann.safetensors")
    assert replace(loaded.video, usable=model.video.usable) == replace(model.video, usable=model.video.usable)
    assert loaded.speech == model.speech
    audio = speech(0.3)
    # From the video instead of the person's folder, too.
    one, other = driven(model, audio, person), driven(loaded, audio, person.source)  # type: ignore[arg-type]
    assert np.abs(one[0].astype(int) - other[0]).max() <= 1


def test_a_model_takes_its_speech_features_with_it(
    model: PersonModel, person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it drives as before once the pack ships another mouth network."""
    audio = speech(0.6)
    expected = _expression(model, audio, None)
    model.save(tmp_path / "ann.safetensors")
    monkeypatch.setattr(mouth_states, "open_mouth", lambda _: MouthNetwork(MouthConfig(channels=8)).eval())
    mouth_states.shipped_encoder.cache_clear()
    try:
        torch.testing.assert_close(_expression(open_model(tmp_path / "ann.safetensors"), audio, None), expected)
        assert speech_features(audio, Fraction(25)).states.shape[2] == 8
    finally:
        mouth_states.shipped_encoder.cache_clear()


def test_a_person_of_an_earlier_version_drives_by_mfcc(tmp_path: Path) -> None:
    person = open_person(make_person(tmp_path / "ann", seconds=1, encoder=MFCC))
    toy_model(person.folder).save(tmp_path / "ann.safetensors")
    model = open_model(tmp_path / "ann.safetensors")
    assert (model.speech, model.mouth_encoder) == (MFCC, None)
    assert len(driven(model, speech(0.2), person)[0]) == 5


def test_a_person_of_an_earlier_version_drives_by_states_of_a_network_without_an_acoustic_encoder(
    tmp_path: Path,
) -> None:
    """Two states a frame, as the pack's features were before its mouth network had an acoustic encoder."""
    encoder = MouthEncoder(without_acoustic_encoder(shipped_encoder().network))
    person = open_person(make_person(tmp_path / "ann", seconds=1, encoder=encoder))
    assert person.speech().states.shape == (25, 2, 160)
    toy_model(person.folder).save(tmp_path / "ann.safetensors")
    model = open_model(tmp_path / "ann.safetensors")
    assert model.mouth_encoder is not None
    assert model.speech == model.mouth_encoder.name == encoder.name != shipped_encoder().name
    assert model.speech_to_expression.features == 320
    assert len(driven(model, speech(0.2), person)[0]) == 5


def saved(model: PersonModel, path: Path, **notes: object) -> Path:
    """The model's file with other notes; None leaves one out."""
    described = {name: value for name, value in (model._describe() | notes).items() if value is not None}
    save_file({k: v.contiguous() for k, v in model.tensors().items()}, path, {METADATA: json.dumps(described)})
    return path


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        ({"version": 2}, "trained by another version of this pack"),
        ({"version": None}, "does not say how it was trained"),
        ({"fps": "soon"}, "lacks or misstates"),
        ({"fps": "0"}, "lacks or misstates"),
        ({"size": [1]}, "lacks or misstates"),
        ({"crop": {}}, "lacks or misstates"),
        ({"crop": {"left": 0, "top": 0, "side": 0}}, "lacks or misstates"),
        ({"shots": [[0, 1, 2]]}, "lacks or misstates"),
        ({"shots": [[0, 999]]}, "shots that reach beyond the video"),
        ({"speech_to_expression": {"kind": "temporal", "width": 3}}, "shapes that no network has"),
        ({"speech_to_expression": {"kind": "guess"}}, "shapes that no network has"),
        ({"camera": {"eye_z": "near"}}, "camera can't be read"),
        ({"speech": "mouth-00000000"}, "the mouth network that it was trained with is not in it"),
        ({"mouth_network": None}, "the mouth network that it was trained with is not in it"),
        ({"mouth_network": {"mels": 40}}, "lacks or misstates"),
    ],
)
def test_a_model_with_odd_notes_is_refused_in_a_sentence(
    model: PersonModel, tmp_path: Path, notes: dict[str, object], reason: str
) -> None:
    with pytest.raises(TalkingPortraitError, match=reason):
        open_model(saved(model, tmp_path / "ann.safetensors", **notes))


def test_files_of_other_networks_are_named(model: PersonModel, tmp_path: Path) -> None:
    for tensors, name in (
        (model.renderer.state_dict(), "AudioDVP's neural face renderer"),
        (model.speech_to_expression.state_dict(), "speech-to-expression network of AudioDVP's training"),
        (model.face.face_model.tensors(), "a face model"),
        ({"nonsense": torch.zeros(1)}, "an unknown file"),
    ):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "other.safetensors")
        with pytest.raises(TalkingPortraitError, match=f"other.safetensors is .*{name}.*a person's AudioDVP model"):
            open_model(tmp_path / "other.safetensors")
    from talking_portrait.models.audiodvp.loading import load_neural_renderer

    with pytest.raises(TalkingPortraitError, match="is AudioDVP's model of one person, but"):
        load_neural_renderer(saved(model, tmp_path / "ann.safetensors"))


def test_speech_features_of_another_kind_are_refused(model: PersonModel, person: Person) -> None:
    trained_on_hubert = replace(model, speech="hubert-base", mouth_encoder=None)
    with pytest.raises(TalkingPortraitError, match="features of hubert-base, which needs that speech encoder"):
        driven(trained_on_hubert, speech(0.5), person)


def test_a_head_video_that_is_none_of_the_model_is_refused(model: PersonModel, person: Person, tmp_path: Path) -> None:
    wide = replace(model, video=replace(model.video, size=(50, 70)))
    with pytest.raises(TalkingPortraitError, match="100 x 120 pixels, but the model was trained on one of 70 x 50"):
        driven(wide, speech(0.5), person)
    with pytest.raises(TalkingPortraitError, match="was prepared from another video than the model was trained on"):
        driven(model, speech(0.5), replace(person, fingerprint="another"))
    with pytest.raises(TalkingPortraitError, match="does not exist"):
        driven(model, speech(0.5), tmp_path / "none.mp4")  # type: ignore[arg-type]
    other = make_person(tmp_path / "bob", seconds=1.2) / "source.mp4"
    with pytest.raises(TalkingPortraitError, match=r"head video source.mp4 is another file than the one that the pers"):
        driven(model, speech(0.5), other)  # type: ignore[arg-type]
    unusable = replace(model, video=replace(model.video, usable=np.zeros(25, bool)))
    with pytest.raises(TalkingPortraitError, match="No frame of the head video"):
        driven(unusable, speech(0.5), person)


def test_the_command_drives_a_person_and_keeps_its_inputs(
    model: PersonModel, person: Person, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(model, tmp_path / "ann.safetensors")
    write_wav(tmp_path / "voice.wav", speech(1.2, seed=4))
    common = ["person", "drive", str(path), "--audio", str(tmp_path / "voice.wav")]
    assert main([*common, "--person", str(person.folder), "--out", str(tmp_path / "a.mp4"), "--crf", "0"]) == 0
    assert main([*common, "--video", str(person.source), "--out", str(tmp_path / "b.mp4"), "--crf", "0"]) == 0
    assert "b.mp4: 30 frames at 25 fps" in capsys.readouterr().out
    one, other = (list(open_video(tmp_path / name).frames()) for name in ("a.mp4", "b.mp4"))
    assert (len(one), open_video(tmp_path / "a.mp4").fps) == (30, 25)
    assert np.abs(np.stack(one).astype(int) - np.stack(other)).max() <= 2
    before = person.source.read_bytes()
    assert main([*common, "--person", str(person.folder), "--out", str(person.source)]) == 2
    assert main([*common, "--video", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "c.mp4")]) == 2
    assert main([*common, "--person", str(tmp_path), "--out", str(tmp_path / "c.mp4")]) == 2
    assert main([*common, "--seed", "3", "--portrait", "--out", str(tmp_path / "c.mp4")]) == 2
    assert person.source.read_bytes() == before
    assert not (tmp_path / "c.mp4").exists()
    said = capsys.readouterr().err
    assert "is to be read and to be written over" in said
    assert "--portrait, --seed were given, but AudioDVP takes --offset; leave out" in said
    assert said.count("error: ") == 4


def test_long_speech_takes_no_more_memory(model: PersonModel, person: Person) -> None:
    """What is held after many frames is what was held after a few."""
    import tracemalloc

    tracemalloc.start()
    levels = []
    for number, _ in enumerate(frames_of(model, speech(3), person)):
        if number in (40, 74):
            levels.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert levels[1] < levels[0] + 1_000_000
