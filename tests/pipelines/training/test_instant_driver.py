"""Measured lips to weights of Instant's driver: what is measured, what is learned, and what folders may hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.__main__ import main
from talking_portrait.models.face.mouth_shapes import lip_opening, mouth_vertices, neutral_vertices
from talking_portrait.models.speech.mouth_network import PRESS, MouthConfig, MouthNetwork, save_mouth_network
from talking_portrait.pipelines.audio.mouth_states import SpeechSound, mouth_logits
from talking_portrait.pipelines.audio.mouth_weights import open_mouth
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.landmarks import open_landmarker
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.files.sound import write_wav
from talking_portrait.pipelines.instant.driver.mouth_controls import mouth_controls
from talking_portrait.pipelines.training.instant.closures import learn_closures, measured_closures
from talking_portrait.pipelines.training.instant.crops import with_background
from talking_portrait.pipelines.training.instant.fine_tune import Settings, agreement, fine_tune, validated
from talking_portrait.pipelines.training.instant.lips import measured_curves, mouth_measures, usual_curves
from talking_portrait.pipelines.training.instant.mouth import with_acoustic_encoder
from talking_portrait.pipelines.training.instant.people import learn_person
from talking_portrait.pipelines.training.instant.speakers import Recording, estimated_offset, recordings, spoken_lips
from talking_portrait.pipelines.training.instant.synthetic.corpus import Spoken
from talking_portrait.pipelines.training.instant.synthetic.speech import PHONE_INDEX
from talking_portrait.pipelines.training.instant.synthetic.targets import pause_opening
from talking_portrait.pipelines.types import Audio

FPS = 25
SECONDS = 8


@pytest.fixture(scope="module")
def speech() -> Audio:
    whole = example_speech()
    return Audio(whole.waveform[:, : SECONDS * whole.sample_rate], whole.sample_rate)


@pytest.fixture(scope="module")
def said(speech) -> np.ndarray:
    """Controls (F, 6) of a person whose mouth is rounded where the shipped driver's is wide, and hardly opens."""
    controls = mouth_controls(speech).at(FPS)
    own = controls.copy()
    own[:, 0] = 0.5 * controls[:, 0]
    own[:, 1], own[:, 2] = 0.0, np.clip(2 * controls[:, 1], 0, 1)
    return own


def recording(said: np.ndarray, speech: Audio, late: float = 0.0, name: str = "ann") -> Recording:
    """What a landmarker finds of a mouth with these controls, `late` seconds behind the sound."""
    points = 80 * (neutral_vertices() + mouth_vertices(said)) + [300, 200, 0]
    frames = np.clip(np.round(np.arange(len(points)) - late * FPS).astype(int), 0, len(points) - 1)
    return Recording(name, points[frames], float(FPS), np.ones(len(points), bool), None, speech, name)


@pytest.fixture(scope="module")
def backgrounds() -> list[np.ndarray]:
    return [np.full((600, MouthConfig().mels), 1e-4, np.float32)]


def test_curves_are_those_of_the_controls_whatever_the_pictures_size(said, speech):
    curves = measured_curves(recording(said, speech).points, None)
    assert np.allclose(curves[:, 0], lip_opening(said), atol=0.01)
    assert np.isnan(curves[:, 3]).all()
    made = mouth_measures(torch.from_numpy(said)).numpy()
    for column in (0, 1, 2):
        assert np.corrcoef(curves[:, column], made[:, column])[0, 1] > 0.98
        assert curves[:, column].std() == pytest.approx(made[:, column].std() * (0.5525 if column == 1 else 1), rel=0.1)


def test_speakers_of_any_range_are_brought_near_a_usual_one():
    wave = np.abs(np.sin(np.arange(500) / 7))[:, None] * [1, 0.1, 0.4, 0.5]
    known = np.ones(500, bool)
    wide, narrow = (usual_curves(size * wave + [0.01, 0.6, 0.9, 0], known, own=False) for size in (0.3, 0.06))
    assert wide[:, 0].max() / narrow[:, 0].max() < 2
    own = usual_curves(0.06 * wave + [0.01, 0.6, 0.9, 0], known, own=True)
    assert own[:, 0].max() == pytest.approx(0.06, rel=0.1)


