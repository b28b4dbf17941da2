"""The head's matte and what is behind it; how far head and shoulders move."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
import torch
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.instant.renderer.head_field import HeadField, skull_position
from talking_portrait.pipelines.instant.renderer.head_matte import HeadMatte, explained, unclear_share
from talking_portrait.pipelines.instant.renderer.portrait_mesh import PortraitMesh


@dataclass(frozen=True)
class Sitter:
    """The shipped portrait `image` (H, W, 3), its moving `box`, and of each pixel (H, W) `x`, `y`, the skull radii
    `aside` of the head's middle and the `height` in cm of the canonical head."""

    image: torch.Tensor
    mesh: PortraitMesh
    box: tuple[int, int, int, int]
    x: torch.Tensor
    y: torch.Tensor
    aside: torch.Tensor
    height: torch.Tensor

    def matte(self, picture: torch.Tensor) -> HeadMatte:
        return HeadMatte(picture.numpy(), self.mesh, self.box)

    def alpha(self, picture: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """The matte's values in the part of the box that is `where` (H, W)."""
        left, top, right, bottom = self.box
        return self.matte(picture).alpha[0][where[top:bottom, left:right]]


@pytest.fixture(scope="module")
def sitter() -> Sitter:
    image, track = example_portrait()
    mesh = PortraitMesh(track)
    box = HeadField(mesh, torch.device("cpu")).box
    y, x = torch.meshgrid(*(torch.arange(float(side)) + 0.5 for side in image.shape[:2]), indexing="ij")
    aside, height = (torch.from_numpy(v) for v in skull_position(torch.stack([x, y], dim=-1).numpy(), mesh))
    return Sitter(image, mesh, box, x, y, aside, height)


def test_pixels_that_are_neither_are_counted_over_the_heads():
    alpha = torch.zeros(1, 10, 10)
    alpha[:, :5] = 1.0
    assert unclear_share(alpha) == 0
    alpha[:, 5] = 0.5
    assert unclear_share(alpha) == pytest.approx(10 / 50)


def test_a_head_of_its_backgrounds_colours_moves_less(sitter):
    image = sitter.image
    # A veil in front of everything but the face.
    middle = sitter.mesh.points[:468].mean(axis=0) + 0.5
    face = torch.exp(-(((sitter.x - middle[0]) / 60) ** 2 + ((sitter.y - middle[1]) / 75) ** 2))[..., None]
    mist = 0.6 + 0.03 * torch.randn(*image.shape[:2], 1, generator=torch.Generator().manual_seed(0))
    veiled = sitter.matte(torch.lerp(mist.expand_as(image), image, face.clamp(0, 1)))
    assert sitter.matte(image).motion_share == 1
    assert 0.6 <= veiled.motion_share < 0.9


@pytest.mark.parametrize("bright", [False, True])
def test_what_a_background_does_not_explain_leaves_no_impossible_colour(bright):
    """From the left: a head, its soft edge, background of other colours than were filled in, and a rim of light."""
    picture = torch.full((3, 90, 120), 0.5)
    picture[..., :30] = torch.tensor([0.4, 0.3, 0.2])[:, None, None]
    picture[..., 34:44] = 0.75  # as the sky is further on
    picture[..., 60:90] = 0.75
    alpha = torch.zeros(1, 90, 120)
    alpha[..., :30], alpha[..., 30:34], alpha[..., 34:44] = 1.0, 0.5, 0.1
    behind = torch.where(alpha > 0, 0.3, picture)
    picture[:, 60:, 34:44] = 1.0
    picture[:, 60:, 60:90] = 0.5  # where the background has no such light
    if not bright:
        picture, behind = 1 - picture, 1 - behind
    changed, back = explained(picture, alpha, behind, (90, 120))
    share = picture - (1 - changed) * back
    assert float(share.amin()) > -0.01
    assert float((share - changed).amax()) < 0.01
    assert float((changed - alpha).amin()) > -1e-6
    torch.testing.assert_close(changed[:, :20, 37:41], alpha[:, :20, 37:41])
    assert float((back - picture)[:, :20, 37:41].abs().amax()) < 0.08  # it is the sky
    assert float(changed[:, 80:, 36:42].amin()) > 0.9  # it is the head's


def test_shoulders_keep_still_while_a_neck_turns(sitter):
    field = HeadField(sitter.mesh, torch.device("cpu"))
    aside, height = skull_position(field.nodes.numpy(), sitter.mesh)
    weight = field.weight.view(aside.shape).numpy()
    assert weight[(abs(height + 14) < 1) & (aside < 0.3)].min() > 0.5
    assert weight[(height < -16) & (aside > 1.0)].max() < 0.05


def test_hair_that_has_the_colour_of_a_thing_far_aside_stays_the_heads(sitter):
    """A door is as dark as the sheen of the hair, and between both is a wall."""
    aside, height = sitter.aside, sitter.height
    picture = torch.where((aside < 0.6)[..., None], sitter.image, torch.tensor([0.75, 0.68, 0.6]))
    picture[height < -10] = torch.tensor([0.9, 0.92, 0.95])
    hair = (aside < 1.25) & (height > 0) & ~((aside < 0.7) & (height < 7))
    lit = ((aside - 0.82) / 0.15).clamp(0, 1) * (height > 5) * (sitter.x < sitter.mesh.points[10, 0] - 10) * hair
    black, sheen = torch.tensor([0.06, 0.05, 0.06]), torch.tensor([0.16, 0.18, 0.22])
    picture[hair] = torch.lerp(black, sheen, lit.float()[..., None])[hair]
    picture[:, :28] = sheen
    assert float(sitter.alpha(picture, lit > 0.7).quantile(0.1)) > 0.9


def test_a_collar_of_the_walls_colour_is_not_the_wall(sitter):
    aside, height = sitter.aside, sitter.height
    wall = torch.tensor([0.85, 0.88, 0.8])
    picture = torch.where(((aside < 0.9) & (height > -9))[..., None], sitter.image, wall)
    picture[(height < -10) & (aside < 1.7)] = torch.tensor([0.1, 0.25, 0.2])
    collar = (height < -13) & (height > -15.5) & (aside > 0.8) & (aside < 1.2)
    picture[collar] = wall
    assert collar.any()
    assert float(sitter.alpha(picture, collar).quantile(0.1)) > 0.9


def test_a_hat_that_reaches_the_pictures_border_is_the_heads(sitter):
    """So is its brim, which lies where usually is background."""
    height, across = sitter.height, (sitter.x - sitter.mesh.points[10, 0]).abs() / sitter.mesh.eye_distance
    hat = ((height > 6.5) & (across < 0.95)) | ((height > 6) & (height < 7.5) & (across < 1.5))
    light = 0.4 + (1 - (across / 1.1) ** 2).clamp(0.15, 1)
    picture = sitter.image.clone()
    picture[hat] = (torch.tensor([0.25, 0.2, 0.15]) * light[..., None])[hat].float()
    assert hat[0].any()
    assert float(sitter.alpha(picture, hat).quantile(0.1)) > 0.9


def test_what_a_person_wears_hides_its_background_whatever_its_colour(sitter):
    """Folds in the opening of the suit are as bright as the wall."""
    alpha = sitter.alpha(sitter.image, (sitter.height < -15) & (sitter.height > -20) & (sitter.aside < 1.0))
    assert len(alpha) > 9000
    assert float(alpha.quantile(0.005)) > 0.97


def test_without_opencv_colours_alone_tell_the_head_from_the_wall(sitter, monkeypatch):
    both = sitter.matte(sitter.image).alpha
    monkeypatch.setitem(sys.modules, "cv2", None)
    colours = sitter.matte(sitter.image).alpha
    assert float((colours - both).abs().mean()) < 0.02
