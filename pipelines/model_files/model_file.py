"""What the table of models says of one file."""

from __future__ import annotations

from dataclasses import dataclass

SEE_PAGE = "see the page"
HUGGING_FACE = "https://huggingface.co"
OWN_CATEGORY = "talking_portrait"
"""The pack's own model folder, in which files of other categories are looked for too."""


@dataclass(frozen=True)
class ModelFile:
    """One file. `file` is its path below the model folder `folder` (ComfyUI's category name), with forward slashes.

    `source` is "owner/name/path" on Hugging Face, or an https address, or "" if it must be fetched by hand from `page`.
    `size` in bytes; `about` is an approximate one, where the exact one is not known.
    """

    name: str
    file: str
    folder: str
    systems: tuple[str, ...]
    page: str
    source: str = ""
    size: int | None = None
    about: int | None = None
    sha256: str | None = None
    code_licence: str = ""
    weight_licence: str = SEE_PAGE
    purpose: str = ""
    by_hand: str = ""

    @property
    def on_hugging_face(self) -> bool:
        return bool(self.source) and not self.source.startswith("https://")

    @property
    def url(self) -> str:
        """The address of the file itself, "" if there is none."""
        if not self.on_hugging_face:
            return self.source
        owner, name, path = self.source.split("/", 2)
        return f"{HUGGING_FACE}/{owner}/{name}/resolve/main/{path}"
