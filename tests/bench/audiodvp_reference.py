"""AudioDVP's networks, face model and losses beside the reference implementation: how they differ, and how fast.

    AUDIODVP_DIR=... python -m tests.bench.audiodvp_reference
    AUDIODVP_DIR=... python -m tests.bench.audiodvp_reference --only renderer --repeats 5

AUDIODVP_DIR names a checkout of xinwen-cs/AudioDVP; without it ours are timed alone. Weights are random, of the
published sizes and the same for both, which run in turns in this process; times are the processor's. Not compared is
the rasteriser, which is CUDA's in the reference. What the reference imports and does not use here (torchvision, its
detector of landmarks) is replaced by empty modules, and its fixed "cuda" by the CPU.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from talking_portrait.models.audiodvp import losses
from talking_portrait.models.audiodvp.audio_features import AudioFeatures
from talking_portrait.models.audiodvp.audio_to_expression import AudioToExpression, feature_windows
from talking_portrait.models.audiodvp.camera import rotation_matrix, to_pixels, to_world
from talking_portrait.models.audiodvp.discriminator import Discriminator
from talking_portrait.models.audiodvp.expression_regressor import ExpressionRegressor
from talking_portrait.models.audiodvp.face_model import Coefficients, FaceModel, adjacent_triangles
from talking_portrait.models.audiodvp.lighting import illuminate
from talking_portrait.models.audiodvp.loading import (
    build_audio_features,
    build_audio_to_expression,
    build_discriminator,
    build_expression_regressor,
    build_neural_renderer,
)
from talking_portrait.models.audiodvp.neural_renderer import NeuralRenderer

from ..tiny_weights.anitalker import filled
from .anitalker import Work, compare

CPU = torch.device("cpu")
SIDE = 189
"""Vertices along each side of the face model's mesh, which has about as many as the Basel Face Model's."""
BASES = {"id_base": 80, "exp_base": 64, "tex_base": 80}
SPEECH_FRAMES = 250


def main() -> None:
    benches: dict[str, Callable[[argparse.Namespace], None]] = {
        "renderer": renderer,
        "renderer-training": renderer_training,
        "audio": audio,
        "regressor": regressor,
        "face-model": face_model,
        "losses": fit_losses,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 leaves the choice to torch")
    parser.add_argument("--repeats", type=int, default=3, help="of each, in turns; the median counts")
    parser.add_argument("--only", nargs="*", choices=list(benches), default=list(benches))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32")
    for name in options.only:
        with torch.set_grad_enabled(name == "renderer-training"):
            benches[name](options)


def renderer(options: argparse.Namespace) -> None:
    """One frame of 256 x 256 pixels, as both generate them."""
    state, windows = weights(NeuralRenderer, 0), noise(1, 21, 256, 256)
    ours, theirs = build_neural_renderer(state, path="generated"), reference_renderer(state)
    works = {"ours": lambda: ours(windows)} | ({"reference": lambda: theirs(windows)} if theirs else {})
    report("U-Net, one frame of 256 x 256", works, options)


def renderer_training(options: argparse.Namespace) -> None:
    """Both losses of the published training and the gradients of two pictures, without dropout, which is random."""
    generator_state, discriminator_state = weights(NeuralRenderer, 0), weights(Discriminator, 1)
    windows, target = noise(2, 21, 256, 256), noise(2, 3, 256, 256)
    ours = without_dropout(build_neural_renderer(generator_state, path="generated"))
    rival = without_dropout(build_discriminator(discriminator_state, path="generated"))

    def own_step() -> torch.Tensor:
        image = ours(windows)
        loss = losses.discriminator_loss(rival(windows, image.detach()), rival(windows, target))
        loss.backward()
        with_gradients(rival, False)
        fooled = losses.generator_loss(rival(windows, image), image, target)
        fooled.backward()
        with_gradients(rival, True)
        return gradients(loss, fooled, ours, rival)

    works: dict[str, Work] = {"ours": own_step}
    theirs = reference_renderer(generator_state)
    if theirs is not None:
        networks = renderer_networks()
        their_rival = networks.NLayerDiscriminator(24, norm_layer=networks.get_norm_layer("batch"))
        their_rival.load_state_dict(discriminator_state)
        without_dropout(theirs), without_dropout(their_rival)
        adversarial, absolute = networks.GANLoss("vanilla"), torch.nn.L1Loss()

        def their_step() -> torch.Tensor:
            image = theirs(windows)
            fake, real = torch.cat((windows, image), 1), torch.cat((windows, target), 1)
            loss = (adversarial(their_rival(fake.detach()), False) + adversarial(their_rival(real), True)) * 0.5
            loss.backward()
            with_gradients(their_rival, False)
            fooled = adversarial(their_rival(fake), True) + absolute(image, target) * 100.0
            fooled.backward()
            with_gradients(their_rival, True)
            return gradients(loss, fooled, theirs, their_rival)

        works["reference"] = their_step
    report("training of U-Net and discriminator, losses and gradients of 2 pictures", works, options)


def audio(options: argparse.Namespace) -> None:
    """ATnet and the map to expressions over ten seconds of speech, as each program runs them: ours in one batch, the
    reference one frame after the other."""
    mfcc, features = noise(SPEECH_FRAMES, 28, 12), noise(SPEECH_FRAMES, 256)
    atnet_state, state = weights(AudioFeatures, 2), weights(AudioToExpression, 3)
    atnet, network = build_audio_features(atnet_state, path="generated"), build_audio_to_expression(state, path="")
    windows = feature_windows(features)
    encoded: dict[str, Work] = {"ours": lambda: atnet(mfcc)}
    mapped: dict[str, Work] = {"ours": lambda: network(windows)[..., 0]}
    if folder():
        their_atnet = module("vendor/ATVGnet/code/models.py").AT_net()
        left = their_atnet.load_state_dict(atnet_state, strict=False)
        assert all(name.startswith(("lmark_encoder", "lstm")) for name in left.missing_keys)
        their_network = fit_networks().AudioExpressionModule(SimpleNamespace(Nw=7))
        their_network.load_state_dict(state)
        their_atnet.eval()
        encoded["reference"] = lambda: torch.cat(their_atnet(mfcc[None]))
        mapped["reference"] = lambda: torch.cat([their_network(window[None]) for window in windows])[..., 0]
    report(f"ATnet, {SPEECH_FRAMES} frames of speech", encoded, options)
    report(f"audio to expression, {SPEECH_FRAMES} frames", mapped, options)


def regressor(options: argparse.Namespace) -> None:
    """The ResNet-50 on five pictures."""
    state, pictures = weights(ExpressionRegressor, 4), noise(5, 3, 224, 224)
    ours = build_expression_regressor(state, path="generated")
    works: dict[str, Work] = {"ours": lambda: ours.fc(ours.pretrained_model(pictures))}
    if folder():
        resnet = fit_networks().ResNet()
        prefix = "pretrained_model."
        resnet.load_state_dict({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)})
        resnet.eval()
        works["reference"] = lambda: torch.nn.functional.linear(resnet(pictures), state["fc.weight"], state["fc.bias"])
    report("ResNet-50 of the fit, 5 pictures of 224 x 224", works, options)


def face_model(options: argparse.Namespace) -> None:
    """Five faces up to the rasteriser: lit colours, places in clip space and landmarks."""
    model, face = generated_face_model(), generated_face()

    def own() -> torch.Tensor:
        geometry, rotation = model.geometry(face.alpha, face.delta), rotation_matrix(face.rotation)
        clip = model.camera.project(to_world(geometry, rotation, face.translation))
        normals = model.normals(geometry) @ rotation.transpose(1, 2)
        colours = illuminate(model.albedo(face.beta), normals, face.gamma)
        landmarks = to_pixels(clip[:, model.landmark_index], (256, 256))
        return torch.cat([colours.flatten(), clip.flatten(), landmarks.flatten()])

    works: dict[str, Work] = {"ours": own}
    if folder():
        theirs = reference_face_model(model)

        def their() -> torch.Tensor:
            given = (face.alpha, face.delta, face.beta, face.rotation, face.translation, face.gamma)
            (colours, clip), _, landmarks = theirs(*given)
            return torch.cat([colours.flatten(), clip.flatten(), landmarks.flatten()])

        works["reference"] = their
    report(f"face model of {model.vertices} vertices up to the rasteriser, 5 faces", works, options)


def fit_losses(options: argparse.Namespace) -> None:
    """All terms of the fit's loss for a batch of five."""
    image, target = noise(5, 3, 256, 256).sigmoid(), noise(5, 3, 256, 256).sigmoid()
    places, wanted = 256 * noise(5, 68, 2).sigmoid(), 256 * noise(5, 68, 2).sigmoid()
    face, given = generated_face(), losses.landmark_weights()

    def own() -> torch.Tensor:
        photometric = losses.photometric_loss(image, target)
        landmark = losses.landmark_loss(places, wanted, given)
        return losses.fit_loss(photometric, landmark, face.alpha, face.beta, face.delta)[None]

    works: dict[str, Work] = {"ours": own}
    if folder():
        networks = fit_networks()
        photometric, size = networks.PhotometricLoss(), networks.CoefficientRegularization()
        landmark = networks.LandmarkLoss(SimpleNamespace(device=CPU))

        def their() -> torch.Tensor:
            small = 1.0 * size(face.alpha) + 1.7e-3 * size(face.beta) + 0.8 * size(face.delta)
            return (1.9 * photometric(image, target) + 1.6e-3 * landmark(places, wanted) + 3e-4 * small)[None]

        works["reference"] = their
    report("losses of the fit, 5 pictures", works, options)


