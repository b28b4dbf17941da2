"""Python packages that may be missing or broken: errors in one sentence with the command that installs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .errors import TalkingPortraitError

VERSION = "0.1.0"
"""Of this pack."""
PACK = Path(__file__).absolute().parents[1]


def pip_install(arguments: str) -> str:
    """The command line that installs packages into the Python that runs this; a user may have several."""
    return f'"{sys.executable}" -m pip install {arguments}'


def missing_package(error: ModuleNotFoundError) -> str | None:
    """What to do about a package that is not installed, as a sentence; None for a module of this pack's own."""
    name = (error.name or "").partition(".")[0]
    if not name or name == __name__.partition(".")[0]:
        return None
    package = _DISTRIBUTIONS.get(name, name)
    # Where torch is there, its list is left out: in ComfyUI it could put another build in the place of that for a card.
    lists = ["requirements.txt", *(["requirements-standalone.txt"] if package in STANDALONE else [])]
    needed = " ".join(f'-r "{PACK / each}"' for each in lists if (PACK / each).is_file()) or package
    return f"The Python package {package} is not installed; run: {pip_install(needed)}"


_DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml"}
"""What pip calls modules of another name."""
STANDALONE = ("torch", "numpy", "aiohttp")
"""The packages of requirements-standalone.txt."""


def load_opencv() -> Any:
    """The module cv2, 4.8 or later.

    Raises TalkingPortraitError where it is missing, too old, or lacks a library of the system: containers without a
    desktop have no libGL, which the headless build of OpenCV does without.
    """
    try:
        import cv2

        cv2.dnn.readNetFromTFLite  # noqa: B018  # which came with 4.8, and a half-removed cv2 has no dnn
    except (ImportError, AttributeError) as error:
        raise TalkingPortraitError(
            f"OpenCV 4.8 or later is needed, but can't be used here ({first_line(error)}); run: "
            + pip_install("--force-reinstall --no-deps opencv-python-headless")
        ) from None
    return cv2


def first_line(error: BaseException) -> str:
    """The first line of another package's error, short enough for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
