"""Separates a recording into vocals and background."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import audio_socket, sound_from
from ..model_paths import Fingerprint, chosen_model, file_input, files_fingerprint, files_verdict

DEFAULT, DEFAULT_FILE = "kim_vocal_2", "Kim_Vocal_2.onnx"


class SeparateVocals(io.ComfyNode):
    """AUDIO to vocals and background, both as long as the recording.

    Costs nothing where it is not needed: a host runs only what an output needs, so a separator whose outputs lead
    nowhere is never run, and one that is switched off returns the recording without loading anything.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        # Other systems' files lie in folders of their own below this one.
        files = [name for name in host.model_names(host.OWN_CATEGORY, (".onnx", ".ckpt")) if Path(name).name == name]
        return host.schema(
            node_id="TalkingPortraitSeparateVocals",
            display_name="Separate Vocals",
            category="Talking Portrait/speech",
            description="Separates a voice from music and noise, which would move the lips. When it is switched off, "
            "no model is loaded; when its outputs are not used, it does not run.",
            search_aliases=["vocal isolation", "remove music", "stem separation", "audio separator"],
            inputs=[
                io.Audio.Input("audio", tooltip="The recording, at any rate and with any number of channels."),
                file_input(
                    "model",
                    files,
                    DEFAULT_FILE,
                    "A separation model in models/talking_portrait that audio-separator can run.",
                ),
                io.Boolean.Input(
                    "enabled",
                    default=True,
                    label_on="separate",
                    label_off="pass through",
                    tooltip="Pass through outputs the recording as vocals, with a silent background.",
                ),
            ],
            outputs=[
                io.Audio.Output(display_name="vocals", tooltip="The vocals; same length and rate as the recording."),
                io.Audio.Output(
                    display_name="background",
                    tooltip="The rest of the sound; vocals and background add up to the recording.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None, enabled: bool | None = None) -> bool | str:
        # A switch that comes by a link may be off.
        return files_verdict(host.OWN_CATEGORY, {DEFAULT: model}) if enabled else True

    @classmethod
    def fingerprint_inputs(cls, model: Any = None, **_: Any) -> Fingerprint:
        return files_fingerprint(host.OWN_CATEGORY, model)

    @classmethod
    @checked_node
    def execute(cls, audio: Any, model: str, enabled: bool) -> io.NodeOutput:
        from ...pipelines.vocals.separation import separate

        sound = sound_from(audio)
        if not enabled:
            silence = replace(sound, waveform=sound.waveform.new_zeros(sound.waveform.shape))
            return io.NodeOutput(audio_socket(sound), audio_socket(silence))
        vocals, background = separate(
            sound,
            chosen_model(host.OWN_CATEGORY, model, DEFAULT),
            device=host.torch_device(),
            scratch=host.temporary_folder(),
            progress=host.progress(),
        )
        return io.NodeOutput(audio_socket(vocals), audio_socket(background))
