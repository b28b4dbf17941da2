"""Which pixels belong to the head and body, and what is behind them.

A small network says where the picture shows a person. Where it is sure, and inside the face landmarks, pixels are head
or background; the colour densities of both classify the rest, and all where it does not know the face (as of some
animals) or OpenCV, which runs it, is missing. A random walk with weak links across edges (Grady 2006, "Random walks for
image segmentation") smooths that, and a guided filter (He 2010) upsamples it to the picture's own resolution.
Where that is uncertain, a pixel counts as head: background that moves along disturbs less than hair that stays.

Numbers that name no source were chosen by eye on portraits; the trials are not recorded.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from ....models.curves import smoothstep
from ....models.face.face_mesh import CHIN, FACE_OVAL
from ...image.patch_fill import filled_background
from ...image.person_mask import log_odds, person_mask
from ...image.windows import box_mean, grown, large_box_mean
from ...progress import check_interrupted
from .face_opening import inside_ring
from .head_field import SKULL_RADII, skull_position
from .portrait_mesh import PortraitMesh

WORK_HEAD = 120
"""Width of the head in pixels at which pixels are classified."""
BAND = 0.02
"""Head widths by which the matte is widened before the background behind it is filled in."""
CLUSTERS = 10
UNCLEAR, LEAST_MOTION = (0.1, 0.16), 0.6
"""Unclear pixels over those of the head from and up to which a head moves less, and how much it moves at least."""
LEAST_CLEAR, MOST_CLEAR, OPAQUE = 0.06, 0.4, 0.78
"""Values of the guided filter up to which a pixel is background, at least and at most, and from which it is head."""
CUT_OUT_SIDES = 0.5
"""Part of the moving box's sides that is transparent in a picture whose alpha is the head's matte."""
SURE_DISTANCE, FAR_DISTANCE = 1.3, 1.7
"""Skull radii beyond which the border of the moving box, and beyond which all, is taken for background at first."""
KNOWN_FACE = 0.7, 0.9
"""The network's mean in the face from which it says something of the picture, and from which it is trusted."""
SURE, BACKGROUND_ODDS = 4.5, 1.0
"""Log odds from which the network is sure, and up to which what usually is background may be."""
OVERRULED = 0.6
"""Part by which colours and the usual outline of a head count less where the network is trusted."""
UNARY = 0.06
"""Weight of each pixel's own colour against the links to its neighbours."""
INNER = 0.025
"""Head widths from the outline of a person up to which a pixel's own colour says how opaque it is."""
ROUNDS = 2
RATHER_HEAD = 0.3, 0.6
"""Matte from which some, and from which all, of what a background does not explain is the head's."""
STRANGE = 0.03, 0.12
"""The same by how far, of white, a colour lies beyond those that the background has nearby."""
FREE, NEARBY = 0.04, 0.25
"""Head widths from the head at which its background is certain, and those up to which that says what is usual."""
THIN = 0.01
"""Half the width, in head widths, up to which a line beside a head is a strand of hair."""


