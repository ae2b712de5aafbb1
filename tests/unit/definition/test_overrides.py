"""``--set`` and ``--place``: what is changed in a definition for one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celerypipe.definition.overrides import Overrides
from celerypipe.errors import DefinitionError


def definition() -> dict[str, Any]:
    return {
        "pipeline": {
            "name": "p",
            "nodes": [
                {"name": "read", "type": "source", "mark": "json_lines", "configuration": {"path": "a"}},
                {"name": "asr", "type": "proc", "mark": "tasks.gpu.Asr", "timeout": 3},
            ],
        }
    }


def nodes(*values: str, places: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    given = definition()
    changed = Overrides.read(values, places).applied(given)
    assert given == definition(), "what was read stays as it was"
    return {node["name"]: node for node in changed["pipeline"]["nodes"]}


def complaint(*values: str, places: tuple[str, ...] = ()) -> str:
    with pytest.raises(DefinitionError) as caught:
        Overrides.read(values, places).applied(definition())
    return "\n".join(map(str, caught.value.complaints))


def test_values_are_json_or_else_texts_and_go_to_arguments_or_to_the_nodes_own_keys() -> None:
    found = nodes("read.path=b=c.jsonl", "asr.model=small", "asr.beam=5", "asr.timeout=0.5", "asr.cache=true")
    assert found["read"]["configuration"] == {"path": "b=c.jsonl"}
    assert found["asr"]["configuration"] == {"model": "small", "beam": 5}
    assert (found["asr"]["timeout"], found["asr"]["cache"]) == (0.5, True)
    deep = nodes("asr.warp_configuration.batch.size=4", "asr.configuration.timeout=9", 'asr.words=["a", "b"]')["asr"]
    assert deep["warp_configuration"] == {"batch": {"size": 4}}
    assert (deep["configuration"]["timeout"], deep["timeout"]) == (9, 3)
    assert deep["configuration"]["words"] == ["a", "b"]
    assert nodes("asr.x=NaN")["asr"]["configuration"] == {"x": "NaN"}


def test_a_node_is_placed_on_a_queue_or_here(tmp_path: Path) -> None:
    asr = nodes(places=("asr=gpu",))["asr"]
    assert (asr["warped"], asr["warp_configuration"]) == (True, {"queue": "gpu"})
    file = tmp_path / "place.toml"
    file.write_text('asr = "big"\nread = "here"\n')
    found = nodes("asr.warp_configuration.window=8", places=(str(file),))
    assert found["asr"]["warp_configuration"] == {"window": 8, "queue": "big"}
    assert found["read"]["warped"] is False
    assert "warp_configuration" not in nodes(places=("asr=gpu", "asr=here"))["asr"]
    limits = ("asr.warp_configuration.timeout=9", "asr.warp_configuration.retries=2")
    asr = nodes(*limits, places=("asr=here",))["asr"]
    assert (asr["timeout"], asr["retries"]) == (3, 2), "its own stays"


def test_what_is_no_change_says_what_to_write(tmp_path: Path) -> None:
    assert complaint("asr") == "--set asr: write NODE.KEY=VALUE, such as transcribe.model=small"
    assert complaint("asr=3", "=", ".a=1", "asr.=1").count("write NODE.KEY=VALUE") == 4
    assert complaint("ars.model=1") == "--set ars.model: the pipeline has no node 'ars'; did you mean 'asr'?"
    assert "its nodes are read, asr" in complaint("elsewhere.model=1")
    said = "--set read.path.x: 'path' is no object {...}, so it has no keys; set the whole of it"
    assert complaint("read.path.x=1") == said
    assert "there is no such file" in complaint(places=("nowhere.toml",))
    assert "asr needs the name of a queue, or 'here'" in complaint(places=("asr=",))
    file = tmp_path / "place.toml"
    file.write_text("asr = 3")
    assert "asr needs the name of a queue" in complaint(places=(str(file),))
    file.write_text("asr: gpu")
    assert "is no TOML" in complaint(places=(str(file),))


@pytest.mark.parametrize("data", [None, [], {"pipeline": 3}, {"pipeline": {"nodes": [3, {"name": []}]}}])
def test_a_definition_of_any_shape_is_left_to_who_checks_it(data: Any) -> None:
    assert Overrides().applied(data) is data
    with pytest.raises(DefinitionError, match="the pipeline has no node 'a'"):
        Overrides.read(["a.b=1"]).applied(data)
