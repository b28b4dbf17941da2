"""Labels for some frames of a video: background, head, neck and torso, from landmarks and colours alone.

What the head's place makes certain gives the colours of person and background, which with the usual outline of head
and shoulders classify the rest; a guided filter carries that along the pictures' edges. A pixel that keeps its colour
while the head moves is background, unless it always lies within a head's outline. What is person is split by the
colours of face, hair and clothes and by the height below the chin.

Numbers that name no source were chosen by eye on three videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....models.curves import smoothstep
from ...packages import load_opencv
from ..avatar import BACKGROUND_PART, HEAD_PART, NECK_PART, TORSO_PART
from .guided_filter import GuidedFilter
from .head_place import SKULL_RADII, HeadPlace

CLUSTERS, SAMPLES = 10, 8000
ROUNDS, MESSAGES = 3, 3
PLACE = 1.5
"""A cm counts as so much of CIELAB: dark clothes and a dark thing beside them differ in their place."""
COLOUR_SPREAD, PLACE_SPREAD = 6.0, 8.0
"""The least deviations of a cluster."""
PLACE_DENSITY = 1 / 30**2
EVIDENCE, PAIRWISE = 0.7, 3.0
"""Weight of the colours' log odds, and of what is around a pixel on its own side of an edge."""
OUTLINE_HEIGHTS = (-40, -30, -20, -14, -12, -10.5, -9, -6, -3)
OUTLINE_WIDTHS = (28, 27, 26, 22, 17, 10, 6.5, 7, 9.5)
"""Half widths in cm of shoulders, neck and jaw at heights of the canonical head, of a broad adult in a jacket. Above is
the skull with hair."""
CHEST = 0.35
"""Part of that width which is surely the person's."""
STILL = 7.0
"""Values of 255; a pixel that varies by less over the video keeps its colour."""
OUTLINE_SPREAD = 2.5
"""Cm outside of the outline at which the odds of a person have fallen to 1 : e."""
FAR = 12.0
"""Cm outside of it from which on there is surely background."""
FREE = 3.0
"""Cm outside of the outline from which on a pixel is taken for background at first."""
SHOULDERS = -9.0
"""Height in cm in the canonical head below which there may be shoulders."""
LEAST_SEEN, PLATE_NOISE, COLOUR_RANGE = 3, 4.0, 15.0
"""Frames in which a pixel must be background to be compared with itself; the least noise of its colour in CIELAB, and
the deviation of any other colour."""
BODY_ODDS, STRANGE = 3.0, 1e-9
"""Below the shoulders' height the outline makes the person likely by these log odds at most, and colours that neither
person nor background has elsewhere are of such a density of background: how high shoulders are differs a lot."""
PASSED, DARK = 0.7, 100
"""A bright pixel beside the face that keeps its colour is background where the head moved by so many cm there;
dark hair keeps its colour too. The latter is a value of 255."""
RARE = 1e-9
"""The least density of a colour."""
SKIN_TONE = 14.0
"""Difference in a and b of CIELAB up to which a colour below the chin may be skin in shadow."""


def label_frames(frames: np.ndarray, places: Sequence[HeadPlace]) -> np.ndarray:
    """Parts (K, w, w) uint8 of frames (K, w, w, 3) uint8, as `avatar` numbers them."""
    cv2 = load_opencv()
    size = frames.shape[1]
    coordinates = [place.coordinates(size) for place in places]
    view = _View(
        lab=np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2LAB) for frame in frames]).astype(np.float32),
        across=np.stack([one[0] for one in coordinates]),
        height=np.stack([one[1] for one in coordinates]),
        skull=np.stack([place.skull(size) for place in places]),
        face=np.stack([place.face(size) for place in places]),
    )
    filters = [GuidedFilter(frame, max(2, round(size / 40))) for frame in frames]
    return _split(view, _person(view, _still(frames), filters))


@dataclass(frozen=True)
class _View:
    """Of frames (K, w, w): colours `lab` (K, w, w, 3), places in cm, distance from the skull, and what is face."""

    lab: np.ndarray
    across: np.ndarray
    height: np.ndarray
    skull: np.ndarray
    face: np.ndarray

    def outside(self) -> np.ndarray:
        """How many cm each pixel (K, w, w) lies outside of a person's usual outline; negative inside."""
        beside = np.abs(self.across) - np.interp(self.height, OUTLINE_HEIGHTS, OUTLINE_WIDTHS)
        skull = (self.skull - 1) * SKULL_RADII[0]
        return np.where(self.height > OUTLINE_HEIGHTS[-1], skull, beside)


def _still(frames: np.ndarray) -> np.ndarray:
    """Which pixels (w, w) keep their colour in most of the frames."""
    cv2 = load_opencv()
    smooth = np.stack([cv2.GaussianBlur(frame, (3, 3), 0) for frame in frames]).astype(np.float32)
    low, high = np.percentile(smooth, [5, 95], axis=0)
    return (high - low).max(axis=-1) < STILL


