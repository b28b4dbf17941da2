"""The Basel Face Model from its files, which are generated here in the published form, but small."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from talking_portrait.__main__ import main
from talking_portrait.models.audiodvp.audio_features import AudioFeatures, AudioFeaturesConfig
from talking_portrait.models.audiodvp.camera import Camera, rotation_matrix, to_pixels, to_world
from talking_portrait.models.audiodvp.expression_regressor import ExpressionRegressor, ExpressionRegressorConfig
from talking_portrait.models.audiodvp.face_model import load_face_model
from talking_portrait.models.audiodvp.loading import load_pretrained_regressor
from talking_portrait.pipelines.audiodvp import fit
from talking_portrait.pipelines.audiodvp.atnet import load_encoder
from talking_portrait.pipelines.audiodvp.morphable import basel_files as published
from talking_portrait.pipelines.audiodvp.morphable import regressor_checkpoint
from talking_portrait.pipelines.audiodvp.morphable.basel_files import convert_face_model
from talking_portrait.pipelines.audiodvp.morphable.coefficients import landmarks_of, solve
from talking_portrait.pipelines.audiodvp.morphable.regressor import load_models, regressed_face, train_regressor
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.person.person import Person, open_person
from talking_portrait.pipelines.person.speech import MFCC, speech_features
from talking_portrait.pipelines.types import Progress

from ...morphable_face import morphable_face
from ...toy_person import make_person, speech

ALL, COVERED, FRONT = 90, 80, 70
"""Vertices of the whole model, of those with expressions and of the face."""
KEPT, STORED = 3, 5


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "VERTICES", FRONT)
    monkeypatch.setattr(published, "LANDMARKS", tuple(range(68)))
    for name in ("IDENTITIES", "EXPRESSIONS", "TEXTURES"):
        monkeypatch.setattr(published, name, KEPT)


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        **{f"{kind}MU": rng.normal(size=(3 * ALL, 1)) * 1e5 for kind in ("shape", "tex")},
        **{f"{kind}PC": rng.normal(size=(3 * ALL, STORED)) for kind in ("shape", "tex")},
        **{f"{kind}EV": rng.uniform(1, 9, (STORED, 1)) for kind in ("shape", "tex")},
        "mean": rng.normal(size=(1, 3 * COVERED)).astype("<f4"),
        "components": rng.normal(size=(STORED, 3 * COVERED)).astype("<f4"),
        "deviations": rng.uniform(1, 9, STORED),
        "idx": rng.permutation(COVERED)[:FRONT, None] + 1.0,
        "trimIndex": rng.permutation(ALL)[:COVERED, None] + 1,
        "tri": rng.integers(1, FRONT + 1, (40, 3)),
        "point_buf": rng.integers(1, 42, (FRONT, 8)),
    }


def write_files(folder: Path, **changed: np.ndarray | None) -> Path:
    folder.mkdir(exist_ok=True)
    data = arrays() | changed

    def mat(name: str, *names: str) -> None:
        savemat(folder / name, {key: data[key] for key in names if data[key] is not None})

    mat("01_MorphableModel.mat", "shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV")
    mat("BFM_front_idx.mat", "idx")
    mat("BFM_exp_idx.mat", "trimIndex")
    mat("facemodel_info.mat", "tri", "point_buf")
    rows = np.concatenate([data["mean"], data["components"]]).astype("<f4")
    (folder / "Exp_Pca.bin").write_bytes(np.int32(len(rows) - 1).astype("<i4").tobytes() + rows.tobytes())
    (folder / "std_exp.txt").write_text(" ".join(map(repr, data["deviations"].tolist())))
    return folder


def test_the_files_become_one_face_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bfm.safetensors"
    assert main(["person", "face-model", str(write_files(tmp_path / "bfm")), "--out", str(out)]) == 0
    assert "70 vertices, 40 triangles" in capsys.readouterr().out
    model, data = load_face_model(out), arrays()
    front = data["idx"][:, 0].astype(int) - 1
    vertex, place = front[11], data["trimIndex"][front[11], 0] - 1
    rows, all_rows, covered = slice(33, 36), slice(3 * place, 3 * place + 3), slice(3 * vertex, 3 * vertex + 3)
    expected = {
        "geo_mean": data["shapeMU"][all_rows] / 92156.7,
        "tex_mean": data["texMU"][all_rows] / 255,
        "id_base": data["shapePC"][all_rows, :KEPT] * data["shapeEV"][:KEPT, 0] / 92156.7,
        "tex_base": data["texPC"][all_rows, :KEPT] * data["texEV"][:KEPT, 0] / 255,
        "exp_base": (data["components"][:KEPT, covered] * data["deviations"][:KEPT, None]).T / 92156.7,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(model, name)[rows].numpy(), values, rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(model.triangles.numpy(), data["tri"] - 1)
    np.testing.assert_array_equal(model.point_buf.numpy(), data["point_buf"] - 1)
    assert model.camera == Camera()


def test_a_ready_file_gives_the_same(tmp_path: Path) -> None:
    model = convert_face_model(write_files(tmp_path / "bfm"), tmp_path / "one.safetensors")
    names = ("geo_mean", "id_base", "exp_base", "tex_mean", "tex_base", "triangles", "point_buf")
    savemat(tmp_path / "data.mat", {name: getattr(model, name).numpy() for name in names})
    for source in (tmp_path, tmp_path / "data.mat"):
        again = convert_face_model(source, tmp_path / "other.safetensors")
        for name, tensor in model.tensors().items():
            torch.testing.assert_close(getattr(again, name), tensor)


def test_every_missing_file_is_named_with_its_page(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "bfm")
    for name in ("01_MorphableModel.mat", "Exp_Pca.bin", "std_exp.txt"):
        (folder / name).unlink()
    with pytest.raises(TalkingPortraitError) as error:
        convert_face_model(folder, tmp_path / "out.safetensors")
    said = str(error.value)
    assert "lacks 3 of the 6 files" in said
    assert "01_MorphableModel.mat from https://faces.dmi.unibas.ch/bfm" in said
    assert "Exp_Pca.bin, std_exp.txt from https://github.com/Juyong/3DFace" in said
    assert "facemodel_info.mat" not in said
    with pytest.raises(TalkingPortraitError, match="lacks 6 of the 6 files"):
        convert_face_model(tmp_path / "nowhere", tmp_path / "out.safetensors")


@pytest.mark.parametrize("name", list(published.FILES))
@pytest.mark.parametrize("how", ["cut", "empty", "text", "noise"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, how: str) -> None:
    folder = write_files(tmp_path / "bfm")
    content = (folder / name).read_bytes()
    noise = np.random.default_rng(0).bytes(len(content))
    bad = {"cut": content[: len(content) * 2 // 3 - 1], "empty": b"", "text": b"<html>sign in</html>", "noise": noise}
    (folder / name).write_bytes(bad[how])
    if (name, how) == ("std_exp.txt", "cut"):
        return  # of five numbers the first three are needed
    with pytest.raises(TalkingPortraitError, match=rf"^{name} is not of the Basel Face Model 2009: .*https://"):
        convert_face_model(folder, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shapePC": None}, "01_MorphableModel.mat .*lacks shapePC"),
        ({"texPC": np.zeros((3 * ALL, 2))}, "01_MorphableModel.mat .*texPC is 270 x 2"),
        ({"texMU": np.zeros((9, 1))}, "01_MorphableModel.mat .*texMU has 9 numbers, not 270"),
        ({"shapeMU": np.full((3 * ALL, 1), np.nan)}, "01_MorphableModel.mat .*no finite numbers"),
        ({"shapeMU": np.array([["a"]])}, "01_MorphableModel.mat .*lacks shapeMU"),
        ({"idx": np.arange(1, 60)}, "BFM_front_idx.mat .*idx has 59 numbers, not 70"),
        ({"idx": np.arange(30, 100)}, "BFM_front_idx.mat .*names vertex 99 of 80"),
        ({"idx": np.arange(70) + 0.5}, "BFM_front_idx.mat .*whole numbers"),
        ({"trimIndex": np.arange(COVERED) + 50}, "BFM_exp_idx.mat .*goes from 50 to 129, not within 1 to 90"),
        ({"trimIndex": np.arange(60) + 1}, "Exp_Pca.bin .*for 80 vertices, but BFM_exp_idx.mat names 60"),
        ({"deviations": np.ones(2)}, "std_exp.txt .*fewer than 3 expressions"),
        ({"tri": np.full((4, 3), FRONT + 1)}, "facemodel_info.mat .*not of a mesh of 70 vertices"),
        ({"tri": np.ones((4, 2))}, "facemodel_info.mat .*not of a mesh"),
        ({"point_buf": np.ones((9, 8))}, "facemodel_info.mat .*point_buf does not belong"),
    ],
)
def test_files_of_another_model_are_refused(tmp_path: Path, changed: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(TalkingPortraitError, match=words):
        convert_face_model(write_files(tmp_path / "bfm", **changed), tmp_path / "out.safetensors")


def test_coefficients_are_found_from_landmarks() -> None:
    model, generator = morphable_face(4), torch.Generator().manual_seed(1)
    delta = torch.randn(30, 4, generator=generator)
    rotation = 0.2 * torch.randn(30, 3, generator=generator)
    translation = torch.tensor([0.1, -0.1, 0.4]) + 0.05 * torch.randn(30, 3, generator=generator)
    geometry = model.geometry(torch.zeros(1, 1, 1), delta[..., None])
    world = to_world(geometry, rotation_matrix(rotation[..., None]), translation[..., None])
    wanted = to_pixels(model.camera.project(world), (256, 256))[:, model.landmark_index]
    calls: list[float] = []
    _, values = solve(model, wanted, lambda done, total, *_: calls.append(done / total))
    assert calls == sorted(calls)
    assert calls[-1] == 1
    torch.testing.assert_close(values[:, 4:7], rotation, rtol=0, atol=0.02)
    found = torch.corrcoef(torch.cat([values[:, :4].T, delta.T]))[:4, 4:].diagonal()
    assert float(found.min()) > 0.98


RESNET = ExpressionRegressorConfig(blocks=(1, 1, 1, 1), base_channels=4, expressions=4, identities=1, textures=1)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_arrays_gives_the_resnet_its_weights(tmp_path: Path, protocol: int) -> None:
    """As VGGFace2's file has them: without the counts that newer batch norms keep, and with a classifier."""
    own = ExpressionRegressor(RESNET).pretrained_model.state_dict()
    arrays = {name: tensor.numpy() for name, tensor in own.items() if not name.endswith("batches_tracked")}
    arrays |= {"fc.weight": np.zeros((7, 128), np.float32), "fc.bias": np.zeros(7, np.float32)}
    path = tmp_path / "resnet50_ft_weight.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol))
    loaded = load_pretrained_regressor(path, RESNET).pretrained_model.state_dict()
    for name, tensor in own.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(TalkingPortraitError, match=r"resnet50_ft_weight.pkl"):
        load_pretrained_regressor(path, RESNET)
    path.write_bytes(pickle.dumps(arrays | {"conv1.weight": arrays["conv1.weight"][:2]}, protocol))
    with pytest.raises(TalkingPortraitError, match=r"conv1.weight"):
        load_pretrained_regressor(path, RESNET)
    with pytest.raises(TalkingPortraitError, match="is to fit a face model, but none is given"):
        load_models(None, path)


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return open_person(make_person(tmp_path_factory.mktemp("person") / "ann", seconds=0.4))


