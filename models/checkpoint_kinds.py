"""What a file of weights is, recognised by the names and shapes of its tensors.

A data table: the first kind whose every condition holds names the file, so containers stand before what they contain.
Names match at the end of a tensor's name from a dot on ("conv_in.weight" also finds "denoising_unet.conv_in.weight"),
so a prefix does not hide a file. Source: the state dicts of the published systems and of public libraries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import one_line

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Kind:
    """`name` for code, `title` for sentences; `has` all of these tensors and `lacks` all of those.

    The last of `has` lies at the network's own level, not inside of one of its parts.

    `shapes` restricts tensors further, None being any size; `count` is how many tensors the file holds.
    """

    name: str
    title: str
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    count: int | None = None


_WAV2VEC = (
    "feature_extractor.conv_layers.0.conv.weight",
    "feature_projection.projection.weight",
    "encoder.layers.0.attention.k_proj.weight",
)
_UNET = ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight", "time_embedding.linear_1.weight")
_MOTION = "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"
_MIDDLE = "mid_block.motion_modules.0.temporal_transformer.proj_in.weight"

KINDS: tuple[Kind, ...] = (
    # Containers of several networks.
    Kind(
        "hallo_net", "Hallo's (or APasco's) net.pth", ("reference_unet.conv_in.weight", "face_locator.conv_in.weight")
    ),
    Kind(
        "audiodvp_person",
        "AudioDVP's model of one person",
        ("face.geo_mean", "coefficients.expression", "nfr.model.model.0.weight", "a2e.feature_mean"),
    ),
    Kind("audio2mesh", "AniPortrait's audio2mesh", (*_WAV2VEC, "in_fn.weight", "out_fn.weight")),
    Kind("audio2pose", "AniPortrait's audio2pose", (*_WAV2VEC, "pose_map.weight", "id_embed.weight")),
    Kind(
        "sd_checkpoint",
        "a whole Stable Diffusion checkpoint",
        ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight"),
    ),
    Kind(
        "syncanimation",
        "a SyncAnimation model of one person",
        ("individual_codes", "au2BsNet.attr_map_net.arkit_output_1.bias"),
    ),
    Kind("synctalk_torso", "a SyncTalk torso model of one person", ("individual_codes", "torso_net.net.0.weight")),
    Kind("synctalk", "a SyncTalk head model of one person", ("individual_codes", "aud_ch_att_net.net.0.weight")),
    Kind(
        "ldm_unet",
        "a UNet or checkpoint in the spelling of Stable Diffusion's first program",
        ("input_blocks.0.0.weight", "out.2.weight", "time_embed.0.weight"),
    ),
    # Parts that are added to a Stable Diffusion UNet, whose names contain its own.
    *(
        Kind(f"lora_{number}", "a LoRA and no whole network", (name,))
        for number, name in enumerate(
            (
                *("lora_down.weight", "lora.down.weight", "to_q_lora.down.weight", "lora_A.weight"),
                *("lora_A.default.weight", "hada_w1_a", "lokr_w1", "oft_blocks"),
            )
        )
    ),
    Kind("ip_adapter", "an IP-Adapter", ("ip_adapter.1.to_k_ip.weight",)),
    Kind("controlnet", "a ControlNet", ("controlnet_cond_embedding.conv_in.weight", "time_embedding.linear_1.weight")),
    Kind("ldm_controlnet", "a ControlNet", ("input_hint_block.0.weight", "zero_convs.0.0.weight")),
    Kind("sdxl_unet", "an SDXL UNet", ("add_embedding.linear_1.weight", "time_embedding.linear_1.weight")),
    Kind(
        "sd2_unet",
        "a UNet of Stable Diffusion 2",
        (*_UNET, "down_blocks.0.attentions.0.proj_in.weight"),
        shapes={"down_blocks.0.attentions.0.proj_in.weight": (None, None)},
    ),
    *(
        Kind(
            f"unet_of_{channels}_channels",
            f"a UNet that takes {channels} channels, {of}",
            (*_UNET, "conv_in.weight"),
            shapes={"conv_in.weight": (None, channels, 3, 3)},
        )
        for channels, of in (
            (5, "as for pictures from depth"),
            (7, "as for enlarging pictures"),
            (8, "as InstructPix2Pix's"),
            (9, "as for inpainting"),
        )
    ),
    # AniPortrait and APasco.
    Kind("hallo_unet", "a Hallo denoising UNet", (*_UNET, "down_blocks.0.audio_modules.0.proj_in.weight")),
    Kind("motion_unet", "an SD 1.5 UNet with motion modules", (*_UNET, _MOTION)),
    Kind("motion_module", "an AnimateDiff or AniPortrait motion module", (_MIDDLE, _MOTION)),
    Kind(
        "motion_module_without_middle",
        "a motion module without the middle block's, as AnimateDiff's of versions 1 and 3",
        (_MOTION,),
    ),
    Kind(
        "motion_adapter",
        "AnimateDiff's motion modules in diffusers' spelling",
        ("down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.weight",),
    ),
    Kind("sd_unet", "an SD 1.5 UNet", (*_UNET, "conv_out.weight")),
    Kind("reference_unet", "a reference UNet of AniPortrait or Hallo", _UNET),
    Kind("pose_guider", "AniPortrait's pose guider", ("conv_layers_1.0.weight", "cross_attn1.proj_in.weight", "scale")),
    Kind("face_locator", "Hallo's face locator", ("conv_in.weight", "blocks.5.weight", "conv_out.weight"), lacks=_UNET),
    Kind("image_projection", "Hallo's image projection", ("proj.weight", "norm.weight"), count=4),
    # AniTalker.
    Kind(
        "anitalker_stage1", "AniTalker's stage 1 (renderer)", ("enc.net_app.convs.0.0.weight", "dec.direction.weight")
    ),
    Kind(
        "anitalker_stage2",
        "an AniTalker stage 2 (audio to motion)",
        ("coarse_decoder.encoders.0.self_attn.pos_bias_u", "encoder_direction_code.bias"),
    ),
    # Person-specific systems.
    Kind("sa_emotion_syncer", "SyncAnimation's emotion syncer", ("attr_map_net.arkit_output_1.weight",)),
    Kind("sa_pose_syncer", "SyncAnimation's pose syncer", ("attr_map_net.translation_xy.weight",)),
    Kind(
        "wav2lip",
        "a Wav2Lip model or its lip-sync expert",
        ("audio_encoder.0.conv_block.0.weight", "face_decoder_blocks.0.0.conv_block.0.weight"),
    ),
    Kind(
        "synctalk_audio",
        "SyncTalk's audio-visual encoder",
        ("12.conv_block.0.weight", "0.conv_block.0.weight"),
        shapes={"0.conv_block.0.weight": (32, 1, 3, 3)},
    ),
    Kind("atnet", "ATVGnet's ATnet", ("audio_eocder.0.0.weight",)),
    Kind(
        "audio_to_expression",
        "AudioDVP's audio-to-expression network",
        ("conv1.weight", "conv3.weight", "fc.weight"),
        count=8,
    ),
    Kind(
        "speech_to_expression",
        "a speech-to-expression network of AudioDVP's training, which is a part of a person's model",
        ("feature_mean", "feature_scale", "mean", "scale"),
    ),
    Kind("face_model", "a face model with its expression basis", ("geo_mean", "exp_base", "point_buf")),
    Kind("face_regressor", "AudioDVP's face regressor", ("pretrained_model.conv1.weight", "alpha")),
    Kind(
        "neural_renderer", "AudioDVP's neural face renderer", ("model.model.0.weight", "model.model.1.model.1.weight")
    ),
    Kind(
        "patch_discriminator",
        "AudioDVP's discriminator",
        ("model.0.weight", "model.11.weight"),
        shapes={"model.0.weight": (None, None, 4, 4)},
    ),
    # Evaluation.
    Kind("syncnet", "SyncNet (syncnet_v2.model)", ("netcnnaud.0.weight", "netcnnlip.0.weight", "netfclip.0.weight")),
    Kind("lpips", "weights of LPIPS", ("lin0.model.1.weight", "lin4.model.1.weight")),
    Kind(
        "alexnet",
        "torchvision's AlexNet",
        ("features.0.weight", "features.10.weight", "classifier.6.weight"),
        shapes={"features.0.weight": (64, 3, 11, 11)},
    ),
    # Public models that are often mistaken for one of ours.
    Kind("bisenet", "BiSeNet's face parsing", ("cp.arm32.conv_atten.weight", "ffm.convblk.conv.weight")),
    Kind("gfpgan", "a GFPGAN face restorer", ("stylegan_decoder.style_mlp.1.weight", "conv_body_first.weight")),
    Kind("wavlm", "a WavLM encoder", (*_WAV2VEC, "encoder.layers.0.attention.rel_attn_embed.weight")),
    Kind("data2vec", "a Data2Vec audio encoder", (*_WAV2VEC, "encoder.pos_conv_embed.layers.0.conv.weight")),
    Kind("speech_encoder", "a wav2vec2 or HuBERT encoder", _WAV2VEC),
    Kind(
        "fairseq_speech",
        "a wav2vec2 or HuBERT in fairseq's own spelling",
        ("post_extract_proj.weight", "feature_extractor.conv_layers.0.0.weight"),
    ),
    Kind("whisper", "a Whisper model", ("encoder.embed_positions.weight", "encoder.conv1.weight")),
    Kind("openai_whisper", "a Whisper model", ("encoder.blocks.0.attn.query.weight", "encoder.conv1.weight")),
    Kind(
        "codeformer",
        "a CodeFormer face restorer",
        ("quantize.embedding.weight", "position_emb", "idx_pred_layer.1.weight"),
    ),
    Kind("restoreformer", "a RestoreFormer face restorer", ("quantize.embedding.weight", "encoder.conv_in.weight")),
    Kind("vae", "an image VAE", ("encoder.conv_in.weight", "decoder.conv_out.weight")),
    Kind("clip_vision", "a CLIP vision encoder", ("vision_model.embeddings.class_embedding",)),
    Kind("clip_text", "a CLIP text encoder", ("text_model.embeddings.token_embedding.weight",)),
    Kind("open_clip", "a CLIP in OpenCLIP's spelling", ("visual.transformer.resblocks.0.attn.in_proj_weight",)),
    Kind(
        "siglip",
        "a SigLIP vision encoder",
        ("vision_model.head.probe", "vision_model.embeddings.patch_embedding.weight"),
    ),
    Kind("t5", "a T5 text encoder", ("encoder.block.0.layer.0.SelfAttention.q.weight",)),
    Kind("flux", "a Flux image model", ("double_blocks.0.img_attn.qkv.weight",)),
    Kind(
        "wan", "a Wan video model", ("blocks.0.self_attn.q.weight", "patch_embedding.weight", "text_embedding.0.weight")
    ),
    Kind("esrgan", "an image upscaler", ("body.0.rdb1.conv1.weight", "conv_first.weight")),
    Kind("old_esrgan", "an image upscaler", ("model.1.sub.0.RDB1.conv1.0.weight", "model.0.weight")),
    Kind("retinaface", "a face detector (RetinaFace)", ("ClassHead.0.conv1x1.weight", "fpn.output1.0.weight")),
    Kind("roformer", "a Roformer source separator", ("band_split.to_features.0.0.gamma",)),
    Kind(
        "resnet50",
        "a ResNet-50 (such as VGGFace2's resnet50_ft_weight.pkl)",
        ("conv1.weight", "layer1.0.downsample.0.weight", "layer4.0.conv3.weight", "fc.weight"),
    ),
)


def identify(state: Mapping[str, Any]) -> Kind | None:
    """The kind of file these tensors, or whatever has a `shape`, come from; None for one that is not known here."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in state.items():
        parts = name.split(".")
        for i in range(len(parts)):
            shapes.setdefault(".".join(parts[i:]), tuple(tensor.shape))

    def fits(kind: Kind) -> bool:
        return (
            all(name in shapes for name in kind.has)
            and not any(name in shapes for name in kind.lacks)
            and all(_same(shapes.get(name), shape) for name, shape in kind.shapes.items())
            and kind.count in (None, len(state))
        )

    return next((kind for kind in KINDS if fits(kind)), None)


