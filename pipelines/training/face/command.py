"""`train face-points`: the networks that correct the shipped landmarks, from videos and pictures of faces."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...types import Progress


class FacePoints:
    name = "face-points"
    help = "the networks that correct the shipped landmarks of mouth and eyes, with a better landmarker as the teacher"

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--faces", type=Path, required=True, metavar="FOLDER", help="videos and pictures of many people"
        )
        command.add_argument("--landmarks", type=Path, help="the teacher, MediaPipe's .task (default: as in `prepare`)")
        command.add_argument("--out", type=Path, required=True, help="the folder for both networks")
        command.add_argument(
            "--held-out",
            default="",
            metavar="A,B",
            help="beginnings of names of files to measure on, not to learn from",
        )
        command.add_argument("--steps", type=int, default=10_000, help="of each training (default 10000)")
        command.add_argument("--seed", type=int, default=0, help="same seed, same run")
        command.add_argument("--workers", type=int, default=1, help="processes that vary the crops (default 1)")
        command.add_argument("--about", default="videos and pictures", help="what they are, for the files' metadata")

    def train(
        self, options: argparse.Namespace, stage: Callable[[str, str], Progress], say: Callable[[str], None]
    ) -> list[Path]:
        """Trains, writes and reports. Raises TalkingPortraitError for unusable folders and options."""
        from ....models.face.part_points import PartPointsNetwork, save_part_points
        from ...errors import check_seed
        from ...face.landmarks import open_landmarker
        from ...face.part_points import EYES_FILE, MOUTH_FILE
        from ...files.output_paths import check_output_folder, whole_file, writing
        from ..core.run_settings import check_option
        from .examples import collect
        from .part_points import EYES_SUBJECT, MOUTH_SUBJECT, Settings, errors, train_part_points

        check_option("steps", options.steps, 1, 1_000_000)
        check_option("workers", options.workers, 0, 64)
        check_seed(options.seed)
        check_output_folder(options.out)
        landmarker = open_landmarker(options.landmarks, "mediapipe")
        crops, names = collect(options.faces, landmarker, stage("finding faces", "files"))
        with writing(options.out):
            options.out.mkdir(parents=True, exist_ok=True)
        starts = tuple(start for start in options.held_out.split(",") if start)
        held_out = np.array([name.startswith(starts) if starts else False for name in names])
        written = []
        for part, subject, file in (("mouth", MOUTH_SUBJECT, MOUTH_FILE), ("eyes", EYES_SUBJECT, EYES_FILE)):
            apart = held_out[crops[part].files]
            learned, measured = crops[part].only(~apart), crops[part].only(apart)

            def report(step: int, network: PartPointsNetwork, part=part, subject=subject, measured=measured) -> None:
                figures = errors(network, measured, subject) if len(measured) else {}
                say(f"{part}, {step} steps: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))

            settings = Settings(steps=options.steps, seed=options.seed, workers=options.workers)
            network = train_part_points(learned, subject, settings, stage(f"training: {part}", "steps"), report)
            description = {
                "data": f"{options.about}: {len(learned)} crops of {len(np.unique(learned.files))} files",
                "steps": str(options.steps),
                "seed": str(options.seed),
                "licence": "Apache-2.0",
            }
            path = options.out / file.name
            with whole_file(path) as partial:
                save_part_points(network, partial, description)
            written.append(path)
        return written
