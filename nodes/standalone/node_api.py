"""What stands in for ComfyUI's node API where there is no ComfyUI: only the few names that this pack uses.

The shapes follow ComfyUI's V3 API (`comfy_api.latest.io`), so node files read the same in both worlds and
`GET_NODE_INFO_V1` gives the dictionary that `/object_info` would. What nodes use of their environment (progress,
folders) is the `Session` of the command that runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch

from ...pipelines.types import Progress, no_progress


class UploadType(str, Enum):
    """Which upload button the front end puts below a file list."""

    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"


class Input:
    """One input of a node. `OPTIONS` maps constructor arguments to their names in `/object_info`."""

    io_type: ClassVar[str] = "*"
    OPTIONS: ClassVar[Mapping[str, str]] = {"display_name": "display_name", "tooltip": "tooltip", "lazy": "lazy"}
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self, id: str, *, optional: bool = False, extra_dict: dict[str, Any] | None = None, **options: Any
    ) -> None:
        unknown = set(options) - set(self.OPTIONS)
        if unknown:
            raise TypeError(f"{type(self).__qualname__} {id} has no option {', '.join(sorted(unknown))}")
        self.id = id
        self.optional = optional
        self.extra_dict = dict(extra_dict or {})
        self.options = {**self.DEFAULTS, **options}

    def as_dict(self) -> dict[str, Any]:
        named = {self.OPTIONS[name]: value for name, value in self.options.items() if value is not None}
        return {**named, **self.extra_dict}


class Output:
    """One output of a node."""

    io_type: ClassVar[str] = "*"

    def __init__(self, id: str | None = None, display_name: str | None = None, tooltip: str | None = None) -> None:
        self.id, self.display_name, self.tooltip = id, display_name, tooltip


class _Widget(Input):
    OPTIONS = {**Input.OPTIONS, "default": "default", "socketless": "socketless", "force_input": "forceInput"}


class _BooleanInput(_Widget):
    io_type = "BOOLEAN"
    OPTIONS = {**_Widget.OPTIONS, "label_on": "label_on", "label_off": "label_off"}


class _NumberInput(_Widget):
    OPTIONS = {**_Widget.OPTIONS, "min": "min", "max": "max", "step": "step"}


class _IntInput(_NumberInput):
    io_type = "INT"
    OPTIONS = {**_NumberInput.OPTIONS, "control_after_generate": "control_after_generate"}


class _FloatInput(_NumberInput):
    io_type = "FLOAT"
    OPTIONS = {**_NumberInput.OPTIONS, "round": "round"}


class _StringInput(_Widget):
    io_type = "STRING"
    OPTIONS = {**_Widget.OPTIONS, "multiline": "multiline"}
    DEFAULTS = {"multiline": False}


class _ComboInput(_Widget):
    io_type = "COMBO"
    OPTIONS = {**_Widget.OPTIONS, "options": "options", "upload": "upload"}

    def as_dict(self) -> dict[str, Any]:
        described = {**super().as_dict(), "multiselect": False}
        upload = described.pop("upload", None)
        if upload is not None:
            described[UploadType(upload).value] = True
        return described


def _socket(io_type: str, input_class: type[Input] = Input) -> Any:
    """A type of socket: a class with `io_type`, `Input` and `Output`."""
    ends = {
        "io_type": io_type,
        "Input": type("Input", (input_class,), {"io_type": io_type}),
        "Output": type("Output", (Output,), {"io_type": io_type}),
    }
    return type(io_type, (), ends)


class Hidden(str, Enum):
    """What a node can be given beside its inputs: its own id, the prompt that is run, and the editor's workflow."""

    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"


Custom = _socket
Boolean = _socket("BOOLEAN", _BooleanInput)
Int = _socket("INT", _IntInput)
Float = _socket("FLOAT", _FloatInput)
String = _socket("STRING", _StringInput)
Combo = _socket("COMBO", _ComboInput)
Image = _socket("IMAGE")
Mask = _socket("MASK")
Audio = _socket("AUDIO")
Video = _socket("VIDEO")
Vae = _socket("VAE")
ClipVision = _socket("CLIP_VISION")
Curve = _socket("CURVE")


