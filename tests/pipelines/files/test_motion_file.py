from __future__ import annotations

import zipfile
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files import motion_file as motion_files
from talking_portrait.pipelines.files.motion_file import load_motion, save_motion
from talking_portrait.pipelines.types import MOTION_CURVES, Camera

from ..face.moving_faces import face_motion, same


@pytest.mark.parametrize("pose", ["head", "camera"])
def test_a_saved_motion_comes_back(tmp_path, pose):
    motion = replace(face_motion(7, fps=Fraction(30000, 1001), pose=pose), camera=Camera(40.0, 2.0, 500.0))
    save_motion(tmp_path / "m.npz", motion)
    assert same(load_motion(tmp_path / "m.npz"), motion)
    assert [path.name for path in tmp_path.iterdir()] == ["m.npz"]


def test_what_is_optional_may_be_missing(tmp_path):
    optional = dict.fromkeys(["blendshapes", *MOTION_CURVES])
    save_motion(tmp_path / "m.npz", replace(face_motion(3), **optional))
    loaded = load_motion(tmp_path / "m.npz")
    assert loaded.blendshapes is None
    assert loaded.curves == {}


def test_other_programs_can_read_it(tmp_path):
    save_motion(tmp_path / "m.npz", face_motion(5))
    with np.load(tmp_path / "m.npz", allow_pickle=False) as stored:
        assert stored["vertices"].shape == (5, 468, 3)
        assert stored["rotation"].shape == stored["translation"].shape == (5, 3)
        assert float(stored["fps"]) == 25


def test_the_exact_rate_may_be_missing(tmp_path):
    path = tmp_path / "m.npz"
    save_motion(path, face_motion(5))
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if name not in ("fps_fraction", "camera", "pose")}
    np.savez(path, **arrays)
    assert same(load_motion(path), face_motion(5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": np.zeros((3, 68, 2))}, "vertices of shape"),
        ({"vertices": np.zeros((0, 468, 3))}, "frames"),
        ({"vertices": np.float32(1)}, "vertices of shape"),
        ({"vertices": np.full((4, 468, 3), np.nan)}, "NaN"),
        ({"rotation": np.zeros((3, 3))}, "rotation of shape"),
        ({"translation": np.array([["a"] * 3] * 4)}, "translation"),
        ({"neutral": np.zeros((3, 468))}, "neutral"),
        ({"blendshapes": np.zeros((4, 51))}, "blendshapes"),
        ({"fps_fraction": np.array([25, 0])}, "frame rate"),
        ({"fps_fraction": np.array([1, 2, 3])}, "frame rate"),
        ({"fps_fraction": np.array([999, 1])}, "frame rate"),
        ({"pose": np.array("sideways")}, "sideways"),
        ({"camera": np.array([0.0, 1, 2])}, "camera"),
        ({"camera": np.array([63.0])}, "camera"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, change, message):
    path = tmp_path / "m.npz"
    save_motion(path, face_motion(4))
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, **change})
    with pytest.raises(TalkingPortraitError, match=message):
        load_motion(path)


def test_foreign_and_broken_files_get_one_sentence(tmp_path):
    good = tmp_path / "good.npz"
    save_motion(good, face_motion(4))
    data = good.read_bytes()
    broken = {
        "truncated.npz": data[: len(data) // 2],
        "empty.npz": b"",
        "text.npz": b"hello",
        "flipped.npz": data[:3000] + bytes(reversed(data[3000:4000])) + data[4000:],
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TalkingPortraitError, match="can't be read"):
            load_motion(tmp_path / name)
    np.savez(tmp_path / "other.npz", pose=np.zeros(3))
    with pytest.raises(TalkingPortraitError, match="lacks vertices"):
        load_motion(tmp_path / "other.npz")
    np.savez(tmp_path / "code.npz", vertices=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TalkingPortraitError, match="can't be read"):
        load_motion(tmp_path / "code.npz")
    with pytest.raises(TalkingPortraitError, match="absent.npz does not exist"):
        load_motion(tmp_path / "absent.npz")


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vertices.npy", bytes(1_000_000))
    monkeypatch.setattr(motion_files, "MAX_BYTES", 999_999)
    with pytest.raises(TalkingPortraitError, match="can't be read"):
        load_motion(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    save_motion(path, face_motion(4))

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(motion_files.np, "savez", full)
    with pytest.raises(TalkingPortraitError, match="No space left"):
        save_motion(path, face_motion(9))
    assert load_motion(path).frames == 4
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TalkingPortraitError, match="folder"):
        save_motion(tmp_path / "nowhere" / "m.npz", face_motion(2))


@settings(max_examples=60)
@given(places=st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_never_raise_another_error(tmp_path_factory, places):
    path = tmp_path_factory.mktemp("changed") / "m.npz"
    save_motion(path, face_motion(1))
    raw = bytearray(path.read_bytes())
    headers = [start for start in range(len(raw)) if raw[start : start + 6] == b"\x93NUMPY"]
    for place, value in places:
        raw[(headers[place % len(headers)] + place % 128) % len(raw)] = value
    path.write_bytes(bytes(raw))
    with suppress(TalkingPortraitError):
        load_motion(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("fps_fraction", np.array([1.0, np.inf])), ("fps_fraction", np.array([1, 0])), ("pose", np.zeros((30, 9)))],
)
def test_odd_values_are_quoted_briefly(tmp_path, key, value):
    save_motion(tmp_path / "m.npz", face_motion(2))
    arrays = dict(np.load(tmp_path / "m.npz"))
    np.savez(tmp_path / "odd.npz", **{**arrays, key: value})
    with pytest.raises(TalkingPortraitError, match="odd.npz") as raised:
        load_motion(tmp_path / "odd.npz")
    assert len(str(raised.value)) < 300
