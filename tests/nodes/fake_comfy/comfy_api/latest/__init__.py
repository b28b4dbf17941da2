"""The names of ComfyUI 0.3.64 that nodes are made of; its Schema has no search_aliases, and there is no io.Curve."""

from __future__ import annotations

import dataclasses
import shutil
from types import SimpleNamespace

from talking_portrait.nodes.standalone import node_api as io

ComfyExtension = io.ComfyExtension


class Input:
    class Video:
        pass


class Types:
    VideoComponents = SimpleNamespace


class InputImpl:
    class VideoFromFile(Input.Video):
        def __init__(self, path):
            self.path = path

        def get_stream_source(self):
            return self.path

        def save_to(self, path):
            shutil.copy(self.path, path)

        def get_duration(self):
            return len(open(self.path).read())

    class VideoFromComponents(Input.Video):
        def __init__(self, components):
            self.components = components

        def get_components(self):
            return self.components


_fields = [(f.name, f.type, f) for f in dataclasses.fields(io.Schema) if f.name != "search_aliases"]


class _OldSchema(dataclasses.make_dataclass("Schema", _fields)):
    search_aliases = None


io.Schema = _OldSchema
del io.Curve
