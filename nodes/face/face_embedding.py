"""The identity embedding of the face in a picture."""

from __future__ import annotations

from typing import Any

import torch

from .. import host
from ..checked_node import checked_node
from ..inputs import portrait_socket
from ..model_paths import chosen_model
from ..sockets import FaceEmbeddingSocket

io: Any = host.io

DETECTOR, RECOGNISER = "antelope_scrfd_10g_bnkps", "antelope_glintr100"
DETECTOR_FILE, RECOGNISER_FILE = "insightface/scrfd_10g_bnkps.onnx", "insightface/glintr100.onnx"


class FaceEmbedding(io.ComfyNode):
    """IMAGE to FACE_EMBEDDING, and the face's box as a mask."""

    @classmethod
    def define_schema(cls) -> Any:
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
                io.Combo.Input(
                    "detector",
                    options=sorted({*files, DETECTOR_FILE}),
                    default=DETECTOR_FILE,
                    tooltip="The face detector: an SCRFD network as ONNX, in models/talking_portrait.",
                ),
                io.Combo.Input(
                    "recogniser",
                    options=sorted({*files, RECOGNISER_FILE}),
                    default=RECOGNISER_FILE,
                    tooltip="The recognition network. Hallo was trained with glintr100; embeddings of another network "
                    "do not work with it.",
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
    def validate_inputs(cls, detector: str, recogniser: str) -> bool | str:
        # Missing files are reported by execute, with the way to get them.
        return True

    @classmethod
    @checked_node
    def execute(cls, image: Any, detector: str, recogniser: str, no_face: Any) -> Any:
        from ...pipelines.face.identity import FaceRecogniser, identify

        picture = portrait_socket(image)
        network = FaceRecogniser(
            chosen_model(host.OWN_CATEGORY, detector, DETECTOR), chosen_model(host.OWN_CATEGORY, recogniser, RECOGNISER)
        )
        identity = identify(network, picture, no_face)
        left, top, right, bottom = (max(round(side), 0) for side in identity.box)
        box = torch.zeros(1, *picture.shape[:2])
        box[:, top:bottom, left:right] = 1
        return io.NodeOutput(identity, host.to_socket(box))