def _person(view: _View, still: np.ndarray, filters: Sequence[GuidedFilter]) -> np.ndarray:
    """Which pixels (K, w, w) show the person: mean field with the colours' evidence and the outline."""
    outside = view.outside()
    sideways = np.abs(view.across)
    chest = (view.height < -12) & (sideways < CHEST * np.interp(view.height, OUTLINE_HEIGHTS, OUTLINE_WIDTHS))
    neck = (view.height < -8) & (sideways < 3.5)
    sure = view.face | chest | neck | ((view.skull < 0.8) & (view.height > 2))
    beside_head = (np.percentile(outside, 75, axis=0) > FREE) & (view.height.min(axis=0) > SHOULDERS)
    passed = np.subtract(*np.percentile(outside, [95, 5], axis=0)) > PASSED
    bright = np.median(view.lab[..., 0], axis=0) > DARK
    beside_face = (view.skull.min(axis=0) > 0.85) & (view.height.min(axis=0) > SHOULDERS)
    free = ((outside > FAR) | (still & (beside_head | (passed & bright & beside_face)))) & ~sure
    features = np.concatenate(
        [view.lab * [0.7, 1, 1], PLACE * view.across[..., None], PLACE * view.height[..., None]], axis=-1
    ).astype(np.float32)
    body = view.height < SHOULDERS
    expected = np.clip(-outside / OUTLINE_SPREAD, -4, np.where(body, BODY_ODDS, 4))
    strange = np.where(body, STRANGE, 0)
    person, background = sure, free | (outside > FREE)
    changed = _changed(view, background)
    for _ in range(ROUNDS):
        evidence = np.log(_density(features, person)) - np.log(_density(features, background) + strange)
        unary = expected + np.clip(EVIDENCE * evidence, -5, 5) + changed
        unary[sure], unary[free] = 8, -8
        belief = unary
        for _ in range(MESSAGES):
            leaning = np.tanh(belief / 2)
            belief = unary + PAIRWISE * np.stack([own(of) for own, of in zip(filters, leaning, strict=True)])
        person, background = belief > 2, belief < -2
    return belief > 0


def _changed(view: _View, background: np.ndarray) -> np.ndarray:
    """Log odds of a person (K, w, w) by what each pixel shows in those frames in which it is background.

    Only above the shoulders: clothes that hardly move look like background that is seen now and then.
    """
    often = background.sum(axis=0) >= LEAST_SEEN
    colours = np.where(background[:, often, None], view.lab[:, often], np.nan)
    plate = np.nanmedian(colours, axis=0)
    noise = np.maximum(1.5 * np.nanmedian(np.abs(colours - plate), axis=0), PLATE_NOISE)
    squares = np.square((view.lab[:, often] - plate) / noise).sum(axis=-1)
    surprise = np.log(np.maximum(COLOUR_RANGE / noise, 1)).sum(axis=-1)
    odds = np.zeros(view.height.shape)
    odds[:, often] = np.clip(squares / 2 - surprise, -4, 4)
    return odds * smoothstep(SHOULDERS - 3, SHOULDERS, view.height)


def _split(view: _View, person: np.ndarray) -> np.ndarray:
    """Parts (K, w, w) of what is person (K, w, w)."""
    cv2 = load_opencv()
    size = view.lab.shape[1]
    colours, height, face, skull, across = view.lab, view.height, view.face, view.skull, np.abs(view.across)
    inner = face & (height < 3)
    toned = np.abs(colours - np.median(colours[inner], axis=0))[..., 1:].max(axis=-1) < SKIN_TONE
    skin = _density(colours, inner | (person & toned & (height < -10) & (height > -14) & (across < 4)))
    placed = np.concatenate([colours, PLACE / 2 * across[..., None], PLACE / 2 * height[..., None]], axis=-1)
    hair = _density(placed, person & ~face & (height > 4) & (skull < 1.15))
    low = np.arange(size)[None, :, None] >= 0.9 * size
    clothes = _density(placed, person & ((height < -24) | (low & (height < -11))))
    may_be_hair = np.where(across > 5.5, 0.5, 0.01) * smoothstep(-30, -5, height)
    may_be_neck = np.exp(-np.square(across / 9)) * (0.05 + 0.95 * smoothstep(-22, -13, height))
    may_be_torso = 1.02 - smoothstep(-15, -9, height)
    skin = skin * PLACE_DENSITY  # the other two are densities in five dimensions
    likely = np.stack([may_be_hair * hair, may_be_neck * skin, may_be_torso * clothes])
    likely = np.stack([[cv2.GaussianBlur(one, (5, 5), 0) for one in part] for part in np.log(likely + RARE**2)])
    parts = np.array([HEAD_PART, NECK_PART, TORSO_PART], np.uint8)[likely.argmax(axis=0)]
    parts[face | (height > -5)] = HEAD_PART
    parts[~person] = BACKGROUND_PART
    return parts


def _density(colours: np.ndarray, where: np.ndarray) -> np.ndarray:
    """How common each colour (K, w, w, 3) is among those of `where` (K, w, w): a probability density."""
    cv2 = load_opencv()
    density = np.full(where.shape, RARE)
    pixels = colours[where].astype(np.float32)
    if len(pixels) < CLUSTERS:
        return density
    pixels = pixels[:: max(1, len(pixels) // SAMPLES)]
    floor = np.square([COLOUR_SPREAD] * 3 + [PLACE_SPREAD] * (pixels.shape[1] - 3))
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    _, labels, _ = cv2.kmeans(pixels, CLUSTERS, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    for cluster in range(CLUSTERS):
        members = pixels[labels[:, 0] == cluster]
        if len(members):
            centre, spread = members.mean(axis=0), np.maximum(members.var(axis=0), floor)
            distance = (np.square(colours - centre) / spread).sum(axis=-1)
            density += len(members) / len(pixels) * np.exp(-distance / 2) / np.sqrt(spread.prod())
    return density
