"""Labels for some frames of a video: background, head, neck and torso, from landmarks, colours and a person's mask.

The segmentation network that ships with the pack says where the person is; where it is unsure, the colours of what it
is sure of decide, and a guided filter carries that along the pictures' edges. What is person is split by the colours of
face, hair and clothes and by the height below the chin.

Numbers that name no source were chosen by eye on three videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....models.curves import smoothstep
from ...image.person_mask import PersonSegmenter, log_odds
from ...packages import load_opencv
from ..avatar import BACKGROUND_PART, HEAD_PART, NECK_PART, TORSO_PART
from .guided_filter import GuidedFilter
from .head_place import HeadPlace

CLUSTERS, SAMPLES = 10, 8000
ROUNDS, MESSAGES = 3, 3
PLACE = 1.5
"""A cm counts as so much of CIELAB: dark clothes and a dark thing beside them differ in their place."""
COLOUR_SPREAD, PLACE_SPREAD = 6.0, 8.0
"""The least deviations of a cluster."""
PLACE_DENSITY = 1 / 30**2
EVIDENCE, PAIRWISE = 1.0, 3.0
"""Weight of the colours' log odds where the network is unsure, and of what is around a pixel on its own side of an
edge."""
CHEST = 9.0
"""Cm to both sides of the middle of what is surely the person's below the shoulders' height."""
SURE = 3.0
"""Log odds from which the network is sure."""
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
    segmenter = PersonSegmenter()
    masks = np.stack([segmenter.mask(frame / np.float32(255), (size, size)) for frame in frames])
    return _split(view, _person(view, masks, filters))


@dataclass(frozen=True)
class _View:
    """Of frames (K, w, w): colours `lab` (K, w, w, 3), places in cm, distance from the skull, and what is face."""

    lab: np.ndarray
    across: np.ndarray
    height: np.ndarray
    skull: np.ndarray
    face: np.ndarray


def _person(view: _View, masks: np.ndarray, filters: Sequence[GuidedFilter]) -> np.ndarray:
    """Which pixels (K, w, w) show the person: mean field with the network's `masks` and the colours' evidence."""
    sideways = np.abs(view.across)
    chest = (view.height < -12) & (sideways < CHEST)
    neck = (view.height < -8) & (sideways < 3.5)
    certain = view.face | chest | neck | ((view.skull < 0.8) & (view.height > 2))
    features = np.concatenate(
        [view.lab * [0.7, 1, 1], PLACE * view.across[..., None], PLACE * view.height[..., None]], axis=-1
    ).astype(np.float32)
    seen = log_odds(masks)
    unsure = 4 * masks * (1 - masks)
    person, background = certain | (seen > SURE), (seen < -SURE) & ~certain
    for _ in range(ROUNDS):
        evidence = np.log(_density(features, person)) - np.log(_density(features, background))
        unary = np.where(certain, 8, seen + unsure * np.clip(EVIDENCE * evidence, -5, 5))
        belief = unary
        for _ in range(MESSAGES):
            leaning = np.tanh(belief / 2)
            belief = unary + PAIRWISE * np.stack([own(of) for own, of in zip(filters, leaning, strict=True)])
        person, background = belief > 2, belief < -2
    return belief > 0


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
