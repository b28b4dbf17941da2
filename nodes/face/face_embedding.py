"""The identity embedding of the face in a picture."""

from __future__ import annotations

from typing import Any

from .. import host
from ..checked_node import checked_node
from ..host import io
from ..inputs import portrait_socket
from ..model_paths import Fingerprint, chosen_models, file_input, files_fingerprint, files_verdict
from ..sockets import FaceEmbeddingSocket

DETECTOR, RECOGNISER = "antelope_scrfd_10g_bnkps", "antelope_glintr100"
DETECTOR_FILE, RECOGNISER_FILE = "insightface/scrfd_10g_bnkps.onnx", "insightface/glintr100.onnx"


class FaceEmbedding(io.ComfyNode):
    """IMAGE to FACE_EMBEDDING, and the face's box as a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = host.model_names(host.OWN_CATEGORY, (".onnx",))
        return host.schema(
            node_id="TalkingPortraitFaceEmbedding",
            display_name="Face Embedding",
            category="Talking Portrait/face",
            description="Detects the largest face and computes its identity embedding with InsightFace. Downloads "
            "nothing.",
            search_aliases=["insightface", "arcface", "face id", "identity"],
            inputs=[
                io.Image.Input("image", tooltip="The portrait; of a batch the first picture is used."),
                file_input(
                    "detector",
                    files,
                    DETECTOR_FILE,
                    "The face detector: an SCRFD network as ONNX, in models/talking_portrait.",
                ),
                file_input(
                    "recogniser",
                    files,
                    RECOGNISER_FILE,
                    "The recognition network. Hallo was trained with glintr100; embeddings of another network do not "
                    "work with it.",
                ),
                io.Combo.Input(
                    "no_face",
                    options=["stop", "nobody"],
                    default="stop",
                    tooltip="For a picture without a face: stop raises an error; nobody uses a zero embedding, so that "
                    "the likeness comes from the picture alone.",
                ),
            ],
            outputs=[
                FaceEmbeddingSocket.Output(display_name="embedding", tooltip="For APasco Sampler."),
                io.Mask.Output(display_name="box", tooltip="1 in the face's box; 1 everywhere when no face was found."),
            ],
        )

    @classmethod
    def validate_inputs(cls, detector: str | None = None, recogniser: str | None = None) -> bool | str:
        return files_verdict(host.OWN_CATEGORY, {DETECTOR: detector, RECOGNISER: recogniser})

    @classmethod
    def fingerprint_inputs(cls, detector: Any = None, recogniser: Any = None, **_: Any) -> Fingerprint:
        return files_fingerprint(host.OWN_CATEGORY, detector, recogniser)

    @classmethod
    @checked_node
    def execute(cls, image: Any, detector: str, recogniser: str, no_face: Any) -> io.NodeOutput:
        from ...pipelines.face.identity import FaceRecogniser, identify

        picture = portrait_socket(image)
        paths = chosen_models(host.OWN_CATEGORY, {DETECTOR: detector, RECOGNISER: recogniser})
        identity = identify(FaceRecogniser(paths[DETECTOR], paths[RECOGNISER]), picture, no_face)
        return io.NodeOutput(identity, host.to_socket(identity.mask((picture.shape[0], picture.shape[1]))[None]))
