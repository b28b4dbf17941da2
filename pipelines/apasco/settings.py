"""What APasco is run with: networks, settings, inputs, state; and what is wrong with them in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from ...models.diffusion.layout import MOTION_FRAMES
from ..diffusion.latents import LATENT_SIDE
from ..diffusion.reduced_steps import check_reduced_steps, is_guided
from ..diffusion.samplers import NoiseSchedule, scheduled_betas
from ..errors import TalkingPortraitError, check_seed, one_line
from ..memory import Managed
from ..types import FaceMotion, FaceTrack, SpeechFeatures
from .geometry import Geometry
from .masks import RegionMasks

if TYPE_CHECKING:
    from ...models.apasco import networks as models

Schedule = Literal["linear", "scaled_linear"]
SCHEDULES: tuple[Schedule, ...] = ("linear", "scaled_linear")
"""The first is what Hallo's program samples with, the second what its networks were trained with."""


@dataclass(frozen=True)
class Networks:
    """The networks of net.pth where someone manages their memory, all of one `dtype`."""

    reference_unet: Managed
    denoising_unet: Managed
    face_locator: Managed
    imageproj: Managed
    audioproj: Managed
    mesh_encoder: Managed | None
    dtype: torch.dtype
    config: models.NetworksConfig

    @staticmethod
    def of(networks: models.Networks, manage: Callable[[torch.nn.Module], Managed]) -> Networks:
        """`manage` wraps each of them."""
        return Networks(
            manage(networks.reference_unet),
            manage(networks.denoising_unet),
            manage(networks.face_locator),
            manage(networks.imageproj),
            manage(networks.audioproj),
            manage(networks.mesh_encoder) if networks.mesh_encoder else None,
            networks.denoising_unet.conv_in.weight.dtype,
            networks.config,
        )


@dataclass(frozen=True)
class Settings:
    """How to sample.

    As published:
        size: (height, width) of the frames, multiples of 8; 512 x 512 is what the networks were trained on.
        clip: frames that are sampled together, at most 30 with the published motion modules.
        steps: denoising steps, 1..1000.
        cfg: classifier-free guidance; 1 and less go without, at half the cost.
        seed: 0..2**64 - 1; the noise of all clips is one stream of it.
        schedule: see `SCHEDULES`.
        weights: how much speech moves what is outside the face ("pose"), the face, and the lips.
        geometry: how much the mesh shapes it, where there is one.
        past_frames: frames before a clip that it continues.
        mixed_rows: the published program gives the tokens and the picture of conditional rows to unconditional ones in
            turn, and its results come from that; without, each row gets its own.
        rounded_bank: whether the reference UNet's tokens are kept in half precision, as published.
        decode_batch: frames that the VAE decodes at once; halved by itself when memory runs out.
        compiled: let torch.compile translate the denoising UNet's blocks; slow at first, then faster on a GPU.

    These give other numbers, for less time:
        guided: the part of the steps, in 0..1 from the first to the last, in which guidance is used.
        deep_every: every how many steps the deep layers are computed; in between their last output is used (DeepCache,
            Ma et al. 2024). 1 computes always.

    Against flicker and drift, each off by default:
        shared_noise: every clip begins with the same noise.
        overlap: frames that two clips share, one fading into the other; each clip then yields so many frames less.
        deflicker: 0..1, how much latents are averaged over three frames, outside the lips.
        anchoring: 0..1, how much the colours of each clip are drawn to the portrait's.
    """

    size: tuple[int, int] = (512, 512)
    clip: int = 16
    steps: int = 40
    cfg: float = 3.5
    seed: int = 42
    schedule: Schedule = "linear"
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    geometry: float = 1.0
    past_frames: int = MOTION_FRAMES
    mixed_rows: bool = True
    rounded_bank: bool = True
    decode_batch: int = 4
    compiled: bool = False
    guided: tuple[float, float] = (0.0, 1.0)
    deep_every: int = 1
    shared_noise: bool = False
    overlap: int = 0
    deflicker: float = 0.0
    anchoring: float = 0.0

    @property
    def has_guidance(self) -> bool:
        """Whether there is an unconditional row beside the conditional one, in some steps at least."""
        return self.cfg > 1

    def is_guided(self, step: int) -> bool:
        """Whether guidance is used in this step, counted from 0."""
        return is_guided(step, self.steps, self.cfg, self.guided)

    @property
    def latent_size(self) -> tuple[int, int]:
        return self.size[0] // LATENT_SIDE, self.size[1] // LATENT_SIDE

    @property
    def rounding(self) -> torch.dtype | None:
        return torch.float16 if self.rounded_bank else None

    def noise_schedule(self) -> NoiseSchedule:
        return NoiseSchedule.of(scheduled_betas(self.schedule))


@dataclass(frozen=True)
class Inputs:
    """What is animated, and by what.

    `portrait` (H, W, 3) in 0..1, squeezed to `Settings.size` as published, so crop it to that shape before.
    `embedding` (1, 512) of its face; `masks` of its regions. `speech` features of a speech encoder, all layers, one row
    for each frame of the whole speech. `geometry` a moving mesh, or the landmarks or the motion that give one, or None.
    """

    portrait: torch.Tensor
    embedding: torch.Tensor
    masks: RegionMasks
    speech: SpeechFeatures
    geometry: Geometry | FaceTrack | FaceMotion | None = None


