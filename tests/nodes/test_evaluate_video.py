"""Evaluate Video: VIDEO of any kind to tables and curves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from talking_portrait.nodes.output import evaluate_video as module
from talking_portrait.nodes.output.evaluate_video import EvaluateVideo
from talking_portrait.nodes.standalone.core_nodes import VideoPayload
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.evaluation.networks import Networks
from talking_portrait.pipelines.types import Audio

from ..speaking_person import MarkLandmarker, speaking, write_video


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoPayload:
    monkeypatch.setattr(module, "landmarker", lambda engine: MarkLandmarker())
    monkeypatch.setattr(module, "evaluation_networks", Networks)
    return VideoPayload(path=write_video(tmp_path / "ann.mp4", speaking(1.2)))


def test_tables_and_curves_of_a_video_file_and_of_frames_in_memory(video: VideoPayload) -> None:
    images, audio, fps = video.components()
    assert isinstance(audio, Audio)
    sound = {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}
    table, text, rows, curves = EvaluateVideo.execute(VideoPayload(images, audio, fps), sound, reference=video).args
    values = {entry["measure"]: entry["value"] for entry in json.loads(text)["measures"]}
    assert values["frames"] == 30
    assert values["landmark distance"] < 1
    assert "real speakers" in table
    assert rows.startswith("measure,value,unit,")
    assert curves.shape == (1, 960, 1280, 3)
    assert table.startswith("video: video.mp4\n"), "the same each time, wherever the frames were put"
    with pytest.raises(TalkingPortraitError, match="The video reference.mp4 shows no face"):
        EvaluateVideo.execute(video, reference=VideoPayload(torch.zeros(12, 64, 64, 3), None, fps))


def test_what_is_no_video_is_refused_by_its_input(video: VideoPayload) -> None:
    with pytest.raises(TalkingPortraitError, match='Evaluate Video: The input "reference" is 3 .*connect Load Video'):
        EvaluateVideo.execute(video, reference=3)
