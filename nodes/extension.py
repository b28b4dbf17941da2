"""The list of this pack's nodes, as ComfyUI asks for it."""

from __future__ import annotations

from typing import Any

from . import host
from .aniportrait_audio_motion import AniPortraitAudioMotion
from .aniportrait_sampler import AniPortraitSampler
from .anitalker_motion import AniTalkerMotion
from .anitalker_motion_from_video import AniTalkerMotionFromVideo
from .anitalker_render import AniTalkerRender
from .apasco_sampler import APascoSampler
from .crop_portrait import CropPortrait
from .detect_landmarks import DetectLandmarks
from .draw_pose import DrawPose
from .edit_motion import EditMotion
from .encode_speech import EncodeSpeech
from .face_embedding import FaceEmbedding
from .frame_interpolation import FrameInterpolation
from .instant_driver import InstantDriver
from .instant_render import InstantRender
from .load_aniportrait import LoadAniPortrait
from .load_anitalker import LoadAniTalker
from .load_apasco import LoadAPasco
from .load_face_restorer import LoadFaceRestorer
from .load_speech_encoder import LoadSpeechEncoder
from .paste_back import PasteBack
from .preview_motion import PreviewMotion
from .reenact_motion import ReenactMotion
from .region_masks import RegionMasks
from .restore_faces import RestoreFaces
from .sample import Sample
from .separate_vocals import SeparateVocals
from .speech_mfcc import SpeechMFCC

NODES: tuple[Any, ...] = (
    Sample,
    SeparateVocals,
    LoadSpeechEncoder,
    EncodeSpeech,
    SpeechMFCC,
    DetectLandmarks,
    CropPortrait,
    PasteBack,
    InstantDriver,
    ReenactMotion,
    EditMotion,
    PreviewMotion,
    InstantRender,
    LoadFaceRestorer,
    RestoreFaces,
    LoadAniTalker,
    AniTalkerMotion,
    AniTalkerMotionFromVideo,
    AniTalkerRender,
    LoadAniPortrait,
    AniPortraitAudioMotion,
    DrawPose,
    AniPortraitSampler,
    FrameInterpolation,
    FaceEmbedding,
    RegionMasks,
    LoadAPasco,
    APascoSampler,
)


class TalkingPortraitExtension(host.ComfyExtension):
    """All nodes of the pack."""

    def __init__(self) -> None:
        host.register_model_folders()

    async def get_node_list(self) -> list[type[Any]]:
        return list(NODES)
