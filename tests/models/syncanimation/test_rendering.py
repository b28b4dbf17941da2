"""SyncAnimation's grids, rays and pictures: what must hold whatever the weights are."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from talking_portrait.models.syncanimation.rendering import renderer as renderer_module
from talking_portrait.models.syncanimation.rendering import tri_plane
from talking_portrait.models.syncanimation.rendering.camera import Camera, Rays, pixel_coordinates, rays, renderer_pose
from talking_portrait.models.syncanimation.rendering.fields import TorsoConfig
from talking_portrait.models.syncanimation.rendering.frame_head import fast_dtype
from talking_portrait.models.syncanimation.rendering.hash_grid import GridConfig, HashGrid, grid_offsets
from talking_portrait.models.syncanimation.rendering.marching import STEP, Samples, add_up, composite, march
from talking_portrait.models.syncanimation.rendering.occupancy import (
    GRID,
    OccupancyGrid,
    TorsoOccupancy,
    from_morton,
    to_morton,
)
from talking_portrait.models.syncanimation.rendering.renderer import Renderer

from .networks import CAMERA, POSE, conditions, networks

SMALL = GridConfig(levels=5, base=8, finest=90, log2_entries=8)
NO_MASK = GridConfig(levels=9, base=16, finest=300, log2_entries=19)
"""The last level's 90608 entries are hashed: they follow from double precision and its vertices from single, which here
are one more."""
TILED = GridConfig(levels=5, base=8, finest=90, log2_entries=8, kind="tiled")


@pytest.fixture(scope="module")
def person() -> Renderer:
    return networks().renderer


# --- grids ---


def test_the_tables_have_the_published_sizes() -> None:
    sizes = torch.tensor(grid_offsets(GridConfig())).diff().tolist()
    assert sizes == [4232, 6248, 9032, 13000, *[2**14] * 8]
    sizes = torch.tensor(grid_offsets(TorsoConfig().grid)).diff().tolist()
    assert sizes == [296, 576, 1024, 1936, 3600, 6728, 12776, 24032, 45800, *[2**16] * 7]


def test_a_hashed_level_need_not_have_a_power_of_two_of_entries() -> None:
    grid = HashGrid(NO_MASK)
    index, _ = grid.corners(torch.tensor([[1.0, 0.99]]))
    offset, entries = int(grid.offsets[-2]), int(grid.offsets.diff()[-1])
    assert entries == 90608
    assert int(index[0, -1, 0]) == offset + (299 ^ (298 * 2654435761 % 2**32)) % entries


def plane_lookups(config: GridConfig) -> dict[str, tuple]:
    def images(points, tables, gradients):
        found = tri_plane.interpolate(points, tri_plane.lay_out(tables, config), config)
        return found, tri_plane.interpolate_backward(points, tables, gradients, config)

    def entries(points, tables, gradients):
        levels = tri_plane.level_table(config, points.device)
        return tri_plane.fetch(points, tables, levels), tri_plane.fetch_backward(points, tables, gradients, levels)

    return {"images": images, "entries": entries}


@pytest.mark.parametrize("config", [SMALL, NO_MASK, TILED])
@pytest.mark.parametrize("way", ["images", "entries"])
def test_planes_are_three_grids(way: str, config: GridConfig) -> None:
    generator = torch.Generator().manual_seed(1)
    tables = torch.randn(3, config.entries, generator=generator)
    points = torch.rand(200, 3, generator=generator) * 2.4 - 1.2  # some are outside of one plane or more
    points[:3] = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 0.0, 1.001]])
    upstream = torch.randn(3 * config.levels, 200, generator=generator)
    grids = [HashGrid(config) for _ in range(3)]
    for grid, table in zip(grids, tables, strict=True):
        grid.embeddings.data = table[:, None].clone()
    wanted = torch.cat([grid(points[:, list(axes)]) for grid, axes in zip(grids, tri_plane.PLANES, strict=True)], 1)
    (wanted * upstream.T).sum().backward()
    gradient = torch.stack([grid.embeddings.grad[:, 0] for grid in grids])
    found, found_gradient = plane_lookups(config)[way](points, tables, upstream)
    torch.testing.assert_close(found.T, wanted.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_gradient, gradient, atol=1e-5, rtol=1e-5)


def test_planes_have_gradients_and_compile(monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    tri_plane._fetching.cache_clear()
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    results = []
    for compiled in (False, True):
        tables = torch.randn(3, SMALL.entries, generator=torch.Generator().manual_seed(3), requires_grad=True)
        features = tri_plane.plane_features(points, tables, SMALL, compiled=compiled)
        features.square().sum().backward()
        results.append((features.detach(), tables.grad))
    tri_plane._fetching.cache_clear()
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)
    assert results[0][1].abs().sum() > 0


def test_a_cpu_compiles_no_planes() -> None:
    assert not tri_plane.can_compile(torch.device("cpu"), SMALL)
    assert not tri_plane.can_compile(torch.device("cuda"), SMALL) or torch.cuda.is_available()


def test_the_torso_s_grid_moves_with_its_coordinates() -> None:
    """Only the torso's deformation needs gradients of points; here against differences."""
    grid = HashGrid(GridConfig(levels=3, features=2, base=4, finest=16, log2_entries=8, kind="tiled")).double()
    grid.embeddings.data.normal_(generator=torch.Generator().manual_seed(4))
    points = torch.tensor([[0.13, -0.71], [0.55, 0.31]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(grid, points)


# --- rays ---


def test_poses_change_axes_and_scale() -> None:
    c2w = torch.arange(16.0).view(4, 4)
    pose = renderer_pose(c2w)
    assert pose[0].tolist() == [4, -5, -6, 28]
    assert pose[2].tolist() == [0, -1, -2, 12]
    assert pose[3].tolist() == c2w[3].tolist()
    assert renderer_pose(c2w.expand(2, 3, 4, 4)).shape == (2, 3, 4, 4)


def test_a_widened_view_keeps_the_middle_of_its_lower_edge() -> None:
    camera = Camera(50.0, 50.0, 16.0, 12.0, 24, 32)
    wide = camera.widened(2.0)
    bottom = torch.tensor([23 * 32 + 16])
    near = rays(camera, POSE, bottom).directions, rays(wide, POSE, bottom).directions
    assert (near[0] - near[1]).norm() < 0.02
    left = rays(camera, POSE, torch.tensor([23 * 32])).directions[0]
    quarter = rays(wide, POSE, torch.tensor([23 * 32 + 8])).directions[0]
    assert (left - quarter).norm() < 0.03


def marched_by_hand(origin: torch.Tensor, direction: torch.Tensor, occupied: torch.Tensor, noise: float) -> list[float]:
    """Distances after each sample's step, point by point."""
    low, high = (torch.tensor([-1, -0.5, -1]) - origin) / direction, (torch.tensor([1, 0.5, 1]) - origin) / direction
    near, far = float(torch.minimum(low, high).max()), float(torch.maximum(low, high).min())
    found: list[float] = []
    if near > far:
        return found
    distance = max(near, 0.05) + STEP * noise
    while distance < far and len(found) < 16:
        x, y, z = ((origin + distance * direction + 1) * GRID / 2).clamp(0, GRID - 1).int().tolist()
        if occupied[x, y, z]:
            found.append(distance + STEP)
        distance += STEP
    return found


def test_rays_have_their_first_occupied_samples() -> None:
    generator = torch.Generator().manual_seed(6)
    occupied = torch.rand(GRID, GRID, GRID, generator=generator) < 0.3
    occupied[:, :, :40] = False
    origins = torch.randn(30, 3, generator=generator)
    origins = 2.5 * origins / origins.norm(dim=1, keepdim=True)
    directions = 0.4 * torch.randn(30, 3, generator=generator) - origins
    directions = directions / directions.norm(dim=1, keepdim=True)
    origins[-1] = torch.tensor([0.1, 0.2, 0.0])  # inside of the box
    noise = torch.rand(30, generator=generator)
    samples = march(Rays(origins, directions), occupied, noise)
    for ray in range(30):
        wanted = marched_by_hand(origins[ray], directions[ray], occupied, float(noise[ray]))
        found = samples.after[samples.ray == ray]
        assert abs(len(found) - len(wanted)) <= 1  # a point on a cell's edge may fall to either side
        if len(found) == len(wanted):
            torch.testing.assert_close(found, torch.tensor(wanted), atol=2e-3, rtol=0)
        assert len(found) == samples.counts[ray]
    assert samples.counts.max() == 16
    assert samples.counts.min() == 0


def test_no_rays_have_no_samples() -> None:
    nothing = torch.zeros(0, 3)
    samples = march(Rays(nothing, nothing), torch.ones(GRID, GRID, GRID, dtype=torch.bool))
    assert len(samples.ray) == len(samples.counts) == 0


def test_pixels_are_composed_front_to_back_until_opaque() -> None:
    density = torch.tensor([10.0, 0.0, 200.0, 300.0, 5.0, 40.0])
    samples = Samples(
        torch.tensor([0, 0, 0, 0, 0, 2]),
        torch.tensor([0, 1, 2, 3, 4, 0]),
        torch.zeros(6, 3),
        torch.arange(1.0, 7.0),
        torch.tensor([5, 0, 1]),
    )
    colour = torch.rand(6, 3, generator=torch.Generator().manual_seed(7))
    pixels = composite(samples, density, colour)
    light, image, depth, counted = 1.0, torch.zeros(3), 0.0, 0
    for number in range(5):
        if light < 1e-4:
            break
        alpha = 1 - math.exp(-float(density[number]) * STEP)
        image, depth, counted = (
            image + light * alpha * colour[number],
            depth + light * alpha * (number + 1),
            counted + 1,
        )
        light *= 1 - alpha
    assert counted == 4
    torch.testing.assert_close(pixels.image[0], image)
    assert pixels.depth[0] == pytest.approx(depth, rel=1e-4)
    assert pixels.opacity.tolist() == pytest.approx([1 - light, 0, 1 - math.exp(-40 * STEP)], rel=1e-4)
    assert add_up(samples, pixels.reached.float()).tolist() == [4, 0, 1]


# --- occupancy ---


def test_morton_order_interleaves_bits() -> None:
    grid = torch.arange(GRID**3, dtype=torch.float32).view(GRID, GRID, GRID)
    assert (from_morton(to_morton(grid)) == grid).all()
    assert from_morton(grid.flatten())[3, 1, 0] == 0b001011
    assert from_morton(grid.flatten())[0, 0, 2] == 0b100000


def test_new_densities_spread_and_old_ones_decay() -> None:
    grid = OccupancyGrid()
    grid.density[5, 5, 5], grid.density[9, 5, 5], grid.density[4, 5, 5] = 2.0, 8.0, -1.0
    everything = grid.lattice(1)
    assert len(everything) == GRID**3 - 1
    found = torch.zeros(len(everything))
    found[everything == (5 * GRID + 5) * GRID + 6] = 3.0
    grid.update(everything, found)
    assert grid.density[5, 5, 4:9].tolist() == [0, 3, 3, 3, 0]
    assert grid.density[6, 5, 6] == grid.density[5, 4, 6] == 3
    assert grid.density[6, 4, 6] == 0
    assert grid.density[9, 5, 5] == pytest.approx(7.6)
    assert grid.density[4, 5, 5] == -1
    occupied = grid.occupied()
    assert int(occupied.sum()) == 8
    assert len(grid.lattice(1 / 8, torch.Generator().manual_seed(0))) in (GRID**3 // 8, GRID**3 // 8 - 1)


def test_cells_that_no_camera_sees_are_marked() -> None:
    grid = OccupancyGrid()
    grid.mark_unseen(Camera(100.0, 100.0, 10.0, 10.0, 20, 20), POSE[None], (-1, -0.5, -1, 1, 0.5, 1))
    middle = GRID // 2
    assert grid.density[middle, middle, middle] == 0
    assert grid.density[middle, middle + 20, middle] == -1
    assert grid.density[middle, GRID - 1, middle] == -1
    assert 0.01 < float((grid.density >= 0).float().mean()) < 0.2


def test_the_torso_s_grid_counts_columns_first() -> None:
    grid = TorsoOccupancy()
    coordinates = pixel_coordinates(Camera(1.0, 1.0, 0.0, 0.0, 9, 5))
    lower_left = (coordinates[:, 0] > 0.3) & (coordinates[:, 1] < -0.3)
    assert not grid.occupied(coordinates).any()
    places = grid.places(torch.Generator().manual_seed(0))
    grid.update(((places[:, 0] > 0.3) & (places[:, 1] < -0.3)).float())
    assert grid.occupied(coordinates).tolist() == lower_left.tolist()


# --- pictures ---


def whole_frame(
    person: Renderer, audio: torch.Tensor, expression: torch.Tensor, background: torch.Tensor
) -> torch.Tensor:
    """The picture by way of what training renders."""
    behind = person.render_torso(pixel_coordinates(CAMERA), POSE, background).image
    return person.render_head(rays(CAMERA, POSE), audio, expression, behind).image


@pytest.fixture(scope="module")
def background() -> torch.Tensor:
    return torch.rand(CAMERA.height, CAMERA.width, 3, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-3), (torch.bfloat16, 3e-2)])
def test_a_picture_is_what_training_renders(person, background, dtype, error) -> None:
    frame = person.render_frame(CAMERA, POSE, *conditions(), background, dtype=dtype)
    wanted = whole_frame(person, *conditions(), background.view(-1, 3)).detach()
    assert (frame.image.view(-1, 3) - wanted).abs().max() < error
    assert 0.1 < float((frame.head_opacity > 0.2).float().mean()) < 0.8
    assert float((frame.torso_alpha > 0).float().mean()) > 0.1


def test_the_fast_type_of_numbers_is_one_that_the_device_has() -> None:
    assert fast_dtype(torch.device("cuda")) == torch.float16
    assert fast_dtype(torch.device("cpu")) in (torch.bfloat16, torch.float32)
    assert fast_dtype(torch.device("mps")) == torch.float32


def test_an_expression_less_head_renders(background) -> None:
    bare = networks(expressions=0).renderer
    audio, _ = conditions()
    frame = bare.render_frame(CAMERA, POSE, audio, torch.zeros(1, 0), background)
    wanted = whole_frame(bare, audio, torch.zeros(1, 0), background.view(-1, 3)).detach()
    assert (frame.image.view(-1, 3) - wanted).abs().max() < 2e-3


def test_nothing_occupied_is_background(background) -> None:
    empty = Renderer()
    frame = empty.render_frame(CAMERA, POSE, *conditions(), background)
    torch.testing.assert_close(frame.image, background)
    flat = background.view(-1, 3)
    head = empty.render_head(rays(CAMERA, POSE), *conditions(), flat.clone().requires_grad_())
    head.image.sum().backward()
    torch.testing.assert_close(head.image, flat)
    assert len(head.points) == 0


def test_hidden_samples_change_nothing(person, monkeypatch) -> None:
    view, background = rays(CAMERA, POSE), torch.zeros(CAMERA.pixels, 3)
    found = []
    for part in (0.0, 2.0):
        monkeypatch.setattr(renderer_module, "PRUNED", part)
        own = copy.deepcopy(person)
        head = own.render_head(view, *conditions(), background, density_scale=80.0)
        (head.image.sum() + head.ambient_audio.sum() + head.depth.sum() + head.uncertainty.sum()).backward()
        gradients = {name: value.grad for name, value in own.head.named_parameters() if value.grad is not None}
        found.append((head, gradients))
    (whole, wanted), (pruned, gradients) = found
    assert len(pruned.points) < 0.7 * len(whole.points)
    torch.testing.assert_close(pruned[:6], whole[:6], atol=1e-4, rtol=1e-4)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-4 * float(gradient.abs().max()) + 1e-6, rtol=1e-3)


