"""Options that name files of networks, as training and preparing take them: found before work begins, or all named."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ...errors import TalkingPortraitError
from ...files.output_paths import shortened
from ...model_files.model_file import ModelFile
from ...model_files.required import missing_files
from ...model_files.store import list_files, searched_folders

USUAL = {
    "unet": "sd15_unet",
    "vae": "sd_vae_ft_mse",
    "clip_vision": "sd_image_variations_encoder",
    "motion_module": "animatediff_v15_v2",
    "reference_unet": "aniportrait_reference_unet",
    "pose_guider": "aniportrait_pose_guider",
    "net": "hallo_net",
    "speech_encoder": "wav2vec2_base_960h",
    "face_detector": "antelope_scrfd_10g_bnkps",
    "face_recogniser": "antelope_glintr100",
    "lpips": "lpips_alex",
    "landmarks": "face_landmarker",
}
"""What the table of models calls the file that is usual for each option."""
OWN = ("stage1", "start", "face_model", "regressor", "parser")
"""Options for files and folders of which none is in that table: most are made by other commands of this pack."""


def find_weights(options: argparse.Namespace) -> None:
    """Puts the path of a file in its model folder in place of a name that is no file here, in all options of `USUAL`.

    Raises TalkingPortraitError, once for all files that are in neither place, with the way to get them, and for those
    of `OWN` that are not there.
    """
    missing: dict[Path, ModelFile] = {}
    for option, known in USUAL.items():
        value: Any = getattr(options, option, None)
        if not _is_missing(value):
            continue
        given = Path(value)
        published = [model for model in list_files() if given.as_posix() in (model.file, Path(model.file).name)]
        model = published[0] if published else list_files(known)[0]
        places = [folder / (model.file if published else given) for folder in searched_folders(model.folder)]
        there = next((place for place in places if os.path.exists(place)), None)
        if there is not None:
            setattr(options, option, type(value)(there))
        else:
            missing[places[0] if published else given] = model
    absent = [
        f"{shortened(Path(getattr(options, option)))} for --{option.replace('_', '-')}"
        for option in OWN
        if _is_missing(getattr(options, option, None))
    ]
    if absent:
        also = f"{missing_files(missing)}; and there" if missing else "There"
        raise TalkingPortraitError(f"{also} is no {', no '.join(absent)}; check names and folders.")
    if missing:
        raise missing_files(missing)


def _is_missing(value: Any) -> bool:
    """Whether an option was given and is no path here; what no file can be called counts as missing."""
    return bool(value) and not os.path.exists(value)
