"""Faces in pictures, restored by GFPGAN."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch

from ...pipelines.errors import TalkingPortraitError
from ...pipelines.types import FaceTrack, Progress
from .. import host
from ..checked_node import checked_node
from ..inputs import amount_input, colours, images_socket
from ..landmark_engine import landmarker
from ..loaded_models import LoadedFaceRestorer
from ..sockets import FaceLandmarks, FaceRestorerSocket, UpscaleModel

io: Any = host.io

MOST_FACES = 16
"""Tracked at once, when all are to be restored."""
FINDING = 0.4
"""Fraction of the progress that face detection takes."""


class RestoreFaces(io.ComfyNode):
    """IMAGE and FACE_RESTORER to IMAGE."""

    @classmethod
    def define_schema(cls) -> Any:
        return host.schema(
            node_id="TalkingPortraitRestoreFaces",
            display_name="Restore Faces",
            category="Talking Portrait/face",
            description="Crops faces, restores them with GFPGAN and pastes them back, without flicker in videos.",
            search_aliases=["gfpgan", "face restoration", "face enhancer", "sharpen face"],
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
    @checked_node
    def execute(
        cls,
        images: Any,
        strength: float,
        faces: str,
        restorer: Any = None,
        upscale_model: Any = None,
        landmarks: Any = None,
        batch_size: int = 4,
        smoothing: float = 1.0,
        colour_match: float = 0.5,
        enlarge: float = 1.0,
    ) -> Any:
        from ...pipelines.face.restoration import report_on, restored_frames
        from ...pipelines.progress import share

        network = _network(restorer, upscale_model)
        pictures = images_socket(images)
        if pictures.shape[-1] == 1:
            pictures = colours(pictures)
        progress = host.progress()
        if landmarks is None:
            tracks = _found_tracks(pictures, faces, share(progress, 0.0, FINDING))
            progress = share(progress, FINDING, 1.0)
        else:
            tracks = _given_tracks(landmarks, faces)
        frames = restored_frames(
            pictures,
            tracks,
            network,
            strength=strength,
            batch=batch_size,
            smoothing=smoothing,
            colour_match=colour_match,
            enlarge=enlarge,
            progress=progress,
        )
        first = next(frames)
        restored = torch.empty(len(pictures), *first.shape)
        for number, frame in enumerate(chain([first], frames)):
            restored[number] = frame
        return io.NodeOutput(host.to_socket(restored), str(report_on(tracks, len(pictures))))


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


def _given_tracks(landmarks: Any, faces: str) -> list[FaceTrack]:
    from ...pipelines.face.landmark_payload import from_payload

    if faces == "centre":
        return [from_payload(landmarks, choose="nearest")]
    return _each_face(lambda index: from_payload(landmarks, choose="index", index=index))


def _found_tracks(pictures: torch.Tensor, faces: str, progress: Progress) -> list[FaceTrack]:
    from ...pipelines.face.landmarks import detect, detect_all

    engine = landmarker()

    def show(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        progress(done, total, colours(pictures[done - 1]))

    if faces == "all":
        return detect_all(pictures, engine, most=MOST_FACES, progress=show)
    return _each_face(lambda index: detect(pictures, engine, choose="nearest", progress=show)[0], most=1)


def _each_face(track: Callable[[int], FaceTrack], most: int = MOST_FACES) -> list[FaceTrack]:
    """The tracks of faces 0, 1, 2 ... until there is no such face."""
    from ...pipelines.face.face_tracking import NoFaceError

    tracks: list[FaceTrack] = []
    while len(tracks) < most:
        try:
            tracks.append(track(len(tracks)))
        except NoFaceError:
            break
    return tracks
