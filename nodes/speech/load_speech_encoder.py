"""A speech encoder from a file, or the one that ComfyUI has loaded."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedSpeechEncoder
from ..model_paths import Fingerprint, chosen_model, file_input, files_fingerprint, files_verdict
from ..sockets import CoreAudioEncoder, SpeechEncoderSocket

CATEGORY = "audio_encoders"
DEFAULT = "wav2vec2_base_960h"
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""What Hugging Face calls the weights; the folder around them has the model's name."""
DEFAULT_FILE = "wav2vec2-base-960h.safetensors"
NOT_CONNECTED = object()


class LoadSpeechEncoder(io.ComfyNode):
    """File to SPEECH_ENCODER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = host.model_names(CATEGORY, (".safetensors", ".bin"), folder_files=FOLDER_FILES)
        return host.schema(
            node_id="TalkingPortraitLoadSpeechEncoder",
            display_name="Load Speech Encoder",
            category="Talking Portrait/speech",
            description="Loads wav2vec2 or HuBERT, base or large; the file itself shows which one it is.",
            search_aliases=["wav2vec2", "hubert", "audio encoder"],
            inputs=[
                file_input(
                    "file",
                    files,
                    DEFAULT_FILE if DEFAULT_FILE in files or not files else files[0],
                    "A .safetensors or .bin file, or a Hugging Face folder, in models/audio_encoders.",
                ),
                CoreAudioEncoder.Input(
                    "audio_encoder",
                    optional=True,
                    tooltip="ComfyUI's own loaded audio encoder; when connected it is used instead of the file.",
                ),
            ],
            outputs=[SpeechEncoderSocket.Output(display_name="encoder", tooltip="For Encode Speech.")],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None, audio_encoder: Any = NOT_CONNECTED) -> bool | str:
        # Of what is connected the host gives None.
        return files_verdict(CATEGORY, {DEFAULT: file}) if audio_encoder is NOT_CONNECTED else True

    @classmethod
    def fingerprint_inputs(cls, file: Any = None, **_: Any) -> Fingerprint:
        return files_fingerprint(CATEGORY, file)

    @classmethod
    @checked_node
    def execute(cls, file: str, audio_encoder: Any = None) -> io.NodeOutput:
        from ...models.speech.loading import load_speech_encoder, wrap_audio_encoder

        if audio_encoder is not None:
            encoder = wrap_audio_encoder(audio_encoder)
            memory = host.ManagedModule(encoder.model, patcher=getattr(audio_encoder, "patcher", None))
        else:
            encoder = load_speech_encoder(chosen_model(CATEGORY, file, DEFAULT))
            memory = host.ManagedModule(encoder.model)
        return io.NodeOutput(LoadedSpeechEncoder(encoder, memory))
