"""APasco and Hallo, whole: a portrait and speech features become frames, clip by clip.

    for clip in animate(networks, codec, inputs, Settings(), progress=progress):
        clip.frames     # (n, H, W, 3), as they are finished
        clip.state      # what a next call continues from

Each clip continues the last two frames of the one before. What is held does not grow with the speech, whose
rows set the number of frames: there is one for each. The last clip is sampled whole and cut;
silence that fills it (`SpeechFeatures.padding`), as in the published program, gives no frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ...models.diffusion.audio_attention import Speech
from ...models.diffusion.unet import UNet
from ..diffusion.latents import ImageCodec, decoded, rough_picture
from ..errors import TalkingPortraitError
from ..memory import loaded
from ..types import Progress, no_progress
from .audio_context import audio_layers, audio_windows
from .deflicker import faded, smooth_over_time
from .denoising import Denoiser, denoise
from .geometry import as_geometry
from .pictures import match_colours
from .portrait import PreparedPortrait, prepare_portrait, with_motion
from .settings import AnimationState, Inputs, Networks, Settings, check_clip, check_inputs, check_settings, check_state

__all__ = [
    "Animation",
    "AnimationState",
    "Clip",
    "Inputs",
    "Networks",
    "Run",
    "Settings",
    "animate",
    "prepare_portrait",
]


@dataclass(frozen=True)
class Clip:
    """`frames` (n, H, W, 3) float32 on the CPU in 0..1, each once and in order, and the state after them."""

    frames: torch.Tensor
    state: AnimationState


class Animation(Iterator[Clip]):
    """Clips as they are finished; `frames` is how many frames there will be altogether.

    `state` is what a next call continues from: the last clip's, at first the one that this call continues.
    """

    def __init__(self, frames: int, clips: Iterator[Clip], state: AnimationState | None = None) -> None:
        self.frames, self.state, self._clips = frames, state, clips

    def __next__(self) -> Clip:
        clip = next(self._clips)
        self.state = clip.state
        return clip

    def pictures(self) -> Iterator[torch.Tensor]:
        """The frames (n, H, W, 3) of clip after clip."""
        return (clip.frames for clip in self)


def animate(
    networks: Networks,
    codec: ImageCodec,
    inputs: Inputs,
    settings: Settings | None = None,
    *,
    frames: int = 0,
    state: AnimationState | None = None,
    progress: Progress = no_progress,
) -> Animation:
    """Frames for speech, from where `state` ended. Inputs are checked at once; work begins with the first clip.

    Args:
        frames: how many to make at most, 0 for all that the speech has.
        state: of the call before, for the same portrait, speech and settings. Calls that continue each other give the
            frames of a single one when each makes a multiple of what one clip yields.
        progress: called after each run of the denoising UNet with a rough picture, and after each batch of decoded
            frames; it may raise to stop.

    Raises TalkingPortraitError for impossible settings, inputs that do not fit the networks or each other, a state of
    another size or after the end of the speech, networks that give NaN, and memory that suffices for nothing.
    """
    settings = settings or Settings()
    if inputs.geometry is not None:
        inputs = replace(inputs, geometry=as_geometry(inputs.geometry, inputs.masks.points))
    check_clip(settings, networks)
    check_settings(settings)
    check_inputs(inputs, settings, networks)
    check_state(state, settings)
    states = audio_layers(inputs.speech.states, networks.config.audio_inputs)
    done = state.frames if state else 0
    spoken = len(states) - inputs.speech.padding
    if done >= spoken or frames < 0:
        raise TalkingPortraitError(
            f"{done} of the speech's {spoken} frames are made already and {frames} more are requested, so nothing "
            "is left to do; disconnect the previous state, or connect longer speech."
        )
    end = min(done + frames, spoken) if frames else spoken
    run = Run(networks, codec, inputs, settings, states, progress)
    return Animation(end - done, run.clips(done, end, state), state)


def plan_clips(frames: int, clip: int, overlap: int) -> list[int]:
    """How many frames each clip yields: all but those it shares with the next one; the last, what is left."""
    counts = []
    while frames > clip:
        counts.append(clip - overlap)
        frames -= counts[-1]
    return [*counts, frames]


class Run:
    """One call of `animate`: what all its clips share."""

    def __init__(
        self,
        networks: Networks,
        codec: ImageCodec,
        inputs: Inputs,
        settings: Settings,
        states: torch.Tensor,
        progress: Progress,
    ) -> None:
        self.networks, self.codec, self.inputs, self.settings = networks, codec, inputs, settings
        self.states, self.progress = states, progress
        self.done, self.total = 0, 1

    def clips(self, start: int, end: int, state: AnimationState | None) -> Iterator[Clip]:
        settings = self.settings
        counts = plan_clips(end - start, settings.clip, settings.overlap)
        self.total = len(counts) * settings.steps + end - start
        with torch.no_grad():
            portrait = prepare_portrait(self.networks, self.codec, self.inputs, settings)
        for count in counts:
            # No gradients, but also no change of that mode for whoever takes the clips.
            with torch.no_grad():
                clip = self._clip(portrait, start, count, state)
            start, state = clip.state.frames, clip.state
            yield clip

    def _clip(self, portrait: PreparedPortrait, start: int, count: int, state: AnimationState | None) -> Clip:
        """The frames `start` to `start + count`, and state for those that follow."""
        settings = self.settings
        before = state.motion if state else None
        reference = with_motion(portrait, self.networks, self.codec, before, settings)
        speech = self._speech(portrait, start)
        noise, generator = self.noise(state)
        denoiser = Denoiser(self.networks, portrait, reference, speech, settings)
        sampled = denoise(denoiser, noise.to(denoiser.device, torch.float32), settings, self.stepped, self.ticked).cpu()
        del denoiser, reference, speech

        if state is not None:
            sampled = faded(state.held, sampled)
        smoothed = smooth_over_time(sampled, state.last if state else None, portrait.masks[0].cpu(), settings.deflicker)
        earlier = self.done

        def decoding(done: int, total: int, preview: torch.Tensor | None = None) -> None:
            self.done = earlier + done
            self.progress(self.done, self.total, preview)

        pictures = torch.cat(list(decoded(self.codec, smoothed[:, :, :count], settings.decode_batch, decoding)))
        pictures = match_colours(pictures, portrait.picture, settings.anchoring)
        motion = torch.cat([before if before is not None else pictures[:0], pictures])[-settings.past_frames :]
        if len(motion) < settings.past_frames:
            still = portrait.picture.expand(settings.past_frames - len(motion), -1, -1, -1)
            motion = torch.cat([still, motion])
        held = sampled[:, :, count : count + settings.overlap]
        last = sampled[:, :, count - 1 : count]
        return Clip(
            pictures,
            AnimationState(start + count, motion.clone(), generator.get_state(), held.clone(), last.clone()),
        )

    def _speech(self, portrait: PreparedPortrait, start: int) -> Speech:
        settings, networks, end = self.settings, self.networks, start + self.settings.clip
        audioproj, device = loaded(networks.audioproj, torch.nn.Module)
        audio = audioproj(audio_windows(self.states, start, end).to(device, networks.dtype))[0]
        mesh = None
        if self.inputs.geometry is not None and networks.mesh_encoder is not None:
            geometry = as_geometry(self.inputs.geometry)
            meshes = geometry.frames(start, end)
            encoder, device = loaded(networks.mesh_encoder, torch.nn.Module)
            mesh = encoder(meshes.to(device, networks.dtype), geometry.portrait.to(device, networks.dtype))[0]
        unet, device = loaded(networks.denoising_unet, UNet)
        return unet.project_audio(
            audio.to(device),
            portrait.masks,
            mesh=None if mesh is None else mesh.to(device),
            weights=(*settings.weights, settings.geometry),
        )

    def noise(self, state: AnimationState | None) -> tuple[torch.Tensor, torch.Generator]:
        """Noise (1, 4, F, h, w) in the networks' precision, as published, and the generator behind it."""
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed)
        if state is not None and not settings.shared_noise:
            generator.set_state(state.noise)
        channels = self.networks.config.denoising_unet.latent
        shape = (1, channels, settings.clip, *settings.latent_size)
        return torch.randn(shape, generator=generator, dtype=self.networks.dtype), generator

    def ticked(self) -> None:
        """Called after each run of the denoising UNet."""
        self.done += 1
        self.progress(self.done, self.total)

    def stepped(self, step: int, sample: torch.Tensor, clean: torch.Tensor) -> None:
        """Called after each denoising step."""
        self.progress(self.done, self.total, rough_picture(clean[0, :, 0]))
