"""SyncAnimation's audio networks, labels, syncers and losses."""

from __future__ import annotations

import math

import pytest
import torch
from talking_portrait.models.syncanimation import audio_visual_encoder, labels, losses
from talking_portrait.models.syncanimation.audio_nets import AudioNet, emotion_windows, pad_features, speech_windows
from talking_portrait.models.syncanimation.rendering.renderer import HeadRender
from talking_portrait.models.syncanimation.syncers import EmotionSyncer, PoseSyncer, SyncerOutput, time_code


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def poses(count: int, spread: float = 0.4) -> torch.Tensor:
    made = torch.eye(4).repeat(count, 1, 1)
    made[:, :3, :3] = labels.euler_to_matrix(spread * drawn(count, 3))
    made[:, :3, 3] = drawn(count, 3, seed=1)
    return made


# --- audio ---


def test_windows_end_with_zeros_or_with_the_last_frame() -> None:
    features = torch.arange(1.0, 6.0)[:, None]
    assert speech_windows(features, [0, 4])[..., 0].tolist() == [[0, 0, 0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 0, 0, 0]]
    assert speech_windows(features, [2], causal=True)[0, :, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 2]
    window = emotion_windows(features)[1, 0].tolist()
    assert window == [1] * 13 + [2, 3, 4, 5] + [5] * 10
    assert pad_features(features)[:, 0].tolist() == [1, 1, 1, 2, 3, 4, 5, 5, 5]
    assert speech_windows(drawn(5, 3, 2)).shape == (5, 8, 3, 2)


@pytest.mark.parametrize("steps", [1, 2, 16, 28])
def test_features_of_any_number_of_steps_give_a_code(steps: int) -> None:
    assert AudioNet(5)(drawn(3, 5, steps)).shape == (3, 32)


def test_a_tone_is_in_its_mel_band() -> None:
    sound = 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
    mel = audio_visual_encoder.mel_spectrogram(sound)
    assert mel.shape == (81, 80)
    loudest = mel[40].argmax()
    # 80 bands between 55 and 7600 Hz on Slaney's scale: 1000 Hz is 15 there, 7600 Hz 15 + ln 7.6 * 27 / ln 6.4.
    band = (15 - 55 * 3 / 200) / (15 + math.log(7.6) * 27 / math.log(6.4) - 55 * 3 / 200) * 81 - 1
    assert abs(int(loudest) - band) <= 1
    mirrored = audio_visual_encoder.mel_spectrogram(sound, legacy=True)
    changed = ((mirrored - mel).abs() > 1e-3).any(1).nonzero()[:, 0].tolist()
    assert changed == [0, 1, 79, 80]
    windows = audio_visual_encoder.mel_windows(mel)
    assert windows.shape == (22, 1, 80, 16)
    assert windows[-1, 0, 0, -1] == mel[-1, 0]


# --- labels ---


def test_angles_and_matrices_are_inverse() -> None:
    angles = 1.4 * drawn(20, 3).tanh()  # short of a quarter turn, from which on others give the same rotation
    torch.testing.assert_close(labels.matrix_to_euler(labels.euler_to_matrix(angles)), angles, atol=1e-5, rtol=1e-5)
    upward = labels.euler_to_matrix(torch.tensor([0.3, math.pi / 2, 0.0]))
    again = labels.euler_to_matrix(labels.matrix_to_euler(upward.double()))
    torch.testing.assert_close(again, upward.double(), atol=1e-3, rtol=0)


def test_a_mean_rotation_is_a_rotation_between() -> None:
    turns = labels.euler_to_matrix(torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.5, 0.0]]))
    torch.testing.assert_close(labels.matrix_to_euler(labels.mean_rotation(turns)), torch.tensor([0.0, 0.3, 0.0]))
    scattered = labels.mean_rotation(labels.euler_to_matrix(3 * drawn(7, 3)))
    torch.testing.assert_close(scattered @ scattered.T, torch.eye(3), atol=1e-5, rtol=0)
    assert float(torch.linalg.det(scattered)) == pytest.approx(1, abs=1e-5)


