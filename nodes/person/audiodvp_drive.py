"""Makes the person of a trained AudioDVP speak other words."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ...pipelines.errors import TalkingPortraitError
from ...pipelines.person.person import Person
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import sound_from
from ..loaded_models import LoadedAudioDVP, LoadedSpeechEncoder, atnet_input, chosen_encoder
from ..model_paths import NO_FILE, files_fingerprint
from ..person_nodes import driven, head_inputs, own_encoder_input, speech_input
from ..renderer_node import HIDDEN, RendererNode, sound_of, video_output
from ..sockets import AudioDVPSocket
from ..video_input import video_file


class AudioDVPDrive(RendererNode):
    """AUDIODVP, AUDIO and the head's video to frames."""

    FRAME_OUTPUTS = (0, 1)
    VIDEO_OUTPUT = 3

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitAudioDVPDrive",
            display_name="AudioDVP Drive",
            category="Talking Portrait/person",
            description="The person of a trained AudioDVP speaks other words: the lower face is generated and put into "
            "the frames of the video that it was trained on.",
            search_aliases=["audiodvp", "dubbing", "lip sync", "talking head", "visual dubbing"],
            inputs=[
                AudioDVPSocket.Input("model", tooltip="From Train AudioDVP or Load AudioDVP."),
                speech_input(),
                *head_inputs("The prepared person that the model was trained on."),
                own_encoder_input(),
                host.advanced(
                    io.Int.Input(
                        "offset",
                        default=0,
                        min=0,
                        max=10_000_000,
                        tooltip="Frame of the head video to begin with; at its ends the video turns back.",
                    )
                ),
                host.advanced(
                    io.Int.Input(
                        "batch_size",
                        default=4,
                        min=1,
                        max=256,
                        tooltip="Frames that are generated at once; reduced when memory runs out.",
                    )
                ),
                atnet_input("ATVGnet's atnet_lstm_18.pth, where the person was prepared with it."),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames."),
                io.Mask.Output(
                    display_name="mask", tooltip="How much of each pixel is generated; where it is 0 nothing changed."
                ),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the head video."),
                video_output(),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def fingerprint_inputs(cls, atnet: Any = NO_FILE, **_: Any) -> Any:
        kept = super().fingerprint_inputs()
        return kept if kept != kept else (kept, files_fingerprint(host.OWN_CATEGORY, atnet))  # NaN has to stay alone

    @classmethod
    @checked_node
    def execute(
        cls,
        model: LoadedAudioDVP,
        audio: Any,
        person: Person | None = None,
        video: Any = None,
        speech_encoder: LoadedSpeechEncoder | None = None,
        offset: int = 0,
        batch_size: int = 4,
        atnet: Any = NO_FILE,
    ) -> io.NodeOutput:
        from ...pipelines.audiodvp.animate import animate

        speech = sound_from(audio)
        count, fps = model.person.frames_for(speech), model.person.video.fps
        if person is None and video is None:
            raise TalkingPortraitError(
                "There is no head to put the lower face into; connect the person that the model was trained on, or its "
                "video."
            )
        options: dict[str, Any] = {
            "renderer": model.renderer,
            "encoder": chosen_encoder(speech_encoder, atnet),
            "offset": offset,
            "batch": batch_size,
            "progress": host.progress(),
        }
        with ExitStack() as stack:
            head = person if person is not None else stack.enter_context(video_file(video))
            pieces = animate(model.person, speech, head, **options)
            return driven(cls, pieces, count, model.person.video.size, fps, sound_of(audio, count, fps))
