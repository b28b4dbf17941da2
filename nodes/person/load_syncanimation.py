"""A person's SyncAnimation model from its file."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedSyncAnimation
from ..model_paths import Fingerprint, files_fingerprint, own_model
from ..sockets import SyncAnimationSocket


class LoadSyncAnimation(io.ComfyNode):
    """A file to SYNCANIMATION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitLoadSyncAnimation",
            display_name="Load SyncAnimation",
            category="Talking Portrait/person",
            description="Loads a person's SyncAnimation model, as Train SyncAnimation or the command train "
            "syncanimation writes it.",
            search_aliases=["syncanimation", "synctalk", "person model", "talking head", "nerf"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.model_names(host.OWN_CATEGORY, (".safetensors",)),
                    tooltip="A run's person.safetensors, copied to models/talking_portrait under any name.",
                )
            ],
            outputs=[SyncAnimationSocket.Output(display_name="model", tooltip="For SyncAnimation Drive.")],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        # A missing file is reported by execute, with the way to get it.
        return True

    @classmethod
    def fingerprint_inputs(cls, file: Any = None, **_: Any) -> Fingerprint:
        return files_fingerprint(host.OWN_CATEGORY, file)

    @classmethod
    @checked_node
    def execute(cls, file: str) -> io.NodeOutput:
        from ...pipelines.syncanimation.animate import open_model

        path = own_model(file, "a person's SyncAnimation model", "train one with Train SyncAnimation and copy it there")
        return io.NodeOutput(LoadedSyncAnimation.of(open_model(path)))
