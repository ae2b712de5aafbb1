"""What a recording says of what it cannot record."""

from __future__ import annotations

from pathlib import Path

from celerypipe import Message, Pipeline
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.runner.folder.recording import Recording


def test_what_cannot_be_recorded_is_said_once_for_each_node(tmp_path: Path) -> None:
    said: list[str] = []
    nodes = [NodeDefinition(name=name, type="proc", mark="passthrough_identity") for name in ("a", "b")]
    recording = Recording(tmp_path / "new", 1_000_000, said.append)
    recording.begin(Pipeline(name="p", nodes=nodes, links=[("a", "b")]), "run")
    for number in range(5):
        for node in ("a", "b"):
            recording.came(node, Message(object(), sequence=number))
    assert len(said) == 2, said
    recording.came("a", Message(1, sequence=6))
    assert len(list((tmp_path / "new" / "a").glob("*.in"))) == 1
