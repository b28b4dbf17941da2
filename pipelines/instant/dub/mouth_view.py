"""The inside of an open mouth, taken from a frame of the film that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ....models.curves import smoothstep
from ....models.face.face_mesh import INNER_LOWER_LIP, INNER_UPPER_LIP, LIPS_OUTER, face_mesh
from ....models.face.mouth_regions import LOWER_INNER_LIP, MOUTH_CORNERS, UPPER_INNER_LIP
from ...image.luma import LUMA
from ...packages import load_opencv
from ..renderer.face_opening import Aperture
from ..renderer.mouth_shape import distance
from .lip_rims import contact_line, open_part
from .mouth_motion import MouthMotion
from .skin.sharpness import nose_details

SIDE_REACH = 0.94
"""Mouth half widths from the middle up to which the inside is taken; nearer the corners it is that at this place."""
RIM_PART = 0.1
"""Part of an opening at either lip that is not looked at: it is the lips' own shadow."""
PARTS = np.linspace(RIM_PART, 1 - RIM_PART, 33)
"""Parts of an opening, from the upper lip down, that are looked at."""
DARKEST_LIGHT = 0.47
"""Of the cheeks' brightness, below which the darkest of the inside is the dark behind the teeth, not a lip's shadow."""
DARKER_PART = 3
"""One in so many of the darkest row's colours has that of the cavity."""
DARKER_THAN_LIP, ON_LIP = 0.75, 0.09
"""Of the nearer lip's brightness, below which it is no lip, and mouth half widths beyond its edge where all is lip."""
TEETH_PART = 0.88
"""Of the brightest teeth's brightness, below which they end at a lip."""
LIP_SHADE, LIP_DEPTH = 0.6, 0.3
"""Of the lower lip's brightness, that of its inside at its edge, and mouth half widths over which that darkens."""
CAVITY, REDDER = 0.13, 2.0
"""Of the cheeks' brightness, that of the cavity that is supposed where a smile shows nothing but teeth, and by how much
farther from grey its colour is."""
DARK_FROM, STREAK_FROM, STREAK, TOOTH = 0.12, 0.03, (0.0, 0.1), (0.25, 0.4)
"""Mouth half widths of lengthening over which its colour becomes the cavity's, and the same where that is lighter than
the cavity by so many parts of the cheeks' brightness, up to that of a tooth: what is repeated leaves streaks."""
TONGUE, TONGUE_RED = 0.52, 1.4
"""Of the cheeks' brightness, that of a tongue, and how much redder than the cheeks' light one is by itself. Its hue is
half that and half that of the film's lips, which may be painted."""
WIDER = 0.45
"""Cm by which a mouth is opened wider than here from which on all of its tongue is seen."""
TONGUE_TOP, TONGUE_SIDES, TONGUE_EDGE = 0.5, 0.5, 0.6
"""Part of an opening, from the lower lip up, that the tongue reaches in the middle, by how much less at the corners,
and over which part it goes into the dark."""
TEETH_SHADOW = 0.7
"""Cm below the upper teeth that lie in their shadow."""
TEETH_LOWER, TELLING, MOST_TELL = 0.2, (0.15, 0.85), 0.5
"""Cm below the usual end of the upper teeth from which on teeth are lower ones, the parts of an opening between which
the dark below the upper teeth is no lip's shadow, and the part of the mouths that tell that end, at least. It varies by
0.06 and 0.08 cm (standard deviations) in two people's films, as these teeth do not move in the head."""
TEETH_LENGTH = 0.5
"""Cm of upper teeth that a mouth shows which opens wider than one where they reach down to the lower lip."""
LIGHTER = 0.06
"""Part of the cheeks' brightness by which a colour must exceed another to hide it."""
NARROW, SHADE = 0.2, 0.7
"""Mouth half widths of an opening below which the lips shade what is seen between them, and by how much at most."""
MARGIN = 4
"""Pixels around the lips that are kept of a picture."""
MEETING = (0.12, 0.06)
"""Mouth half widths between the landmarks of lips from which on they do not meet, and below which they do."""
RIM = 1.0
"""Pixels inside the lips' edges from which on the inside is taken."""
SKIN = [205, 425, 50, 280, 187, 411, 36, 266, 203, 423]
"""Landmarks on the cheeks, which say how brightly a face is lit."""
FACE_SIDE, FACE_TOP, FACE_BOTTOM, FACE_MOUTH = 5.5, 5.0, -8.5, (3.0, -2.2, -6.0)
"""Cm in the canonical head, the mouth's side, top and bottom the last: the face that says in which colour it is lit."""


