"""A person's AudioDVP model from its file."""

from __future__ import annotations

from pathlib import Path

from ..loaded_models import LoadedAudioDVP
from ..person_nodes import PersonModelLoader
from ..sockets import AudioDVPSocket


class LoadAudioDVP(PersonModelLoader):
    """A file to AUDIODVP."""

    NODE_ID = "TalkingPortraitLoadAudioDVP"
    SYSTEM, SOCKET = "AudioDVP", AudioDVPSocket
    ALIASES = ("audiodvp", "person model", "talking head")

    @classmethod
    def opened(cls, path: Path) -> LoadedAudioDVP:
        from ...pipelines.audiodvp.animate import open_model

        return LoadedAudioDVP.of(open_model(path))
