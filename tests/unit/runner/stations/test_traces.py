"""Where messages spent their time, as it is put together for who wants it."""

from __future__ import annotations

from celerypipe import Message
from celerypipe.runner.stations.traces import Traces


def test_the_paths_are_put_together_anew_only_when_there_is_more() -> None:
    traces = Traces()
    traces.through("a", Message(1), "done")
    first = traces.to_list()
    assert traces.to_list() is first
    traces.through("a", Message(2), "ValueError")
    assert [len(first), len(traces.to_list())] == [1, 2]
