"""A motion becomes another: calmer, larger, turned, longer."""

from __future__ import annotations

from typing import Any

from ...pipelines.types import FaceMotion
from .. import host
from ..checked_node import checked_node
from ..inputs import amount_input
from ..sockets import FaceMotionSocket

io: Any = host.io


class EditMotion(io.ComfyNode):
    """FACE_MOTION to FACE_MOTION."""

    @classmethod
    def define_schema(cls) -> Any:
        def degrees(name: str, tooltip: str) -> Any:
            return io.Float.Input(name, default=0.0, min=-90.0, max=90.0, step=1.0, round=0.01, tooltip=tooltip)

        def centimetres(name: str, tooltip: str) -> Any:
            entry = io.Float.Input(name, default=0.0, min=-100.0, max=100.0, step=0.5, round=0.01, tooltip=tooltip)
            return host.advanced(entry)

        return host.schema(
            node_id="TalkingPortraitEditMotion",
            display_name="Edit Motion",
            category="Talking Portrait/motion",
            description="Changes a face motion: mouth, head, smoothing, blinks, pose, mirror, frame rate, limits, "
            "joining. With the defaults it comes out as it went in.",
            search_aliases=["smooth motion", "join motion", "retime", "head pose", "blink"],
            inputs=[
                FaceMotionSocket.Input("motion", tooltip="The motion to change."),
                FaceMotionSocket.Input(
                    "then", optional=True, tooltip="A second motion that follows the first, on the first one's face."
                ),
                amount_input("mouth", "Mouth movement: 1 as it is, 2 twice as far, 0 shut.", max=10.0),
                amount_input("head", "Head movement about its rest: 1 as it is, 0 still.", max=10.0),
                io.Float.Input(
                    "smoothing",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Calms everything over about this many seconds; 0.04 takes trembling out, 0 is off. "
                    "Lips and lids that shut still shut.",
                ),
                io.Combo.Input(
                    "blinks",
                    options=["keep", "remove", "add"],
                    default="keep",
                    tooltip="Keep those there are, remove them, or add some where there are none.",
                ),
                degrees("yaw", "Turns the head to its left (plus) or right (minus) all the time, in degrees."),
                degrees("pitch", "Bows (plus) or lifts (minus) the head all the time, in degrees."),
                degrees(
                    "roll", "Tilts the head to its right (plus) or left (minus) shoulder all the time, in degrees."
                ),
                io.Boolean.Input("mirror", default=False, tooltip="Exchanges left and right."),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=1.0,
                    round=0.001,
                    tooltip="New frame rate of the same movement; 0 keeps its own.",
                ),
                host.advanced(
                    io.Float.Input(
                        "crossfade",
                        default=0.2,
                        min=0.0,
                        max=60.0,
                        step=0.05,
                        round=0.001,
                        tooltip="Seconds over which a joined motion blends over from the one before it.",
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
                        tooltip="No head angle beyond this many degrees, drawn in softly; 0 sets no limit.",
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
                        tooltip="No mouth wider than this many eye distances, drawn in softly; 0 sets no limit.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "blink_rate",
                        default=20.0,
                        min=0.0,
                        max=60.0,
                        step=1.0,
                        tooltip="Blinks a minute, where they are added.",
                    )
                ),
                host.advanced(
                    io.Int.Input(
                        "seed",
                        default=0,
                        min=0,
                        max=2**32 - 1,
                        control_after_generate=True,
                        tooltip="Chooses the moments of added blinks.",
                    )
                ),
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
    ) -> Any:
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
