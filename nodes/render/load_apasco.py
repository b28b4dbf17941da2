"""The networks of APasco and Hallo from their one file."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..model_paths import Fingerprint, chosen_model, file_input, files_fingerprint
from ..precision import chosen_dtype, dtype_input
from ..sockets import APascoSocket

io: Any = host.io

NET, NET_FILE = "hallo_net", "hallo/net.pth"
ENDINGS = (".pth", ".pt", ".safetensors", ".ckpt", ".bin")


class LoadAPasco(io.ComfyNode):
    """File to APASCO."""

    @classmethod
    def define_schema(cls) -> Any:
        files = host.model_names(host.OWN_CATEGORY, ENDINGS)
        return host.schema(
            node_id="TalkingPortraitLoadAPasco",
            display_name="Load APasco",
            category="Talking Portrait/render",
            description="Loads net.pth of Hallo, or of an APasco that was trained here; none is published for APasco.",
            search_aliases=["apasco", "hallo", "audio diffusion", "portrait diffusion"],
            inputs=[
                file_input(
                    "net",
                    files,
                    NET_FILE,
                    "net.pth, or the same as .safetensors, in models/talking_portrait; names of both projects.",
                ),
                dtype_input(),
            ],
            outputs=[APascoSocket.Output(display_name="apasco", tooltip="For APasco Sampler.")],
        )

    @classmethod
    def validate_inputs(cls, net: str) -> bool | str:
        # A missing file is reported by execute, with the way to get it.
        return True

    @classmethod
    def fingerprint_inputs(cls, net: Any, **_: Any) -> Fingerprint:
        return files_fingerprint(host.OWN_CATEGORY, net)

    @classmethod
    @checked_node
    def execute(cls, net: str, dtype: Any) -> Any:
        from ...models.apasco.loading import load_net
        from ...pipelines.apasco.settings import Networks

        networks = load_net(chosen_model(host.OWN_CATEGORY, net, NET), dtype=chosen_dtype(dtype))
        return io.NodeOutput(Networks.of(networks, host.ManagedModule))
