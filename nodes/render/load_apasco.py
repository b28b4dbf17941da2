"""The networks of APasco and Hallo from their one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...pipelines.errors import TalkingPortraitError
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..model_paths import Fingerprint, chosen_model, file_input, files_fingerprint, verdict
from ..precision import chosen_dtype, dtype_input
from ..sockets import APascoSocket

NET, NET_FILE = "hallo_net", "hallo/net.pth"
TRAINED_FILE = "apasco/net.safetensors"
"""Where a network that was trained here belongs; the geometry example takes it."""
ENDINGS = (".pth", ".pt", ".safetensors", ".ckpt", ".bin")


class LoadAPasco(io.ComfyNode):
    """File to APASCO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = host.model_names(host.OWN_CATEGORY, ENDINGS)
        return host.schema(
            node_id="TalkingPortraitLoadAPasco",
            display_name="Load APasco",
            category="Talking Portrait/render",
            description="Loads net.pth of Hallo, or of an APasco that was trained here; APasco itself has published "
            "none.",
            search_aliases=["apasco", "hallo", "audio diffusion", "portrait diffusion"],
            inputs=[
                file_input(
                    "net",
                    files,
                    NET_FILE,
                    "net.pth, or the same as .safetensors, in models/talking_portrait, with the tensor names of either "
                    "project.",
                ),
                dtype_input(),
            ],
            outputs=[APascoSocket.Output(display_name="apasco", tooltip="For APasco Sampler.")],
        )

    @classmethod
    def validate_inputs(cls, net: str | None = None) -> bool | str:
        return verdict(_path, net)

    @classmethod
    def fingerprint_inputs(cls, net: Any = None, **_: Any) -> Fingerprint:
        return files_fingerprint(host.OWN_CATEGORY, net)

    @classmethod
    @checked_node
    def execute(cls, net: str, dtype: Any) -> io.NodeOutput:
        from ...models.apasco.loading import load_net
        from ...pipelines.apasco.settings import Networks

        networks = load_net(_path(net), dtype=chosen_dtype(dtype))
        return io.NodeOutput(Networks.of(networks, host.ManagedModule))


def _path(net: str) -> Path:
    """The file of that name. Raises TalkingPortraitError where it is not there."""
    if net == TRAINED_FILE and host.model_path((host.OWN_CATEGORY,), net) is None:
        raise TalkingPortraitError(
            f"The model file {net} is not in {host.model_folders(host.OWN_CATEGORY)[0]}, as no APasco weights are "
            "published; train your own (this pack's command train apasco-stage2 --geometry, see "
            f"docs/training.md) and put its net.safetensors there, or choose {NET_FILE} without geometry."
        )
    return chosen_model(host.OWN_CATEGORY, net, NET)
