"""A prepared person as small as can be: a drawn head that moves, and opens its mouth with the loudness of its voice."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from talking_portrait.models.audiodvp.neural_renderer import NeuralRenderer, NeuralRendererConfig, initialise
from talking_portrait.models.audiodvp.speech_to_expression import new_speech_to_expression
from talking_portrait.models.speech.mouth_network import save_mouth_network
from talking_portrait.pipelines.audio.mouth_states import MouthEncoder, shipped_encoder
from talking_portrait.pipelines.audiodvp.expression import network_features
from talking_portrait.pipelines.audiodvp.fitted_face import FittedFace
from talking_portrait.pipelines.audiodvp.person_model import PersonModel
from talking_portrait.pipelines.files.sound import write_wav
from talking_portrait.pipelines.files.video import VideoWriter, open_video
from talking_portrait.pipelines.packages import load_opencv
from talking_portrait.pipelines.person.fingerprint import fingerprint_of
from talking_portrait.pipelines.person.head_video import HeadVideo
from talking_portrait.pipelines.person.person import STAGES, VERSION, CropBox, crop_name, open_person
from talking_portrait.pipelines.person.speech import Encoder, speech_features
from talking_portrait.pipelines.types import Audio

from .models.audiodvp.face import face_model

RATE = 16000
CROP, SIZE = 64, (120, 100)
BOX = CropBox(left=8, top=20, side=80)
TINY = NeuralRendererConfig(base_channels=8, downs=4, refine=False)


def speech(seconds: float, seed: int = 0) -> Audio:
    """Syllables of a low tone over a faint noise, some louder than others."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE)
    knots = rng.uniform(0, 1, max(2, round(seconds * 4))) * (rng.random(max(2, round(seconds * 4))) > 0.2)
    envelope = np.interp(np.linspace(0, len(knots) - 1, samples), np.arange(len(knots)), knots)
    wave = 0.3 * envelope * np.sin(np.arange(samples) * 0.1) ** 3 + 0.01 * rng.standard_normal(samples)
    return Audio(torch.from_numpy(wave.astype(np.float32))[None], RATE)


def loudness(audio: Audio, fps: Fraction, frames: int) -> torch.Tensor:
    """(frames,) in about 0..1, smooth."""
    edges = [round(i * audio.sample_rate / fps) for i in range(frames + 1)]
    level = torch.stack([audio.waveform[0, a:b].square().mean().sqrt() for a, b in zip(edges, edges[1:], strict=False)])
    return level.nan_to_num() / 0.2


def fitted_face(audio: Audio, fps: Fraction, frames: int) -> FittedFace:
    """The mouth opens with the loudness; the head turns and moves slowly."""
    model = face_model()
    height = model.geo_mean.view(-1, 3)[:, 1]
    bases = torch.zeros(len(height), 3, 2)
    bases[:, 1, 0] = -0.2 * (height < -0.2)
    bases[:, 0, 1] = 0.05 * height * (height < 0)
    colours = 0.8 + 0.1 * torch.sin(5 * model.geo_mean)
    colours.view(-1, 3)[(height < -0.2) & (height > -0.7)] = 0.1  # lips
    model = replace(model, exp_base=bases.flatten(0, 1), tex_mean=colours)
    time = torch.arange(frames) / float(fps)
    loud = loudness(audio, fps, frames)
    expression = torch.stack([2 * loud, 1 - loud.square()], 1)
    still = torch.zeros(frames)
    return FittedFace(
        face_model=model,
        identity=torch.zeros(frames, model.id_base.shape[1]),
        expression=expression.float(),
        rotation=torch.stack([still, 0.1 * torch.sin(time), still], 1),
        translation=torch.stack([0.1 * torch.sin(0.7 * time), still, still], 1),
        light=torch.zeros(frames, 27),
        opened=torch.tensor([3.0, 0.0]),
        crop_size=CROP,
    )


