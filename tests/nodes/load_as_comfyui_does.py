"""Loads the pack as ComfyUI's loader does, in a process of its own, and prints what happened as JSON.

arguments: the pack's folder, and optionally a folder that is to stand for ComfyUI's own modules.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import logging
import os
import pathlib
import socket
import sys

import numpy  # noqa: F401
import torch  # noqa: F401

logging.basicConfig(level=logging.INFO)
pack = sys.argv[1]
if len(sys.argv) > 2:
    sys.path.insert(0, sys.argv[2])
    import folder_paths  # ComfyUI has its own modules loaded long before any pack

before = set(sys.modules)


def forbidden(*_, **__):
    raise AssertionError("importing the pack must not do this")


socket.socket.connect = forbidden
pathlib.Path.mkdir = os.mkdir = os.makedirs = forbidden

# The name is the path with its dots replaced, which is no name that an import statement could hold.
name = pack.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, os.path.join(pack, "__init__.py"))
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
if os.environ.get("BREAK_THE_PACK"):
    sys.modules[f"{name}.nodes.extension"] = None
spec.loader.exec_module(module)
entry = module.comfy_entrypoint
extension = asyncio.run(entry()) if inspect.iscoroutinefunction(entry) else entry()
nodes = asyncio.run(extension.get_node_list())
report = {
    "kind": type(nodes).__name__,
    "old entry": hasattr(module, "NODE_CLASS_MAPPINGS"),
    "web": os.path.isdir(os.path.join(pack, module.WEB_DIRECTORY)),
    "nodes": {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in nodes},
    "modules": sorted(
        {loaded.partition(".")[0] for loaded in set(sys.modules) - before if not loaded.startswith(name)}
    ),
    "in comfyui": sys.modules[f"{name}.nodes.host"].IN_COMFYUI,
}
if len(sys.argv) > 2:
    report["folders"] = {
        key: [paths, sorted(ends)] for key, (paths, ends) in folder_paths.folder_names_and_paths.items()
    }
print(json.dumps(report, default=str))