def lip_edges(frame: np.ndarray, motion: MouthMotion, light: np.ndarray) -> Aperture:
    """The inner edges of the lips of a frame (H, W, 3): a little outside the landmarks where the mouth is or will be
    open, in the `light` (3,) on the cheeks.

    Between lips that touch there is a dark line, which goes as they part.
    """
    mouth, spoken = (
        Aperture(points, MOUTH_CORNERS, UPPER_INNER_LIP, LOWER_INNER_LIP)
        for points in (motion.points, motion.points + motion.moved)
    )
    gap = mouth.lower - mouth.upper
    filmed = open_part(gap, motion.closed_gap, mouth.half)
    part = np.maximum(filmed, open_part(spoken.lower - spoken.upper, motion.closed_gap, spoken.half))
    touching = np.minimum(motion.closed_gap, gap) / 2 * (1 - part)
    # Edges within the landmarks are no farther in than where lips meet, which they do towards the corners.
    upper, lower = (np.maximum(rim * mouth.half, np.minimum(-gap / 2, 0)) * part for rim in motion.rims)
    meeting = (part - filmed).clip(min=0) * smoothstep(*MEETING, gap / mouth.half)
    contact = contact_line(frame, mouth, meeting, light) if meeting.any() else 0.0
    mouth.upper = mouth.upper + touching - upper + contact
    mouth.lower = mouth.lower - touching + lower + contact
    return mouth