def test_training_in_half_precision_is_near(person) -> None:
    background, coordinates = torch.zeros(CAMERA.pixels, 3), pixel_coordinates(CAMERA)
    found, torsos = [], []
    for half in (False, True):
        own = copy.deepcopy(person)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            head = own.render_head(rays(CAMERA, POSE), *conditions(), background)
            torsos.append(own.torso.anchors(POSE))
            own.render_torso(coordinates, POSE, background)
        head.image.square().mean().backward()
        found.append((head, own.head.encoder_xy.embeddings.grad))
    (whole, wanted), (half, gradient) = found
    assert {tensor.dtype for tensor in half} == {torch.float32}
    torch.testing.assert_close(half.points, whole.points)
    torch.testing.assert_close(*torsos)
    assert (half.image - whole.image).abs().max() < 3e-2
    assert torch.cosine_similarity(gradient.flatten(), wanted.flatten(), 0) > 0.99


def test_the_torso_s_colours_move_the_pose(person) -> None:
    pose = POSE.clone().requires_grad_()
    coordinates = pixel_coordinates(CAMERA)
    behind = person.render_torso(coordinates, pose, torch.zeros(CAMERA.pixels, 3)).image
    person.render_head(rays(CAMERA, pose), *conditions(), behind).image.sum().backward()
    assert pose.grad is not None
    assert float(pose.grad[:3].abs().max()) > 0