class HeadMatte:
    """`alpha` (1, h, w) in 0..1 and `backdrop` (3, h, w), the picture without the head, of the moving box.

    `clear` (1, h, w) in 0..1 is how transparent the backdrop is. `motion_share` in 0..1 is the part of a head's motion
    that is drawn: where hair and background can't be distinguished, the head moves less.
    """

    motion_share = 1.0

    def __init__(
        self,
        picture: np.ndarray,
        mesh: PortraitMesh,
        box: tuple[int, int, int, int],
        cut_out: torch.Tensor | None = None,
    ) -> None:
        """`picture` (H, W, 3); `cut_out` (1, h, w) is the alpha of the box in a picture that lies over white."""
        left, top, right, bottom = box
        inside = torch.from_numpy(picture[top:bottom, left:right].copy()).permute(2, 0, 1)
        if cut_out is not None and self._is_cut_out(cut_out, mesh, box):
            self.alpha, self.backdrop = cut_out.clone(), torch.ones_like(inside)
            self.clear = torch.ones_like(cut_out)
            return
        clear = torch.zeros_like(inside[:1]) if cut_out is None else 1 - cut_out
        scale = min(1.0, WORK_HEAD / (2 * SKULL_RADII[0] * mesh.pixels_per_cm))
        size = (max(2, round(inside.shape[1] * scale)), max(2, round(inside.shape[2] * scale)))
        small = F.interpolate(inside[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
        person = person_mask(inside.permute(1, 2, 0).numpy(), size)
        shares = self._classify(small.permute(1, 2, 0).double().numpy(), person, mesh, box)
        if shares is None:
            self.alpha = torch.ones_like(inside[:1])
            self.backdrop, self.clear = inside.clone(), clear
            return
        share, near, open_air, inner = (torch.from_numpy(values).float()[None] for values in shares)
        alpha = _guided(inside, small, share, radius=round(0.05 * WORK_HEAD))
        maps = torch.stack([share, near, open_air, inner], dim=1)
        maps = F.interpolate(maps, size=inside.shape[1:], mode="bilinear", align_corners=False)
        share, near, open_air, inner = maps[0].split(1)
        # In front of a pattern the fit lets the pattern through where there is no head.
        beside = alpha[(share < 0.02) & (near > 0)]
        least = float(beside.quantile(0.9).clamp(LEAST_CLEAR, MOST_CLEAR)) if 0 < len(beside) < 2**24 else LEAST_CLEAR
        self.alpha = torch.maximum(((alpha - least) / (OPAQUE - least)).clamp(0, 1) * near, inner)
        unclear = unclear_share(self.alpha)
        self.motion_share = 1 - (1 - LEAST_MOTION) * float(smoothstep(*UNCLEAR, np.float64(unclear)))
        if cut_out is not None:  # transparency around the head goes on behind it, as colours do
            inside = torch.cat([inside, clear])
        filled, alike = _fill(inside, self.alpha, size, patches=unclear < UNCLEAR[1])
        check_interrupted()
        self.alpha = self.alpha * (1 - alike * smoothstep(0.5, 0.3, share))
        behind = torch.where(open_air == 1, inside, torch.lerp(filled, inside, open_air))
        self.alpha, behind = explained(inside, self.alpha, behind, size)
        self.backdrop, self.clear = behind[:3], clear if cut_out is None else behind[3:]

    @staticmethod
    def _is_cut_out(alpha: torch.Tensor, mesh: PortraitMesh, box: tuple[int, int, int, int]) -> bool:
        """Whether transparency surrounds the head: the upper sides of the box, but where hair reaches them."""
        left, top, right, bottom = box
        chin = int(np.clip(mesh.points[CHIN, 1] - top, 1, bottom - top))
        sides = torch.cat([alpha[0, 0], alpha[0, :chin, 0], alpha[0, :chin, -1]])
        return float((sides < 0.5).float().mean()) > CUT_OUT_SIDES

    def _classify(
        self, small: np.ndarray, person: np.ndarray, mesh: PortraitMesh, box: tuple[int, int, int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Share of head (h, w) in 0..1 for a small picture (h, w, 3) of the box; None where there is no background.

        `person` (h, w) in 0..1 is how likely there is one. Also how near (h, w) in 0..1 a pixel is to what is solidly
        head; where (h, w) in 0..1, beside jaw and neck, the original picture is kept as backdrop, because holes of what
        colours alone classify would show there; and how far (h, w) in 0..1 a pixel is certainly of the person.
        """
        rows, columns = small.shape[:2]
        left, top, right, bottom = box
        x, y = np.meshgrid(
            left + (np.arange(columns) + 0.5) * (right - left) / columns,
            top + (np.arange(rows) + 0.5) * (bottom - top) / rows,
        )
        pixels = np.stack([x, y], axis=-1)
        radius, height = skull_position(pixels, mesh)
        face = inside_ring(pixels, mesh.points[list(FACE_OVAL)])
        # Height in cm of the canonical head: the chin is at -9, shoulders begin near -17.
        chest = (height < -13) & (radius < 0.75)
        neck = (height < -6) & (radius < 0.35)
        head = face | neck | chest | ((radius < 0.8) & (height > 2))
        edge = np.minimum(np.minimum(x - left, right - x) / (right - left), (y - top) / (bottom - top))
        air = (radius > SURE_DISTANCE) & (height > -6) & ((edge < 0.06) | (radius > FAR_DISTANCE))
        known = float(smoothstep(*KNOWN_FACE, person[face].mean())) if face.any() else 0.0
        seen = known * log_odds(person)
        head, air = head | (seen > SURE), (air & (seen < BACKGROUND_ODDS)) | (seen < -SURE)
        if air.mean() < 0.004:
            return None
        colours = _features(small)
        # Hair surrounds the upper head; beside the jaw it must be recognised by its colour.
        usual = 0.75 + 0.47 * smoothstep(-4, 3, height)
        prior = 1 / (1 + np.exp((radius - usual) / 0.14))
        prior = np.where(height < -10, np.maximum(prior, smoothstep(10, 20, -height)), prior)
        # Skin is searched as far as ears reach. A colour that neither side has is a highlight in hair, or behind necks.
        skin = face | neck
        beside_skin = _near(skin, 0.1 * WORK_HEAD, 0.16 * WORK_HEAD)
        strange = 0.3 * 10 ** (1.5 * smoothstep(-3, 2, height) - 0.5)
        known_head, known_air = head, air
        for _ in range(ROUNDS):
            check_interrupted()
            hair = _density(colours, known_head & ~skin)
            hair = np.maximum(hair, _density(colours, skin) * beside_skin)
            evidence = np.log((hair + strange) / (_density(colours, known_air) + 0.3))
            usually = np.clip(evidence, -5, 5) + np.log((prior + 0.02) / (1.02 - prior))
            belief = 1 / (1 + np.exp(-(1 - OVERRULED * known) * usually - seen))
            weight = UNARY * (0.1 + np.abs(belief - 0.5))
            belief, weight = np.where(head, 1, belief), np.where(head, 50.0, weight)
            sure = air & (evidence < 0.5)
            belief, weight = np.where(sure, 0, belief), np.where(sure, 1.0, weight)
            share = np.clip(_walk(colours, belief, weight), 0, 1)
            # The result of the first round gives the second the colours of hair and background nearby.
            known_head, known_air = head | (share > 0.85), air & (share < 0.5) | (share < 0.1)
            if known_air.mean() < 0.004:
                return None
        share = np.maximum(share, _closed(share > 0.5, round(0.1 * WORK_HEAD)) & (height > 1))
        near = _near_solid(share > 0.5, head, 0.03 * WORK_HEAD, 0.09 * WORK_HEAD)
        least = -grown(-torch.from_numpy(np.minimum(share, person))[None], round(INNER * WORK_HEAD))[0].numpy()
        inner = known * smoothstep(0.5, 0.9, least)
        open_air = (1 - known) * smoothstep(usual - 0.1, usual + 0.1, radius) * smoothstep(-1, 1, -height)
        return share * near, near, open_air * (1 - _near(skin, 0.03 * WORK_HEAD, 0.08 * WORK_HEAD)), inner


def _features(picture: np.ndarray) -> np.ndarray:
    """Opponent colours (h, w, 3) in which distances are closer to perceived ones: lightness counts less."""
    root = np.sqrt(picture.clip(0, 1))
    light = root.mean(axis=-1)
    return np.stack([0.8 * light, root[..., 0] - root[..., 1], 0.5 * (root[..., 0] + root[..., 1]) - root[..., 2]], -1)


def _density(colours: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How common each colour (h, w, 3) is among those of `mask` (h, w), as a probability density (h, w)."""
    density = np.zeros(mask.shape)
    pixels = colours[mask]
    pixels = pixels[:: max(1, len(pixels) // 4000)]
    for members in _clusters(pixels):
        centre, spread = members.mean(axis=0), np.maximum(members.var(axis=0), 0.018**2)
        apart = (colours - centre) / np.sqrt(spread)
        distance = np.einsum("hwc,hwc->hw", apart, apart)
        density += len(members) / len(pixels) * np.exp(-distance / 2) / np.sqrt(spread.prod())
    return density


def _clusters(pixels: np.ndarray) -> list[np.ndarray]:
    """Groups of similar colours among `pixels` (N, 3): k-means from seeds far apart in colour."""
    from scipy.cluster.vq import vq

    if len(pixels) == 0:
        return []
    seeds = [pixels.mean(axis=0)]
    while len(seeds) < CLUSTERS:
        _, apart = vq(pixels, np.array(seeds), check_finite=False)
        # The farthest colour is often a single speck; the 98th percentile belongs to a group.
        seeds.append(pixels[apart.argsort()[int(0.98 * (len(pixels) - 1))]])
    centres = np.array(seeds)
    for _ in range(10):
        label, _ = vq(pixels, centres, check_finite=False)
        groups = [pixels[label == cluster] for cluster in range(CLUSTERS)]
        centres = np.array(
            [members.mean(axis=0) if len(members) else c for members, c in zip(groups, centres, strict=True)]
        )
    return [members for members in groups if len(members)]


def _walk(colours: np.ndarray, belief: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Smooths `belief` (h, w), held to its own value by `weight`, between neighbours of similar colour."""
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.linalg import cg

    rows, columns = belief.shape
    index = np.arange(rows * columns).reshape(rows, columns)
    firsts, seconds, links = [], [], []
    for here, there in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        step = ((colours[here] - colours[there]) ** 2).sum(axis=-1)
        links.append((np.exp(-step / (2 * 0.03**2)) + 2e-3).ravel())
        firsts.append(index[here].ravel())
        seconds.append(index[there].ravel())
    first, second, link = np.concatenate(firsts), np.concatenate(seconds), np.concatenate(links)
    size = rows * columns
    pairs = coo_matrix((link, (first, second)), shape=(size, size)).tocsr()
    pairs = pairs + pairs.T
    degree = np.asarray(pairs.sum(axis=1)).ravel()
    diagonal = degree + weight.ravel()
    system = (diags(diagonal) - pairs).tocsr()
    start = belief.ravel().astype(np.float64)
    smoothed, _ = cg(system, (weight * belief).ravel(), x0=start, rtol=1e-4, maxiter=1000, M=diags(1 / diagonal))
    return smoothed.reshape(rows, columns)


def _closed(mask: np.ndarray, radius: int) -> np.ndarray:
    """`mask` (h, w) with gaps up to two radii wide and all holes filled, as highlights on hair look like sky."""
    from scipy.ndimage import binary_fill_holes, distance_transform_edt

    padded = np.pad(mask, radius + 1, mode="edge")  # as hair goes on past the picture's edge
    grown = distance_transform_edt(~padded) <= radius
    closed = padded | (distance_transform_edt(grown) > radius)
    return binary_fill_holes(closed)[radius + 1 : -radius - 1, radius + 1 : -radius - 1]


def _near_solid(mask: np.ndarray, seeds: np.ndarray, thin: float, reach: float) -> np.ndarray:
    """1 (h, w) close to the parts of `mask` that hang together with `seeds` and are thicker than twice `thin`, else 0.

    Railings and horizons that touch a head in the picture are classified as strands of hair.
    """
    from scipy.ndimage import distance_transform_edt, label

    edge = math.ceil(thin) + 1
    padded = np.pad(mask | seeds, edge, mode="edge")
    core = distance_transform_edt(padded) > thin
    solid = (distance_transform_edt(~core) <= thin)[edge:-edge, edge:-edge] | seeds
    parts, _ = label(solid)
    kept = np.isin(parts, np.unique(parts[seeds]))
    return _near(kept, 0.5 * reach, reach)


def _near(mask: np.ndarray, close: float, far: float) -> np.ndarray:
    """1 (h, w) up to `close` pixels from `mask`, 0 beyond `far`."""
    from scipy.ndimage import distance_transform_edt

    return 1 - smoothstep(close, far, distance_transform_edt(~mask))


def unclear_share(alpha: torch.Tensor) -> float:
    """How many pixels of a matte are neither head nor background, over those that are head."""
    return float(((alpha > 0.15) & (alpha < 0.85)).sum() / (alpha >= 0.85).sum().clamp(min=1))


def _guided(picture: torch.Tensor, small: torch.Tensor, alpha: torch.Tensor, radius: int) -> torch.Tensor:
    """`alpha` (1, h, w) of the `small` picture (3, h, w), upsampled (1, H, W) along the edges of `picture` (3, H, W).

    In each box of the small picture alpha is fitted as a linear function of colour, which is applied to the large one.
    """
    mean = lambda values: large_box_mean(values, radius)  # noqa: E731
    small_mean, alpha_mean = mean(small), mean(alpha)
    pairs = torch.stack([small[i] * small[j] for i in range(3) for j in range(3)])
    covariance = mean(pairs) - torch.stack([small_mean[i] * small_mean[j] for i in range(3) for j in range(3)])
    covariance = covariance.permute(1, 2, 0).reshape(*small.shape[1:], 3, 3) + 2e-4 * torch.eye(3)
    shared = (mean(small * alpha) - small_mean * alpha_mean).permute(1, 2, 0)
    slope = torch.linalg.solve(covariance, shared).permute(2, 0, 1)
    offset = alpha_mean - (slope * small_mean).sum(dim=0, keepdim=True)
    fit = F.interpolate(
        torch.cat([mean(slope), mean(offset)])[None], size=picture.shape[1:], mode="bilinear", align_corners=False
    )[0]
    return (fit[:3] * picture).sum(dim=0, keepdim=True) + fit[3:]


def _fill(
    picture: torch.Tensor, alpha: torch.Tensor, work: tuple[int, int], *, patches: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture (C, h, w) with what `alpha` (1, h, w) covers grown in from around.

    With `patches` of what is around where that has structure, else by mean colours. Also how much (1, h, w) in 0..1 a
    pixel is background by its colour, whatever its alpha is.

    `work` (rows, columns) is the resolution of the classification.
    """
    # Pixels beside the head contain blended hair colours, so the fill does not start from them.
    hard = F.adaptive_max_pool2d((alpha > 0.08).float()[None], work)
    band = round(BAND * WORK_HEAD)
    touched = grown(hard, band)
    touched = box_mean(touched, band)
    touched = F.interpolate(touched, size=alpha.shape[1:], mode="bilinear", align_corners=False)[0]
    known = (1 - alpha / 0.15).clamp(0, 1) ** 2 * (1 - touched)
    filled = filled_background(picture, known, patches=patches)
    # Pixels of nearly the fill's colour are background in any case, and stay as they are.
    check_interrupted()
    alike = smoothstep(0.05, 0.015, (picture - filled).abs().amax(dim=0, keepdim=True)) * (alpha < 0.9)
    backdrop = torch.lerp(filled, picture, torch.maximum(known, alike))
    return torch.where(known == 1, picture, backdrop), alike


def explained(
    picture: torch.Tensor, alpha: torch.Tensor, behind: torch.Tensor, work: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """`alpha` (1, h, w) and `behind` (C, h, w), changed where they leave the head colours beyond black or white.

    What a background does not explain of a pixel of the `picture` (C, h, w) is the head's share of it. Where the
    background is wrong and `alpha` small, that would glow, or be a hole, in front of all that a head moves to. Such
    colours become background where it has them nearby, and else, as strands do, more of the head. `work` (rows,
    columns) is the resolution of the classification.
    """
    check_interrupted()
    colours, back = picture[:3], behind[:3]
    room = torch.where(colours > back, 1 - back, back)
    least = ((colours - back).abs() / room.clamp(min=1e-3)).amax(dim=0, keepdim=True).clamp(0, 1)
    lacking = (least - alpha).clamp(min=0)
    thin = max(1, round(THIN * WORK_HEAD * alpha.shape[-1] / work[1]))
    wide = grown(-grown(-lacking, thin), thin)
    head = torch.maximum(smoothstep(*RATHER_HEAD, alpha), smoothstep(*STRANGE, _beyond(colours, alpha, work)))
    check_interrupted()
    alpha = alpha + (lacking - wide) + head * wide
    share = picture - (1 - alpha) * behind
    possible = torch.minimum(share.clamp(min=0), alpha)
    return alpha, (behind + (share - possible) / (1 - alpha).clamp(min=1e-3)).clamp(0, 1)


def _beyond(colours: torch.Tensor, alpha: torch.Tensor, work: tuple[int, int]) -> torch.Tensor:
    """How far (1, h, w) `colours` (3, h, w) lie beyond those nearby that are certainly not of the head."""
    taken = grown(F.adaptive_max_pool2d((alpha > 0.02).float()[None], work)[0], round(FREE * WORK_HEAD))
    small = F.interpolate(colours[None], size=work, mode="area")[0]
    far = torch.zeros_like(alpha)
    for sign in (-1, 1):
        most = grown(torch.where(taken > 0, -2.0, sign * small), round(NEARBY * WORK_HEAD))
        most = F.interpolate(most[None], size=alpha.shape[1:], mode="bilinear", align_corners=False)[0]
        known = (most > -1).all(dim=0)
        far = torch.maximum(far, (sign * colours - most).amax(dim=0, keepdim=True) * known)
    return far
