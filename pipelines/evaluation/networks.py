"""The networks that evaluation uses where their files are here: InsightFace's, LPIPS and SyncNet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...models.lpips import LPIPS, load_lpips
from ...models.syncnet import SyncNet, load_syncnet
from ..face.identity import FaceRecogniser

RECOGNISER = ("antelope_scrfd_10g_bnkps", "antelope_glintr100")
LPIPS_FILES = ("lpips_alex", "alexnet")
SYNCNET = "syncnet"
FILES = (*RECOGNISER, *LPIPS_FILES, SYNCNET)
"""Names in the table of models."""


@dataclass(frozen=True)
class Networks:
    """Each is None where a file of it is missing; all are on the CPU."""

    recogniser: FaceRecogniser | None = None
    lpips: LPIPS | None = None
    syncnet: SyncNet | None = None


def load_networks(find: Callable[[str], Path | None]) -> Networks:
    """Those whose files `find` gives by their names in the table of models.

    Raises TalkingPortraitError for a file that is there, but is another or damaged.
    """
    detector, recogniser = map(find, RECOGNISER)
    weights, alexnet = map(find, LPIPS_FILES)
    syncnet = find(SYNCNET)
    return Networks(
        FaceRecogniser(detector, recogniser) if detector and recogniser else None,
        load_lpips(weights, alexnet) if weights and alexnet else None,
        load_syncnet(syncnet) if syncnet else None,
    )