def test_the_published_schedule_lowers_its_loss(person: Person) -> None:
    torch.manual_seed(0)
    network, model = ExpressionRegressor(RESNET), morphable_face(4)
    truth = landmarks_of(person)

    def error() -> float:
        face = regressed_face(person, model, network)
        drawn = face.face_model.render(face.coefficients(range(10)), (256, 256))
        return float((drawn.landmarks - truth).norm(dim=-1).mean())

    before, done = error(), []
    train_regressor(person, model, network, epochs=3, progress=lambda step, steps, *_: done.append(step / steps))
    assert done == [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]
    assert error() < before


class StoppedError(Exception):
    """Somebody interrupts."""


def test_a_published_fit_that_is_stopped_goes_on(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    train, model = partial(train_regressor, epochs=2, save_every=2), morphable_face(4)
    checkpoint, steps = person.folder / regressor_checkpoint.FILE, []

    def network() -> ExpressionRegressor:
        torch.manual_seed(0)
        return ExpressionRegressor(RESNET)

    def stop_at(last: int) -> Progress:
        def progress(step: int, *_: object) -> None:
            steps.append(step)
            if step == last:
                raise StoppedError

        return progress

    whole = network()
    train(person, model, whole)
    checkpoint.unlink()
    with pytest.raises(StoppedError):
        train(person, model, network(), progress=stop_at(3))
    resumed = network()
    train(person, model, resumed, progress=stop_at(0))
    assert steps == [1, 2, 3, 3, 4], "at most one interval is lost"
    torch.testing.assert_close(resumed.fc.weight, whole.fc.weight, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(resumed.alpha, whole.alpha, rtol=1e-3, atol=1e-7)

    steps.clear()
    with pytest.raises(StoppedError):
        train(person, morphable_face(4, seed=1), network(), progress=stop_at(1))
    assert steps == [1], "another face model's checkpoint is not gone on with"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(StoppedError):
        train(person, model, network(), progress=stop_at(1))
    monkeypatch.setattr(regressor_checkpoint, "replacing", full_disk)
    with pytest.raises(TalkingPortraitError, match=r"can't be written .*No space left.* goes on from the checkpoint"):
        train(person, model, network())


@contextmanager
def full_disk(path: Path) -> Iterator[Path]:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    yield path


def test_a_finished_published_fit_leaves_no_checkpoint(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "train_regressor", partial(train_regressor, epochs=1))
    face = fit.fit_face(person, morphable_face(4), ExpressionRegressor(RESNET))
    assert face.frames == person.frames
    assert not (person.folder / regressor_checkpoint.FILE).exists()


def test_atnet_is_an_encoder_like_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = AudioFeatures(AudioFeaturesConfig((2, 2, 2, 2, 4), hidden=8, features=6))
    path = tmp_path / "atnet_lstm_18.pth"
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    encoder = load_encoder(path)
    assert encoder is not None
    features = speech_features(speech(1.0), Fraction(25), 30, encoder)
    assert (features.model, features.fps, features.states.shape) == ("atnet", 25, (30, 1, 6))
    windows = speech_features(speech(1.0), Fraction(25), 30, MFCC).states
    torch.testing.assert_close(features.states[:, 0], network.eval()(windows))
    assert float(features.states.min()) >= 0