@dataclass
class Schema:
    """What a node is called, takes and gives."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    description: str = ""
    is_output_node: bool = False
    search_aliases: list[str] | None = None
    hidden: list[Hidden] = field(default_factory=list)


class NodeOutput:
    """The values of a node's outputs, in order, and what the host shows of them."""

    def __init__(self, *args: Any, ui: dict[str, Any] | None = None) -> None:
        self.args, self.ui = args, ui


class ComfyNode:
    """Base of all nodes: `define_schema` and `execute` are class methods, nothing is kept between runs."""

    RELATIVE_PYTHON_MODULE: ClassVar[str] = "custom_nodes.talking_portrait"
    hidden: ClassVar[SimpleNamespace] = SimpleNamespace(unique_id=None, prompt=None)

    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        """Names of the lazy inputs (None so far) that must be computed first; all of them unless overridden."""
        return [name for name, value in inputs.items() if value is None]

    @classmethod
    def with_hidden(cls, **values: Any) -> type[ComfyNode]:
        """The node's class of one run, with the values of `Hidden`; ComfyUI makes such a class for each run too."""
        return type(cls.__name__, (cls,), {"hidden": SimpleNamespace(**values)})

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802 (ComfyUI's name)
        schema = cls.define_schema()
        ids = [entry.id for entry in schema.inputs] + [entry.id for entry in schema.outputs if entry.id is not None]
        if len(ids) != len(set(ids)):
            raise ValueError(f"{schema.node_id}: input and output ids must differ from each other: {ids}")
        return schema

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """The node as `/object_info` describes it."""
        schema = cls.GET_SCHEMA()
        inputs: dict[str, dict[str, Any]] = {"required": {}}
        for entry in schema.inputs:
            section = inputs.setdefault("optional" if entry.optional else "required", {})
            section[entry.id] = (entry.io_type, entry.as_dict())
        # ComfyUI gives output nodes the prompt and the workflow, whether they request them or not.
        hidden = [*schema.hidden, *([Hidden.prompt, Hidden.extra_pnginfo] if schema.is_output_node else [])]
        if hidden:
            inputs["hidden"] = {entry.name: (entry.value,) for entry in hidden}
        return {
            "input": inputs,
            "input_order": {section: list(entries) for section, entries in inputs.items()},
            "output": [output.io_type for output in schema.outputs],
            "output_is_list": [False for _ in schema.outputs],
            "output_name": [output.display_name or output.io_type for output in schema.outputs],
            "output_tooltips": [output.tooltip for output in schema.outputs],
            "name": schema.node_id,
            "display_name": schema.display_name,
            "description": schema.description,
            "python_module": cls.RELATIVE_PYTHON_MODULE,
            "category": schema.category,
            "output_node": schema.is_output_node,
            "deprecated": False,
            "experimental": False,
            "api_node": False,
            "search_aliases": schema.search_aliases or [],
        }


class ComfyExtension:
    """A set of nodes, as the loader requests it."""

    async def get_node_list(self) -> list[type[ComfyNode]]:
        raise NotImplementedError


@dataclass(frozen=True)
class Session:
    """The environment of one run: its progress callback and the folders it may use.

    `files` maps names to files that the user named on the command line; all other names in a workflow are looked up
    inside `input_folder` and can't lead out of it.
    """

    progress: Progress = no_progress
    input_folder: Path = field(default_factory=Path.cwd)
    output_folder: Path = field(default_factory=lambda: Path.cwd() / "out")
    files: Mapping[str, Path] = field(default_factory=dict)


_session: ContextVar[Session | None] = ContextVar("talking_portrait_session", default=None)


def session() -> Session:
    """The current run's environment, or the defaults."""
    return _session.get() or Session()


@contextmanager
def use_session(current: Session) -> Iterator[None]:
    """Nodes that run inside the block use `current`."""
    token = _session.set(current)
    try:
        yield
    finally:
        _session.reset(token)


def free_memory() -> int | None:
    """Bytes of main memory that are free or could be at once, or None where the system has no such file."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def torch_device() -> torch.device:
    """The accelerator that torch prefers, or the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")
