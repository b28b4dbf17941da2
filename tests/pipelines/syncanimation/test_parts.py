"""Background, head, neck and torso of a drawn person whose true parts are known, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.models.face.bisenet import BiSeNet
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.syncanimation.avatar import HEAD_PART, NECK_PART, TORSO_PART
from talking_portrait.pipelines.syncanimation.preparation import parsers
from talking_portrait.pipelines.syncanimation.preparation import parts as parts_module
from talking_portrait.pipelines.syncanimation.preparation.background import clean_background
from talking_portrait.pipelines.syncanimation.preparation.guided_filter import GuidedFilter
from talking_portrait.pipelines.syncanimation.preparation.keyframes import label_frames
from talking_portrait.pipelines.syncanimation.preparation.parts import cleaned, learn_parts
from talking_portrait.pipelines.syncanimation.preparation.torso import torso_picture

from .drawn_person import SIZE, DrawnPerson, draw_person


@pytest.fixture(scope="module")
def person() -> DrawnPerson:
    return draw_person(12)


def overlap(found: np.ndarray, true: np.ndarray, part: int) -> float:
    """Intersection over union."""
    return ((found == part) & (true == part)).sum() / ((found == part) | (true == part)).sum()


def test_colours_and_the_heads_place_give_the_parts(person: DrawnPerson) -> None:
    found = label_frames(person.frames, person.places)
    assert overlap(found, person.parts, HEAD_PART) > 0.9
    assert overlap(found, person.parts, TORSO_PART) > 0.87
    assert overlap(found, person.parts, NECK_PART) > 0.6
    assert overlap(found > 0, person.parts > 0, True) > 0.93


def test_a_network_learns_them_for_frames_that_it_was_not_shown(
    person: DrawnPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "STEPS", 60)
    shown = list(range(0, 12, 2))
    parser = learn_parts([person.frames[i] for i in shown], shown, lambda number, shrink: person.places[number])
    found = np.stack([parser.parts(person.frames[i], i) for i in range(1, 12, 2)])
    assert overlap(found > 0, person.parts[1::2] > 0, True) > 0.92
    assert overlap(found, person.parts[1::2], HEAD_PART) > 0.88
    assert overlap(found, person.parts[1::2], TORSO_PART) > 0.85


def test_the_background_is_what_the_frames_show_of_it(person: DrawnPerson) -> None:
    background, hidden = clean_background(zip(person.frames, person.parts, strict=True))
    seen = (person.parts == 0).sum(axis=0) > 6
    assert np.abs(background[seen].astype(float) - person.wall[seen]).mean() < 4
    assert 0.1 < hidden < (person.parts > 0).all(axis=0).mean() + 0.05
    inside = person.parts[0] > 0
    assert background[inside].min() > 100, "the person's dark clothes and hair are in the background"


def test_neck_and_torso_go_on_under_the_head(person: DrawnPerson) -> None:
    frame, parts = person.frames[0], person.parts[0]
    torso = torso_picture(frame, parts)
    shown = torso[..., 3] > 0
    body = np.isin(parts, (NECK_PART, TORSO_PART))
    assert shown[body].all()
    assert not shown[parts == 0].any()
    column = int(np.flatnonzero((parts == NECK_PART).any(axis=0)).mean())
    top = int(np.flatnonzero(body[:, column])[0])
    assert top - int(np.flatnonzero(shown[:, column])[0]) == pytest.approx(15, abs=2)  # 59 of 512 pixels
    neck = frame[parts == NECK_PART].mean(axis=0)
    assert np.abs(torso[top - 10 : top, column, :3] - neck).mean() < 12
    assert not torso[~shown].any()
    far = body & (np.arange(SIZE)[:, None] > top + 8)
    np.testing.assert_allclose(torso[far][:, :3], frame[far], atol=1)


def test_a_person_without_a_neck_or_a_body_has_a_torso_picture(person: DrawnPerson) -> None:
    head_only = np.where(person.parts[0] == HEAD_PART, HEAD_PART, 0).astype(np.uint8)
    assert not torso_picture(person.frames[0], head_only).any()
    collar = np.where(person.parts[0] == NECK_PART, TORSO_PART, person.parts[0]).astype(np.uint8)
    assert torso_picture(person.frames[0], collar)[..., 3].any()


def test_specks_and_holes_are_taken_out() -> None:
    parts = np.zeros((64, 64), np.uint8)
    parts[10:40, 20:44], parts[40:64, 10:54] = HEAD_PART, TORSO_PART
    clean = parts.copy()
    parts[2, 2] = HEAD_PART
    parts[20, 30] = 0
    parts[50:52, 30] = HEAD_PART
    parts[60, 20] = NECK_PART
    parts[60:63, 40:50] = NECK_PART  # a hand
    clean[60:63, 40:50] = NECK_PART
    np.testing.assert_array_equal(cleaned(parts), clean)
    assert not cleaned(np.zeros((8, 8), np.uint8)).any()


def test_the_guided_filter_follows_an_edge_that_the_values_miss() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = (200, 90, 30)
    values = np.zeros((32, 32), np.float32)
    values[:, 18:] = 1
    filtered = GuidedFilter(picture, 6)(values)
    assert filtered[:, 8:16].max() < 0.1
    assert filtered[:, 16:26].min() > 0.5
    constant = GuidedFilter(picture, 6)(np.full((32, 32, 2), 0.3))
    np.testing.assert_allclose(constant, 0.3, atol=1e-3)


def test_classes_of_the_segmenter_become_parts() -> None:
    classes = np.zeros((40, 40), np.uint8)
    classes[4:10, 12:28] = 1
    classes[10:20, 12:28] = 3
    classes[14, 14:26] = 5  # glasses
    classes[20:24, 16:24] = 2
    classes[24:40, 4:36] = 4
    classes[34:37, 10:14] = 2  # a hand
    classes[26:30, 20] = 5  # a microphone
    parts = parsers.parts_of_segmenter(classes)
    assert (parts[4:20, 12:28] == HEAD_PART).all()
    assert (parts[20:24, 16:24] == NECK_PART).all()
    assert (parts[24:40, 4:36] == TORSO_PART).all()
    assert not parts[:4].any()


def test_bisenet_takes_a_file_with_the_published_names(tmp_path: Path, person: DrawnPerson) -> None:
    torch.manual_seed(0)
    network = BiSeNet()
    heads = {f"conv_out{level}.conv_out.weight": torch.zeros(19, 64, 1, 1) for level in (16, 32)}
    assert len(network.state_dict()) + 14 == 191, "tensors of the published file"
    torch.save(network.state_dict() | heads, tmp_path / "79999_iter.pth")
    parser = parsers.open_parser(tmp_path / "79999_iter.pth")
    assert parser.name == "BiSeNet"
    assert parser.parts(person.frames[0], 0).shape == (SIZE, SIZE)
    assert parsers.BISENET_PARTS.shape == (19,)


def test_files_that_are_no_parser_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "segmenter.tflite").write_bytes(b"nothing")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for name, words in (
        ("nowhere.pth", "nowhere.pth"),
        ("other.pth", "BiSeNet's face parsing is expected"),
        ("segmenter.tflite", "segmenter.tflite"),
    ):
        with pytest.raises(TalkingPortraitError, match=words) as error:
            parsers.open_parser(tmp_path / name)
        assert "\n" not in str(error.value)