# --- what both get ---


def report(title: str, works: dict[str, Work], options: argparse.Namespace) -> None:
    compare(title, works, CPU, options.repeats, lambda seconds: f"{1000 * seconds:.1f} ms", elapsed=False)


def weights(network: Callable[[], torch.nn.Module], seed: int) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        empty = network()
    return filled(empty.state_dict(), seed)


@functools.cache
def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def without_dropout(network: torch.nn.Module) -> Any:
    """In the mode of training, with gradients."""
    for part in network.train().requires_grad_(True).modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return network


def with_gradients(network: torch.nn.Module, wanted: bool) -> None:
    for weight in network.parameters():
        weight.requires_grad_(wanted)


def gradients(loss: torch.Tensor, fooled: torch.Tensor, *networks: torch.nn.Module) -> torch.Tensor:
    """Both losses, and the norms of all gradients, which are dropped."""
    values = [loss.detach(), fooled.detach()]
    for network in networks:
        values += [weight.grad.norm() for weight in network.parameters() if weight.grad is not None]
        network.zero_grad(set_to_none=True)
    return torch.stack(values)


@functools.cache
def generated_face_model() -> FaceModel:
    """A bulging sheet with smooth random bases."""
    across = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(across, across, indexing="ij")
    mean = torch.stack([x, y, 0.8 - 0.4 * (x * x + y * y)], 2).reshape(-1, 1)
    number = torch.arange(SIDE * SIDE).view(SIDE, SIDE)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = torch.stack([torch.stack([a, b, c], -1), torch.stack([b, d, c], -1)]).reshape(-1, 3).int()
    bases = {name: 0.01 * noise(len(mean), count) for name, count in BASES.items()}
    return FaceModel(
        geo_mean=mean,
        tex_mean=noise(len(mean), 1).sigmoid(),
        triangles=triangles,
        lower_triangles=triangles,
        point_buf=adjacent_triangles(triangles, SIDE * SIDE),
        landmark_index=torch.arange(68),
        **bases,
    )


