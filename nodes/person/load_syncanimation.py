"""A person's SyncAnimation model from its file."""

from __future__ import annotations

from pathlib import Path

from ..loaded_models import LoadedSyncAnimation
from ..person_nodes import PersonModelLoader
from ..sockets import SyncAnimationSocket


class LoadSyncAnimation(PersonModelLoader):
    """A file to SYNCANIMATION."""

    NODE_ID = "TalkingPortraitLoadSyncAnimation"
    SYSTEM, SOCKET = "SyncAnimation", SyncAnimationSocket
    ALIASES = ("syncanimation", "synctalk", "person model", "talking head", "nerf")

    @classmethod
    def opened(cls, path: Path) -> LoadedSyncAnimation:
        from ...pipelines.syncanimation.animate import open_model

        return LoadedSyncAnimation.of(open_model(path))
