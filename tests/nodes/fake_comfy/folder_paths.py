"""ComfyUI's list of model folders, as far as the host file touches it."""

from __future__ import annotations

import os

models_dir = os.environ.get("FAKE_MODELS", "/nowhere/models")
folder_names_and_paths = {"audio_encoders": ([os.path.join(models_dir, "audio_encoders")], {".safetensors"})}


def get_filename_list(name):
    paths, endings = folder_names_and_paths[name]
    return sorted(
        os.path.relpath(os.path.join(folder, file), root)
        for root in paths
        for folder, _, files in os.walk(root)
        for file in files
        if not endings or os.path.splitext(file)[1] in endings
    )


def get_temp_directory():
    return os.path.join(os.path.dirname(models_dir), "temp")
