"""Every published model file that the pack can use: where it lies, where it goes, under which licence.

Sizes and checksums stand here only where they are published; None means unknown. Where a page rounds the size, or the
shapes of the tensors give it, it stands as `about`. "see the page" stands where a page's licence for the weights was
not read by us. Sources: the model pages, the systems' own instructions, and the checksums that their hosts publish.
"""

from __future__ import annotations

from .model_file import HUGGING_FACE, SEE_PAGE, ModelFile

INSIGHTFACE_TERMS = "non-commercial research only (InsightFace)"


def _aniportrait(
    name: str, file: str, purpose: str, sha256: str, size: int | None = None, about: int | None = None
) -> ModelFile:
    return ModelFile(
        name=f"aniportrait_{name}",
        file=f"aniportrait/{file}",
        folder="talking_portrait",
        systems=("aniportrait",),
        page=f"{HUGGING_FACE}/ZJYang/AniPortrait",
        source=f"ZJYang/AniPortrait/{file}",
        size=size,
        about=about,
        sha256=sha256,
        code_licence="Apache-2.0",
        purpose=purpose,
    )


def _anitalker(
    name: str, file: str, purpose: str, sha256: str, size: int | None = None, about: int | None = None
) -> ModelFile:
    return ModelFile(
        name=f"anitalker_{name}",
        file=f"anitalker/{file}",
        folder="talking_portrait",
        systems=("anitalker",),
        page=f"{HUGGING_FACE}/taocode/anitalker_ckpts",
        source=f"taocode/anitalker_ckpts/{file}",
        size=size,
        about=about,
        sha256=sha256,
        code_licence="Apache-2.0",
        purpose=purpose,
    )


def _antelope(file: str, sha256: str, size: int, purpose: str) -> ModelFile:
    return ModelFile(
        name=f"antelope_{file.removesuffix('.onnx')}",
        file=f"insightface/{file}",
        folder="talking_portrait",
        systems=("apasco", "evaluation"),
        page=f"{HUGGING_FACE}/fudan-generative-ai/hallo",
        source=f"fudan-generative-ai/hallo/face_analysis/models/{file}",
        size=size,
        sha256=sha256,
        code_licence="MIT",
        weight_licence=INSIGHTFACE_TERMS,
        purpose=purpose,
    )


def _evaluation(
    name: str, file: str, page: str, source: str, size: int, sha256: str, licences: tuple[str, str], purpose: str
) -> ModelFile:
    """`licences` of the code and of the weights."""
    return ModelFile(
        name=name,
        file=f"evaluation/{file}",
        folder="talking_portrait",
        systems=("evaluation",),
        page=page,
        source=source,
        size=size,
        sha256=sha256,
        code_licence=licences[0],
        weight_licence=licences[1],
        purpose=purpose,
    )


def _audiodvp(name: str, file: str, page: str, weight_licence: str, purpose: str, by_hand: str) -> ModelFile:
    return ModelFile(
        name=f"audiodvp_{name}",
        file=f"audiodvp/{file}",
        folder="talking_portrait",
        systems=("audiodvp",),
        page=page,
        code_licence="BSD, says the reference's README",
        weight_licence=weight_licence,
        purpose=purpose,
        by_hand=by_hand,
    )


BFM_BY_HAND = "optional: register there and accept its licence; the default face model needs none of this"

