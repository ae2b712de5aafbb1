"""What is found before a run, from what Redis and the workers say of themselves."""

from __future__ import annotations

from typing import Any

import celery
import pytest

from celerypipe.check import preflight
from celerypipe.check.finding import Finding, Scene
from celerypipe.codec import CODEC_VERSION
from celerypipe.definition.pipeline import NodeDefinition, Pipeline
from celerypipe.errors import ConfigError, NoWorker, RedisUnavailable
from celerypipe.mailbox.protocol import SPOKEN
from celerypipe.process.version import VERSION
from celerypipe.redis.address import Address
from celerypipe.redis.signing import Keyring
from celerypipe.redis.url import read_address

MIB = 1024**2
COMMAND = "celery -A celerypipe worker -Q gpu"
#: What a plain Redis on a machine with room says of itself.
SERVER: dict[str, Any] = {
    "redis_version": "7.0.15",
    "redis_mode": "standalone",
    "role": "master",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "used_memory": 2 * MIB,
    "maxclients": 100,
    "connected_clients": 50,
    "total_system_memory": 8192 * MIB,
    "loading": 0,
    "aof_enabled": 1,
    "rdb_last_bgsave_status": "ok",
    "aof_last_write_status": "ok",
}


SIZE = {"name": "size", "required": False, "default": 1, "annotation": "int"}


def worker(**changes: Any) -> dict[str, Any]:
    """What a worker says of itself that serves the queue ``gpu`` and knows one mark."""
    schema = {"mark": "far.away.Detect", "type": "proc", "stateful": False, "batches": False, "version": ""}
    schema |= {"arguments": [{"name": "size", "required": False, "default": 1}], "open": False}
    schema |= changes.pop("schema", {})
    return {
        "id": "gpubox.33.abc",
        "host": "gpubox",
        "pid": 33,
        "pool": "solo",
        "slots": 1,
        "queues": ["gpu"],
        "protocol": list(SPOKEN),
        "marks": {"far.away.Detect": schema},
        "interrupts": True,
        "clock": 0.01,
        "versions": {"celerypipe": VERSION, "codec": CODEC_VERSION, "celery": celery.__version__},
        **changes,
    }


def seen(*workers: dict[str, Any], server: dict[str, Any] | None = None, **changes: Any) -> Scene:
    """One warped node on the queue ``gpu``; ``node``: more of its definition."""
    node = {"mark": "far.away.Detect", "configuration": {}, "warp_configuration": {"queue": "gpu"}}
    node |= changes.pop("node", {})
    pipeline = Pipeline(name="p", nodes=[NodeDefinition(name="there", type="proc", warped=True, **node)])
    facts: dict[str, Any] = {"latency": 0.0002, "offset": 0.0, "budget": 256 * MIB, "declared": {}, **changes}
    info = SERVER if server is None else {**SERVER, **server}
    return Scene(pipeline, Address("box", 6379, password="secret"), info, workers, **facts)


def found(look: Scene) -> list[tuple[str, str]]:
    return [(finding.severity, finding.check) for finding in preflight.inspect(look)]


def the(look: Scene, check: str) -> Finding:
    """The one finding of a check."""
    (finding,) = [finding for finding in preflight.inspect(look) if finding.check == check]
    return finding


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert preflight.inspect(seen(worker(), worker(id="other", pid=34))) == []


# -- Redis ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "severity", "check", "text", "mend"),
    [
        ({"redis_version": "6.0.16"}, "error", "redis", "6.0.16 is too old", "install"),
        ({"role": "slave", "master_host": "main", "master_port": 6379}, "error", "role", "main:6379", "redis://main"),
        ({"redis_mode": "cluster"}, "error", "role", "cluster", "redis-server"),
        ({"loading": 1}, "error", "loading", "from disk", "INFO persistence"),
        ({"rdb_last_bgsave_status": "err"}, "error", "disk", "could not write", "BGSAVE"),
        (
            {"maxmemory_policy": "allkeys-lru", "maxmemory": 9000 * MIB},
            "warning",
            "eviction",
            "allkeys-lru",
            "CONFIG SET maxmemory-policy noeviction",
        ),
        ({"maxmemory_policy": "allkeys-lru"}, "note", "eviction", "allkeys-lru", "noeviction"),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": 9000 * MIB}, "note", "eviction", "again", "noeviction"),
        ({"maxmemory": 100 * MIB}, "warning", "memory", "98 MiB left, and a run may have 256", "maxmemory 514mb"),
        ({"maxmemory": 2 * MIB}, "error", "memory", "full (2 MiB)", "CONFIG SET maxmemory"),
        ({"total_system_memory": 128 * MIB}, "note", "memory", "126 MiB left", "byte_budget"),
        (
            {"maxclients": 100, "connected_clients": 93},
            "warning",
            "connections",
            "takes 7 more connections (maxclients is 100, 93 are open), and this run may need 8",
            "CONFIG SET maxclients 200",
        ),
        ({"aof_enabled": 0}, "note", "persistence", "since its last snapshot", "CONFIG SET appendonly yes"),
    ],
)
def test_what_redis_says_of_itself_is_judged(
    server: dict[str, Any], severity: str, check: str, text: str, mend: str
) -> None:
    finding = the(seen(worker(), server=server), check)
    assert (finding.severity, finding.place) == (severity, "Redis")
    assert text in finding.text
    assert mend in finding.mend
    assert "secret" not in str(finding)


