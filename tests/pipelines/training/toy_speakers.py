"""Speaks a corpus without synthesisers: `python toy_speakers.py FOLDER FAULT`, where file 0 has the fault.

The processes that speak import this script anew, so what it replaces is replaced in them too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.training.instant.synthetic import corpus


def make_shard(job: tuple[Path, int, int, bool]) -> None:
    number, fault = job[2], sys.argv[2]
    if number == 0 and fault == "error":
        raise TalkingPortraitError("There is no voice; install one.")
    if number == 0 and fault == "killed":
        os._exit(9)
    corpus._shard_path(job).write_text(str(os.getpid()))


corpus._make_shard = make_shard
corpus.require_synthesisers = lambda: None

if __name__ == "__main__":
    try:
        corpus.make_corpus(Path(sys.argv[1]), 0, 2, 0, 2, lambda done, total, preview=None: print(done, "of", total))
    except TalkingPortraitError as error:
        print(error)
