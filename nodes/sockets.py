"""The types of our own sockets, and those of ComfyUI that its node API has no names for."""

from __future__ import annotations

from .host import io

FaceLandmarks = io.Custom("FACE_LANDMARKS")
"""ComfyUI's own payload, so its landmark nodes and ours can feed each other."""
CoreAudioEncoder = io.Custom("AUDIO_ENCODER")
SpeechEncoderSocket = io.Custom("TALKING_PORTRAIT_SPEECH_ENCODER")
SpeechFeaturesSocket = io.Custom("TALKING_PORTRAIT_SPEECH_FEATURES")
FaceMotionSocket = io.Custom("TALKING_PORTRAIT_FACE_MOTION")
FaceRestorerSocket = io.Custom("TALKING_PORTRAIT_FACE_RESTORER")
UpscaleModel = io.Custom("UPSCALE_MODEL")
InterpolationModel = io.Custom("INTERP_MODEL")
"""ComfyUI's own, since the version that has Load Frame Interpolation Model."""
BoundingBoxes = io.Custom("BOUNDING_BOX")
"""ComfyUI's boxes of what was detected, a list for each picture."""
Curve = io.Custom("CURVE")
"""What ComfyUI's Curve Editor draws; see `inputs.curve_inputs`."""
CropSocket = io.Custom("TALKING_PORTRAIT_CROP")
AniTalkerSocket = io.Custom("TALKING_PORTRAIT_ANITALKER")
MotionLatentsSocket = io.Custom("TALKING_PORTRAIT_MOTION_LATENTS")
APascoSocket = io.Custom("TALKING_PORTRAIT_APASCO")
APascoStateSocket = io.Custom("TALKING_PORTRAIT_APASCO_STATE")
FaceEmbeddingSocket = io.Custom("TALKING_PORTRAIT_FACE_EMBEDDING")
RegionMasksSocket = io.Custom("TALKING_PORTRAIT_REGION_MASKS")
AniPortraitSocket = io.Custom("TALKING_PORTRAIT_ANIPORTRAIT")
AniPortraitStateSocket = io.Custom("TALKING_PORTRAIT_ANIPORTRAIT_STATE")
AudioDVPSocket = io.Custom("TALKING_PORTRAIT_AUDIODVP")
DriverSocket = io.Custom("TALKING_PORTRAIT_DRIVER")
SyncAnimationSocket = io.Custom("TALKING_PORTRAIT_SYNCANIMATION")
PersonSocket = io.Custom("TALKING_PORTRAIT_PERSON")
