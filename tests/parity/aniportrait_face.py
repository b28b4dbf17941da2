"""AniPortrait's face stage: metric mesh and head matrix from landmarks, and its app's crop."""

from __future__ import annotations

import numpy as np
import torch
from talking_portrait.pipelines.face.crop_boxes import app_box
from talking_portrait.pipelines.face.metric_mesh import metric_mesh
from talking_portrait.pipelines.image.affine_sampling import box_map, sample_picture

from .goldens import Golden, runner


@runner("aniportrait", "face_geometry")
def face_geometry(golden: Golden) -> None:
    tolerance = golden.meta["tolerance"]
    for number, size in golden.meta["sizes"].items():
        height, width = size["height"], size["width"]
        points = golden.array(f"lmks{number}") * [width, height, width]
        vertices, matrix = metric_mesh(points, (height, width))
        golden.compare(f"lmks3d{number}", vertices, atol=tolerance["lmks3d_atol"])
        golden.compare(f"trans_mat{number}", matrix, atol=tolerance["trans_mat_atol"])
        golden.leave_out(f"bs{number}", reason="scores of the landmark network, which geometry does not use")


@runner("aniportrait", "crop_face")
def crop_face(golden: Golden) -> None:
    for number, row in enumerate(golden.meta["rows"]):
        height, width = row["h"], row["w"]
        y, x = np.mgrid[:height, :width]
        picture = torch.from_numpy(np.stack([x % 256, y % 256, (x + y) % 256], axis=-1)).double() / 255
        left_right_top_bottom = row["bbox_norm_xmin_xmax_ymin_ymax"]
        left, right, top, bottom = left_right_top_bottom
        box = app_box((left, top, right, bottom), (height, width))
        side = (box[3] - box[1], box[2] - box[0])
        cut = sample_picture(picture, box_map(box[0], box[1], side[1], side[0], side), side, "black")
        pixels = (cut * 255).round().long().numpy()
        golden.check(f"shape {number}", np.array(pixels.shape), row["out_shape"])
        golden.check(f"corners {number}", np.stack([pixels[0, 0], pixels[-1, -1]]), row["corners"])
        golden.check(f"sum {number}", pixels.sum(), row["out_sum"])
