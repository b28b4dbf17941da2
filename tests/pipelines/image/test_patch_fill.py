"""What is behind a head is continued as the background goes on beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.image.patch_fill import filled_background


def pattern(kind: str) -> torch.Tensor:
    """A picture (3, 96, 120) of a background."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(120.0), indexing="ij")
    values = {
        "slope": 0.3 + 0.4 * x / 120,
        "blinds": 0.3 + 0.5 * ((y // 4) % 2),
        "posts": 0.3 + 0.5 * ((x // 5) % 2),
        "horizon": torch.where(y < 44, 0.8, 0.3) + 0.05 * torch.sin(x * 1.3) * torch.sin(y * 1.7),
    }
    return values[kind].expand(3, -1, -1).contiguous()


def test_patches_take_the_colours_of_what_they_join():
    """A slope over a pattern: no patch from another place has the brightness that it must have here."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(120.0), indexing="ij")
    picture = (0.25 + 0.5 * x / 120 + 0.06 * ((x // 3 + y // 3) % 2)).expand(3, -1, -1).contiguous()
    distance = torch.hypot((x - 60) / 30, (y - 50) / 36)
    known = (distance > 1).float()[None]
    filled = filled_background(torch.where(known > 0, picture, torch.tensor(0.05)), known)
    rim = (distance < 1) & (distance > 0.85)
    left, right = (float((filled - picture)[:, rim & side].mean()) for side in (x < 60, x > 60))
    assert abs(left) < 0.03
    assert abs(right) < 0.03


def test_what_is_far_away_changes_nothing_beside_the_background():
    """A body covers all of the picture's foot but a dark door far aside."""
    picture = torch.full((3, 96, 120), 0.7)
    picture[:, 48:, :10] = 0.0
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(120.0), indexing="ij")
    body = ((y > 60) & (x > 10)) | ((x - 80).abs() < 10)
    filled = filled_background(torch.where(body, 0.2, picture), (~body).float()[None])
    beside = body & (y < 64) & (x > 40)
    assert float((filled - 0.7).abs()[:, beside].max()) < 0.02
    assert float(filled[:, 90:, 60:].min()) > 0.4


@pytest.mark.parametrize("kind", ["slope", "blinds", "posts", "horizon"])
def test_the_background_goes_on_behind_the_edge_of_the_head(kind):
    picture = pattern(kind)
    y, x = np.mgrid[:96, :120]
    distance = torch.from_numpy(np.hypot((x - 60) / 22, (y - 50) / 30)).float()
    known = (distance > 1).float()[None]
    covered = torch.where(known > 0, picture, torch.tensor(0.05))
    filled = filled_background(covered, known)
    rim = (distance < 1) & (distance > 0.75)
    errors = (filled - picture).abs().amax(dim=0)
    assert float((errors[rim] > 0.15).float().mean()) < 0.12
    assert torch.allclose(filled[:, distance > 1.2], picture[:, distance > 1.2], atol=0.02)
