"""Signed messages between a real runner and real workers, with a stranger in their Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from celerypipe import ConfigError, Message, NodeFailed, Runner, codec
from celerypipe.celery.application import app
from celerypipe.mailbox.bell import Bell
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.wire import ENTRY, RESULT, Answer, Entry, packed_entry
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import Keyring
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import chain, frames, warped
from tests.runs.reading import Reading
from tests.runs.traces import memory_of, report_of, run_of
from tests.servers import RunningWorker, StartWorker, eventually
from tests.servers.extent import at_length
from tests.servers.task import connection_to
from tests.servers.worker import KEY, SIGNED

OTHER = "another key of the tests as known"
#: Slow enough that messages wait while somebody tampers with them; more come later, since a window is 64.
SLOW = {"configuration": {"delay": 0.01}}
COUNT = 100


@pytest.fixture
def worker(shared_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> RunningWorker:
    """A worker with keys; the runs of the test have the same ones."""
    monkeypatch.setenv("CELERYPIPE_KEYS", KEY)
    return shared_worker("signed", pool="solo", concurrency=1, config=CONFIG, env=SIGNED)


@pytest.mark.parametrize("shared", [True, False])
def test_a_chain_with_large_payloads_works_as_without_keys(
    worker: RunningWorker, redis_url: str, redis_client: Client, shared: bool
) -> None:
    runner = Runner(redis_url, shared_memory=shared)
    stream = runner.stream(chain("signed", "Large", ("Echo", {"compression": "lz4"}), "Large"), frames(40))
    outputs = [next(stream)]
    assert memory_of(runner).exists() == shared
    outputs += stream
    assert [int(each.payload.max()) for each in outputs] == [4 * number % 256 for number in range(40)]
    assert not report_of(runner).refused
    assert "messages are signed" in worker.text()
    assert KEY not in worker.text()


@pytest.mark.parametrize(("pool", "slots"), [("prefork", 2), pytest.param("threads", 2, marks=at_length)])
def test_every_pool_signs(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch, pool: str, slots: int
) -> None:
    monkeypatch.setenv("CELERYPIPE_KEYS", KEY)
    queue = f"signed-{pool}"
    spawn = 'worker_pool_start_method = "spawn"\n' if pool == "prefork" else ""
    start_worker(queue, pool=pool, concurrency=slots, config=spawn + CONFIG, env=SIGNED)
    runner = Runner(redis_url)
    outputs = [m.payload for m in runner.stream(warped("tests.nodes.remote.Echo", queue), map(Message, range(60)))]
    assert outputs == list(range(60))
    assert not report_of(runner).refused


# -- somebody in the same Redis -------------------------------------------------------------------------------------


def a_waiting_message(client: Client, run: str, node: str) -> tuple[bytes, bytes]:
    """The last message of a mailbox that has several: its id and its bytes."""

    def last() -> Any:
        found = client.xrevrange(keys.USUAL.mailbox(run, node), count=10)
        return found[0] if len(found) == 10 else None

    entry_id, fields = eventually(last, "a message that waits")
    return entry_id, fields[b"m"]


def alter_a_message(client: Client, run: str) -> None:
    entry_id, raw = a_waiting_message(client, run, "n0")
    client.xdel(keys.USUAL.mailbox(run, "n0"), entry_id)
    client.xadd(keys.USUAL.mailbox(run, "n0"), {"m": raw.replace(raw[40:41], b"\x00")[:-20] + raw[-20:]})


def add_a_message(client: Client, run: str) -> None:
    evil = codec.encode_joined([Message("evil")])
    client.xadd(keys.USUAL.mailbox(run, "n0"), {"m": packed_entry(3, 0, "", evil)})
    client.xadd(keys.USUAL.mailbox(run, "n1"), {"m": a_waiting_message(client, run, "n0")[1]})


def drown_a_message(client: Client, run: str) -> None:
    """Somebody takes all that waits for others."""
    entry_id, raw = a_waiting_message(client, run, "n0")
    client.xdel(keys.USUAL.mailbox(run, "n0"), entry_id)
    moved = packed_entry(1000, 0, "", b"") + raw[ENTRY.size :]
    client.xadd(keys.USUAL.mailbox(run, "n0"), {"m": moved})


def answer_in_its_place(client: Client, run: str) -> None:
    """Results for messages that are on their way: one by nobody, one by somebody with another key."""
    evil = codec.encode_joined([Message("evil")])
    fakes = [Answer(Entry("1-1", number, 0, "", b""), RESULT, 0.0, 0.0, "", evil) for number in range(COUNT)]
    for stranger in (Mailbox(run, "n0"), Mailbox(run, "n1", Keyring.parse(OTHER)), Mailbox(run, "nobody")):
        worker, node, *flat = stranger.publishing("host.1.me.0", fakes)[6:]
        fields = [part for raw in flat[1::2] for part in ("r", raw)]
        client.call("XADD", keys.USUAL.reply(run), "*", "n", node, "w", worker, *fields)
    client.xadd(keys.USUAL.reply(run), {"what": "is this"})


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (alter_a_message, "message"),
        (add_a_message, "message"),
        (drown_a_message, "message"),
        (answer_in_its_place, "result"),
    ],
)
def test_what_a_stranger_writes_is_refused_and_every_message_comes_out_once(
    worker: RunningWorker, redis_url: str, redis_client: Client, tamper: Callable[[Client, str], None], kind: str
) -> None:
    said: list[str] = []
    runner = Runner(redis_url, on_event=said.append)
    stream = runner.stream(chain("signed", "Echo", "Echo", n0=SLOW), map(Message, range(COUNT)))
    reading = Reading(stream)
    reading.wait_for(5)
    run = run_of(runner)
    tamper(redis_client, run)
    assert reading.payloads() == list(range(COUNT))
    report = report_of(runner)
    assert report.refused.keys() == {kind}
    assert report.refused[kind] >= (3 * COUNT - 1 if kind == "result" else 1)
    assert "refused for their signature" in report.table()
    assert [text for text in said if "refused a" in text]
    assert len(said) == len(set(said))
    if kind == "message":
        first = f"run {run} node n0: refused a message that nobody with our keys signed"
        assert worker.wait_for_text(first).count(first) == 1  # more are counted
        worker.wait_for_text(" refused, ")  # so says the activation at its end


def overwrite_blobs(client: Client, run: str) -> None:
    """Alter what lies apart, without changing how long it is."""

    def alter() -> bool:
        done = 0
        for name in client.scan_iter(f"celerypipe:blob:{run}:*", count=1000):
            with suppress(TypeError):  # it may be gone by now
                done += bool(client.set(name, b"\xff" * int(client.strlen(name)), xx=True, px=keys.DATA_TTL))
        memory = memory_of(run)
        for path in memory.glob("*") if memory.exists() else ():
            with suppress(OSError):
                if path.is_file() and path.name != "lock":
                    # Another file of that name: who maps the old one has it already, and has looked at it.
                    other = memory / f"{path.name}-other"
                    other.write_bytes(b"\xff" * path.stat().st_size)
                    done += bool(other.rename(path))
        return bool(done)

    eventually(alter, "a payload to alter")


@pytest.mark.parametrize("shared", [True, False])
def test_an_altered_payload_is_refused_and_made_again(
    worker: RunningWorker, redis_url: str, redis_client: Client, shared: bool
) -> None:
    runner = Runner(redis_url, shared_memory=shared)
    stream = runner.stream(chain("signed", "Large", "Large", "Echo", n2=SLOW), frames(COUNT))
    reading = Reading(stream)
    reading.wait_for(5)
    overwrite_blobs(redis_client, run_of(runner))
    assert [int(payload.max()) for payload in reading.payloads()] == [4 * (n % 100) % 256 for n in range(COUNT)]
    assert all(int(message.payload.min()) == int(message.payload.max()) for message in reading.out)
    assert report_of(runner).refused.keys() == {"payload"}


def test_a_payload_that_somebody_alters_again_and_again_is_given_up(
    worker: RunningWorker, redis_url: str, redis_client: Client
) -> None:
    runner = Runner(redis_url, shared_memory=False)
    # One that sleeps holds up the other, whose payload waits to be altered.
    stream = runner.stream(chain("signed", "Echo", n0={"configuration": {"delay": 0.3}}), frames(30))
    reading = Reading(stream)
    eventually(lambda: runner._current, "a run")
    run = run_of(runner)
    while reading.is_alive():
        for name in redis_client.scan_iter(f"celerypipe:blob:{run}:*", count=1000):
            redis_client.set(name, b"\xff" * 300_000, xx=True, px=keys.DATA_TTL)
    with pytest.raises(NodeFailed, match="its payload was altered on its way 3 times"):
        reading.payloads()
    assert report_of(runner).refused["payload"] >= 3


def test_an_altered_record_is_refused_and_written_anew(
    worker: RunningWorker, redis_url: str, redis_client: Client
) -> None:
    runner = Runner(redis_url)
    pipeline = warped("tests.nodes.remote.Echo", "signed", limits={"linger": 0.0})
    bell = ""

    def messages() -> Iterator[Message]:
        nonlocal bell
        for number in range(3):
            yield Message(number)
            record, bell = keys.USUAL.node(run_of(runner), "there"), keys.USUAL.bell(run_of(runner), "there")
            eventually(lambda number=number: len(out) > number, "its result")
            eventually(lambda bell=bell: not redis_client.exists(f"{bell}0"), "the end of the activation")
            evil = codec.encode_value({"mark": "tests.nodes.remote.Echo", "configuration": {"delay": 60.0}})
            redis_client.set(record, evil, px=keys.DATA_TTL)

    out: list[Any] = []
    out.extend(message.payload for message in runner.stream(pipeline, messages()))
    assert out == [0, 1, 2]
    assert report_of(runner).refused == {"record": 2}


def test_a_task_that_nobody_signed_is_refused(worker: RunningWorker, redis_url: str, redis_client: Client) -> None:
    run = "celerypipe-no-run"
    with connection_to(redis_url) as connection:
        unsigned = Bell(run, "node", 0, "token").arguments("tests.nodes.remote.Echo", None)
        for bell in (unsigned, [*unsigned, "00" * 16]):
            app.send_task("tests.nodes.remote.Echo", bell, queue="signed", connection=connection, ignore_result=True)
    worker.wait_for_text("refused a task: it is not signed: set CELERYPIPE_KEYS where its run is started")
    worker.wait_for_text("refused a task: it was altered, or signed with a key that is not known here")
    assert not list(redis_client.scan_iter(f"celerypipe:*{run}*", count=1000))


# -- keys that do not go together -----------------------------------------------------------------------------------


def fails_with(url: str, queue: str) -> str:
    with pytest.raises(ConfigError) as caught:
        list(Runner(url).stream(warped("tests.nodes.remote.Echo", queue), [Message(1)]))
    assert KEY not in str(caught.value)
    return str(caught.value)


def test_a_run_without_keys_is_told_that_the_worker_has_some(
    worker: RunningWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CELERYPIPE_KEYS")
    said = fails_with(redis_url, "signed")
    assert (
        f"(pid {worker.process.pid}) takes signed messages only; to fix it: set CELERYPIPE_KEYS here as it is" in said
    )
    monkeypatch.setenv("CELERYPIPE_KEYS", OTHER)
    assert "has other keys" in fails_with(redis_url, "signed")


def test_a_run_with_keys_is_told_that_the_worker_has_none(
    shared_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    monkeypatch.setenv("CELERYPIPE_KEYS", KEY)
    assert "has no keys, and this run signs its messages; to fix it: set CELERYPIPE_KEYS" in fails_with(
        redis_url, "tsolo"
    )
    signature = "00" * 16
    with connection_to(redis_url) as connection:
        bell = [*Bell("celerypipe-no-run", "node", 0, "token").arguments("tests.nodes.remote.Echo", None), signature]
        app.send_task("tests.nodes.remote.Echo", bell, queue="tsolo", connection=connection, ignore_result=True)
    bare.wait_for_text("refused a task: its run signs, and this worker has no keys: set CELERYPIPE_KEYS here")


def test_where_only_some_workers_of_a_queue_have_the_keys_those_do_the_work(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_worker("mixed", pool="solo", config=CONFIG)
    right = start_worker("mixed", pool="solo", config=CONFIG, env=SIGNED)
    monkeypatch.setenv("CELERYPIPE_KEYS", KEY)
    said: list[str] = []
    runner = Runner(redis_url, on_event=said.append)
    outputs = list(runner.stream(warped("tests.nodes.remote.Echo", "mixed"), map(Message, range(10))))
    assert [message.payload for message in outputs] == list(range(10))
    assert {message.meta["pid"] for message in outputs} == {right.process.pid}
    assert len([text for text in said if "has no keys" in text and "it gets no work of this run" in text]) == 1


def test_keys_are_exchanged_one_machine_after_the_other(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_worker("rotating", pool="solo", config=CONFIG, env={"CELERYPIPE_KEYS": f"{KEY}, {OTHER}"})
    for both in (KEY + "," + OTHER, OTHER + "," + KEY):
        monkeypatch.setenv("CELERYPIPE_KEYS", both)
        runner = Runner(redis_url)
        outputs = [
            m.payload for m in runner.stream(warped("tests.nodes.remote.Echo", "rotating"), map(Message, range(20)))
        ]
        assert outputs == list(range(20))
        assert not report_of(runner).refused


def test_a_worker_with_a_key_that_is_too_short_does_not_start(start_worker: StartWorker) -> None:
    worker = start_worker("weak", config=CONFIG, env={"CELERYPIPE_KEYS": "swordfish"}, wait=False)
    assert worker.wait_for_end() == 78
    assert "CELERYPIPE_KEYS: the key has 9 bytes; each needs at least 16" in worker.text()
    assert "swordfish" not in worker.text()
