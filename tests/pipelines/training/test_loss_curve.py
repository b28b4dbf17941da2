"""Pictures of a training have the course of its loss beneath them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from talking_portrait.pipelines.training.core.loss_curve import LEAST_WIDTH, with_loss_curve


def test_the_loss_so_far_is_drawn_beneath_the_picture(tmp_path: Path) -> None:
    log, shown = tmp_path / "log.jsonl", []
    progress = with_loss_curve(lambda done, total, picture=None: shown.append((done, total, picture)), log)
    progress(1, 400, None)
    log.write_text("".join(json.dumps({"step": n + 1, "rate": 1e-3, "loss": 400.0 - n}) + "\n" for n in range(400)))
    picture = torch.rand(64, 128, 3)
    progress(400, 400, picture)
    assert shown[0] == (1, 400, None)
    assert shown[1][:2] == (400, 400)
    above, plot = shown[1][2][:192], shown[1][2][192:]
    assert above.shape == (192, LEAST_WIDTH, 3)
    torch.testing.assert_close(above[1::3, 1::3], picture)
    rows, columns = np.nonzero((plot[..., 2] - plot[..., 0]).numpy() > 0.15)  # the curve's colour
    early, late = columns < LEAST_WIDTH / 3, columns > LEAST_WIDTH * 2 / 3
    assert rows[early].mean() < rows[late].mean() - 30  # it falls
