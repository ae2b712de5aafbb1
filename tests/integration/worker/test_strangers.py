"""What a stranger who reaches Redis may ask of a worker: to run the marks that it serves, and to import nothing."""

from __future__ import annotations

import ast
import zoneinfo
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import celerypipe
from celerypipe import codec
from celerypipe.celery.application import app
from celerypipe.errors import CodecError
from celerypipe.mailbox.bell import Bell
from celerypipe.mailbox.blob.blob import Blobs, Store
from celerypipe.mailbox.record import Record
from celerypipe.mailbox.wire import packed_entry
from celerypipe.message.message import Message
from celerypipe.redis import script
from celerypipe.redis.connection import Client
from celerypipe.runner.carrier.holdings import Holdings
from tests.servers import RunningWorker, StartWorker, Workplace, eventually
from tests.servers.task import connection_to, send_task

NODES = """
from celerypipe import Proc

class Public(Proc):
    def update(self, message):
        return message

class Other(Proc):
    def update(self, message):
        return message
"""
#: A module that the worker could import, and that tells if it was.
TRAP = "from pathlib import Path\nPath('sprung').touch()\n"
RECORD: dict[str, Any] = {
    "configuration": {},
    "timeout": None,
    "linger": 0.0,
    "slice": 0.2,
    "term": 10.0,
    "room": 64,
    "budget": 1 << 20,
}
#: The only places where a module is imported whose name is no constant, and whose word that name is.
IMPORTS = {
    "__init__.py": "the table of public names",
    "catalogue/declaration.py": "found, not imported: a dotted path of the definition that is run here",
    "cli/commands.py": "the table of commands",
    "catalogue/modules.py": "the definition that is run here, a plugin folder, built-in nodes, or a worker's own file",
    "embedded/server.py": "found, not imported: the table of wheels with a server",
    "mailbox/blob/packing.py": "the table of ways to pack",
    "nodes/parts/package.py": "what a built-in node says that it needs",
    "scaffold/stub.py": "found, not imported: the name of a new node, as it was typed",
}


@pytest.fixture
def worker(start_worker: StartWorker, workplace: Workplace) -> RunningWorker:
    workplace.module("tasks.open", NODES)
    workplace.module("tasks.trap", TRAP + NODES)
    workplace.module("trap", TRAP + NODES)
    workplace.config("open", 'imports = ["tasks.open"]\nworker_pool = "solo"\n')
    return start_worker("open", cwd=workplace.folder)


def test_a_task_that_names_anything_but_its_marks_is_refused(
    worker: RunningWorker, workplace: Workplace, redis_url: str
) -> None:
    strange = [
        "trap.Public",
        "tasks.trap.Public",
        "tasks.open",
        "os.system",
        "subprocess.Popen",
        "celerypipe.nodes.json_lines.JsonLinesSource",
        "data_streamer",  # a source runs where its pipeline runs
        "celery.map",  # Celery's own would run other tasks as their arguments say
        "celery.chord_unlock",
        "celery.backend_cleanup",
    ]
    for mark in strange:
        send_task(redis_url, mark, "open", *Bell("run", "node", 0, "token").arguments(mark, None))
    send_task(redis_url, "tasks.open.Public", "open")
    log = worker.wait_for_text("is a node of celerypipe, not a function")
    assert log.count("Received unregistered task") == len(strange)
    assert [mark for mark in strange if f"'{mark}'" not in log] == []
    assert not (workplace.folder / "sprung").exists()
    assert worker.process.poll() is None

    with connection_to(redis_url) as connection:
        app.send_task("tasks.open.Public", queue="open", connection=connection, retry=False, compression="gzip")
    worker.wait_for_text("it is packed ('application/x-gzip'): celerypipe sends no such task, and unpacks none")
    assert worker.process.poll() is None


def test_a_bell_whose_record_names_another_node_is_refused(
    worker: RunningWorker, workplace: Workplace, redis_url: str, redis_client: Client
) -> None:
    """Else the worker would keep a warm Public under the name of Other, and lend it to the next run that asks."""
    for number, mark in enumerate(["tasks.open.Other", "trap.Public", "json_lines"]):
        run = f"strange{number}"
        holdings = Holdings(run, Blobs(Store(run)))
        record = Record(mark=mark, **RECORD)
        holdings.plan({"node": replace(record, neighbours=("node", "next")), "next": record}, {})
        holdings.make(redis_client)
        entry = packed_entry(0, 0, "", codec.encode_joined([Message(number)]))
        script.call(redis_client, holdings.mailboxes["node"].sending([entry], token="token", wanted=1, ttl=2000))
        bell = Bell(run, "node", 0, "token").arguments("tasks.open.Public", None)
        send_task(redis_url, "tasks.open.Public", "open", *bell)
        worker.wait_for_text(
            f"run {run} node node: declined: its task names tasks.open.Public, and its run says '{mark}'"
        )
        key = f"{holdings.mailboxes['node'].bell}0"
        eventually(lambda key=key: not redis_client.exists(key), "the bell's release")  # type: ignore[misc]
        assert redis_client.xlen(holdings.mailboxes["node"].stream) == 1
        holdings.remove(redis_client, "finished", slots={"node": 1, "next": 1})
    assert not (workplace.folder / "sprung").exists()


def test_nothing_is_imported_by_a_name_that_came_over_the_wire() -> None:
    """Each import by a name that is not written down in the source is listed above, with whose word the name is."""
    home = Path(celerypipe.__file__).parent
    importing = {"import_module", "__import__", "symbol_by_name", "import_from_cwd", "find_spec", "load_module"}
    found = set()
    for file in home.rglob("*.py"):
        for call in [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]:
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            assert name not in ("eval", "exec", "loads_pickle"), f"{file}:{call.lineno}"
            if name in importing and not isinstance(call.args[0], ast.Constant):
                found.add(str(file.relative_to(home)))
        assert "import pickle" not in file.read_text()
    assert found == set(IMPORTS)


@pytest.mark.parametrize(
    "key", ["trap", "../../trap", "trap/x", "a.b/c", "Europe/../../trap", "/etc/passwd", "zoneinfo", ""]
)
def test_a_time_zone_is_a_name_of_a_zone(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """zoneinfo looks for a zone among files, and then for a module of the package tzdata."""
    (tmp_path / "trap.py").write_text(TRAP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    zone = zoneinfo.ZoneInfo("Europe/Rome")
    data = codec.encode_value(zone).replace(b"\xc7\x0b\x23Europe/Rome", bytes((0xC7, len(key), 0x23)) + key.encode())
    assert key.encode() in data
    shorter = len("Europe/Rome") - len(key)
    head = bytearray(data)
    for place, size in ((4, 4), (8, 8)):
        length = int.from_bytes(head[place : place + size], "little") - shorter
        head[place : place + size] = length.to_bytes(size, "little")
    with pytest.raises(CodecError, match="no time zone"):
        codec.decode_value(bytes(head))
    assert not (tmp_path / "sprung").exists()
