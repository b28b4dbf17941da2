"""Speech features as the audio projection takes them: all layers, of a few frames around each."""

from __future__ import annotations

import torch

from ...models.apasco.projections import WINDOW
from ..errors import TalkingPortraitError


def audio_layers(states: torch.Tensor, inputs: int) -> torch.Tensor:
    """States (frames, layers, channels) without the one before the first layer, as `inputs` numbers a window ask for.

    Raises TalkingPortraitError when the features are those of another encoder, or of a single layer.
    """
    frames, layers, channels = states.shape
    wanted = inputs // (WINDOW * channels)
    if frames and layers in (wanted, wanted + 1) and wanted * WINDOW * channels == inputs:
        return states[:, layers - wanted :]
    raise TalkingPortraitError(
        f"The speech features have {layers} {'layer' if layers == 1 else 'layers'} of {channels} numbers in {frames} "
        f"frames, but this network takes {inputs // WINDOW} numbers a frame (wav2vec2-base: 12 layers of 768); encode "
        "the speech with all layers of that encoder."
    )


def audio_windows(states: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """(frames, layers, channels) to (1, end - start, WINDOW, layers, channels): the features around each frame.

    At the beginning and the end of the whole speech, and beyond, its first and last frame stand in.
    """
    reach = WINDOW // 2
    around = torch.arange(start, end)[:, None] + torch.arange(-reach, reach + 1)
    return states[around.clamp(0, len(states) - 1)][None]
