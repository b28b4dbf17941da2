"""GFPGAN from its file."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedFaceRestorer
from ..model_paths import Fingerprint, chosen_model, file_input, files_fingerprint, files_verdict
from ..sockets import FaceRestorerSocket

CATEGORY = "upscale_models"
DEFAULT, DEFAULT_FILE = "gfpgan", "GFPGANv1.4.pth"


class LoadFaceRestorer(io.ComfyNode):
    """File to FACE_RESTORER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitLoadFaceRestorer",
            display_name="Load Face Restorer",
            category="Talking Portrait/face",
            description="Loads GFPGAN 1.3 or 1.4, which restores blurred faces.",
            search_aliases=["gfpgan", "face restoration", "face enhancer"],
            inputs=[
                file_input(
                    "file",
                    host.model_names(CATEGORY, (".pth", ".safetensors")),
                    DEFAULT_FILE,
                    "GFPGANv1.4.pth or GFPGANv1.3.pth, in models/upscale_models.",
                )
            ],
            outputs=[FaceRestorerSocket.Output(display_name="restorer", tooltip="For Restore Faces.")],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return files_verdict(CATEGORY, {DEFAULT: file})

    @classmethod
    def fingerprint_inputs(cls, file: Any = None, **_: Any) -> Fingerprint:
        return files_fingerprint(CATEGORY, file)

    @classmethod
    @checked_node
    def execute(cls, file: str) -> io.NodeOutput:
        from ...models.gfpgan import load_gfpgan

        restorer = load_gfpgan(chosen_model(CATEGORY, file, DEFAULT), dtype=host.fast_dtype())
        return io.NodeOutput(LoadedFaceRestorer(host.ManagedModule(restorer)))