@pytest.mark.parametrize("late", [-0.16, 0.0, 0.12])
def test_the_offset_between_picture_and_sound_is_found(said, speech, late):
    late_one = recording(said, speech, late)
    opening = measured_curves(late_one.points, None)[:, 0]
    assert estimated_offset(opening, late_one, open_mouth("real lips")) == pytest.approx(late, abs=0.03)


def test_one_persons_way_of_speaking_is_learned(said, speech):
    start = open_mouth("real lips")
    mine = recording(said, speech)
    learned = learn_person([mine], start, 40)
    clips = [spoken_lips(mine, start, own=True)]
    assert agreement(learned.network, clips)["width"] > agreement(start, clips)["width"] + 0.1
    openings = [
        lip_opening(mouth_controls(speech, weights=network).values).std() for network in (start, learned.network)
    ]
    assert openings[1] < 0.9 * openings[0]
    assert "40 steps" in learned.report[0]


def test_a_face_that_is_not_seen_for_the_first_third_is_learned_from_all_the_same(said, speech):
    start = open_mouth("real lips")
    mine = recording(said, speech)
    mine.found[: int(0.4 * len(mine.found))] = False
    learned = learn_person([mine], start, 40)
    clips = [spoken_lips(mine, start, own=True)]
    assert agreement(learned.network, clips)["width"] > agreement(start, clips)["width"] + 0.1


def test_speakers_that_are_left_out_are_followed_at_each_number_of_steps(said, speech, backgrounds):
    start = MouthNetwork(MouthConfig(channels=16, dilations=(1,), transformer_blocks=1))
    clips = [spoken_lips(recording(said, speech, name=name), start, own=False) for name in ("a", "b")]
    rows = validated(start, clips, Settings(head_steps=2, steps=23, batch=1, varied=0.5), 2, backgrounds)
    assert list(rows) == [20, 23]
    assert set(rows[20]) == {"opening", "width"}
    for folds in (1, 3):
        with pytest.raises(TalkingPortraitError, match=f"in {folds} groups, but of 2 speakers 2 to 2 groups"):
            validated(start, clips, Settings(), folds, backgrounds)
    with pytest.raises(TalkingPortraitError, match="There is one speaker"):
        validated(start, clips[:1], Settings(), 2, backgrounds)


@pytest.mark.slow
def test_a_network_begins_to_follow_what_it_is_shown(said, speech, backgrounds):
    encoder = open_mouth("real lips").acoustic_encoder
    assert encoder is not None
    start = with_acoustic_encoder(open_mouth("synthetic speech"), encoder)
    clips = [spoken_lips(recording(said, speech), start, own=False)]
    done = fine_tune(start, clips, Settings(head_steps=25, steps=15, batch=2, varied=0.5), backgrounds)
    before, after = agreement(start, clips), agreement(done, clips)
    assert after["width"] > before["width"] + 0.3
    assert after["opening"] > before["opening"] - 0.05


def test_a_background_that_is_silent_for_the_while_leaves_speech_as_it_is():
    speech = torch.rand(300, 40), torch.rand(300, 80)
    both = with_background(*speech, [np.zeros((600, 40), np.float32)], np.random.default_rng(0))
    torch.testing.assert_close(both, speech)


def test_lips_that_close_for_a_moment_teach_closures_and_lips_at_rest_do_not(said, speech):
    clip = spoken_lips(recording(said, speech), open_mouth("real lips"), own=False)
    curves = np.tile(np.float32([0.15, 0, 0.1, 0]), (300, 1))
    curves[50:60, 0], curves[100:150, 0], curves[200:210, 0] = 0.01, 0.0, 0.04
    known = np.ones(300, np.float32)
    known[290:] = 0
    press, weight = measured_closures(replace(clip, curves=curves, known=known))
    assert np.flatnonzero(press).tolist() == list(range(50, 60))
    assert np.flatnonzero(weight == 0).tolist() == [*range(100, 150), *range(290, 300)]
    assert np.flatnonzero((weight > 0) & (weight < 1)).tolist() == list(range(200, 210))


