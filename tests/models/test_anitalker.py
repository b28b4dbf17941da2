"""AniTalker's files: recognised, loaded strictly, refused in a sentence; and invariants of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from talking_portrait.models.anitalker import conformer, renderer
from talking_portrait.models.anitalker.conformer import Conformer, relative_positions
from talking_portrait.models.anitalker.loading import load_stage1, load_stage2
from talking_portrait.models.anitalker.stage2 import Stage2
from talking_portrait.models.errors import TalkingPortraitError

from ..tiny_weights.anitalker import ENCODER, RENDERER, SIZE, STAGE2, stage1_state, stage2_state


def saved(folder: Path, name: str, state: dict[str, torch.Tensor]) -> Path:
    path = folder / f"{name}.ckpt"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("prefix", ["lia.", ""])
def test_stage1_loads_with_and_without_its_prefix(tmp_path: Path, prefix: str) -> None:
    state = stage1_state(prefix)
    model = load_stage1(saved(tmp_path, "stage1", state))
    assert (model.enc.config, model.dec.config, model.size) == (ENCODER, RENDERER, SIZE)
    assert torch.equal(model.dec.direction.weight, state[f"{prefix}dec.direction.weight"])
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("prefix", ["model.lia.", "module.lia.", "_orig_mod.lia.", "gen.", "netG.module.", "model."])
def test_stage1_loads_from_inside_of_a_training_program(tmp_path: Path, prefix: str) -> None:
    plain = stage1_state("")
    heads = {"loss_fn.vgg.0.weight": torch.ones(2), "model.discriminator.conv.weight": torch.ones(2)}
    value = {"state_dict": {prefix + name: tensor for name, tensor in plain.items()} | heads, "epoch": 1}
    model = load_stage1(saved(tmp_path, "stage1", value))
    torch.testing.assert_close(model.state_dict()["dec.direction.weight"], plain["dec.direction.weight"])


@pytest.mark.parametrize("outer", [(), ("module",), ("state_dict",)])
@pytest.mark.parametrize("prefix", ["", "module.", "predictor."])
def test_stage2_loads_its_averaged_copy_from_any_wrapper(tmp_path: Path, outer: tuple[str, ...], prefix: str) -> None:
    file = "stage2_full_control_mfcc"
    value = {prefix + name: tensor for name, tensor in stage2_state(file).items()}
    for name in outer:
        value = {name: value}
    weight = load_stage2(saved(tmp_path, file, value)).state_dict()["out_proj.weight"]
    torch.testing.assert_close(weight, stage2_state(file)["ema_model.out_proj.weight"])
    assert weight.any(), "the plain copy is zero here"


def test_where_both_names_are_there_the_plain_one_counts(tmp_path: Path) -> None:
    state = {**stage1_state(""), "lia.dec.direction.weight": torch.zeros(24, 20)}
    model = load_stage1(saved(tmp_path, "stage1", state))
    assert torch.equal(model.dec.direction.weight, state["dec.direction.weight"])


@pytest.mark.parametrize("file", STAGE2)
def test_every_variant_loads_its_averaged_copy(tmp_path: Path, file: str) -> None:
    state = stage2_state(file)
    model = load_stage2(saved(tmp_path, file, state))
    assert model.config == STAGE2[file]
    assert file == f"stage2_{model.config.variant.partition('_')[2]}_{model.config.feature_kind}"
    assert torch.equal(model.out_proj.weight, state["ema_model.out_proj.weight"])


def test_files_in_each_others_place_are_named_for_what_they_are(tmp_path: Path) -> None:
    one = saved(tmp_path, "one", stage1_state())
    two = saved(tmp_path, "two", stage2_state("stage2_pose_only_mfcc"))
    with pytest.raises(TalkingPortraitError, match=r"one\.ckpt is AniTalker's stage 1 .* but an AniTalker stage 2"):
        load_stage2(one)
    with pytest.raises(TalkingPortraitError, match=r"two\.ckpt is an AniTalker stage 2 .* but AniTalker's stage 1"):
        load_stage1(two)


def test_whatever_is_missing_or_odd_is_reported_in_a_sentence(tmp_path: Path) -> None:
    stage1 = stage1_state("")
    unused = ("noise.weight", "to_rgb1.bias", "dis.final.weight")
    for name in stage1:
        rest = {key: tensor for key, tensor in stage1.items() if key != name}
        path = saved(tmp_path, "stage1", rest)
        if name.endswith(unused):
            load_stage1(path)
            continue
        with pytest.raises(TalkingPortraitError) as raised:
            load_stage1(path)
        assert "\n" not in str(raised.value)
    load_stage1(saved(tmp_path, "stage1", {**stage1, "dec.extra.weight": torch.zeros(1)}))
    with pytest.raises(TalkingPortraitError, match="1 unknown"):
        load_stage1(saved(tmp_path, "stage1", {**stage1, "dec.convs.99.conv.weight": torch.zeros(1)}))
    with pytest.raises(TalkingPortraitError, match="1 of another shape"):
        load_stage1(saved(tmp_path, "stage1", {**stage1, "enc.fc.4.bias": torch.zeros(7)}))


@pytest.mark.parametrize("file", STAGE2)
def test_a_stage2_without_any_of_its_tensors_is_reported(tmp_path: Path, file: str) -> None:
    state = {name: tensor for name, tensor in stage2_state(file).items() if name.startswith("ema_model.")}
    for name in list(state)[::11]:
        rest = {key: tensor for key, tensor in state.items() if key != name}
        with pytest.raises(TalkingPortraitError) as raised:
            load_stage2(saved(tmp_path, file, rest))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("apart", [16, 1000])
@torch.no_grad()
def test_frames_rendered_together_are_those_rendered_alone(
    tmp_path: Path, apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer, "APART", apart)
    model = load_stage1(saved(tmp_path, "stage1", stage1_state()))
    encoded = model.enc(torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 2 - 1)
    codes = torch.randn(5, 20, generator=torch.Generator().manual_seed(3))
    scene = model.dec.prepare(encoded)
    together = model.dec(scene, codes)
    assert together.shape == (5, 3, SIZE, SIZE)
    for code, frame in zip(codes, together, strict=True):
        alone = model.dec(scene, code[None])[0]
        torch.testing.assert_close(frame, alone, atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.01


@torch.no_grad()
def test_attention_depends_on_signed_relative_positions() -> None:
    """Shifting keys and queries together changes nothing; mirroring time does."""
    torch.manual_seed(0)
    conformer = Conformer(8, inner=8, heads=2, kernel=3, blocks=1)
    for parameter in conformer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    attention = conformer.encoders[0].self_attn
    x = torch.randn(1, 1, 8).expand(1, 6, 8)
    places = attention.place_keys(relative_positions(6, 8))
    scores = attention.scores(*attention.queries_and_keys(x), places, 0, 6)
    torch.testing.assert_close(scores[..., 1:, 1:], scores[..., :-1, :-1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(scores, scores.transpose(-1, -2), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8])
def test_attention_is_the_same_in_pieces(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame attends to all others, though few frames' weights are in memory at once."""
    torch.manual_seed(0)
    attention = Conformer(8, inner=8, heads=2, kernel=3, blocks=1).encoders[0].self_attn
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, places = torch.randn(2, frames, 8), attention.place_keys(relative_positions(frames, 8))
    query, key = attention.queries_and_keys(x)
    scores, whole = attention.scores(query, key, places, 0, frames), attention(x, places)
    some = attention.scores(query, key, places, frames // 2, frames)
    torch.testing.assert_close(some, scores[..., frames // 2 :, :], atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(conformer, "WEIGHTS_AT_ONCE", 3 * frames)
    torch.testing.assert_close(attention(x, places), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_the_time_step_does_not_change_is_computed_once(tmp_path: Path) -> None:
    """The condition made in advance gives what the whole network gives in one call."""
    model = load_stage2(saved(tmp_path, "two", stage2_state("stage2_full_control_hubert")))
    assert isinstance(model, Stage2)
    generator = torch.Generator().manual_seed(4)
    audio, start, code, noisy = (
        torch.randn(shape, generator=generator) for shape in ((1, 12, 64), (1, 24), (1, 20), (1, 6, 20))
    )
    encoded, used = model.apply_controls(model.encode_sequence(model.encode_audio(audio)), None)
    assert {name: tuple(value.shape) for name, value in used.items()} == {
        "location": (1, 6, 1),
        "face_scale": (1, 6, 1),
        "pose": (1, 6, 3),
    }
    condition = model.condition(encoded, start, code)
    places = model.coarse_decoder.place_keys(6)
    for timestep in (0, 500):
        time = torch.tensor([timestep])
        torch.testing.assert_close(
            model.predict(condition, noisy, time, places), model.predict(condition, noisy, time), atol=1e-4, rtol=1e-4
        )
    early, late = (model.predict(condition, noisy, torch.tensor([t])) for t in (0, 900))
    assert (early - late).abs().max() > 1e-3
