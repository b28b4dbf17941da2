"""A person prepared for SyncAnimation, as small as can be: a drawn head; pose, blinks and mouth follow its voice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from talking_portrait.models.face.face_mesh import BLENDSHAPES
from talking_portrait.models.speech.mouth_network import save_mouth_network
from talking_portrait.models.syncanimation.labels import euler_to_matrix
from talking_portrait.pipelines.audio.mouth_states import shipped_encoder
from talking_portrait.pipelines.files.sound import write_wav
from talking_portrait.pipelines.files.video import VideoWriter
from talking_portrait.pipelines.packages import load_opencv
from talking_portrait.pipelines.person.fingerprint import fingerprint_of
from talking_portrait.pipelines.person.person import STAGES, VERSION, CropBox, crop_name, open_person
from talking_portrait.pipelines.person.speech import speech_features
from talking_portrait.pipelines.syncanimation import avatar as avatar_files
from talking_portrait.pipelines.types import Audio

from .toy_person import loudness, speech

FPS = Fraction(25)
FRAME = (80, 96)
BOX = CropBox(left=8, top=8, side=72)
FOCAL, DISTANCE = 1.4, 0.6
"""The focal length in parts of the box's side, and the head's distance in metres."""
RADII, CENTRE = np.array([0.075, 0.1, 0.085]), np.array([0.0, 0.0, -0.01])
_COLUMNS = {name: number - 1 for number, name in enumerate(BLENDSHAPES)}
_FACE = ((0.03, 0.02), (0.0, -0.045))
"""The left eye and the mouth, metres in the head's frame."""


