"""Speech becomes the motion of a face, by the small network that ships with the pack."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..inputs import amount_input, rate_input, sound_from
from ..sockets import FaceMotionSocket

io: Any = host.io


class InstantDriver(io.ComfyNode):
    """AUDIO to FACE_MOTION on a plain CPU."""

    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="TalkingPortraitInstantDriver",
            display_name="Instant Driver",
            category="Talking Portrait/motion",
            description="Turns speech into the motion of a face: mouth, head, brows and blinks. Needs no download.",
            search_aliases=["lip sync", "talking head", "audio to motion", "speech to face"],
            inputs=[
                io.Audio.Input("audio", tooltip="The speech. Separate Vocals helps when there is loud music under it."),
                rate_input(
                    "fps", "Frames a second of the motion; the same rate must reach the node that makes the video."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=True,
                    tooltip="Chooses head movement, brows and blinks; the same seed gives the same motion.",
                ),
                amount_input("mouth", "How far the mouth opens: 1 is as heard, 0 keeps it shut."),
                amount_input("head", "Head movement that belongs to the speech: 1 is natural, 0 keeps the head still."),
                amount_input("brows", "Brows that rise and fall with the voice: 1 is natural, 0 keeps them still."),
                amount_input("blinks", "How far the eyes close when they blink: 1 is fully, 0 is never.", max=1.0),
                amount_input("drift", "Slow movement of a head at ease, in speech and in silence; 0 is none."),
                host.advanced(
                    amount_input("nod", "The part of the head movement that nods on stressed syllables; 0 is none.")
                ),
                host.advanced(
                    io.Float.Input(
                        "blink_rate",
                        default=20.0,
                        min=0.0,
                        max=60.0,
                        step=1.0,
                        tooltip="Blinks a minute while speaking; in silence about a quarter fewer.",
                    )
                ),
            ],
            outputs=[FaceMotionSocket.Output(display_name="motion", tooltip="What the face does, frame by frame.")],
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        audio: Any,
        fps: float,
        seed: int,
        mouth: float,
        head: float,
        brows: float,
        blinks: float,
        drift: float,
        nod: float = 1.0,
        blink_rate: float = 20.0,
    ) -> Any:
        from ...pipelines.instant.driver.driver import drive

        motion = drive(
            sound_from(audio),
            fps=fps,
            seed=seed,
            mouth=mouth,
            head=head,
            nod=nod,
            brows=brows,
            blinks=blinks,
            blink_rate=blink_rate,
            drift=drift,
            progress=host.progress(),
        )
        return io.NodeOutput(motion)
