"""What our channel makes of what came, before a worker sees it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import kombu.compression
import pytest
from kombu import Connection
from kombu.message import Message as TaskMessage
from kombu.transport import redis, virtual

from celerypipe.celery.application import make_app
from celerypipe.celery.broker import OURS, Channel

BOMB = zlib.compress(bytes(1 << 20))
PROPERTIES = {"delivery_tag": "tag", "delivery_info": {"exchange": "", "routing_key": "queue"}}


class Bare:
    """A channel without a Redis, for messages to come from."""

    def decode_body(self, body: Any, _: Any) -> Any:
        return body


def arriving(**headers: Any) -> Any:
    return Channel.Message({"body": BOMB, "headers": headers, "properties": PROPERTIES}, channel=Bare())


@pytest.mark.parametrize("way", ["application/x-gzip", "zlib", "no such way", 7])
def test_a_packed_task_is_refused_before_it_is_unpacked(way: Any) -> None:
    with pytest.raises(ValueError, match=r"it is packed .* unpacks none"):
        arriving(compression=way)
    assert arriving(compression=None).body is BOMB
    assert arriving().body is BOMB


def test_every_channel_of_ours_refuses_it_and_others_of_the_process_unpack_theirs() -> None:
    assert {transport.Channel.Message for transport in OURS.values()} == {Channel.Message}
    make_app({})
    theirs = TaskMessage(body=BOMB, headers={"compression": "application/x-gzip"})
    assert not theirs.errors
    assert theirs.body == bytes(1 << 20)
    assert kombu.compression.decompress(BOMB, "zlib") == theirs.body


def _lost_acknowledgement() -> bool:
    def away(*_: Any) -> Any:
        raise ConnectionError

    qos = redis.QoS(SimpleNamespace(conn_or_acquire=away, do_restore=False), 1)
    virtual.QoS.append(qos, None, "tag")
    with pytest.raises(ConnectionError):
        qos.ack("tag")
    return not qos.can_consume()


def _no_task() -> bool:
    channel = SimpleNamespace(
        client=SimpleNamespace(connection=None, parse_response=lambda *_: (b"queue", b"no task")),
        connection=SimpleNamespace(_deliver=None),
        connection_errors=(),
        sep=",",
        _queue_cycle=SimpleNamespace(rotate=str),
        _flush_brpop_reauth=dict,
    )
    with pytest.raises(ValueError, match="Expecting value"):
        redis.Channel._brpop_read(channel)
    return True


def _client_for_each() -> bool:
    channel = SimpleNamespace(_create_client=object)
    with redis.Channel.conn_or_acquire(channel) as one, redis.Channel.conn_or_acquire(channel) as other:
        return one is not other


def _secret_shown() -> bool:
    return "secret" in Connection("redis+socket://:secret@/tmp/redis.sock").info()["hostname"]


def _transport_not_heard() -> bool:
    found = Connection("redis+socket:///tmp/redis.sock", transport="celerypipe.celery.broker:Transport")
    return found.get_transport_cls() is redis.Transport


#: A fault of kombu's → what we have against it.
FAULTS: dict[Callable[[], bool], str] = {
    _lost_acknowledgement: "QoS.ack",
    _no_task: "Popper, Channel._brpop_read",
    _client_for_each: "Channel.conn_or_acquire",
    _secret_shown: "Connection.info",
    _transport_not_heard: "Connection.get_transport_cls",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_of_kombu_that_we_mend_is_still_there(fault: Callable[[], bool]) -> None:
    assert fault(), f"kombu has mended it: take away {FAULTS[fault]}"
