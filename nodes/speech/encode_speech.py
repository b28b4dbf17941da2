"""Encodes speech as features, one row for each frame."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import TIMINGS
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import rate_input, sound_from
from ..loaded_models import LoadedAniTalker, LoadedSpeechEncoder
from ..sockets import AniTalkerSocket, SpeechEncoderSocket, SpeechFeaturesSocket


class EncodeSpeech(io.ComfyNode):
    """AUDIO and SPEECH_ENCODER to SPEECH_FEATURES."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitEncodeSpeech",
            display_name="Encode Speech",
            category="Talking Portrait/speech",
            description="Encodes speech with wav2vec2 or HuBERT and returns all hidden layers, at the frame rate that "
            "a system needs.",
            search_aliases=["wav2vec2", "hubert", "audio features"],
            inputs=[
                io.Audio.Input("audio", tooltip="The speech, at any rate; channels are mixed."),
                SpeechEncoderSocket.Input("encoder", tooltip="From Load Speech Encoder."),
                rate_input("fps", "Frames per second of the video; only used with the resampled timing."),
                io.Combo.Input(
                    "timing",
                    options=list(TIMINGS),
                    default="resampled",
                    tooltip="resampled: one row for each video frame, interpolated before the transformer "
                    "(AniPortrait, Hallo). stock: the encoder's own 50 rows per second. paired: as stock, two rows for "
                    "each frame at 25 fps (AniTalker).",
                ),
                host.advanced(
                    io.Int.Input(
                        "frame_multiple",
                        default=1,
                        min=1,
                        max=64,
                        tooltip="For resampled: the speech is padded with silence at its end, to a multiple of this "
                        "number of frames (Hallo: 16).",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "window_seconds",
                        default=0.0,
                        min=0.0,
                        max=600.0,
                        step=1.0,
                        tooltip="Length of the windows that the transformer encodes; 0 encodes up to two minutes at "
                        "once and longer speech in overlapping, blended windows of one minute.",
                    )
                ),
                AniTalkerSocket.Input(
                    "anitalker",
                    optional=True,
                    tooltip="When connected, the layers are mixed with this model's weights during encoding, in the "
                    "paired timing: long speech then needs 1/25 of the memory.",
                ),
            ],
            outputs=[
                SpeechFeaturesSocket.Output(display_name="features", tooltip="Hidden states and their frame rate.")
            ],
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        audio: Any,
        encoder: LoadedSpeechEncoder,
        fps: float,
        timing: Any,
        frame_multiple: int = 1,
        window_seconds: float = 0.0,
        anitalker: LoadedAniTalker | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.anitalker.speech_features import encode_speech

        features = encode_speech(
            sound_from(audio),
            encoder.encoder,
            None if anitalker is None else anitalker.stage2,
            fps=fps,
            timing=timing,
            frame_multiple=frame_multiple,
            chunk_seconds=window_seconds or None,
            device=encoder.memory.load(),
            progress=host.progress(),
        )
        return io.NodeOutput(features)
