"""The lines of a log: whose they are, whatever who logged them said besides."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from celerypipe.process.log import AtWork, JsonFormatter, at_work


def line(**fields: object) -> dict[str, object]:
    """What a line of JSON says that a node logged with these fields."""
    record = logging.LogRecord("celerypipe.node.a", logging.INFO, "", 0, "text", None, None)
    record.__dict__.update(fields)
    AtWork().filter(record)
    found: dict[str, object] = json.loads(JsonFormatter().format(record))
    return found


@pytest.mark.parametrize("fields", [{}, {"message_id": 7}, {"run": Path("/"), "node": {1}, "message_id": None}])
def test_fields_of_a_node_do_not_hide_whose_its_line_is(fields: dict[str, object]) -> None:
    assert (line(**fields)["run"], line(**fields)["message"]) == (None, None)
    before = at_work.set(("r", "a", "m"))
    try:
        said = line(**fields)
    finally:
        at_work.reset(before)
    assert (said["run"], said["node"], said["message"]) == ("r", "a", "m")


def test_who_knows_all_of_it_is_believed() -> None:
    said = line(run="r", node="b", message_id="n")
    assert (said["run"], said["node"], said["message"]) == ("r", "b", "n")
