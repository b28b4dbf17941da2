"""Stable Diffusion 1.5's UNet for pictures and videos: pose features, reference attention, speech, motion modules.

The configuration selects one of four networks. With `output=False` it is the reference UNet, which returns a picture's
tokens block by block. With `motion_frames` it is the denoising UNet of AniPortrait, whose every convolution and norm
works on single frames, and whose motion modules alone attend along time. With `audio` too it is that of Hallo and
APasco, which also attends to speech and to the frames before. With none of these it is Stable Diffusion's own.

diffusers has the same trunk, but pose features between its blocks, motion modules within them and a bank as an argument
would need its private hooks; parameters keep its names all the same.

Inside, tensors are (samples * frames, C, H, W) with a sample's frames together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import TalkingPortraitError
from .attention import Bank, Reference, SpatialTransformer, TransformerBlock
from .audio_attention import AudioBlock, AudioTransformer, Speech
from .motion_module import MotionModule
from .resnet import Downsample, ResnetBlock, TimeEmbedding, Upsample, sinusoidal_embedding

NO_MOTION = 4
"""Black frames of tokens that Hallo's motion modules attend to without a reference, as they were trained."""


@dataclass(frozen=True)
class UNetConfig:
    """Sizes; the defaults are Stable Diffusion 1.5's.

    `channels` and `attention` (whether it attends at all) have an entry for each resolution, the finest first.
    `motion_frames` is the longest window of frames, 0 for a network without motion modules.
    `output` False leaves the last norm and convolution out.
    `audio` is the width of speech tokens, 0 for a network without audio modules; `geometry` that of mesh tokens, 0 for
    none; `learnt_weights` whether audio modules weigh their regions by parameters of their own.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    layers: int = 2
    heads: int = 8
    groups: int = 32
    context: int = 768
    latent: int = 4
    motion_frames: int = 0
    motion_heads: int = 8
    output: bool = True
    audio: int = 0
    geometry: int = 0
    learnt_weights: bool = False


@dataclass(frozen=True)
class Conditions:
    """What every block of one evaluation is given.

    `time` (samples, width) embedding of the time step; `context` (samples, n, width); `frames` of each sample;
    `written` collects the bank, where one is to be written.
    """

    time: torch.Tensor
    context: torch.Tensor
    frames: int
    reference: Reference | None = None
    written: Bank | None = None
    speech: Speech | None = None


@dataclass
class DeepFeatures:
    """What enters the finest resolution from the deeper ones (rows, C, H, W), which changes little from step to step.

    DeepCache (Ma et al. 2024); `features` None until they are computed.
    """

    features: torch.Tensor | None = None


class Block(nn.Module):
    """Layers of one resolution: each a residual block, where the resolution attends a transformer, speech, then motion.

    Hallo's program runs motion modules only where there is attention. Its file has them everywhere all the same.
    """

    def __init__(
        self,
        config: UNetConfig,
        level: int,
        widths: Sequence[tuple[int, int]],
        *,
        attention: bool,
        audio: Sequence[int],
        transformers: int | None = None,
    ) -> None:
        """`level` the number of halvings; `widths` (in, out) of each residual block; `audio` those of audio modules.

        `transformers` if there are fewer of them than residual blocks.
        """
        super().__init__()
        self.level, self.attends_before = level, config.audio > 0
        self.recomputes = False
        channels = widths[-1][1]
        time = 4 * config.channels[0]
        layers = range(len(widths) if transformers is None else transformers)
        self.resnets = nn.ModuleList([ResnetBlock(*width, time, config.groups) for width in widths])
        self.attentions = nn.ModuleList(
            [SpatialTransformer(channels, config.heads, config.groups, config.context) for _ in layers if attention]
        )
        self.audio_modules = nn.ModuleList(
            [
                AudioTransformer(
                    channels,
                    inner,
                    config.heads,
                    config.groups,
                    config.audio,
                    geometry=config.geometry,
                    learnt_weights=config.learnt_weights,
                )
                for inner in audio
                if attention and config.audio
            ]
        )
        self.motion_modules = nn.ModuleList(
            [MotionModule(channels, config.motion_heads, config.motion_frames) for _ in layers if config.motion_frames]
        )

    def layer(self, index: int, hidden: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        if self.recomputes and torch.is_grad_enabled():
            # Nothing in a layer is random, so there is no state of a generator to go back to.
            return checkpoint(self._layer, index, hidden, conditions, use_reentrant=False, preserve_rng_state=False)
        return self._layer(index, hidden, conditions)

    def _layer(self, index: int, hidden: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        hidden = self.resnets[index](hidden, conditions.time)
        if self.attentions:
            hidden = self.attentions[index](hidden, conditions.context, conditions.reference, conditions.written)
        if self.audio_modules and conditions.speech:
            hidden = self.audio_modules[index](hidden, conditions.speech, self.level)
        if self.motion_modules and not self.attends_before:
            hidden = self.motion_modules[index](hidden, conditions.frames)
        elif self.motion_modules and self.attentions:
            hidden = self.motion_modules[index](hidden, conditions.frames, self._before(index, hidden, conditions))
        return hidden

    def _before(self, index: int, hidden: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        if conditions.reference is not None:
            return conditions.reference.motion[cast(SpatialTransformer, self.attentions[index]).block.name]
        channels, height, width = hidden.shape[1:]
        return hidden.new_zeros(len(hidden) // conditions.frames, NO_MOTION, height * width, channels)


class DownBlock(Block):
    def __init__(self, config: UNetConfig, level: int) -> None:
        channels = config.channels[level]
        before = config.channels[max(level - 1, 0)]
        widths = [(before if i == 0 else channels, channels) for i in range(config.layers)]
        audio = [width for width, _ in widths]
        super().__init__(config, level, widths, attention=config.attention[level], audio=audio)
        last = level == len(config.channels) - 1
        self.downsamplers = nn.ModuleList([] if last else [Downsample(channels)])

    def forward(self, hidden: torch.Tensor, conditions: Conditions) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The block's result and its skips: what each layer, and the change of resolution, gave."""
        skips = []
        for index in range(len(self.resnets)):
            hidden = self.layer(index, hidden, conditions)
            skips.append(hidden)
        for downsample in self.downsamplers:
            hidden = downsample(hidden)
            skips.append(hidden)
        return hidden, skips


