"""The driver's trainer on the command line: from recordings of people to weights for `--weights` and the node."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ...errors import TalkingPortraitError, check_seed, quoted
from ...types import Progress

CLOSURE_SHARDS = 4
"""Files of 200 utterances of synthetic speech."""


class Driver:
    name = "instant-driver"
    help = "Instant's driver on recordings of people: one's own way of speaking, or that of many"

    def add_arguments(self, command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--people",
            type=Path,
            required=True,
            metavar="FOLDER",
            help="videos of a speaking face, prepared persons, or landmarks (.npz) beside sounds; "
            "without --many all of one person, 20 s or more",
        )
        command.add_argument("--out", type=Path, required=True, metavar="W.safetensors", help="the weights to write")
        command.add_argument("--start", help="weights to begin with, a name or a file (default: real lips)")
        command.add_argument(
            "--steps",
            type=int,
            help="of the training (default 80; with --many 240, and before them a third as many of the acoustic head)",
        )
        command.add_argument("--seed", type=int, default=0, help="same seed, same run")
        command.add_argument("--threads", type=int, default=2, help="threads that train (default 2)")
        command.add_argument("--landmarks", type=Path, help="MediaPipe's .task (default: as in `prepare`)")
        many = command.add_argument_group("for the way of speaking of many people")
        many.add_argument("--many", action="store_true", help="what many speakers have in common, each file another")
        many.add_argument(
            "--recogniser",
            type=Path,
            metavar="FILE",
            help="model.bin of faster-whisper's tiny.en, whose first layers are taken (default: those that ship)",
        )
        many.add_argument(
            "--corpus",
            type=Path,
            metavar="FOLDER",
            help="synthetic speech that teaches closures of the lips as well; what is missing of it is spoken "
            "(apt-get install flite espeak-ng)",
        )
        many.add_argument(
            "--folds", type=int, default=0, help="groups of speakers to leave out in turn, to choose the steps"
        )
        many.add_argument("--about", default="recordings of people", help="what they are, for the file's metadata")

    def train(
        self, options: argparse.Namespace, stage: Callable[[str, str], Progress], say: Callable[[str], None]
    ) -> Path:
        """Trains, writes and reports. Raises TalkingPortraitError for unusable folders and options."""
        import torch

        from ....models.speech.acoustic_encoder import shipped_encoder
        from ...audio.mouth_weights import DEFAULT_WEIGHTS, open_mouth
        from ...face.landmarks import open_landmarker
        from ...files.output_paths import file_to_write, keep_inputs
        from ..core.run_settings import check_option
        from .command import BACKGROUNDS
        from .fine_tune import Settings
        from .mouth import published_encoder, with_acoustic_encoder
        from .people import OWN_STEPS, learn_person, learn_speakers, save_driver
        from .speakers import recordings
        from .synthetic.backgrounds import make_backgrounds
        from .synthetic.corpus import make_corpus, read_corpus

        check_option("steps", options.steps, 1, 100_000)
        check_option("folds", options.folds, 0, 100)
        check_option("threads", options.threads, 1, 1000)
        alone = {"--recogniser": options.recogniser, "--corpus": options.corpus, "--folds": options.folds}
        if not options.many and any(alone.values()):
            given = ", ".join(name for name, value in alone.items() if value)
            raise TalkingPortraitError(
                f"{given} {'is' if ',' not in given else 'are'} for --many; add it, or leave {given} out."
            )
        check_seed(options.seed)
        out = file_to_write(options.out)
        if out.suffix != ".safetensors":
            raise TalkingPortraitError(
                f"--out is {quoted(out.name)}, but a name that ends in .safetensors is expected."
            )
        if options.start is not None:
            keep_inputs(out, Path(options.start))
        torch.set_num_threads(options.threads)
        start = open_mouth(options.start or DEFAULT_WEIGHTS)  # as the recogniser, before the long search for faces
        if options.many:
            encoder = published_encoder(options.recogniser) if options.recogniser else shipped_encoder()
            torch.manual_seed(options.seed)  # for its head
            start = with_acoustic_encoder(start, encoder)
            corpus = []
            if options.corpus:
                speaking = stage("speaking the corpus", "files")
                make_corpus(options.corpus, options.seed, CLOSURE_SHARDS, 0, options.threads, speaking)
                corpus = read_corpus(options.corpus, acoustic=True, shards=CLOSURE_SHARDS)
        landmarker = open_landmarker(options.landmarks)
        seen = list(recordings(options.people, landmarker, stage("finding faces", "parts")))
        if options.many:
            steps = options.steps or Settings.steps
            settings = Settings(
                head_steps=-(-steps // 3), steps=steps, closure_steps=-(-5 * steps // 2), seed=options.seed
            )
            backgrounds = make_backgrounds(options.seed, BACKGROUNDS, stage("making backgrounds", "sounds"))
            learned = learn_speakers(
                seen,
                start,
                settings,
                backgrounds,
                corpus,
                folds=options.folds,
                stage=lambda label: stage(label, "parts"),
            )
        else:
            learned = learn_person(seen, start, options.steps or OWN_STEPS, stage("training", "parts"))
        for line in learned.report:
            say(line)
        save_driver(learned, out, options.about)
        return out
