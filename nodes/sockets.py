"""The types of our own sockets, and those of ComfyUI that its node API has no names for."""

from __future__ import annotations

from . import host

FaceLandmarks = host.io.Custom("FACE_LANDMARKS")
"""ComfyUI's own payload, so its landmark nodes and ours can feed each other."""
CoreAudioEncoder = host.io.Custom("AUDIO_ENCODER")
SpeechEncoderSocket = host.io.Custom("TALKING_PORTRAIT_SPEECH_ENCODER")
SpeechFeaturesSocket = host.io.Custom("TALKING_PORTRAIT_SPEECH_FEATURES")
FaceMotionSocket = host.io.Custom("TALKING_PORTRAIT_FACE_MOTION")
FaceRestorerSocket = host.io.Custom("TALKING_PORTRAIT_FACE_RESTORER")
UpscaleModel = host.io.Custom("UPSCALE_MODEL")
InterpolationModel = host.io.Custom("INTERP_MODEL")
"""ComfyUI's own, since the version that has Load Frame Interpolation Model."""
CropSocket = host.io.Custom("TALKING_PORTRAIT_CROP")
AniTalkerSocket = host.io.Custom("TALKING_PORTRAIT_ANITALKER")
MotionLatentsSocket = host.io.Custom("TALKING_PORTRAIT_MOTION_LATENTS")
APascoSocket = host.io.Custom("TALKING_PORTRAIT_APASCO")
APascoStateSocket = host.io.Custom("TALKING_PORTRAIT_APASCO_STATE")
FaceEmbeddingSocket = host.io.Custom("TALKING_PORTRAIT_FACE_EMBEDDING")
RegionMasksSocket = host.io.Custom("TALKING_PORTRAIT_REGION_MASKS")
AniPortraitSocket = host.io.Custom("TALKING_PORTRAIT_ANIPORTRAIT")
AniPortraitStateSocket = host.io.Custom("TALKING_PORTRAIT_ANIPORTRAIT_STATE")