def generated_face() -> Coefficients:
    return Coefficients(
        alpha=noise(1, 80, 1),
        delta=noise(5, 64, 1),
        beta=noise(1, 80, 1),
        gamma=0.1 * noise(5, 27, 1),
        rotation=0.2 * noise(5, 3, 1),
        translation=0.1 * noise(6, 3, 1)[:5],
    )


# --- the reference ---


def folder() -> Path | None:
    return Path(os.environ["AUDIODVP_DIR"]) if os.environ.get("AUDIODVP_DIR") else None


@functools.cache
def module(path: str) -> Any:
    """A file of the checkout as a module of its own: several of its folders are called models."""
    root = folder()
    assert root is not None
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), root / path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def renderer_networks() -> Any:
    return module("vendor/neural-face-renderer/models/networks.py")


def reference_renderer(state: dict[str, torch.Tensor]) -> Any:
    """The published generator, or None."""
    if not folder():
        return None
    networks = renderer_networks()
    norm = networks.get_norm_layer("batch")
    unet = networks.UnetGenerator(21, 3, 8, 64, norm_layer=norm, use_dropout=True, use_refine=True)
    unet.load_state_dict(state)
    return unet.eval()


class OnCpu:
    """torch, whose every device is the CPU."""

    def device(self, *_: Any) -> torch.device:
        return CPU

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def face_model_modules() -> Any:
    """The published face model's module, made to run on a CPU up to the rasteriser."""
    for name in ("torchvision", "utils", "renderer.kernels"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchvision"].transforms = None  # type: ignore[attr-defined]
    sys.modules["utils"].util = None  # type: ignore[attr-defined]
    sys.modules["renderer.kernels"].rasterize_triangles_cpp = None  # type: ignore[attr-defined]
    if str(folder()) not in sys.path:
        sys.path.append(str(folder()))
        warnings.filterwarnings("ignore")  # of what has been renamed since it was written
    from renderer import camera, face_model, renderer

    for part in (camera, face_model, renderer):
        part.torch = OnCpu()
    return face_model


def fit_networks() -> Any:
    face_model_modules()
    return module("models/networks.py")


def reference_face_model(model: FaceModel) -> Any:
    """The published face model with the tensors of ours; its images are the colours and the places of the vertices."""
    published = face_model_modules()

    class Filled(published.FaceModel):  # type: ignore[misc]
        def load_data(self) -> None:
            for name in ("geo_mean", "tex_mean", "exp_base"):
                setattr(self, name, getattr(model, name).expand(self.batch_size, -1, -1))
            self.id_base, self.tex_base = model.id_base[None], model.tex_base[None]
            self.triangles, self.mouth_triangles = model.triangles, model.lower_triangles
            self.triangles64, self.point_buf = model.triangles.long(), model.point_buf
            self.landmark_index = model.landmark_index

    published.sio = SimpleNamespace(loadmat=lambda path: {})
    face = Filled("", 5)
    face.renderer.rasterizer = Undrawn()
    return face


class Undrawn(torch.nn.Module):
    """In place of the rasteriser."""

    def forward(self, clip: torch.Tensor, colours: torch.Tensor, triangles: torch.Tensor) -> Any:
        return (colours, clip), None


if __name__ == "__main__":
    main()