def test_torso_scale_shows_a_smaller_person(person, background) -> None:
    plain, small = (
        person.render_frame(CAMERA, POSE, *conditions(), background, torso_scale=scale) for scale in (1.0, 2.0)
    )
    assert float(small.head_opacity.sum()) == pytest.approx(float(plain.head_opacity.sum()) / 4, rel=0.25)
    assert float(small.torso_alpha[: CAMERA.height // 2].max()) == 0
    assert float(small.torso_alpha[:, 0].max()) == 0
    assert float(small.torso_alpha[-1, CAMERA.width // 2]) > 0


def test_the_grid_follows_the_density(person) -> None:
    own = copy.deepcopy(person)
    own.mark_unseen(CAMERA, POSE[None])
    before = own.occupancy.density.clone()
    own.update_occupancy(*conditions(), part=1 / 8, generator=torch.Generator().manual_seed(0))
    seen = before >= 0
    assert (own.occupancy.density[~seen] == -1).all()
    assert float((own.occupancy.density != before)[seen].float().mean()) > 0.5
    own.update_torso_occupancy(POSE, generator=torch.Generator().manual_seed(0))
    assert float(own.torso_occupancy.density.max()) > 0


def test_a_torso_that_the_grid_leaves_out_is_rendered_where_it_is_known_to_be(person) -> None:
    """Training would never find again what its first grid left out."""
    own = copy.deepcopy(person)
    own.torso_occupancy.density.zero_()
    coordinates = pixel_coordinates(CAMERA)
    known = coordinates[:, 0] > 0.5
    background = torch.zeros(CAMERA.pixels, 3)
    assert not own.render_torso(coordinates, POSE, background).alpha.any()
    alpha = own.render_torso(coordinates, POSE, background, known=known).alpha[:, 0]
    assert ((alpha > 0) == known).all()
    alpha.sum().backward()
    assert own.torso.torso_encoder.embeddings.grad.any()
