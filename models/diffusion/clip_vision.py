"""CLIP's image encoder with its projection, as transformers' CLIPVisionModelWithProjection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import expect_kind, layer_count, read_checkpoint, sizes_of, strict_load
from ..errors import TalkingPortraitError

_UNUSED = (r"vision_model\.embeddings\.position_ids$", r"text_model\.", r"text_projection\.", r"logit_scale$")
"""A table of numbers that old files store, and the other half of a whole CLIP."""


def load_clip_vision(path: str | Path) -> Any:
    """The encoder in float32 on the CPU, for inference; sizes come from the tensors.

    Raises TalkingPortraitError for another kind of file, one without the projection, and missing or surplus tensors.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    state = expect_kind(read_checkpoint(path), ("clip_vision",), "a CLIP image encoder", path)
    if "visual_projection.weight" not in state:
        raise TalkingPortraitError(
            f"{Path(path).name} is a CLIP vision encoder without its projection, which is expected too; take the file "
            "of a CLIPVisionModelWithProjection."
        )
    with sizes_of(state, path), torch.device("meta"):
        model: Any = CLIPVisionModelWithProjection(CLIPVisionConfig(**derive_clip_config(state)))
    strict_load(model, state, path=path, unused=_UNUSED)
    # It is no part of the state, so loading has left it on the meta device.
    positions = len(state["vision_model.embeddings.position_embedding.weight"])
    model.vision_model.embeddings.position_ids = torch.arange(positions)[None]
    return model.eval().requires_grad_(False)


def derive_clip_config(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Arguments of CLIPVisionConfig.

    Heads are 64 channels wide up to ViT-L, and sixteen beyond; those larger ones were trained with another GELU.
    """
    embeddings = "vision_model.embeddings."
    hidden = len(state[f"{embeddings}class_embedding"])
    patch = state[f"{embeddings}patch_embedding.weight"].shape[-1]
    side = math.isqrt(len(state[f"{embeddings}position_embedding.weight"]) - 1)
    return {
        "hidden_size": hidden,
        "intermediate_size": len(state["vision_model.encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": layer_count(state, "vision_model.encoder.layers."),
        "num_attention_heads": 16 if hidden > 1024 else max(hidden // 64, 1),
        "image_size": side * patch,
        "patch_size": patch,
        "projection_dim": len(state["visual_projection.weight"]),
        "hidden_act": "gelu" if hidden > 1024 else "quick_gelu",
    }