def skin_light(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The colour (3,) of a face's light in a picture (H, W, 3): as bright as the cheeks, of the whole face's hue.

    Cheeks that shine or redden change their hue, which teeth do not.
    """
    height, width = picture.shape[:2]
    x = np.clip(points[:, 0].astype(int), 1, width - 2)
    y = np.clip(points[:, 1].astype(int), 1, height - 2)
    darkest = 1 if picture.dtype == np.uint8 else 1 / 255
    around = [picture[y[SKIN] + dy, x[SKIN] + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    cheeks = np.median(np.concatenate(around), axis=0).clip(min=darkest)
    face = picture[y, x][_beside_the_mouth()].astype(np.float64).clip(min=darkest)
    hue = np.median(face / (face @ LUMA)[:, None], axis=0)
    return float(cheeks @ LUMA) * hue / float(hue @ LUMA)


@cache
def _beside_the_mouth() -> np.ndarray:
    """Numbers of landmarks from the chin to the brows, without the mouth."""
    x, y, _ = face_mesh().vertices.T
    x = np.abs(x)
    mouth = (x < FACE_MOUTH[0]) & (y < FACE_MOUTH[1]) & (y > FACE_MOUTH[2])
    return np.flatnonzero((x < FACE_SIDE) & (y < FACE_TOP) & (y > FACE_BOTTOM) & ~mouth)


@dataclass(frozen=True)
class MouthView:
    """An open mouth in a piece of a `picture` (H, W, 3), bytes or floats in 0..1, with the `lips` around it.

    `basis` (2, 3) and `middle` (2,) as in MouthMotion. What lies above `upper_to`, a part of the opening, is the
    upper teeth's, what lies below `lower_from` the lower lip's; `cavity` (3,) is the colour of what comes between them
    as the mouth is opened wider, `light` (3,) that of the cheeks, `tongue` (3,) that of a tongue. Where teeth hide all
    the rest, `lower_lip` (3,) is the colour of the lip below, into which the cavity goes over. `details` are the
    `nose_details` of the frame that the piece is from.
    """

    picture: np.ndarray
    lips: Aperture
    basis: np.ndarray
    middle: np.ndarray
    upper_to: float
    lower_from: float
    cavity: np.ndarray
    lower_lip: np.ndarray | None
    light: np.ndarray
    tongue: np.ndarray
    details: np.ndarray | None

    @classmethod
    def of(cls, picture: np.ndarray, motion: MouthMotion) -> MouthView:
        """The mouth of a frame; `motion` holds where it is, not what it does."""
        light = skin_light(picture, motion.points)
        details = nose_details(picture, motion.points, motion.eye_distance)
        lips = motion.points[list(LIPS_OUTER)]
        # At least two pixels, also of a mouth that lies outside the picture.
        low = np.clip(np.floor(lips.min(axis=0)) - MARGIN, 0, np.array(picture.shape[1::-1]) - 2).astype(int)
        right, bottom = np.maximum(np.ceil(lips.max(axis=0)) + MARGIN, low + 2).astype(int)
        picture = picture[low[1] : bottom, low[0] : right].copy()
        aperture = Aperture(motion.points - low, MOUTH_CORNERS, UPPER_INNER_LIP, LOWER_INNER_LIP)
        cavity = _cavity(picture, aperture, light)
        tongue = _tongue_colour(picture, aperture, light)
        return cls(picture, aperture, motion.basis, motion.middle - low, *cavity, light, tongue, details)

    def fill(
        self, places: np.ndarray, below_upper: np.ndarray, above_lower: np.ndarray, motion: MouthMotion
    ) -> np.ndarray:
        """Colours (h, w, 3) float32 of the inside at places (h, w, 2) of another frame.

        `below_upper` and `above_lower` (h, w) are distances in pixels from the lips. Upper teeth keep their place in
        the head while the upper lip comes down over them; where it is higher than here, they go up with it. What lies
        at the lower lip stays with it; a wider mouth is dark between both, but for its tongue.
        """
        cm = max(float(np.linalg.norm(self.basis[:, 1])), 1e-6)
        to_view = self.basis[:, :2] @ np.linalg.inv(motion.basis[:, :2])
        size = float(np.sqrt(abs(np.linalg.det(to_view))))
        along, across = np.moveaxis(self.lips.local(self.middle + (places - motion.middle) @ to_view.T), -1, 0)
        # In a wider mouth all is wider: beside it here is lip.
        half = distance(motion.points + motion.moved, *MOUTH_CORNERS) / 2 * size
        along = along * min(1.0, self.lips.half / max(half, 1e-3))
        along = np.clip(along, -SIDE_REACH * self.lips.half, SIDE_REACH * self.lips.half)
        upper, lower = self.lips.edges_at(along)
        gap = np.maximum(lower - upper, 2 * RIM)
        opening = (below_upper + above_lower) * size
        from_upper = np.maximum(across - upper, below_upper * size)
        from_lower = above_lower * size
        shown = teeth = self.upper_to * gap
        if self.lower_lip is None:
            lowest = (self.lower_from - 1) * gap
            below = self._lengthened(along, lower, -from_lower, lowest, lowest)
            behind = smoothstep(0.0, DARK_FROM * self.lips.half, from_lower)
        else:
            # The lower lip hides the ends of the teeth, down to where it goes as it leaves them.
            teeth = np.maximum(shown, np.minimum(TEETH_LENGTH * cm, shown + np.maximum(opening - gap, 0)))
            fading = np.exp(-from_lower / (LIP_DEPTH * self.lips.half))[..., None].astype(np.float32)
            below = self.cavity + fading * (LIP_SHADE * self.lower_lip - self.cavity)
            behind = np.ones_like(from_lower)
        above = self._lengthened(along, upper, from_upper, teeth, shown)
        spoken = distance(motion.points + motion.moved, INNER_UPPER_LIP, INNER_LOWER_LIP) * size
        wider = spoken - float((self.lips.lower - self.lips.upper).max())
        tongue = self._tongue(along, from_lower / np.maximum(opening, RIM), wider / cm)
        tongue = tongue * behind * smoothstep(0.0, TEETH_SHADOW * cm, from_upper - teeth)
        below = below + tongue[..., None].astype(np.float32) * np.maximum(self.tongue - below, 0)
        # Light falls off towards the throat, so what is lighter lies in front: teeth before tongue before the cavity.
        lighter = (above - below) @ LUMA / (LIGHTER * float(self.light @ LUMA))
        inside = below + smoothstep(-1.0, 1.0, lighter)[..., None].astype(np.float32) * (above - below)
        # The lips of this mouth shade its inside already.
        shade = self._shade(opening) / self._shade(gap)
        return inside * np.minimum(shade, 1)[..., None].astype(np.float32)

    def height(self, part: float) -> float:
        """Cm in the head by which a part of the opening, in its middle, lies below the middle of a mouth at rest."""
        upper, lower = self.lips.middle_gap()
        place = self.lips.places(np.array(0.0), np.array(upper + part * (lower - upper)))
        down = -self.basis[:, 1]
        return float((place - self.middle) @ down / max(float(down @ down), 1e-12))

    def _shade(self, gap: np.ndarray) -> np.ndarray:
        """What lips that are `gap` pixels apart leave of the light between them."""
        return 1 - SHADE * smoothstep(NARROW * self.lips.half, 0.0, gap)

    def _tongue(self, along: np.ndarray, height: np.ndarray, wider: float) -> np.ndarray:
        """How much (h, w) of the tongue is seen at parts of the opening, `height`, from the lower lip up.

        Only in a mouth that is opened `wider` than this, by so many cm: this one shows what it has.
        """
        aside = np.clip(np.abs(along) / self.lips.half, 0, 1)
        top = TONGUE_TOP * (1 - TONGUE_SIDES * aside**2)
        seen = float(smoothstep(0.0, WIDER, np.float64(wider)))
        return seen * smoothstep(top + TONGUE_EDGE / 2, top - TONGUE_EDGE / 2, height)

    def _lengthened(
        self, along: np.ndarray, edge: np.ndarray, away: np.ndarray, most: np.ndarray, shown: np.ndarray
    ) -> np.ndarray:
        """Colours `away` pixels below a lip's edge (above it if negative), the cavity's from `most` on.

        `shown` of this mouth are stretched to `most`.
        """
        way = np.sign(most)
        length = np.maximum(way * most, RIM)
        place = np.clip(way * away, RIM, length) * np.maximum(way * shown, RIM) / length
        colours = self._sample(along, edge + way * np.maximum(place, RIM))
        beyond = np.maximum(way * (away - most), 0) / self.lips.half
        lighter = (colours - self.cavity) @ LUMA / float(self.light @ LUMA)
        streak = smoothstep(*STREAK, lighter) * smoothstep(*TOOTH[::-1], lighter)
        dark = smoothstep(0.0, 1.0, beyond / (DARK_FROM + streak * (STREAK_FROM - DARK_FROM)))
        return colours + dark[..., None].astype(np.float32) * (self.cavity - colours)

    def _sample(self, along: np.ndarray, across: np.ndarray) -> np.ndarray:
        place = self.lips.places(along, across)
        return sampled(self.picture, place[..., 0], place[..., 1]).astype(np.float32)


def with_lower_teeth(views: Sequence[MouthView]) -> tuple[MouthView, ...]:
    """Views of one person, in which teeth that reach down where this person's upper teeth never do are lower ones."""
    told = [view for view in views if view.lower_lip is None and TELLING[0] < view.upper_to < TELLING[1]]
    if len(told) < MOST_TELL * len(views):
        return tuple(views)
    end = float(np.median([view.height(view.upper_to) for view in told]))
    cavity = np.median([view.cavity / view.light for view in told], axis=0)
    result = []
    for view in views:
        if view.lower_lip is not None and view.height(view.upper_to) > end + TEETH_LOWER:
            dark = cavity * view.light
            view = replace(view, upper_to=RIM_PART, lower_from=RIM_PART, cavity=dark, lower_lip=None)
        result.append(view)
    return tuple(result)


def sampled(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bicubic colours (h, w, 3) of a picture (H, W, 3), of its kind and on its scale, at places in pixels."""
    cv2 = load_opencv()
    maps = (np.ascontiguousarray(place - 0.5, dtype=np.float32) for place in (x, y))
    return cv2.remap(picture, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _cavity(
    picture: np.ndarray, lips: Aperture, light: np.ndarray
) -> tuple[float, float, np.ndarray, np.ndarray | None]:
    """The parts of the opening at which the upper teeth end and the lower lip's begin, and the colour (3,) between.

    Both are where the middle of the mouth is darkest. Where nothing is dark, all of the teeth are upper ones, and the
    last is the lower lip's colour (3,).
    """
    rows = _across(picture, lips, PARTS)
    darkest = int(rows.mean(axis=(1, 2)).argmin())
    place, row = float(PARTS[darkest]), rows[darkest]
    edge, away = (0.0, -ON_LIP) if place < 0.5 else (1.0, ON_LIP)
    lip = float(np.median(_across(picture, lips, np.array([edge]), away) @ LUMA))
    if np.median(row, axis=0) @ LUMA < min(DARKEST_LIGHT * (light @ LUMA), DARKER_THAN_LIP * lip):
        # Teeth reach into the row where the dark between them is not level.
        darker = row[np.argsort(row @ LUMA)[: len(row) // DARKER_PART]]
        return place, place, np.median(darker, axis=0), None
    brightness = np.median(rows @ LUMA, axis=1).clip(min=0)
    teeth = np.flatnonzero(brightness >= TEETH_PART * brightness.max())  # all of a mouth that is black
    grey = light @ LUMA
    lip = np.median(_across(picture, lips, np.array([1.0]), ON_LIP)[0], axis=0)
    return float(PARTS[teeth[-1]]), 1.0, CAVITY * (grey + REDDER * (light - grey)).clip(min=0), lip


def _tongue_colour(picture: np.ndarray, lips: Aperture, light: np.ndarray) -> np.ndarray:
    """The colour (3,) float32 of the tongue behind these lips."""
    lip = np.median(_across(picture, lips, np.array([1.0]), ON_LIP)[0], axis=0).clip(min=1e-3 * light.max())
    red = light * [TONGUE_RED, 1, 1]
    hue = lip / float(lip @ LUMA) + red / float(red @ LUMA)
    return (TONGUE * float(light @ LUMA) * hue / float(hue @ LUMA)).astype(np.float32)


def _across(picture: np.ndarray, lips: Aperture, parts: np.ndarray, away: float = 0.0) -> np.ndarray:
    """Colours (n, 21, 3) of the middle of a mouth at `parts` (n,) of its opening, `away` mouth half widths below."""
    along = np.linspace(-0.5, 0.5, 21) * lips.half
    upper, lower = lips.edges_at(along)
    place = lips.places(along, upper + parts[:, None] * (lower - upper) + away * lips.half)
    return sampled(picture, place[..., 0], place[..., 1])
