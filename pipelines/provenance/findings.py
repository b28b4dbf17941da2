"""All that says whether AI made a video: its metadata, its invisible mark and its content credentials."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..types import Progress, no_progress
from .content_credentials import Credentials, read_credentials
from .detect import Detection, detect_mark, threshold
from .metadata import Statement, read_statement


@dataclass(frozen=True)
class Findings:
    """`statement` and `credentials` are None where the file has none."""

    statement: Statement | None
    mark: Detection
    credentials: Credentials | None

    @property
    def ai_made(self) -> bool:
        """Whether anything says that AI made the video; what says nothing proves nothing."""
        return self.mark.found or self.statement is not None or self._credentials_say_so

    @property
    def _credentials_say_so(self) -> bool:
        return self.credentials is not None and "algorithmic" in self.credentials.source_type.lower()

    def text(self) -> str:
        """One line for each of the three."""
        mark = self.mark
        found = f"found in {mark.marked} of {mark.segments} parts" if mark.found else "not found"
        lines = [f"invisible mark: {found} (score {mark.score:.1f}, {threshold(mark.segments):.1f} needed)"]
        said = self.statement
        if said is None:
            lines.append("metadata: do not say that AI made it")
        else:
            known = {"tool": said.tool, "time": said.time, "id": said.id, "invisible mark": said.invisible_mark}
            parts = [said.source_type, *(f"{name} {value}" for name, value in known.items() if value)]
            lines.append(f"metadata: {', '.join(parts)}")
        signed = self.credentials
        if signed is None:
            lines.append("content credentials: none that can be read")
        else:
            parts = [part for part in (signed.state, signed.source_type, signed.tool, signed.issuer) if part]
            lines.append(f"content credentials: {', '.join((*parts, *signed.problems))}")
        return "\n".join(lines)

    def json(self) -> str:
        mark = {**asdict(self.mark), "found": self.mark.found, "threshold": threshold(self.mark.segments)}
        parts = {"metadata": self.statement, "content_credentials": self.credentials}
        described = {name: None if part is None else asdict(part) for name, part in parts.items()}
        return json.dumps({"ai_made": self.ai_made, "invisible_mark": mark, **described}, indent=2) + "\n"


def inspect_video(path: str | Path, *, progress: Progress = no_progress) -> Findings:
    """Looks for all three in a video. Raises TalkingPortraitError for what is no video or is damaged."""
    statement = read_statement(path)
    return Findings(statement, detect_mark(path, progress=progress), read_credentials(Path(path)))
