"""The networks of APasco and Hallo from their one file."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..model_paths import chosen_model
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
            description="Loads net.pth of Hallo, or of an APasco that was trained here; APasco itself has published "
            "none.",
            search_aliases=["apasco", "hallo", "audio diffusion", "portrait diffusion"],
            inputs=[
                io.Combo.Input(
                    "net",
                    options=sorted({*files, NET_FILE}),
                    default=NET_FILE,
                    tooltip="net.pth, or the same as .safetensors, in models/talking_portrait, with the tensor names "
                    "of either project.",
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
    @checked_node
    def execute(cls, net: str, dtype: Any) -> Any:
        from ...models.apasco.loading import load_net
        from ...pipelines.apasco.settings import Networks

        networks = load_net(chosen_model(host.OWN_CATEGORY, net, NET), dtype=chosen_dtype(dtype))
        return io.NodeOutput(Networks.of(networks, host.ManagedModule))
