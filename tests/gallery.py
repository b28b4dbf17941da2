"""Mouth shapes that stand still, for looking at: python -m tests.gallery [PICTURE ...] [--out FILE.png].

One row for each picture (without any, for the shipped portrait as it is, small, grey, dark and blurred): the picture's
own mouth, then rest, jaw .4, jaw .7, ee, u, o, sh, f/v and m, as Instant draws them while a face speaks.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from talking_portrait.models.face.face_mesh import BLENDSHAPES
from talking_portrait.models.face.mouth_shapes import mouth_blendshapes, mouth_vertices, neutral_vertices
from talking_portrait.pipelines.face.landmarks import detect, open_landmarker
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.files.images import read_image
from talking_portrait.pipelines.instant.animate import fit_portrait
from talking_portrait.pipelines.instant.renderer.renderer import InstantRenderer
from talking_portrait.pipelines.types import FaceMotion, FaceTrack

SHAPES: dict[str, tuple[float, ...]] = {
    "rest": (0, 0, 0, 0, 0, 0),
    "jaw .4": (0.4, 0, 0, 0, 0, 0),
    "jaw .7": (0.7, 0, 0, 0, 0, 0),
    "ee": (0.12, 1, 0, 0, 0.6, 0),
    "u": (0.12, 0, 1, 0, 0, 0),
    "o": (0.42, 0, 0.7, 0, 0, 0),
    "sh": (0.12, 0.1, 0.5, 0, 0.8, 0),
    "f/v": (0.08, 0, 0, 0, 0.2, 0),
    "m": (0.05, 0, 0, 1, 0, 0),
}
"""Mouth controls: jaw, width, round, press, upper, tongue."""
HOLD = 12
"""Frames for which each shape is held, so that what follows the speech has arrived."""
TILE = 192
"""Pixels of one picture of the gallery."""


def gallery_motion() -> FaceMotion:
    """Every shape for `HOLD` frames, in the order of `SHAPES`, at 25 frames a second."""
    controls = np.repeat(np.array(list(SHAPES.values())), HOLD, axis=0)
    scores = mouth_blendshapes(controls)
    tucked = np.repeat(np.array([name == "f/v" for name in SHAPES]), HOLD)
    scores[tucked, BLENDSHAPES.index("mouthRollLower")] = 1.0
    still = np.zeros((len(controls), 3), np.float32)
    return FaceMotion(
        vertices=neutral_vertices() + mouth_vertices(controls),
        neutral=neutral_vertices(),
        rotation=still,
        translation=still,
        fps=Fraction(25),
        blendshapes=scores,
    )


def gallery_row(image: torch.Tensor, track: FaceTrack) -> np.ndarray:
    """The tiles (TILE, TILE * (1 + shapes), 3) uint8 of one portrait (H, W, 3) with its landmarks."""
    image, track = fit_portrait(image, track, 512)
    frames = torch.cat(list(InstantRenderer(image, track).frames_uint8(gallery_motion())))
    chosen = [(image * 255).round().to(torch.uint8), *frames[HOLD // 2 :: HOLD]]
    return np.concatenate([_mouth_tile(frame, track) for frame in chosen], axis=1)


def _mouth_tile(frame: torch.Tensor, track: FaceTrack) -> np.ndarray:
    points = track.points[0, :, :2]
    half = 0.5 * float(np.linalg.norm(points[33] - points[263]))
    x, y = (points[[61, 291]].mean(axis=0) + [0, 0.15 * half]).tolist()
    steps = (torch.arange(TILE) + 0.5) / TILE * 2 - 1
    height, width = frame.shape[:2]
    across, down = (x + steps * half) / width * 2 - 1, (y + steps * half) / height * 2 - 1
    where = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)[None]
    pixels = frame.permute(2, 0, 1)[None].float()
    tile = torch.nn.functional.grid_sample(pixels, where, mode="bicubic", align_corners=False)
    return tile[0].permute(1, 2, 0).clamp(0, 255).round().to(torch.uint8).numpy()


def shipped_portraits() -> dict[str, tuple[torch.Tensor, FaceTrack]]:
    """The shipped portrait in five looks."""
    image, track = example_portrait()
    return {
        "shipped": (image, track),
        "small": fit_portrait(image, track, 160),
        "grey": (image.mean(dim=-1, keepdim=True).expand(-1, -1, 3).contiguous(), track),
        "dark": (image**2, track),
        "blurred": (_blurred(image), track),
    }


def _blurred(image: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import interpolate

    small = interpolate(image.permute(2, 0, 1)[None], scale_factor=0.25, mode="area")
    return interpolate(small, size=image.shape[:2], mode="bicubic")[0].permute(1, 2, 0).clamp(0, 1)


def main() -> None:
    from PIL import Image, ImageDraw

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/gallery.png"))
    parser.add_argument("--task", type=Path, help="MediaPipe's face_landmarker.task")
    given = parser.parse_args()
    portraits = {} if given.pictures else shipped_portraits()
    if given.pictures:
        landmarker = open_landmarker(given.task)
        for path in given.pictures:
            image = read_image(path)
            portraits[path.stem] = image, detect(image[None], landmarker)[0]
    sheet = Image.fromarray(np.concatenate([gallery_row(*portrait) for portrait in portraits.values()]))
    draw = ImageDraw.Draw(sheet)
    for row, portrait in enumerate(portraits):
        for column, shape in enumerate(("picture", *SHAPES)):
            label = f"{portrait}: {shape}" if column == 0 else shape
            draw.text((column * TILE + 4, row * TILE + 2), label, fill="white", stroke_width=1, stroke_fill="black")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(given.out)
    print(f"{len(portraits)} portraits are in {given.out}")


if __name__ == "__main__":
    main()
