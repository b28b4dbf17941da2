"""AudioDVP on a synthetic person, from the video to held-out speech: how good it is, and how long each part takes.

    python -m tests.bench.audiodvp --out build/audiodvp                    # the shipped portrait and speech, 20 minutes
    python -m tests.bench.audiodvp --out build/audiodvp --speech a.flac --seconds 60 --minutes 20

Instant makes the shipped portrait speak for a minute, with the head moving; that video is prepared, trained on but for
its last ten seconds, and driven by the speech of those, over the same head. So every frame has a true one beside it.
What is finished in the folder is not done again. With `--compare` a second renderer is trained for as many steps as
published, on renders of the whole face within the mask, and driven like the first.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from talking_portrait.models.face.face_mesh import mouth_opening
from talking_portrait.pipelines.audio.waveform import resample
from talking_portrait.pipelines.audiodvp import renders
from talking_portrait.pipelines.audiodvp.animate import animate, open_model
from talking_portrait.pipelines.audiodvp.fitted_face import FittedFace
from talking_portrait.pipelines.audiodvp.paste import paste_lower_face
from talking_portrait.pipelines.audiodvp.prepare import prepare_fitted_person
from talking_portrait.pipelines.face.landmarks import detect, open_landmarker
from talking_portrait.pipelines.files.example import SPEECH_FILE, example_portrait
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.images import to_uint8, write_image
from talking_portrait.pipelines.files.sound import read_speech
from talking_portrait.pipelines.instant.animate import frames_of
from talking_portrait.pipelines.instant.driver.driver import drive
from talking_portrait.pipelines.person.head_frames import longest_stretch
from talking_portrait.pipelines.person.person import Person
from talking_portrait.pipelines.training.audiodvp import renderer as training_renderer
from talking_portrait.pipelines.training.audiodvp.settings import Settings
from talking_portrait.pipelines.training.audiodvp.train import train_audiodvp
from talking_portrait.pipelines.types import Audio

FPS = Fraction(25)
HELD_OUT_SECONDS = 10
TEMPI = (1.0, 0.9, 1.08, 0.95, 1.15, 0.85)
"""Of the repetitions of speech that is too short; pitch goes with it."""
SHEET_ROWS = 6
Result = TypeVar("Result")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--speech", type=Path, default=SPEECH_FILE)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--expression", choices=["temporal", "affine"], default="temporal")
    parser.add_argument("--compare", action="store_true")
    return parser


def timed(what: str, work: Callable[[], Result]) -> Result:
    begun = time.monotonic()
    result = work()
    print(f"{what}: {time.monotonic() - begun:.0f} s", flush=True)
    return result


def spoken(path: Path, seconds: int) -> Audio:
    """So much speech at 16 kHz, repeated at other tempi where it is too short."""
    speech, _ = read_speech(path, FPS)
    wanted, parts = seconds * speech.sample_rate, []
    while sum(map(len, parts)) < wanted:
        rate = round(speech.sample_rate / TEMPI[len(parts) % len(TEMPI)])
        parts.append(resample(Audio(speech.waveform, speech.sample_rate), rate).waveform[0])
    return Audio(torch.cat(parts)[None, :wanted], speech.sample_rate)


def make_video(path: Path, speech: Audio) -> None:
    image, track = example_portrait()
    write_stream(path, frames_of(image, track, drive(speech, fps=FPS, seed=3)), FPS, speech, crf=10)


def openings(frames: Sequence[np.ndarray]) -> np.ndarray:
    landmarker = open_landmarker(engine="opencv")
    pictures = torch.from_numpy(np.stack(frames)).float() / 255
    return mouth_opening(detect(pictures, landmarker)[0].points[:, :468, :2])


def held_out_speech(person: Person) -> Audio:
    """The video's own, of its last frames."""
    speech = person.audio()
    return Audio(speech.waveform[:, -HELD_OUT_SECONDS * speech.sample_rate :], speech.sample_rate)


