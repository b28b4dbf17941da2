"""Options that name files of weights, as training and preparing take them: found before work begins, or all named."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ...model_files.model_file import ModelFile
from ...model_files.required import missing_files
from ...model_files.store import default_folders, list_files

USUAL = {
    "unet": "sd15_unet",
    "vae": "sd_vae_ft_mse",
    "clip_vision": "sd_image_variations_encoder",
    "motion_module": "animatediff_v15_v2",
    "speech_encoder": "wav2vec2_base_960h",
    "face_detector": "antelope_scrfd_10g_bnkps",
    "face_recogniser": "antelope_glintr100",
    "lpips": "lpips_alex",
}
"""What the table of models calls the file that is usual for each option."""


def find_weights(options: argparse.Namespace) -> None:
    """Puts the path of a file in its model folder in place of a name that is no file here, in all options of `USUAL`.

    Raises TalkingPortraitError, once for all files that are in neither place, with the way to get them.
    """
    missing: dict[Path, ModelFile] = {}
    for option, known in USUAL.items():
        value: Path | str | None = getattr(options, option, None)
        if not value or os.path.exists(value):  # False, and not an error, for what no file can be called
            continue
        given = Path(value)
        published = [model for model in list_files() if given.as_posix() in (model.file, Path(model.file).name)]
        model = published[0] if published else list_files(known)[0]
        folder = default_folders(model.folder)[0]
        place = folder / (model.file if published else given)
        if os.path.exists(place):
            setattr(options, option, type(value)(place))
        else:
            missing[place if published else given] = model
    if missing:
        raise missing_files(missing)
