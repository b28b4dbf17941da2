"""The segmentation network in OpenCV beside its own runtime, and what its mask says of the shipped portrait."""

from __future__ import annotations

import numpy as np
import pytest
from talking_portrait.pipelines.files.example import example_portrait
from talking_portrait.pipelines.image.person_mask import FILE, SIDE, PersonSegmenter
from talking_portrait.pipelines.image.tflite_network import TFLiteNetwork
from talking_portrait.pipelines.packages import load_opencv

IN_TFLITE = """
0 0 .065 1 1 1 0 0
0 0 1 1 1 1 0 0
0 0 .262 1 1 0 0 0
0 1 1 1 1 1 0 0
1 1 1 1 1 1 1 0
"""
"""Of the shipped portrait by ai-edge-litert 2.3: each 48th row from the 40th on, each 32nd column from the 16th on."""


@pytest.fixture(scope="module")
def portrait():
    return load_opencv().resize(example_portrait()[0].numpy(), (SIDE, SIDE), interpolation=3)


def test_opencv_runs_the_network_as_its_own_runtime_does(portrait):
    network = TFLiteNetwork(FILE, SIDE, {"activation_10": (SIDE, SIDE)})
    network.set_input(portrait)
    expected = np.array(IN_TFLITE.split(), float).reshape(5, 8)
    np.testing.assert_allclose(network.output("activation_10")[40::48, 16::32], expected, atol=0.01)


def test_a_mask_is_that_of_the_mirrored_picture_too_at_any_size(portrait):
    segmenter = PersonSegmenter()
    mask = segmenter.mask(portrait, (SIDE, SIDE))
    mirrored = segmenter.mask(portrait[:, ::-1], (SIDE, SIDE))
    np.testing.assert_allclose(mirrored[:, ::-1], mask, atol=0.01)
    half = segmenter.mask(portrait, (SIDE // 2, SIDE // 4))
    assert half.shape == (SIDE // 2, SIDE // 4)
    np.testing.assert_allclose(half, mask.reshape(SIDE // 2, 2, SIDE // 4, 4).mean(axis=(1, 3)), atol=0.5)
    assert abs(half.mean() - mask.mean()) < 0.01
