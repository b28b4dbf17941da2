"""AudioDVP's files, recognised by what they hold and loaded strictly.

None is published but ATnet's; the others are those that the published program's training writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..checkpoints import expect_kind, layer_count, read_checkpoint, sizes_of, strict_load
from .audio_features import AudioFeatures, AudioFeaturesConfig
from .audio_to_expression import AudioToExpression, AudioToExpressionConfig
from .discriminator import Discriminator, DiscriminatorConfig
from .expression_regressor import ExpressionRegressor, ExpressionRegressorConfig
from .neural_renderer import NeuralRenderer, NeuralRendererConfig

_ATNET_UNUSED = (r"lmark_encoder\.", r"lstm\.", r"lstm_fc\.")
"""ATnet's other branch and its recurrent layers, which AudioDVP does not run."""
_CLASSIFIER = (r"fc\.",)
"""Of the persons that the ResNet was trained to distinguish."""
_REGRESSED = 27 + 3 + 3
"""Light, rotation and translation, which the face regressor gives beside the expression."""


def load_audio_to_expression(path: str | Path) -> AudioToExpression:
    """delta_net.pth. Raises TalkingPortraitError for another file; so do all functions here."""
    wanted = "AudioDVP's audio-to-expression network (delta_net.pth)"
    return build_audio_to_expression(
        expect_kind(read_checkpoint(path), ("audio_to_expression",), wanted, path), path=path
    )


def build_audio_to_expression(state: Mapping[str, torch.Tensor], *, path: str | Path) -> AudioToExpression:
    """From named tensors, on the CPU, for inference, with sizes read off the tensors; so do all `build_` functions."""
    with sizes_of(state, path), torch.device("meta"):
        first, second, third = (state[f"conv{number}.weight"] for number in (1, 2, 3))
        expressions, inputs = state["fc.weight"].shape
        channels = (first.shape[1], len(first), len(second), len(third))
        reach = sum(kernel.shape[2] - 1 for kernel in (first, second, third))
        config = AudioToExpressionConfig(channels, inputs // len(third) + reach, expressions)
        network = AudioToExpression(config)
    strict_load(network, state, path=path)
    return network.eval().requires_grad_(False)


def load_audio_features(path: str | Path) -> AudioFeatures:
    """atnet_lstm_18.pth of ATVGnet, whose names begin with "module."."""
    wanted = "ATVGnet's ATnet (atnet_lstm_18.pth)"
    return build_audio_features(expect_kind(read_checkpoint(path), ("atnet",), wanted, path), path=path)


def build_audio_features(state: Mapping[str, torch.Tensor], *, path: str | Path) -> AudioFeatures:
    with sizes_of(state, path), torch.device("meta"):
        one, two, three, four, five = (len(state[f"audio_eocder.{number}.0.weight"]) for number in (0, 1, 3, 4, 5))
        hidden, inputs = state["audio_eocder_fc.0.weight"].shape
        features = len(state["audio_eocder_fc.2.weight"])
        network = AudioFeatures(AudioFeaturesConfig((one, two, three, four, five), inputs // five, hidden, features))
    strict_load(network, state, path=path, unused=_ATNET_UNUSED)
    return network.eval().requires_grad_(False)


def load_expression_regressor(path: str | Path) -> ExpressionRegressor:
    """The network of the face model's fit."""
    wanted = "AudioDVP's face regressor"
    return build_expression_regressor(expect_kind(read_checkpoint(path), ("face_regressor",), wanted, path), path=path)


def load_pretrained_regressor(path: str | Path, config: ExpressionRegressorConfig) -> ExpressionRegressor:
    """A regressor that is to be trained, whose ResNet has VGGFace2's weights (resnet50_ft_weight.pkl)."""
    wanted = "VGGFace2's ResNet-50 (resnet50_ft_weight.pkl)"
    state = expect_kind(read_checkpoint(path), ("resnet50",), wanted, path, unused=_CLASSIFIER)
    network = ExpressionRegressor(config)
    own = network.pretrained_model.state_dict()
    counts = {name: own[name] for name in own if name.endswith("batches_tracked")}  # which files of torch 0.3 lack
    strict_load(network.pretrained_model, counts | state, path=path, unused=_CLASSIFIER)
    return network


def build_expression_regressor(state: Mapping[str, torch.Tensor], *, path: str | Path) -> ExpressionRegressor:
    with sizes_of(state, path), torch.device("meta"):
        one, two, three, four = (layer_count(state, f"pretrained_model.layer{stage}.") for stage in (1, 2, 3, 4))
        if len(state["fc.weight"]) <= _REGRESSED:
            raise ValueError(f"{len(state['fc.weight'])} coefficients")
        config = ExpressionRegressorConfig(
            blocks=(one, two, three, four),
            base_channels=len(state["pretrained_model.conv1.weight"]),
            expressions=len(state["fc.weight"]) - _REGRESSED,
            identities=state["alpha"].shape[1],
            textures=state["beta"].shape[1],
        )
        network = ExpressionRegressor(config)
    strict_load(network, state, path=path)
    return network.eval().requires_grad_(False)


def load_neural_renderer(path: str | Path) -> NeuralRenderer:
    """50_net_G.pth, latest_net_G.pth and the like."""
    wanted = "AudioDVP's neural face renderer (*_net_G.pth)"
    return build_neural_renderer(expect_kind(read_checkpoint(path), ("neural_renderer",), wanted, path), path=path)


def build_neural_renderer(state: Mapping[str, torch.Tensor], *, path: str | Path) -> NeuralRenderer:
    with sizes_of(state, path), torch.device("meta"):
        network = NeuralRenderer(_derive_renderer_config(state))
    strict_load(network, state, path=path)
    return network.eval().requires_grad_(False)


def _derive_renderer_config(state: Mapping[str, torch.Tensor]) -> NeuralRendererConfig:
    downs, block = 1, "model.model.1."
    while f"{block}model.1.weight" in state:
        downs, block = downs + 1, f"{block}model.3."
    refine = "model.model.3.weight" not in state
    first, last = state["model.model.0.weight"], state[f"model.model.{4 if refine else 3}.weight"]
    residual, continued = "render_weight" in state, "render_kernel" in state
    return NeuralRendererConfig(first.shape[1], last.shape[1], len(first), downs, refine, residual, continued)


def load_discriminator(path: str | Path) -> Discriminator:
    """50_net_D.pth, latest_net_D.pth and the like; only training needs it."""
    wanted = "AudioDVP's discriminator (*_net_D.pth)"
    return build_discriminator(expect_kind(read_checkpoint(path), ("patch_discriminator",), wanted, path), path=path)


def build_discriminator(state: Mapping[str, torch.Tensor], *, path: str | Path) -> Discriminator:
    with sizes_of(state, path), torch.device("meta"):
        first = state["model.0.weight"]
        layers = sum(name.endswith(".weight") and tensor.ndim == 4 for name, tensor in state.items()) - 2
        network = Discriminator(DiscriminatorConfig(first.shape[1], len(first), layers))
    strict_load(network, state, path=path)
    return network.eval().requires_grad_(False)
