"""Long videos in segments: plans, noise by frame numbers, and that no border shows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from talking_portrait.pipelines.aniportrait.denoising import FinishedFrames
from talking_portrait.pipelines.diffusion.context_windows import open_windows, triangle_weights, uniform_windows
from talking_portrait.pipelines.diffusion.samplers import published_schedule, sample_ddim
from talking_portrait.pipelines.diffusion.segments import frame_noise, plan_segments


@given(
    frames=st.integers(1, 300),
    length=st.integers(1, 60),
    shared=st.integers(0, 24),
    finished=st.integers(0, 24),
    ahead=st.integers(0, 24),
)
def test_segments_keep_every_frame_once_and_stay_within_what_there_is(frames, length, shared, finished, ahead) -> None:
    segments = list(plan_segments(frames, length, reach=shared, finished=finished, ahead=ahead))
    assert [i for segment in segments for i in range(segment.first, segment.last)] == list(range(frames))
    for segment in segments:
        assert -finished <= segment.start <= segment.first < segment.last <= segment.end <= frames + ahead
        assert segment.finished == min(shared, finished + segment.first)
        assert segment.end - segment.start <= length + 2 * shared
    assert all(segment.end - segment.last == shared for segment in segments[:-1])


def test_noise_belongs_to_frames_and_not_to_segments() -> None:
    whole = frame_noise((4, 8, 8), 7, range(10))
    assert whole.shape == (1, 4, 10, 8, 8)
    torch.testing.assert_close(frame_noise((4, 8, 8), 7, range(4, 9)), whole[:, :, 4:9])
    assert not torch.allclose(frame_noise((4, 8, 8), 8, range(10)), whole, atol=1.0)
    assert not torch.allclose(frame_noise((4, 8, 8), 7, range(10), 1), whole, atol=1.0)
    assert abs(float(whole.mean())) < 0.05
    assert abs(float(whole.std()) - 1) < 0.05
    neighbours = torch.corrcoef(whole[0].transpose(0, 1).flatten(1)) - torch.eye(10)
    assert float(neighbours.abs().max()) < 0.3


# --- seams ---

SCHEDULE = published_schedule()
SIZE, OVERLAP, STEPS, FRAMES = 16, 4, 25, 160


def perfect_velocity(sample: torch.Tensor, timestep: int) -> torch.Tensor:
    """What a perfect network predicts from one window (1, C, F, h, w) of a film whose frames change gradually, without
    any other window: frames are normal, neighbours alike, those six apart related by 0.6."""
    frames = torch.arange(sample.shape[2], dtype=torch.float64)
    related = torch.exp(-(((frames[:, None] - frames) / 6) ** 2) / 2) + 1e-4 * torch.eye(len(frames))
    alpha_cumprod = float(SCHEDULE.alphas_cumprod[timestep])
    noisy_covariance = alpha_cumprod * related + (1 - alpha_cumprod) * torch.eye(len(frames), dtype=torch.float64)
    answer = (alpha_cumprod**0.5 * related @ torch.linalg.inv(noisy_covariance)).to(sample)
    clean = torch.einsum("ij,bcjhw->bcihw", answer, sample)
    return (alpha_cumprod**0.5 * sample - clean) / (1 - alpha_cumprod) ** 0.5


def sampled(noise: torch.Tensor, plan, weights, finished: torch.Tensor | None = None) -> torch.Tensor:
    step = 0
    frames_before = FinishedFrames(finished, noise[:, :, : finished.shape[2]]) if finished is not None else None

    def predict(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        nonlocal step
        if frames_before:
            sample = frames_before.put_into(sample, timestep, SCHEDULE)
        total, times = torch.zeros_like(sample), torch.zeros(sample.shape[2])
        for window in plan(step):
            share = torch.tensor(weights(len(window)))
            total[:, :, window] += share[:, None, None] * perfect_velocity(sample[:, :, window], timestep)
            times[window] += share
        step += 1
        return total / times.clamp_min(1e-9)[:, None, None]

    found = sample_ddim(predict, noise, SCHEDULE, STEPS)
    return torch.cat([frames_before.latents, found[:, :, frames_before.frames :]], dim=2) if frames_before else found


def in_segments(noise: torch.Tensor, shared: int, length: int = 36) -> tuple[torch.Tensor, list[int]]:
    """The film, and the frames that begin a segment."""
    film, borders = noise[:, :, :0], []
    for segment in plan_segments(FRAMES, length, reach=shared):
        frames = segment.end - segment.start

        def plan(step: int, frames: int = frames, finished: int = segment.finished) -> list[list[int]]:
            return open_windows(frames, SIZE, OVERLAP, step=step, finished=finished)

        finished = film[:, :, segment.start : segment.first] if segment.finished else None
        found = sampled(noise[:, :, segment.start : segment.end], plan, triangle_weights, finished)
        film = torch.cat([film, found[:, :, segment.finished : segment.last - segment.start]], dim=2)
        borders.append(segment.first)
    return film, borders[1:]


def changes(film: torch.Tensor) -> torch.Tensor:
    """(F - 1,) from frame to frame."""
    return film.diff(dim=2).square().mean(dim=(0, 1, 3, 4)).sqrt()


def test_no_border_between_segments_shows() -> None:
    film, borders = in_segments(frame_noise((4, 12, 12), 0, range(FRAMES)), SIZE)
    change = changes(film)
    at_borders = change[torch.tensor(borders) - 1]
    assert len(borders) == 3
    assert float(at_borders.mean()) < 1.2 * float(change.mean())
    assert float(at_borders.max()) < 1.5 * float(change.mean())


def test_borders_would_show_if_segments_did_not_overlap() -> None:
    """So the test above can fail."""
    film, borders = in_segments(frame_noise((4, 12, 12), 0, range(FRAMES)), 0)
    change = changes(film)
    assert float(change[torch.tensor(borders) - 1].mean()) > 2 * float(change.mean())


def test_windows_that_move_leave_smaller_seams_than_those_that_stay() -> None:
    noise = frame_noise((4, 12, 12), 0, range(FRAMES))
    staying = sampled(noise, lambda step: uniform_windows(FRAMES, SIZE, OVERLAP), lambda size: [1.0] * size)
    moving = sampled(noise, lambda step: open_windows(FRAMES, SIZE, OVERLAP, step=step), triangle_weights)
    assert float(changes(moving).max()) < 0.75 * float(changes(staying)[SIZE:-SIZE].max())
