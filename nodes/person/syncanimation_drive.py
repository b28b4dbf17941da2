"""Makes the person of a trained SyncAnimation speak."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ...pipelines.errors import TalkingPortraitError, quoted
from ...pipelines.person.person import Person
from ...pipelines.types import FaceMotion
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import portrait_socket, seed_input, sound_from
from ..loaded_models import LoadedSpeechEncoder, LoadedSyncAnimation
from ..person_nodes import driven, head_inputs, own_encoder_input, speech_input
from ..renderer_node import HIDDEN, RendererNode, sound_of, video_output
from ..sockets import FaceMotionSocket, SyncAnimationSocket
from ..video_input import video_file

MOTION_USES = {
    "pose and expression": (True, True),
    "pose": (True, False),
    "expression": (False, True),
}
"""What of a motion replaces what is predicted from the speech: the head's pose, and brows and lids."""
PICTURES = ("avatar", "portrait")


class SyncAnimationDrive(RendererNode):
    """SYNCANIMATION and AUDIO to frames."""

    FRAME_OUTPUTS = (0, 1)
    VIDEO_OUTPUT = 3

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitSyncAnimationDrive",
            display_name="SyncAnimation Drive",
            category="Talking Portrait/person",
            description="The person of a trained SyncAnimation speaks: head, upper body, brows, lids and lips follow "
            "the speech, or head and expression another motion.",
            search_aliases=["syncanimation", "synctalk", "talking head", "avatar", "nerf", "lip sync"],
            inputs=[
                SyncAnimationSocket.Input("model", tooltip="From Train SyncAnimation or Load SyncAnimation."),
                speech_input(),
                io.Combo.Input(
                    "picture",
                    options=list(PICTURES),
                    default="avatar",
                    tooltip="avatar generates the whole picture; portrait puts the face into the frames of the "
                    "person's video, which person or video gives.",
                ),
                seed_input("Same seed, same head and expression on the same machine."),
                FaceMotionSocket.Input(
                    "motion", optional=True, tooltip="Moves the head, brows and lids in place of the prediction."
                ),
                *head_inputs("For a portrait: the prepared person that the model was trained on."),
                io.Image.Input("background", optional=True, tooltip="For an avatar: another background."),
                own_encoder_input(),
                host.advanced(
                    io.Combo.Input(
                        "motion_use",
                        options=list(MOTION_USES),
                        default="pose and expression",
                        tooltip="What of the motion is used.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "torso_scale",
                        default=1.0,
                        min=0.5,
                        max=2.0,
                        step=0.05,
                        round=0.001,
                        tooltip="Above 1 the person is smaller and more is seen around it, below 1 larger.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "smoothing",
                        options=["centred", "causal", "none"],
                        default="centred",
                        tooltip="Of the predicted head movement; causal is as published, and lags 0.3 s behind.",
                    )
                ),
                host.advanced(
                    io.Combo.Input(
                        "reference",
                        options=["first frame", "noise", "published", "autoregressive"],
                        default="first frame",
                        tooltip="What the prediction of head and expression begins at; published takes the "
                        "expression's speech from the training, as the public program does; autoregressive predicts "
                        "each pose of the head from the one before.",
                    )
                ),
                host.advanced(
                    io.Boolean.Input(
                        "close_in_silence",
                        default=True,
                        tooltip="Lips close where nothing is said for 0.7 s and more; off, as published, they stay as "
                        "in the pauses of the training.",
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames."),
                io.Mask.Output(
                    display_name="mask", tooltip="How much of each pixel is the person; of a portrait, generated."
                ),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the person's video."),
                video_output(),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        model: LoadedSyncAnimation,
        audio: Any,
        picture: Any,
        seed: int,
        motion: FaceMotion | None = None,
        person: Person | None = None,
        video: Any = None,
        background: Any = None,
        speech_encoder: LoadedSpeechEncoder | None = None,
        motion_use: Any = "pose and expression",
        torso_scale: float = 1.0,
        smoothing: Any = "centred",
        reference: Any = "first frame",
        close_in_silence: bool = True,
    ) -> io.NodeOutput:
        from ...pipelines.syncanimation.animate import Drive, animate

        speech = sound_from(audio)
        count, fps = model.person.frames_for(speech), model.person.video.fps
        portrait = picture == "portrait"
        if portrait and person is None and video is None:
            raise TalkingPortraitError(
                "There are no frames to put the face into; connect the person that the model was trained on, or its "
                "video."
            )
        if speech_encoder is not None:
            speech_encoder.memory.load()
        if motion_use not in MOTION_USES:
            raise TalkingPortraitError(
                f"The use of the motion is {quoted(motion_use)}, but one of {', '.join(MOTION_USES)} is expected."
            )
        pose, expression = MOTION_USES[motion_use]
        drive = Drive(
            pose=motion if pose else None,
            expression=motion if expression else None,
            reference=reference,
            smoothing=smoothing,
            torso_scale=torso_scale,
            seed=seed,
            close_in_silence=close_in_silence,
        )
        with ExitStack() as stack:
            head: Any = None
            if portrait:
                head = person if person is not None else stack.enter_context(video_file(video))
            pieces = animate(
                model.person,
                speech,
                drive,
                head=head,
                background=None if background is None else portrait_socket(background, "background"),
                renderer=model.renderer,
                encoder=None if speech_encoder is None else speech_encoder.encoder,
                progress=host.progress(),
            )
            size = model.person.video.size if portrait else (model.person.size, model.person.size)
            return driven(cls, pieces, count, size, fps, sound_of(audio, count, fps))
