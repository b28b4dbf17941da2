"""How the mouth of one portrait moves: a motion's lips, in this face's proportions and from its own resting shape.

The motion's opening and width are drawn as they are. What a mesh that only turns its jaw lacks is added: an oval where
the mouth is wide open, a round hole between thick lips for "u" and "o", a lower lip under the teeth for "f" and "v". An
open or smiling portrait is brought to a speaking mouth first, and only as far as each sound needs it.

Numbers that name no source were chosen by eye on portraits: the shipped one, photographs with and without a smile, a
painting, two drawings and a statue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....models.curves import Values, smoothstep, soft_limit
from ....models.face.face_mesh import (
    CHIN,
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LIPS_INNER,
    OUTER_LOWER_LIP,
    VERTICES,
    eye_distance,
    face_mesh,
)
from ....models.face.mouth_regions import (
    LOWER_INNER_LIP,
    MOUTH_CORNERS,
    UPPER_CHAIN,
    UPPER_INNER_LIP,
    below_nose,
    beside_mouth,
    corner_part,
    jaw_part,
    lip_followers,
    mouth_part,
    thickening,
)
from ....models.face.mouth_shapes import mouth_vertices
from ...types import FaceMotion

if TYPE_CHECKING:
    from .portrait_mesh import LipControls, PortraitMesh

LOWER_TEETH_FOLLOW, TEETH_PART = [INNER_LOWER_LIP, 87, 317, INNER_LOWER_LIP, 87, 317, CHIN, 175, 199, 200], 0.87
"""Vertices whose mean movement the lower teeth take part in, and the part: they are nearer to the jaw's hinge than the
chin. Mostly it is the lower lip's edge, behind which they stay."""

CLOSED_GAP = 0.022
"""Lip openings up to this many eye distances are a closed mouth: landmarkers never report an exact zero."""
EASE_OPENING, MAX_OPENING = 0.24, 0.34
"""Drawn lip openings in eye distances from which, and up to which, they are eased: skin stretches only so far."""
PROFILE = 0.8
"""Part of the mouth's width that a turned head shows, below which its lips open less still: the far corner folds."""
LIP_EDGE = 1.5
"""Width in output pixels of the soft edge between lip and inside, in a sharp picture."""
SLIT_FROM = 0.03
"""Opening in eye distances from which all of the gap that the lips' soft edges hide is added back."""
SMALL_JAW = 0.1
"""Jaw control whose vertex offsets are scaled to widen a small opening."""
MAX_SLIT = 0.04
"""Most eye distances that are added back: the edges of a small face's lips are as wide as the lips."""
TRIMMED_OVER = 4.0
"""Opening over what is trimmed from both lips' edges at which all of that is gone."""

SPEAKING = 0.004
"""Eye distances by which a lip rises or falls, from which on it speaks: less than in an "m"."""
SHUT_DOWN, MOST_FALL = 0.35, 0.05
"""Part of the way to closed lips that an open portrait's upper lip comes down, and the most eye distances by which the
mouth's corners fall where it comes further."""
LONG_PAUSE, SMILE_PAUSE = 4.0, 0.5
"""Seconds of silence after which a mouth that is open in the portrait opens again, and a smile comes back."""
PLAIN_CURVE, MAX_CURVE = 0.03, 0.22
"""How far the lips' middle hangs below the corners in mouth widths: without a smile, and in the widest one."""
PLAIN_WIDTH = 0.53
"""Width of a mouth that does not smile, in eye distances."""
SMILE_RELAXED = 0.65
"""Part of the smile that speech takes away; "u", "o" and closed lips take all of it."""

PUCKERED_WIDTH, PUCKERED_PART = 0.36, 0.6
"""Width of a fully puckered mouth in eye distances, and the least part of its own that a portrait's mouth keeps."""
PUCKERED_HOLE = 0.8
"""Half width of the hole between fully puckered lips, in half widths of the mouth."""
OVAL_FROM, OVAL_FULL = 0.04, 0.18
"""Openings in eye distances from which, and with which, the lips' contour becomes an oval."""
OVAL = 0.58
"""Exponent of the oval's height: 0.5 is an ellipse; more is gentler to the skin at the corners."""
CORNERS_FALL = 0.13
"""Part of an oval's height by which its corners fall; with the mesh's own fall they do so as recorded speakers' do."""
UPPER_RISE = 0.06
"""Part of an opening by which the upper lip rises, so that its teeth show."""
LIFTED_JAW = 0.5
"""Part of what the lower lip opens further, instead of an upper one that does not rise, that its teeth take part in."""
TUCK_GAP = 0.5
"""Height in cm of the upper teeth that show above a lower lip under them."""
TUCK_DOWN = 0.5
"""Part of the way to closed lips that an open portrait's upper lip comes down to those teeth: else their gums show."""
ROLLED_IN = 0.4
"""Part of the lower lip that disappears under the upper teeth."""


