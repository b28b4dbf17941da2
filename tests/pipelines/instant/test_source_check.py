"""The line about what a portrait lacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from talking_portrait.models.face.face_mesh import LEFT_EYE, RIGHT_EYE
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.instant.animate import describe_portrait
from talking_portrait.pipelines.instant.renderer.portrait_mesh import PortraitMesh
from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
from talking_portrait.pipelines.instant.source_check import source_note

LOWER_FACE = (234, 132, 172, 150, 152, 379, 397, 361, 454, 6)


def note_on(picture: np.ndarray, points: np.ndarray | None = None) -> str:
    track = example_portrait()[1]
    if points is not None:
        track = replace(track, points=points[None].astype(np.float32))
    return source_note(picture, PortraitMesh(track))


def test_a_good_portrait_has_no_note():
    image, track = example_portrait()
    assert note_on(image.numpy()) == ""
    assert describe_portrait(image, track) == ""


@pytest.mark.parametrize("colour", [(190, 210, 225), (22, 22, 25), (214, 178, 150)])
def test_a_mouth_behind_a_mask_or_a_hand_is_said(colour):
    image, track = example_portrait()
    picture = Image.fromarray((image.numpy() * 255).round().astype(np.uint8))
    outline = [tuple(point) for point in track.points[0, list(LOWER_FACE), :2]]
    ImageDraw.Draw(picture).polygon(outline, fill=colour)
    noisy = np.asarray(picture) / 255 + np.random.default_rng(0).normal(0, 0.01, image.shape)
    assert "something covers the mouth" in note_on(noisy.clip(0, 1))


def test_open_mouths_shut_eyes_and_small_faces_are_said_in_one_line():
    image, track = example_portrait()
    points = track.points[0].copy()
    points[[14, 87, 317, 178, 402, 88, 318], 1] += 30
    for ring in (RIGHT_EYE, LEFT_EYE):
        points[list(ring), 1] = points[list(ring), 1].mean()
    said = note_on(image.numpy(), points)
    assert "the mouth is wide open" in said
    assert "the eyes are shut" in said
    assert "\n" not in said
    small = replace(track, points=track.points / 8, image_size=(64, 64))
    picture = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1), 8).permute(1, 2, 0)
    assert "the face is very small (14 pixels" in source_note(picture.numpy(), PortraitMesh(small))


def test_an_upside_down_portrait_is_refused():
    image, track = example_portrait()
    height, width = image.shape[:2]
    points = np.concatenate([[width, height] - track.points[..., :2], track.points[..., 2:]], axis=-1)
    with pytest.raises(TalkingPortraitError, match="rotate the picture by 180 degrees"):
        InstantRenderer(image.flip(0, 1), replace(track, points=points.astype(np.float32)))
