"""A person's way of moving the mouth from its file."""

from __future__ import annotations

from pathlib import Path

from ..loaded_models import LoadedDriver
from ..person_nodes import PersonModelLoader
from ..sockets import DriverSocket


class LoadInstantDriver(PersonModelLoader):
    """A file to DRIVER."""

    NODE_ID = "TalkingPortraitLoadInstantDriver"
    SYSTEM, SOCKET = "Instant Driver", DriverSocket
    FILE, OUTPUT, USE = "A file of the output folder's drivers", "driver", "the driver input of Instant Driver"
    ALIASES = ("personal driver", "own voice", "saved driver", "lip sync weights")

    @classmethod
    def opened(cls, path: Path) -> LoadedDriver:
        from ...pipelines.audio.mouth_weights import open_mouth

        return LoadedDriver(open_mouth(path))
