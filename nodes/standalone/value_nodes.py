"""ComfyUI's nodes that hold one value, for several inputs or outside of a subgraph, where there is no ComfyUI."""

from __future__ import annotations

from typing import Any

from . import node_api as io

CATEGORY = "utilities/primitive"
LARGEST = 2**63 - 1


class Value(io.ComfyNode):
    """Gives what it is set to."""

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        return io.NodeOutput(value)


class PrimitiveString(Value):
    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.String.Input("value", tooltip="The text.")
        return io.Schema("PrimitiveString", "Text", CATEGORY, inputs=[value], outputs=[io.String.Output()])


class PrimitiveStringMultiline(Value):
    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.String.Input("value", multiline=True, tooltip="The text.")
        title = "Text (Multiline)"
        return io.Schema("PrimitiveStringMultiline", title, CATEGORY, inputs=[value], outputs=[io.String.Output()])


class PrimitiveInt(Value):
    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.Int.Input("value", min=-LARGEST, max=LARGEST, control_after_generate=True, tooltip="The number.")
        return io.Schema("PrimitiveInt", "Int", CATEGORY, inputs=[value], outputs=[io.Int.Output()])


class PrimitiveFloat(Value):
    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.Float.Input("value", min=-LARGEST, max=LARGEST, tooltip="The number.")
        return io.Schema("PrimitiveFloat", "Float", CATEGORY, inputs=[value], outputs=[io.Float.Output()])


class PrimitiveBoolean(Value):
    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.Boolean.Input("value", tooltip="Yes or no.")
        return io.Schema("PrimitiveBoolean", "Boolean", CATEGORY, inputs=[value], outputs=[io.Boolean.Output()])


class CustomCombo(io.ComfyNode):
    """Its choices are widgets that the editor adds and stores beside the chosen one and its place among them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "CustomCombo",
            "Custom Combo",
            "utilities",
            inputs=[
                io.Combo.Input("choice", options=[], tooltip="The chosen text."),
                io.Int.Input("index", default=0, optional=True, tooltip="Its place among the choices."),
            ],
            outputs=[io.String.Output(), io.Int.Output()],
        )

    @classmethod
    def validate_inputs(cls, choice: str | None = None) -> bool:
        return True

    @classmethod
    def execute(cls, choice: str, index: int = 0) -> io.NodeOutput:
        return io.NodeOutput(choice, index)


VALUE_NODES: dict[str, type[io.ComfyNode]] = {
    node.__name__: node
    for node in (
        PrimitiveString,
        PrimitiveStringMultiline,
        PrimitiveInt,
        PrimitiveFloat,
        PrimitiveBoolean,
        CustomCombo,
    )
}
