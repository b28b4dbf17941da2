"""AniTalker's two networks from their files."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..loaded_models import LoadedAniTalker
from ..model_paths import chosen_model
from ..sockets import AniTalkerSocket

io: Any = host.io

STAGE1, STAGE2 = "anitalker_stage1", "anitalker_audio_only_hubert"
STAGE1_FILE, STAGE2_FILE = "anitalker/stage1.ckpt", "anitalker/stage2_audio_only_hubert.ckpt"
ENDINGS = (".ckpt", ".pth", ".pt", ".safetensors", ".bin")


class LoadAniTalker(io.ComfyNode):
    """Two files to ANITALKER."""

    @classmethod
    def define_schema(cls) -> Any:
        files = host.model_names(host.OWN_CATEGORY, ENDINGS)
        return host.schema(
            node_id="TalkingPortraitLoadAniTalker",
            display_name="Load AniTalker",
            category="Talking Portrait/motion",
            description="Loads AniTalker's renderer and one of its five motion models, identified by the contents of "
            "the files.",
            search_aliases=["anitalker", "talking head", "motion diffusion"],
            inputs=[
                io.Combo.Input(
                    "stage1",
                    options=sorted({*files, STAGE1_FILE}),
                    default=STAGE1_FILE,
                    tooltip="The motion encoder and renderer, stage1.ckpt, in models/talking_portrait.",
                ),
                io.Combo.Input(
                    "stage2",
                    options=sorted({*files, STAGE2_FILE}),
                    default=STAGE2_FILE,
                    tooltip="Speech to motion: audio_only, pose_only or full_control, with HuBERT or MFCC.",
                ),
            ],
            outputs=[AniTalkerSocket.Output(display_name="anitalker", tooltip="For the AniTalker nodes.")],
        )

    @classmethod
    def validate_inputs(cls, stage1: str, stage2: str) -> bool | str:
        # Missing files are reported by execute, with the way to get them.
        return True

    @classmethod
    @checked_node
    def execute(cls, stage1: str, stage2: str) -> Any:
        from ...models.anitalker.loading import load_stage1, load_stage2

        renderer = load_stage1(chosen_model(host.OWN_CATEGORY, stage1, STAGE1))
        motion = load_stage2(chosen_model(host.OWN_CATEGORY, stage2, STAGE2))
        return io.NodeOutput(LoadedAniTalker(host.ManagedModule(renderer), host.ManagedModule(motion)))
