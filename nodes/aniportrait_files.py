"""AniPortrait's files as one handle: recognised when they are chosen, read when a node first needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..pipelines.errors import TalkingPortraitError
from ..pipelines.finite import all_finite
from ..pipelines.model_files.store import list_files
from . import host
from .model_paths import chosen_model

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


@dataclass(frozen=True)
class LoadedAniPortrait:
    """ANIPORTRAIT: which files, and the networks out of them, each read once, when it is first needed."""

    names: Mapping[str, str]
    paths: Mapping[str, Path]
    dtype: torch.dtype
    lora: Path | None = None
    lora_strength: float = 1.0

    @classmethod
    def find(
        cls, names: Mapping[str, str], dtype: torch.dtype, lora: Path | None = None, lora_strength: float = 1.0
    ) -> LoadedAniPortrait:
        """The files of these names.

        Raises TalkingPortraitError for files that are missing, but for the audio networks', which not everybody needs,
        and for files of another system.
        """
        from ..models.aniportrait.loading import read_reference_unet
        from ..models.checkpoints import expect_kind, read_checkpoint

        missing = [name for name in FILES if host.model_path((host.OWN_CATEGORY,), names[name]) is None]
        if len(missing) > 1 and all(names[name] == FILES[name] for name in missing):
            raise _several_missing(missing)
        paths = {name: _path(name, names) for name in FILES if name not in missing or name not in AUDIO}
        for name, path in paths.items():
            if name == "reference_unet":
                read_reference_unet(path, mapped=True)
            else:
                expect_kind(read_checkpoint(path, mapped=True), KINDS[name], f"AniPortrait's {name}", path)
        return cls(names, paths, dtype, lora, lora_strength)

    @cached_property
    def networks(self) -> Any:
        """`pipelines.aniportrait.settings.Networks`, ready to sample."""
        from ..models.aniportrait.loading import load_denoising_unet, load_pose_guider, load_reference_unet
        from ..models.checkpoints import read_checkpoint
        from ..models.diffusion.lora import merge_lora
        from ..pipelines.aniportrait.settings import Networks

        reference = load_reference_unet(self.paths["reference_unet"], dtype=self.dtype)
        denoising = load_denoising_unet(self.paths["denoising_unet"], self.paths["motion_module"], dtype=self.dtype)
        if self.lora is not None:
            merge_lora(denoising, read_checkpoint(self.lora), path=self.lora, strength=self.lora_strength)
        guider = load_pose_guider(self.paths["pose_guider"], dtype=self.dtype)
        for name, network in (("reference_unet", reference), ("denoising_unet", denoising), ("pose_guider", guider)):
            self._check_numbers(name, network)
        return Networks(
            host.ManagedModule(reference), host.ManagedModule(denoising), host.ManagedModule(guider), self.dtype
        )

    @cached_property
    def audio2mesh(self) -> host.ManagedModule:
        from ..models.aniportrait.loading import load_audio2mesh

        return self._audio("audio2mesh", load_audio2mesh)

    @cached_property
    def audio2pose(self) -> host.ManagedModule:
        from ..models.aniportrait.loading import load_audio2pose

        return self._audio("audio2pose", load_audio2pose)

    def _audio(self, name: str, load: Any) -> host.ManagedModule:
        network = load(self.paths.get(name) or _path(name, self.names))
        self._check_numbers(name, network)
        return host.ManagedModule(network)

    def _check_numbers(self, name: str, network: torch.nn.Module) -> None:
        for key, tensor in network.state_dict().items():
            if not all_finite(tensor):
                file = "motion_module" if name == "denoising_unet" and ".motion_modules." in key else name
                half = "; load it in float32 or bfloat16, or" if self.dtype == torch.float16 else ";"
                raise TalkingPortraitError(
                    f"{Path(self.names[file]).name} holds weights that are no numbers or too large ({key}){half} "
                    "download it again."
                )


def _path(name: str, names: Mapping[str, str]) -> Path:
    """Raises TalkingPortraitError, with the way to get it, for a file that is not there."""
    return chosen_model(host.OWN_CATEGORY, names[name], f"aniportrait_{name}")


def _several_missing(names: list[str]) -> TalkingPortraitError:
    folder = host.model_folders(host.OWN_CATEGORY)[0]
    files = ", ".join(FILES[name] for name in names)
    page = list_files(f"aniportrait_{names[0]}")[0].page
    return TalkingPortraitError(
        f"The model files {files} are not in {folder}, where they belong; download them from {page}, or run: "
        + host.models_command("get aniportrait")
    )
