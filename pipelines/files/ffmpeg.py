"""ffmpeg, which writes videos: imageio-ffmpeg's binary, always with a list of arguments, never a shell."""

from __future__ import annotations

import re
import subprocess
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import IO

from ..errors import TalkingPortraitError
from ..packages import pip_install
from ..progress import WAIT_SECONDS, check_interrupted

_KEPT_LINES = 200


class Ffmpeg:
    """One run, to be used as a context manager; it never outlives its block.

    The first lines of its error output are kept in memory, so that a full disk can't get in the way.
    """

    def __init__(self, arguments: list[str], *, stdin: int | None = None, stdout: int | None = None) -> None:
        # In a session of its own, as the interrupt key of a terminal would else reach ffmpeg before its owner.
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [executable(), *arguments], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True
        )
        self._lines: deque[str] = deque()
        self._log_reader = threading.Thread(target=self._collect_log, daemon=True)
        self._log_reader.start()

    def _collect_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                if len(self._lines) < _KEPT_LINES and line.strip():
                    self._lines.append(line.decode(errors="replace").strip())

    @property
    def input(self) -> IO[bytes]:
        """Where its standard input is written to."""
        assert self._process.stdin is not None
        return self._process.stdin

    def wait(self) -> int:
        """Its exit status, once it has ended by itself. Raises as `check_interrupted`."""
        while True:
            with suppress(subprocess.TimeoutExpired):
                status = self._process.wait(WAIT_SECONDS)
                break
            check_interrupted()
        self._log_reader.join()
        return status

    @property
    def log(self) -> str:
        """The first lines of its error output; complete after `wait`."""
        return "\n".join(self._lines)

    def __enter__(self) -> Ffmpeg:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # nothing reads what was not yet written
                    pipe.close()
        self._process.wait()
        self._log_reader.join()


def executable() -> str:
    """The path of the binary. Raises TalkingPortraitError where there is none."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise TalkingPortraitError(
            f"Writing videos needs ffmpeg ({error}); run: {pip_install('imageio-ffmpeg')}"
        ) from None


def last_line(log: str) -> str:
    """The last line of a log without the part of ffmpeg that it is from, in at most 200 characters."""
    lines = [line for line in (re.sub(r"^(\[[^]]*\] *)+", "", line.strip()) for line in log.splitlines()) if line]
    return lines[-1][:200] if lines else "no reason was given"
