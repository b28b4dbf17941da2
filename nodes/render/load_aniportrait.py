"""AniPortrait's networks from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...pipelines.errors import TalkingPortraitError, one_line
from .. import host
from ..aniportrait_files import FILES, chosen_files, load_aniportrait
from ..checked_node import checked_node
from ..host import io
from ..model_paths import Fingerprint, file_input, files_fingerprint, not_linked, verdict
from ..precision import chosen_dtype, dtype_input
from ..sockets import AniPortraitSocket

NO_LORA = "none"
ENDINGS = (".pth", ".pt", ".safetensors", ".ckpt", ".bin")
TOOLTIPS = {
    "reference_unet": "The UNet that encodes the portrait: reference_unet.pth, in models/talking_portrait.",
    "denoising_unet": "The UNet that denoises the frames: denoising_unet.pth.",
    "motion_module": "Its temporal attention, which makes frames consistent: motion_module.pth.",
    "pose_guider": "The network that encodes pose images: pose_guider.pth.",
    "audio2mesh": "Speech to the shape of the face: audio2mesh.pt. Not needed when a video or another motion drives "
    "the portrait.",
    "audio2pose": "Speech to head movement: audio2pose.pt. Only predicted head poses need it.",
}


class LoadAniPortrait(io.ComfyNode):
    """Files to ANIPORTRAIT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = host.model_names(host.OWN_CATEGORY, ENDINGS)
        return host.schema(
            node_id="TalkingPortraitLoadAniPortrait",
            display_name="Load AniPortrait",
            category="Talking Portrait/render",
            description="Selects AniPortrait's files, checks what each one contains, and loads them when they are "
            "first needed.",
            search_aliases=["aniportrait", "portrait diffusion", "reference unet", "pose guider"],
            inputs=[
                *(file_input(name, files, FILES[name], TOOLTIPS[name]) for name in FILES),
                dtype_input(),
                host.advanced(
                    io.Combo.Input(
                        "lora",
                        options=[NO_LORA, *host.model_names("loras", (".safetensors",))],
                        default=NO_LORA,
                        tooltip="A LoRA for Stable Diffusion 1.5, in models/loras, added to the denoising UNet: LCM's, "
                        "for the scheduler lcm.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "lora_strength",
                        default=1.0,
                        min=-2.0,
                        max=2.0,
                        step=0.05,
                        round=0.001,
                        tooltip="Scale of the LoRA's weights.",
                    )
                ),
            ],
            outputs=[AniPortraitSocket.Output(display_name="aniportrait", tooltip="For the AniPortrait nodes.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        reference_unet: str | None = None,
        denoising_unet: str | None = None,
        motion_module: str | None = None,
        pose_guider: str | None = None,
        audio2mesh: str | None = None,
        audio2pose: str | None = None,
        lora: str | None = None,
    ) -> bool | str:
        files = (reference_unet, denoising_unet, motion_module, pose_guider, audio2mesh, audio2pose)
        found = verdict(chosen_files, not_linked(dict(zip(FILES, files, strict=True))))
        return verdict(_lora_path, lora) if found is True else found

    @classmethod
    def fingerprint_inputs(cls, lora: Any = NO_LORA, **inputs: Any) -> Fingerprint:
        files = files_fingerprint(host.OWN_CATEGORY, *(inputs.get(name) for name in FILES))
        return files + files_fingerprint("loras", lora)

    @classmethod
    @checked_node
    def execute(
        cls,
        reference_unet: str,
        denoising_unet: str,
        motion_module: str,
        pose_guider: str,
        audio2mesh: str,
        audio2pose: str,
        dtype: Any,
        lora: Any = NO_LORA,
        lora_strength: float = 1.0,
    ) -> io.NodeOutput:
        files = (reference_unet, denoising_unet, motion_module, pose_guider, audio2mesh, audio2pose)
        names = dict(zip(FILES, files, strict=True))
        return io.NodeOutput(load_aniportrait(names, chosen_dtype(dtype), _lora_path(lora), lora_strength))


def _lora_path(name: str) -> Path | None:
    """None for none. Raises TalkingPortraitError for a file that is not there."""
    if name == NO_LORA:
        return None
    path = host.model_path(("loras", host.OWN_CATEGORY), name)
    if path is None:
        raise TalkingPortraitError(
            f"The LoRA {one_line(name)} is not in {host.model_folders('loras')[0]}; put it there or pick another from "
            "the list."
        )
    return path
