"""Large drawn eyes: where the picture's eye goes on beyond the landmarks, its outline is searched in the picture.

Landmarkers keep to the proportions of people: their lids cross a large drawn eye in the middle of its iris, and a blink
between them would leave much of the eye uncovered.

Numbers that name no source were chosen on 16 drawings and renderings with large eyes and on 13 other faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .....models.face.face_mesh import LEFT_EYE, RIGHT_EYE
from ....image.luma import LUMA
from ..face_opening import Aperture, cheapest_path, eye_opening
from ..warp import Layer

SKIN_TRIANGLES = (
    (50, 205, 187),
    (280, 425, 411),
    (117, 50, 101),
    (346, 280, 330),
    (6, 197, 195),
    (9, 8, 168),
    (151, 108, 337),
    (205, 36, 142),
    (425, 266, 371),
)
"""Landmarks of the cheeks, the nose and the forehead between which there is skin."""
SKIN_PART = 0.75
"""Part of what is found there that is skin and no hair."""
ANGLES, STEPS, FARTHEST = 96, 60, 1.6
"""Directions, and places in each, in which an outline is searched, and eye half widths beyond the landmarks."""
STRIP = 0.1
"""Eye half widths on both sides of an outline whose colours are compared."""
BEND = 0.15
"""Weight of a change by one place from one direction to the next, beside an edge's of 1."""
BEYOND, SURE_EDGE, PLAIN_LANDMARKS = 0.2, 0.2, 0.4
"""What a drawn eye must have below: its outline so many eye half widths below the landmarks, in so much contrast, and
no more than that part of it where the landmarks are. Above it must have that contrast, too."""
LEAST_OPEN = 0.2
"""Height over width of the landmarks of such an eye: below, it looks down, or is shut, and lashes are around it."""
SIMILAR = 2.5
"""Largest factor between the areas of both eyes' outlines."""
TURNED = 0.75
"""Width of one eye over the other's below which a head is turned."""
LARGE = 0.138
"""Height over the distance of the outer eye corners of eyes that are large even as the landmarks have them: of 228
faces those of five renderings and of a painted one."""
LINE, LINE_END, DARK_LINE, KNOWN_LINE = 0.4, 0.25, 0.2, 0.25
"""Eye half widths of the thickest line around a drawn eye, the part of its contrast at which it ends, how much darker
than the eye it is, and the part of the directions in which that must be found."""
LOW = 0.5
"""Least sine of the directions that are below an eye."""


