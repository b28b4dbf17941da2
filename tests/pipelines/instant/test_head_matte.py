"""Where head and background can't be distinguished, the head moves less; shoulders keep still."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.instant.renderer.head_field import HeadField, skull_position
from talking_portrait.pipelines.instant.renderer.head_matte import HeadMatte, unclear_share
from talking_portrait.pipelines.instant.renderer.portrait_mesh import PortraitMesh


def test_pixels_that_are_neither_are_counted_over_the_heads():
    alpha = torch.zeros(1, 10, 10)
    alpha[:, :5] = 1.0
    assert unclear_share(alpha) == 0
    alpha[:, 5] = 0.5
    assert unclear_share(alpha) == pytest.approx(10 / 50)


def test_a_head_of_its_backgrounds_colours_moves_less():
    image, track = example_portrait()
    mesh = PortraitMesh(track)
    box = HeadField(mesh, torch.device("cpu")).box
    clear = HeadMatte(image.numpy(), mesh, box)
    # A veil in front of everything but the face.
    y, x = torch.meshgrid(*(torch.arange(float(side)) for side in image.shape[:2]), indexing="ij")
    middle = track.points[0, :468, :2].mean(axis=0)
    face = torch.exp(-(((x - middle[0]) / 60) ** 2 + ((y - middle[1]) / 75) ** 2))[..., None]
    mist = 0.6 + 0.03 * torch.randn(*image.shape[:2], 1, generator=torch.Generator().manual_seed(0))
    veiled = HeadMatte(torch.lerp(mist.expand_as(image), image, face.clamp(0, 1)).numpy(), mesh, box)
    assert clear.motion_share == 1
    assert 0.6 <= veiled.motion_share < 0.9


def test_shoulders_keep_still_while_a_neck_turns():
    _, track = example_portrait()
    mesh = PortraitMesh(track)
    field = HeadField(mesh, torch.device("cpu"))
    aside, height = skull_position(field.nodes.numpy(), mesh)
    weight = field.weight.view(aside.shape).numpy()
    assert weight[(abs(height + 14) < 1) & (aside < 0.3)].min() > 0.5
    assert weight[(height < -16) & (aside > 1.0)].max() < 0.05
