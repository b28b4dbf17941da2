"""AniPortrait's files: recognised when they are chosen, read when a network is first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch

from ..pipelines.errors import TalkingPortraitError
from ..pipelines.finite import all_finite
from . import host
from .loaded_models import LoadedAniPortrait
from .model_paths import chosen_models

FILES: Mapping[str, str] = {
    "reference_unet": "aniportrait/reference_unet.pth",
    "denoising_unet": "aniportrait/denoising_unet.pth",
    "motion_module": "aniportrait/motion_module.pth",
    "pose_guider": "aniportrait/pose_guider.pth",
    "audio2mesh": "aniportrait/audio2mesh.pt",
    "audio2pose": "aniportrait/audio2pose.pt",
}
"""Published names in our model folder. FILM's, the seventh, is a program and not weights, so it is not among them."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "denoising_unet": ("sd_unet", "motion_unet"),
    **{name: (name,) for name in FILES if name not in ("denoising_unet", "reference_unet")},
}
AUDIO = ("audio2mesh", "audio2pose")
"""Needed by speech alone; a video or another motion does without."""


def load_aniportrait(
    names: Mapping[str, str], dtype: torch.dtype, lora: Path | None = None, lora_strength: float = 1.0
) -> LoadedAniPortrait:
    """The networks of the files `names`, by the keys of `FILES`, with a LoRA in the denoising UNet.

    Raises TalkingPortraitError for files that are missing, but for the audio networks', which not everybody needs, and
    for files of another system.
    """
    from ..models.aniportrait import loading
    from ..models.checkpoints import expect_kind, read_checkpoint
    from ..models.diffusion.lora import merge_lora
    from ..pipelines.aniportrait.settings import Networks

    paths = chosen_files(names)
    for name, path in paths.items():
        if name == "reference_unet":
            loading.read_reference_unet(path, mapped=True)
        else:
            expect_kind(read_checkpoint(path, mapped=True), KINDS[name], f"AniPortrait's {name}", path)

    def denoising_unet() -> torch.nn.Module:
        network = loading.load_denoising_unet(paths["denoising_unet"], paths["motion_module"], dtype=dtype)
        if lora is not None:
            merge_lora(network, read_checkpoint(lora), path=lora, strength=lora_strength)
        return network

    def managed(name: str, read: Callable[[], torch.nn.Module]) -> host.ManagedModule:
        return host.ManagedModule(partial(_checked, read, name, names, dtype))

    return LoadedAniPortrait(
        Networks(
            managed("reference_unet", partial(loading.load_reference_unet, paths["reference_unet"], dtype=dtype)),
            managed("denoising_unet", denoising_unet),
            managed("pose_guider", partial(loading.load_pose_guider, paths["pose_guider"], dtype=dtype)),
            dtype,
        ),
        managed(
            "audio2mesh", lambda: loading.load_audio2mesh(paths.get("audio2mesh") or _audio_file("audio2mesh", names))
        ),
        managed(
            "audio2pose", lambda: loading.load_audio2pose(paths.get("audio2pose") or _audio_file("audio2pose", names))
        ),
    )


def chosen_files(names: Mapping[str, str]) -> dict[str, Path]:
    """The paths of the files `names`, by the keys of `FILES`. Raises as `load_aniportrait` for missing ones."""
    absent = [name for name in names if host.model_path((host.OWN_CATEGORY,), names[name]) is None]
    needed = [name for name in names if name not in absent] if set(absent) <= set(AUDIO) else names
    return _found(names, needed)


def _audio_file(name: str, names: Mapping[str, str]) -> Path:
    """A file that was not there at first. Raises TalkingPortraitError, for both of `AUDIO` if both are missing."""
    if host.model_path((host.OWN_CATEGORY,), names[name]) is None:
        _found(names, AUDIO)
    return _found(names, [name])[name]


def _found(names: Mapping[str, str], needed: Iterable[str]) -> dict[str, Path]:
    """The paths of the files `needed`; TalkingPortraitError, with the way to get them, where any is not there."""
    paths = chosen_models(host.OWN_CATEGORY, {f"aniportrait_{name}": names[name] for name in needed})
    return {known.removeprefix("aniportrait_"): path for known, path in paths.items()}


def _checked(
    read: Callable[[], torch.nn.Module], name: str, names: Mapping[str, str], dtype: torch.dtype
) -> torch.nn.Module:
    """The network that `read` gives. Raises TalkingPortraitError where its weights are no numbers."""
    network = read()
    for key, tensor in network.state_dict().items():
        if not all_finite(tensor):
            file = "motion_module" if name == "denoising_unet" and ".motion_modules." in key else name
            half = "; load it in float32 or bfloat16, or" if dtype == torch.float16 else ";"
            raise TalkingPortraitError(
                f"{Path(names[file]).name} holds weights that are no numbers or too large ({key}){half} "
                "download it again."
            )
    return network
