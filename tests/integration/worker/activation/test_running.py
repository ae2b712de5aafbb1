"""A node at work: what becomes of its instance when a message is interrupted."""

from __future__ import annotations

import threading

import pytest

from celerypipe import Message, Proc
from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.record import Record
from celerypipe.message.message import new_id
from celerypipe.redis.connection import Client
from celerypipe.worker.activation import running
from celerypipe.worker.activation.alarm import Alarm
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.keeper import Lease
from celerypipe.worker.activation.running import Running


class Locked(Proc):
    """Lets go of what it has only with a lock that somebody holds for good."""

    lock = threading.Lock()

    def update(self, message: Message) -> Message:
        return message

    def destroy(self) -> None:
        with self.lock:
            pass


def test_who_waits_for_a_lock_to_let_go_is_not_waited_for(
    redis_client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "LET_GO", 0.1)
    instance = Instance(Listing("t", Locked, "import"), {}, name="node")
    instance.warm()
    with Alarm(DeadMan(None)) as alarm, Locked.lock:
        lease = Lease(Mailbox(new_id(), "node"), 0, "host.1.token.0", alarm, queues=["q"])
        Running(redis_client, lease, Record("t", {}, None, 1.0, 1.0, 9.0, 64, 1 << 20), instance).let_go()
    assert instance.node is None
    assert "its destroy() was interrupted too (timeout)" in caplog.text
