"""A person's SyncAnimation: trained small, measured on speech that it was not trained on, and driven by it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import talking_portrait as tp
import torch
from safetensors.torch import load_file
from talking_portrait.__main__ import main
from talking_portrait.models.syncanimation.audio_nets import speech_windows
from talking_portrait.models.syncanimation.labels import UPPER_FACE, raw_labels
from talking_portrait.models.syncanimation.rendering.camera import Camera, renderer_pose
from talking_portrait.models.syncanimation.rendering.occupancy import cell_places
from talking_portrait.models.syncanimation.rendering.renderer import Renderer
from talking_portrait.pipelines.commands.syncanimation import _Clock
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.face import Face
from talking_portrait.pipelines.files import frame_stream
from talking_portrait.pipelines.files.motion_file import save_motion
from talking_portrait.pipelines.files.sound import write_wav
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.person.person import open_person
from talking_portrait.pipelines.syncanimation import animate as animate_module
from talking_portrait.pipelines.syncanimation import avatar as avatar_files
from talking_portrait.pipelines.syncanimation import speech as speech_module
from talking_portrait.pipelines.syncanimation.animate import Drive, animate, frames_of, open_model
from talking_portrait.pipelines.syncanimation.avatar import open_avatar
from talking_portrait.pipelines.syncanimation.closed_lips import closed, closing
from talking_portrait.pipelines.syncanimation.conditions import (
    PoseLabels,
    conditions,
    held_noise,
    limited_poses,
    pose_labels,
)
from talking_portrait.pipelines.syncanimation.motion_pose import motion_expressions, motion_poses
from talking_portrait.pipelines.syncanimation.person_model import PersonModel
from talking_portrait.pipelines.syncanimation.speech import speech_pieces
from talking_portrait.pipelines.training.core.person_settings import split
from talking_portrait.pipelines.training.core.run_settings import read_settings
from talking_portrait.pipelines.training.syncanimation import settings as settings_module
from talking_portrait.pipelines.training.syncanimation import train as train_module
from talking_portrait.pipelines.training.syncanimation.carving import carve
from talking_portrait.pipelines.training.syncanimation.evaluation import evaluate
from talking_portrait.pipelines.training.syncanimation.frames import HeadFrames, Pixels, with_rare
from talking_portrait.pipelines.training.syncanimation.renderer import HeadTrainer
from talking_portrait.pipelines.training.syncanimation.settings import Settings
from talking_portrait.pipelines.training.syncanimation.train import MODEL, train_syncanimation
from talking_portrait.pipelines.types import Audio, FaceMotion

from ...toy_avatar import FPS, FRAME, acted, drawn, landmarks, make_avatar
from ...toy_person import speech
from .halted_training import __file__ as HALTED_TRAINING
from .training_bench import assert_same_log, kill, read_log

SIZE = 64
TRAINED = Settings(
    torso_steps=100, face_steps=80, lips_steps=12, syncer_steps=40, rays=400, picture_every=60, save_every=200
)
QUICK = Settings(
    torso_steps=4, face_steps=4, lips_steps=4, syncer_steps=2, rays=64, picture_every=0, save_every=2, held_out=0
)


class Sightless:
    """Finds no face: the drawn head is none for an engine."""

    name, hint = "none", ""

    def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
        return []


@pytest.fixture(scope="module", autouse=True)
def small() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avatar_files, "SIZES", (SIZE, 128))
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, small: None) -> Path:
    folder = tmp_path_factory.mktemp("syncanimation")
    make_avatar(folder / "ann", seconds=5, size=SIZE)
    make_avatar(folder / "bob", seconds=0.6, size=128, seed=1)
    lines: list[str] = []
    train_syncanimation(folder / "ann", folder / "run", TRAINED, landmarker=Sightless(), say=lines.append)
    (folder / "said.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def model(work: Path) -> PersonModel:
    return open_model(work / "run" / MODEL)


def openness(frames: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """How dark the mouth is, which an open one is."""
    middles = points[:, 48:68].mean(1).astype(int)
    return np.array(
        [-frame[y - 4 : y + 6, x - 6 : x + 7].mean() for frame, (x, y) in zip(frames, middles, strict=True)]
    )


def test_a_trained_person_is_like_itself_in_speech_that_it_was_not_trained_on(work: Path, model: PersonModel) -> None:
    figures = json.loads((work / "run" / "held_out.json").read_text())
    said = (work / "said.txt").read_text()
    assert all(f"held-out {name}: {value:.3f}" in said for name, value in figures.items())
    assert figures.keys() == {"pose r", "blink r", "psnr", "face psnr"}  # nothing finds landmarks in drawings
    assert figures["psnr"] > 21
    for part in ("torso", "face"):
        assert len(list((work / "run" / part / "pictures").iterdir())) >= 1

    audio, frames = speech(4, seed=7), 100
    acting = acted(audio, frames)
    poses, expressions = torch.from_numpy(acting.c2w).float(), torch.from_numpy(acting.blendshapes[:, UPPER_FACE])
    pieces = list(conditions(model, audio))
    found = raw_labels(torch.cat([each.c2w for each in pieces]), torch.cat([each.expressions for each in pieces]))
    true = raw_labels(poses, expressions)
    assert np.corrcoef(found[:, 0], true[:, 0])[0, 1] > 0.6  # the head nods
    assert np.corrcoef(found[:, 1], true[:, 1])[0, 1] > 0.6  # and turns
    assert np.corrcoef(found[:, 11], true[:, 11])[0, 1] > 0.6  # the left lid

    given = replace(model.labels, c2w=poses, expressions=expressions)
    drawings = [drawn(acting, number, SIZE)[0] for number in range(0, frames, 4)]
    pieces = conditions(model, audio, poses=given.c2w, expressions=given.expressions)
    rendered = animate_module._rendered(model, pieces, frames, repeat(model.background / 255), None)
    images = [image.numpy() * 255 for image, _ in rendered][::4]
    points, _ = landmarks(acting, SIZE)
    assert np.corrcoef(openness(images, points[::4]), openness(drawings, points[::4]))[0, 1] > 0.7


def test_the_speech_code_has_a_deviation_of_one_and_pictures_do_not_shrink_it(work: Path, model: PersonModel) -> None:
    head, features = model.networks.renderer.head, model.speech.standardised(open_person(work / "ann").speech())
    with torch.no_grad():
        codes = head.encode_audio(speech_windows(features))[: len(features) * 9 // 10]
    assert float((codes - codes.mean(0)).square().mean().sqrt()) == pytest.approx(1, abs=0.1)
    alone = load_file(work / "run" / "speech" / "speech_code.safetensors")
    for name in ("audio_net.encoder_conv.0.weight", "audio_att_net.attentionConvNet.2.weight"):
        torch.testing.assert_close(head.get_parameter(name), alone[name])
    trained = HeadTrainer(Renderer(), model.camera).objectives()[0].parameters
    assert any(name.startswith("head.audio_net.") for name in trained)  # a published training goes on with it


def test_lips_close_in_long_silence_unless_they_are_to_stay(work: Path, model: PersonModel) -> None:
    with torch.no_grad():
        codes = model.networks.renderer.head.encode_audio(
            speech_windows(model.speech.standardised(open_person(work / "ann").speech()))
        )
    mouth = acted(speech(5), 125).mouth
    assert model.closed_code is not None
    least, most = np.argsort(mouth)[:12], np.argsort(mouth)[-12:]
    to_least, to_most = ((codes[frames].mean(0) - model.closed_code).norm() for frames in (least, most))
    assert to_least < 0.2 * to_most
    sound = Audio(torch.cat([speech(1).waveform, torch.zeros(1, 32000)], 1), 16000)
    weights = torch.cat([piece.closed for piece in conditions(model, sound)])
    assert weights[:25].max() == 0
    assert weights[55:].min() > 0.99
    assert not torch.cat([piece.closed for piece in conditions(model, sound, close_in_silence=False)]).any()
    torch.testing.assert_close(closed(codes[:75], model, weights)[70], model.closed_code)
    assert not closing(replace(model, closed_code=None), sound).any()  # a file of before it was measured


def test_the_frames_are_as_long_as_the_speech_and_the_person_is_opaque(work: Path, model: PersonModel) -> None:
    for samples, frames in ((400, 1), (640, 1), (641, 2), (3 * 640, 3), (9 * 640 + 100, 10)):
        audio = Audio(speech(2).waveform[:, :samples], 16000)
        made = list(animate(model, audio))
        assert len(made) == frames
    frame, mask = made[0]
    assert (frame.shape, frame.dtype, mask.shape) == ((1, SIZE, SIZE, 3), torch.uint8, (1, SIZE, SIZE))
    head, corner = mask[0, SIZE // 2 - 4 : SIZE // 2, SIZE // 2 - 3 : SIZE // 2 + 3], mask[0, :6, :6]
    assert head.mean() > 0.8
    assert corner.mean() < 0.2
    white = torch.ones(30, 50, 3)
    ((other, _), *_) = animate(model, audio, background=white)
    assert other[0, :6, :6].float().mean() > 200


def test_pieces_of_the_speech_are_as_the_whole_and_memory_does_not_grow(
    model: PersonModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = speech(12, seed=3)
    monkeypatch.setattr(speech_module, "LONGEST_PIECE", 2)
    pieces = list(speech_pieces(audio, FPS, model.speech))
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    assert pieces[-1].stop == 300
    parts = torch.cat([piece.features[piece.start - piece.first :][: piece.stop - piece.start] for piece in pieces])
    monkeypatch.setattr(speech_module, "FIRST_PIECE", 100)
    (whole,) = speech_pieces(audio, FPS, model.speech)
    torch.testing.assert_close(parts, whole.features, atol=1e-4, rtol=0)
    monkeypatch.setattr(speech_module, "FIRST_PIECE", 1)
    monkeypatch.setattr(speech_module, "MOUTH_CONTEXT_SECONDS", 1)
    assert max(len(piece.features) for piece in speech_pieces(audio, FPS, model.speech)) <= 4 * 25


def test_noise_belongs_to_the_frame_whatever_the_piece() -> None:
    whole = held_noise(np.arange(100), 8, 5, "pose")
    torch.testing.assert_close(held_noise(np.arange(37, 90), 8, 5, "pose"), whole[37:90])
    assert (whole - held_noise(np.arange(100), 8, 6, "pose")).abs().mean() > 0.5
    assert whole.diff(dim=0).abs().max() < 0.5  # it turns slowly


def still(frames: int, **changed: Any) -> FaceMotion:
    fields = {"vertices": np.zeros((frames, 468, 3)), "neutral": np.zeros((468, 3))}
    fields |= {"rotation": np.zeros((frames, 3)), "translation": np.zeros((frames, 3))}
    return FaceMotion(**fields | {"fps": FPS, "blendshapes": np.zeros((frames, 52), np.float32)} | changed)


def test_another_motion_moves_the_head_and_the_lids(model: PersonModel, caplog: pytest.LogCaptureFixture) -> None:
    rotation, scores = np.zeros((50, 3)), np.zeros((50, 52), np.float32)
    rotation[10:, 0], scores[20:24, 9:11] = 4.0, 1.0
    poses = motion_poses(still(50, rotation=rotation), model)
    w2c = torch.linalg.inv(poses)
    turned = raw_labels(torch.linalg.inv(w2c[:1]) @ w2c, torch.zeros(50, 7))
    assert turned[:10, :6].abs().max() < 1e-5
    assert turned[10:, 0].mean() == pytest.approx(np.radians(4), abs=1e-3)  # nods down by as much
    expressions = motion_expressions(still(50, blendshapes=scores), model)
    torch.testing.assert_close(expressions[0], model.rest_expression)
    torch.testing.assert_close(expressions[22, 5:], model.blink_maximum)

    said: list[str] = []
    far = still(13, rotation=np.tile([0.0, 60.0, 0.0], (13, 1)))
    frames = [frame for frame, _ in animate(model, speech(0.5), Drive(pose=far), say=said.append)]
    assert len(frames) == 13
    assert "In 13 of 13 frames the motion's pose lies outside" in said[0]
    inside, outside = limited_poses(model, motion_poses(far, model))
    assert outside.all()
    assert not limited_poses(model, inside)[1].any()
    with pytest.raises(TalkingPortraitError, match=r"motion lasts 0.20 s, but the speech 2.00 s"):
        list(animate(model, speech(2), Drive(expression=still(5))))


def test_a_portrait_changes_the_face_alone(work: Path, model: PersonModel) -> None:
    person = open_person(work / "ann")
    truth = list(person.full_frames())
    said = list(animate(model, speech(0.4, seed=4), head=person))
    assert len(said) == 10
    for number, (frame, mask) in enumerate(said):
        outside = mask[0].numpy() == 0
        assert 0.5 < outside.mean() < 0.99
        np.testing.assert_array_equal(frame[0].numpy()[outside], truth[number][outside])  # the video's own bytes
        assert frame.shape == (1, *FRAME, 3)
    same = list(frames_of(model, speech(0.4, seed=4), head=person.source))
    torch.testing.assert_close(same[3], said[3][0])
    with pytest.raises(TalkingPortraitError, match="prepared from another video than the model"):
        list(animate(model, speech(0.4), head=open_person(work / "bob")))


def test_the_device_s_fastest_numbers_draw_pictures_and_compiled_kernels_long_speech(
    model: PersonModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_with: list[tuple[torch.dtype, bool]] = []
    render_frame = Renderer.render_frame

    def rendered(self: Renderer, *arguments: Any, **options: Any) -> Any:
        drawn_with.append((options["dtype"], self.head.compiled))
        self.head.compiled = False  # there is no graphics card to compile for
        return render_frame(self, *arguments, **options)

    monkeypatch.setattr(Renderer, "render_frame", rendered)
    monkeypatch.setattr(animate_module, "can_compile", lambda device, config: True)
    monkeypatch.setattr(animate_module, "fast_dtype", lambda device: torch.float16)
    monkeypatch.setattr(animate_module, "COMPILED_FRAMES", 8)
    monkeypatch.setattr(speech_module, "FIRST_PIECE", 0.2)
    assert len(list(animate(model, speech(0.4)))) == 10
    assert {dtype for dtype, _ in drawn_with} == {torch.float16}
    assert not drawn_with[0][1]  # the first frame does not wait
    assert drawn_with[5][1]
    drawn_with.clear()
    list(animate(model, speech(0.2)))
    assert not any(compiled for _, compiled in drawn_with)


def test_the_upper_body_is_scaled_about_the_lower_edge(model: PersonModel) -> None:
    audio = speech(0.2)
    (_, mask), *_ = animate(model, audio)
    (_, smaller), *_ = animate(model, audio, Drive(torso_scale=1.5))

    def top(values: torch.Tensor) -> int:
        return int((values[0] > 0.5).any(1).nonzero()[0])

    assert top(smaller) == pytest.approx(SIZE - (SIZE - top(mask)) / 1.5, abs=3)
    assert smaller.sum() < mask.sum()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"torso_scale": 3.0}, "scale is 3.0, but 0.5 to 2"),
        ({"reference": "last"}, "reference is 'last', but one of"),
        ({"smoothing": "much"}, "smoothing is 'much'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_drives_out_of_range_are_refused_in_a_sentence(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(TalkingPortraitError, match=reason):
        Drive(**changed)


def test_the_published_reference_takes_the_expression_from_the_training(model: PersonModel) -> None:
    one, other = (
        torch.cat([piece.expressions for piece in conditions(model, speech(1, seed=seed), reference="published")])
        for seed in (1, 2)
    )
    torch.testing.assert_close(one, other)  # whatever is said
    own = torch.cat([piece.expressions for piece in conditions(model, speech(1, seed=2))])
    assert (own - other).abs().max() > 0.05


def test_the_autoregressive_pose_goes_on_from_the_one_before_across_pieces(
    model: PersonModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = speech(4, seed=2)
    monkeypatch.setattr(speech_module, "FIRST_PIECE", 100)
    (whole,) = speech_pieces(audio, FPS, model.speech)
    labels = pose_labels(model, whole, "autoregressive").labels
    codes = held_noise(np.arange(100), 32, 0, "pose")
    speech_codes = model.networks.speech_map(whole.features.flatten(1))
    with torch.no_grad():
        following = model.networks.pose_syncer(speech_codes[50:51], labels[49:50], codes[50:51])
    low, high = model.statistics.normalise_raw(model.limits)[:, :6]
    torch.testing.assert_close(labels[50:51], following.clamp(low, high), atol=1e-4, rtol=1e-4)
    assert (labels - pose_labels(model, whole).labels).abs().max() > 0.01
    middle = replace(whole, start=60, first=40, features=whole.features[40:])  # a piece that begins at frame 40
    later = pose_labels(model, middle, "autoregressive", before=PoseLabels(0, labels[:60]))
    torch.testing.assert_close(later.labels, labels[40:], atol=1e-4, rtol=1e-4)


def test_a_file_is_as_the_model_and_files_of_others_are_refused(work: Path, model: PersonModel, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    assert model.speech.mouth_encoder is not None
    assert model.speech.mouth_encoder.name == model.speech.model
    model.save(tmp_path / "again.safetensors")
    again = open_model(tmp_path / "again.safetensors").tensors()
    for name, tensor in model.tensors().items():
        if name not in ("individual_codes", "individual_codes_torso"):  # the mean is stored, of the first and itself
            torch.testing.assert_close(again[name], tensor, msg=name)
    state = load_file(work / "run" / MODEL)
    save_file(state, tmp_path / "bare.safetensors")
    with pytest.raises(TalkingPortraitError, match="does not say how it was trained"):
        open_model(tmp_path / "bare.safetensors")
    with safe_open(work / "run" / MODEL, "pt") as file:
        notes = file.metadata()
    for name, text in (("cut", '{"version": 1}'), ("newer", '{"version": 9}')):
        save_file(state, tmp_path / f"{name}.safetensors", {**notes, "talking_portrait.syncanimation": text})
    with pytest.raises(TalkingPortraitError, match="description lacks or misstates"):
        open_model(tmp_path / "cut.safetensors")
    with pytest.raises(TalkingPortraitError, match="another version of this pack"):
        open_model(tmp_path / "newer.safetensors")
    with pytest.raises(TalkingPortraitError, match="SyncAnimation's pose syncer"):
        open_model(work / "run" / "pose" / "pose_syncer.safetensors")
    save_file(state | {"bg.image": state["bg.image"][:9]}, tmp_path / "odd.safetensors", notes)
    with pytest.raises(TalkingPortraitError, match=r"parts do not belong together \(background\)"):
        open_model(tmp_path / "odd.safetensors")


def test_the_python_api_trains_and_drives(work: Path, tmp_path: Path) -> None:
    done: list[float] = []
    path = tp.train_person(
        work / "bob",
        tmp_path / "run",
        system="syncanimation",
        progress=lambda part, whole, *_: done.append(part / whole),
        **asdict(QUICK),
    )
    assert done == sorted(done)
    assert done[-1] == 1
    heard = speech(0.2)
    for head, side in ((None, (128, 128)), (work / "bob", FRAME)):
        film = open_video(tp.drive_person(path, heard, tmp_path / "out.mp4", head=head, seed=2**64 - 1))
        assert film.size == side
        assert len(list(film.frames())) == 5
    for given, sentence in (
        ({"pose": "nod.npz"}, r"The pose is 'nod\.npz', but a FaceMotion is expected"),
        ({"seed": -1}, "The seed is -1, but 0 to 2"),
        ({"torso_scale": "big"}, "The torso-scale is 'big', but a number"),
        ({"offset": 1}, "offset was given, but SyncAnimation takes pose, expression, "),
    ):
        with pytest.raises(TalkingPortraitError, match=sentence):
            tp.drive_person(path, heard, tmp_path / "none.mp4", **given)
    with pytest.raises(TalkingPortraitError, match="Training takes no batch; it takes face_steps, "):
        tp.train_person(work / "bob", tmp_path / "other", system="syncanimation", batch=2)


def test_commands_train_drive_and_render_live(
    work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, audio, out = str(work / "run" / MODEL), str(tmp_path / "say.wav"), tmp_path / "out.mp4"
    write_wav(tmp_path / "say.wav", speech(0.4))
    save_motion(tmp_path / "motion.npz", still(10))
    marked: list[bool] = []
    marking = frame_stream.new_marking
    monkeypatch.setattr(frame_stream, "new_marking", lambda mark: marked.append(mark) or marking(mark))
    drive = ["person", "drive", model, "--audio", audio, "--out", str(out)]
    assert main([*drive, "--pose", str(tmp_path / "motion.npz"), "--torso-scale", "1.2"]) == 0
    assert len(list(open_video(out).frames())) == 10
    assert main([*drive, "--portrait", "--no-mark", "--person", str(work / "ann")]) == 0
    assert open_video(out).size == FRAME
    assert main([*drive, "--portrait"]) != 0
    assert "give the prepared person by --person" in capfd.readouterr().err
    monkeypatch.setattr(_Clock, "EARLY", 0.0)
    assert main(["live", "--model", model, "--audio", audio, "--out", str(out), "--no-mark"]) == 0
    assert marked == [True, False, False]
    begun, early, done = capfd.readouterr().out.splitlines()
    assert begun.startswith(f"{out}: 10 frames are being rendered")
    assert early.startswith("frames so far: the first after ")
    assert done.startswith(f"{out}: 10 frames; the first after ")


@pytest.mark.slow
def test_half_precision_the_published_steps_and_joint_training_train_too(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings_module.PATCHES, "published", (2, 16))
    monkeypatch.setitem(train_module.UPDATED_PART, "published", 1 / 27)
    joint = replace(QUICK, size="published", precision="bf16", joint=True)
    path = train_syncanimation(work / "ann", tmp_path / "run", joint)
    assert open_model(path).steps == 12
    assert all(np.isfinite(line["loss gradient"]) for line in read_log(tmp_path / "run" / "face"))
    # Pictures train a syncer that was trained alone before, where they are trained together only.
    for run, together in ((tmp_path / "run", True), (work / "run", False)):
        state = load_file(run / MODEL)
        for name, file in (("au2PoseNet.", "pose/pose_syncer"), ("au2BsNet.", "emotion/emotion_syncer")):
            alone = load_file(run / f"{file}.safetensors")
            moved = [(state[name + key] - alone[key]).abs().max() for key in alone if key.endswith(".fc.weight")]
            assert (float(max(moved)) > 1e-6) == together
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert settings.pop("joint")
    (tmp_path / "run.json").write_text(json.dumps(settings))  # of a version without it
    before = read_settings(tmp_path, Settings)
    assert before is not None
    assert (before.joint, before.precision) == (False, "bf16")


@pytest.mark.slow
def test_the_first_stage_alone_has_no_head_and_is_gone_on_with(work: Path, tmp_path: Path) -> None:
    path = train_syncanimation(work / "bob", tmp_path / "run", replace(QUICK, stage="torso"))
    with pytest.raises(TalkingPortraitError, match=r"first stage \(torso\) only and has no head yet"):
        next(animate(open_model(path), speech(0.2)))
    with pytest.raises(TalkingPortraitError, match="holds a training run already .*--resume"):
        train_syncanimation(work / "bob", tmp_path / "run", QUICK)
    said: list[str] = []
    other = replace(QUICK, stage="face", held_out=0.25, size="auto", minutes=1.0)
    train_syncanimation(work / "bob", tmp_path / "run", other, resume=True, say=said.append)
    goes_on = f"This run goes on with held_out {QUICK.held_out}, as it was begun; for other settings begin another run."
    assert said[0] == goes_on
    run = tmp_path / "run" / "run.json"
    written = run.read_text()
    run.write_text(written.replace(open_model(path).video.fingerprint, "another"))
    with pytest.raises(TalkingPortraitError, match="was begun on another person's video"):
        train_syncanimation(work / "bob", tmp_path / "run", QUICK, resume=True)
    run.write_text(written)
    assert open_model(path).stage == "face"
    assert len(list(animate(open_model(path), speech(0.2)))) == 5
    assert len(read_log(tmp_path / "run" / "torso")) == 4
    with pytest.raises(TalkingPortraitError, match="torso is to be trained for 9 steps, but the stage face was begun"):
        train_syncanimation(work / "bob", tmp_path / "run", replace(QUICK, torso_steps=9), resume=True)
    longer = replace(QUICK, stage="face", torso_steps=0, face_steps=0, lips_steps=0, steps=16)
    train_syncanimation(work / "bob", tmp_path / "run", longer, resume=True)
    assert len(read_log(tmp_path / "run" / "face")) == 6  # half of the 12 steps that are left


@pytest.mark.parametrize(("moment", "number"), [("step", 6), pytest.param("checkpoint", 8, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on_to_its_end(work: Path, tmp_path: Path, moment: str, number: int) -> None:
    arguments = ["--person", work / "bob", "--torso-steps", 2, "--face-steps", 3, "--lips-steps", 2, "--rays", 64]
    arguments += ["--syncer-steps", 1, "--save-every", 1, "--picture-every", 0, "--held-out", 0]
    assert main(["train", "syncanimation", "--out", str(tmp_path / "whole"), *map(str, arguments)]) == 0
    out = tmp_path / "killed"
    kill(HALTED_TRAINING, moment, number, "train", "syncanimation", "--out", out, *arguments)
    assert not (out / MODEL).exists()
    assert main(["train", "syncanimation", "--out", str(out), "--resume", "--person", str(work / "bob")]) == 0
    for part in ("pose", "torso", "emotion", "speech", "face", "lips"):
        assert_same_log(read_log(out / part), read_log(tmp_path / "whole" / part))
    assert open_model(out / MODEL).stage == "lips"


def test_persons_that_cannot_be_trained_on_are_refused_in_a_sentence(work: Path, tmp_path: Path) -> None:
    with pytest.raises(TalkingPortraitError, match=r"meta.json is missing"):
        train_syncanimation(tmp_path, tmp_path / "run", QUICK)
    person, avatar = open_person(work / "ann"), open_avatar(open_person(work / "ann"))
    training, held_out = split(person, avatar.usable, 0.2, least=2)
    assert (training.tolist(), held_out.tolist()) == (list(range(100)), list(range(100, 125)))
    one = np.zeros(person.frames, bool)
    one[5] = True
    with pytest.raises(TalkingPortraitError, match="1 frames of the person can be used, but at least 2"):
        split(person, one, 0.1, least=2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / MODEL).write_text("mine")
    with pytest.raises(TalkingPortraitError, match=r"person.safetensors would be written over"):
        train_syncanimation(work / "bob", tmp_path / "run", QUICK)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"stage": "hair"}, "stage is 'hair', but one of all, torso, face, lips"),
        ({"minutes": 0}, "Training for 0 minutes"),
        ({"held_out": 0.6}, "share 0.6 of the video"),
        ({"rays": -1}, "-1 rays"),
        ({"syncer_steps": 0}, "0 steps of the syncers"),
    ],
)
def test_settings_out_of_range_are_refused_in_a_sentence(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(TalkingPortraitError, match=reason):
        Settings(**changed)


def test_steps_are_shared_out_among_the_stages() -> None:
    cpu, card = (Settings(steps=310, lips_steps=7).resolved(torch.device(name)) for name in ("cpu", "cuda"))
    assert (cpu.size, cpu.precision, cpu.rays) == ("small", "fp32", 2048)
    assert (card.size, card.precision, card.rays) == ("published", "bf16", 65536)
    assert (card.torso_steps, card.face_steps, card.lips_steps) == (150, 120, 7)
    assert Settings(stage="face").stages == ("torso", "face")
    assert card.pixels("face") == [Pixels(0, 16, 64)]


def test_samples_are_pixels_of_the_frame_around_the_head(work: Path, model: PersonModel) -> None:
    avatar = open_avatar(open_person(work / "ann"))
    features = model.speech.standardised(open_person(work / "ann").speech())
    frames = HeadFrames(avatar, range(20), 0, features, model.labels.expressions, [Pixels(200), Pixels(64, 2, 8)])
    first, second = frames[0], frames[1]
    frame = int(first["frame"])
    picture = torch.from_numpy(avatar.frames([frame])[0]).float().flatten(0, 1) / 255
    torch.testing.assert_close(first["target"], picture[first["pixels"]])
    assert (len(first["pixels"]), first["patch"].tolist()) == (200, [0, 0])
    assert second["patch"].tolist() == [2, 8]
    patch = second["pixels"][:64].view(8, 8)
    assert (patch.diff(dim=1) == 1).all()
    assert (patch.diff(dim=0) == SIZE).all()
    head = torch.from_numpy(avatar.parts([frame])[0].ravel() == avatar_files.HEAD_PART)
    assert head[first["pixels"]].float().mean() > 0.6
    assert sorted(int(frames[number]["frame"]) for number in range(20)) == list(range(20))


def test_frames_with_shut_eyes_and_a_wide_mouth_come_more_often() -> None:
    frames, blinks, openings = np.arange(0, 200, 2), np.zeros(200), np.linspace(0, 1, 200)
    blinks[[20, 21, 60]] = 0.7
    counts = np.bincount(with_rare(frames, blinks, openings), minlength=200)
    assert counts[1::2].sum() == 0  # none that is not trained on
    assert counts[[20, 60]].tolist() == [6, 6]
    assert counts[[0, 198]].tolist() == [1, 1]  # a quarter of the frames has a wide mouth: enough
    assert np.array_equal(with_rare(frames, np.zeros(200)), frames)  # nothing ever changes


def test_cells_outside_of_the_head_are_carved_away(work: Path) -> None:
    avatar = open_avatar(open_person(work / "ann"))
    renderer, poses = Renderer(), renderer_pose(avatar.c2w)
    grid = renderer.occupancy
    camera = Camera(avatar.focal, avatar.focal, avatar.cx, avatar.cy, SIZE, SIZE)
    renderer.mark_unseen(camera, poses[::25])
    carve(grid, avatar, camera, poses, np.arange(100))
    places = cell_places(torch.arange(grid.density.numel())).view(*grid.density.shape, 3)
    # The renderer's axes are y, z, x of the head's, four times as large.
    inside = (
        ((places[..., [2, 0, 1]] / 4 - torch.tensor([0, 0, -0.01])) / torch.tensor([0.07, 0.095, 0.08])) ** 2
    ).sum(-1)
    assert (grid.density[inside < 1] >= 0).float().mean() > 0.97
    assert (grid.density >= 0).float().mean() < 0.25


def test_lips_are_measured_where_faces_are_found(work: Path, model: PersonModel) -> None:
    """An engine that finds a face whose mouth is open as the picture is bright."""

    class Bright(Sightless):
        def faces(self, picture: np.ndarray, min_confidence: float) -> list[Face]:
            points = np.random.default_rng(0).uniform(20, 40, (478, 3))
            points[[13, 14], 1] = 30 + picture.mean() / 20 * np.array([-1, 1])
            return [Face(points, None, 0.9)]

    avatar = open_avatar(open_person(work / "ann"))
    features = model.speech.standardised(open_person(work / "ann").speech())
    figures = evaluate(model, avatar, features, [112, 116, 120, 124], Bright())
    assert figures.keys() == {"psnr", "face psnr", "lmd", "mouth opening r", "mouth opening gain"}
    assert 0 <= figures["lmd"] < 1
