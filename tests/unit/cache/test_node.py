"""One node's way to the result cache: which code counts while no worker lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celerypipe.cache.node import CacheUse, WarpedNodeCache
from celerypipe.definition.pipeline import NodeDefinition

SOURCE = "from celerypipe import Proc\n\nclass Far(Proc):\n    version = {version!r}\n"


@pytest.mark.parametrize(
    ("here", "told", "counts"),
    [
        ("1", "version 1", True),
        ("2", "version 1", False),  # the source here was raised since
        ("", "version 1", True),  # the source here declares none: somebody else's checkout is newer
        (None, "version 1", True),  # it is not here at all
        ("1", "blake3:abc", False),  # nobody answers for what code without a version does
        ("1", None, False),
    ],
)
def test_without_a_worker_what_one_told_counts_unless_the_source_here_declares_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str | None, told: str | None, counts: bool
) -> None:
    if here is not None:
        (tmp_path / "recalled.py").write_text(SOURCE.format(version=here))
    monkeypatch.syspath_prepend(str(tmp_path))
    node = NodeDefinition(name="far", type="proc", mark="recalled.Far", warped=True, cache=True)
    use, said = CacheUse(True, (), False), list[str]()
    cache = WarpedNodeCache(node, dict, dict, use=use, say=said.append, runs_here=False, keyring=None)
    schema: dict[str, Any] | None = None if told is None else {"mark": node.mark, "code": told, "arguments": []}
    cache.recall(schema)
    assert list(cache.schemas()) == ([schema] if counts else [])


def test_what_workers_that_are_gone_would_ask_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celerypipe.cache.node.GONE", 3)
    node = NodeDefinition(name="far", type="proc", mark="recalled.Far", warped=True, cache=True)
    use = CacheUse(True, (), False)
    cache = WarpedNodeCache(node, dict, dict, use=use, say=str, runs_here=False, keyring=None)
    stays = _presence(0, node.mark)
    for number in range(1, 50):
        cache.see([stays, _presence(number, node.mark)])
    assert sorted(cache._askers) == [f"{number:08x}" for number in (0, 46, 47, 48, 49)]


def _presence(number: int, mark: str) -> dict[str, Any]:
    schema = {"mark": mark, "code": "version 1", "arguments": []}
    return {"id": f"box.{number}.{number:08x}", "marks": {mark: schema}, "queues": ["far"]}
