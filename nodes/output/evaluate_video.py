"""Measures a talking video against its sound and a reference."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import sound_from
from ..loaded_models import evaluation_fingerprint, evaluation_networks, landmarker, landmarker_fingerprint
from ..model_paths import Fingerprint
from ..video_input import video_file


class EvaluateVideo(io.ComfyNode):
    """VIDEO to a table of measures and a picture of curves."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitEvaluateVideo",
            display_name="Evaluate Video",
            category="Talking Portrait/output",
            description="Measures a talking video: how the lips go with the sound, how steady the picture is and how "
            "near it is to a reference, each beside the range of real speakers. Downloads nothing.",
            search_aliases=["lip sync score", "quality metrics", "LMD", "benchmark", "compare videos"],
            has_intermediate_output=True,
            is_output_node=True,
            inputs=[
                io.Video.Input("video", tooltip="The video to measure; its largest face counts."),
                io.Audio.Input(
                    "audio", optional=True, tooltip="The speech of the video; without it the video's own sound counts."
                ),
                io.Video.Input(
                    "reference",
                    optional=True,
                    tooltip="A video of a real speaker who says the same, for landmark distances and lip closures.",
                ),
                host.advanced(
                    io.Int.Input(
                        "window",
                        default=0,
                        min=0,
                        max=10000,
                        tooltip="Frames that the renderer makes at once, to measure the seams between such windows; 0 "
                        "where there are none.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "engine",
                        options=["auto", "mediapipe", "opencv"],
                        default="auto",
                        tooltip="What detects the landmarks, as in Detect Landmarks; the ranges of real speakers are "
                        "those of mediapipe.",
                    )
                ),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="All measures in lines of text."),
                io.String.Output(display_name="json", tooltip="The same as JSON."),
                io.String.Output(display_name="csv", tooltip="The same as CSV."),
                io.Image.Output(display_name="curves", tooltip="Lips, head and change over time, over the waveform."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, engine: Any = "auto", **_: Any) -> Fingerprint:
        return landmarker_fingerprint(engine) + evaluation_fingerprint()

    @classmethod
    @checked_node
    def execute(
        cls, video: Any, audio: Any = None, reference: Any = None, window: int = 0, engine: Any = "auto"
    ) -> io.NodeOutput:
        from ...pipelines.evaluation.evaluate import evaluate

        sound = None if audio is None else sound_from(audio)
        with ExitStack() as stack:
            file = stack.enter_context(video_file(video))
            report = evaluate(
                file,
                sound,
                landmarker(engine),
                reference=None if reference is None else stack.enter_context(video_file(reference, "reference")),
                window=window,
                networks=evaluation_networks(),
                progress=host.progress(),
            )
        # A video in memory or a part of one has a folder of another name each time.
        report = replace(report, facts={**report.facts, "video": file.name})
        return io.NodeOutput(
            report.text(),
            report.json(),
            report.csv(),
            host.to_socket(report.curves[None]),
            ui=host.shown(report.curves),
        )
