"""A replay that is killed: what was not through is still there, and is replayed again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from celerypipe import Runner
from celerypipe.definition.pipeline import Pipeline
from tests.runs.letters import definition, listed
from tests.servers import eventually
from tests.servers.command import begin

COUNT = 60


def test_a_replay_that_is_killed_loses_no_letter(tmp_path: Path) -> None:
    Runner().run(
        Pipeline.load(numbers(tmp_path, mark="tests.nodes.remote.Picky", configuration={"bad": list(range(COUNT))}))
    )
    assert len(listed(tmp_path / "run")) == COUNT
    path = numbers(tmp_path, mark="tests.nodes.remote.Echo", configuration={"delay": 0.02})
    replay = begin("dead", "replay", path, "--quiet", cwd=tmp_path)
    out = tmp_path / "out.jsonl"
    try:
        eventually(lambda: out.exists() and len(out.read_text().split()) >= 10, "ten results")
    finally:
        replay.kill()
    written = out.read_text().split()
    left = listed(path)
    assert 0 < len(left) < COUNT, replay.err.read_text()
    assert len(left) >= COUNT - len(written)  # a letter goes after its result is written, never before
    Runner().replay(Pipeline.load(numbers(tmp_path, mark="tests.nodes.remote.Echo", configuration={})))
    assert listed(path) == []
    found = Counter(out.read_text().split())
    assert set(found) == {str(number) for number in range(COUNT)}
    assert sum(found.values()) <= COUNT + 1  # the one that was written when its letter was about to go


def numbers(folder: Path, **node: object) -> Path:
    """A pipeline of so many numbers through such a node."""
    path = definition(folder, [], **node)
    path.write_text(path.read_text().replace('"count": 6', f'"count": {COUNT}'))
    return path
