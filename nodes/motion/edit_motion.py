"""Changes a motion: smoothing, scale, pose, length."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import FaceMotion
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import amount_input, seed_input
from ..sockets import FaceMotionSocket


class EditMotion(io.ComfyNode):
    """FACE_MOTION to FACE_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def degrees(name: str, tooltip: str) -> io.Input:
            return io.Float.Input(name, default=0.0, min=-90.0, max=90.0, step=1.0, round=0.01, tooltip=tooltip)

        def centimetres(name: str, tooltip: str) -> io.Input:
            entry = io.Float.Input(name, default=0.0, min=-100.0, max=100.0, step=0.5, round=0.01, tooltip=tooltip)
            return host.advanced(entry)

        return host.schema(
            node_id="TalkingPortraitEditMotion",
            display_name="Edit Motion",
            category="Talking Portrait/motion",
            description="Changes a face motion: mouth, head, smoothing, blinks, pose, mirror, frame rate, limits, "
            "joining. With the defaults the motion is unchanged.",
            search_aliases=["smooth motion", "join motion", "retime", "head pose", "blink"],
            inputs=[
                FaceMotionSocket.Input("motion", tooltip="The motion to change."),
                FaceMotionSocket.Input(
                    "then",
                    optional=True,
                    tooltip="A second motion, appended to the first and transferred to the first one's face.",
                ),
                amount_input("mouth", "Scale of the mouth movement: 1 unchanged, 2 twice as far, 0 closed.", max=10.0),
                amount_input(
                    "head", "Scale of the head movement around its rest pose: 1 unchanged, 0 still.", max=10.0
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Smooths all movement over about this many seconds; 0.04 removes jitter, 0 is off. Lips "
                    "and eyelids still close completely.",
                ),
                io.Combo.Input(
                    "blinks",
                    options=["keep", "remove", "add"],
                    default="keep",
                    tooltip="Keeps the blinks, removes them, or adds some where there are none.",
                ),
                degrees("yaw", "Turns the head to its left (plus) or right (minus) in all frames, in degrees."),
                degrees("pitch", "Lowers (plus) or raises (minus) the head in all frames, in degrees."),
                degrees(
                    "roll", "Tilts the head to its right (plus) or left (minus) shoulder in all frames, in degrees."
                ),
                io.Boolean.Input("mirror", default=False, tooltip="Swaps left and right."),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=1.0,
                    round=0.001,
                    tooltip="New frame rate of the same movement; 0 leaves it unchanged.",
                ),
                host.advanced(
                    io.Float.Input(
                        "crossfade",
                        default=0.2,
                        min=0.0,
                        max=60.0,
                        step=0.05,
                        round=0.001,
                        tooltip="Seconds over which an appended motion is blended with the one before it.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "max_angle",
                        default=0.0,
                        min=0.0,
                        max=90.0,
                        step=1.0,
                        round=0.01,
                        tooltip="Soft limit of each head angle, in degrees; 0 sets no limit.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "max_opening",
                        default=0.0,
                        min=0.0,
                        max=2.0,
                        step=0.05,
                        round=0.001,
                        tooltip="Soft limit of the mouth opening, in eye distances; 0 sets no limit.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "blink_rate",
                        default=20.0,
                        min=0.0,
                        max=60.0,
                        step=1.0,
                        tooltip="Blinks per minute, where they are added.",
                    )
                ),
                host.advanced(seed_input("Selects the times of added blinks.")),
                centimetres("move_x", "Moves the head to its left (plus) or right, in centimetres."),
                centimetres("move_y", "Moves the head up (plus) or down, in centimetres."),
                centimetres("move_z", "Moves the head forward (plus) or back, in centimetres."),
            ],
            outputs=[FaceMotionSocket.Output(display_name="motion", tooltip="The changed motion.")],
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        motion: FaceMotion,
        mouth: float,
        head: float,
        smoothing: float,
        blinks: Any,
        yaw: float,
        pitch: float,
        roll: float,
        mirror: bool,
        fps: float,
        then: FaceMotion | None = None,
        crossfade: float = 0.2,
        max_angle: float = 0.0,
        max_opening: float = 0.0,
        blink_rate: float = 20.0,
        seed: int = 0,
        move_x: float = 0.0,
        move_y: float = 0.0,
        move_z: float = 0.0,
    ) -> io.NodeOutput:
        from ...pipelines.motion.edit import edit

        changed = edit(
            motion,
            then=then,
            crossfade=crossfade,
            fps=fps or None,
            smoothing=smoothing,
            mouth=mouth,
            blinks=blinks,
            blink_rate=blink_rate,
            seed=seed,
            head=head,
            yaw=yaw,
            pitch=pitch,
            roll=roll,
            move=(move_x, move_y, move_z),
            max_angle=max_angle or None,
            max_opening=max_opening or None,
            mirrored=mirror,
        )
        return io.NodeOutput(changed)
