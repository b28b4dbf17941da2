"""Records how a running ComfyUI describes its own nodes: python -m tests.browser.record_core_nodes http://127.0.0.1:8188

Only those that this pack's workflows use, without their texts (tooltips, descriptions), into tests/data.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[1] / "data" / "core_nodes.json"
NAMES = [
    "AudioEncoderLoader",
    "CLIPVisionLoader",
    "CreateVideo",
    "FrameInterpolationModelLoader",
    "GetVideoComponents",
    "ImageBatch",
    "LoadAudio",
    "LoadImage",
    "LoadVideo",
    "PreviewAudio",
    "PreviewImage",
    "SaveAudio",
    "SaveImage",
    "SaveVideo",
    "UpscaleModelLoader",
    "VAELoader",
]
TEXTS = {"tooltip", "output_tooltips", "description", "search_aliases", "essentials_category"}


def without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_texts(entry) for name, entry in value.items() if name not in TEXTS}
    return [without_texts(entry) for entry in value] if isinstance(value, list) else value


def main(address: str) -> None:
    def fetch(path: str) -> Any:
        with urllib.request.urlopen(f"{address}/{path}", timeout=60) as answer:
            return json.load(answer)

    system = fetch("system_stats")["system"]
    versions = {name: system[name] for name in ("comfyui_version", "required_frontend_version") if name in system}
    nodes = fetch("object_info")
    content = {"recorded": versions, "nodes": {name: without_texts(nodes[name]) for name in NAMES}}
    RECORDED.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
