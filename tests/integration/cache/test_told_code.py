"""What workers tell of their code is what the class says here: local and warped, a node asks the cache the same."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from celerypipe.cache.asker import asker_of
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.definition.parts import CacheDefinition
from celerypipe.mailbox.presence import read_presences
from celerypipe.message.message import Message
from celerypipe.redis.connection import Client
from tests.servers import StartWorker, Workplace

NODES = """
from celerypipe import Proc, node

class Detect(Proc):
    cache_meta = ("language",)
    def __init__(self, threshold: float = 0.5, shape=(2, 3)): ...
    def update(self, message):
        return message

@node(version="1")
def declared(value, by: int = 2):
    return value * by
"""
CONFIG = 'imports = ["told_there"]\nworker_pool = "solo"\n'


def test_a_worker_tells_the_code_that_is_here_and_another_one_is_found_out(
    start_worker: StartWorker, workplace: Workplace, redis_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = workplace.module("told_there", NODES)
    start_worker("told", cwd=workplace.folder, config=CONFIG, fresh=True)
    monkeypatch.syspath_prepend(str(workplace.folder))
    sys.modules.pop("told_there", None)
    importlib.invalidate_caches()

    def asked(mark: str, **given: object) -> tuple[str, str]:
        """What is asked by what the workers tell, or why nothing is; and by the class here."""
        workers = [worker for worker in read_presences(redis_client) if "told" in worker["queues"]]
        there = [worker["marks"][mark] for worker in workers]
        here = [Catalogue().find(mark).schema()]
        found = []
        for schemas in (there, here):
            ask, why = asker_of(mark, schemas, given, CacheDefinition())
            found.append(ask(Message(1, meta={"language": "de"})).fingerprint if ask else why)
        return found[0], found[1]

    for mark in ("told_there.Detect", "told_there.declared"):
        there, here = asked(mark)
        assert there == here
        assert there.startswith("blake3-")
    assert asked("told_there.Detect", shape=(2, 3), threshold=0.5) == asked("told_there.Detect")

    edited = Path(shutil.copytree(workplace.folder, workplace.folder / "edited"))
    (edited / "told_there.py").write_text(file.read_text().replace("return message", "return [message]"))
    start_worker("told", cwd=edited, config=CONFIG)
    assert asked("told_there.Detect")[0].startswith("its workers run different code: source ")
    there, here = asked("told_there.declared")
    assert there == here
