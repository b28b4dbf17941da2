"""Uses the host file inside the fake ComfyUI and prints what reached it, as JSON. argument: the fake's folder."""

from __future__ import annotations

import json
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, sys.argv[1])
import folder_paths  # noqa: F401 (ComfyUI has loaded it long before)
from comfy import model_management, utils  # type: ignore[import-not-found]
from comfy_api.latest import InputImpl  # type: ignore[import-not-found]
from talking_portrait.nodes import host


class Network(torch.nn.Linear):
    @property
    def device(self) -> torch.device:
        return self.weight.device


report = {"in comfyui": host.IN_COMFYUI}
progress = host.progress()
for done, now in ((1, 10.0), (2, 10.0 + host.PREVIEW_SECONDS / 2), (3, 10.0 + host.PREVIEW_SECONDS)):
    time.monotonic = lambda now=now: now
    progress(done, 3, torch.ones(4, 6, 3))
report["shown"] = utils.shown[:]
time.monotonic = lambda: 20.0
progress(3, 3, torch.ones(3, 5000, 3))
report["thin"] = utils.shown[-1]
progress(4, 0)
report["not known"] = utils.shown[-1]
model_management.interrupted = True
try:
    progress(1, 3)
    report["cancelled"] = False
except model_management.InterruptProcessingException:
    report["cancelled"] = True
given = host.to_socket(torch.zeros(2))
report["socket"] = str(given.dtype)
report["free"] = host.free_memory()
reads = []
managed = host.ManagedModule(lambda: reads.append(1) or Network(2, 2))
report["reads"] = [len(reads)]
report["device"] = str(managed.load(1000))
managed.load(1000)
report["reads"].append(len(reads))
report["loaded"] = [[type(models[0]).__name__, memory] for models, memory in model_management.loaded]
host.register_model_folders()
report["names"] = host.model_names("audio_encoders", (".safetensors", ".bin"), folder_files=("model.safetensors",))
report["unknown"] = host.model_names("no such category")
report["found"] = str(host.model_path(("audio_encoders",), "one.safetensors"))
report["command"] = host.models_command("get one")
report["temporary"] = [str(host.temporary_folder()), host.temporary_folder().is_dir()]
copy = host.temporary_folder() / "copy"
for name, video in (
    ("streamed", host.encoded_video(lambda path: path.write_bytes(b"video"))),
    (
        "of frames",
        host.video_of_frames(
            torch.zeros(2, 4, 4, 3),
            Fraction(25),
            None,
            lambda: host.encoded_video(lambda path: path.write_bytes(b"video")),
        ),
    ),
):
    report[name] = []
    for _ in range(2):
        try:
            video.save_to(copy)
            report[name].append(copy.read_bytes().decode())
        except host.TalkingPortraitError as error:
            report[name].append(str(error))
        copy.unlink(missing_ok=True)
        for file in host.temporary_folder().iterdir():
            file.unlink()
video = host.encoded_video(lambda path: path.write_bytes(b"video"))
report["duration"] = [video.get_duration()]
Path(video.path).unlink()
try:
    video.get_duration()
except host.TalkingPortraitError as error:
    report["duration"].append(str(error))
parts = SimpleNamespace(images=1, audio=2, frame_rate=3)
report["frames of"] = [
    host.frames_of(InputImpl.VideoFromComponents(parts)),
    host.frames_of(InputImpl.VideoFromFile("video.mp4")),
]
print(json.dumps(report))
