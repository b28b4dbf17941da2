"""Computes cepstral features of speech, without a network."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import sound_from
from ..sockets import SpeechFeaturesSocket


class SpeechMFCC(io.ComfyNode):
    """AUDIO to SPEECH_FEATURES."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitSpeechMFCC",
            display_name="Speech MFCC",
            category="Talking Portrait/speech",
            description="Mel-frequency cepstral coefficients of speech, as two published systems compute them.",
            search_aliases=["mfcc", "cepstrum", "audio features"],
            inputs=[
                io.Audio.Input("audio", tooltip="The speech, at any rate; channels are mixed."),
                io.Combo.Input(
                    "recipe",
                    options=["anitalker", "audiodvp"],
                    default="anitalker",
                    tooltip="anitalker: 39 columns, 100 rows per second. audiodvp: windows of 28 x 12 for each frame "
                    "of 25 fps video.",
                ),
            ],
            outputs=[
                SpeechFeaturesSocket.Output(display_name="features", tooltip="Coefficients and their frame rate.")
            ],
        )

    @classmethod
    @checked_node
    def execute(cls, audio: Any, recipe: Any) -> io.NodeOutput:
        from ...pipelines.audio.mfcc import mfcc

        return io.NodeOutput(mfcc(sound_from(audio), recipe=recipe, progress=host.progress()))