def test_closures_are_learned_from_synthetic_speech_and_nothing_else_changes(speech, backgrounds):
    """Bursts of one pitch in noise are the "b" of this speech."""
    encoder = open_mouth("real lips").acoustic_encoder
    assert encoder is not None
    start = with_acoustic_encoder(open_mouth("synthetic speech"), encoder)
    random = np.random.default_rng(0)
    mel, bands = (np.full((300, size), -7.0, np.float32) for size in (40, 80))
    phones, edges, closed = [PHONE_INDEX["aa"]], [0.0], np.zeros(150, bool)
    for place in range(20, 280, 40):
        mel[place : place + 12, 10:14], bands[place : place + 12, 20:28] = -3, -3
        phones += [PHONE_INDEX["b"], PHONE_INDEX["aa"]]
        edges += [place / 100, place / 100 + 0.12]
        closed[place // 2 : place // 2 + 4] = True
    mel += random.normal(0, 0.2, mel.shape)
    one = Spoken(mel, np.array(phones), np.array([*edges, 3.0]), "made up", bands)
    clip = spoken_lips(recording(mouth_controls(speech).at(FPS), speech), start, own=False)
    learned = learn_closures(start, [clip], [one], backgrounds, steps=30)
    sound = SpeechSound(*(torch.from_numpy(10**rows).float() for rows in (mel, bands)))
    with torch.inference_mode():
        before, after = (mouth_logits(network, sound) for network in (start, learned))
    opened = ~np.convolve(closed, np.ones(9), "same").astype(bool)
    press = after[:, PRESS].sigmoid().numpy()
    assert press[closed].mean() > 0.5
    assert press[opened].mean() < 0.25
    others = [index for index in range(before.shape[1]) if index != PRESS]
    torch.testing.assert_close(after[:, others], before[:, others], atol=1e-4, rtol=1e-4)


def test_a_mouth_in_a_pause_is_half_open_then_sinks_and_breathes_before_the_next_word():
    def at(since: float, until: float) -> float:
        return float(pause_opening(np.array([since]), np.array([until]))[0])

    assert at(0.1, 0.1) == pytest.approx(0.09, abs=0.01)
    assert at(0.6, 0.5) < 0.06
    assert at(0.75, 0.15) > 0.11
    assert at(2.0, 2.0) < 0.01
    assert at(np.inf, 5.0) < 0.01
    assert at(np.inf, 0.15) > 0.1
    assert at(5.0, np.inf) < 0.01


# --- folders and the command ---


@pytest.fixture
def people(tmp_path, said, speech) -> Path:
    """A folder with the landmarks of one person beside the sound."""
    folder = tmp_path / "people"
    folder.mkdir()
    one = recording(said, speech)
    np.savez(folder / "ann.npz", landmarks=one.points.astype(np.float16), fps=FPS)
    write_wav(folder / "ann.wav", speech)
    return folder


def test_a_folder_of_landmarks_and_sounds_is_read_with_its_list(people):
    (seen,) = recordings(people, open_landmarker(engine="opencv"))
    assert (seen.name, seen.speaker, seen.offset, seen.fps) == ("ann", "ann", None, FPS)
    entry = {"id": "ann", "speaker": "s1", "av_offset_ms": -40}
    (people / "manifest.json").write_text(json.dumps({"clips": [entry]}))
    (seen,) = recordings(people, open_landmarker(engine="opencv"))
    assert (seen.speaker, seen.offset) == ("s1", -0.04)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("ann.npz", b"no archive", "holds no landmarks"),
        ("manifest.json", b"[1]", "no list of clips"),
        ("ann.wav", None, "holds no video"),
    ],
)
def test_an_unusable_folder_is_named_in_one_sentence(people, name, content, reason):
    (people / name).unlink() if content is None else (people / name).write_bytes(content)
    with pytest.raises(TalkingPortraitError, match=reason) as raised:
        list(recordings(people, open_landmarker(engine="opencv")))
    assert "\n" not in str(raised.value)
    assert "allow_pickle" not in str(raised.value)  # NumPy advises to read unsafely what it does not know