@dataclass(frozen=True)
class AnimationState:
    """What a next call needs to go on where this one ended; all on the CPU.

    `frames` how many there have been altogether. `motion` (n, H, W, 3) the last ones of them. `noise` the state of the
    generator. `held` (1, 4, n, h, w) latents of frames that are to be faded into the next clip's, `last`
    (1, 4, 1, h, w) those of the last frame.
    """

    frames: int
    motion: torch.Tensor
    noise: torch.Tensor
    held: torch.Tensor
    last: torch.Tensor


def check_settings(settings: Settings) -> None:
    """Raises TalkingPortraitError for settings that cannot work with any networks."""
    height, width = settings.size
    if height < 64 or width < 64 or height % LATENT_SIDE or width % LATENT_SIDE:
        raise TalkingPortraitError(
            f"Frames of {width} x {height} pixels are requested, but sides of 64 and more in steps of {LATENT_SIDE} "
            "are expected; 512 x 512 suits the networks best."
        )
    if settings.clip < 1:
        raise TalkingPortraitError(
            f"The clip length is {settings.clip} frames, but 1 or more is expected; 16 is the published length."
        )
    if not 0 <= settings.overlap <= settings.clip // 2:
        raise TalkingPortraitError(
            f"Clips of {settings.clip} frames are to overlap by {settings.overlap}, but 0 to {settings.clip // 2} are "
            "possible."
        )
    if not 1 <= settings.steps <= 1000:
        raise TalkingPortraitError(f"Sampling in {settings.steps} steps was requested, but 1 to 1000 are possible.")
    if settings.schedule not in SCHEDULES:
        raise TalkingPortraitError(
            f'The schedule is "{one_line(settings.schedule)}", but {" or ".join(SCHEDULES)} is expected; linear is the '
            "published one."
        )
    check_seed(settings.seed)
    # Named as the node's inputs are.
    for name, strength in (("calming", settings.deflicker), ("anchoring", settings.anchoring)):
        if not 0 <= strength <= 1:
            raise TalkingPortraitError(f"The {name} is {strength}, but 0 to 1 is expected.")
    if not torch.tensor([settings.cfg, settings.geometry, *settings.weights]).isfinite().all():
        raise TalkingPortraitError("The guidance or a weight is no finite number; 3.5 and 1 are the published ones.")
    check_reduced_steps(settings.cfg, settings.guided, settings.deep_every)


def check_clip(settings: Settings, networks: Networks) -> None:
    """Raises TalkingPortraitError for a clip that these networks' motion modules cannot take."""
    longest = networks.config.denoising_unet.motion_frames - settings.past_frames
    if not 1 <= settings.clip <= longest:
        raise TalkingPortraitError(
            f"The clip length is {settings.clip} frames, but the motion modules take 1 to {longest} beside the "
            f"{settings.past_frames} before a clip; 16 is the published length."
        )


def check_inputs(inputs: Inputs, settings: Settings, networks: Networks) -> None:
    """Raises TalkingPortraitError for a portrait, an embedding, masks or a mesh that these networks cannot take."""
    shape = tuple(inputs.portrait.shape)
    if len(shape) != 3 or shape[-1] != 3 or 0 in shape:
        raise TalkingPortraitError(
            f"The portrait is a tensor of the shape {shape}, but (height, width, 3) is expected."
        )
    wanted = networks.config.face_embedding
    if tuple(inputs.embedding.shape) != (1, wanted):
        raise TalkingPortraitError(
            f"The face embedding has the shape {tuple(inputs.embedding.shape)}, but (1, {wanted}) is expected; take it "
            "from glintr100.onnx."
        )
    if inputs.masks.image_size != shape[:2]:
        height, width = inputs.masks.image_size
        raise TalkingPortraitError(
            f"The region masks are made for a picture of {width} x {height} pixels, but the portrait has {shape[1]} x "
            f"{shape[0]}; make them from the landmarks of this very picture."
        )
    if inputs.speech.timing != "resampled":
        raise TalkingPortraitError(
            f"The speech features are in the {inputs.speech.timing} timing, but one row for each frame of the video is "
            "expected; choose resampled in Encode Speech."
        )
    if inputs.geometry is not None and networks.mesh_encoder is None:
        raise TalkingPortraitError(
            "This checkpoint has no mesh encoder, so it cannot use the face geometry; disconnect it, or load weights "
            "that were trained with it (this pack's command train apasco-stage2 --geometry, docs/training.md)."
        )


def check_state(state: AnimationState | None, settings: Settings) -> None:
    """Raises TalkingPortraitError for a state that these settings cannot continue."""
    if state is None:
        return
    height, width = state.motion.shape[1:3]
    if (height, width) != settings.size or len(state.motion) != settings.past_frames:
        raise TalkingPortraitError(
            f"The previous clip was {width} x {height} pixels with {len(state.motion)} frames to look back at, but "
            f"{settings.size[1]} x {settings.size[0]} and {settings.past_frames} are requested now; a video can only "
            "be continued in its size."
        )