def true_frames(person: Person, first: int) -> Iterator[np.ndarray]:
    return (frame for number, frame in enumerate(person.full_frames()) if number >= first)


def compare(model_path: Path, person: Person, out: Path) -> dict[str, float]:
    """Drives the last seconds over the same head and measures them beside the true frames."""
    model, count = open_model(model_path), HELD_OUT_SECONDS * FPS
    start, stop = longest_stretch(model.video.usable, model.video.shots, model.video.fps)
    assert (start, stop) == (0, person.frames), "some frames of the synthetic person are not usable"
    first = person.frames - int(count)
    results, truths, outside = [], [], 0
    errors: dict[str, list[float]] = {"lower face": [], "generated part": []}
    begun = time.monotonic()
    for (frames, masks), truth in zip(
        animate(model, held_out_speech(person), person, offset=first), true_frames(person, first), strict=True
    ):
        result, weights = frames[0].numpy(), masks[0].numpy()
        outside += int((result != truth)[weights == 0].sum())
        covered = on_frame(model.face.masks([first + len(results)])[0], person)
        for name, where in (("lower face", covered > 0), ("generated part", weights > 0.5)):
            errors[name].append(np.square(result[where].astype(float) - truth[where]).mean())
        results.append(result)
        truths.append(truth)
    seconds = time.monotonic() - begun
    one, other = openings(truths), openings(results)
    sheet = [np.concatenate([truths[i], results[i]], axis=1) for i in _spread(one)]
    write_image(out, torch.from_numpy(np.concatenate(sheet)).float() / 255)
    return {
        **{f"{name} psnr": float(10 * np.log10(255**2 / np.mean(values))) for name, values in errors.items()},
        "mouth opening r": float(np.corrcoef(one, other)[0, 1]),
        "mouth opening gain": float(other.std() / one.std()),
        "bytes changed outside of the mask": outside,
        "frames a second": len(results) / seconds,
    }


def on_frame(mask: np.ndarray, person: Person) -> np.ndarray:
    """The mask of a crop, in the whole frame."""
    _, weights = paste_lower_face(
        np.zeros((*person.size, 3), np.uint8), mask[..., None].repeat(3, 2), mask / np.float32(255), person.box
    )
    return weights


def _spread(values: np.ndarray) -> list[int]:
    """Places of the smallest value, of the largest, and of some between."""
    return np.argsort(values)[np.linspace(0, len(values) - 1, SHEET_ROWS).astype(int)].tolist()


def as_published(face: FittedFace, numbers: Sequence[int], part: renders.Part, *_: Any) -> np.ndarray:
    """What the published program trains on: the whole face within the mask."""
    image, _alpha = face.render(numbers)
    return renders.cut(to_uint8(image) & face.masks(numbers)[..., None], part)


def main(arguments: argparse.Namespace) -> None:
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    video = out / "head.mp4"
    if not video.exists():
        timed("the head video", lambda: make_video(video, spoken(arguments.speech, arguments.seconds)))
    person = timed("preparing and fitting", lambda: prepare_fitted_person(video, out / "person"))
    held_out = HELD_OUT_SECONDS * FPS / person.frames
    chosen = Settings(
        minutes=arguments.minutes, steps=arguments.steps, expression=arguments.expression, held_out=float(held_out)
    )
    run = out / "run"
    path = timed("training", lambda: train_audiodvp(person.folder, run, chosen, resume=True, say=print))
    print(json.dumps(compare(path, person, out / "truth_and_result.png"), indent=1), flush=True)
    if arguments.compare:
        steps = json.loads((run / "run.json").read_text())["steps"]
        training_renderer.draw_lower_faces = as_published
        path = timed(
            "training on renders of the whole face",
            lambda: train_audiodvp(
                person.folder, out / "run_published", replace(chosen, steps=steps), resume=True, say=print
            ),
        )
        print(json.dumps(compare(path, person, out / "truth_and_published.png"), indent=1), flush=True)


if __name__ == "__main__":
    main(options().parse_args())
