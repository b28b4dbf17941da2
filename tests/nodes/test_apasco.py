"""APasco's nodes and example workflows on tiny weights in the published files' names, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from talking_portrait.nodes import extension
from talking_portrait.nodes.standalone import node_api as standalone
from talking_portrait.nodes.standalone.command import registry
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.example import example_speech
from talking_portrait.pipelines.files.video import open_video
from talking_portrait.pipelines.workflow.run import run_graph

from ..tiny_weights.apasco import CONFIG, DETECTOR, NET, RECOGNISER, net_state, write_all, write_net

ROOT = Path(__file__).parents[2]
NODES = {node.__name__: node for node in extension.NODES}
TRAINED = "apasco/net.safetensors"
EXAMPLES = ("apasco", "apasco_lips", "apasco_geometry", "apasco_long")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_all(folder)
    write_net(folder / "trained", CONFIG.with_geometry(4))
    (folder / "talking_portrait" / "apasco").mkdir()
    trained = torch.load(folder / "trained" / "talking_portrait" / NET, weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in trained.items()}, folder / "talking_portrait" / TRAINED)
    return folder


@pytest.fixture(autouse=True)
def in_that_folder(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(models))


def execute(node: str, *inputs, **options):
    return NODES[node].execute(*inputs, **options).args


def of_kind(prompt: dict, kind: str) -> list[str]:
    return [key for key, entry in prompt.items() if entry["class_type"].endswith(kind)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_makes_its_video(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    prompt = json.loads((ROOT / "example_workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    (sample,), (find,) = of_kind(prompt, "Sample"), of_kind(prompt, "DetectLandmarks")
    del prompt[find]  # its model is no random one; the sample comes with landmarks
    prompt[of_kind(prompt, "RegionMasks")[0]]["inputs"]["landmarks"] = [sample, 2]
    samplers = of_kind(prompt, "APascoSampler")
    for key in samplers:
        prompt[key]["inputs"] |= {"width": 64, "height": 72, "steps": 1, "clip_length": 4, "frames": 6}
    run_graph(prompt, registry())
    (path,) = tmp_path.rglob("*.mp4")
    video = open_video(path)
    assert (video.size, video.fps) == ((72, 64), 25)
    assert sum(1 for _ in video.frames()) == 6 * len(samplers)


def test_masks_are_shown_and_add_up():
    image, _, landmarks = execute("Example")
    masks, pose, face, lips = execute("RegionMasks", 1.2, 2.0, landmarks=landmarks)
    assert pose.shape == face.shape == lips.shape == image.shape[:3]
    assert masks.image_size == tuple(image.shape[1:3])
    total = pose + face + lips
    assert total.min() > 0.98
    assert total.max() < 1.1, "a blurred lip reaches a little beyond the face"
    assert lips.max() > 0.9
    _, pose, face, lips = execute("RegionMasks", 1.2, 2.0, image=image)
    assert face.min() == 1
    assert pose.max() == lips.max() == 0
    with pytest.raises(TalkingPortraitError, match="Region Masks: Neither landmarks nor an image"):
        execute("RegionMasks", 1.2, 2.0)


def test_the_largest_face_is_described_and_its_box_marked():
    image = execute("Example")[0]
    identity, box = execute("FaceEmbedding", image, DETECTOR, RECOGNISER, "stop")
    assert identity.embedding.shape == (1, 512)
    assert identity.found
    assert 0 < box.mean() < 0.5
    dark = torch.zeros(1, 60, 40, 3)
    with pytest.raises(TalkingPortraitError, match="Face Embedding: No face was found in the picture of 40 x 60"):
        execute("FaceEmbedding", dark, DETECTOR, RECOGNISER, "stop")
    identity, box = execute("FaceEmbedding", dark, DETECTOR, RECOGNISER, "nobody")
    assert not identity.embedding.any()
    assert box.min() == 1


def test_missing_and_wrong_files_are_reported_with_the_way_to_get_them(monkeypatch, tmp_path, models):
    image = execute("Example")[0]
    with pytest.raises(
        TalkingPortraitError, match=r"Face Embedding: glintr100.onnx is a network for recognition, but a"
    ):
        execute("FaceEmbedding", image, RECOGNISER, RECOGNISER, "stop")
    damaged = models / "talking_portrait" / "damaged.onnx"
    damaged.write_bytes(b"no network")
    with pytest.raises(TalkingPortraitError, match=r"damaged.onnx cannot be read as an ONNX network"):
        execute("FaceEmbedding", image, "damaged.onnx", RECOGNISER, "stop")
    monkeypatch.setenv("TALKING_PORTRAIT_MODELS", str(tmp_path))
    with pytest.raises(
        TalkingPortraitError,
        match=r"Face Embedding: .*scrfd_10g_bnkps.onnx, .*glintr100.onnx are missing; .*get antelope_scrfd\w+, ",
    ):
        execute("FaceEmbedding", image, DETECTOR, RECOGNISER, "stop")
    with pytest.raises(TalkingPortraitError, match=r"Load APasco: .*net.pth is missing; .*models get hallo_net"):
        execute("LoadAPasco", NET, "auto")
    with pytest.raises(
        TalkingPortraitError, match=r"apasco/net.safetensors is not in .*train apasco-stage2 --geometry"
    ):
        execute("LoadAPasco", "apasco/net.safetensors", "auto")


def test_half_precision_on_a_cpu_is_refused_when_it_is_chosen():
    if not torch.accelerator.is_available():
        with pytest.raises(TalkingPortraitError, match="^Load APasco: .*float16, which a CPU cannot compute well"):
            execute("LoadAPasco", NET, "float16")


def test_a_file_of_the_first_stage_is_refused(models):
    audio_parts = (".audio_modules.", "audioproj.")
    state = {name: tensor for name, tensor in net_state().items() if not any(part in name for part in audio_parts)}
    torch.save(state, models / "talking_portrait" / "silent.pth")
    with pytest.raises(TalkingPortraitError, match=r"^Load APasco: silent.pth has no audio modules"):
        execute("LoadAPasco", "silent.pth", "float32")


class Sampling:
    """The sampler's inputs, of which some may be changed."""

    def __init__(self) -> None:
        self.image, _, self.landmarks = execute("Example")
        audio = example_speech()
        self.sound = {"waveform": audio.waveform[None, :, :6400], "sample_rate": audio.sample_rate}
        self.encoder = execute("LoadSpeechEncoder", "wav2vec2-base-960h.safetensors")[0]
        self.features = execute("EncodeSpeech", self.sound, self.encoder, 25.0, "resampled")[0]
        self.apasco = execute("LoadAPasco", NET, "float32")[0]
        self.vae = registry()["VAELoader"].execute("sd-vae-ft-mse.safetensors").args[0]
        self.masks = execute("RegionMasks", 1.2, 2.0, landmarks=self.landmarks)[0]
        self.identity = execute("FaceEmbedding", self.image, DETECTOR, RECOGNISER, "stop")[0]

    def __call__(self, picture=None, features=None, identity=None, steps=1, **options):
        picture = self.image if picture is None else picture
        inputs = (self.apasco, picture, self.vae, features or self.features, identity or self.identity, self.masks)
        return execute("APascoSampler", *inputs, 64, 64, steps, 3.5, 0, 1.0, 1.0, 1.0, **options)


