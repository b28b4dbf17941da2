"""A person's AudioDVP model from its file."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedAudioDVP
from ..model_paths import Fingerprint, files_fingerprint, own_model
from ..sockets import AudioDVPSocket


class LoadAudioDVP(io.ComfyNode):
    """A file to AUDIODVP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitLoadAudioDVP",
            display_name="Load AudioDVP",
            category="Talking Portrait/person",
            description="Loads a person's AudioDVP model, as Train AudioDVP or the command train audiodvp writes it.",
            search_aliases=["audiodvp", "person model", "talking head"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.model_names(host.OWN_CATEGORY, (".safetensors",)),
                    tooltip="A run's person.safetensors, copied to models/talking_portrait under any name.",
                )
            ],
            outputs=[AudioDVPSocket.Output(display_name="model", tooltip="For AudioDVP Drive.")],
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
        from ...pipelines.audiodvp.animate import open_model

        path = own_model(file, "a person's AudioDVP model", "train one with Train AudioDVP and copy it there")
        return io.NodeOutput(LoadedAudioDVP.of(open_model(path)))
