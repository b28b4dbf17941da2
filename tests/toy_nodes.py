"""Small nodes of the stand-alone kind, to test the runner without heavy imports."""

from __future__ import annotations

from typing import Any

import pytest
from talking_portrait.nodes.standalone import node_api as io


class Number(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "Number",
            "A Number",
            inputs=[
                io.Int.Input("value", default=1, min=0, max=10),
                io.Int.Input("seed", default=0, min=0, max=99, control_after_generate=True),
                io.Combo.Input("kind", options=["plain", "fancy"]),
                io.Boolean.Input("negative", default=False),
            ],
            outputs=[io.Int.Output()],
        )

    @classmethod
    def execute(cls, value: int, seed: int, kind: str, negative: bool) -> io.NodeOutput:
        return io.NodeOutput(-value if negative else value)


class Add(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "Add",
            "Add Numbers",
            inputs=[io.Int.Input("a", force_input=True), io.Int.Input("b", optional=True)],
            outputs=[io.Int.Output()],
        )

    @classmethod
    def execute(cls, a: int, b: int = 100) -> io.NodeOutput:
        return io.NodeOutput(a + b)


class Switch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "Switch",
            "Switch",
            inputs=[
                io.Boolean.Input("on", default=True),
                io.Int.Input("yes", lazy=True, force_input=True),
                io.Int.Input("no", lazy=True, force_input=True),
            ],
            outputs=[io.Int.Output()],
        )

    @classmethod
    def check_lazy_status(cls, on: bool, yes: int | None = None, no: int | None = None) -> list[str]:
        return ["yes"] if on else ["no"]

    @classmethod
    def execute(cls, on: bool, yes: int | None = None, no: int | None = None) -> io.NodeOutput:
        return io.NodeOutput(yes if on else no)


class Text(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("Text", "Text", inputs=[io.String.Input("text")], outputs=[io.String.Output()])

    @classmethod
    def validate_inputs(cls, text: str) -> bool | str:
        return True if text else "there is no text"

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        if text == "fail":
            raise RuntimeError("it broke")
        return io.NodeOutput(text)


class Show(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.Custom("*").Input("value")
        return io.Schema("Show", "Show It", inputs=[value], is_output_node=True)

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        return io.NodeOutput(ui={"text": [str(value)]})


class Paint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema("Paint", "Paint", outputs=[io.Custom("PICTURE").Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput("a picture")


class Look(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        picture = io.Custom("PICTURE")
        inputs = [picture.Input("picture"), picture.Input("mask", optional=True)]
        return io.Schema("Look", "Look", inputs=inputs, outputs=[io.String.Output()])

    @classmethod
    def execute(cls, picture: str, mask: str = "no mask") -> io.NodeOutput:
        return io.NodeOutput(picture if mask == "no mask" else mask)


@pytest.fixture(scope="session")
def toy_nodes() -> dict[str, Any]:
    return {node.__name__: node for node in (Number, Add, Switch, Text, Show, Paint, Look)}


@pytest.fixture(scope="session")
def toy_info(toy_nodes: dict[str, Any]) -> dict[str, Any]:
    return {name: node.GET_NODE_INFO_V1() for name, node in toy_nodes.items()}