@dataclass(frozen=True)
class Speaking:
    """How far (F,) in 0..1 a motion's mouth is at work: `closing` an open portrait's lips, `relaxing` its smile."""

    closing: np.ndarray
    relaxing: np.ndarray

    @property
    def still(self) -> np.ndarray:
        """(F,) whether the portrait's own mouth stays."""
        return (self.closing == 0) & (self.relaxing == 0)


class MouthShape:
    """Expression offsets of one portrait's mouth. Lengths are cm in the canonical head frame unless said otherwise."""

    def __init__(self, mesh: PortraitMesh) -> None:
        """`mesh` with its points, vertices and eye distance."""
        self.vertices, self.eye_cm = mesh.vertices, mesh.eye_distance_cm
        upper, lower = list(UPPER_INNER_LIP), list(LOWER_INNER_LIP)
        gaps = np.linalg.norm(mesh.points[upper] - mesh.points[lower], axis=1)
        self.lip_gap = float(gaps[4] / mesh.eye_distance)
        """Lip opening in the portrait, in eye distances."""
        self.closed = self.lip_gap < CLOSED_GAP
        corners = list(MOUTH_CORNERS)
        self.width = float(np.linalg.norm(np.diff(self.vertices[corners], axis=0)))
        seen = np.linalg.norm(np.diff(mesh.points[corners], axis=0)) / (self.width * mesh.pixels_per_cm)
        self.width_seen = float(np.clip(seen, 0.5, 1.0))
        """Visible part of the mouth's width on a turned head."""
        self.eye_pixels = mesh.eye_distance
        self.opening_share, self.chin_gain = mesh.jaw_shares()
        self.corners = corner_part()
        self.relaxed = self._relaxed(mesh)
        """(468, 3): takes the portrait's smile away."""
        thickness = np.linalg.norm(self.vertices[OUTER_LOWER_LIP] - self.vertices[INNER_LOWER_LIP])
        self.roll = ROLLED_IN * float(thickness)
        """Height of the lower lip that disappears under the upper teeth."""
        self.fit_edges(np.zeros(len(UPPER_INNER_LIP)), LIP_EDGE)
        self.upper_follows, self.lower_follows = lip_followers()
        self.thicker = thickening()
        self.slit, self.jaw = _slit(self.eye_cm), jaw_part()

    def fit_edges(self, further: np.ndarray, hidden: float, trimmed: float = 0.0) -> None:
        """Sets how much further (9,) than landmarks open lips go to shut, and how many pixels their soft edges hide.

        `trimmed` pixels of both lips' edges go as these part, by the `trimmed_part` of their opening.
        """
        upper, lower = list(UPPER_INNER_LIP), list(LOWER_INNER_LIP)
        open_by = self.vertices[upper, 1] - self.vertices[lower, 1] + further
        self.gaps = np.zeros(len(upper)) if self.closed else open_by.clip(min=0)
        """(9,): heights of the portrait's own opening."""
        self.closing_upper, self.closing_lower = self._closing(further)
        """(468, 3) each: one lip alone closes the portrait's open mouth."""
        self.hidden, self.trimmed = hidden, trimmed

    def speaking(self, motion: FaceMotion) -> Speaking:
        """An open mouth keeps the portrait's smile in long silences; its lips come together for speech and its pauses.

        Of a smile a part leaves while speaking and is back in each pause.
        """
        lips = list(LIPS_INNER)
        # Idle lips spread and round a little, but hardly rise or fall.
        moved = np.abs(motion.vertices[:, lips, 1] - motion.neutral[lips, 1]).max(axis=1)
        active = (moved > SPEAKING * eye_distance(motion.neutral)).astype(np.float64)
        rate = float(motion.fps)
        relaxing = _bridged(active, SMILE_PAUSE * rate, 0.3 * rate, 0.14 * rate)
        closing = np.zeros_like(active) if self.closed else _bridged(active, LONG_PAUSE * rate, 0.8 * rate, 0.12 * rate)
        return Speaking(closing, relaxing if self.relaxed.any() else np.zeros_like(active))

    def offsets(
        self, motion: FaceMotion, frames: np.ndarray, controls: LipControls, speaking: Speaking
    ) -> tuple[np.ndarray, np.ndarray]:
        """Offsets (B, 468, 3) of the whole face, with the mouth as this portrait has it, and (B, J, 3) of the
        vertices that the lower teeth follow, without what the lips alone do.

        `frames` (B,) by number, `controls` for these, `speaking` for all frames of the motion.
        """
        offsets = self.fitted(motion, frames)
        opening, pucker, tuck = controls.opening, controls.pucker, controls.tuck
        shut = smoothstep(0.05, 0.0, opening) * (1 - tuck)
        # The corners fall wholly for round and closed lips; a wide mouth is not drawn in by more than skin can follow.
        wholly = SMILE_RELAXED + (1 - SMILE_RELAXED) * np.maximum(pucker, shut)
        relaxing = speaking.relaxing[frames, None] * np.stack([0 * wholly + SMILE_RELAXED, wholly, 0 * wholly], axis=-1)
        offsets += relaxing[:, None] * self.relaxed
        if not self.closed:
            # The upper lip comes down for closures, round lips and teeth on a lip alone: else the picture's own stay.
            down = np.maximum(SHUT_DOWN * smoothstep(0.11, 0.0, opening), 0.75 * pucker) * (1 - tuck)
            down = down + TUCK_DOWN * tuck
            closing = down[:, None, None] * self.closing_upper + (1 - down)[:, None, None] * self.closing_lower
            # The line where lips meet takes its corners along, else round lips would hang from a smile's.
            fall = np.minimum((down - SHUT_DOWN).clip(min=0) * self.gaps[4], MOST_FALL * self.eye_cm)
            closing[..., 1] -= fall[:, None] * self.corners
            offsets += speaking.closing[frames, None, None] * closing
        jaw = TEETH_PART * offsets[:, LOWER_TEETH_FOLLOW]
        jaw[..., 1] -= LIFTED_JAW * self._shape_lips(offsets, controls)[:, None]
        return offsets, jaw

    def fitted(self, motion: FaceMotion, frames: np.ndarray) -> np.ndarray:
        """The motion's own offsets (B, 468, 3) in this face's proportions, wide openings eased."""
        offsets = motion.vertices[frames].astype(np.float64) - motion.neutral
        offsets = offsets * (self.eye_cm / eye_distance(motion.neutral))
        # A narrow mouth rounds and spreads by less; openings stay in eye distances, as speech is measured.
        own = min(self.width / self.eye_cm, PLAIN_WIDTH)
        other = distance(motion.neutral, *MOUTH_CORNERS) / eye_distance(motion.neutral)
        width = float(np.clip(own / other, 0.6, 1.4))
        offsets[..., 0] *= 1 + (width - 1) * mouth_part()
        opening = np.linalg.norm(offsets[:, INNER_LOWER_LIP] - offsets[:, INNER_UPPER_LIP], axis=-1) / self.eye_cm
        limit = self.width_seen * min(1.0, self.width_seen / PROFILE)
        drawn = soft_limit(opening, EASE_OPENING * limit, MAX_OPENING * limit) / self.opening_share
        gain = np.where(opening > 0, drawn / np.maximum(opening, 1e-9), 1.0)
        offsets[..., 1:] *= 1 + (gain[:, None, None] - 1) * below_nose()[:, None]
        # The jaw is one bone: the front of the chin goes no further than its tip, and the jaw's line goes along.
        offsets[..., 1] += (self.chin_gain - 1) * offsets[:, CHIN, 1:2] * self.jaw
        return offsets + self._unseen(opening)[:, None, None] * self.slit

    def _unseen(self, opening: np.ndarray) -> np.ndarray:
        """Eye distances (B,) by which lips have to part further, or less, for a visible `opening` (B,)."""
        wanted = opening * self.eye_pixels
        parted = np.linspace(0.0, 2 * TRIMMED_OVER * self.trimmed, 65) if self.trimmed else np.zeros(1)
        gone = self.trimmed * trimmed_part(parted, self.trimmed)
        further = self.hidden * smoothstep(0, SLIT_FROM, opening) - np.interp(wanted, parted + gone, gone)
        return np.clip(further / self.eye_pixels, -MAX_SLIT, MAX_SLIT)

    def _shape_lips(self, offsets: np.ndarray, controls: LipControls) -> np.ndarray:
        """Adds to offsets (B, 468, 3) what the lips' contour needs for an oval, a pucker or a tucked lower lip.

        Returns (B,) cm by which the lower lip opens further because the upper one does not rise.
        """
        pucker, tuck = controls.pucker, controls.tuck
        upper_lip, lower_lip = list(UPPER_INNER_LIP), list(LOWER_INNER_LIP)
        gaps = (self.gaps + offsets[:, upper_lip, 1] - offsets[:, lower_lip, 1]).clip(min=0)
        middle = gaps[:, 4]
        oval = smoothstep(OVAL_FROM, OVAL_FULL, middle / self.eye_cm - self._unseen(controls.opening))
        place = face_mesh().vertices[list(UPPER_INNER_LIP), 0] / face_mesh().vertices[MOUTH_CORNERS[1], 0]
        hole = 1 - (1 - PUCKERED_HOLE) * pucker
        ellipse = (1 - (place / hole[:, None]) ** 2).clip(min=0) ** OVAL
        wanted = middle[:, None] * ellipse
        shaping = np.maximum(0.85 * oval, pucker) * (1 - tuck)
        change = shaping[:, None] * (wanted - gaps)
        # A lower lip under the teeth: the upper teeth's edges show above it.
        edges = 0.0 if self.closed else self.hidden / self.eye_pixels * self.eye_cm
        shown = TUCK_GAP + edges - self.roll
        tucked = tuck[:, None] * (shown * np.sqrt((1 - place**2).clip(min=0)) - gaps)
        upper, lower = np.zeros((2, len(offsets), len(UPPER_CHAIN), 3))
        upper[:, 1:-1, 1] = 0.35 * change + 0.35 * tucked
        lower[:, 1:-1, 1] = -0.65 * change - 0.65 * tucked
        hidden = 1 - np.clip(self.lip_gap / 0.06, 0, 1)
        rise = (hidden * UPPER_RISE * oval * (1 - pucker) * middle)[:, None] * (1 - place**2)
        upper[:, 1:-1, 1] += rise
        lower[:, 1:-1, 1] += rise
        # A pucker's ring rises as well as falls.
        ring = (0.3 * pucker * middle)[:, None] * ellipse
        upper[:, 1:-1, 1] += ring
        lower[:, 1:-1, 1] += ring
        # Lips that show their teeth in the portrait do not rise above them: the lower lip opens further instead.
        lifted = (1 - hidden) * (offsets[:, upper_lip, 1] + upper[:, 1:-1, 1]).clip(min=0)
        upper[:, 1:-1, 1] -= lifted
        lower[:, 1:-1, 1] -= lifted[:, 4:5] * ellipse
        # A smile's lower lip hangs from its corners, which fall by more than its middle: it keeps the oval by itself.
        ends = offsets[:, list(MOUTH_CORNERS), 1] + self.vertices[list(MOUTH_CORNERS), 1]
        line = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * (1 + place) / 2
        depth = line - (self.vertices[lower_lip, 1] + offsets[:, lower_lip, 1] + lower[:, 1:-1, 1])
        round_depth = depth[:, 4:5].clip(min=0) * ellipse
        lower[:, 1:-1, 1] -= ((1 - hidden) * oval * (1 - tuck))[:, None] * (round_depth - depth).clip(min=0)
        corners = offsets[:, list(MOUTH_CORNERS), 0]
        half = self.width / 2 + (corners[:, 0] - corners[:, 1]).clip(max=0) / 2
        narrowest = max(PUCKERED_WIDTH * self.eye_cm, PUCKERED_PART * self.width) / 2
        narrower = (half - narrowest).clip(max=0.2 * self.width / 2)
        inward = 0.10 * oval * (1 - pucker) * self.width / 2 + pucker * narrower
        corners = corners + inward[:, None] * [1, -1]
        # Between the corners the lips are drawn in or out evenly.
        evenly = corners[:, :1] + (corners[:, 1:] - corners[:, :1]) * (1 + place) / 2
        for chain, lip in ((upper, upper_lip), (lower, lower_lip)):
            chain[:, [0, -1], 0] = inward[:, None] * [1, -1]
            chain[:, [0, -1], 1] = (-CORNERS_FALL * oval * middle)[:, None]
            chain[:, 1:-1, 0] = evenly - offsets[:, lip, 0]
        offsets += np.einsum("vn,bnk->bvk", self.upper_follows, upper)
        offsets += np.einsum("vn,bnk->bvk", self.lower_follows, lower)
        offsets[..., 1] += (pucker - 0.8 * tuck)[:, None] * self.thicker
        return lifted[:, 4]

    def _relaxed(self, mesh: PortraitMesh) -> np.ndarray:
        """Offsets (468, 3) by which the portrait's smile leaves: corners down and in, cheeks and folds follow."""
        right, left = mesh.points[list(MOUTH_CORNERS)]
        across = left - right
        down = np.array([-across[1], across[0]]) / max(float(across @ across), 1e-6)
        middle = mesh.points[[INNER_UPPER_LIP, INNER_LOWER_LIP]].mean(axis=0)
        curve = float((middle - (left + right) / 2) @ down)
        fall = np.clip(curve - PLAIN_CURVE, 0, MAX_CURVE) * self.width
        narrower = max(self.width / self.eye_cm - PLAIN_WIDTH, 0.0) * self.eye_cm / 2
        if fall == 0:
            return np.zeros((VERTICES, 3))
        offsets = np.zeros((VERTICES, 3))
        offsets[:, 1] = -fall * self.corners
        along, around = beside_mouth()
        offsets[:, 0] = -narrower * np.sign(face_mesh().vertices[:, 0]) * along * around
        return offsets

    def _closing(self, further: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Offsets (468, 3) with which the upper, or the lower, lip alone closes the portrait's open mouth."""
        upper, lower = list(UPPER_INNER_LIP), list(LOWER_INNER_LIP)
        gap = self.vertices[lower] - self.vertices[upper]
        length = np.linalg.norm(gap, axis=1)
        gap = gap * np.clip(1 + further / np.maximum(length, np.abs(further) + 1e-6), 0, None)[:, None]
        canonical = face_mesh().vertices
        line = canonical[UPPER_CHAIN]
        share = np.concatenate([np.zeros((1, 3)), gap, np.zeros((1, 3))])
        across = np.stack([np.interp(canonical[:, 0], line[:, 0], share[:, k]) for k in range(3)], axis=-1)
        above = canonical[:, 1] - np.interp(canonical[:, 0], line[:, 0], line[:, 1])
        near = (np.abs(canonical[:, 0]) < 3.2) & (canonical[:, 1] < -1.5)
        # The upper lip comes down, fading towards the nose; the lower lip rises, and the chin by a part.
        down = np.clip(1 - (above - 0.1) / 1.6, 0, 1) * (above > -0.05) * near
        up = np.clip(1 - 0.65 * (-above - 0.5) / 3.0, 0.0, 1) * (above <= -0.05) * near
        falling, rising = down[:, None] * across, -up[:, None] * across
        falling[upper], falling[lower] = gap, 0
        rising[lower], rising[upper] = -gap, 0
        return falling, rising


def trimmed_part(opening: Values, trimmed: float) -> Values:
    """Part in 0..1 of what is `trimmed` from lips that has gone at an `opening`, in one unit."""
    return smoothstep(0.0, TRIMMED_OVER * trimmed + 1e-3, opening)


def distance(vertices: np.ndarray, one: int, other: int) -> float:
    """Distance of two vertices of a mesh (468, 3), in its unit and above 0."""
    return max(float(np.linalg.norm(vertices[other] - vertices[one])), 1e-6)


def _bridged(active: np.ndarray, pause: float, lead: float, soft: float) -> np.ndarray:
    """`active` (F,) with gaps up to `pause` frames filled, begun and ended `lead` frames later, softened by `soft`."""
    from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d

    if not active.any():
        return active
    size = max(1, round(pause))
    whole = minimum_filter1d(maximum_filter1d(active, size, mode="nearest"), size, mode="nearest")
    return gaussian_filter1d(maximum_filter1d(whole, max(1, round(lead)), mode="nearest"), soft, mode="nearest")


def _slit(eye_cm: float) -> np.ndarray:
    """Offsets (468, 3) in cm of a small movement of the jaw, scaled to open the lips by one eye distance."""
    jaw = mouth_vertices(np.array([[SMALL_JAW, 0, 0, 0, 0, 0]]))[0].astype(np.float64)
    return jaw * (eye_cm / distance(jaw, INNER_UPPER_LIP, INNER_LOWER_LIP))
