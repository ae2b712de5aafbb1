"""What our channel makes of what came, before a worker sees it."""

from __future__ import annotations

import zlib
from typing import Any

import kombu.compression
import pytest
from kombu.message import Message as TaskMessage

from celerypipe.celery.application import make_app
from celerypipe.celery.broker import OURS, Channel

BOMB = zlib.compress(bytes(1 << 24))
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
    assert theirs.body == bytes(1 << 24)
    assert kombu.compression.decompress(BOMB, "zlib") == theirs.body
