from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.image.curve_plot import PAPER
from talking_portrait.pipelines.motion.preview import _LIP, _MOUTH, draw_motion, plot_motion
from talking_portrait.pipelines.types import Audio

from ..face.moving_faces import face_motion


def share(picture: torch.Tensor, colour: tuple[int, int, int]) -> float:
    wanted = torch.tensor(colour) / 255
    return float(((picture - wanted).abs().amax(dim=-1) < 0.02).float().mean())


def still(frames: int, jaw: float = 0.0, **changes):
    motion = face_motion(frames, jaw=np.full(frames, jaw))
    return replace(motion, rotation=motion.rotation * 0, translation=motion.translation * 0, **changes)


@pytest.mark.parametrize("size", [(128, 128), (160, 96), (96, 160)])
def test_the_drawing_fits_the_picture(size):
    pictures = draw_motion(still(2), size)
    assert pictures.shape == (2, *size, 3)
    assert pictures.dtype == torch.float32
    assert 0 <= pictures.min() <= pictures.max() <= 1
    paper = (pictures[0] - torch.tensor(PAPER) / 255).abs().amax(dim=-1) < 1e-3
    drawn = ~paper
    border = torch.cat([drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]])
    assert not border.any()
    assert drawn.float().mean() > 0.2


def test_the_drawn_mouth_opens():
    shut, open_ = (draw_motion(still(1, jaw), (256, 256))[0] for jaw in (0.0, 0.8))
    assert share(open_, _MOUTH) > 5 * share(shut, _MOUTH) + 0.002
    assert share(shut, _LIP) > 0.005


def test_the_drawn_eyes_close():
    shapes = [face_motion(1, jaw=np.zeros(1), closed=np.array([amount])) for amount in (0.0, 1.0)]
    opened, shut = (draw_motion(replace(m, rotation=m.rotation * 0), (256, 256))[0] for m in shapes)
    white = (226, 230, 238)
    assert share(opened, white) > 0.001
    assert share(shut, white) < 0.1 * share(opened, white)


def test_the_drawn_head_turns_to_its_left():
    straight = still(1)
    turned = replace(straight, rotation=np.array([[0, 20, 0]], np.float32))
    lips = []
    for motion in (straight, turned):
        picture = draw_motion(motion, (128, 128))[0]
        mask = (picture - torch.tensor(_LIP) / 255).abs().amax(dim=-1) < 0.05
        lips.append(float(torch.nonzero(mask)[:, 1].float().mean()))
    assert lips[1] > lips[0] + 4


def test_camera_poses_are_drawn_at_their_projection():
    motion = still(1, pose="camera")
    aside = replace(motion, translation=np.array([[10, 0, -55]], np.float32))
    picture = draw_motion(aside, (128, 128))[0]
    columns = torch.nonzero((picture - torch.tensor(PAPER) / 255).abs().amax(dim=-1) > 0.05)[:, 1].float()
    assert columns.mean() == pytest.approx(64 + 64 * 10 / (55 * np.tan(np.radians(31.5))), abs=3)


def test_progress_shows_the_frames():
    reports = []
    draw_motion(still(3), (64, 64), progress=lambda done, total, preview=None: reports.append((done, preview.shape)))
    assert reports == [(1, (64, 64, 3)), (2, (64, 64, 3)), (3, (64, 64, 3))]


def panel_colours(picture: torch.Tensor) -> list[tuple[int, int, int]]:
    colours = [(236, 112, 126), (120, 190, 255), (214, 168, 110), (134, 214, 150), (206, 160, 250), (242, 210, 104)]
    return [colour for colour in colours if share(picture, colour) > 2e-4]


@pytest.mark.parametrize("frames", [1, 40, 3000])
@pytest.mark.parametrize("sound", [True, False])
def test_the_plot_shows_six_curves_and_the_sound(frames, sound):
    random = np.random.default_rng(0)
    motion = face_motion(frames)
    audio = Audio(torch.from_numpy(random.normal(0, 0.1, (2, frames * 640 - 300))).float(), 16000) if sound else None
    picture = plot_motion(motion, audio, (720, 1280))
    assert picture.shape == (720, 1280, 3)
    assert 0 <= picture.min() <= picture.max() <= 1
    if frames > 1:
        assert len(panel_colours(picture)) == 6
    wave = share(picture, (40, 45, 60))
    assert (wave > 0.05) == sound


def test_silence_is_drawn_as_no_sound():
    motion = face_motion(20)
    silent = plot_motion(motion, Audio(torch.zeros(1, 12800), 16000), (180, 320))
    torch.testing.assert_close(silent, plot_motion(motion, None, (180, 320)), atol=1 / 255, rtol=0)


def test_a_blink_stands_in_the_plot_where_it_happens():
    closed = np.zeros(100)
    closed[75:77] = 1
    without_blink, blinking = (
        plot_motion(face_motion(100, closed=c), size=(360, 640)) for c in (np.zeros(100), closed)
    )
    changed = torch.nonzero((without_blink - blinking).abs().amax(dim=-1) > 0.1)
    left, right = 48, 630  # the labels take 96 of 1280 columns
    assert changed[:, 1].float().mean() == pytest.approx(left + 0.76 * (right - left), abs=12)


@pytest.mark.parametrize("size", [(0, 100), (100, 5000), (63, 64)])
def test_impossible_sizes_are_refused(size):
    for make in (lambda: draw_motion(still(1), size), lambda: plot_motion(still(1), None, size)):
        with pytest.raises(TalkingPortraitError, match="sides from 64 to 4096"):
            make()
