"""A person's AudioDVP: trained small, and driven by speech that it was not trained on."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from talking_portrait.__main__ import main
from talking_portrait.models.audiodvp.discriminator import Discriminator, DiscriminatorConfig
from talking_portrait.models.audiodvp.neural_renderer import NeuralRenderer, NeuralRendererConfig, initialise
from talking_portrait.models.audiodvp.speech_to_expression import build_speech_to_expression, new_speech_to_expression
from talking_portrait.models.errors import TalkingPortraitError
from talking_portrait.pipelines.audio.mouth_states import shipped_encoder
from talking_portrait.pipelines.audiodvp.animate import animate, open_model
from talking_portrait.pipelines.audiodvp.expression import predict_expression
from talking_portrait.pipelines.audiodvp.fitted_face import FittedFace
from talking_portrait.pipelines.person.person import Person, open_person
from talking_portrait.pipelines.training.audiodvp import settings as settings_module
from talking_portrait.pipelines.training.audiodvp.expression import calibrate, with_linear
from talking_portrait.pipelines.training.audiodvp.renderer import LowerFaces, NeuralRendererTrainer
from talking_portrait.pipelines.training.audiodvp.settings import Settings
from talking_portrait.pipelines.training.audiodvp.train import MODEL, train_audiodvp
from talking_portrait.pipelines.training.core.person_settings import split
from talking_portrait.pipelines.training.core.run_settings import read_settings
from talking_portrait.pipelines.training.core.timed_steps import steps_in

from ...toy_person import TINY, fitted_face, make_person, photographed, speech
from .halted_training import __file__ as HALTED_TRAINING
from .training_bench import assert_same_log, kill, read_log

QUICK = Settings(steps=6, expression_steps=6, save_every=2, picture_every=0, batch=2)
SECONDS = 6
WHOLE = (0, 64, 0, 64)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audiodvp")
    make_person(folder / "ann", seconds=SECONDS)
    make_person(folder / "bob", seconds=1)
    make_person(folder / "mute", seconds=0.4, sound=False)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings_module._NETWORKS, "small", TINY)


def test_a_trained_person_speaks_what_it_was_not_trained_on(work: Path) -> None:
    lines: list[str] = []
    chosen = Settings(steps=200, expression_steps=200, picture_every=200)
    path = train_audiodvp(work / "ann", work / "run", chosen, say=lines.append)
    figures = json.loads((work / "run" / "held_out.json").read_text())
    assert len(lines) == len(figures) == 4
    assert figures["expression correlation"] > 0.8
    assert figures["lower face psnr"] > 24
    assert len(list((work / "run" / "renderer" / "pictures").iterdir())) == 1

    model, person = open_model(path), open_person(work / "ann")
    audio = speech(4, seed=7)
    face = replace(model.face, expression=model.face.expression.clone())
    face.expression[:100] = fitted_face(audio, person.fps, 100).expression
    errors, still = [], []
    for number, (frames, masks) in enumerate(animate(model, audio, person)):
        if number % 4 == 0:  # the head is that of the video's first four seconds, the mouth that of the new speech
            shown = masks[0].numpy() > 0.5
            expected = photographed(face, number)[shown].astype(float)
            errors.append(np.square(frames[0].numpy()[shown] - expected).mean())
            still.append(np.square(photographed(model.face, number)[shown] - expected).mean())
    assert number == 99
    assert 10 * np.log10(255**2 / np.mean(errors)) > 22
    assert np.mean(errors) < 0.6 * np.mean(still)  # beside the mouth of the video


@pytest.mark.parametrize(("moment", "number"), [("step", 4), pytest.param("checkpoint", 5, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on_to_its_end(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, number: int
) -> None:
    monkeypatch.undo()  # the process that is killed trains the small network, not the tests' tiny one
    arguments = ["--person", work / "bob", "--steps", 6, "--expression-steps", 6, "--batch", 2, "--save-every", 2]
    arguments += ["--picture-every", 0]
    assert main(["train", "audiodvp", "--out", str(tmp_path / "whole"), *map(str, arguments)]) == 0
    out = tmp_path / "killed"
    kill(HALTED_TRAINING, moment, number, "train", "audiodvp", "--out", out, *arguments)
    assert not (out / MODEL).exists()
    assert main(["train", "audiodvp", "--out", str(out), "--resume", "--person", str(work / "bob")]) == 0
    for part in ("expression", "renderer"):
        assert_same_log(read_log(out / part), read_log(tmp_path / "whole" / part))
    assert open_model(out / MODEL).speech == shipped_encoder().name


@pytest.mark.slow
def test_an_interrupted_run_ends_as_one_that_was_not(work: Path, tmp_path: Path) -> None:
    class CancelledError(Exception):
        pass

    def stage(label: str) -> Any:
        def progress(done: int, total: int, preview: torch.Tensor | None = None) -> None:
            if label == "neural renderer" and done == 5 and not resumed:
                raise CancelledError

        return progress

    resumed = False
    whole = train_audiodvp(work / "bob", tmp_path / "whole", QUICK)
    with pytest.raises(CancelledError):
        train_audiodvp(work / "bob", tmp_path / "cut", QUICK, stage=stage)
    with pytest.raises(TalkingPortraitError, match="holds a training run already .*--resume"):
        train_audiodvp(work / "bob", tmp_path / "cut", QUICK)
    resumed = True
    said: list[str] = []
    cut = train_audiodvp(
        work / "bob", tmp_path / "cut", replace(QUICK, seed=7), stage=stage, resume=True, say=said.append
    )
    assert said[0] == "This run goes on with seed 42, as it was begun; for other settings begin another run."
    for part in ("expression", "renderer"):
        assert_same_log(read_log(tmp_path / "cut" / part), read_log(tmp_path / "whole" / part))
    for name, tensor in open_model(whole).tensors().items():
        torch.testing.assert_close(open_model(cut).tensors()[name], tensor, rtol=1e-3, atol=1e-4)
    # More steps are added to a finished run.
    train_audiodvp(work / "bob", tmp_path / "cut", replace(QUICK, steps=8), resume=True)
    assert len(read_log(tmp_path / "cut" / "renderer")) == 8
    run = tmp_path / "cut" / "run.json"
    run.write_text(run.read_text().replace(open_person(work / "bob").fingerprint, "another"))
    with pytest.raises(
        TalkingPortraitError, match="was begun on another person's video, whose face it has learnt; give"
    ):
        train_audiodvp(work / "bob", tmp_path / "cut", QUICK, resume=True)


def test_a_full_disk_is_a_sentence_and_leaves_no_part_of_the_model(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from talking_portrait.pipelines.audiodvp.person_model import PersonModel

    def full(self: PersonModel, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PersonModel, "save", full)
    with pytest.raises(TalkingPortraitError, match=r"person.safetensors can't be written \(No space left on device\)"):
        train_audiodvp(work / "bob", tmp_path / "run", QUICK)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"run.json", "expression", "renderer", "held_out.json"}
    monkeypatch.undo()
    monkeypatch.setitem(settings_module._NETWORKS, "small", TINY)
    assert train_audiodvp(work / "bob", tmp_path / "run", resume=True).is_file()


def test_persons_that_cannot_be_trained_on_are_refused_in_a_sentence(work: Path, tmp_path: Path) -> None:
    with pytest.raises(TalkingPortraitError, match="has no speech, which training needs"):
        train_audiodvp(work / "mute", tmp_path / "run", QUICK)
    with pytest.raises(TalkingPortraitError, match=r"meta.json is missing"):
        train_audiodvp(tmp_path, tmp_path / "run", QUICK)
    assert not (tmp_path / "run").exists()
    person = open_person(work / "bob")
    with pytest.raises(TalkingPortraitError, match="No frame of the head video"):
        split(person, np.zeros(person.frames, bool), 0.1)


def test_files_of_others_are_left_alone(work: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / MODEL).write_text("mine")
    with pytest.raises(TalkingPortraitError, match=r"person.safetensors would be written over"):
        train_audiodvp(work / "bob", tmp_path / "run", QUICK)
    assert (tmp_path / "run" / MODEL).read_text() == "mine"
    (tmp_path / "run" / "run.json").write_text('{"who": "me"}')
    with pytest.raises(TalkingPortraitError, match=r"run.json was not written by this training"):
        read_settings(tmp_path / "run", Settings)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TalkingPortraitError, match="is a file, but a folder"):
        train_audiodvp(work / "bob", tmp_path / "file", QUICK)


def test_the_end_of_the_video_is_held_out(work: Path) -> None:
    person = open_person(work / "ann")
    training, held_out = split(person, person.usable, 0.1)
    assert training.tolist() == list(range(135))
    assert held_out.tolist() == list(range(135, 150))
    training, held_out = split(person, person.usable, 0)
    assert (len(training), len(held_out)) == (150, 0)
    usable = person.usable.copy()
    usable[100:] = False
    training, held_out = split(person, usable, 0.1)
    assert training.tolist() == list(range(90))


def test_minutes_become_steps(work: Path) -> None:
    person = open_person(work / "bob")
    faces = LowerFaces(person, FittedFace.read(person.folder), range(20), WHOLE, 0)
    trainer = NeuralRendererTrainer(NeuralRenderer(TINY))
    before = {name: tensor.clone() for name, tensor in trainer.state_dict().items()}
    plan = QUICK.resolved(torch.device("cpu")).renderer_plan()
    assert steps_in(1e-6, trainer, faces, plan) == 1
    assert steps_in(60.0, trainer, faces, plan) > 10
    for name, tensor in trainer.state_dict().items():
        assert (tensor == before[name]).all(), f"{name} was trained by the measurement"


def person_and_faces(work: Path, flip: bool = False) -> tuple[Person, LowerFaces]:
    person = open_person(work / "bob")
    return person, LowerFaces(person, FittedFace.read(person.folder), range(20), WHOLE, 0, flip=flip)


def test_samples_are_renders_of_seven_frames_and_the_lower_face_of_the_middle_one(work: Path) -> None:
    person, faces = person_and_faces(work)
    fitted = FittedFace.read(person.folder)
    item = faces.item(10)
    size = person.crop_size
    assert {name: tuple(tensor.shape) for name, tensor in item.items()} == {
        "windows": (21, size, size),
        "target": (3, size, size),
        "mask": (1, size, size),
        "mouth": (1, size, size),
    }
    image, _ = fitted.render([7, 10, 13], lower=True)
    for place, expected in zip((0, 3, 6), image, strict=True):
        found = item["windows"][3 * place : 3 * place + 3].permute(1, 2, 0)
        torch.testing.assert_close(found, 2 * expected - 1, atol=1 / 127, rtol=0)
    mask = torch.from_numpy(fitted.masks([10])[0] > 0)
    crop = torch.from_numpy(person.crops([10])[0]).permute(2, 0, 1).float() / 127.5 - 1
    torch.testing.assert_close(item["target"][:, mask], crop[:, mask])
    assert (item["target"][:, ~mask] == -1).all()
    assert 0 < float((item["mouth"] * item["mask"]).mean()) < float(item["mask"].mean())
    # Beyond the ends of a shot there is nothing, which is grey.
    assert (faces.item(1)["windows"][: 3 * 2] == 0).all()
    assert (faces.item(1)["windows"][3 * 2 :].flatten(1).std(1) > 0).all()


def test_every_frame_comes_once_before_any_comes_again_and_half_are_mirrored(work: Path) -> None:
    _, plain = person_and_faces(work)
    _, flipped = person_and_faces(work, flip=True)
    targets = torch.stack([plain.item(frame)["target"] for frame in range(20)])
    seen = [int((targets - plain[number]["target"]).abs().sum((1, 2, 3)).argmin()) for number in range(20)]
    assert sorted(seen) == list(range(20))
    mirrored = [not torch.equal(plain[n]["target"], flipped[n]["target"]) for n in range(40)]
    assert 8 < sum(mirrored) < 32
    number = mirrored.index(True)
    for name, tensor in plain[number].items():
        assert (flipped[number][name] == tensor.flip(-1)).all()


def test_both_networks_of_the_gan_learn(work: Path) -> None:
    torch.manual_seed(0)
    _, faces = person_and_faces(work)
    trainer = NeuralRendererTrainer(NeuralRenderer(TINY), Discriminator(DiscriminatorConfig(base_channels=4)))
    initialise(trainer)
    trainer.train()
    batch = torch.utils.data.default_collate([faces[0], faces[1]])
    generator, discriminator = trainer.objectives()
    assert (generator.name, discriminator.name) == ("generator", "discriminator")
    optimisers = [torch.optim.Adam(each.parameters.values(), 2e-3, (0.5, 0.999)) for each in (generator, discriminator)]
    losses: list[list[float]] = [[], []]
    for step in range(40):
        for objective, optimiser, values in zip((generator, discriminator), optimisers, losses, strict=True):
            trainer.zero_grad()
            loss = objective.loss(batch, step)
            loss.backward()
            optimiser.step()
            values.append(float(loss.detach()))
    assert losses[0][-1] < losses[0][0] / 2
    assert losses[1][-1] < losses[1][0]
    assert not {name for name in generator.parameters if name.startswith("discriminator")}


def test_the_mouth_counts_more_and_what_is_outside_of_the_mask_nothing(work: Path) -> None:
    _, faces = person_and_faces(work)
    batch = {name: tensor[None] for name, tensor in faces.item(5).items()}
    trainer = NeuralRendererTrainer(NeuralRenderer(TINY), gradient=0)
    mouth = (batch["mouth"] * batch["mask"]).bool().expand(-1, 3, -1, -1)
    skin = (batch["mask"] * (1 - batch["mouth"])).bool().expand(-1, 3, -1, -1)
    wrong = [batch["target"].clone() for _ in range(3)]
    for image, where in zip(wrong, (mouth, skin, batch["mask"].expand(-1, 3, -1, -1) == 0), strict=True):
        image[where] += 1
    in_mouth, in_skin, in_outside = (float(trainer._difference(image, batch)) for image in wrong)
    assert in_mouth / int(mouth.sum()) == pytest.approx(6 * in_skin / int(skin.sum()), rel=1e-3)
    assert in_outside == 0
    assert (trainer._masked(batch)[:, :, batch["mask"][0, 0] == 0] == -1).all()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"size": "huge"}, "size is 'huge', but one of auto, small, published"),
        ({"minutes": 0}, "Training for 0 minutes"),
        ({"minutes": float("nan")}, "Training for nan minutes"),
        ({"held_out": 0.6}, "share 0.6 of the video"),
        ({"batch": -1}, "Training with batch -1"),
        ({"expression_steps": 0}, "and 0 steps"),
        ({"rate": 1.5}, "and rate 1.5"),
        ({"expression": "guess"}, "expression is 'guess'"),
    ],
)
def test_settings_out_of_range_are_refused_in_a_sentence(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(TalkingPortraitError, match=reason):
        Settings(**changed)


def test_settings_are_chosen_by_the_device() -> None:
    cpu, card = (Settings().resolved(torch.device(name)) for name in ("cpu", "cuda"))
    assert (cpu.size, cpu.gan, cpu.precision, cpu.batch) == ("small", "off", "fp32", 4)
    assert (card.size, card.gan, card.precision, card.batch, card.rate) == ("published", "on", "bf16", 16, 2e-4)
    assert card.renderer_config(256) == NeuralRendererConfig()
    with pytest.raises(TalkingPortraitError, match="a multiple of 256"):
        card.renderer_config(128)
    with pytest.raises(TalkingPortraitError, match="a batch of at least 2"):
        replace(card, batch=1).renderer_config(256)
    asked = Settings(size="small", gan="on", precision="fp16", batch=3, rate=0.5).resolved(torch.device("cpu"))
    assert asdict(asked) == asdict(Settings(size="small", gan="on", precision="fp16", batch=3, rate=0.5))


def test_movement_that_dropout_has_made_smaller_is_made_larger_again() -> None:
    torch.manual_seed(0)
    face = fitted_face(speech(4), Fraction(25), 100)
    network = new_speech_to_expression("temporal", 6, 2).eval()
    features = torch.randn(100, 6)
    with torch.no_grad():
        for block in network.network.blocks:  # type: ignore[union-attr]
            block.mix.weight.normal_(0, 0.1)
        wanted = network(features[None])[0]
        target = 0.3 + 1.4 * (wanted - wanted.mean(0))
    frames = np.arange(80)
    calibrate(network, face.face_model, features, target, frames)
    torch.testing.assert_close(network(features[None])[0][:80], target[:80], atol=1e-3, rtol=1e-3)
    calibrate(network, face.face_model, features, target / 2, frames)  # never smaller
    moved = network(features[None])[0][:80]
    torch.testing.assert_close(moved - moved.mean(0), target[:80] - target[:80].mean(0), atol=1e-3, rtol=1e-3)


def test_the_published_expression_network_and_the_gan_make_a_model_too(work: Path, tmp_path: Path) -> None:
    chosen = replace(QUICK, expression="affine", gan="on", held_out=0.0, flip=True)
    model = open_model(train_audiodvp(work / "bob", tmp_path / "run", chosen))
    assert model.speech_to_expression.kind == "affine"
    assert model.speech_to_expression.context == 3
    assert not (tmp_path / "run" / "held_out.json").exists()
    names = read_log(tmp_path / "run" / "renderer")[0]
    assert {"generator", "discriminator"} <= names.keys()
    frames = list(animate(model, speech(0.2), open_person(work / "bob")))
    assert len(frames) == 5


@torch.no_grad()
def test_the_linear_map_says_what_the_frames_around_do() -> None:
    """An expression that follows the speech of two frames before, and a network that says nothing."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 6, generator=generator)
    expression = torch.stack([features[:, 0].roll(2), features[:, 3].roll(-3)], 1) * torch.tensor([2.0, 0.5]) + 1
    network = new_speech_to_expression("temporal", 6, 2)
    network.network.head.weight.zero_()
    network.network.head.bias.zero_()
    frames = np.arange(10, 390)
    network.fit_scales(features[frames], expression[frames])
    joined = with_linear(network.eval(), features, expression, frames)
    predicted = predict_expression(joined, features)[20:380]
    for one, other in zip(predicted.T, expression[20:380].T, strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.97
    torch.testing.assert_close(predict_expression(joined, features, chunk=90)[20:380], predicted, atol=1e-4, rtol=0)

    again = build_speech_to_expression(joined.state_dict(), joined.config, path="ann")
    torch.testing.assert_close(predict_expression(again, features)[20:380], predicted)
    earlier = {name: value for name, value in network.config.items() if name != "linear"}
    assert build_speech_to_expression(network.state_dict(), earlier, path="ann").kind == "temporal"
    affine = new_speech_to_expression("affine", 30, 2)
    assert with_linear(affine, torch.zeros(9, 30), torch.zeros(9, 2), np.arange(9)) is affine, "as published"
