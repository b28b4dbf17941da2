"""In how many videos the invisible mark is found: python -m tests.bench.mark --portraits FOLDER --people FOLDER.

Instant speaks with each portrait, the shipped one and the first frames of the real videos among them, at each size, and
each video is written with the mark and without. Excerpts of the videos in --people are real ones. All are copied as
COPIES says. The table gives, for each way, in how many marked videos the mark is found and in how many unmarked ones it
seems to be, with Wilson's 95 % interval. All random numbers follow from --seed; --table prints the tables of results.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.face.landmarks import detect, open_landmarker
from talking_portrait.pipelines.files.example import example_portrait, example_speech
from talking_portrait.pipelines.files.ffmpeg import Ffmpeg
from talking_portrait.pipelines.files.images import from_uint8, read_image
from talking_portrait.pipelines.files.video import VideoWriter, open_video
from talking_portrait.pipelines.instant.animate import fit_portrait, prepare_portrait
from talking_portrait.pipelines.instant.driver.driver import drive
from talking_portrait.pipelines.provenance.detect import detect_mark
from talking_portrait.pipelines.provenance.marking import MarkedFrames
from talking_portrait.pipelines.types import Audio

FPS = 25
COPIES = ("as written", "crf 28", "0.5 x", "cropped by 10 %", "24 in place of 25 fps", "all four")


@dataclass(frozen=True)
class Result:
    """Of one copy of one video: `score` and whether the mark was `found`; `psnr` of the video before it was encoded."""

    source: str
    size: int
    copy: str
    marked: bool
    found: bool
    score: float
    psnr: float | None


def copied(source: Path, target: Path, *options: str) -> Path:
    """A copy that ffmpeg makes with these options."""
    command = ["-nostdin", "-loglevel", "error", "-y", "-i", str(source), "-c:v", "libx264", "-preset", "veryfast"]
    with Ffmpeg([*command, *options, str(target)]) as ffmpeg:
        assert ffmpeg.wait() == 0, ffmpeg.log
    return target


def copy_options(draw: random.Random) -> dict[str, tuple[str, ...]]:
    """ffmpeg's options for each way of copying; where a picture is cropped is drawn."""
    crop = f"crop=iw*0.9:ih*0.9:iw*{draw.uniform(0, 0.1):.3f}:ih*{draw.uniform(0, 0.1):.3f}"
    half = "scale=trunc(iw/4)*2:trunc(ih/4)*2"
    options = (
        (),
        ("-crf", "28"),
        ("-vf", half),
        ("-vf", crop),
        ("-r", "24"),
        ("-vf", f"{crop},{half}", "-r", "24", "-crf", "28"),
    )
    return dict(zip(COPIES, options, strict=True))


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.959964
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def portraits(folder: Path | None, people: list[Path]) -> dict[str, torch.Tensor]:
    """Pictures (H, W, 3) with a face, by name."""
    found = {"shipped": example_portrait()[0]}
    for path in sorted(folder.iterdir()) if folder else []:
        found[path.stem] = read_image(path)
    for path in people:
        found[f"{path.stem}'s frame"] = from_uint8(next(open_video(path).frames()))
    return found


def spoken(picture: torch.Tensor, size: int, seconds: float, draw: random.Random) -> np.ndarray:
    """A clip (F, H, W, 3) uint8: Instant speaks a part of the shipped speech with a part of the picture."""
    height, width = picture.shape[:2]
    share = draw.uniform(0.92, 1)
    top, left = (int(draw.uniform(0, 1 - share) * side) for side in (height, width))
    picture = picture[top : top + int(share * height), left : left + int(share * width)]
    picture = picture.flip(1) if draw.random() < 0.5 else picture
    track, _ = detect(picture[None], open_landmarker())[:2]
    picture, track = fit_portrait(picture.contiguous(), track, size)
    speech = example_speech()
    samples = round(seconds * speech.sample_rate)
    start = draw.randrange(speech.samples - samples)
    audio = Audio(speech.waveform[:, start : start + samples], speech.sample_rate)
    motion = drive(audio, fps=Fraction(FPS), seed=draw.randrange(1 << 30))
    return np.concatenate([part.numpy() for part in prepare_portrait(picture, track).frames_uint8(motion)])


