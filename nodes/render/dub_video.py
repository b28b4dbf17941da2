"""Gives a filmed person other words."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ...pipelines.types import FaceMotion
from .. import host
from ..checked_node import checked_node
from ..frames import check_memory, even_sides, new_clip
from ..host import io
from ..inputs import amount_input, mask_socket, sound_from
from ..loaded_models import landmarker, landmarker_fingerprint
from ..renderer_node import HIDDEN, RendererNode, sound_of, streamed_video, video_of, video_output
from ..sockets import FaceMotionSocket
from ..video_input import video_file


class DubVideo(RendererNode):
    """VIDEO and AUDIO to a video whose person speaks the audio's words."""

    FRAME_OUTPUTS = (0, 1)
    VIDEO_OUTPUT = 3

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitDubVideo",
            display_name="Dub Video",
            category="Talking Portrait/render",
            description="A filmed person speaks other words: the mouth follows the audio, while head, eyes, hair and "
            "background stay as filmed. Needs no download.",
            search_aliases=["lip sync video", "dubbing", "wav2lip", "latentsync", "musetalk", "video to video"],
            inputs=[
                io.Video.Input("video", tooltip="A video in which a person's face is visible, at any frame rate."),
                io.Audio.Input("audio", tooltip="The new speech; it decides how long the result is."),
                FaceMotionSocket.Input(
                    "motion",
                    optional=True,
                    tooltip="A motion whose mouth is used in place of the one that Instant predicts from the audio.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Painted over the face that is to speak, if there are several."
                ),
                io.Combo.Input(
                    "face",
                    options=["largest", "nearest", "index"],
                    default="largest",
                    tooltip="Which of several faces: the largest, the nearest to the centre, or one by its index.",
                ),
                io.Int.Input(
                    "index", default=0, min=0, max=63, tooltip="With face = index: counted from the left, from 0."
                ),
                io.Combo.Input(
                    "end",
                    options=["back and forth", "hold", "cut"],
                    default="back and forth",
                    tooltip="Where the speech lasts longer than the video: play it back and forth, hold its last "
                    "frame, or end with it.",
                ),
                host.advanced(amount_input("mouth", "How far the mouth opens; 0 keeps it shut.", max=3.0)),
                host.advanced(
                    amount_input("jaw", "How far chin and cheeks follow the new words instead of the old.", max=1.0)
                ),
                host.advanced(
                    io.Combo.Input(
                        "engine",
                        options=["auto", "mediapipe", "opencv"],
                        default="auto",
                        tooltip="What detects the landmarks, as in Detect Landmarks; auto uses the first that is "
                        "installed.",
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames."),
                io.Mask.Output(display_name="mask", tooltip="Where the mouth moved; everywhere else nothing changed."),
                io.Float.Output(display_name="fps", tooltip="Frames per second, those of the video."),
                video_output(),
                io.String.Output(
                    display_name="report", tooltip="In how many frames the face is found, and how lengths differ."
                ),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def fingerprint_inputs(cls, engine: Any = "auto", **_: Any) -> Any:
        kept = super().fingerprint_inputs()
        return kept if kept != kept else (kept, landmarker_fingerprint(engine))  # NaN has to stay alone

    @classmethod
    @checked_node
    def execute(
        cls,
        video: Any,
        audio: Any,
        face: Any,
        index: int,
        end: Any,
        motion: FaceMotion | None = None,
        mask: Any = None,
        mouth: float = 1.0,
        jaw: float = 1.0,
        engine: Any = "auto",
    ) -> io.NodeOutput:
        from ...pipelines.instant.dub.dub_video import FaceChoice, dub_speech

        speech = sound_from(audio)
        choice = FaceChoice(face, index, mask=None if mask is None else mask_socket(mask))
        found_by = landmarker(engine)
        with ExitStack() as stack:
            file = stack.enter_context(video_file(video))
            dubbed = dub_speech(
                file,
                speech,
                found_by,
                motion=motion,
                mouth=mouth,
                face=choice,
                end=end,
                jaw=jaw,
                progress=host.progress(),
            )
            fps = dubbed.fps
            sound = sound_of(audio, dubbed.frames, fps)
            report = f"{dubbed.report} {found_by.hint}".strip()
            if not cls.keeps_frames():
                stream = (frames for frames, _ in dubbed.pieces)
                return io.NodeOutput(None, None, float(fps), streamed_video(stream, fps, sound), report)
            height, width = (side + side % 2 for side in dubbed.size)
            check_memory(dubbed.frames, height, width, 4, smaller="use a smaller video or shorter audio")
            images, masks = new_clip(dubbed.frames, height, width, 3), new_clip(dubbed.frames, height, width)
            done = 0
            for frames, moved in dubbed.pieces:
                part = slice(done, done + len(frames))
                images[part], masks[part] = even_sides(frames) / 255, even_sides(moved)
                done += len(frames)
        return io.NodeOutput(images, masks, float(fps), video_of(images, fps, sound), report)