def with_drawn_eyes(portrait: Layer, points: np.ndarray, eye_distance: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Landmarks (P, 2) of a face, with those of both eyes on their outlines if the picture shows larger eyes.

    Lids that shut along them take the line around a drawn eye with them, and cover it at the corners. Also, if such
    eyes are sure, the same wholly within that line. Else they are the landmarks as they were, but for the lower edges
    of large eyes. `eye_distance` is that of the outer corners in pixels, with depth.
    """
    rings, skin = (RIGHT_EYE, LEFT_EYE), _skin(portrait, points)
    outlines = [_Outline.around(portrait, points, ring, skin, SURE) for ring in rings]
    areas = [outline.area for outline in outlines]
    moved = points.copy()
    if all(outline.sure for outline in outlines) and max(areas) < SIMILAR * min(areas):
        within = points.copy()
        for outline, ring in zip(outlines, rings, strict=True):
            line = outline.line(portrait)
            moved[list(ring)] = outline.ring(line * np.sin(_angles()) ** 2)
            within[list(ring)] = outline.ring(line)
        return moved, within
    if np.mean([outline.height for outline in outlines]) > LARGE * eye_distance:
        lower = [list(ring[9:]) for ring in rings]
        lids = [_Outline.around(portrait, points, ring, skin, FAINT) for ring in rings]
        travel = [lid.outwards(points[edge]) - points[edge] for lid, edge in zip(lids, lower, strict=True)]
        near, far = sorted((0, 1), key=lambda side: -lids[side].eye.half)
        if lids[far].eye.half < TURNED * lids[near].eye.half:
            # The near eye shows more of its edge; both are as high.
            down = lids[far].eye.down
            travel[far] += (travel[near] @ lids[near].eye.down - travel[far] @ down).clip(min=0)[:, None] * down
        for edge, move in zip(lower, travel, strict=True):
            moved[edge] += move
    return moved, None


@dataclass(frozen=True)
class _Search:
    """How an outline is searched.

    Skin around an eye has `shades` (least light, most, steps) of the face's; a colour that differs from them by
    `unlike` is no skin. An edge of the contrast `edges`, between these limits and as usual around this eye, outweighs
    one half width of skin before it over `through`.
    """

    shades: tuple[float, float, int]
    unlike: float
    edges: tuple[float, float]
    through: float


SURE = _Search((0.75, 1.12, 7), 0.12, (0.33, 0.33), 4.0)
"""For eyes of any size: people's keep to their landmarks."""
FAINT = _Search((0.85, 1.08, 5), 0.08, (0.07, 0.33), 2.0)
"""For large eyes, whose lower edge may be a soft shade."""


@dataclass(frozen=True)
class _Outline:
    """A closed line around an eye: distances `reach` (ANGLES,) from a `middle` (2,), in half widths of the landmarks'.

    `beyond` (ANGLES,) of them are beyond the landmarks. `contrast` and `at_landmarks` (ANGLES,) are those of the line
    and of the landmarks.
    """

    eye: Aperture
    middle: np.ndarray
    reach: np.ndarray
    beyond: np.ndarray
    contrast: np.ndarray
    at_landmarks: np.ndarray

    @classmethod
    def around(
        cls, portrait: Layer, points: np.ndarray, ring: Sequence[int], skin: np.ndarray, search: _Search
    ) -> _Outline:
        """The line along which an eye turns into `skin` (N, 3), at the landmarks or outside."""
        eye = eye_opening(points, ring)
        middle = np.array([0.0, sum(eye.middle_gap()) / 2 / eye.half])
        places = eye.local(points[list(ring)]) / eye.half - middle
        angle, distance = np.arctan2(places[:, 1], places[:, 0]), np.hypot(*places.T)
        start = np.interp(_angles(), *_ordered(angle, distance), period=2 * np.pi)
        step = FARTHEST / STEPS
        strip = round(STRIP / step)
        offsets = step * np.arange(-strip, STEPS + strip)
        colours = portrait.colours_at(_places(eye, middle, (start[:, None] + offsets).clip(min=0)))
        like_skin = _likeness(colours, skin, search)
        # Means of the strips that end, and that begin, at each place.
        sums, skins = (
            np.cumsum(np.concatenate([np.zeros_like(v[:, :1]), v], axis=1), axis=1) for v in (colours, like_skin)
        )
        here = np.arange(strip, strip + STEPS)
        inside, outside = sums[:, here] - sums[:, here - strip], sums[:, here + strip] - sums[:, here]
        contrast = np.linalg.norm(outside - inside, axis=-1) / strip
        contrast = contrast * (0.3 + 0.7 * (skins[:, here + strip] - skins[:, here]) / strip)
        before = (skins[:, here] - skins[:, [strip]]) * step
        cost = search.through * before - contrast / np.clip(np.median(contrast.max(axis=1)), *search.edges)
        # Three times around, so that the line's end meets its beginning.
        path = cheapest_path(np.tile(cost, (3, 1)), BEND)[ANGLES : 2 * ANGLES]
        beyond = offsets[here][path]
        line = contrast[np.arange(ANGLES), path]
        return cls(eye, middle, start + beyond, beyond, line, contrast[:, :3].max(axis=1))

    @property
    def area(self) -> float:
        """In square pixels."""
        return float((self.reach**2).mean()) * np.pi * self.eye.half**2

    @property
    def sure(self) -> bool:
        """Whether there is a larger eye than the landmarks', whose lower edge is none in the picture."""
        below, above = np.sin(_angles()) > LOW, np.sin(_angles()) < -LOW
        beyond, line, plain = (float(np.median(v[below])) for v in (self.beyond, self.contrast, self.at_landmarks))
        if self.height < LEAST_OPEN * 2 * self.eye.half:
            return False
        clear = min(line, float(np.median(self.contrast[above]))) > SURE_EDGE
        return clear and beyond > BEYOND and plain < PLAIN_LANDMARKS * line

    @property
    def height(self) -> float:
        """Pixels between the landmarks of both lids."""
        return float((self.eye.lower - self.eye.upper).max())

    def outwards(self, points: np.ndarray) -> np.ndarray:
        """`points` (N, 2) of the landmarks' edge moved to the outline."""
        places = self.eye.local(points) / self.eye.half - self.middle
        beyond = np.interp(np.arctan2(places[:, 1], places[:, 0]), _angles(), self.beyond, period=2 * np.pi)
        places = places * (1 + beyond / np.hypot(*places.T))[:, None] + self.middle
        return self.eye.places(places[:, 0] * self.eye.half, places[:, 1] * self.eye.half)

    def ring(self, within: np.ndarray) -> np.ndarray:
        """Positions (16, 2) in the picture like those of the eye's landmarks, `within` (ANGLES,) inside the outline."""
        places = self.middle + (self.reach - within)[:, None] * _directions()
        first, second = int(places[:, 0].argmin()), int(places[:, 0].argmax())
        # Angles rise from the second corner over the lower lid to the first, and on over the upper lid.
        upper = np.linspace(first, second + ANGLES * (second < first), 9)
        lower = np.linspace(second, first + ANGLES * (first < second), 9)
        at = np.concatenate([upper[:-1], lower[:-1]])
        local = [np.interp(at, np.arange(2 * ANGLES), np.tile(places[:, axis], 2)) for axis in (0, 1)]
        return self.eye.places(local[0] * self.eye.half, local[1] * self.eye.half)

    def line(self, portrait: Layer) -> np.ndarray:
        """Thickness (ANGLES,) in eye half widths of the dark line on whose outer side the outline was found."""
        from scipy.ndimage import gaussian_filter1d, median_filter

        depth = np.linspace(0.0, LINE, 25)
        inwards = (self.reach[:, None] - depth).clip(min=0)
        light = portrait.colours_at(_places(self.eye, self.middle, inwards)) @ LUMA
        darkest = light[:, : len(depth) // 2].argmin(axis=1)
        behind = np.arange(len(depth)) >= darkest[:, None]
        dark, eye = light[np.arange(ANGLES), darkest], np.where(behind, light, -1.0).max(axis=1)
        # An iris beside the line may be hardly lighter than it.
        ends = behind & (light > (dark + LINE_END * (eye - dark))[:, None])
        known = eye - dark > DARK_LINE
        if known.mean() < KNOWN_LINE:
            return np.zeros(ANGLES)
        thick = np.interp(_angles(), _angles()[known], depth[ends.argmax(axis=1)][known], period=2 * np.pi)
        return gaussian_filter1d(median_filter(thick, 9, mode="wrap"), 2.0, mode="wrap")


def _angles() -> np.ndarray:
    return np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)


def _directions() -> np.ndarray:
    return np.stack([np.cos(_angles()), np.sin(_angles())], axis=-1)


def _ordered(angle: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = angle.argsort()
    return angle[order], distance[order]


def _places(eye: Aperture, middle: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Positions (ANGLES, R, 2) in the picture at distances `reach` (ANGLES, R) from a place within an eye."""
    local = (middle + reach[..., None] * _directions()[:, None]) * eye.half
    return eye.places(local[..., 0], local[..., 1])


def _skin(portrait: Layer, points: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of a face's skin."""
    first, second = np.meshgrid(np.linspace(0.1, 0.8, 4), np.linspace(0.1, 0.8, 3))
    second = second * (1 - first)
    weights = np.stack([1 - first - second, first, second], axis=-1).reshape(-1, 3)
    places = np.einsum("wk,tkc->twc", weights, points[np.array(SKIN_TRIANGLES)])
    colours = portrait.colours_at(places).reshape(-1, 3)
    unlike = np.linalg.norm(colours - np.median(colours, axis=0), axis=1)
    return colours[unlike <= np.quantile(unlike, SKIN_PART)]


def _likeness(colours: np.ndarray, skin: np.ndarray, search: _Search) -> np.ndarray:
    """0..1: how much colours (..., 3) are like `skin` (N, 3) in some shade."""
    from scipy.spatial import cKDTree

    shades = (np.linspace(*search.shades)[:, None, None] * skin).reshape(-1, 3)
    unlike = cKDTree(shades).query(colours.reshape(-1, 3))[0].reshape(colours.shape[:-1])
    return np.exp(-((unlike / search.unlike) ** 2))
