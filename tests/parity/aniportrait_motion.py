"""AniPortrait's geometry of motion: projection, retargeting, pose templates and the landmark drawing."""

from __future__ import annotations

import numpy as np

from .goldens import Golden, runner


@runner("aniportrait", "projection")
def projection(golden: Golden) -> None:
    from talking_portrait.pipelines.face.head_pose import (
        head_matrix,
        perspective_matrix,
        project,
        smooth_poses,
        split_matrix,
    )

    size = golden.meta["H"], golden.meta["W"]
    pose, vertices, matrices = (golden.array(name) for name in ("pose", "verts", "mats"))
    rotation, translation = pose[:, :3], pose[:, 3:]
    # Stored the other way round: the published code transposes it before use.
    golden.compare("perspective", perspective_matrix(size[1] / size[0]).T.reshape(-1))
    golden.compare("pose_matrices", head_matrix(rotation, translation))
    golden.compare("euler_translation_of_mats", np.concatenate(split_matrix(matrices), axis=1))
    golden.compare("projected", project(vertices, matrices, size))
    posed = golden.array("trans_mat") @ head_matrix(rotation, translation)
    golden.compare("projected_with_trans", project(vertices, posed, size))
    for name in golden.tensors:
        if name.startswith("smooth"):
            golden.compare(name, smooth_poses(pose, int(name.removeprefix("smooth"))))


@runner("aniportrait", "pose_template")
def pose_template(golden: Golden) -> None:
    from talking_portrait.pipelines.face import head_pose as projection

    matrices = golden.array("trans_mats")
    relative = np.linalg.inv(matrices[0]) @ matrices
    golden.compare("pose_rel", np.concatenate(projection.split_matrix(relative), axis=1))
    template = projection.pose_template(matrices, golden.meta["fps"])
    # Before its smoothing over five frames, through which a fifth of an error comes.
    smoothed = projection.smooth_poses(golden.array("pose_30fps"), 5)
    golden.check("pose_30fps", smoothed, golden.tensors["template"], atol=golden.tolerance[0] / 5)
    golden.compare("template", template)
    golden.compare("tiled", projection.tile_template(template, golden.meta["seq_len"]))


@runner("aniportrait", "landmark_draw")
def landmark_draw(golden: Golden) -> None:
    from PIL import Image
    from talking_portrait.pipelines.aniportrait.pose_image import CANVAS, draw_pose_image

    for index, picture in golden.meta["images"].items():
        size = picture["height"], picture["width"]
        points = golden.array(f"pts{index}").astype(np.float64)[:, :2]
        if picture["normed"]:
            points = points * np.array([picture["width"], picture["height"]])
        drawn = draw_pose_image(points, size)
        if size == (CANVAS, CANVAS):  # in a resized one, rounding decides whether a pixel counts
            golden.check(f"coloured pixels {index}", drawn.any(axis=-1).sum(), picture["nonzero"])
        expected = np.asarray(Image.open(golden.file(picture["png"])).convert("RGB"))
        # Exact as drawn; where the drawing is resized, the rounding of another OpenCV is allowed for.
        golden.check(f"image {index}", drawn, expected, atol=0 if size == (CANVAS, CANVAS) else 1)


@runner("aniportrait", "retarget")
def retarget(golden: Golden) -> None:
    from talking_portrait.pipelines.face.head_pose import head_matrix, project
    from talking_portrait.pipelines.motion.reenact import most_neutral_frame, transfer_poses, transfer_vertices

    neutral = most_neutral_frame(golden.array("src_bs"))
    golden.check("neutral_index", neutral, golden.meta["neutral_index"])
    vertices = transfer_vertices(golden.array("src_verts"), neutral, golden.array("ref_lmks3d"))
    poses = transfer_poses(golden.array("src_trans_mat"), golden.array("ref_trans_mat"))
    matrices = head_matrix(poses[:, :3], poses[:, 3:])
    golden.compare("verts", vertices)
    golden.compare("pose_smooth", poses)
    golden.compare("pose_mats", matrices)
    golden.compare("projected", project(vertices, matrices, (golden.meta["frame_h"], golden.meta["frame_w"])))
