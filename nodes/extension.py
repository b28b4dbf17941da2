"""The list of this pack's nodes, as ComfyUI requests it."""

from __future__ import annotations

from typing import Any

from . import host
from .face.crop_portrait import CropPortrait
from .face.detect_landmarks import DetectLandmarks
from .face.face_embedding import FaceEmbedding
from .face.load_face_restorer import LoadFaceRestorer
from .face.paste_back import PasteBack
from .face.region_masks import RegionMasks
from .face.restore_faces import RestoreFaces
from .input.example import Example
from .motion.aniportrait_audio_motion import AniPortraitAudioMotion
from .motion.anitalker_motion import AniTalkerMotion
from .motion.anitalker_motion_from_video import AniTalkerMotionFromVideo
from .motion.draw_pose import DrawPose
from .motion.edit_motion import EditMotion
from .motion.instant_driver import InstantDriver
from .motion.load_anitalker import LoadAniTalker
from .motion.preview_motion import PreviewMotion
from .motion.reenact_motion import ReenactMotion
from .output.detect_mark import DetectMark
from .output.evaluate_video import EvaluateVideo
from .person.audiodvp_drive import AudioDVPDrive
from .person.load_audiodvp import LoadAudioDVP
from .person.load_instant_driver import LoadInstantDriver
from .person.load_syncanimation import LoadSyncAnimation
from .person.prepare_person import PreparePerson
from .person.syncanimation_drive import SyncAnimationDrive
from .person.train_audiodvp import TrainAudioDVP
from .person.train_instant_driver import TrainInstantDriver
from .person.train_syncanimation import TrainSyncAnimation
from .render.aniportrait_sampler import AniPortraitSampler
from .render.anitalker_render import AniTalkerRender
from .render.apasco_sampler import APascoSampler
from .render.dub_video import DubVideo
from .render.frame_interpolation import FrameInterpolation
from .render.instant_render import InstantRender
from .render.load_aniportrait import LoadAniPortrait
from .render.load_apasco import LoadAPasco
from .speech.encode_speech import EncodeSpeech
from .speech.load_speech_encoder import LoadSpeechEncoder
from .speech.separate_vocals import SeparateVocals
from .speech.speech_mfcc import SpeechMFCC

NODES: tuple[Any, ...] = (
    Example,
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
    DubVideo,
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
    PreparePerson,
    TrainAudioDVP,
    LoadAudioDVP,
    AudioDVPDrive,
    TrainInstantDriver,
    EvaluateVideo,
    DetectMark,
    TrainSyncAnimation,
    LoadSyncAnimation,
    SyncAnimationDrive,
    LoadInstantDriver,
)


class TalkingPortraitExtension(host.ComfyExtension):
    """All nodes of the pack."""

    def __init__(self) -> None:
        host.register_model_folders()
        host.warn_of_another_copy(NODES[0].define_schema().node_id)

    async def get_node_list(self) -> list[type[Any]]:
        return list(NODES)
