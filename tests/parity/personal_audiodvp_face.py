"""AudioDVP's face model, rasteriser, losses of the fit, and composite."""

from __future__ import annotations

import cv2
import torch
from talking_portrait.models.audiodvp.camera import rotation_matrix, to_pixels, to_world
from talking_portrait.models.audiodvp.face_model import (
    Coefficients,
    FaceModel,
    adjacent_triangles,
    lower_triangles,
)
from talking_portrait.models.audiodvp.lighting import illuminate
from talking_portrait.models.audiodvp.losses import (
    fit_loss,
    landmark_loss,
    landmark_weights,
    photometric_loss,
    regularisation,
)
from talking_portrait.models.audiodvp.rasterizer import rasterize, shade
from talking_portrait.pipelines.audiodvp import composite

from .goldens import Golden, runner
from .personal_audiodvp_networks import golden_beside

BASES = ("geo_mean", "id_base", "exp_base", "tex_mean", "tex_base")


def face_model_of(basis: Golden, landmark_index: torch.Tensor) -> FaceModel:
    triangles = basis.tensor("triangles")
    return FaceModel(
        **{name: basis.tensor(name) for name in BASES},
        triangles=triangles,
        lower_triangles=lower_triangles(basis.tensor("geo_mean"), triangles),
        point_buf=basis.tensor("point_buf").long(),
        landmark_index=landmark_index.long(),
    )


def unambiguous(golden: Golden, name: str, value: torch.Tensor, ambiguous: torch.Tensor) -> None:
    """`compare`, the pixels aside that the published program leaves to chance."""
    if name in golden:
        stored = golden.tensors[name]
        golden.compare(name, torch.where(ambiguous.bool(), stored.to(value.dtype), value))


@runner("personal", "dvp_facemodel_basis")
def dvp_facemodel_basis(golden: Golden) -> None:
    model = face_model_of(golden, torch.zeros(0))
    golden.compare("mouth_triangles", model.lower_triangles)
    golden.check("point_buf", adjacent_triangles(model.triangles, model.vertices), model.point_buf)


@runner("personal", "dvp_facemodel")
def dvp_facemodel(golden: Golden) -> None:
    model = face_model_of(golden_beside(golden, golden.meta["basis"]), golden.tensor("landmark_index"))
    names = ("alpha", "delta", "beta", "gamma", "rotation", "translation")
    face = Coefficients(**{name: golden.tensor(name) for name in names})
    height, width = golden.tensors["alpha0"].shape
    first, last = (int(n) for n in golden.matched("notes", r"rows/cols (\d+):(\d+) of").groups())
    size, crop = (height, width), (..., slice(first, last), slice(first, last))

    geometry, rotation = model.geometry(face.alpha, face.delta), rotation_matrix(face.rotation)
    normals = model.normals(geometry)
    world = to_world(geometry, rotation, face.translation)
    clip, turned = model.camera.project(world), normals @ rotation.transpose(1, 2)
    albedo = model.albedo(face.beta)
    golden.compare("camera", model.camera.matrix())
    golden.compare("rotation_matrix", rotation)
    golden.compare("geometry", geometry)
    golden.compare("albedo", albedo.expand_as(geometry))
    golden.compare("normals_model", normals)
    golden.compare("world", world)
    golden.compare("normals_world", turned)
    golden.compare("clip", clip)
    golden.compare("screen", to_pixels(clip, size))
    golden.compare("colours", illuminate(albedo, turned, face.gamma))

    ambiguous = golden.tensor("ambiguous0")
    for prefix in ("", "lower_"):
        rendered = model.render(face, size, lower=bool(prefix))
        golden.compare("landmarks", rendered.landmarks)
        unambiguous(golden, f"{prefix}image0_crop", rendered.image[0][crop], ambiguous[crop])
        unambiguous(golden, f"{prefix}alpha0", rendered.alpha[0, 0], ambiguous)


@runner("personal", "dvp_raster")
def dvp_raster(golden: Golden) -> None:
    clip, triangles = golden.tensor("clip")[None].requires_grad_(), golden.tensor("triangles")
    ambiguous = golden.tensor("ambiguous")
    with torch.enable_grad():
        raster = rasterize(clip, triangles, (golden.meta["height"], golden.meta["width"]))
        (raster.barycentric[0] * golden.tensor("upstream")).sum().backward()
    image, alpha = shade(raster, triangles, golden.tensor("colours")[None])
    unambiguous(golden, "triangle_id", raster.triangle_id[0], ambiguous)
    unambiguous(golden, "barycentric", raster.barycentric[0].detach(), ambiguous[..., None])
    unambiguous(golden, "zbuffer", raster.depth[0], ambiguous)
    unambiguous(golden, "image", image[0].permute(1, 2, 0), ambiguous[..., None])
    unambiguous(golden, "alpha", alpha[0, 0], ambiguous)
    assert clip.grad is not None
    golden.compare("grad_clip", clip.grad[0])


@runner("personal", "dvp_losses")
def dvp_losses(golden: Golden) -> None:
    weights = landmark_weights()
    golden.compare("landmark_weight", weights)
    photometric = photometric_loss(golden.tensor("render"), golden.tensor("masked_gt"))
    landmark = landmark_loss(golden.tensor("lm_pred"), golden.tensor("lm_gt"), weights)
    coefficients = [golden.tensor(name) for name in ("alpha", "beta", "delta")]
    golden.compare("photometric", photometric[None])
    golden.compare("landmark", landmark[None])
    golden.compare("reg", torch.stack([regularisation(values) for values in coefficients]))
    golden.compare("total", fit_loss(photometric, landmark, *coefficients)[None])


@runner("personal", "dvp_composite")
def dvp_composite(golden: Golden) -> None:
    growth = int(golden.matched("notes", r"dilate 3x3 x(\d+)")[1])
    shrinkage = int(golden.matched("notes", r"erode 3x3 x(\d+)")[1])
    blur = golden.matched("notes", r"Gaussian (\d+)x\d+ sigma ([\d.]+)")
    size, sigma = int(blur[1]), float(blur[2])
    published = (composite.DILATIONS, composite.EROSIONS, composite.BLUR_SIZE, composite.BLUR_SIGMA)
    golden.check("constants", torch.tensor(published), [growth, shrinkage, size, sigma])

    alpha = golden.tensor("mask") / 255
    mask = composite.build_mask(alpha, torch.zeros_like(alpha))
    small = composite.eroded(mask)
    weights = composite.blurred(small)
    golden.compare("dilated", mask)
    golden.compare("eroded", small)
    golden.compare("blurred", weights)
    golden.compare("kernel1d", cv2.getGaussianKernel(size, sigma, cv2.CV_32F)[:, 0])
    golden.compare("comp", composite.composite(golden.array("fg"), golden.array("bg"), weights))
