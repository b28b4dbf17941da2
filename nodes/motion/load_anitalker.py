"""AniTalker's two networks from their files."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedAniTalker
from ..model_paths import Fingerprint, chosen_models, file_input, files_fingerprint, files_verdict
from ..sockets import AniTalkerSocket

STAGE1, STAGE2 = "anitalker_stage1", "anitalker_audio_only_hubert"
STAGE1_FILE, STAGE2_FILE = "anitalker/stage1.ckpt", "anitalker/stage2_audio_only_hubert.ckpt"
ENDINGS = (".ckpt", ".pth", ".pt", ".safetensors", ".bin")


class LoadAniTalker(io.ComfyNode):
    """Two files to ANITALKER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = host.model_names(host.OWN_CATEGORY, ENDINGS)
        return host.schema(
            node_id="TalkingPortraitLoadAniTalker",
            display_name="Load AniTalker",
            category="Talking Portrait/motion",
            description="Loads AniTalker's renderer and one of its five motion models, identified by the contents of "
            "the files.",
            search_aliases=["anitalker", "talking head", "motion diffusion"],
            inputs=[
                file_input(
                    "stage1",
                    files,
                    STAGE1_FILE,
                    "The motion encoder and renderer, stage1.ckpt, in models/talking_portrait.",
                ),
                file_input(
                    "stage2",
                    files,
                    STAGE2_FILE,
                    "Speech to motion: audio_only, pose_only or full_control, with HuBERT or MFCC.",
                ),
            ],
            outputs=[AniTalkerSocket.Output(display_name="anitalker", tooltip="For the AniTalker nodes.")],
        )

    @classmethod
    def validate_inputs(cls, stage1: str | None = None, stage2: str | None = None) -> bool | str:
        return files_verdict(host.OWN_CATEGORY, {STAGE1: stage1, STAGE2: stage2})

    @classmethod
    def fingerprint_inputs(cls, stage1: Any = None, stage2: Any = None, **_: Any) -> Fingerprint:
        return files_fingerprint(host.OWN_CATEGORY, stage1, stage2)

    @classmethod
    @checked_node
    def execute(cls, stage1: str, stage2: str) -> io.NodeOutput:
        from ...models.anitalker.loading import load_stage1, load_stage2

        paths = chosen_models(host.OWN_CATEGORY, {STAGE1: stage1, STAGE2: stage2})
        renderer, motion = load_stage1(paths[STAGE1]), load_stage2(paths[STAGE2])
        return io.NodeOutput(LoadedAniTalker(host.ManagedModule(renderer), host.ManagedModule(motion)))
