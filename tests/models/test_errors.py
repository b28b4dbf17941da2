"""Error classes as ComfyUI and tracebacks show them: by their own names, without the module path of a node pack."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import traceback

import pytest
import talking_portrait.pipelines
from talking_portrait.models.errors import TalkingPortraitError, quoted
from talking_portrait.pipelines.face.face_tracking import NoFaceError


def shown_type(kind: type) -> str:
    """As ComfyUI's execution.full_type_name forms it for the front end."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def error_classes() -> list[type]:
    for module in pkgutil.walk_packages(talking_portrait.pipelines.__path__, "talking_portrait.pipelines."):
        if ".training" not in module.name:
            importlib.import_module(module.name)
    found = [TalkingPortraitError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def test_every_error_is_shown_by_its_name_alone():
    kinds = error_classes()
    assert len(kinds) > 3
    for kind in kinds:
        assert shown_type(kind) == kind.__name__
    error = NoFaceError("There is no face; show one.")
    assert traceback.format_exception_only(error) == ["NoFaceError: There is no face; show one.\n"]


def test_messages_can_be_written_to_any_log():
    """ComfyUI's thread that runs prompts ends where its log can't take a message."""
    assert str(TalkingPortraitError("The crop is \ud800.")).encode() == rb"The crop is \ud800."


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [TalkingPortraitError, NoFaceError])
def test_errors_reach_other_processes(kind, protocol):
    """Worker processes send an error's class, or an error."""
    error = pickle.loads(pickle.dumps(kind("A sentence."), protocol))
    assert type(error) is kind
    assert error.args == ("A sentence.",)
    assert pickle.loads(pickle.dumps(kind, protocol)) is kind


VALUES = ([], (), {}, set(), (1,), [1, "a"], {"a": 1, "b": [1, (2, None)]}, {1}, b"a", 1.5, "it's", ["a'b"], range(3))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_short_values_are_quoted_whole(value):
    assert quoted(value) == repr(value)


def test_no_more_of_a_long_value_is_looked_at_than_is_shown():
    class Number:
        shown = 0

        def __repr__(self) -> str:
            Number.shown += 1
            return "0.5"

    row = [Number()] * 10_000
    for value in (row, [row], tuple(row), {"a": row}, {"a": {"b": row}}):
        assert quoted(value, 20)[:14] == repr(value)[:14]
        Number.shown = 0
        quoted(value, 20)
        assert Number.shown < 100
    assert quoted("x" * 10**7, 20) == "'xxxxxxxxxxxxxxx ..."
    endless: list[object] = []
    endless.append(endless)
    assert quoted(endless, 20) == "[[[[[[[[[[[[[[[[ ..."
