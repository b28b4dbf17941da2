"""The names of ComfyUI 0.3.64 that nodes are made of; its Schema has no search_aliases, and there is no io.Curve."""

from __future__ import annotations

import dataclasses

from talking_portrait.nodes.standalone import node_api as io

ComfyExtension = io.ComfyExtension
_fields = [(f.name, f.type, f) for f in dataclasses.fields(io.Schema) if f.name != "search_aliases"]


class _OldSchema(dataclasses.make_dataclass("Schema", _fields)):
    search_aliases = None


io.Schema = _OldSchema
del io.Curve
