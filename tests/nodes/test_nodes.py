"""The nodes themselves, on small inputs: outputs, errors for bad input, and what is not computed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from talking_portrait.nodes import checked_node, extension, host, inputs, loaded_models
from talking_portrait.nodes.standalone import node_api as standalone
from talking_portrait.nodes.standalone.core_nodes import VideoPayload
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.types import Crop

NODES = {node.__name__: node for node in extension.NODES}
TASK = Path(__file__).parents[3] / "shared" / "data" / "face_landmarker.task"


def sound(seconds: float = 0.5, rate: int = 16000, channels: int = 1) -> dict:
    torch.manual_seed(0)
    return {"waveform": torch.randn(1, channels, round(seconds * rate)) * 0.1, "sample_rate": rate}


def drive(**changes):
    inputs = {"audio": sound(), "fps": 10.0, "seed": 0, "mouth": 1, "head": 1, "brows": 1, "blinks": 1, "drift": 1}
    return NODES["InstantDriver"].execute(**{**inputs, **changes}).args[0]


def edit(motion, **changes):
    inputs = {"mouth": 1, "head": 1, "smoothing": 0, "blinks": "keep", "yaw": 0, "pitch": 0, "roll": 0}
    return NODES["EditMotion"].execute(motion, **{**inputs, "mirror": False, "fps": 0, **changes}).args[0]


@pytest.fixture(scope="module")
def sample():
    return NODES["Example"].execute().args


@pytest.fixture(scope="module")
def small(sample):
    """The sample portrait at 128 pixels and its landmarks."""
    image, _, landmarks = sample
    cut, _, inside = NODES["CropPortrait"].execute(image, landmarks, 128, "head and shoulders", 1.0, False, False).args
    return cut, inside


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_the_sample_fits_its_sockets(sample):
    image, audio, landmarks = sample
    assert image.shape == (1, 512, 512, 3)
    assert 0 <= image.min() < image.max() <= 1
    assert audio["waveform"].shape[:2] == (1, 1)
    assert len(landmarks["frames"]) == 1
    assert tuple(landmarks["image_size"]) == (512, 512)


def test_speech_becomes_frames(sample):
    image, _, landmarks = sample
    reports = []
    watching = standalone.Session(progress=lambda done, total, preview=None: reports.append((done, total, preview)))
    motion = drive(audio=sound(0.2), fps=23.976)
    with standalone.use_session(watching):
        images, mask, fps, _ = NODES["InstantRender"].execute(image, landmarks, motion, 2).args
    assert images.shape == (5, 512, 512, 3)
    assert mask.shape == (5, 512, 512)
    assert fps == pytest.approx(24000 / 1001)
    still = mask.amax(dim=0) == 0
    assert still.any()
    assert torch.equal(images[:, still], image[:, still].expand(5, -1, -1))
    assert [(done, total) for done, total, _ in reports] == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert reports[0][2].shape == (512, 512, 3)


def test_cancelling_stops_the_renderer_at_the_next_batch(small):
    image, landmarks = small
    calls = []

    def cancel(done, total, preview=None):
        calls.append(done)
        if done:
            raise KeyboardInterrupt

    motion = drive()
    with standalone.use_session(standalone.Session(progress=cancel)), pytest.raises(KeyboardInterrupt):
        NODES["InstantRender"].execute(image, landmarks, motion, 2)
    assert calls == [0, 2]


def test_a_transparent_portrait_moves_too(small):
    image, landmarks = small
    picture = torch.cat([image, torch.rand(1, 128, 128, 1)], dim=-1)
    assert NODES["InstantRender"].execute(picture, landmarks, drive(fps=2.0)).args[0].shape == (1, 128, 128, 4)


@pytest.mark.parametrize("colours", [1, 3])
def test_the_first_picture_of_a_batch_is_taken_in_colour(colours):
    pictures = torch.rand(2, 4, 6, colours)
    assert torch.equal(inputs.portrait_socket(pictures), pictures[0].expand(4, 6, 3))


def test_what_is_transparent_is_white():
    clear = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.5], [1.0, 0.0, 0.0, 1.0]]).reshape(1, 1, 3, 4)
    right = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 0.5, 0.5], [1.0, 0.0, 0.0]]])
    torch.testing.assert_close(inputs.portrait_socket(clear), right)


def cut_out(image: torch.Tensor, beneath: tuple[float, float, float]) -> torch.Tensor:
    """A picture (1, H, W, 3) with an opaque disc with a soft edge; `beneath` is the colour where it is transparent."""
    height, width = image.shape[1:3]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    alpha = ((0.95 - torch.hypot(x, y)) * width / 8).clamp(0, 1)[None, ..., None]
    colours = torch.where(alpha > 0, image, torch.tensor(beneath))
    return torch.cat([colours, alpha], dim=-1)


def test_frames_of_a_video_with_landmarks_of_another_are_refused(sample):
    """Only the first picture spoke, and nothing said so."""
    image, _, landmarks = sample
    several = {**landmarks, "frames": landmarks["frames"] * 2}
    with pytest.raises(TalkingPortraitError, match="There are 3 pictures and landmarks for 2"):
        NODES["InstantRender"].execute(image.repeat(3, 1, 1, 1), several, drive(fps=2.0))


def test_colours_beneath_full_transparency_appear_nowhere(small):
    image, landmarks = small
    red, green = cut_out(image, (1.0, 0.0, 0.0)), cut_out(image, (0.0, 1.0, 0.0))

    def rendered(picture):
        return NODES["InstantRender"].execute(picture, landmarks, drive(fps=2.0)).args[0]

    def visible(picture):
        return inputs.colours(picture)

    def cut(picture, **options):
        settings = {"framing": "head", "scale": 2.0, "upright": True, "follow": False, **options}
        return NODES["CropPortrait"].execute(picture, landmarks, 200, **settings).args[:2]

    torch.testing.assert_close(rendered(red), rendered(green), atol=1e-5, rtol=0)
    (cut_red, crop), (cut_green, _) = cut(red), cut(green)
    assert cut_red.shape[-1] == 4
    torch.testing.assert_close(visible(cut_red), visible(cut_green), atol=0.5 / 255, rtol=0)
    pasted = [NODES["PasteBack"].execute(one, crop, 0.1, source=image).args[0] for one in (cut_red, cut_green)]
    torch.testing.assert_close(*pasted, atol=0.5 / 255, rtol=0)


def test_the_same_inputs_give_the_same_motion_and_amounts_of_zero_none():
    first, again, other = drive(), drive(), drive(seed=1)
    np.testing.assert_allclose(first.vertices, again.vertices, atol=1e-5)
    np.testing.assert_allclose(first.rotation, again.rotation, atol=1e-4)
    assert abs(first.rotation - other.rotation).max() > 0.01
    still = drive(mouth=0, head=0, brows=0, blinks=0, drift=0)
    assert (still.vertices == still.neutral).all()
    assert not still.rotation.any()


def test_edit_motion_leaves_alone_changes_and_joins():
    motion = drive()
    same = edit(motion)
    np.testing.assert_allclose(same.vertices, motion.vertices, atol=1e-5)
    np.testing.assert_allclose(same.rotation, motion.rotation, atol=1e-4)
    assert edit(motion, fps=20).frames == 10
    assert edit(motion, then=motion).frames == 2 * motion.frames
    assert edit(motion, yaw=10.0).rotation[:, 1].mean() == pytest.approx(10 + motion.rotation[:, 1].mean(), abs=0.5)


def test_preview_shows_a_face_and_its_curves():
    images, plot, fps = NODES["PreviewMotion"].execute(drive(), 64, sound(), 320, 240).args
    assert images.shape == (5, 64, 64, 3)
    assert plot.shape == (1, 240, 320, 3)
    assert fps == 10.0
    assert images.std() > 0.01


def test_reenacting_the_portrait_itself_keeps_it_still(sample):
    _, _, landmarks = sample
    motion = NODES["ReenactMotion"].execute(landmarks, landmarks, 25.0, 1, 1, 1, "relative").args[0]
    assert motion.frames == 1
    assert motion.fps == Fraction(25)
    assert abs(motion.rotation).max() < 0.01


def test_crops_are_pasted_back_at_their_position(sample):
    image, _, landmarks = sample
    cut, crop, inside = NODES["CropPortrait"].execute(image, landmarks, 256, "head", 1.0, False, False).args
    assert cut.shape == (1, 256, 256, 3)
    assert tuple(inside["image_size"]) == (256, 256)
    pasted = NODES["PasteBack"].execute(torch.zeros_like(cut), crop, 0.1, source=image).args[0]
    changed = (pasted != image).any(dim=-1)
    assert 0.05 < changed.float().mean() < 0.9
    (left, right), (top, bottom) = (crop.matrix[0] @ np.array([[0, 256], [0, 256], [1, 1]])).round().astype(int)
    changed[:, max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = False
    assert not changed.any()
    mask = torch.zeros(1, 256, 256)
    assert torch.equal(NODES["PasteBack"].execute(torch.zeros_like(cut), crop, 0.1, image, mask).args[0], image)


def test_mfcc_features_have_their_rate():
    features = NODES["SpeechMFCC"].execute(sound(rate=8000, channels=8), "audiodvp").args[0]
    assert features.states.shape[1:] == (28, 12)
    assert features.fps == 25


def test_a_speech_encoder_folder_is_listed_loaded_and_used(models):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=64, conv_dim=[16] * 7
    )
    folder = models / "audio_encoders" / "tiny-wav2vec2"
    Wav2Vec2Model(config).save_pretrained(folder)
    info = NODES["LoadSpeechEncoder"].GET_NODE_INFO_V1()
    assert info["input"]["required"]["file"][1]["options"] == ["tiny-wav2vec2"]
    encoder = NODES["LoadSpeechEncoder"].execute("tiny-wav2vec2").args[0]
    features = NODES["EncodeSpeech"].execute(sound(), encoder, 25.0, "resampled").args[0]
    assert features.states.shape == (13, 3, 64)
    assert features.fps == 25


def test_vocals_switched_off_pass_through_without_a_model(models):
    audio = sound(channels=2)
    vocals, background = NODES["SeparateVocals"].execute(audio, "none.onnx", False).args
    assert torch.equal(vocals["waveform"], audio["waveform"])
    assert background["waveform"].shape == audio["waveform"].shape
    assert not background["waveform"].any()
    assert vocals["sample_rate"] == background["sample_rate"] == audio["sample_rate"]


@pytest.mark.skipif(not TASK.is_file(), reason="no face landmark model beside the repository")
def test_a_face_is_found_where_it_is(sample, models):
    image, _, known = sample
    (models / "talking_portrait").mkdir(parents=True)
    shutil.copy(TASK, models / "talking_portrait")
    landmarks, report, boxes = NODES["DetectLandmarks"].execute(image, "largest", 0, "hold").args
    here, there = (payload["frames"][0][0]["landmarks_xy"] for payload in (landmarks, known))
    assert abs(here[:468] - there[:468]).max() < 3
    assert report.endswith("Engine: MediaPipe.")
    ((box,),) = boxes
    x, y = there.mean(axis=0)
    assert box["x"] < x < box["x"] + box["width"]
    assert box["y"] < y < box["y"] + box["height"]


def test_a_face_is_found_on_a_fresh_machine_and_the_better_model_is_named_once(sample, models):
    image, _, known = sample
    landmarks, report, _ = NODES["DetectLandmarks"].execute(image.repeat(3, 1, 1, 1), "largest", 0, "hold").args
    here, there = (payload["frames"][0][0]["landmarks_xy"] for payload in (landmarks, known))
    assert np.linalg.norm(here[:468] - there[:468], axis=1).mean() < 0.03 * np.linalg.norm(there[33] - there[263])
    assert "Engine: OpenCV." in report
    assert report.count("models get face_landmarker") == 1
    _, report, _ = NODES["DetectLandmarks"].execute(image, "largest", 0, "hold", engine="opencv").args
    assert report.endswith("Engine: OpenCV.")
    assert not models.exists()


MISSING = {
    "DetectLandmarks": ((torch.zeros(1, 64, 64, 3), "largest", 0, "hold", 0.5, 1.0, "mediapipe"), "face_landmarker"),
    "LoadSpeechEncoder": (("wav2vec2-base-960h.safetensors",), "wav2vec2_base_960h"),
    "SeparateVocals": ((sound(), "Kim_Vocal_2.onnx", True), "kim_vocal_2"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_model_is_reported_with_the_way_to_get_it(models, name):
    arguments, model = MISSING[name]
    with pytest.raises(TalkingPortraitError) as raised:
        NODES[name].execute(*arguments)
    message = str(raised.value)
    assert message.startswith(f"{NODES[name].define_schema().display_name}: The model file ")
    assert str(models) in message
    assert "https://" in message
    assert message.endswith(f"python -m talking_portrait models get {model}")
    assert "\n" not in message
    assert not models.exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\..\\..\\b", "C:\\secret", "", 5, None, {}])
def test_a_model_name_can_not_leave_its_folder(models, name):
    refusal = "leads out of the model folders" if isinstance(name, str) else "but one of its choices is expected"
    for node, arguments in (("LoadSpeechEncoder", (name,)), ("SeparateVocals", (sound(), name, True))):
        with pytest.raises(TalkingPortraitError, match=refusal):
            NODES[node].execute(*arguments)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800"])
def test_a_model_name_that_no_file_has_is_reported(models, name):
    for node, arguments in (("LoadSpeechEncoder", (name,)), ("SeparateVocals", (sound(), name, True))):
        with pytest.raises(TalkingPortraitError, match=r"The model file .* is missing") as raised:
            NODES[node].execute(*arguments)
        assert len(str(raised.value)) < 600


BAD_AUDIO = {
    "none": None,
    "empty": {"waveform": torch.zeros(1, 1, 0), "sample_rate": 16000},
    "one sample": {"waveform": torch.zeros(1, 1, 1), "sample_rate": 16000},
    "NaN": {"waveform": torch.full((1, 1, 16000), float("nan")), "sample_rate": 16000},
    "no audio": "speech.wav",
}


@pytest.mark.parametrize("audio", BAD_AUDIO.values(), ids=BAD_AUDIO)
@pytest.mark.parametrize("name", ["InstantDriver", "SpeechMFCC", "SeparateVocals"])
def test_bad_audio_is_reported_by_the_node(name, audio):
    rest = {
        "InstantDriver": (25.0, 0, 1, 1, 1, 1, 1),
        "SpeechMFCC": ("anitalker",),
        "SeparateVocals": ("Kim_Vocal_2.onnx", True),
    }
    with pytest.raises(TalkingPortraitError) as raised:
        NODES[name].execute(audio, *rest[name])
    assert str(raised.value).startswith(f"{NODES[name].define_schema().display_name}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fps", [0, 1000, float("nan")])
def test_an_impossible_rate_is_reported(fps):
    with pytest.raises(
        TalkingPortraitError, match=f'Instant Driver: The input "fps" is {fps}, but a number from 1 to 240'
    ):
        drive(fps=fps)


@pytest.mark.parametrize("image", [torch.zeros(64, 64, 3), torch.zeros(0, 64, 64, 3), torch.zeros(1, 8, 8, 5), None])
def test_what_is_no_picture_is_reported(sample, image):
    with pytest.raises(TalkingPortraitError, match='Instant Render: The input "image" is .*, but pictures'):
        NODES["InstantRender"].execute(image, sample[2], drive(fps=2.0))


def test_landmarks_of_another_picture_are_reported(sample):
    with pytest.raises(TalkingPortraitError, match="Instant Render: .*run Detect Landmarks on this very picture"):
        NODES["InstantRender"].execute(torch.zeros(1, 100, 100, 3), sample[2], drive(fps=2.0))
    with pytest.raises(TalkingPortraitError, match="Instant Render: The face landmarks are"):
        NODES["InstantRender"].execute(sample[0], "landmarks", drive(fps=2.0))


SOCKETS = {
    "IMAGE": lambda: torch.rand(1, 64, 64, 3),
    "MASK": lambda: torch.ones(1, 64, 64),
    "AUDIO": sound,
    "VIDEO": lambda: VideoPayload(torch.rand(12, 64, 64, 3)),
    "FACE_LANDMARKS": lambda: NODES["Example"].execute().args[2],
    "TALKING_PORTRAIT_FACE_MOTION": drive,
    "TALKING_PORTRAIT_SPEECH_ENCODER": lambda: loaded_models.LoadedSpeechEncoder(None, None),
    "TALKING_PORTRAIT_CROP": lambda: Crop(np.eye(3)[None, :2], (64, 64), (64, 64), torch.rand(1, 64, 64, 3)),
}


@pytest.mark.parametrize("value", [None, 5, "text", {}, "x" * 5000])
@pytest.mark.parametrize("name", list(NODES))
def test_what_no_driver_or_loader_made_is_reported_by_every_node(name, value):
    """ComfyUI passes constants in a prompt to any socket, and None from a node that found nothing."""
    schema = NODES[name].define_schema()
    for entry in schema.inputs:
        if entry.io_type not in SOCKETS or (value is None and entry.optional):
            continue
        values = {other.id: other.as_dict().get("default") for other in schema.inputs}
        values = {key: default for key, default in values.items() if default is not None}
        needed = [other for other in schema.inputs if other.io_type in SOCKETS and not other.optional]
        good = {other.id: SOCKETS[other.io_type]() for other in needed}
        with pytest.raises(TalkingPortraitError, match=schema.display_name) as raised:
            NODES[name].execute(**{**values, **good, entry.id: value})
        assert len(str(raised.value)) < 300
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("where", ["images", "source", "mask"])
def test_numbers_that_are_no_colours_are_reported(where):
    bad = {"images": SOCKETS["IMAGE"](), "source": SOCKETS["IMAGE"](), "mask": SOCKETS["MASK"]()}
    bad[where][0, 3, 3] = float("nan")
    with pytest.raises(TalkingPortraitError, match=f'Paste Back: (Picture|Mask) 0 of the input "{where}" holds NaN'):
        NODES["PasteBack"].execute(crop=SOCKETS["TALKING_PORTRAIT_CROP"](), feather=0.1, **bad)


def test_too_little_memory_is_reported_and_other_errors_are_unchanged(sample, monkeypatch):
    def fail(error: Exception):
        def render(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("talking_portrait.pipelines.instant.animate.InstantRenderer", render)
        NODES["InstantRender"].execute(sample[0], sample[2], drive())

    with pytest.raises(TalkingPortraitError, match="Instant Render: This needs more memory than there is"):
        fail(RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"))
    with pytest.raises(TalkingPortraitError, match="Instant Render: This needs more memory than there is"):
        fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    with pytest.raises(RuntimeError, match="a fault"):
        fail(RuntimeError("a fault"))


def test_an_execution_lists_no_model_folder(monkeypatch):
    from talking_portrait.nodes import host

    listed = []
    node = NODES["LoadSpeechEncoder"]
    with pytest.raises(TalkingPortraitError):
        node.execute("missing.safetensors")
    names = host.model_names
    monkeypatch.setattr(host, "model_names", lambda *args, **options: listed.append(args) or names(*args, **options))
    monkeypatch.setattr(
        "talking_portrait.models.speech.loading.wrap_audio_encoder",
        lambda encoder: SimpleNamespace(model=torch.nn.Linear(1, 1)),
    )
    node.execute("", audio_encoder=object())
    assert listed == []
    node.define_schema()
    assert listed


def test_a_node_that_is_cancelled_before_its_first_frame_stops_there(small, monkeypatch):
    checks, motion = [], drive()

    def check() -> None:
        checks.append(1)
        if len(checks) == 20:
            raise InterruptedError

    monkeypatch.setattr(host, "check_interrupted", check)
    reports = []
    watching = standalone.Session(progress=lambda done, total, preview=None: reports.append(done))
    with standalone.use_session(watching), pytest.raises(InterruptedError):
        NODES["InstantRender"].execute(*small, motion)
    assert reports[-1] == 0, "no frame was rendered"
    assert len(checks) == 20


def test_memory_is_returned_after_a_node_in_comfyui_also_where_it_fails(monkeypatch):
    returned = []
    monkeypatch.setattr(checked_node, "return_freed_memory", lambda: returned.append(1))
    with pytest.raises(TalkingPortraitError, match="Edit Motion: "):
        edit(None)
    assert returned == []
    monkeypatch.setattr(host, "IN_COMFYUI", True)
    with pytest.raises(TalkingPortraitError, match="Edit Motion: "):
        edit(None)
    assert returned == [1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (lambda motion: {"vertices": torch.from_numpy(motion.vertices)}, "vertices are a Tensor of torch.float"),
        (lambda motion: {"rotation": motion.rotation.astype(object)}, "rotation are a ndarray of object, but a NumPy"),
        (lambda motion: {"translation": motion.translation + 1e9}, "translation goes from .* to 1e.09, but at most 1"),
        (lambda motion: {"rotation": motion.rotation * np.nan}, "rotation holds values that are not numbers"),
        (lambda motion: {"pose": "neck"}, "says pose 'neck' and camera"),
        (lambda motion: {"camera": None}, "camera None, but head or camera, and a Camera, are expected"),
    ],
)
def test_a_motion_of_another_packs_making_is_one_sentence_in_every_node(changes, words):
    motion = drive()
    with pytest.raises(TalkingPortraitError, match=words):
        edit(replace(motion, **changes(motion)))
