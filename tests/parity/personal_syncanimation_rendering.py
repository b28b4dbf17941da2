"""SyncAnimation's encodings, fields, marching and pictures."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from talking_portrait.models.syncanimation.loading import build_head, build_torso
from talking_portrait.models.syncanimation.rendering.camera import Camera, Rays, pixel_coordinates, rays, renderer_pose
from talking_portrait.models.syncanimation.rendering.encodings import frequency_encoding, spherical_harmonics
from talking_portrait.models.syncanimation.rendering.fields import HeadField
from talking_portrait.models.syncanimation.rendering.frame_head import prepare_head, render_head_pixels
from talking_portrait.models.syncanimation.rendering.hash_grid import GridConfig, HashGrid, grid_offsets
from talking_portrait.models.syncanimation.rendering.marching import STEP, add_up, composite, march, ray_box
from talking_portrait.models.syncanimation.rendering.occupancy import GRID, cell_places
from talking_portrait.models.syncanimation.rendering.renderer import Renderer

from .goldens import Golden, runner
from .personal_audiodvp_networks import golden_beside
from .personal_syncanimation_audio import drawn, numbered

UNUSED = re.compile(r"aabb_|density_|step_counter")
"""Buffers that no output here depends on."""
FAR = 1e30
"""Distance of rays that pass the box by, as goldens store it."""


def grid_config(config: dict[str, Any]) -> GridConfig:
    return GridConfig(
        inputs=config["input_dim"],
        levels=config["num_levels"],
        features=config["level_dim"],
        base=config["base_resolution"],
        finest=config["desired_resolution"],
        log2_entries=config["log2_hashmap_size"],
        kind=config["gridtype"],
    )


@runner("personal", "st_grid")
def st_grid(golden: Golden) -> None:
    meta, points = golden.meta, golden.tensor("x") / golden.meta["bound"]
    grid = HashGrid(grid_config(meta["config"]))
    golden.check("table", torch.tensor(grid.embeddings.shape), torch.tensor(meta["table_shape"]))
    table = golden.weights.tensor(meta["seed"], meta["table_key"], meta["table_shape"])
    grid.embeddings.data = torch.from_numpy(table)
    golden.compare("offsets", grid.offsets)
    with torch.enable_grad():
        features = grid(points)
        (features * golden.tensor("upstream")).sum().backward()
    golden.compare("out", features)
    gradient = grid.embeddings.grad
    assert gradient is not None
    rows = gradient.any(1).nonzero()[:, 0]
    golden.compare("grad_rows", rows, atol=0)
    golden.compare("grad_vals", gradient[golden.tensor("grad_rows").long()])
    for stored in golden.tensors:
        match = re.fullmatch(r"(idx|w)_(\d+)_(\d+)", stored)
        if match:
            index, weight = grid.corners(points[int(match[2]) : int(match[3])])
            golden.compare(stored, index if match[1] == "idx" else weight, **({"atol": 0} if match[1] == "idx" else {}))


@runner("personal", "st_freq")
def st_freq(golden: Golden) -> None:
    for stored, size in numbered(golden, "x"):
        golden.compare(f"out{size}", frequency_encoding(golden.tensor(stored), golden.meta[f"degree{size}"]))


@runner("personal", "st_sh")
def st_sh(golden: Golden) -> None:
    golden.compare("out", spherical_harmonics(golden.tensor("dirs"))[:, : golden.meta["degree"] ** 2])


def published_state(golden: Golden) -> dict[str, torch.Tensor]:
    """The weights of a head or torso golden; offsets and anchors are no drawn numbers."""
    shapes = {name: shape for name, shape in golden.keys(golden.meta["keys"]).items() if not UNUSED.match(name)}
    state = drawn(golden, golden.meta["weight_prefix"], shapes)
    for name in state:
        if name.endswith(".offsets"):
            torso = name.startswith("torso_")
            tiled = GridConfig(levels=16, features=2, base=16, finest=2048, log2_entries=16, kind="tiled")
            state[name] = torch.tensor(grid_offsets(tiled if torso else GridConfig()), dtype=torch.int32)
    if "anchor_points" in golden.meta:
        state["anchor_points"] = torch.tensor(golden.meta["anchor_points"], dtype=torch.float32)
    return state


@runner("personal", "st_head")
def st_head(golden: Golden) -> None:
    head = build_head(published_state(golden), path=golden.path)
    points, expression = golden.tensor("x"), golden.tensor("eye")
    row = golden.meta["code_row"]
    code = head.individual_codes[row : row + 1]
    audio, features = head.encode_audio(golden.tensor("audio")[None]), head.encode(points)
    found = head(points, golden.tensor("d"), audio, expression, code)
    size = len(points)
    golden.compare("code", code)
    golden.compare("enc_audio", audio)
    golden.compare("enc_x", features)
    golden.compare("sigma", found.density)
    golden.compare("geo_feat", head.densities(features, audio, expression).geometry)
    golden.compare("color", found.colour)
    golden.compare("ambient_aud", found.ambient_audio.view(size, 1))
    golden.compare("ambient_eye", found.ambient_expression.view(size, 1))
    golden.compare("uncertainty", found.uncertainty.view(size, 1, 1))

    prepared = prepare_head(head, audio, expression, code)  # the same by way of a picture's shorter arithmetic
    density, values = prepared.densities(points)
    colour = prepared.colours(values, prepared.ray_terms(golden.tensor("d")))
    golden.compare("sigma", density)
    golden.compare("color", colour)


@runner("personal", "st_torso")
def st_torso(golden: Golden) -> None:
    torso = build_torso(published_state(golden), path=golden.path)
    torso.config = replace(torso.config, shrink=golden.meta["torso_shrink"])
    row = golden.meta["code_row"]
    code = torso.individual_codes_torso[row : row + 1]
    found = torso(golden.tensor("x"), golden.tensor("pose_ngp"), code)
    golden.compare("code", code)
    golden.compare("alpha", found.alpha)
    golden.compare("color", found.colour)
    golden.compare("deform", found.offset)


def camera_of(golden: Golden) -> Camera:
    return Camera(*golden.meta["intrinsics"], golden.meta["H"], golden.meta["W"])


@runner("personal", "st_rays")
def st_rays(golden: Golden) -> None:
    camera = camera_of(golden)
    pose = renderer_pose(golden.tensor("c2w"), golden.meta["scale"], golden.meta["offset"])
    view = rays(camera, pose)
    golden.compare("pose_ngp", pose)
    golden.compare("rays_o", view.origins)
    golden.compare("rays_d", view.directions)
    golden.compare("bg_coords", pixel_coordinates(camera))
    last = torch.tensor([camera.pixels - 1])
    golden.check("one pixel", rays(camera, pose, last).directions, view.directions[-1:])
    golden.check("its place", pixel_coordinates(camera, last), torch.ones(1, 2))


SHELL = r"([\d.]+) < sqrt\(\(x([+-][\d.]+)\)\^2\+\(y/([\d.]+)\)\^2\+\(z([+-][\d.]+)\)\^2\) < ([\d.]+)"


def occupied_cells(golden: Golden) -> torch.Tensor:
    """The shell that the golden describes, or the one that the golden does to which it refers."""
    reference = re.search(r"as (st_\w+)", golden.meta["occupancy"])
    if reference:
        return occupied_cells(golden_beside(golden, reference[1]))
    inner, x, flatness, z, outer = (float(number) for number in golden.matched("occupancy", SHELL).groups())
    places = cell_places(torch.arange(GRID**3)).unbind(1)
    distance = ((places[0] + x) ** 2 + (places[1] / flatness) ** 2 + (places[2] + z) ** 2).sqrt()
    return ((distance > inner) & (distance < outer)).view(GRID, GRID, GRID)


@runner("personal", "st_march")
def st_march(golden: Golden) -> None:
    golden.check("constants", torch.tensor([STEP, GRID]), [golden.meta["dt"], golden.meta["grid_size"]], rtol=1e-6)
    most, view = golden.meta["max_steps"], Rays(golden.tensor("rays_o"), golden.tensor("rays_d"))
    near, far = ray_box(view)
    golden.compare("near", near.clamp(max=FAR))
    golden.compare("far", far.clamp(max=FAR))
    samples = march(view, occupied_cells(golden), golden.tensor("noise"), most=most)
    golden.compare("count", samples.counts)
    at = samples.ray, samples.slot
    for name, found in (("xyz", samples.points), ("t_after", samples.after)):
        padded = torch.zeros(len(view.origins), most, *found.shape[1:])
        padded[at] = found
        golden.compare(name, padded)
    pixels = composite(samples, golden.tensor("sigma")[at], golden.tensor("rgb")[at], most)
    golden.compare("out_image", pixels.image)
    golden.compare("out_weights_sum", pixels.opacity)
    golden.compare("out_depth", pixels.depth)
    golden.compare("out_unc", add_up(samples, golden.tensor("unc")[at] * pixels.weights))
    for name in ("amb_aud", "amb_eye"):
        golden.compare(f"out_{name}", add_up(samples, golden.tensor(name)[at] * pixels.reached))


def head_renderer(head: HeadField, occupied: torch.Tensor) -> Renderer:
    with torch.device("meta"):
        renderer = Renderer()
    renderer.head = head
    renderer.occupancy.density = occupied.float()
    return renderer


@runner("personal", "st_render")
def st_render(golden: Golden) -> None:
    head = build_head(published_state(golden), path=golden.path)
    occupied, camera, pose = occupied_cells(golden), camera_of(golden), golden.tensor("pose_ngp")
    audio, expression = head.encode_audio(golden.tensor("audio")[None]), golden.tensor("eye")
    background, row, scale = golden.tensor("background"), golden.meta["code_row"], golden.meta["density_scale"]
    if "noise" in golden:
        noise = golden.tensor("noise").flatten()
    else:
        noise = torch.full((camera.pixels,), float(golden.meta["noise"]))
    rendered = head_renderer(head, occupied).render_head(
        rays(camera, pose), audio, expression, background, code=row, noise=noise, density_scale=scale
    )
    size = (camera.height, camera.width)
    golden.compare("image", rendered.image.view(*size, 3))
    golden.compare("weights_sum", rendered.opacity.view(size))
    golden.compare("depth_raw", rendered.depth.view(size))
    golden.compare("count", march(rays(camera, pose), occupied, noise).counts.view(size))
    if not noise.any():  # pictures have none
        prepared = prepare_head(head, audio, expression, head.individual_codes[row : row + 1])
        pixels = render_head_pixels(prepared, occupied, camera, pose, scale)
        picture = (pixels.image + (1 - pixels.opacity)[:, None] * background).clamp(0, 1)
        golden.compare("image", picture.view(*size, 3))
        golden.compare("weights_sum", pixels.opacity.view(size))
