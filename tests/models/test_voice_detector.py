"""Silero's voice detector as the published program computes it."""

from __future__ import annotations

import numpy as np
import torch
from talking_portrait.models.speech.voice_detector import BEFORE, CHUNK, load_voice_detector
from talking_portrait.pipelines.files.example import example_speech

PUBLISHED = (
    *(0.021, 0.025, 0.017, 0.015, 0.013, 0.013, 0.013, 0.017, 0.085, 0.047, 0.034, 0.025, 0.022, 0.069, 0.631, 0.642),
    *(0.862, 0.976, 0.966, 0.918, 0.931, 0.904, 0.958, 0.951, 0.984, 0.985, 0.972, 0.979, 0.984, 0.988, 0.984, 0.73),
    *(0.214, 0.12, 0.031, 0.014, 0.265, 0.491, 0.93, 0.988),
)
"""Of silero-vad 6.2.3's TorchScript network with these weights, for the first 40 chunks of the shipped speech."""


def test_probabilities_are_the_published_ones_at_once_and_in_pieces():
    network = load_voice_detector()
    speech = example_speech().waveform[0, : len(PUBLISHED) * CHUNK]
    chunks = torch.nn.functional.pad(speech, (BEFORE, 0)).unfold(0, BEFORE + CHUNK, CHUNK)
    with torch.inference_mode():
        whole, _ = network(chunks)
        begun, state = network(chunks[:7])
        rest, _ = network(chunks[7:], state)
    np.testing.assert_allclose(whole.numpy(), PUBLISHED, atol=3e-3)
    torch.testing.assert_close(torch.cat([begun, rest]), whole, atol=1e-4, rtol=0)