def test_too_little_of_a_face_is_refused(said, speech):
    short = Audio(speech.waveform[:, : 2 * speech.sample_rate], speech.sample_rate)
    with pytest.raises(TalkingPortraitError, match="2.0 s, but at least 4 s"):
        spoken_lips(recording(said[: 2 * FPS], short), open_mouth("real lips"), own=True)


def test_the_command_writes_weights_that_the_driver_takes(people, tmp_path, speech, capsys):
    out = tmp_path / "own.safetensors"
    assert main(["train", "instant-driver", "--people", str(people), "--out", str(out), "--steps", "2"]) == 0
    assert str(out) in capsys.readouterr().out
    short = Audio(speech.waveform[:, : speech.sample_rate], speech.sample_rate)
    own, shipped = (mouth_controls(short, weights=weights).values for weights in (out, "real lips"))
    assert own.shape == shipped.shape
    assert not np.allclose(own, shipped, atol=1e-4)
    assert out.stat().st_size < 4_000_000


def test_the_command_teaches_all_layers_but_the_encoder_what_many_have_in_common(people, tmp_path, monkeypatch):
    monkeypatch.setattr("talking_portrait.pipelines.training.instant.command.BACKGROUNDS", 1)
    out = tmp_path / "many.safetensors"
    given = ["--people", str(people), "--out", str(out), "--start", "synthetic speech", "--many", "--steps", "2"]
    assert main(["train", "instant-driver", *given]) == 0
    learned, synthetic, shipped = (
        open_mouth(weights).state_dict() for weights in (out, "synthetic speech", "real lips")
    )
    assert learned.keys() == shipped.keys()
    for name, weight in learned.items():
        if name.startswith("acoustic_encoder.") or name == "average":
            torch.testing.assert_close(weight, shipped[name])
        elif name.startswith("blocks.") and weight.ndim == 2:
            assert (weight - synthetic[name]).any(), name
    assert learned["acoustic_head.out.weight"].any()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--out", "w.npz"], "ends in .safetensors"),
        (["--steps", "0"], "--steps 0 was given"),
        (["--corpus", "spoken", "--folds", "2"], "--corpus, --folds are for --many"),
        (["--many", "--recogniser", "nothing.bin"], "nothing.bin is not the speech recogniser Whisper tiny.en"),
        (["--start", "nobody", "--people", "no folder"], "it is no file, and none of real lips, synthetic speech"),
    ],
)
def test_impossible_options_are_refused(people, tmp_path, monkeypatch, capsys, options, reason):
    monkeypatch.chdir(tmp_path)
    given = ["--people", str(people), "--out", "w.safetensors", *options]
    assert main(["train", "instant-driver", *given]) == 2
    assert reason in capsys.readouterr().err


def test_shipped_weights_are_small_and_say_what_they_were_made_of():
    from safetensors import safe_open
    from talking_portrait.models.speech import mouth_network
    from talking_portrait.pipelines.audio.mouth_weights import WEIGHTS

    for name, file in WEIGHTS.items():
        path = Path(mouth_network.__file__).with_name(file)
        assert path.stat().st_size < 4_000_000
        with safe_open(path, framework="pt") as opened:
            about = opened.metadata()["data"]
        assert ("synthetic speech only" in about) == (name == "synthetic speech")


def test_foreign_weights_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_mouth_network(MouthNetwork(MouthConfig(mels=20, channels=8, dilations=(1,))), path, {})
    with pytest.raises(TalkingPortraitError, match="it takes 20 bands"):
        open_mouth(path)
    path.write_bytes(b"nothing")
    with pytest.raises(TalkingPortraitError, match="is no mouth network"):
        open_mouth(path)