def photographed(face: FittedFace, frame: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A whole frame (H, W, 3) uint8: the face in other colours before a room."""
    cv2 = load_opencv()
    rows, columns = np.mgrid[: size[0], : size[1]]
    room = np.stack([rows + 20, columns + 40, 100 + 0 * rows], -1).astype(np.float32)
    image, alpha = face.render([frame])
    skin = 255 * (0.2 + 0.7 * image[0].numpy()[..., ::-1] ** 0.7)
    side = (BOX.side, BOX.side)
    skin, alpha = cv2.resize(skin, side), cv2.resize(alpha[0].numpy(), side)[..., None]
    part = (slice(BOX.top, BOX.top + BOX.side), slice(BOX.left, BOX.left + BOX.side))
    room[part] = alpha * skin + (1 - alpha) * room[part]
    return room.clip(0, 255).astype(np.uint8)


def make_person(
    folder: Path,
    *,
    seconds: float = 4.0,
    fps: Fraction = Fraction(25),
    sound: bool = True,
    encoder: Encoder | None = None,
) -> Path:
    """A folder as `prepare_person` and `fit_face` leave it."""
    cv2 = load_opencv()
    audio, frames = speech(seconds), round(seconds * fps)
    face = fitted_face(audio, fps, frames)
    (folder / "crops").mkdir(parents=True)
    with VideoWriter(folder / "source.mp4", SIZE, fps, audio if sound else None, crf=6) as video:
        for frame in range(frames):
            video.write(photographed(face, frame))
    for number, frame in enumerate(replace(open_video(folder / "source.mp4"), fps=fps).frames()):
        part = frame[BOX.top : BOX.top + BOX.side, BOX.left : BOX.left + BOX.side]
        crop = cv2.resize(part, (CROP, CROP), interpolation=cv2.INTER_AREA)
        Image.fromarray(crop).save(folder / "crops" / crop_name(number))
    points = np.full((frames, 478, 3), 48.0)
    points[:, :, 1] = 85
    points[:, [61, 291], 0] = [35, 61]
    points[:, [0, 17], 1] = [78, 92]
    matrix = np.tile(np.eye(4), (frames, 1, 1))
    np.savez(folder / "track.npz", points=points, found=np.ones(frames, bool), image_size=SIZE, matrix=matrix)
    np.save(folder / "usable.npy", np.ones(frames, bool))
    if sound:
        write_wav(folder / "audio.wav", audio)
        features = speech_features(audio, fps, frames, encoder)
        np.savez(
            folder / "speech.npz",
            states=features.states.numpy(),
            fps=str(features.fps),
            model=features.model,
            timing=features.timing,
        )
        if encoder is None or isinstance(encoder, MouthEncoder):
            save_mouth_network((encoder or shipped_encoder()).network, folder / "mouth.safetensors", {})
    fingerprint = fingerprint_of(folder / "source.mp4")
    meta = {
        "version": VERSION,
        "source": {"file": "source.mp4", "name": "source.mp4", "size": 1, "fingerprint": fingerprint},
        "fps": str(fps),
        "frames": frames,
        "size": SIZE,
        "crop": {"left": BOX.left, "top": BOX.top, "side": BOX.side},
        "crop_size": CROP,
        "shots": [[0, frames]],
        "used": {},
        "finished": list(STAGES),
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "audiodvp").mkdir()
    face.save(folder / "audiodvp")
    open_person(folder)
    return folder


def toy_model(folder: Path) -> PersonModel:
    """A model of a prepared person whose networks have random weights."""
    torch.manual_seed(0)
    person, face = open_person(folder), FittedFace.read(folder)
    features = network_features(person.speech())
    network = new_speech_to_expression("temporal", features.shape[1], face.expression.shape[1]).eval()
    network.fit_scales(features, face.expression)
    renderer = NeuralRenderer(TINY)
    initialise(renderer)
    video, speech_model = HeadVideo.of_person(person), person.speech().model
    return PersonModel(network, renderer.eval(), face, video, speech_model, (16, 64, 0, 64), person.mouth_encoder())