def test_labels_are_normalised_and_come_back() -> None:
    given, expressions = poses(40), torch.rand(40, 7, generator=torch.Generator().manual_seed(2))
    statistics = labels.measure(given, expressions)
    normalised = statistics.normalise(given, expressions)
    torch.testing.assert_close(normalised.mean(0), torch.zeros(13), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(0), torch.ones(13), atol=1e-4, rtol=0)
    torch.testing.assert_close(statistics.poses(normalised[:, :6]), given, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(statistics.expressions(normalised[:, 6:]), expressions, atol=1e-5, rtol=1e-5)


def test_one_value_that_never_changes_stays_finite() -> None:
    expressions = torch.rand(9, 7, generator=torch.Generator().manual_seed(3))
    expressions[:, 2] = 0
    statistics = labels.measure(poses(9), expressions)
    normalised = statistics.normalise(poses(9), expressions)
    assert normalised.isfinite().all()
    torch.testing.assert_close(statistics.expressions(normalised[:, 6:])[:, 2], torch.zeros(9))


def test_the_labels_before_keep_both_ends() -> None:
    rows = torch.arange(5.0)[:, None]
    assert labels.previous_labels(rows)[:, 0].tolist() == [0, 0, 1, 2, 4]
    assert labels.previous_labels(rows, torch.ones(5, 1))[:, 0].tolist() == [1, 1, 2, 3, 5]
    assert labels.previous_labels(rows[:1]).tolist() == [[0]]
    assert labels.previous_labels(rows[:2])[:, 0].tolist() == [0, 1]


def test_poses_are_averaged_over_what_came_before_or_around() -> None:
    given = poses(30)
    causal, centred = labels.smooth_poses(given, 5), labels.smooth_poses(given, causal=False)
    torch.testing.assert_close(causal[0], given[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(causal[20, :3, 3], given[16:21, :3, 3].mean(0))
    torch.testing.assert_close(causal[2, :3, :3], labels.mean_rotation(given[:3, :3, :3]))
    torch.testing.assert_close(centred[15, :3, 3], given[10:21, :3, 3].mean(0))
    torch.testing.assert_close(centred[29, :3, 3], given[24:, :3, 3].mean(0))


def test_brows_are_averaged_and_blinks_closed() -> None:
    expressions = torch.zeros(40, 7)
    expressions[20, 0] = 1.1
    expressions[30, 5] = 0.6
    smooth = labels.smooth_expressions(expressions, torch.tensor([0.8, 0.9]))
    assert smooth[15:26, 0].tolist() == pytest.approx([0.1] * 11)
    assert float(smooth[26:, 0].abs().max()) < 1e-6
    assert smooth[30, 5] == pytest.approx(0.85)
    assert float(smooth[:30, 5:].abs().max()) < 1e-6
    assert labels.smooth_expressions(expressions)[30, 5] == pytest.approx(0.6)


# --- syncers ---


def test_poses_depend_on_all_that_is_given() -> None:
    torch.manual_seed(0)
    syncer = PoseSyncer()
    inputs = [drawn(6, width, seed=width) for width in (256, 6, 32)]
    with torch.no_grad():
        syncer(*inputs)  # statistics of the normalisation
        syncer.eval()
        plain = syncer(*inputs)
        for number, values in enumerate(inputs):
            changed = [*inputs[:number], values + 1, *inputs[number + 1 :]]
            assert (syncer(*changed) - plain).abs().max() > 1e-4


def test_the_emotion_syncer_takes_frames_as_it_takes_windows() -> None:
    torch.manual_seed(0)
    syncer, count = EmotionSyncer(), 12
    features, reference, code = drawn(count, 256), drawn(count, 7, seed=1), drawn(count, 256, seed=2)
    average, frames = torch.rand(1, 7).expand(count, 7), torch.arange(count)
    with torch.no_grad():
        syncer(features, average, reference, frames, code)
        syncer.eval()
        of_frames = syncer(features, average, reference, frames, code)
        of_windows = syncer(emotion_windows(features), average, reference, frames, code)
        later = syncer(features, average, reference, frames + 2500, code)
    torch.testing.assert_close(of_frames, of_windows, atol=1e-4, rtol=1e-4)
    assert (later - of_frames).abs().max() > 1e-5
    torch.testing.assert_close(time_code(torch.tensor([10001])), time_code(torch.tensor([1])))


@pytest.mark.parametrize("emotion", [False, True])
def test_syncers_learn_a_person(emotion: bool) -> None:
    torch.manual_seed(0)
    count, size, code = 40, 7 if emotion else 6, 256 if emotion else 32
    target, features = drawn(count, size), drawn(count, 256, seed=1)
    syncer = EmotionSyncer() if emotion else PoseSyncer()
    optimiser = torch.optim.Adam(syncer.parameters(), lr=2e-3)
    losses_seen = []
    for step in range(12):
        noise = drawn(count, code, seed=step)
        if isinstance(syncer, EmotionSyncer):
            output = syncer.training_pass(features, torch.zeros(count, 7), target, torch.arange(count), noise)
        else:
            output = syncer.training_pass(features, labels.previous_labels(target), target, noise)
        loss = losses.syncer_loss(output, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses_seen.append(loss.item())
    assert losses_seen[-1] < 0.9 * losses_seen[0]
    assert output.mean.shape == output.log_variance.shape == (count, code)


# --- losses ---


def test_the_syncers_loss_is_difference_and_divergence() -> None:
    target, zeros = torch.ones(4, 6), torch.zeros(4, 32)
    assert losses.syncer_loss(SyncerOutput(target + 0.5, target, zeros, zeros), target).item() == pytest.approx(0.5)
    wide = losses.syncer_loss(SyncerOutput(target, target, zeros + 2, zeros + 1), target)
    assert wide.item() == pytest.approx(0.1 * (4 + math.e - 1 - 1) / 2)


def head_render(**changed: torch.Tensor) -> HeadRender:
    n = 8
    values = {name: torch.zeros(n) for name in HeadRender._fields} | {
        "image": torch.zeros(n, 3),
        "opacity": torch.ones(n),
        "points": torch.zeros(0, 3),
    }
    return HeadRender(**{**values, **changed})


def test_the_head_s_loss_has_its_terms() -> None:
    black, white = torch.zeros(8, 3), torch.ones(8, 3)
    half = torch.arange(8) < 4
    plain = {"face": half, "outside": half, "progress": 0.0}
    assert losses.head_loss(head_render(), black, **plain).item() == pytest.approx(0, abs=1e-6)
    assert losses.head_loss(head_render(), white, **plain, uncertainty=False).item() == pytest.approx(1, abs=1e-5)
    undecided = losses.head_loss(head_render(opacity=torch.full((8,), 0.5)), black, **plain)
    assert undecided.item() == pytest.approx(1e-4, rel=1e-3)
    late = {"face": half, "outside": half, "progress": 1.0, "uncertainty": False}
    audio, eyes = half * 2.0, half * 5.0
    assert losses.head_loss(head_render(ambient_audio=audio), black, **late).item() == pytest.approx(1e-4, rel=0.05)
    assert losses.head_loss(head_render(ambient_expression=eyes), black, **late).item() < 1e-6
    late["uncertainty"] = True
    outside_face = losses.head_loss(head_render(uncertainty=~half * 3.0), black, **late)
    assert outside_face.item() == pytest.approx(0.01 * 1.5, rel=0.05)
    face = losses.head_loss(head_render(), white, face=half, outside=half, progress=1.0)
    assert face.item() == pytest.approx(1 + 0.01 * math.sqrt(3) / 4, rel=0.01)


def test_patches_are_compared_by_structure() -> None:
    patches = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    assert losses.patch_loss(patches, patches).item() == pytest.approx(0, abs=1e-6)
    blurred = torch.nn.functional.avg_pool2d(patches, 3, 1, 1)
    shuffled = patches.flip(3)
    assert 0.01 < losses.patch_loss(blurred, patches) < losses.patch_loss(shuffled, patches)
    assert losses.patch_loss(patches[..., :5, :5], patches[..., 5:10, 5:10]) > 0.01


def test_anchors_stay_homogeneous() -> None:
    anchors = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 2.0]])
    assert losses.torso_loss(torch.zeros(4, 3), torch.full((4, 3), 0.25), anchors).item() == pytest.approx(0.75)
