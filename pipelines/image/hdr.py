"""High dynamic range to standard: PQ or HLG in BT.2020 becomes BT.709 with its gamma.

Figures: PQ from SMPTE ST 2084, HLG with its system gamma of 1.2 at 1000 cd/m2 and graphics white of 203 cd/m2 from
ITU-R BT.2100 and BT.2408, primaries from BT.2087.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

PQ, HLG = 16, 18
"""AVColorTransferCharacteristic."""
_WHITE = 203.0
_PEAK = 1000.0
"""cd/m2; brighter light becomes white."""
_KNEE = 0.8
"""Part of the screen's range that stays as it is; what is brighter is compressed into the rest."""
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
_STEPS = 4096


def _pq(signal: np.ndarray) -> np.ndarray:
    """Light in cd/m2 of a PQ signal in 0..1."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """Light of the scene in 0..1 of an HLG signal in 0..1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


class HdrToSdr:
    """Maps (H, W, 3) uint16 HDR signals to uint8 SDR."""

    def __init__(self, to_light: Callable[[np.ndarray], np.ndarray], *, scene_referred: bool) -> None:
        self._light = to_light(np.arange(65536) / 65535).astype(np.float32)
        self._scene_referred = scene_referred
        linear = np.arange(_STEPS + 1) / _STEPS
        gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        self._gamma = np.round(255 * gamma).astype(np.uint8)

    @classmethod
    def for_transfer(cls, transfer: int) -> HdrToSdr | None:
        """The mapping for an AVColorTransferCharacteristic; None for those of standard range."""
        if transfer == PQ:
            return cls(_pq, scene_referred=False)
        if transfer == HLG:
            return cls(_hlg, scene_referred=True)
        return None

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        light = self._light[picture]
        if self._scene_referred:
            scene = (light @ _LUMINANCE)[..., None]
            light = _PEAK * light * np.maximum(scene, 1e-6) ** np.float32(0.2)
        relative = light / np.float32(_WHITE) * np.float32(_KNEE)
        brightness = (relative @ _LUMINANCE)[..., None]
        relative *= _compressed(brightness) / np.maximum(brightness, 1e-6)
        display = relative @ _BT2020_TO_BT709.T
        return self._gamma[np.round(display.clip(0, 1) * _STEPS).astype(np.int32)]


def _compressed(brightness: np.ndarray) -> np.ndarray:
    """Brightness up to the knee as it is, from there to the peak bent smoothly into what is left below 1."""
    peak = _PEAK / _WHITE * _KNEE
    room, span = 1 - _KNEE, peak - _KNEE
    beyond = np.clip(brightness - _KNEE, 0, span)
    # A rational curve with slope 1 at the knee that reaches 1 at the peak.
    bend = 1 / room - 1 / span
    return np.where(brightness <= _KNEE, brightness, _KNEE + beyond / (1 + beyond * bend))