def excerpts(path: Path, seconds: float) -> Iterator[np.ndarray]:
    """The parts of a video, one after the other, (F, H, W, 3) uint8."""
    frames = open_video(path).frames()
    while len(part := list(islice(frames, round(seconds * FPS)))) == round(seconds * FPS):
        yield np.stack(part)


def psnr(frames: np.ndarray, marked: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(marked.astype(np.float32) - frames).mean()))


def measured(frames: np.ndarray, source: str, size: int, folder: Path, draw: random.Random) -> Iterator[Result]:
    """Of a clip with the mark and without, what is found in each copy."""
    marked = MarkedFrames(frames.shape[1:3])(frames)
    difference = psnr(frames, marked)
    for content in (marked, frames):
        original = folder / "original.mp4"
        with VideoWriter(original, content.shape[1:3], Fraction(FPS), crf=18) as video:
            video.write(content)
        for name, options in copy_options(draw).items():
            found = detect_mark(copied(original, folder / "copy.mp4", *options) if options else original)
            is_marked = content is marked
            yield Result(source, size, name, is_marked, found.found, found.score, difference if is_marked else None)


def table(results: list[Result]) -> str:
    """Counts and intervals for each way of copying, marked videos by size, all unmarked ones together."""
    groups = {f"marked, {size}": [r for r in results if r.marked and r.size == size] for size in sizes_of(results)}
    groups["unmarked, generated"] = [r for r in results if not r.marked and not r.source.startswith("real ")]
    groups["unmarked, real"] = [r for r in results if not r.marked and r.source.startswith("real ")]
    lines = ["| videos | copy | found | 95 % interval | scores |", "|---|---|---|---|---|"]
    for group, members in groups.items():
        for copy in (*COPIES, "together") if members else ():
            chosen = [each for each in members if copy in (each.copy, "together")]
            count = sum(each.found for each in chosen)
            low, high = interval(count, len(chosen))
            scores = sorted(each.score for each in chosen)
            lines.append(
                f"| {group} | {copy} | {count} of {len(chosen)} | {100 * low:.1f} to {100 * high:.1f} % "
                f"| {scores[0]:.1f} to {scores[-1]:.1f}, median {statistics.median(scores):.1f} |"
            )
    psnrs = [each.psnr for each in results if each.psnr is not None]
    lines.append(f"\nPSNR of the marked frames: {min(psnrs):.1f} to {max(psnrs):.1f} dB" if psnrs else "")
    return "\n".join(lines)


def sizes_of(results: list[Result]) -> list[int]:
    return sorted({each.size for each in results})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, help="a folder of pictures beside the shipped portrait")
    parser.add_argument("--people", type=Path, help="a folder of real videos of at least 256 pixels")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="longer side in pixels")
    parser.add_argument("--clips", type=int, default=40, help="of each size")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/mark.jsonl"), help="results are added, one a line")
    parser.add_argument("--table", type=Path, nargs="+", help="print the table of such files and measure nothing")
    options = parser.parse_args()
    if options.table:
        lines = [line for path in options.table for line in path.read_text().splitlines()]
        print(table([Result(**json.loads(line)) for line in lines]))
        return
    people = sorted(options.people.glob("*.mp4")) if options.people else []
    pictures = portraits(options.portraits, people)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []

    def clips() -> Iterator[tuple[str, int, np.ndarray, random.Random]]:
        for size in options.sizes:
            for number in range(options.clips):
                name = list(pictures)[number % len(pictures)]
                draw = random.Random(f"{options.seed} {size} {number}")
                try:
                    yield name, size, spoken(pictures[name], size, options.seconds, draw), draw
                except TalkingPortraitError as error:
                    print(f"{name}, {size}, {number}: {error}", flush=True)
        for path in people:
            for number, frames in enumerate(excerpts(path, options.seconds)):
                draw = random.Random(f"{options.seed} {path.name} {number}")
                yield f"real {path.stem}", max(frames.shape[1:3]), frames, draw

    with tempfile.TemporaryDirectory() as folder, options.out.open("a") as file:
        for source, size, frames, draw in clips():
            for result in measured(frames, source, size, Path(folder), draw):
                results.append(result)
                print(json.dumps(asdict(result)), file=file, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