MODEL_FILES: tuple[ModelFile, ...] = (
    ModelFile(
        name="face_landmarker",
        file="face_landmarker.task",
        folder="detection",
        systems=("instant", "aniportrait", "apasco", "audiodvp", "syncanimation"),
        page="https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker",
        source=(
            "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
            "face_landmarker.task"
        ),
        size=3758596,
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        code_licence="Apache-2.0",
        weight_licence="Apache-2.0",
        purpose="optional: 478 face points and 52 learnt expression scores (mediapipe); the shipped networks give 468",
    ),
    ModelFile(
        name="kim_vocal_2",
        file="Kim_Vocal_2.onnx",
        folder="talking_portrait",
        systems=("vocals", "aniportrait", "apasco"),
        page="https://github.com/TRvlvr/model_repo/releases/tag/all_public_uvr_models",
        source="https://github.com/TRvlvr/model_repo/releases/download/all_public_uvr_models/Kim_Vocal_2.onnx",
        size=66759214,
        sha256="ce74ef3b6a6024ce44211a07be9cf8bc6d87728cc852a68ab34eb8e58cde9c8b",
        code_licence="MIT (audio-separator)",
        purpose="separates a voice from music",
    ),
    ModelFile(
        name="wav2vec2_base_960h",
        file="wav2vec2-base-960h.safetensors",
        folder="audio_encoders",
        systems=("aniportrait", "apasco"),
        page=f"{HUGGING_FACE}/facebook/wav2vec2-base-960h",
        source="facebook/wav2vec2-base-960h/model.safetensors",
        size=377607901,
        sha256="8aa76ab2243c81747a1f832954586bc566090c83a0ac167df6f31f0fa917d74a",
        code_licence="Apache-2.0 (transformers)",
        weight_licence="Apache-2.0",
        purpose="speech features of AniPortrait and Hallo",
    ),
    ModelFile(
        name="chinese_hubert_large",
        file="chinese-hubert-large.bin",
        folder="audio_encoders",
        systems=("anitalker", "audiodvp", "syncanimation"),
        page=f"{HUGGING_FACE}/TencentGameMate/chinese-hubert-large",
        source="TencentGameMate/chinese-hubert-large/pytorch_model.bin",
        about=1_260_000_000,
        code_licence="Apache-2.0 (transformers)",
        purpose="speech features of AniTalker",
    ),
    ModelFile(
        name="sd_vae_ft_mse",
        file="sd-vae-ft-mse.safetensors",
        folder="vae",
        systems=("aniportrait", "apasco"),
        page=f"{HUGGING_FACE}/stabilityai/sd-vae-ft-mse",
        source="stabilityai/sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
        size=334643276,
        sha256="a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
        code_licence="Apache-2.0 (diffusers)",
        weight_licence="MIT",
        purpose="pictures to latents and back",
    ),
    ModelFile(
        name="sd_image_variations_encoder",
        file="sd-image-variations-image-encoder.bin",
        folder="clip_vision",
        systems=("aniportrait",),
        page=f"{HUGGING_FACE}/lambdalabs/sd-image-variations-diffusers",
        source="lambdalabs/sd-image-variations-diffusers/image_encoder/pytorch_model.bin",
        size=1215993967,
        sha256="89d2aa29b5fdf64f3ad4f45fb4227ea98bc45156bbae673b85be1af7783dbabb",
        code_licence="Apache-2.0 (transformers)",
        weight_licence="CreativeML OpenRAIL-M",
        purpose="CLIP image token of AniPortrait (ViT-L/14)",
    ),
    _aniportrait(
        "reference_unet",
        "reference_unet.pth",
        "features of the portrait",
        "2e3603f7d44917ca3330a4a4be81b9578b308e9b9e3398fd6b8a1c4c86c474bd",
        3438324501,
    ),
    _aniportrait(
        "denoising_unet",
        "denoising_unet.pth",
        "the denoiser",
        "ddc4990e0d33dd5393190e8609fd7b32bfc0b5c386763624a3bff8038e0c054c",
        about=3_440_000_000,
    ),
    _aniportrait(
        "motion_module",
        "motion_module.pth",
        "attention over time",
        "954aee616a81f143e0316d210445d1933cca05a397c760661b7046738c4c1f06",
        1817900817,
    ),
    _aniportrait(
        "pose_guider",
        "pose_guider.pth",
        "reads the landmark drawing",
        "b6e8a6c72efcbb4ed49421baeb2c218b6047e94f5f0c90b554748019f757e64f",
        670182863,
    ),
    _aniportrait(
        "audio2mesh",
        "audio2mesh.pt",
        "speech to face shapes",
        "04996bebdad780a33642b0046036dae5d3c6db76e8f4ef5860e551fb9a1f0a1a",
        about=382_000_000,
    ),
    _aniportrait(
        "audio2pose",
        "audio2pose.pt",
        "speech to head pose",
        "e61ffd104f8d1fe40476de1a8df9050559315976c830e5fdead1c31d1c5661f3",
        about=482_000_000,
    ),
    _anitalker(
        "stage1",
        "stage1.ckpt",
        "motion encoder and renderer",
        "cb07be497b8c3e6c32a0b6f960d958a1e03d3ee82982f6f1e7bc972077d3f36f",
        about=188_000_000,
    ),
    _anitalker(
        "audio_only_hubert",
        "stage2_audio_only_hubert.ckpt",
        "speech to motion, HuBERT, nothing else",
        "7b9c6c027ff8bfc2b9ab2531d68eb52d9c2e89bbde67cea271ff67a89c2a436e",
        342029570,
    ),
    _anitalker(
        "pose_only_hubert",
        "stage2_pose_only_hubert.ckpt",
        "speech to motion, HuBERT, with head pose",
        "b0e18c9cb2c2f6c3a31aa498c4871cea3f70bed5d24165537b7e044784102ed0",
        347857390,
    ),
    _anitalker(
        "full_control_hubert",
        "stage2_full_control_hubert.ckpt",
        "speech to motion, HuBERT, all controls",
        "cf5783a946f69eaf5ec3baa31677838c7af8bbdd5986258e070326d962125a2b",
        359493190,
    ),
    _anitalker(
        "pose_only_mfcc",
        "stage2_pose_only_mfcc.ckpt",
        "speech to motion, MFCC, with head pose",
        "c0c27b3e4d3282f4a62ed1ab1e3bb983004d0b39238c66135973874101f1f459",
        237213440,
    ),
    _anitalker(
        "full_control_mfcc",
        "stage2_full_control_mfcc.ckpt",
        "speech to motion, MFCC, all controls",
        "6e6746d2e50def9cda65f96edf748ac158c5a8dc3743c86584381dd8e760a177",
        248849176,
    ),
    ModelFile(
        name="gfpgan",
        file="GFPGANv1.4.pth",
        folder="upscale_models",
        systems=("anitalker", "restore"),
        page="https://github.com/TencentARC/GFPGAN/releases/tag/v1.3.0",
        source="https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/GFPGANv1.4.pth",
        size=348632874,
        sha256="e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
        code_licence="Apache-2.0",
        purpose="optional: restores and enlarges faces",
    ),
    ModelFile(
        name="hallo_net",
        file="hallo/net.pth",
        folder="talking_portrait",
        systems=("apasco",),
        page=f"{HUGGING_FACE}/fudan-generative-ai/hallo",
        source="fudan-generative-ai/hallo/hallo/net.pth",
        about=4_850_000_000,
        code_licence="MIT",
        purpose="all trained parts of Hallo, which APasco shares",
    ),
    _antelope(
        "scrfd_10g_bnkps.onnx",
        "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
        16923827,
        "finds the face for its identity embedding",
    ),
    _antelope(
        "glintr100.onnx",
        "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
        260665334,
        "identity embedding of the face",
    ),
    ModelFile(
        name="sd15_unet",
        file="stable-diffusion-v1-5-unet.safetensors",
        folder="diffusion_models",
        systems=("training",),
        page=f"{HUGGING_FACE}/stable-diffusion-v1-5/stable-diffusion-v1-5",
        source="stable-diffusion-v1-5/stable-diffusion-v1-5/unet/diffusion_pytorch_model.safetensors",
        size=3438167540,
        sha256="19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1",
        code_licence="Apache-2.0 (diffusers)",
        weight_licence="CreativeML OpenRAIL-M",
        purpose="starting point for training AniPortrait or Hallo anew",
    ),
    ModelFile(
        name="animatediff_v15_v2",
        file="mm_sd_v15_v2.ckpt",
        folder="talking_portrait",
        systems=("training",),
        page=f"{HUGGING_FACE}/guoyww/animatediff",
        source="guoyww/animatediff/mm_sd_v15_v2.ckpt",
        size=1817888431,
        sha256="69ed0f5fef82b110aca51bcab73b21104242bc65d6ab4b8b2a2a94d31cad1bf0",
        code_licence="Apache-2.0",
        purpose="starting point for training motion modules",
    ),
    _audiodvp(
        "atnet",
        "atnet_lstm_18.pth",
        "https://github.com/lelechen63/ATVGnet",
        SEE_PAGE,
        "optional: the reference's speech features",
        "optional: follow the README there; any of our speech encoders serves as well",
    ),
    _audiodvp(
        "bfm2009",
        "01_MorphableModel.mat",
        "https://faces.dmi.unibas.ch/bfm/",
        "Basel Face Model licence, non-commercial, not to be passed on",
        "optional: face model of the reference",
        BFM_BY_HAND,
    ),
    _audiodvp(
        "expression_basis",
        "Exp_Pca.bin",
        "https://github.com/Juyong/3DFace",
        "GPL",
        "optional: expression basis of the reference",
        BFM_BY_HAND,
    ),
    ModelFile(
        name="synctalk_audio_visual_encoder",
        file="syncanimation/audio_visual_encoder.pth",
        folder="talking_portrait",
        systems=("syncanimation",),
        page="https://github.com/ZiqiaoPeng/SyncTalk",
        code_licence="CC BY-NC 4.0",
        weight_licence="CC BY-NC 4.0",
        purpose="optional: SyncTalk's speech features",
        by_hand="optional: it is part of that repository; HuBERT serves as well",
    ),
    _evaluation(
        "syncnet",
        "syncnet_v2.model",
        "https://github.com/joonson/syncnet_python",
        "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
        54573114,
        "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
        ("MIT", SEE_PAGE),
        "optional: SyncNet's distance between lips and sound",
    ),
    _evaluation(
        "lpips_alex",
        "alex.pth",
        "https://github.com/richzhang/PerceptualSimilarity",
        "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
        6009,
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        ("BSD-2-Clause", "BSD-2-Clause"),
        "optional: LPIPS against a reference, with alexnet",
    ),
    _evaluation(
        "alexnet",
        "alexnet-owt-7be5be79.pth",
        "https://pytorch.org/vision/stable/models/alexnet.html",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        244408911,
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        ("BSD-3-Clause (torchvision)", SEE_PAGE),
        "optional: features for lpips_alex",
    ),
)