def _same(shape: tuple[int, ...] | None, wanted: Shape) -> bool:
    return (
        shape is not None
        and len(shape) == len(wanted)
        and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))
    )


def network_prefix(kind: Kind, state: Mapping[str, Any]) -> str:
    """What stands before the names of a network of this kind: "", "module.", "model.lia." or anything else.

    Of several copies an averaged one counts rather than a plain one, the largest of those, and never a teacher's.
    """
    own = kind.has[-1]
    found = [name.removesuffix(own) for name in state if name == own or name.endswith(f".{own}")]
    whole = [prefix for prefix in found if all(prefix + name in state for name in kind.has)] or found
    sizes = {prefix: sum(name.startswith(prefix) for name in state) for prefix in whole}

    def rank(prefix: str) -> tuple[bool, bool, bool, int]:
        return (
            bool(_OTHER_COPIES.search(prefix)),
            not is_averaged(prefix),
            sizes[prefix] < max(sizes.values()),
            len(prefix),
        )

    return min(whole, key=rank, default="")


def is_averaged(prefix: str) -> bool:
    """Whether names with this prefix are those of an averaged copy of a network."""
    return bool(_AVERAGED_COPY.search(prefix))


_AVERAGED_COPY = re.compile(r"(^|[._])ema([._]|$)")
_OTHER_COPIES = re.compile(r"teacher|discriminator|loss|perceptual")


def describe(state: Mapping[str, Any]) -> str:
    """What the file is, for a sentence: "AniPortrait's pose guider", or the first names of an unknown one."""
    kind = identify(state)
    if kind:
        return kind.title
    return f"an unknown file with {len(state)} tensors ({', '.join(map(one_line, list(state)[:3]))} ...)"
