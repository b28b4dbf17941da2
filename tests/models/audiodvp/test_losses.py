"""The losses: what is a mean and what is a sum, and the sides of the adversarial ones."""

from __future__ import annotations

import math

import pytest
import torch
from talking_portrait.models.audiodvp.losses import (
    FitWeights,
    adversarial_loss,
    discriminator_loss,
    fit_loss,
    generator_loss,
    landmark_loss,
    landmark_weights,
    photometric_loss,
    regularisation,
)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_photometric_loss_is_a_mean_and_the_others_are_sums_over_the_batch() -> None:
    image, landmarks, coefficients, weights = drawn(2, 3, 8, 8), drawn(2, 68, 2), drawn(2, 9, 1), landmark_weights()

    def twice(values: torch.Tensor) -> torch.Tensor:
        return values.repeat(2, 1, 1, 1) if values.ndim == 4 else values.repeat(2, 1, 1)

    torch.testing.assert_close(photometric_loss(twice(image), 0 * twice(image)), photometric_loss(image, 0 * image))
    torch.testing.assert_close(
        landmark_loss(twice(landmarks), 0 * twice(landmarks), weights),
        2 * landmark_loss(landmarks, 0 * landmarks, weights),
    )
    torch.testing.assert_close(regularisation(twice(coefficients)), 2 * regularisation(coefficients))


def test_brows_eyes_and_mouth_weigh_more_than_jaw_and_nose() -> None:
    weights = landmark_weights()
    assert weights.shape == (68,)
    assert [float(weights[number]) for number in (0, 16, 17, 26, 27, 35, 36, 47, 48, 67)] == [
        1, 1, 50, 50, 1, 1, 50, 50, 50, 50
    ]  # fmt: skip


def test_a_pixel_of_error_in_one_landmark_is_its_weight_over_all_landmarks() -> None:
    moved = torch.zeros(1, 68, 2)
    moved[0, 50, 1] = 1
    assert float(landmark_loss(moved, torch.zeros(1, 68, 2), landmark_weights())) == pytest.approx(50 / 68)


def test_the_loss_of_the_fit_is_the_weighted_sum() -> None:
    one = torch.ones(1, 1, 1)
    total = fit_loss(torch.tensor(2.0), torch.tensor(100.0), one, one, one)
    assert float(total) == pytest.approx(1.9 * 2 + 1.6e-3 * 100 + 3e-4 * (1 + 1.7e-3 + 0.8))
    plain = FitWeights(photometric=0, landmark=0, regularisation=1, alpha=1, beta=2, delta=4)
    assert float(fit_loss(torch.tensor(2.0), torch.tensor(100.0), one, one, one, plain)) == pytest.approx(7)


def test_adversarial_losses_have_their_sides() -> None:
    confident = torch.full((1, 1, 3, 3), 20.0)
    assert float(adversarial_loss(confident, real=True)) == pytest.approx(0, abs=1e-6)
    assert float(adversarial_loss(confident, real=False)) == pytest.approx(20, abs=1e-3)
    undecided = torch.zeros(1, 1, 3, 3)
    assert float(discriminator_loss(undecided, undecided)) == pytest.approx(math.log(2))
    assert float(discriminator_loss(-confident, confident)) == pytest.approx(0, abs=1e-6)
    assert float(discriminator_loss(confident, -confident)) == pytest.approx(20, abs=1e-3)
    image = drawn(1, 3, 4, 4)
    assert float(generator_loss(undecided, image, image)) == pytest.approx(math.log(2))
    assert float(generator_loss(confident, image, image + 0.1)) == pytest.approx(10, abs=1e-3)
