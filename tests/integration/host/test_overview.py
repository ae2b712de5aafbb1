"""Hosts as others see them: of another protocol, with other keys, written by a stranger, and how each is told."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest
from click.testing import CliRunner

from celerypipe.cli.machines.hosts import hosts
from celerypipe.host.machine import Gpus, machine_now
from celerypipe.host.overview import read_host, read_hosts
from celerypipe.host.records import HostRecord, host_in
from celerypipe.mailbox.holder import Process
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import Keyring

RECORD: dict[str, Any] = {
    "name": "box",
    "hostname": "there",
    "machine": {"cores": 1, "memory": 2, "memory_used": 1, "load": 0.5},
    "queues": {"gpu": 1},
}


@pytest.fixture
def said(redis_client: Client) -> Any:
    """Have a host be there that says this."""

    def say(name: str, **facts: Any) -> None:
        process = Process(socket.gethostname(), os.getpid(), "ab12")
        names = redis_client.names
        redis_client.set(names.heartbeat(process.host, process.life), f" {process.pid} ", px=60_000)
        record = {**RECORD, "name": name, "place": str(process), "protocol": [1, 1], **facts}
        redis_client.set(names.host(name), json.dumps(record), px=60_000)
        redis_client.zadd(names.hosts, {name: redis_client.now() * 1000})

    yield say
    redis_client.delete(redis_client.names.hosts)


def test_one_that_fits_is_up(said: Any, redis_client: Client) -> None:
    said("fits")
    found = read_host(redis_client, "fits", None)
    assert (found.state, found.why) == ("up", "")
    assert found.require_up().queues == {"gpu": 1}


@pytest.mark.parametrize(
    ("clock", "told"), [(3600.0, "is 60 min ahead of"), (-2.5, "is 2.5 s behind"), (0.4, ""), (-0.4, "")]
)
def test_a_clock_that_differs_from_that_of_redis_is_told(
    said: Any, redis_url: str, redis_client: Client, clock: float, told: str
) -> None:
    said("fits", started=redis_client.now() + clock, clock=clock)
    shown = CliRunner().invoke(hosts, ["fits", "--redis", redis_url])
    assert shown.exit_code == 0, shown.output
    assert (f"fits: its clock {told} that of Redis" in shown.output) == bool(told), shown.output
    assert ("clock" in shown.output) == bool(told), shown.output


@pytest.mark.parametrize(
    ("spoken", "cure"),
    [([99, 99], "update celerypipe here, to the version that there has"), ([0, 0], "update celerypipe on there")],
)
def test_one_of_another_protocol_is_refused_with_who_is_older(
    said: Any, redis_client: Client, spoken: list[int], cure: str
) -> None:
    said("other", protocol=spoken, machine={"all": "different"}, queues=3)
    found = read_host(redis_client, "other", None)
    assert found.state == "refused"
    assert cure in found.why
    assert "restart the worker" not in found.why


def test_one_with_other_keys_is_refused(said: Any, redis_client: Client) -> None:
    mine, other = Keyring.parse("a" * 16), Keyring.parse("b" * 16)
    assert mine is not None
    assert other is not None
    said("keyed", keys=other.ids)
    assert read_host(redis_client, "keyed", other).state == "up"
    assert "takes signed messages only: set CELERYPIPE_KEYS here" in read_host(redis_client, "keyed", None).why
    assert "has other keys" in read_host(redis_client, "keyed", mine).why


@pytest.mark.parametrize("text", [b"", b"[]", b"nonsense", b'{"protocol": 3}', b'{"protocol": [1, 1]}', b"[" * 9999])
def test_what_a_stranger_wrote_takes_nobody_down(said: Any, redis_client: Client, text: bytes) -> None:
    said("good")
    said("strange")
    redis_client.set(redis_client.names.host("strange"), text)
    found = {each.name: each.state for each in read_hosts(redis_client, None)}
    assert found["good"] == "up"
    assert found["strange"] == "gone"
    assert host_in(text) is None


def test_one_that_was_never_seen_is_told_how_to_start_it_if_it_can_be_called_so(redis_client: Client) -> None:
    assert "celerypipe host --name box" in read_host(redis_client, "box", None).why
    assert "'bo x' is no name for a host" in read_host(redis_client, "bo x", None).why


def test_this_machine_tells_of_itself() -> None:
    now = machine_now(Gpus())
    assert 0 < now.cores <= (os.cpu_count() or 1)
    assert 0 < now.memory_used < now.memory
    assert HostRecord("box", "a.1.b", "there", now, {}).machine == now
