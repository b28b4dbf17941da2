"""A video file's own words on how it was made: a comment in every container, and XMP in MP4 and MOV.

XMP carries IPTC's DigitalSourceType, by which programs recognise what AI made, in the `uuid` box that Adobe's
specification names for it. Boxes that a program does not know are skipped, so the video plays everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..files.input_paths import existing_file
from ..files.sound import streams_or_reason
from ..packages import VERSION
from .marking import Marking

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype"
SOURCE_TYPE = "trainedAlgorithmicMedia"
SOURCE_TYPE_PAGE = f"{SOURCE_TYPES}/{SOURCE_TYPE}"
TOOL = f"Talking Portrait {VERSION}"
WITH_BOXES = (".mp4", ".m4v", ".mov")
XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
MAX_XMP_BYTES = 1 << 20
MAX_COMMENT = 1000
_MARKS = {True: "yes", False: "turned off"}


@dataclass(frozen=True)
class Statement:
    """What a file says of itself; empty texts for what it does not say. `invisible_mark` as the pack writes it."""

    source_type: str = ""
    tool: str = ""
    time: str = ""
    id: str = ""
    invisible_mark: str = ""


def tags(marking: Marking) -> dict[str, str]:
    """ffmpeg's metadata for the container."""
    said = Statement(SOURCE_TYPE, TOOL, marking.time, marking.id, _MARKS[marking.invisible])
    return {"comment": comment_of(said), "creation_time": marking.time, "DIGITAL_SOURCE_TYPE": SOURCE_TYPE_PAGE}


def comment_of(said: Statement) -> str:
    """A container's comment, of which `read_statement` reads the same again."""
    comment = (
        f"AI-generated video ({SOURCE_TYPES}/{said.source_type}); tool: {said.tool}; time: {said.time}; "
        f"id: {said.id}; invisible mark: {said.invisible_mark}"
    )
    return "".join(filter(str.isprintable, comment))[:MAX_COMMENT]  # what it says may come from any file


def add_xmp(path: Path, marking: Marking) -> None:
    """Appends XMP to a finished MP4 or MOV file; leaves other files as they are."""
    if path.suffix.lower() not in WITH_BOXES:
        return
    content = XMP_BOX + _xmp(marking).encode()
    with path.open("ab") as file:
        file.write((len(content) + 8).to_bytes(4, "big") + b"uuid" + content)


def _xmp(marking: Marking) -> str:
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmp:CreatorTool="{TOOL}"
    xmp:CreateDate="{marking.time}"
    xmpMM:DocumentID="xmp.did:{marking.id}"
    Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE_PAGE}"
    dc:identifier="invisible mark: {_MARKS[marking.invisible]}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def read_statement(path: str | Path) -> Statement | None:
    """What a video file says of itself; None where it does not say that AI made it.

    Raises TalkingPortraitError for what is no media file.
    """
    path = existing_file(path, "video")
    comment = _comment(path)
    xmp = _read_xmp(path)
    kinds = re.findall(r"digitalsourcetype/(\w+)", f"{xmp} {comment}", re.IGNORECASE)
    source_type = next((kind for kind in kinds if "algorithmic" in kind.lower() or "synthetic" in kind.lower()), "")
    if not source_type:
        return None

    def first(*patterns: str) -> str:
        found = (re.search(pattern, text) for text, pattern in zip((comment, xmp), patterns, strict=True))
        return next((match[1].strip() for match in found if match), "")

    return Statement(
        source_type,
        first(r"tool: ([^;]*)", r"CreatorTool(?:>|=\")([^<\"]*)"),
        first(r"time: ([^;]*)", r"CreateDate(?:>|=\")([^<\"]*)"),
        first(r"id: ([^;]*)", r"DocumentID(?:>|=\")(?:xmp.did:)?([^<\"]*)"),
        first(r"invisible mark: ([^;]*)", r"invisible mark: ([^<\"]*)"),
    )


def _comment(path: Path) -> str:
    """The container's texts, one after the other."""
    from ..files.media_streams import open_container
    from ..files.video import no_video

    streams, reason = streams_or_reason(path)
    if streams is None or streams.video is None:
        raise no_video(path, streams, reason)
    with open_container(path) as container:
        return "; ".join(f"{value}" for value in container.metadata.values())


def _read_xmp(path: Path) -> str:
    """The XMP of an MP4 or MOV file; empty where there is none."""
    with path.open("rb") as file:
        for kind, size in _boxes(file):
            if kind == b"uuid" and 16 < size <= MAX_XMP_BYTES and file.read(16) == XMP_BOX:
                return file.read(size - 16).decode(errors="replace")
    return ""


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and size of each top-level box, with the file at its content; none where the file has no boxes."""
    end = file.seek(0, 2)
    place = 0
    while place + 8 <= end:
        file.seek(place)
        size, kind, header = int.from_bytes(file.read(4), "big"), file.read(4), 8
        if size == 1:
            size, header = int.from_bytes(file.read(8), "big"), 16
        elif size == 0:
            size = end - place
        if size < header:
            return
        yield kind, size - header
        place += size