def test_a_policy_that_evicts_what_has_a_ttl_is_nothing_without_a_bound() -> None:
    assert found(seen(worker(), server={"maxmemory_policy": "volatile-lru"})) == []


def test_a_wide_window_may_need_more_than_the_budget() -> None:
    limits = {"queue": "gpu", "window": 16_384}
    finding = the(seen(worker(), server={"maxmemory": 900 * MIB}, node={"warp_configuration": limits}), "memory")
    assert "1024 MiB on their way" in finding.text


def test_a_user_who_may_not_ask_info_is_told_what_is_not_known() -> None:
    look = seen(worker())
    hidden = Scene(look.pipeline, look.address, {}, look.workers, 0.0, 0.0, look.budget)
    assert found(hidden) == [("note", "redis")]


@pytest.mark.parametrize(("latency", "severity"), [(0.004, None), (0.02, "note"), (0.2, "warning")])
def test_a_long_way_is_said(latency: float, severity: str | None) -> None:
    assert found(seen(worker(), latency=latency)) == ([(severity, "latency")] if severity else [])


def test_clocks_that_differ_are_said_with_whose() -> None:
    assert "this machine's clock is 60 minutes ahead of" in the(seen(worker(), offset=-3600.0), "clock").text
    finding = the(seen(worker(clock=-30.0), worker(id="stranger", queues=["cpu"], clock=99.0)), "clock")
    assert (finding.severity, finding.place) == ("warning", "machine gpubox")
    assert "pid 33 is 30 s behind that of Redis" in finding.text


# -- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_no_worker", "on_error", "severity"),
    [("wait", "stop", "warning"), ("local", "stop", "note"), ("fail", "stop", "error"), ("fail", "skip", "warning")],
)
def test_a_missing_worker_is_as_bad_as_the_node_says(on_no_worker: str, on_error: str, severity: str) -> None:
    node = {"warp_configuration": {"queue": "gpu", "on_no_worker": on_no_worker}, "on_error": on_error}
    finding = the(seen(worker(queues=["gpu2"]), node=node), "worker")
    assert finding.severity == severity
    assert "no live worker serves queue 'gpu' (nearest live queue: 'gpu2')" in finding.text
    assert finding.mend == "CELERYPIPE_REDIS_URL='redis://:***@box:6379/0' celery -A celerypipe worker -Q gpu"


def test_a_mark_that_nobody_knows_is_an_error_one_that_somebody_knows_a_warning() -> None:
    ignorant = worker(id="other", pid=34, marks={"far.away.Detekt": {}})
    finding = the(seen(ignorant), "mark")
    assert finding.severity == "error"
    assert "no worker of queue 'gpu' knows the mark 'far.away.Detect'; did you mean 'far.away.Detekt'?" in finding.text
    assert finding.text.endswith("(its workers know far.away.Detekt)")
    assert finding.mend == f"correct the mark, or, if Detect is new in far.away, restart the worker: {COMMAND}"
    finding = the(seen(worker(), ignorant), "mark")
    assert finding.severity == "warning"
    assert "pid 34" in finding.text


def test_what_mends_an_unknown_mark_fits_what_the_worker_has() -> None:
    bare = worker(marks={"console": {}})
    finding = the(seen(bare), "mark")
    assert finding.text.endswith("(its workers know built-in nodes alone)")
    where = "in the folder from which far.away can be imported"
    assert finding.mend == f"restart the worker {where}: {COMMAND} -I far.away"
    finding = the(seen(bare, node={"mark": "tasks.gpu.Detect"}), "mark")
    assert finding.mend == f"restart the worker in the folder that holds tasks/: {COMMAND} -I tasks.gpu"
    finding = the(seen(worker(), node={"mark": "Detect"}), "mark")
    assert "knows the mark 'Detect'; did you mean 'far.away.Detect'?" in finding.text
    assert finding.mend == "write the mark with its module in front"
    finding = the(seen(bare, node={"mark": "detect"}), "mark")
    assert finding.mend == f"give the worker the plugin folder that has it: CELERYPIPE_PLUGINS=FOLDER {COMMAND}"


