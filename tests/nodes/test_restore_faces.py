"""Load Face Restorer and Restore Faces, on a tiny GFPGAN."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from talking_portrait.nodes import extension
from talking_portrait.nodes.standalone import node_api as standalone
from talking_portrait.pipelines.errors import TalkingPortraitError

from ..tiny_weights.gfpgan import gfpgan, write_models

NODES = {node.__name__: node for node in extension.NODES}


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    write_models(tmp_path)
    return tmp_path


@pytest.fixture
def restorer(models):
    return NODES["LoadFaceRestorer"].execute("GFPGANv1.4.pth").args[0]


@pytest.fixture(scope="module")
def sample():
    image, _, landmarks = NODES["Example"].execute().args
    return image, landmarks


def restore(images, **inputs):
    return NODES["RestoreFaces"].execute(images, **{"strength": 1.0, "faces": "centre", **inputs}).args


def test_a_face_is_restored_and_the_rest_stays(sample, restorer):
    image, landmarks = sample
    result, report = restore(image, restorer=restorer, landmarks=landmarks)
    assert result.shape == image.shape
    assert report == "A face was restored in all 1 frames."
    changed = (result != image).any(dim=-1)[0]
    assert 0.02 < changed.float().mean() < 0.6
    assert torch.equal(restore(image, restorer=restorer, landmarks=landmarks, strength=0.0)[0], image)
    larger, _ = restore(image, restorer=restorer, landmarks=landmarks, enlarge=1.5, faces="all")
    assert larger.shape == (1, 768, 768, 3)


def test_grey_pictures_become_colours_and_transparency_stays(sample, restorer):
    image, landmarks = sample
    grey, _ = restore(image[..., :1], restorer=restorer, landmarks=landmarks)
    assert grey.shape == image.shape
    half = torch.cat([image, torch.full_like(image[..., :1], 0.5)], dim=-1)
    clear, _ = restore(half, restorer=restorer, landmarks=landmarks)
    assert torch.equal(clear[..., 3], half[..., 3])


def test_comfyuis_own_gfpgan_is_accepted(sample, restorer):
    image, landmarks = sample
    loaded = SimpleNamespace(model=gfpgan())
    ours, _ = restore(image, restorer=restorer, landmarks=landmarks)
    native, _ = restore(image, upscale_model=loaded, landmarks=landmarks)
    torch.testing.assert_close(ours, native, atol=1e-4, rtol=0)
    with pytest.raises(TalkingPortraitError, match=r"^Restore Faces: The upscale model is an unknown file .* expected"):
        restore(image, upscale_model=SimpleNamespace(model=torch.nn.Linear(2, 2)), landmarks=landmarks)
    with pytest.raises(TalkingPortraitError, match=r"The upscale model is str, but a loaded GFPGAN is expected"):
        restore(image, upscale_model="4x.pth", landmarks=landmarks)


def test_settings_are_checked_before_faces_are_detected(sample, restorer, monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("detected")

    monkeypatch.setattr("talking_portrait.pipelines.face.restoration.detect", never)
    for changes in ({"strength": 2.0}, {"enlarge": 9.0}):
        with pytest.raises(TalkingPortraitError, match="but a number from (0 to 1|1 to 4) is expected"):
            restore(sample[0], restorer=restorer, **changes)


def test_missing_inputs_are_reported(sample, models, restorer):
    image, landmarks = sample
    with pytest.raises(TalkingPortraitError, match="no face restorer, but one is expected; connect Load Face Restorer"):
        restore(image, landmarks=landmarks)
    (models / "upscale_models" / "GFPGANv1.4.pth").unlink()
    with pytest.raises(TalkingPortraitError, match=r"GFPGANv1\.4\.pth is missing; .*releases.*models get gfpgan"):
        NODES["LoadFaceRestorer"].execute("GFPGANv1.4.pth")


def test_faces_are_detected_and_a_picture_without_one_is_unchanged(sample, models, restorer):
    image, landmarks = sample
    empty = torch.zeros_like(image)
    for faces in ("centre", "all"):
        reports = []
        watching = standalone.Session(
            progress=lambda done, total, preview, reports=reports: reports.append((done, total))
        )
        with standalone.use_session(watching):
            found, report = restore(torch.cat([image, empty]), restorer=restorer, faces=faces)
        assert reports == sorted(reports), "one bar"
        assert reports[-1] == (100, 100)
        assert report.startswith("A face was restored in 1 of 2 frames")
        assert torch.equal(found[1], empty[0])
        assert not torch.allclose(found[0], image[0], atol=0.01)
        passed, report = restore(empty, restorer=restorer, faces=faces)
        assert torch.equal(passed, empty)
        assert "0 of 1" in report
