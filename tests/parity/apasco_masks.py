"""Masks of a portrait and of a training video, and which face counts."""

from __future__ import annotations

import numpy as np
import torch
from talking_portrait.models.diffusion.layout import REGIONS
from talking_portrait.models.face.face_mesh import LIPS_OUTER
from talking_portrait.pipelines.apasco.masks import (
    FACE_BLUR,
    blurred,
    bounds,
    expanded,
    filled,
    region_masks,
    training_masks,
    united_boxes,
)
from talking_portrait.pipelines.apasco.pictures import portrait_picture
from talking_portrait.pipelines.face.identity import FoundFace, largest_face

from .goldens import Golden, runner

EXACT = {"atol": 0.0, "rtol": 0.0}
LEVEL = {"atol": 1.0, "rtol": 0.0}
"""One grey level."""


@runner("apasco", "portrait_masks")
def portrait_masks(golden: Golden) -> None:
    meta = golden.meta
    image, points = golden.array("in.image"), golden.array("in.landmarks_xy")
    size, side = image.shape[:2], meta["image_size"]
    for case in meta["expand_region_cases"]:
        box = expanded(case["region_xxyy"], (case["h"], case["w"]), case["ratio"])
        golden.check(f"expanded {case['region_xxyy']}", np.array(box), case["result"])

    lips = filled(expanded(bounds(points, LIPS_OUTER), size, meta["lip_expand_ratio"]), size, wrap=True)
    for name, boxes in meta["boxes"].items():
        ratio = float(name.removeprefix("r"))
        masks = region_masks(points, size, face_ratio=ratio, lip_ratio=meta["lip_expand_ratio"], wrap=True)
        out = f"out.{name}"
        golden.compare(f"{out}.png_face_mask", masks.region, **EXACT)
        golden.compare(f"{out}.png_lip_mask", lips, **EXACT)
        golden.check(f"{name} face box", box_of(masks.region), boxes["face_mask_bbox_xyxy"])
        golden.check(f"{name} lip box", box_of(lips), boxes["lip_mask_bbox_xyxy"])
        golden.compare(f"{out}.png_face_mask_blur", blurred(masks.region, FACE_BLUR), **LEVEL)
        golden.compare(f"{out}.png_sep_lip", masks.lip, **LEVEL)
        golden.compare(f"{out}.png_sep_background", masks.full, **LEVEL)
        golden.compare(f"{out}.png_sep_face", masks.face, **LEVEL)
        golden.compare(f"{out}.face_region_u8", (masks.located((side, side))[0, 0, 0] * 255).round(), **LEVEL)
        for level, mask in enumerate(masks.levels((side // 8, side // 8))):
            for index, region in enumerate(REGIONS):
                golden.compare(f"{out}.{region}_{level}", mask[index].flatten(1))

    portrait = portrait_picture(torch.from_numpy(image.astype(np.float32) / 255), (side, side))
    golden.compare("out.pixels_u8", (portrait * 255).round().permute(2, 0, 1), **LEVEL)
    boxes, embeddings = golden.array("in.face_bboxes"), golden.array("in.face_embeddings")
    faces = [FoundFace(box, embedding) for box, embedding in zip(boxes, embeddings, strict=True)]
    golden.compare("out.face_emb", largest_face(faces).embedding, **EXACT)

    tracks = golden.array("in.train_landmarks_xy")
    trained = training_masks(tracks, size)
    golden.compare("out.train.union_face", trained.region, **EXACT)
    golden.compare("out.train.union_lip", united_boxes(tracks, LIPS_OUTER, size), **EXACT)
    golden.compare("out.train.blur_face", blurred(trained.region, FACE_BLUR), **LEVEL)
    golden.compare("out.train.sep_lip", trained.lip, **LEVEL)
    golden.compare("out.train.sep_face", trained.face, **LEVEL)
    golden.compare("out.train.sep_pose", trained.full, **LEVEL)


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
