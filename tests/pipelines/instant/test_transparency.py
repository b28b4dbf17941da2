"""Cut-outs: what is transparent never shows, and stays transparent around a head that moves."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from talking_portrait.models.face.face_mesh import FACE_OVAL
from talking_portrait.models.face.mouth_shapes import mouth_vertices, neutral_vertices
from talking_portrait.models.face.upper_face_shapes import upper_face_shapes
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.images import read_image
from talking_portrait.pipelines.instant.animate import animate, fit_portrait, frames_of
from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
from talking_portrait.pipelines.types import FaceMotion, FaceTrack


@pytest.fixture(scope="module")
def cut_out() -> tuple[torch.Tensor, FaceTrack]:
    """The sample's head (H, W, 4) without its background, red beneath what is transparent."""
    image, track = fit_portrait(*example_portrait(), 192)
    height, width = image.shape[:2]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    middle = track.points[0, :468, :2].mean(axis=0)
    head = torch.hypot((x - middle[0]) / 44, (y - middle[1] + 12) / 58) < 1
    head |= (y > middle[1]) & ((x - middle[0]).abs() < 24 + (y - middle[1] - 40).clamp(min=0) * 2)
    alpha = torch.nn.functional.avg_pool2d(head.float()[None], 3, stride=1, padding=1)[0]
    red = torch.tensor([1.0, 0.0, 0.0])
    return torch.cat([torch.where(alpha[..., None] > 0, image, red), alpha[..., None]], dim=-1), track


@pytest.fixture(scope="module")
def motion() -> FaceMotion:
    """At rest, then turned with an open mouth."""
    controls, rotation = np.zeros((2, 6)), np.zeros((2, 3), np.float32)
    controls[1, 0], rotation[1, 1] = 0.5, 10
    vertices = (neutral_vertices() + mouth_vertices(controls)).astype(np.float32)
    return FaceMotion(vertices, neutral_vertices(), rotation, np.zeros((2, 3), np.float32), Fraction(25))


def test_a_cut_out_moves_with_its_alpha(cut_out, motion):
    picture, track = cut_out
    frames, masks = (torch.cat(parts) for parts in zip(*animate(picture, track, motion), strict=True))
    assert frames.shape == (2, *picture.shape)
    brows = int(track.points[0, 9, 1])
    assert (frames[0, :brows, :, 3] - picture[:brows, :, 3]).abs().max() < 0.01
    opaque = picture[:brows, :, 3] == 1
    assert (frames[0, :brows][opaque] - picture[:brows][opaque]).abs().max() < 0.01
    moved = (frames[1, ..., 3] - picture[..., 3]).abs() > 0.5
    assert 50 < moved.sum() < 0.1 * moved.numel()
    assert (frames[1, ..., 3][masks[1] == 0] - picture[..., 3][masks[1] == 0]).abs().max() < 0.01
    visible = frames[..., 3:] * frames[..., :3]
    assert (visible[..., 0] - visible[..., 1:3].amax(dim=-1)).max() < 0.8, "no red of what is hidden"


@pytest.mark.parametrize("background", [False, True], ids=["cut-out", "with background"])
def test_what_is_drawn_on_a_face_is_as_opaque_as_the_face(cut_out, motion, background):
    picture, track = cut_out
    whole = picture.clone()
    if background:
        whole[..., 3] = 1
    half = whole.clone()
    half[..., 3] *= 0.5
    shapes = upper_face_shapes()
    lids = 0.7 * (shapes["eyeBlinkLeft"] + shapes["eyeBlinkRight"]).astype(np.float32)
    speaking = replace(motion, vertices=motion.vertices + lids, gaze=np.float32([[0, 0], [5, 0]]))
    seen, veiled = (torch.cat([f for f, _ in animate(one, track, speaking)])[1] for one in (whole, half))
    face = ImageDraw.Draw(mask := Image.new("L", (half.shape[1], half.shape[0])))
    face.polygon([tuple(point) for point in track.points[0, list(FACE_OVAL), :2]], fill=255)
    inside = torch.from_numpy(np.array(mask)) > 0
    assert (veiled[inside][:, 3] - 0.5).abs().max() < 0.02
    assert (veiled[inside][:, :3] - seen[inside][:, :3]).abs().quantile(0.999) < 0.05


def test_what_is_transparent_is_white(cut_out, motion):
    picture, track = cut_out
    frames = InstantRenderer(picture, track).render(motion)[0]
    corner = frames[:, :20, :20]
    assert torch.equal(corner, torch.tensor([1.0, 1.0, 1.0, 0.0]).expand_as(corner))


def test_a_background_stays_opaque_beside_clear_corners(motion):
    image, track = fit_portrait(*example_portrait(), 128)
    alpha = torch.ones_like(image[..., :1])
    alpha[:8, :8] = alpha[:8, -8:] = 0
    frames = torch.cat(list(frames_of(torch.cat([image, alpha], dim=-1), track, motion)))
    assert (frames[..., 3] - 255 * alpha[..., 0]).abs().max() <= 1
    opaque = torch.cat(list(frames_of(image, track, motion)))
    assert (frames[:, 8:, :, :3].int() - opaque[:, 8:].int()).abs().max() <= 8


@pytest.mark.parametrize("ending", ["webm", "mov"])
def test_videos_keep_the_alpha(tmp_path, cut_out, motion, ending):
    import av

    picture, track = cut_out
    path = tmp_path / f"head.{ending}"
    assert write_stream(path, frames_of(picture, track, motion), motion.fps) == 2
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9" if ending == "webm" else "prores", "r")
        decoder.extradata = stream.codec_context.extradata
        shown = [frame for packet in file.demux(stream) for frame in decoder.decode(packet)]
    last = shown[-1].to_ndarray(format="rgba")
    wanted = torch.cat(list(frames_of(picture, track, motion)))[-1].numpy()
    assert np.abs(last[..., 3].astype(int) - wanted[..., 3]).mean() < 3


def test_other_videos_can_not_hold_alpha(tmp_path, cut_out, motion):
    with pytest.raises(TalkingPortraitError, match=r"ends in \.webm or \.mov"):
        write_stream(tmp_path / "head.mp4", frames_of(*cut_out, motion), motion.fps)
    assert not list(tmp_path.iterdir())


def test_picture_files_keep_their_alpha_where_it_is_wanted(tmp_path):
    Image.new("RGBA", (4, 3), (255, 0, 0, 51)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 3), (255, 0, 0)).save(tmp_path / "b.png")
    assert read_image(tmp_path / "a.png", alpha=True)[0, 0].tolist() == pytest.approx([1, 0, 0, 0.2])
    assert read_image(tmp_path / "b.png", alpha=True).shape == (3, 4, 3)