class MidBlock(Block):
    def __init__(self, config: UNetConfig) -> None:
        channels = config.channels[-1]
        level = len(config.channels) - 1
        super().__init__(config, level, [(channels, channels)] * 2, attention=True, audio=[channels], transformers=1)

    def forward(self, hidden: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        return self.resnets[1](self.layer(0, hidden, conditions), conditions.time)


class UpBlock(Block):
    def __init__(self, config: UNetConfig, level: int) -> None:
        channels = config.channels[level]
        above = config.channels[min(level + 1, len(config.channels) - 1)]
        below = config.channels[max(level - 1, 0)]
        last = config.layers
        widths = [
            ((above if i == 0 else channels) + (below if i == last else channels), channels) for i in range(last + 1)
        ]
        audio = [below] * len(widths)
        super().__init__(config, level, widths, attention=config.attention[level], audio=audio)
        self.upsamplers = nn.ModuleList([Upsample(channels)] if level else [])

    def forward(self, hidden: torch.Tensor, skips: list[torch.Tensor], conditions: Conditions) -> torch.Tensor:
        """Takes its skips off the end of the list. The next one left gives the size to rise to, as halving rounds."""
        for index in range(len(self.resnets)):
            hidden = self.layer(index, torch.cat([hidden, skips.pop()], dim=1), conditions)
        for upsample in self.upsamplers:
            hidden = upsample(hidden, skips[-1].shape[-2:])
        return hidden


class UNet(nn.Module):
    """Which of the four networks it is, and their sizes, follow from `config`."""

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        first, levels = config.channels[0], range(len(config.channels))
        self.conv_in = nn.Conv2d(config.latent, first, 3, padding=1)
        self.time_embedding = TimeEmbedding(first, 4 * first)
        self.down_blocks = nn.ModuleList([DownBlock(config, level) for level in levels])
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.ModuleList([UpBlock(config, level) for level in reversed(levels)])
        if config.output:
            self.conv_norm_out = nn.GroupNorm(config.groups, first, eps=1e-5)
            self.conv_out = nn.Conv2d(first, config.latent, 3, padding=1)
        for name, block in self.transformer_blocks().items():
            block.name = name
        for name, audio_block in self.audio_blocks().items():
            audio_block.name = name

    def recompute(self, on: bool = True) -> None:
        """Whether training keeps each layer's input alone and computes the rest anew for its gradient: less memory."""
        for module in self.modules():
            if isinstance(module, Block):
                module.recomputes = on

    def transformer_blocks(self) -> dict[str, TransformerBlock]:
        """The blocks that write and read a bank, by name, in the order of the data's way."""
        return {name: module for name, module in self.named_modules() if isinstance(module, TransformerBlock)}

    def audio_blocks(self) -> dict[str, AudioBlock]:
        """The blocks that attend to audio, by name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, AudioBlock)}

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        context: torch.Tensor,
        *,
        pose: Sequence[torch.Tensor] = (),
        reference: Reference | None = None,
        speech: Speech | None = None,
        deep: DeepFeatures | None = None,
    ) -> torch.Tensor:
        """What the network predicts for a noisy sample, of the same shape; without output layers its last features.

        Args:
            sample: latents (samples, 4, frames, H, W); any H and W.
            timestep: 0..999, one for all samples or (samples,).
            context: tokens to attend to (samples, n, width).
            pose: a feature for the first convolution, then, if wanted, one for each resolution (n, C, frames, H', W'),
                the samples being a multiple of n and taking them in turn, again and again.
            reference: from `read_bank`, for a network with audio modules with `motion` from `read_motion`.
            speech: from `project_audio`, for a network with audio modules.
            deep: what the deeper resolutions gave in an earlier step, to go without them; empty, it is filled.

        Raises TalkingPortraitError for more frames than the motion modules have positions for, and for masks of another
        size than the latents.
        """
        return self._run(sample, timestep, context, pose=pose, reference=reference, speech=speech, deep=deep)

    def write_bank(self, sample: torch.Tensor, context: torch.Tensor, timestep: torch.Tensor | int = 0) -> Bank:
        """What a denoising UNet may attend to of clean pictures (samples, 4, 1, H, W), with their context tokens."""
        written: Bank = {}
        self._run(sample, timestep, context, written=written)
        return written

    def read_bank(
        self,
        bank: Mapping[str, torch.Tensor],
        *,
        unconditional_rows: int = 0,
        order: tuple[int, ...] = (),
        rounding: torch.dtype | None = torch.float16,
    ) -> Reference:
        """A bank made ready for this network: projected to the keys and values of its own blocks.

        Args:
            bank: of a reference UNet with the same blocks.
            unconditional_rows, order: see `Reference`; empty is without an order.
            rounding: the published systems keep the bank in half precision whatever the networks compute in; None does
                not round.

        Raises TalkingPortraitError for a bank of other blocks.
        """
        blocks = self.transformer_blocks()
        if bank.keys() != blocks.keys():
            raise TalkingPortraitError(
                f"The reference has {len(bank)} blocks and the denoising UNet {len(blocks)} with other names; "
                "load a reference UNet and a denoising UNet that belong together."
            )
        keys_values, device = {}, next(iter(bank.values())).device
        for name, block in blocks.items():
            tokens = bank[name].to(rounding or bank[name].dtype)
            keys_values[name] = block.attn1.keys_values(tokens.to(block.attn1.to_k.weight.dtype))
        return Reference(keys_values, unconditional_rows, torch.tensor(order, device=device) if order else None)

    def read_motion(
        self, bank: Mapping[str, torch.Tensor], frames: int, *, rounding: torch.dtype | None = torch.float16
    ) -> dict[str, torch.Tensor]:
        """`Reference.motion` from a bank of frames (samples * frames), a sample's together."""
        dtype = self.conv_in.weight.dtype
        return {name: x.to(rounding or dtype).to(dtype).unflatten(0, (-1, frames)) for name, x in bank.items()}

    def project_audio(
        self,
        audio: torch.Tensor,
        masks: Sequence[torch.Tensor],
        *,
        mesh: torch.Tensor | None = None,
        weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    ) -> Speech:
        """Speech tokens (rows, n, width), and mesh tokens if there are any, projected for this network's own blocks.

        The rows are the frames of the samples with audio, the last ones of a batch; `masks`: see `Speech`; `weights`
        of the regions, in the order of `REGIONS`, then of the mesh.
        """
        contexts = [audio] if mesh is None or not self.config.geometry else [audio, mesh]
        return Speech(
            {name: block.project_audio(contexts, weights) for name, block in self.audio_blocks().items()}, masks
        )

    def _run(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        context: torch.Tensor,
        *,
        pose: Sequence[torch.Tensor] = (),
        reference: Reference | None = None,
        written: Bank | None = None,
        speech: Speech | None = None,
        deep: DeepFeatures | None = None,
    ) -> torch.Tensor:
        samples, _, frames = sample.shape[:3]
        longest = self.config.motion_frames
        before = next(iter(reference.motion.values())).shape[1] if reference and reference.motion else 0
        if longest and frames + before > longest:
            raise TalkingPortraitError(
                f"The window has {frames + before} frames, but the motion modules have {longest} positions; "
                "use a shorter one."
            )
        if speech:
            _check_masks(speech, sample.shape[-2:])
        timesteps = torch.as_tensor(timestep, device=sample.device).expand(samples)
        embedding = sinusoidal_embedding(timesteps, self.config.channels[0]).to(sample.dtype)
        conditions = Conditions(self.time_embedding(embedding), context, frames, reference, written, speech)

        hidden = self.conv_in(rearrange(sample, "s c f h w -> (s f) c h w"))
        if pose:
            hidden = _add_pose(hidden, pose[0])
        skips = [hidden]
        cached = deep.features if deep else None
        for level, down_block in enumerate(self.down_blocks if cached is None else self.down_blocks[:1]):
            hidden, more = down_block(hidden, conditions)
            skips += more  # as they are before the pose is added
            if level + 1 < len(pose):
                hidden = _add_pose(hidden, pose[level + 1])
        if cached is None:
            hidden = self.mid_block(hidden, conditions)
            for up_block in self.up_blocks[:-1]:
                hidden = up_block(hidden, skips, conditions)
        else:
            hidden, skips = cached, skips[: 1 + self.config.layers]
        if deep:
            deep.features = hidden
        hidden = self.up_blocks[-1](hidden, skips, conditions)
        if self.config.output:
            hidden = self.conv_out(F.silu(self.conv_norm_out(hidden)))
        return rearrange(hidden, "(s f) c h w -> s c f h w", s=samples)


def _check_masks(speech: Speech, size: torch.Size) -> None:
    found = tuple(speech.masks[0].shape[-2:])
    if found != tuple(size):
        raise TalkingPortraitError(
            f"The region masks are made for latents of {found[1]} x {found[0]}, but these are {size[1]} x {size[0]}; "
            "make the masks for the size of the video."
        )


def _add_pose(hidden: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
    rows = rearrange(feature, "s c f h w -> (s f) c h w")
    return (hidden.unflatten(0, (-1, len(rows))) + rows).flatten(0, 1)
