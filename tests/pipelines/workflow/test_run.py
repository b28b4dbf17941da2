"""Running graphs without ComfyUI: order, laziness, refusals in ComfyUI's words, changed inputs."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.workflow.check import GraphRefusedError
from talking_portrait.pipelines.workflow.run import NodeFailedError, run_graph, set_input


def number(value=1, **changes):
    inputs = {"value": value, "seed": 0, "kind": "plain", "negative": False, **changes}
    return {"class_type": "Number", "inputs": inputs}


def show(source, slot=0):
    return {"class_type": "Show", "inputs": {"value": [source, slot]}}


def add(a, b=None):
    return {"class_type": "Add", "inputs": {"a": a} if b is None else {"a": a, "b": b}}


def look(picture, mask=None):
    return {"class_type": "Look", "inputs": {"picture": picture, "mask": mask}}


def kinds(refused):
    return {node: [error.type for error in errors] for node, errors in refused.value.errors.items()}


def test_a_node_runs_once_before_all_that_need_it(toy_nodes):
    prompt = {"4": show("3"), "3": add(["1", 0], ["2", 0]), "2": add(["1", 0]), "1": number(3)}
    result = run_graph(prompt, toy_nodes)
    assert result.executed == ["1", "2", "3", "4"]
    assert result.ui == {"4": {"text": ["106"]}}


def test_nodes_that_lead_to_no_output_do_not_run(toy_nodes):
    prompt = {"1": number(), "2": show("1"), "3": number(), "4": add(["3", 0])}
    assert run_graph(prompt, toy_nodes).executed == ["1", "2"]


@pytest.mark.parametrize(("on", "ran", "shown"), [(True, "1", "3"), (False, "2", "7")])
def test_only_the_lazy_input_that_is_requested_runs(toy_nodes, on, ran, shown):
    switch = {"class_type": "Switch", "inputs": {"on": on, "yes": ["1", 0], "no": ["2", 0]}}
    result = run_graph({"1": number(3), "2": number(7), "3": switch, "4": show("3")}, toy_nodes)
    assert result.executed == [ran, "3", "4"]
    assert result.ui["4"]["text"] == [shown]


def test_values_are_converted_to_the_type_of_their_input(toy_nodes):
    result = run_graph({"1": number("4", negative=1), "2": show("1")}, toy_nodes)
    assert result.ui["2"]["text"] == ["-4"]


def test_nothing_at_an_optional_socket_is_no_link(toy_nodes):
    prompt = {"1": {"class_type": "Paint", "inputs": {}}, "2": look(["1", 0]), "3": show("2")}
    assert run_graph(prompt, toy_nodes).ui["3"]["text"] == ["a picture"]


def test_inputs_that_a_class_does_not_have_are_left_out(toy_nodes):
    prompt = {"1": number(4, player="", other=["9", 0]), "2": show("1")}
    assert run_graph(prompt, toy_nodes).ui["2"]["text"] == ["4"]


def test_a_chain_longer_than_pythons_stack_runs(toy_nodes):
    prompt = {"0": number(0)} | {str(i): add([str(i - 1), 0], 1) for i in range(1, 2001)} | {"end": show("2000")}
    assert run_graph(prompt, toy_nodes).ui["end"]["text"] == ["2000"]


@pytest.mark.parametrize(
    ("broken", "kind", "words"),
    [
        (number(11), "value_bigger_than_max", "Value 11 bigger than max of 10"),
        (number(-1), "value_smaller_than_min", "Value -1 smaller than min of 0"),
        (number("many"), "invalid_input_type", "Failed to convert an input value to a INT value"),
        (number(kind="odd"), "value_not_in_list", "'odd' not in ['plain', 'fancy']"),
        ({"class_type": "Number", "inputs": {"value": 1}}, "required_input_missing", "Required input is missing: seed"),
        (add(["1", 0]), "dependency_cycle", "Dependency cycle"),
        (add(["9", 0]), "bad_linked_input", "9 output 0"),
        (add(["2", 0]), "bad_linked_input", "2 output 0"),
        (add(["3", 0]), "return_type_mismatch", "received_type(STRING) mismatch input_type(INT)"),
        (add([3]), "bad_linked_input", "length-2 list"),
        (look(5), "invalid_input_type", "A link to an output of PICTURE is expected: picture is 5"),
        (look("x" * 5000), "invalid_input_type", "is expected: picture is 'xxx"),
        (look({}), "invalid_input_type", "picture is {}"),
        (look(None), "required_input_missing", "Required input is missing: picture"),
        (look(["3", 0], 5), "invalid_input_type", "mask is 5"),
        (number(kind=None), "value_not_in_list", "None not in"),
        (number("x" * 5000), "invalid_input_type", "value, 'xxx"),
        ({"class_type": "Text", "inputs": {"text": ""}}, "custom_validation_failed", "text - there is no text"),
        ({"class_type": "Nowhere", "inputs": {}}, "invalid_prompt", "node Nowhere does not exist"),
    ],
)
def test_a_graph_that_can_not_run_is_refused_before_anything_runs(toy_nodes, broken, kind, words):
    prompt = {"1": broken, "2": show("1"), "3": {"class_type": "Text", "inputs": {"text": "hello"}}}
    ran = []

    @contextmanager
    def around(node, title):
        ran.append(node)
        yield

    with pytest.raises(GraphRefusedError) as refused:
        run_graph(prompt, toy_nodes, around=around)
    assert kind in kinds(refused)["1"]
    assert words in str(refused.value)
    assert ran == []
    assert max(map(len, str(refused.value).splitlines())) < 400


def test_all_errors_are_reported_at_once_with_the_nodes_title(toy_nodes):
    prompt = {"1": {**number(99, kind="odd"), "_meta": {"title": "How many"}}, "2": show("1")}
    with pytest.raises(GraphRefusedError) as refused:
        run_graph(prompt, toy_nodes)
    assert kinds(refused) == {"1": ["value_bigger_than_max", "value_not_in_list"]}
    assert str(refused.value).count("How many (node 1)") == 2


def test_a_cycle_is_reported_with_its_nodes_only(toy_nodes):
    prompt = {"1": add(["2", 0]), "2": add(["1", 0]), "3": add(["2", 0], ["4", 0]), "4": number(), "5": show("3")}
    with pytest.raises(GraphRefusedError) as refused:
        run_graph(prompt, toy_nodes)
    assert kinds(refused) == {"1": ["dependency_cycle"], "2": ["dependency_cycle"]}


def test_a_graph_without_outputs_is_refused(toy_nodes):
    with pytest.raises(GraphRefusedError, match="no outputs"):
        run_graph({"1": number()}, toy_nodes)


def test_a_failing_node_is_named(toy_nodes):
    prompt = {"1": {"class_type": "Text", "inputs": {"text": "fail"}, "_meta": {"title": "My text"}}, "2": show("1")}
    with pytest.raises(NodeFailedError, match="My text: RuntimeError: it broke") as failed:
        run_graph(prompt, toy_nodes)
    assert failed.value.node == "1"


def test_interruption_passes_through(toy_nodes):
    @contextmanager
    def around(node, title):
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        run_graph({"1": number(), "2": show("1")}, toy_nodes, around=around)


@pytest.mark.parametrize("target", ["1", "Number", "My number"])
def test_an_input_is_set_by_id_class_or_title(toy_nodes, toy_info, target):
    prompt = {"1": {**number(), "_meta": {"title": "My number"}}, "2": show("1")}
    assert set_input(prompt, f"{target}.value=5", toy_info) == ("1", "value")
    assert set_input(prompt, f"{target}.negative=true", toy_info) == ("1", "negative")
    assert set_input(prompt, f"{target}.kind=fancy", toy_info) == ("1", "kind")
    assert prompt["1"]["inputs"] == {"value": 5, "seed": 0, "kind": "fancy", "negative": True}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("1.size=3", "has no input 'size'; it has: value, seed, kind, negative"),
        ("7.value=3", "no node is called '7'"),
        ("Number.value=3", "2 nodes are called 'Number'"),
        ("1.value", "NODE.INPUT=VALUE is expected"),
    ],
)
def test_a_wrong_set_lists_the_possible_names(toy_info, assignment, words):
    with pytest.raises(TalkingPortraitError) as raised:
        set_input({"1": number(), "2": number()}, assignment, toy_info)
    assert words in str(raised.value)
