"""AniTalker's files, tiny: 32 pixels, a few channels, every published name and habit of saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from talking_portrait.models.anitalker.encoder import EncoderConfig
from talking_portrait.models.anitalker.renderer import RendererConfig
from talking_portrait.models.anitalker.stage1 import Stage1
from talking_portrait.models.anitalker.stage2 import ConformerConfig, Stage2, Stage2Config

SIZE, STYLE, MOTION = 32, 24, 20
HUBERT_LAYERS, HUBERT_CHANNELS = 3, 64
ENCODER = EncoderConfig((4, 8, 8, STYLE), STYLE, MOTION)
RENDERER = RendererConfig((STYLE, 8, 8, 4), STYLE, MOTION)
_HUBERT = Stage2Config(
    features=HUBERT_CHANNELS,
    layers=HUBERT_LAYERS,
    middle=0,
    audio_channels=16,
    speech=ConformerConfig(16, 16, 2, 13, 2),
    decoder=ConformerConfig(48, 48, 2, 13, 2),
    hidden=8,
    projection=8,
    style=STYLE,
    motion=MOTION,
)
_MFCC = replace(_HUBERT, features=39, layers=0, middle=12, speech=None)
STAGE2 = {
    "stage2_audio_only_hubert": replace(_HUBERT, pose=False, placement=False, hidden=Stage2Config.hidden),
    "stage2_pose_only_hubert": replace(_HUBERT, placement=False),
    "stage2_full_control_hubert": _HUBERT,
    "stage2_pose_only_mfcc": replace(_MFCC, placement=False),
    "stage2_full_control_mfcc": _MFCC,
}
"""The five published files and their variants."""


def filled(state: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Random numbers scaled so that all outputs vary and nothing overflows."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    fir = torch.outer(line, line) / 64

    def value(name: str, tensor: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith(".kernel"):
            return fir * (4 if "upsample" in name or ("dec." in name and "blur" in name) else 1)
        if name.endswith("num_batches_tracked"):
            return torch.zeros((), dtype=torch.int64)
        if name.endswith("running_var"):
            return 1 + 0.2 * noise.abs()
        if "t_encoder" in name:
            return 0.001 * noise
        if name.endswith("modulation.bias") or (name.endswith("weight") and tensor.ndim == 1):
            return 1 + 0.1 * noise
        if tensor.ndim < 2 or tensor.shape[-2:] == (1, 1) and name.endswith("bias"):
            return 0.1 * noise
        if name.startswith(("enc.", "dec.")) and "net_decouping" not in name:
            return noise
        return noise / max(tensor[0].numel(), 1) ** 0.5

    return {name: value(name, tensor) for name, tensor in state.items()}


def stage1_state(prefix: str = "lia.", seed: int = 0) -> dict[str, torch.Tensor]:
    """All that stage1.ckpt holds, with what nothing reads and a training head."""
    with torch.device("meta"):
        empty = Stage1(ENCODER, RENDERER)
    state = filled(empty.state_dict(), seed)
    extra = {f"dec.{name}.noise.weight": torch.zeros(1) for name in ("conv1", "convs.0", "convs.5")}
    extra |= {"dec.to_rgb1.bias": torch.zeros(1, 3, 1, 1), "dis.final.weight": torch.zeros(2, 2)}
    return {prefix + name: tensor for name, tensor in {**state, **extra}.items()}


def stage2_state(file: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """All that a stage 2 file holds: the averaged copy, the raw one, which is wrong here, and a buffer."""
    with torch.device("meta"):
        empty = Stage2(STAGE2[file])
    state = filled(empty.state_dict(), seed)
    averaged = {f"ema_model.{name}": tensor for name, tensor in state.items()}
    return {
        **averaged,
        **{f"model.{name}": 0 * tensor for name, tensor in state.items()},
        "x_T": torch.zeros(1, 3, 2, 2),
    }


def write_models(root: Path) -> None:
    """The published files in `root`, a models folder, and a HuBERT of the sizes that the motion models take."""
    folder = root / "talking_portrait" / "anitalker"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(stage1_state(), folder / "stage1.ckpt")
    for file in STAGE2:
        torch.save(stage2_state(file), folder / f"{file}.ckpt")
    write_hubert(root / "audio_encoders" / "chinese-hubert-large.bin")


def write_hubert(path: Path) -> None:
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(1)
    config = HubertConfig(
        hidden_size=HUBERT_CHANNELS,
        num_hidden_layers=HUBERT_LAYERS - 1,
        num_attention_heads=1,
        intermediate_size=32,
        conv_dim=[8] * 7,
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(HubertModel(config).state_dict(), path)