@pytest.mark.parametrize(
    ("node", "change", "severity", "check", "text"),
    [
        ({"configuration": {"sice": 2}}, {}, "error", "arguments", "did you mean 'size'?"),
        ({}, {"schema": {"stateful": True}}, "error", "stateful", "stateful"),
        ({}, {"schema": {"awaits": ["update"]}}, "error", "async", "update() is async"),
        ({"configuration": {"size": "a"}}, {"schema": {"arguments": [SIZE]}}, "error", "arguments", "a whole number"),
        ({"warp_configuration": {"queue": "gpu", "batch": {"size": 4}}}, {}, "error", "batch", "no update_batch"),
        (
            {"warp_configuration": {"queue": "gpu", "compression": "zstd"}},
            {"compressions": ["lz4"]},
            "error",
            "compression",
            "its worker on gpubox has no package",
        ),
        (
            {"timeout": 5},
            {"interrupts": False, "pool": "threads"},
            "warning",
            "timeout",
            "cannot stop what exceeds the timeout of 5 s: its pool is threads",
        ),
        (
            {},
            {"versions": {"celerypipe": "9", "codec": 99, "celery": celery.__version__}},
            "error",
            "codec",
            f"speaks codec 99, this machine {CODEC_VERSION}",
        ),
        (
            {},
            {"versions": {"celerypipe": "9", "codec": CODEC_VERSION, "celery": celery.__version__}},
            "warning",
            "celerypipe",
            f"has celerypipe 9, this machine {VERSION}",
        ),
        (
            {},
            {"versions": {"celerypipe": VERSION, "codec": CODEC_VERSION, "celery": "4.4"}},
            "note",
            "celery",
            "has celery 4.4",
        ),
    ],
)
def test_what_a_worker_says_of_itself_is_judged(
    node: dict[str, Any], change: dict[str, Any], severity: str, check: str, text: str
) -> None:
    finding = the(seen(worker(**change), node=node), check)
    assert finding.severity == severity
    assert text in finding.text
    assert finding.mend


def test_other_code_than_here_is_said_for_each_worker_and_else_that_workers_differ() -> None:
    one, two = worker(schema={"code": "source aa"}), worker(id="gpubox.34.ab", pid=34, schema={"code": "source bb"})
    assert found(seen(one, one, codes={"there": "source aa"})) == found(seen(one, codes={"there": ""})) == []
    finding = the(seen(one, two, codes={"there": "source aa"}), "code")
    assert finding.severity == "warning"
    assert finding.text.startswith("the worker on gpubox (pid 34) has other code of far.away.Detect than this machine")
    finding = the(seen(one, two), "code")
    assert finding.text == (
        "the workers of queue 'gpu' have different code of far.away.Detect: the worker on gpubox (pid 33); the worker "
        "on gpubox (pid 34)"
    )
    # A declared version answers for the code, and what is not known is nothing to compare.
    assert found(seen(one, worker(id="x", pid=35, schema={"code": ""}), codes={"there": "source aa"})) == []
    assert found(seen(worker(schema={"code": "version 1"}), codes={"there": "source aa"})) == []
    assert found(seen(one, codes={"there": "version 1"})) == []


def test_two_workers_of_a_queue_that_keep_results_in_different_places_are_told() -> None:
    one, other = worker(cache="the Redis of the run"), worker(id="x", pid=34, cache="s3://lab/results (read-only)")
    assert found(seen(one, worker(id="x", pid=34, cache="the Redis of the run"))) == []
    assert found(seen(one, worker(id="x", pid=34))) == []  # an older one says nothing of it
    finding = the(seen(one, other), "cache")
    assert finding.severity == "warning"
    assert "pid 34): s3://lab/results (read-only); the worker on gpubox (pid 33): the Redis of the run" in finding.text
    assert "the same CELERYPIPE_CACHE_URL" in str(finding)


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ({"program": "resize", "values": {"width": 3}}, ""),
        (
            {"program": "resise", "values": {"width": 3}},
            "has no program 'resise' on its list; did you mean 'resize'?; it has",
        ),
        ({"program": "resize"}, "takes the values width: width do not fit"),
        ({"program": "gone"}, "cannot run program 'gone': 'convert' is not there"),
    ],
)
def test_a_program_has_to_be_on_the_list_of_each_worker(configuration: dict[str, Any], said: str) -> None:
    lists = {
        "resize": {"values": ["width"], "missing": ""},
        "gone": {"values": [], "missing": "'convert' is not there"},
    }
    schema = {
        "mark": "program",
        "arguments": [{"name": "program", "required": True}, {"name": "values", "required": False}],
    }
    one = {**worker(programs=lists), "marks": {"program": {**schema, "type": "proc", "open": False}}}
    scene = seen(one, node={"mark": "program", "configuration": configuration})
    if not said:
        assert [finding for finding in preflight.inspect(scene) if finding.check == "program"] == []
        return
    finding = the(scene, "program")
    assert finding.severity == "error"
    assert said in str(finding)
    assert "to worker_configs/gpu.toml there and restart it" in str(finding)


