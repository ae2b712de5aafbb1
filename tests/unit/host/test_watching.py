"""Lines of workers that are followed for days: runs come and go meanwhile."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from celerypipe.host import watching
from celerypipe.redis.url import read_address


class Enough(Exception):
    """It looked often enough."""


def test_runs_that_are_over_are_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def runs(*_: Any) -> Any:
        if len(asked) == 20:
            raise Enough
        asked.append([])
        return [SimpleNamespace(id=f"run{len(asked)}")], []

    monkeypatch.setattr(watching, "LAST", 0.0)
    monkeypatch.setattr(watching, "LOOK", 0.001)
    monkeypatch.setattr(watching, "connect", lambda *_, **__: nullcontext(SimpleNamespace(now=lambda: 0.0)))
    monkeypatch.setattr(watching, "trimmed", lambda *_: False)
    monkeypatch.setattr(watching, "read_runs", runs)
    monkeypatch.setattr(watching, "following", lambda client, of, *_: asked[-1].append(of))
    with pytest.raises(Enough):
        list(watching.lines_of(read_address("redis://127.0.0.1:1/0"), ["worker"], None, follow=True))
    assert asked == [["worker", f"run{number}"] for number in range(1, 21)]
