"""Values that are no numbers are found in every precision, and large numbers are not taken for them."""

from __future__ import annotations

import math

import pytest
import talking_portrait as tp
import torch
from talking_portrait.nodes.inputs import cut_out_socket, images_socket, mask_socket, portrait_socket, sound_from
from talking_portrait.pipelines.audio.waveform import check_audio
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.landmarks import detect
from talking_portrait.pipelines.finite import all_finite, check_finite
from talking_portrait.pipelines.types import Audio

PRECISIONS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_value_among_many_is_found(dtype: torch.dtype, bad: float) -> None:
    values = torch.ones(3, 4096, dtype=dtype)
    assert all_finite(values)
    values[1, 7] = bad
    assert not all_finite(values)
    with pytest.raises(TalkingPortraitError, match=r"^The VAE gave values that are not numbers \(NaN\); load it"):
        check_finite(values, "The VAE")


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_values_whose_sum_overflows_are_numbers(dtype: torch.dtype) -> None:
    assert all_finite(torch.full((4096,), torch.finfo(dtype).max, dtype=dtype))


def test_infinities_of_both_signs_do_not_cancel() -> None:
    assert not all_finite(torch.tensor([math.inf, -math.inf]))


@pytest.mark.parametrize("values", [torch.zeros(0), torch.ones(2, dtype=torch.bool), torch.arange(3)])
def test_nothing_and_whole_numbers_are_finite(values: torch.Tensor) -> None:
    assert all_finite(values)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "make"),
    {
        "stored as sparse_coo": torch.Tensor.to_sparse,
        'on the device "meta"': lambda values: values.to("meta"),
        "nested": lambda values: torch.nested.nested_tensor(list(values)),
        "quantised": lambda values: torch.quantize_per_tensor(values, 0.01, 0, torch.quint8),
    }.items(),
)
def test_tensors_that_are_not_plain_are_refused_in_a_sentence(kind, make, tmp_path):
    pictures, picture, sound = make(torch.rand(2, 8, 8, 3)), make(torch.rand(8, 8, 3)), make(torch.rand(1, 9000))
    doors = [
        lambda: images_socket(pictures),
        lambda: portrait_socket(pictures),
        lambda: cut_out_socket(pictures),
        lambda: mask_socket(picture),
        lambda: detect(pictures, None),
        lambda: sound_from({"waveform": sound, "sample_rate": 16000}),
        lambda: check_audio(Audio(sound, 16000)),
        lambda: tp.drive(Audio(sound, 16000)),
        lambda: tp.animate(picture, Audio(torch.zeros(1, 9000), 16000), tmp_path / "a.mp4"),
    ]
    for door in doors:
        with pytest.raises(TalkingPortraitError, match=f" is a tensor {kind}"):
            door()


@pytest.mark.parametrize("picture", [None, torch.rand(8, 8), torch.rand(8, 8, 3) > 0, torch.rand(1, 8, 8, 3)])
def test_what_is_no_picture_is_refused_in_a_sentence(picture, tmp_path):
    with pytest.raises(TalkingPortraitError, match="^The picture (is|has) "):
        tp.animate(picture, Audio(torch.zeros(1, 9000), 16000), tmp_path / "a.mp4")
