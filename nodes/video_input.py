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
from .inputs import colours, frame_rate, images_socket
from .renderer_node import sound_of

COPY_CRF = 8
"""Quality of temporary files, above that of results, so that what a node leaves as filmed comes back as filmed."""


@contextmanager
def video_file(video: Any, name: str = "video") -> Iterator[Path]:
    """The path of a VIDEO's file while the block runs; a temporary one for frames in memory and for a part of a file.

    Raises TalkingPortraitError for another object, and for frames or sound that a video can't have.
    """
    if not hasattr(video, "save_to"):
        raise TalkingPortraitError(
            f'The input "{name}" is {described(video)}, but a video is expected; connect Load Video or Create Video.'
        )
    frames = host.frames_of(video)
    source = None if frames is not None else getattr(video, "get_stream_source", lambda: None)()
    start, seconds = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))()  # older versions lack both
    is_part = source is not None and (start, seconds) != (0.0, 0.0)
    if isinstance(source, str | Path) and not is_part:
        yield Path(source)
        return
    with scratch.temporary_folder("talking_portrait", host.temporary_folder()) as folder:
        path = Path(source) if isinstance(source, str | Path) else folder / f"{name}.mp4"
        try:
            if frames is not None:
                _write_frames(path, *frames, name)
            elif isinstance(source, BytesIO):
                path.write_bytes(source.getbuffer())
            elif source is None:
                video.save_to(str(path))
            if is_part:
                from ..pipelines.files.video import open_video, write_part

                whole, path = path, folder / f"part of {path.stem[:40]}.mp4"
                write_part(open_video(whole), path, start, seconds, crf=COPY_CRF, progress=host.progress())
        except OSError as error:
            raise TalkingPortraitError(
                f"The video can't be put into the folder for temporary files ({reason_of(error)}); free some space and "
                "try again."
            ) from None
        yield path


def _write_frames(path: Path, images: Any, audio: Any, fps: Any, name: str) -> None:
    """A file of frames in memory; the host's own encoder refuses odd sides and transparency, and compresses more."""
    from ..pipelines.audio.waveform import TooShortError
    from ..pipelines.files.images import to_uint8
    from ..pipelines.files.video import VideoWriter

    pictures, rate, progress = images_socket(images, name), frame_rate(fps), host.progress()
    count, height, width = pictures.shape[:3]
    try:
        sound = sound_of(audio, count, rate)
    except TooShortError:  # not every use of a video needs one, and one that does says that there is none
        sound = None
    with VideoWriter(path, (height, width), rate, sound, crf=COPY_CRF) as writer:
        for number, picture in enumerate(pictures, 1):
            writer.write(to_uint8(colours(picture)))
            progress(number, count)
