"""A definition that is sound, to be changed, and what is complained about one that is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from celerypipe.errors import DefinitionError

TUTORIAL: dict[str, Any] = {
    "version": "2.0.0",
    "plugins": ["./plugins"],
    "pipeline": {
        "name": "test_mocked_pipeline",
        "id": "1234567890",
        "folder": "./pipe",
        "nodes": [
            {"name": "0_src", "type": "source", "mark": "data_streamer", "configuration": {}},
            {
                "name": "1_proc",
                "type": "proc",
                "mark": "passthrough_identity",
                "configuration": {"delay": 2},
                "warped": True,
                "warp_configuration": {"queue": "remote", "timeout": 5},
            },
            {
                "name": "2_dst",
                "type": "sink",
                "mark": "notifier_websocket",
                "configuration": {"endpoint": "ws://127.0.0.1:8081"},
            },
        ],
        "links": [{"from": "0_src", "to": "1_proc"}, {"from": "1_proc", "to": "2_dst"}],
    },
}


def tutorial(**changes: Any) -> dict[str, Any]:
    """The tutorial's definition with keys of its node ``1_proc`` replaced."""
    data = copy.deepcopy(TUTORIAL)
    data["pipeline"]["nodes"][1].update(changes)
    return data


def complaints(make: Any, *args: Any, **named: Any) -> dict[str, str]:
    """What is complained about, by place."""
    with pytest.raises(DefinitionError) as raised:
        make(*args, **named)
    found = {complaint.place: complaint.text for complaint in raised.value.complaints}
    assert len(found) == len(raised.value.complaints), raised.value
    return found
