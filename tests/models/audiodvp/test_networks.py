"""AudioDVP's networks: their files, sizes and invariants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.models.audiodvp import loading
from talking_portrait.models.audiodvp.audio_features import AudioFeatures, AudioFeaturesConfig
from talking_portrait.models.audiodvp.audio_to_expression import (
    AudioToExpression,
    AudioToExpressionConfig,
    feature_windows,
)
from talking_portrait.models.audiodvp.discriminator import Discriminator, DiscriminatorConfig
from talking_portrait.models.audiodvp.expression_regressor import ExpressionRegressor, ExpressionRegressorConfig
from talking_portrait.models.audiodvp.neural_renderer import NeuralRenderer, NeuralRendererConfig, initialise
from talking_portrait.models.errors import TalkingPortraitError

ATNET_REST = {f"{name}.weight": torch.ones(2, 2) for name in ("lmark_encoder.0", "lstm_fc.0")} | {
    "lstm.weight_ih_l0": torch.ones(2, 2)
}


@dataclass(frozen=True)
class Case:
    """A network of small size, how its file is loaded, and its inputs without the batch."""

    network: type[torch.nn.Module]
    config: Any
    load: Callable[[Path], Any]
    inputs: tuple[tuple[int, ...], ...]
    title: str


CASES = {
    "audio_to_expression": Case(
        AudioToExpression,
        AudioToExpressionConfig(channels=(7, 5, 3, 2), features=16, expressions=6),
        loading.load_audio_to_expression,
        ((7, 16),),
        "AudioDVP's audio-to-expression network",
    ),
    "audio_features": Case(
        AudioFeatures,
        AudioFeaturesConfig(channels=(2, 3, 4, 3, 5), hidden=8, features=6),
        loading.load_audio_features,
        ((28, 12),),
        "ATVGnet's ATnet",
    ),
    "expression_regressor": Case(
        ExpressionRegressor,
        ExpressionRegressorConfig(blocks=(1, 2, 1, 1), base_channels=4, expressions=9, identities=3, textures=2),
        loading.load_expression_regressor,
        ((3, 64, 64),),
        "AudioDVP's face regressor",
    ),
    "neural_renderer": Case(
        NeuralRenderer,
        NeuralRendererConfig(in_channels=9, base_channels=4, downs=5),
        loading.load_neural_renderer,
        ((9, 32, 64),),
        "AudioDVP's neural face renderer",
    ),
    "neural_renderer_without_refine": Case(
        NeuralRenderer,
        NeuralRendererConfig(base_channels=2, out_channels=4, downs=3, refine=False),
        loading.load_neural_renderer,
        ((21, 16, 8),),
        "AudioDVP's neural face renderer",
    ),
    "discriminator": Case(
        Discriminator,
        DiscriminatorConfig(in_channels=8, base_channels=4),
        loading.load_discriminator,
        ((5, 32, 32), (3, 32, 32)),
        "AudioDVP's discriminator",
    ),
}
WHOLE = [pytest.param(case, id=name) for name, case in CASES.items()]


def filled(case: Case) -> Any:
    """With weights and statistics that keep activations at a natural size."""
    generator = torch.Generator().manual_seed(0)
    network = case.network(case.config).eval().requires_grad_(False)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.2
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale + name.endswith("running_var"))
            if name.endswith("running_var"):
                tensor.abs_()
    return network


def drawn(case: Case, batch: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, *shape, generator=generator) for shape in case.inputs]


def outputs(result: Any) -> list[torch.Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


def check_same(case: Case, first: Any, second: Any) -> None:
    inputs = drawn(case, 2)
    for one, other in zip(outputs(first(*inputs)), outputs(second(*inputs)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        assert one.abs().max() > 1e-3


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("prefix", ["", "module.", "netG.module."])
@pytest.mark.parametrize("wrapper", ["", "state_dict"])
def test_a_file_gives_the_same_network_at_its_own_size(case: Case, prefix: str, wrapper: str, tmp_path: Path) -> None:
    network, path = filled(case), tmp_path / "50_net.pth"
    state: dict[str, Any] = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    torch.save({wrapper: state} if wrapper else state, path)
    loaded = case.load(path)
    assert loaded.config == case.config
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    check_same(case, network, loaded)


@pytest.mark.parametrize("case", WHOLE)
def test_safetensors_do_as_well(case: Case, tmp_path: Path) -> None:
    network = filled(case)
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    check_same(case, network, case.load(tmp_path / "net.safetensors"))


@pytest.mark.parametrize("case", WHOLE)
def test_rows_of_a_batch_of_three_are_independent(case: Case) -> None:
    network, inputs = filled(case), drawn(case, 3)
    together = outputs(network(*inputs))
    for row in range(3):
        alone = outputs(network(*(value[row : row + 1] for value in inputs)))
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[row : row + 1], part, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", WHOLE)
def test_every_missing_tensor_is_reported_in_a_sentence(case: Case, tmp_path: Path) -> None:
    state = filled(case).state_dict()
    for name in state:
        save_file({key: tensor for key, tensor in state.items() if key != name}, tmp_path / "net.safetensors")
        with pytest.raises(TalkingPortraitError) as raised:
            case.load(tmp_path / "net.safetensors")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 2), (2, 2, 2, 2, 2)])
def test_misshapen_tensors_are_reported_in_a_sentence(case: Case, shape: tuple[int, ...], tmp_path: Path) -> None:
    state = filled(case).state_dict()
    for name in list(state)[:: 1 + len(state) // 12]:
        if state[name].shape == shape or name.endswith("num_batches_tracked"):
            continue
        save_file({**state, name: torch.ones(shape)}, tmp_path / "net.safetensors")
        with pytest.raises(TalkingPortraitError) as raised:
            case.load(tmp_path / "net.safetensors")
        assert "\n" not in str(raised.value)


def test_a_regressor_without_an_expression_is_refused(tmp_path: Path) -> None:
    state = filled(CASES["expression_regressor"]).state_dict()
    few = {"fc.weight": state["fc.weight"][:33], "fc.bias": state["fc.bias"][:33]}
    save_file({**state, **few}, tmp_path / "net.safetensors")
    with pytest.raises(TalkingPortraitError, match="33 coefficients"):
        loading.load_expression_regressor(tmp_path / "net.safetensors")


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("other", WHOLE)
def test_files_in_each_others_place_are_named_for_what_they_are(case: Case, other: Case, tmp_path: Path) -> None:
    if case.load is other.load:
        return
    torch.save(filled(other).state_dict(), tmp_path / "latest_net_G.pth")
    with pytest.raises(TalkingPortraitError, match=f"^latest_net_G.pth is {other.title}, but .* is expected here"):
        case.load(tmp_path / "latest_net_G.pth")


@pytest.mark.parametrize("case", WHOLE)
def test_a_surplus_tensor_is_reported(case: Case, tmp_path: Path) -> None:
    torch.save({**filled(case).state_dict(), "extra.weight": torch.ones(1, 1)}, tmp_path / "net.pth")
    with pytest.raises(TalkingPortraitError, match="unknown|1 missing"):
        case.load(tmp_path / "net.pth")


def test_the_parts_of_atnet_that_are_not_run_may_be_there(tmp_path: Path) -> None:
    case = CASES["audio_features"]
    network = filled(case)
    state = {f"module.{name}": tensor for name, tensor in (network.state_dict() | ATNET_REST).items()}
    torch.save(state, tmp_path / "atnet_lstm_18.pth")
    check_same(case, network, case.load(tmp_path / "atnet_lstm_18.pth"))


# --- audio ---


@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_windows_are_filled_with_zeros_beyond_both_ends(count: int) -> None:
    features = 1 + torch.rand(count, 4, generator=torch.Generator().manual_seed(0))
    windows = feature_windows(features)
    assert windows.shape == (count, 7, 4)
    for frame in range(count):
        for place in range(7):
            there = 0 <= (number := frame + place - 3) < count
            expected = features[number] if there else torch.zeros(4)
            torch.testing.assert_close(windows[frame, place], expected)


def test_no_features_give_no_windows() -> None:
    assert feature_windows(torch.zeros(0, 4)).shape == (0, 7, 4)


def test_the_audio_to_expression_network_is_an_affine_map() -> None:
    network = filled(CASES["audio_to_expression"])
    a, b = drawn(CASES["audio_to_expression"], 2)[0].split(1)
    mixed = network(0.3 * a + 0.7 * b)
    torch.testing.assert_close(mixed, 0.3 * network(a) + 0.7 * network(b), atol=1e-4, rtol=1e-4)
    assert mixed.shape == (1, 6, 1)


def test_audio_features_are_not_negative() -> None:
    features = filled(CASES["audio_features"])(drawn(CASES["audio_features"], 8)[0])
    assert (features >= 0).all()
    assert (features == 0).any()


# --- pictures ---


def test_a_new_regressor_gives_the_mean_face() -> None:
    case = CASES["expression_regressor"]
    result = ExpressionRegressor(case.config)(drawn(case, 2)[0])
    assert [tuple(value.shape) for value in result] == [(2, 9, 1), (2, 27, 1), (2, 3, 1), (2, 3, 1)]
    assert not any(value.any() for value in result)


def test_the_regressors_coefficients_are_expression_light_rotation_and_translation() -> None:
    network = filled(CASES["expression_regressor"])
    network.fc.weight.zero_()
    network.fc.bias.copy_(torch.arange(42))
    result = network(drawn(CASES["expression_regressor"], 1)[0])
    assert [values.flatten()[0].item() for values in result] == [0, 9, 36, 39]


@pytest.mark.parametrize(("side", "pooled"), [(224, 56), (112, 28), (66, 16)])
def test_the_first_pooling_has_no_padding_and_keeps_partial_windows(side: int, pooled: int) -> None:
    case = CASES["expression_regressor"]
    stem = filled(case).pretrained_model.stem(torch.zeros(1, 3, side, side))
    assert stem.shape == (1, 4, pooled, pooled)


def test_a_stage_begins_with_its_stride_in_the_first_convolution() -> None:
    first = ExpressionRegressor(CASES["expression_regressor"].config).pretrained_model.get_submodule("layer2.0")
    assert (first.conv1.stride, first.conv2.stride) == ((2, 2), (1, 1))


def test_the_renderer_gives_an_image_of_its_inputs_size() -> None:
    for name in ("neural_renderer", "neural_renderer_without_refine"):
        case = CASES[name]
        image = filled(case)(drawn(case, 2)[0])
        assert image.shape == (2, case.config.out_channels, *case.inputs[0][1:])
        assert image.abs().max() <= 1


def test_the_published_renderer_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        whole, small = NeuralRenderer(), NeuralRenderer(NeuralRendererConfig(base_channels=32, refine=False))
    assert sum(parameter.numel() for parameter in whole.parameters()) == 140_874_627
    assert sum(parameter.numel() for parameter in small.parameters()) < 15_000_000


def test_without_refine_the_names_are_those_of_pix2pix() -> None:
    with torch.device("meta"):
        names = NeuralRenderer(NeuralRendererConfig(downs=2, refine=False)).state_dict()
    plain = [name for name in names if name.endswith("weight")]
    inner = "model.model.1.model"
    assert plain == [
        "model.model.0.weight",
        f"{inner}.1.weight",
        f"{inner}.3.weight",
        f"{inner}.4.weight",
        "model.model.3.weight",
    ]


@pytest.mark.parametrize(("downs", "expected"), [(8, 9), (5, 9), (2, 3), (1, 0)])
def test_features_are_dropped_in_the_three_innermost_blocks(downs: int, expected: int) -> None:
    """Each of them three times: twice in its refine, and at its end."""
    with torch.device("meta"):
        network = NeuralRenderer(NeuralRendererConfig(base_channels=2, downs=downs))
    assert sum(isinstance(module, torch.nn.Dropout) for module in network.modules()) == expected


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_discriminator_gives_a_logit_for_each_patch(layers: int) -> None:
    network = Discriminator(DiscriminatorConfig(in_channels=5, base_channels=2, layers=layers))
    logits = network(torch.zeros(2, 2, 64, 64), torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 1, 64 // 2**layers - 2, 64 // 2**layers - 2)
    loaded = loading.build_discriminator(network.state_dict(), path="net_D.pth")
    assert loaded.config == network.config


def test_a_residual_renderer_begins_as_the_render_and_loads_as_such() -> None:
    torch.manual_seed(0)
    network = NeuralRenderer(NeuralRendererConfig(base_channels=4, downs=3, refine=False, residual=True))
    initialise(network)
    windows = torch.rand(1, 21, 16, 16) * 1.6 - 0.8
    assert float((network.eval()(windows) - windows[:, 9:12]).detach().abs().mean()) < 0.1
    again = loading.build_neural_renderer(network.state_dict(), path="own.safetensors")
    torch.testing.assert_close(again(windows), network(windows).detach())


def test_a_continued_render_has_no_edge_and_its_network_loads_as_such() -> None:
    torch.manual_seed(0)
    config = NeuralRendererConfig(base_channels=4, downs=3, refine=False, residual=True, continued=True)
    network = NeuralRenderer(config).eval()
    for convolution in network.modules():  # what it adds is nothing
        if isinstance(convolution, torch.nn.ConvTranspose2d):
            torch.nn.init.zeros_(convolution.weight)
            if convolution.bias is not None:
                torch.nn.init.zeros_(convolution.bias)
    windows = torch.full((1, 21, 32, 32), -1.0)
    windows[:, :, 4:20, 8:24] = torch.tensor([0.5, 0.2, 0.0]).repeat(7)[:, None, None]
    image = network(windows)[0].detach()
    torch.testing.assert_close(image[:, 12, 16], torch.tensor([0.5, 0.2, 0.0]))
    below = image[:, 20:26, 12:20]
    assert float((below - image[:, 12, 16][:, None, None]).abs().max()) < 0.1, "colours go on below the mesh"
    again = loading.build_neural_renderer(network.state_dict(), path="own.safetensors")
    assert again.config == config
    state = {name: tensor for name, tensor in network.state_dict().items() if name != "render_kernel"}
    earlier = loading.build_neural_renderer(state, path="earlier.safetensors")
    assert not earlier.config.continued
    torch.testing.assert_close(earlier(windows), windows[:, 9:12])
