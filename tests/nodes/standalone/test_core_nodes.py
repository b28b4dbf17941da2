"""The stand-ins for ComfyUI's own nodes, compared with how the newest ComfyUI describes those."""

from __future__ import annotations

import pytest
from talking_portrait.nodes.standalone.core_nodes import STAND_INS

from ...core_nodes import core_nodes


@pytest.mark.parametrize("name", STAND_INS)
def test_a_stand_in_has_the_inputs_and_outputs_of_the_newest_node(name):
    mine, real = STAND_INS[name].GET_NODE_INFO_V1(), core_nodes()[name]
    assert mine["output"] == real["output"]
    assert mine["output_node"] == real["output_node"]
    known = {entry for section in ("required", "optional") for entry in real["input"].get(section, {})}
    assert set(mine["input"]["required"]) | set(mine["input"].get("optional", {})) <= known
    assert set(real["input"]["required"]) <= set(mine["input"]["required"]) | set(mine["input"].get("optional", {}))
