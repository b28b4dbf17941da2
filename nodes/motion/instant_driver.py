"""Predicts the motion of a face from speech, by the small network that ships with the pack."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import amount_input, rate_input, seed_input, sound_from
from ..loaded_models import LoadedDriver
from ..sockets import DriverSocket, FaceMotionSocket


class InstantDriver(io.ComfyNode):
    """AUDIO to FACE_MOTION on a plain CPU."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitInstantDriver",
            display_name="Instant Driver",
            category="Talking Portrait/motion",
            description="Predicts a face's motion from speech: mouth, head, eyes, brows and breath. Needs no download.",
            search_aliases=["lip sync", "talking head", "audio to motion", "speech to face"],
            inputs=[
                io.Audio.Input("audio", tooltip="The speech. If there is loud music in it, use Separate Vocals first."),
                rate_input(
                    "fps", "Frames per second of the motion; the node that makes the video needs the same rate."
                ),
                seed_input("Selects head movement, brows and blinks; the same seed gives the same motion."),
                amount_input("mouth", "Scale of the mouth opening: 1 is as predicted, 0 keeps it closed."),
                amount_input(
                    "head", "Scale of the head movement that follows the speech: 1 is natural, 0 keeps the head still."
                ),
                amount_input(
                    "brows", "Scale of the brow movement that follows the voice: 1 is natural, 0 keeps the brows still."
                ),
                amount_input("blinks", "How far the eyes close in a blink: 1 is fully, 0 is not at all.", max=1.0),
                amount_input("drift", "Scale of the slow head movement in speech and in silence; 0 is none."),
                host.advanced(
                    amount_input(
                        "nod",
                        "Scale of the nods on stressed syllables, which are part of the head movement; 0 is none.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "blink_rate",
                        default=20.0,
                        min=0.0,
                        max=60.0,
                        step=1.0,
                        tooltip="Blinks per minute while speaking; about a quarter fewer in silence.",
                    )
                ),
                host.advanced(amount_input("gaze", "Scale of the eye movement: 1 is natural, 0 keeps the eyes still.")),
                host.advanced(
                    amount_input("breath", "Scale of the breathing in chest, shoulders and head; 0 is none.")
                ),
                host.advanced(
                    amount_input("idle", "Scale of the faint movement of brows, and of lips in silence; 0 is none.")
                ),
                host.advanced(
                    amount_input("asymmetry", "How differently the two sides of the face move; 0 is not at all.")
                ),
                host.advanced(
                    io.Combo.Input(
                        "weights",
                        options=["real lips", "synthetic speech"],
                        default="real lips",
                        tooltip="What the mouth was learned on: measured speakers, or synthetic speech alone, in which "
                        "no recording of a person was used.",
                    )
                ),
                DriverSocket.Input(
                    "driver",
                    optional=True,
                    tooltip="From Train Instant Driver or Load Instant Driver: the mouth then moves as that person's "
                    "does.",
                ),
            ],
            outputs=[FaceMotionSocket.Output(display_name="motion", tooltip="The motion of the face, frame by frame.")],
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
        gaze: float = 1.0,
        breath: float = 1.0,
        idle: float = 1.0,
        asymmetry: float = 1.0,
        weights: Any = "real lips",
        driver: LoadedDriver | None = None,
    ) -> io.NodeOutput:
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
            gaze=gaze,
            breath=breath,
            idle=idle,
            asymmetry=asymmetry,
            weights=driver.network if driver else weights,
            progress=host.progress(),
        )
        return io.NodeOutput(motion)