def test_the_version_of_a_node_must_be_the_same_here_and_there() -> None:
    assert found(seen(worker(schema={"version": "1"}), declared={"there": "1"})) == []
    finding = the(seen(worker(schema={"version": "1"}), declared={"there": "2"}), "version")
    assert finding.severity == "error"
    assert "far.away.Detect is version '2' here and '1' on the worker on gpubox (pid 33)" in finding.text
    two = seen(worker(schema={"version": "1"}), worker(id="other", schema={"version": "2"}))
    finding = the(two, "version")
    assert finding.severity == "warning"
    assert "the versions '1' and '2'" in finding.text


# -- what a run makes of it -------------------------------------------------------------------------------------------


def test_workers_with_other_keys_are_an_error_where_nobody_else_is() -> None:
    keyring = Keyring.parse("0123456789abcdef0123456789abcdef")
    assert keyring is not None
    bare, ours = worker(), worker(keys=list(keyring.ids), id="gpubox.34.abc", pid=34)
    assert ("error", "keys") in found(seen(bare, keyring=keyring))
    assert "set CELERYPIPE_KEYS there" in the(seen(bare, keyring=keyring), "keys").mend
    assert "set CELERYPIPE_KEYS here" in the(seen(ours), "keys").mend
    assert the(seen(bare, ours, keyring=keyring), "keys").severity == "warning"
    assert not [each for each in found(seen(ours, keyring=keyring)) if each[1] == "keys"]


def test_workers_of_another_protocol_are_an_error_where_nobody_else_is() -> None:
    foreign = {"id": "old.7.ab", "host": "old", "pid": 7, "queues": ["gpu"], "slots": 0, "marks": {}, "versions": {}}
    assert found(seen(foreign)) == [("error", "protocol")]
    finding = the(seen(foreign), "protocol")
    assert "the worker on old (pid 7) speaks a protocol without a number, and this machine protocol 1" in finding.text
    assert finding.mend == "update celerypipe on old, and restart the worker"
    assert found(seen(worker(), {**foreign, "protocol": [9, 9]})) == [("warning", "protocol")]
    assert isinstance(preflight.error_of(preflight.inspect(seen(foreign))), ConfigError)


def test_errors_come_first_and_end_a_run_in_their_own_type() -> None:
    findings = preflight.inspect(seen(server={"aof_enabled": 0, "role": "slave"}))
    assert [finding.severity for finding in findings] == ["error", "warning", "note"]
    assert isinstance(preflight.error_of(findings), RedisUnavailable)
    assert {each[1] for each in found(seen(server={"loading": 1}))} == {"loading"}  # it tells nothing about workers
    nobody = seen(node={"warp_configuration": {"queue": "gpu", "on_no_worker": "fail"}})
    assert isinstance(preflight.error_of(preflight.inspect(nobody)), NoWorker)
    assert isinstance(preflight.error_of(preflight.inspect(seen(worker(schema={"stateful": True})))), ConfigError)
    assert preflight.error_of(preflight.inspect(seen())) is None


def test_the_commands_reach_the_redis_that_was_meant() -> None:
    assert seen().redis_cli == "redis-cli -u redis://:***@box:6379/0"
    look = seen()
    for url, cli in [
        ("unix:///run/r.sock?db=2", "redis-cli -s /run/r.sock -n 2"),
        ("unix:///r.sock", "redis-cli -s /r.sock"),
    ]:
        assert Scene(look.pipeline, read_address(url), {}, (), 0.0, 0.0, 0).redis_cli == cli


def test_preflight_refuses_a_node_that_its_workers_know_as_stateful() -> None:
    remembering = worker(schema={"stateful": True, "snapshots": True})
    finding = the(seen(remembering, node={"cache": True}), "cache")
    assert (finding.severity, finding.place) == ("error", "node 'there' (far.away.Detect)")
    assert "stateful" in finding.text
    assert finding.mend == "leave it out"
    assert not [each for each in preflight.inspect(seen(remembering)) if each.check == "cache"]
    assert not [each for each in preflight.inspect(seen(worker(), node={"cache": True})) if each.check == "cache"]


def test_a_node_that_writes_is_a_note() -> None:
    finding = the(seen(worker(schema={"writable": True})), "writable")
    assert (finding.severity, finding.place) == ("note", "node 'there' (far.away.Detect)")
    assert finding.text.startswith("it says writable = True, so all arrays that it is given are copied")
