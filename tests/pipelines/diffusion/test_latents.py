"""Decoding in batches, rough pictures, and work in smaller pieces when memory runs out."""

from __future__ import annotations

import pytest
import torch
from talking_portrait.pipelines.diffusion.latents import decoded, rough_picture
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.memory import HalvingBatches, Resident

from ..aniportrait.tiny_aniportrait import Codec


def test_decoding_takes_pieces_and_gives_frames_in_order() -> None:
    codec, reports = Codec(), []
    latents = torch.randn(1, 4, 7, 2, 3)

    def watch(done: int, total: int, preview: torch.Tensor | None = None) -> None:
        reports.append((done, total, tuple(preview.shape)))

    whole = list(decoded(codec, latents, 3, watch))
    assert [len(frames) for frames in whole] == [3, 3, 1]
    assert reports == [(3, 7, (16, 24, 3)), (6, 7, (16, 24, 3)), (7, 7, (16, 24, 3))]
    pieces = decoded(codec, iter([latents[:, :, :2], latents[:, :, 2:]]), 5)
    torch.testing.assert_close(torch.cat(list(pieces)), torch.cat(whole), atol=1e-6, rtol=0)


def test_a_vae_that_returns_nan_is_reported() -> None:
    latents = torch.randn(1, 4, 5, 2, 3)
    latents[0, :, 3] = float("nan")
    frames = decoded(Codec(), latents, 2)
    assert len(next(frames)) == 2
    with pytest.raises(TalkingPortraitError, match=r"The VAE gave values that are not numbers .* for frame 2 or one"):
        next(frames)


def test_rough_pictures_are_pictures_whatever_the_latents() -> None:
    picture = rough_picture(torch.randn(4, 5, 6) * 10)
    assert picture.shape == (5, 6, 3)
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1
    torch.testing.assert_close(rough_picture(torch.zeros(4, 2, 2)), torch.full((2, 2, 3), 0.5), atol=1e-6, rtol=0)
    assert rough_picture(torch.full((4, 2, 2), float("nan"))).isfinite().all()


def test_a_resident_network_goes_to_its_device_and_stays() -> None:
    module = torch.nn.Linear(2, 2)
    managed = Resident(module, "meta")
    assert managed.load(1000) == torch.device("meta")
    assert managed.module.weight.device.type == "meta"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_work_that_does_not_fit_is_tried_in_halves(error: BaseException) -> None:
    tried: list[tuple[int, int]] = []

    def work(start: int, end: int) -> list[int]:
        tried.append((start, end))
        if end - start > 2:
            raise error
        return list(range(start, end))

    batches = HalvingBatches(8)
    assert [i for piece in batches.each(9, work) for i in piece] == list(range(9))
    assert tried == [(0, 8), (0, 4), (0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert batches.size == 2


def test_a_last_piece_that_does_not_fit_shrinks_from_its_own_size() -> None:
    def work(start: int, end: int) -> int:
        if start == 4 and end == 7:
            raise MemoryError
        return end - start

    assert list(HalvingBatches(4).each(7, work)) == [4, 1, 1, 1]


def test_other_errors_pass_and_one_that_never_fits_is_a_sentence() -> None:
    def broken(start: int, end: int) -> None:
        raise RuntimeError("shapes differ")

    def never(start: int, end: int) -> None:
        raise torch.OutOfMemoryError("no")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(HalvingBatches(4).each(4, broken))
    with pytest.raises(TalkingPortraitError, match="even one frame at a time"):
        list(HalvingBatches(4, "frame").each(4, never))
    with pytest.raises(TalkingPortraitError, match="0 windows are to be computed at once"):
        HalvingBatches(0)
