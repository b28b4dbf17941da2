"""VIDEO as a file, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from ..pipelines.errors import TalkingPortraitError, reason_of
from ..pipelines.files import scratch
from . import host
from .checked_node import described


@contextmanager
def video_file(video: Any, name: str = "video") -> Iterator[Path]:
    """The path of a VIDEO's file while the block runs; a temporary one for frames in memory and for a part of a file.

    Raises TalkingPortraitError for another object.
    """
    if not hasattr(video, "save_to"):
        raise TalkingPortraitError(
            f'The input "{name}" is {described(video)}, but a video is expected; connect Load Video or Create Video.'
        )
    is_part = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))() != (0.0, 0.0)
    source = None if is_part else getattr(video, "get_stream_source", lambda: None)()  # older versions lack both
    if isinstance(source, str | Path):
        yield Path(source)
        return
    with scratch.temporary_folder("talking_portrait", host.temporary_folder()) as folder:
        path = folder / "video.mp4"
        try:
            if isinstance(source, BytesIO):
                path.write_bytes(source.getbuffer())
            else:
                video.save_to(str(path))
        except OSError as error:
            raise TalkingPortraitError(
                f"The video can't be put into the folder for temporary files ({reason_of(error)}); free some space and "
                "try again."
            ) from None
        yield path