def refusal(sample: Sampling, options: dict) -> str:
    """The one sentence with which a run is refused."""
    with pytest.raises(TalkingPortraitError) as caught:
        sample(**options)
    message = str(caught.value)
    assert message.startswith("APasco Sampler: ")
    assert "\n" not in message
    return message


def test_the_sampler_refuses_what_does_not_fit():
    sample = Sampling()
    images, fps, state, _ = sample(clip_length=8)
    assert images.shape == (sample.features.frames, 64, 64, 3)
    assert fps == 25
    assert state.frames == sample.features.frames
    stock = execute("EncodeSpeech", sample.sound, sample.encoder, 25.0, "stock")[0]
    motion = execute("InstantDriver", sample.sound, 25.0, 0, 1.0, 1.0, 1.0, 1.0, 1.0)[0]
    one_layer = replace(sample.features, states=sample.features.states[:, -1:])
    for options, message in (
        ({"picture": sample.image[:, :-8]}, "region masks are made for"),
        ({"identity": replace(sample.identity, embedding=torch.zeros(1, 256))}, "embedding has the shape (1, 256)"),
        ({"features": stock}, "in the stock timing"),
        ({"features": one_layer}, "have 1 layer of"),
        ({"clip_length": 31}, '"clip_length" is 31, but a number from'),
        ({"schedule": "cosine"}, "(str), but linear or scaled_linear is expected"),
        ({"guide_from": 0.8, "guide_to": 0.2}, "Guidance of 3.5 from 0.8 to 0.2 of the steps"),
        ({"landmarks": sample.landmarks}, "has no mesh encoder"),
        ({"landmarks": sample.landmarks, "motion": motion}, "Both landmarks and a motion"),
        ({"previous": state}, "nothing is left to do"),
    ):
        assert message in refusal(sample, options)


def test_the_sampler_passes_on_what_makes_it_faster(monkeypatch):
    from talking_portrait.pipelines.apasco import animate as apasco

    found = []

    def taken(networks, codec, inputs, settings, **options):
        found.append(settings)
        raise TalkingPortraitError("seen")

    monkeypatch.setattr(apasco, "animate", taken)
    sample = Sampling()
    refusal(sample, {})
    refusal(sample, {"guide_from": 0.1, "guide_to": 0.5, "deep_every": 2, "compiled": True})
    published, fast = found
    assert (published.guided, published.deep_every, published.compiled) == ((0.0, 1.0), 1, False)
    assert fast == replace(published, guided=(0.1, 0.5), deep_every=2, compiled=True)


def test_cancelling_and_too_little_memory_end_a_run(monkeypatch):
    sample, reports = Sampling(), []

    def cancel(done, total, preview=None):
        reports.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with standalone.use_session(standalone.Session(progress=cancel)), pytest.raises(KeyboardInterrupt):
        sample(steps=8)
    assert reports[-1] == (2, 8 + sample.features.frames)

    def no_memory(*inputs, **options):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(sample.apasco.denoising_unet.module, "forward", no_memory)
    assert "Memory does not suffice for even one sample" in refusal(sample, {})
    monkeypatch.setattr(sample.apasco.audioproj.module, "forward", no_memory)
    assert "This needs more memory than there is" in refusal(sample, {})
