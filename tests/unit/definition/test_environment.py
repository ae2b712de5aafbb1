"""Variables in a configuration: looked up when a node is made, never kept, never shown."""

from __future__ import annotations

from typing import Any

import pytest

from celerypipe.definition.environment import from_environment, resolve_environment, secrets_in
from celerypipe.definition.pipeline import NodeDefinition, Pipeline
from tests.unit.definition.sample import complaints


def test_variables_are_looked_up_however_deep_and_never_kept() -> None:
    given = {"delay": "$JT_ENV_DELAY", "deep": [{"key": "$JT_ENV_KEY"}, ("x$JT_ENV_KEY",)]}
    pipeline = Pipeline(name="p", nodes=[{"name": "n", "type": "proc", "mark": "m", "configuration": given}])
    configuration = pipeline.nodes[0].configuration
    resolved = resolve_environment(
        configuration, {"DELAY": "2", "KEY": "s3cret"}, "here", {"delay": float}, pipeline.nodes[0].from_environment
    )
    assert resolved == {"delay": 2.0, "deep": [{"key": "s3cret"}, ("x$JT_ENV_KEY",)]}
    assert "s3cret" not in repr(pipeline)
    assert configuration == given


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(int, "7", 7), (float, "7", 7.0), (bool, "Yes", True), (bool, "0", False), (str, "7", "7"), (None, "7", "7")],
)
def test_a_variable_takes_the_type_that_the_argument_needs(kind: type | None, text: str, value: Any) -> None:
    resolved = resolve_environment({"a": "$JT_ENV_A"}, {"A": text}, "here", {"a": kind}, ["a"])["a"]
    assert (resolved, type(resolved)) == (value, type(value))


def test_all_missing_variables_are_named_and_no_value_is_shown() -> None:
    configuration = {"a": "$JT_ENV_A", "b": ["$JT_ENV_B"], "c": "$JT_ENV_C"}
    found = complaints(
        resolve_environment, configuration, {"C": "s3cret"}, "pipeline.nodes[0].configuration", {"c": int}, "abc"
    )
    assert "'A'" in found["pipeline.nodes[0].configuration.a"]
    assert "'B'" in found["pipeline.nodes[0].configuration.b[0]"]
    assert "is no int" in found["pipeline.nodes[0].configuration.c"]
    assert not any("s3cret" in text for text in found.values())


def test_what_holds_no_variable_is_neither_looked_through_again_nor_copied() -> None:
    many, deep = list(range(1000)), {"key": ["$JT_ENV_KEY"]}
    node = NodeDefinition(name="n", type="proc", mark="m", configuration={"many": many, "deep": deep})
    assert node.from_environment is node.from_environment == {"deep"}
    assert node.model_copy(update={"configuration": {"many": many}}).from_environment == set()
    given = node.configuration
    resolved = resolve_environment(given, {"KEY": "s3cret"}, "here", {}, node.from_environment)
    assert resolved["deep"] == {"key": ["s3cret"]}
    assert resolved["many"] is given["many"]
    assert secrets_in(given, {"KEY": "s3cret"}, node.from_environment) == {"s3cret"}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("${HERE}/in", str, "/data/in"),
        ("${HERE}${HERE}", str, "/data/data"),
        ("${NOT:-/tmp}/in", str, "/tmp/in"),  # noqa: S108  # a text
        ("${EMPTY:-x}", str, "x"),
        ("${EMPTY}", str, ""),
        ("${NOT:-}", str, ""),
        ("${SIZE}", int, 7),
        ("${NOT:-2.5}", float, 2.5),
        ("$${HERE} costs $5 {HERE} $${", str, "${HERE} costs $5 {HERE} ${"),
        ("$HERE", str, "$HERE"),
    ],
)
def test_variables_stand_within_texts_and_have_defaults(text: str, kind: type, value: Any) -> None:
    environment = {"HERE": "/data", "EMPTY": "", "SIZE": "7"}
    pipeline = Pipeline(name="p", nodes=[{"name": "n", "type": "proc", "mark": "m", "configuration": {"a": text}}])
    node = pipeline.nodes[0]
    resolved = resolve_environment(node.configuration, environment, "here", {"a": kind}, node.from_environment)
    assert resolved == {"a": value}
    assert type(resolved["a"]) is type(value)


def test_a_variable_within_a_text_that_is_missing_or_no_number_is_named() -> None:
    configuration = {"a": "${A}/${B}", "b": "${C}"}
    found = complaints(resolve_environment, configuration, {"A": "x", "C": "s3cret"}, "here", {"b": int}, "ab")
    assert found["here.a"] == "the environment has no variable 'B'; set it: export B=..."
    assert found["here.b"] == "the variable 'C' is no int; the argument needs one"
    assert secrets_in({"url": "http://${TOKEN}@x"}, {"TOKEN": "s3cret"}, ["url"]) == {"s3cret"}


@pytest.mark.parametrize(
    "text", ["${", "${A", "${}", "${ A }", "${1}", "${A-x}", "${A:?x}", "${A:+x}", "${NOT:-${A}}", "$${A} ${A"]
)
def test_what_a_shell_takes_or_nobody_is_no_variable(text: str) -> None:
    found = complaints(resolve_environment, {"a": text}, {"A": "x"}, "here", {}, from_environment({"a": text}))
    assert found["here.a"].startswith("'${' is followed by no variable; write ${NAME} or ${NAME:-default}")
