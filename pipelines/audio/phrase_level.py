"""Quiet phrases beside loud ones: the level that counts is that of the phrase, not that of the recording.

Tuned on synthetic and recorded speech of which a part was made 22 dB quieter.
"""

from __future__ import annotations

import numpy as np
import torch

from ...models.curves import smoothstep
from ...models.speech.mouth_network import MouthNetwork, frame_level, speech_level
from ..types import Audio
from .mouth_states import SpeechSound, speech_sound

_RATE = 100
_REACH = 1.0
"""Seconds to either side in which the loudest moment is a phrase's level."""
_SAME = 6.0
"""dB by which a phrase may be quieter than the usual one; what is missing beyond that is added, up to the next."""
_MOST = 24.0
_STANDS_OUT = (12.0, 20.0)
"""dB from the quietest to the loudest moment of a phrase: steady noise stays as quiet as it is."""
_NOTHING = (-42.0, -34.0)
"""dB under the usual level below which there is no phrase."""


def levelled_sound(network: MouthNetwork, audio: Audio) -> SpeechSound:
    """Any sound as the network takes it, quiet phrases raised."""
    sound = speech_sound(network, audio)
    return sound.louder(phrase_gain(sound.power))


def phrase_gain(power: torch.Tensor) -> torch.Tensor:
    """Factors (frames,) of mel power (frames, mels) at 100 Hz that make quiet phrases nearly as loud as others."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d

    window = 2 * round(_REACH * _RATE) + 1
    level = frame_level(power)
    usual = float(speech_level(level))
    smooth = uniform_filter1d(level.numpy().astype(np.float64), 7, mode="nearest")
    loudest = maximum_filter1d(smooth, window, mode="nearest")
    quietest = minimum_filter1d(smooth, window, mode="nearest")
    missing = np.clip(usual - loudest - _SAME, 0, _MOST)
    missing *= smoothstep(*_STANDS_OUT, loudest - quietest) * smoothstep(*_NOTHING, loudest - usual)
    gain = uniform_filter1d(missing, window // 2, mode="nearest")
    return torch.from_numpy(10 ** (gain / 10)).float()
