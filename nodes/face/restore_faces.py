"""Faces in pictures, restored by GFPGAN."""

from __future__ import annotations

from typing import Any

from ...pipelines.errors import TalkingPortraitError
from .. import host
from ..checked_node import checked_node
from ..frames import check_memory, frames_in_memory
from ..host import io
from ..inputs import amount_input, colours, images_socket, track_from, tracks_from
from ..loaded_models import LoadedFaceRestorer, landmarker, landmarker_fingerprint
from ..model_paths import Fingerprint
from ..sockets import FaceLandmarks, FaceRestorerSocket, UpscaleModel


class RestoreFaces(io.ComfyNode):
    """IMAGE and FACE_RESTORER to IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitRestoreFaces",
            display_name="Restore Faces",
            category="Talking Portrait/face",
            description="Crops faces, restores them with GFPGAN and pastes them back, without flicker in videos.",
            search_aliases=["gfpgan", "face restoration", "face enhancer", "sharpen face"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("images", tooltip="One picture, or the frames of a video in order."),
                FaceRestorerSocket.Input(
                    "restorer",
                    optional=True,
                    tooltip="From Load Face Restorer; needed unless upscale_model is connected.",
                ),
                UpscaleModel.Input(
                    "upscale_model",
                    optional=True,
                    tooltip="ComfyUI's own loaded GFPGAN; when connected it is used instead of the restorer.",
                ),
                FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="The landmarks of the faces in these pictures, from Detect Landmarks; without them the "
                    "faces are detected here.",
                ),
                amount_input(
                    "strength",
                    "Opacity of the restored face: 1 shows it alone, 0 leaves the picture unchanged.",
                    max=1.0,
                ),
                io.Combo.Input(
                    "faces",
                    options=["centre", "all"],
                    default="centre",
                    tooltip="Only the face nearest to the centre, or all of them.",
                ),
                host.advanced(
                    io.Int.Input(
                        "batch_size",
                        default=4,
                        min=1,
                        max=64,
                        tooltip="Faces that are restored at once; reduced when memory runs out.",
                    )
                ),
                host.advanced(
                    amount_input(
                        "smoothing",
                        "Smooths the crop's position over a video, so that skin does not flicker; 0 is off.",
                    )
                ),
                host.advanced(
                    amount_input(
                        "colour_match",
                        "Matches brightness and contrast of the restored face to the picture around it.",
                        default=0.5,
                        max=1.0,
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "enlarge",
                        default=1.0,
                        min=1.0,
                        max=4.0,
                        step=0.5,
                        round=0.001,
                        tooltip="Factor by which the pictures are enlarged, so that restored detail is not lost when a "
                        "face is pasted back.",
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The pictures; those without a face are unchanged."),
                io.String.Output(display_name="report", tooltip="In how many pictures a face was restored, as text."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Fingerprint:
        return landmarker_fingerprint()

    @classmethod
    @checked_node
    def execute(
        cls,
        images: Any,
        strength: float,
        faces: str,
        restorer: LoadedFaceRestorer | None = None,
        upscale_model: Any = None,
        landmarks: Any = None,
        batch_size: int = 4,
        smoothing: float = 1.0,
        colour_match: float = 0.5,
        enlarge: float = 1.0,
    ) -> io.NodeOutput:
        from ...pipelines.face.restoration import MOST_FACES, restore_faces

        network = _network(restorer, upscale_model)
        pictures = images_socket(images)
        if pictures.shape[-1] == 1:
            pictures = colours(pictures)
        check_memory(*pictures.shape)
        tracks = None
        if landmarks is not None:
            tracks = tracks_from(landmarks, MOST_FACES) if faces == "all" else [track_from(landmarks, "nearest")]
        frames, report = restore_faces(
            pictures,
            tracks,
            network,
            landmarker=landmarker,
            all_faces=faces == "all",
            strength=strength,
            batch=batch_size,
            smoothing=smoothing,
            colour_match=colour_match,
            enlarge=enlarge,
            progress=host.progress(),
        )
        restored = frames_in_memory((frame[None] for frame in frames), len(pictures))
        return io.NodeOutput(restored, str(report), ui=host.shown(colours(pictures[0]), colours(restored[0])))


def _network(restorer: LoadedFaceRestorer | None, upscale_model: Any) -> host.ManagedModule:
    """The GFPGAN that is connected. Raises TalkingPortraitError when none is, or the upscale model is another one."""
    from ...models.gfpgan import restorer_from

    if upscale_model is not None:
        # The host's own class draws its noise anew for each frame; the same weights in ours do not.
        return host.ManagedModule(restorer_from(upscale_model, dtype=host.fast_dtype()))
    if restorer is None:
        raise TalkingPortraitError(
            "There is no face restorer, but one is expected; connect Load Face Restorer, or Load Upscale Model with a "
            "GFPGAN."
        )
    return restorer.network