@dataclass(frozen=True)
class Acting:
    """Of each frame: `c2w` (F, 4, 4), how far the mouth is open, lids are closed and brows raised (F,), in 0..1."""

    c2w: np.ndarray
    mouth: np.ndarray
    lids: np.ndarray
    brows: np.ndarray

    @property
    def blendshapes(self) -> np.ndarray:
        """(F, 52) without `_neutral` and with a zero at the end."""
        scores = np.zeros((len(self.mouth), 52), np.float32)
        for names, values in (
            (("jawOpen",), self.mouth),
            (("eyeBlinkLeft", "eyeBlinkRight"), self.lids),
            (("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), self.brows),
        ):
            for name in names:
                scores[:, _COLUMNS[name]] = values
        return scores


def acted(audio: Audio, frames: int, fps: Fraction = FPS) -> Acting:
    """The mouth opens with the loudness, the head nods and turns with its slow part; lids close where it is quiet."""
    loud = loudness(audio, fps, frames).clamp(0, 1).numpy()
    slow = np.convolve(np.pad(loud, 6, mode="edge"), np.hanning(15)[1:-1] / np.hanning(15).sum(), "valid")
    quiet = np.convolve(np.pad((loud < 0.12).astype(float), 1), [0.5, 1, 0.5], "valid").clip(0, 1)
    pitch, yaw = 0.25 * (slow - 0.4), 0.3 * np.gradient(slow) * 5
    angles = torch.from_numpy(np.stack([pitch, yaw, 0.3 * yaw], 1)).float()
    matrix = np.tile(np.eye(4), (frames, 1, 1))
    matrix[:, :3, :3] = euler_to_matrix(angles).numpy()
    matrix[:, :3, 3] = np.stack([0.1 * yaw, 0.05 * pitch, np.full(frames, -DISTANCE)], 1)
    return Acting(np.linalg.inv(matrix), loud, quiet, slow.clip(0, 1))


def drawn(acting: Acting, number: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame's square: the picture (S, S, 3) uint8, its parts (S, S) and the torso alone (S, S, 4)."""
    rows, columns = np.mgrid[:side, :side] + 0.5
    x, y = columns / side * 2 - 1, rows / side * 2 - 1
    image = np.stack([60 + 30 * y, 90 + 20 * x, 120 + 0 * x], -1)
    parts = np.zeros((side, side), np.uint8)
    c2w = acting.c2w[number]
    seen = np.linalg.inv(c2w)[:3, 3]
    shift = 0.5 * FOCAL * 2 * seen[0] / DISTANCE
    body = (y > 0.55) & (np.abs(x - shift) < 0.35 + 0.7 * (y - 0.55))
    neck = (y > 0.2) & (y <= 0.55) & (np.abs(x - shift) < 0.16)
    torso = np.zeros((side, side, 4))
    torso[body] = np.stack([150 + 50 * np.sin(9 * (x - shift)), 40 + 30 * y, 60 + 0 * x, 255 + 0 * x], -1)[body]
    torso[neck] = [190, 140, 120, 255]
    parts[body], parts[neck] = avatar_files.TORSO_PART, avatar_files.NECK_PART
    shown = torso[..., 3] > 0
    image[shown] = torso[shown][:, :3]
    rays = np.stack([x / 2 / FOCAL, -y / 2 / FOCAL, -np.ones_like(x)], -1) @ c2w[:3, :3].T
    hit, points = _struck(c2w[:3, 3], rays)
    image[hit] = _colours(points[hit], acting, number)
    parts[hit] = avatar_files.HEAD_PART
    return image.clip(0, 255).astype(np.uint8), parts, torso.clip(0, 255).astype(np.uint8)


def _struck(origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays (S, S, 3) from an origin first meet the head: whether (S, S), and the points (S, S, 3)."""
    start, steps = (origin - CENTRE) / RADII, rays / RADII
    a, b, c = (steps**2).sum(-1), (steps * start).sum(-1), (start**2).sum() - 1
    inside = b * b - a * c
    distance = (-b - np.sqrt(np.maximum(inside, 0))) / a
    return inside > 0, origin + distance[..., None] * rays


def _colours(points: np.ndarray, acting: Acting, number: int) -> np.ndarray:
    x, y, z = points.T
    skin = np.stack([205 + 15 * np.sin(60 * y), 150 + 15 * np.sin(50 * x), 130 + 200 * z], 1)
    (eye_x, eye_y), (mouth_x, mouth_y) = _FACE
    side = np.abs(x)
    front = z > 0
    opened = 0.012 * (1 - acting.lids[number])
    eye = front & ((((side - eye_x) / 0.016) ** 2 + ((y - eye_y) / max(opened, 1e-4)) ** 2) < 1)
    skin[eye] = [240, 240, 240]
    skin[eye & (np.abs(side - eye_x) < 0.006)] = [30, 30, 60]
    brow = front & (np.abs(side - eye_x) < 0.018) & (np.abs(y - 0.042 - 0.012 * acting.brows[number]) < 0.004)
    skin[brow] = [60, 40, 30]
    lips = front & ((((x - mouth_x) / 0.03) ** 2 + ((y - mouth_y) / (0.008 + 0.018 * acting.mouth[number])) ** 2) < 1)
    skin[lips] = [170, 60, 70]
    gap = front & ((((x - mouth_x) / 0.024) ** 2 + ((y - mouth_y) / (0.001 + 0.018 * acting.mouth[number])) ** 2) < 1)
    skin[gap] = [40, 10, 10]
    skin[(y > 0.065) | (z < -0.03)] = [70, 50, 35]
    return skin


def _seen(acting: Acting, points: np.ndarray, side: int) -> np.ndarray:
    """Pixels (F, P, 2) of points (F, P, 3) of the head."""
    matrix = np.linalg.inv(acting.c2w)
    there = points @ np.swapaxes(matrix[:, :3, :3], 1, 2) + matrix[:, None, :3, 3]
    return side * (FOCAL * there[..., :2] * [-1, 1] / there[..., 2:] + 0.5)


def _on_surface(flat: np.ndarray) -> np.ndarray:
    """Points (..., 2) in metres seen from ahead, put onto the head's front (..., 3)."""
    depth = 1 - ((flat / RADII[:2]) ** 2).sum(-1)
    return np.concatenate([flat, (CENTRE[2] + RADII[2] * np.sqrt(depth.clip(0)))[..., None]], -1)


def landmarks(acting: Acting, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The 68 landmarks (F, 68, 2) and the ring around the face (F, 36, 2), in pixels."""
    frames = len(acting.mouth)
    turn = np.linspace(np.pi, 2 * np.pi, 17)
    jaw = np.stack([0.06 * np.cos(turn), 0.02 + 0.095 * np.sin(turn)], 1)
    brow = np.array([[0.015 + 0.006 * step, 0.045] for step in range(5)])
    nose = np.array([[0, 0.02], [0, 0.01], [0, 0], [0, -0.01], *([0.006 * step, -0.018] for step in range(-2, 3))])
    eye = np.array([[0.016, 0], [0.006, 0.01], [-0.006, 0.01], [-0.016, 0], [-0.006, -0.01], [0.006, -0.01]])
    still = np.concatenate([jaw, brow[::-1] * [-1, 1], brow, nose, eye * [-1, 1] + [-0.03, 0.02], eye + [0.03, 0.02]])
    ring = 2 * np.pi * np.arange(12) / 12
    lips = []
    for count, width, lowest in ((12, 0.03, 0.008), (8, 0.024, 0.001)):
        ring = np.pi - 2 * np.pi * np.arange(count) / count
        height = lowest + 0.018 * acting.mouth[:, None]
        lips.append(np.stack([np.tile(width * np.cos(ring), (frames, 1)), -0.045 + height * np.sin(ring)], -1))
    points = np.concatenate([np.tile(still, (frames, 1, 1)), *lips], 1)
    around = 2 * np.pi * np.arange(36) / 36
    oval = np.tile(np.stack([0.055 * np.sin(around), -0.01 + 0.075 * np.cos(around)], 1), (frames, 1, 1))
    return _seen(acting, _on_surface(points), side), _seen(acting, _on_surface(oval), side)


def whole_frames(acting: Acting) -> Iterator[np.ndarray]:
    """The video's frames (H, W, 3) uint8."""
    for number in range(len(acting.mouth)):
        frame = np.full((*FRAME, 3), 80, np.uint8)
        frame[BOX.top : BOX.top + BOX.side, BOX.left : BOX.left + BOX.side] = drawn(acting, number, BOX.side)[0]
        yield frame


def make_avatar(folder: Path, *, seconds: float = 4.0, size: int = 128, seed: int = 0) -> Path:
    """A person's folder as `prepare_person` and `prepare_avatar` leave it."""
    cv2 = load_opencv()
    audio, frames = speech(seconds, seed), round(seconds * FPS)
    acting = acted(audio, frames)
    (folder / "crops").mkdir(parents=True)
    with VideoWriter(folder / "source.mp4", FRAME, FPS, audio, crf=6) as video:
        for number, frame in enumerate(whole_frames(acting)):
            video.write(frame)
            Image.fromarray(cv2.resize(frame, (64, 64))).save(folder / "crops" / crop_name(number))
    matrix = np.linalg.inv(acting.c2w)
    matrix[:, :3, 3] /= avatar_files.METRES
    points = np.full((frames, 478, 3), 40.0)
    np.savez(folder / "track.npz", points=points, found=np.ones(frames, bool), image_size=FRAME, matrix=matrix)
    np.save(folder / "usable.npy", np.ones(frames, bool))
    write_wav(folder / "audio.wav", audio)
    features = speech_features(audio, FPS, frames)
    np.savez(
        folder / "speech.npz",
        states=features.states.numpy(),
        fps=str(features.fps),
        model=features.model,
        timing=features.timing,
    )
    save_mouth_network(shipped_encoder().network, folder / "mouth.safetensors", {})
    fingerprint = fingerprint_of(folder / "source.mp4")
    meta = {
        "version": VERSION,
        "source": {"file": "source.mp4", "name": "source.mp4", "size": 1, "fingerprint": fingerprint},
        "fps": str(FPS),
        "frames": frames,
        "size": FRAME,
        "crop": {"left": BOX.left, "top": BOX.top, "side": BOX.side},
        "crop_size": 64,
        "shots": [[0, frames]],
        "used": {},
        "finished": list(STAGES),
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    _write_avatar(folder / avatar_files.FOLDER, acting, size)
    avatar_files.open_avatar(open_person(folder))
    return folder


def _write_avatar(folder: Path, acting: Acting, size: int) -> None:
    names = (avatar_files.FRAMES, avatar_files.PARTS, avatar_files.TORSO)
    for name in names:
        (folder / name).mkdir(parents=True)
    for number in range(len(acting.mouth)):
        for name, picture in zip(names, drawn(acting, number, size), strict=True):
            Image.fromarray(picture).save(folder / name / crop_name(number))
    empty = np.stack([60 + 30 * np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j][0]] * 3, -1)
    columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j][1]
    empty[..., 1], empty[..., 2] = 90 + 20 * columns, 120
    Image.fromarray(empty.astype(np.uint8)).save(folder / avatar_files.BACKGROUND)
    points, oval = landmarks(acting, size)
    labels = {
        "c2w": acting.c2w.astype(np.float32),
        "blendshapes": acting.blendshapes,
        "landmarks": points.astype(np.float32),
        "oval": oval.astype(np.float32),
        "usable": np.ones(len(points), bool),
        "focal": np.float32(FOCAL * size),
        "cx": np.float32(size / 2),
        "cy": np.float32(size / 2),
    }
    save_file(
        {name: torch.from_numpy(np.array(value)) for name, value in labels.items()}, folder / "labels.safetensors"
    )
    meta = {
        "version": avatar_files.VERSION,
        "finished": list(avatar_files.STAGES),
        "size": size,
        "crop": {"left": BOX.left, "top": BOX.top, "side": BOX.side},
        "report": [],
    }
    (folder / avatar_files.META).write_text(json.dumps(meta))
