"""Every published file that the pack loads, by the names and shapes of its tensors alone: strictly, at its sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from talking_portrait.models.aniportrait import loading as aniportrait
from talking_portrait.models.aniportrait.pose_guider import PoseGuiderConfig
from talking_portrait.models.anitalker.encoder import EncoderConfig
from talking_portrait.models.anitalker.loading import build_stage1, build_stage2
from talking_portrait.models.anitalker.renderer import RendererConfig
from talking_portrait.models.anitalker.stage2 import Stage2Config
from talking_portrait.models.apasco.loading import build_net
from talking_portrait.models.apasco.networks import NetworksConfig
from talking_portrait.models.audiodvp import loading as audiodvp
from talking_portrait.models.audiodvp.audio_features import AudioFeaturesConfig
from talking_portrait.models.audiodvp.audio_to_expression import AudioToExpressionConfig
from talking_portrait.models.audiodvp.discriminator import DiscriminatorConfig
from talking_portrait.models.audiodvp.expression_regressor import ExpressionRegressorConfig
from talking_portrait.models.audiodvp.neural_renderer import NeuralRendererConfig
from talking_portrait.models.checkpoints import rename_keys, strict_load
from talking_portrait.models.diffusion.loading import load_unet
from talking_portrait.models.diffusion.unet import UNetConfig
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.models.gfpgan import GFPGANConfig, build_gfpgan
from talking_portrait.models.speech import loading as speech
from talking_portrait.models.syncanimation import loading as syncanimation
from talking_portrait.models.syncanimation.networks import NetworksConfig as SyncAnimationConfig
from talking_portrait.models.syncanimation.rendering.fields import HeadConfig, TorsoConfig
from talking_portrait.models.syncanimation.syncers import EmotionSyncerConfig, PoseSyncerConfig
from talking_portrait.models.syncnet import build_syncnet

from ..published import published_tensors

State = dict[str, torch.Tensor]


def averaged(build: Callable[..., Any]) -> Callable[..., Any]:
    def built(state: State, *, path: str) -> Any:
        own = {name.removeprefix("ema_model."): t for name, t in state.items() if name.startswith("ema_model.")}
        return build(own, path=path)

    return built


BUILDERS: dict[str, Callable[..., Any]] = {
    "aniportrait/audio2mesh.pt": aniportrait.build_audio2mesh,
    "aniportrait/audio2pose.pt": aniportrait.build_audio2pose,
    "aniportrait/denoising_unet.pth": load_unet,
    "aniportrait/denoising_unet_full_model": load_unet,
    "aniportrait/pose_guider.pth": aniportrait.build_pose_guider,
    "aniportrait/reference_unet.pth": load_unet,
    "anitalker/stage1": build_stage1,
    "anitalker/stage2_audio_only_hubert": averaged(build_stage2),
    "anitalker/stage2_full_control_hubert": averaged(build_stage2),
    "anitalker/stage2_full_control_mfcc": averaged(build_stage2),
    "anitalker/stage2_pose_only_hubert": averaged(build_stage2),
    "anitalker/stage2_pose_only_mfcc": averaged(build_stage2),
    "apasco/apasco_net_head_spelling": build_net,
    "apasco/hallo_net": build_net,
    "apasco/stage1_denoising_unet": load_unet,
    "apasco/stage1_reference_unet": load_unet,
    "evaluation/syncnet_v2": build_syncnet,
    "gfpgan/GFPGANv1.4": build_gfpgan,
    "personal/audiodvp_a2e": audiodvp.build_audio_to_expression,
    "personal/audiodvp_atnet": audiodvp.build_audio_features,
    "personal/audiodvp_patchgan": audiodvp.build_discriminator,
    "personal/audiodvp_resnet_face": audiodvp.build_expression_regressor,
    "personal/audiodvp_unet256_refine": audiodvp.build_neural_renderer,
    "personal/sa_emotion_syncer": syncanimation.build_emotion_syncer,
    "personal/sa_pose_syncer": syncanimation.build_pose_syncer,
    "personal/syncanimation_full_hubert": syncanimation.build_networks,
    "personal/synctalk_ave_encoder": syncanimation.build_audio_visual_encoder,
    "personal/synctalk_head_hubert_au45": syncanimation.build_head,
    "personal/synctalk_torso": syncanimation.build_renderer,
}

LACKING = {file: "conv_in.bias" for file in BUILDERS if "unet" in file} | {
    "aniportrait/audio2mesh.pt": "out_fn.bias",
    "aniportrait/audio2pose.pt": "pose_map_r.bias",
    "aniportrait/pose_guider.pth": "final_proj.bias",
    "anitalker/stage1": "dec.to_flows.0.conv.modulation.bias",
    "apasco/apasco_net_head_spelling": "denoising_unet.conv_in.bias",
    "apasco/hallo_net": "audioproj.norm.bias",
    "evaluation/syncnet_v2": "netfclip.3.bias",
    "gfpgan/GFPGANv1.4": "final_linear.bias",
    "personal/audiodvp_a2e": "fc.bias",
    "personal/audiodvp_atnet": "audio_eocder_fc.2.bias",
    "personal/audiodvp_patchgan": "model.11.bias",
    "personal/audiodvp_resnet_face": "fc.bias",
    "personal/audiodvp_unet256_refine": "model.model.4.bias",
    "personal/sa_emotion_syncer": "attr_map_net.arkit_output_2.bias",
    "personal/sa_pose_syncer": "attr_map_net.euler_p.bias",
    "personal/syncanimation_full_hubert": "au2BsNet.norm4.bias",
    "personal/synctalk_ave_encoder": "audio_encoder.12.conv_block.0.bias",
    "personal/synctalk_head_hubert_au45": "audio_att_net.attentionNet.0.bias",
    "personal/synctalk_torso": "torso_net.net.1.weight",
}
LACKING |= {file: "ema_model.coarse_decoder.encoders.1.norm_final.bias" for file in BUILDERS if "stage2_" in file}
"""A tensor of each file that no size is read from."""


@pytest.mark.parametrize("file", BUILDERS)
def test_it_loads_strictly(file: str) -> None:
    state = published_tensors(file)
    network = BUILDERS[file](state, path=file)
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    kinds = {tensor.device.type for name, tensor in network.state_dict().items() if name not in counters - set(state)}
    assert kinds == {"meta"}
    del state[LACKING[file]]
    with pytest.raises(TalkingPortraitError, match="1 missing"):
        BUILDERS[file](state, path=file)


@pytest.mark.parametrize(
    ("denoising", "motion"),
    [
        ("aniportrait/denoising_unet.pth", "aniportrait/motion_module.pth"),
        ("apasco/stage1_denoising_unet", "apasco/motion_module_mm_sd_v15_v2"),
    ],
)
def test_a_unet_and_its_motion_modules_are_one_network(denoising: str, motion: str) -> None:
    whole = load_unet({**published_tensors(motion), **published_tensors(denoising)}, path="both")
    assert whole.config == UNetConfig(motion_frames=32)


def test_sizes_are_the_published_ones() -> None:
    def config(file: str) -> Any:
        return BUILDERS[file](published_tensors(file), path=file).config

    assert config("aniportrait/reference_unet.pth") == UNetConfig(output=False)
    assert config("aniportrait/denoising_unet_full_model") == UNetConfig(motion_frames=32)
    assert config("aniportrait/pose_guider.pth") == PoseGuiderConfig()
    assert config("apasco/hallo_net") == config("apasco/apasco_net_head_spelling") == NetworksConfig()
    assert config("gfpgan/GFPGANv1.4") == GFPGANConfig()
    assert config("personal/audiodvp_a2e") == AudioToExpressionConfig()
    assert config("personal/audiodvp_atnet") == AudioFeaturesConfig()
    assert config("personal/audiodvp_patchgan") == DiscriminatorConfig()
    assert config("personal/audiodvp_resnet_face") == ExpressionRegressorConfig()
    assert config("personal/audiodvp_unet256_refine") == NeuralRendererConfig()
    assert config("personal/sa_emotion_syncer") == EmotionSyncerConfig()
    assert config("personal/sa_pose_syncer") == PoseSyncerConfig()
    assert config("personal/syncanimation_full_hubert") == SyncAnimationConfig()
    assert config("personal/synctalk_head_hubert_au45") == HeadConfig(expressions=1, expression_hidden=16)
    torso = syncanimation.build_renderer(published_tensors("personal/synctalk_torso"), path="torso")
    assert (torso.head.config, torso.torso.config) == (HeadConfig(channels=512, linear_audio=True), TorsoConfig())
    assert config("anitalker/stage2_full_control_hubert") == Stage2Config(middle=0)
    for file in BUILDERS:
        if file.startswith("anitalker/stage2_"):
            variant = config(file).variant
            assert file == f"anitalker/stage2_{variant.partition('_')[2]}_{variant.partition('_')[0]}"
    stage1 = build_stage1(published_tensors("anitalker/stage1"), path="stage1")
    assert (stage1.enc.config, stage1.dec.config) == (EncoderConfig(), RendererConfig())


def test_the_large_hubert_has_a_place_for_every_tensor() -> None:
    state = rename_keys(published_tensors("anitalker/chinese-hubert-large"), speech.WEIGHT_NORM)
    strict_load(speech.build(speech.derive_config(state), hubert=True), state, path="hubert")
