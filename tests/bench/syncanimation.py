"""SyncAnimation on a synthetic person, from the video to held-out speech: how good it is, and how long each part takes.

    python -m tests.bench.syncanimation --out build/syncanimation                # the shipped portrait and speech
    python -m tests.bench.syncanimation --out build/syncanimation --video person.mp4 --size 256 --minutes 60

Instant makes the shipped portrait speak for a minute; head and lids follow the loudness of the speech in a known way.
That video is prepared and trained on but for its last ten seconds; training measures those. Then this writes pictures
of them, drives the person by their speech alone and measures that video as `evaluate` does. What is finished in the
folder is not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from talking_portrait.models.face.face_mesh import BLENDSHAPES
from talking_portrait.models.face.upper_face_shapes import eyelid_shapes
from talking_portrait.pipelines.evaluation.evaluate import evaluate
from talking_portrait.pipelines.face.head_pose import about_neck
from talking_portrait.pipelines.face.landmarks import open_landmarker
from talking_portrait.pipelines.files.example import SPEECH_FILE, example_portrait
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.images import write_image
from talking_portrait.pipelines.instant.animate import fit_portrait, frames_of
from talking_portrait.pipelines.instant.driver.driver import drive
from talking_portrait.pipelines.person.person import Person
from talking_portrait.pipelines.person.prepare import prepare_person
from talking_portrait.pipelines.syncanimation.animate import animate, open_model
from talking_portrait.pipelines.syncanimation.avatar import Avatar
from talking_portrait.pipelines.syncanimation.prepare import Settings as AvatarSettings
from talking_portrait.pipelines.syncanimation.prepare import prepare_avatar
from talking_portrait.pipelines.timing import frame_end
from talking_portrait.pipelines.training.syncanimation.evaluation import render
from talking_portrait.pipelines.training.syncanimation.settings import Settings
from talking_portrait.pipelines.training.syncanimation.train import train_syncanimation
from talking_portrait.pipelines.types import Audio, FaceMotion

from .audiodvp import FPS, HELD_OUT_SECONDS, held_out_speech, spoken, timed

SHEET_ROWS = 6
VIDEO_SIDE = 256
"""Pixels; more would take longer to prepare, and the avatar has 128 by default."""
QUIET = 0.15
"""Loudness, in parts of the loudest, below which the lids close."""


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--video", type=Path, help="of a person, in place of the synthetic one")
    parser.add_argument("--speech", type=Path, default=SPEECH_FILE)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=0)
    return parser


def acted(speech: Audio, fps: Fraction) -> FaceMotion:
    """Instant's mouth; the head nods and turns with the loudness, the lids close where it is quiet."""
    motion = drive(speech, fps=fps, seed=3, head=0, brows=1, blinks=0, drift=0)
    edges = [frame_end(number, speech.sample_rate, fps) for number in range(motion.frames + 1)]
    wave = speech.waveform[0]
    loud = np.array([float(wave[a:b].square().mean().sqrt()) for a, b in zip(edges, edges[1:], strict=False)])
    loud = (loud / np.quantile(loud, 0.95)).clip(0, 1)
    window = np.hanning(11)[1:-1]
    slow = np.convolve(np.pad(loud, 4, mode="edge"), window / window.sum(), "valid")
    turn = np.gradient(slow) * 5
    rotation = np.stack([9 * (slow - slow.mean()), 7 * turn, 2 * turn], 1)
    closed = np.convolve(np.pad((loud < QUIET).astype(float), 1), [0.5, 1, 0.5], "valid").clip(0, 1)
    lids = np.einsum("f,evc->fvc", closed, eyelid_shapes(motion.neutral))
    scores = motion.blendshapes.copy()
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        scores[:, BLENDSHAPES.index(name)] = closed
    return replace(
        motion,
        vertices=(motion.vertices + lids).astype(np.float32),
        rotation=rotation,
        translation=about_neck(rotation),
        blendshapes=scores,
    )


def make_video(path: Path, speech: Audio) -> None:
    image, track = fit_portrait(*example_portrait(), VIDEO_SIDE)
    write_stream(path, frames_of(image, track, acted(speech, FPS)), FPS, speech, crf=10)


def show(path: Path, model_path: Path, person: Person, avatar: Avatar, out: Path) -> None:
    """Held-out frames: the video's, rendered with true pose and expression, and driven by the speech alone.

    As a sheet of pictures, and the driven ones as a video, which is measured.
    """
    model = open_model(model_path)
    count = int(HELD_OUT_SECONDS * person.fps)
    first = person.frames - count
    features = model.speech.standardised(person.speech())
    begun = time.monotonic()
    driven = [frames[0].float() / 255 for frames, _ in animate(model, held_out_speech(person))]
    print(f"driven at {len(driven) / (time.monotonic() - begun):.2f} frames a second", flush=True)
    rows = []
    for place in np.linspace(0, count - 1, SHEET_ROWS).astype(int).tolist():
        truth = torch.from_numpy(avatar.frames([first + place])[0]).float() / 255
        rows.append(torch.cat([truth, render(model, features, first + place), driven[place]], 1))
    write_image(path, torch.cat(rows))
    true = (torch.from_numpy(avatar.frames([number])) for number in range(first, person.frames))
    write_stream(out / "truth.mp4", true, person.fps, held_out_speech(person))
    write_stream(out / "driven.mp4", (frame[None] for frame in driven), person.fps, held_out_speech(person))
    print(evaluate(out / "driven.mp4", None, open_landmarker(), reference=out / "truth.mp4").text(), flush=True)


def main(arguments: argparse.Namespace) -> None:
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    video = arguments.video or out / "head.mp4"
    if not video.exists():
        speech = spoken(arguments.speech, arguments.seconds)
        timed("the head video", lambda: make_video(video, speech))
    person = timed("preparing", lambda: prepare_person(video, out / "person", say=print))
    avatar = timed(
        "preparing for SyncAnimation", lambda: prepare_avatar(person, AvatarSettings(arguments.size), say=print)
    )
    held_out = float(HELD_OUT_SECONDS * FPS / person.frames) if arguments.video is None else 0.1
    chosen = Settings(minutes=arguments.minutes, steps=arguments.steps, held_out=held_out)
    run = out / "run"
    path = timed("training", lambda: train_syncanimation(person.folder, run, chosen, resume=True, say=print))
    show(out / "truth_rendered_driven.png", path, person, avatar, out)
    print(json.dumps(json.loads((run / "held_out.json").read_text()), indent=1), flush=True)


if __name__ == "__main__":
    main(options().parse_args())
