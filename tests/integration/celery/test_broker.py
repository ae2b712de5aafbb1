"""Celery's own part of the way: our transport, and the events of tasks."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import Any

import pytest
from kombu import Connection as StockConnection
from redis import RedisError

from celerypipe.celery.application import make_app
from celerypipe.celery.broker import Channel, SentinelTransport, Transport
from celerypipe.redis.connection import Client, connect
from tests.nodes.remote import CONFIG
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.task import connection_to


def channel_of(url: str) -> Any:
    connection = make_app({"CELERYPIPE_REDIS_URL": url}).connection_for_write()
    return connection.default_channel


def test_every_redis_url_is_served_by_our_transport_and_others_are_left_alone(redis_url: str) -> None:
    assert isinstance(channel_of(redis_url), Channel)  # a unix socket
    app = make_app({})
    for url in ("redis://localhost:1/0", "rediss://localhost:1/0"):
        assert app.connection_for_write(url).get_transport_cls() is Transport
    assert connection_to("sentinel://localhost:1,localhost:2/mymaster/3").get_transport_cls() is SentinelTransport
    url = "memory://"
    assert app.connection_for_write(url).get_transport_cls() is StockConnection(url).get_transport_cls()


def test_a_channel_keeps_one_client_which_connects_anew_after_a_fork(redis_url: str, redis_client: Client) -> None:
    channel = channel_of(redis_url)
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
    channel._after_fork()
    with channel.conn_or_acquire() as third:
        assert third.ping()
    given = object()
    with channel.conn_or_acquire(given) as fourth:
        assert fourth is given


def test_publishing_goes_on_after_redis_was_away(private_redis: RedisServer) -> None:
    app = make_app({"CELERYPIPE_REDIS_URL": private_redis.url})
    with connection_to(private_redis.url) as connection:
        producer = app.amqp.Producer(connection, auto_declare=False)

        def send() -> bool:
            try:
                app.send_task("mark", ["bell"], queue="again", producer=producer, retry=False, declare=())
            except Exception:  # noqa: BLE001  # whatever Celery raises while Redis is away
                return False
            return True

        assert send()
        private_redis.stop()
        assert not send()
        private_redis.start()
        eventually(send, "a task sent")
    with connect(private_redis.url) as client:
        assert client.llen("again") >= 1


def test_a_message_whose_acknowledgement_got_lost_holds_no_slot(private_redis: RedisServer) -> None:
    app = make_app({"CELERYPIPE_REDIS_URL": private_redis.url})
    app.send_task("mark", ["bell"], queue="lost", retry=False, declare=())
    channel = channel_of(private_redis.url)
    channel.basic_qos(0, 1, False)
    message = channel.basic_get("lost")
    assert not channel.qos.can_consume(), "one slot, and it is taken"
    private_redis.stop()
    with pytest.raises(RedisError):
        channel.basic_ack(message.delivery_tag)
    assert channel.qos.can_consume()


def test_events_of_a_task_leave_soon_and_in_order_though_nothing_waits_for_them(
    redis_url: str, redis_client: Client, start_worker: StartWorker
) -> None:
    start_worker("heard", pool="prefork", concurrency=1, config=CONFIG)
    heard: list[tuple[float, str]] = []
    listening = threading.Event()

    def listen() -> None:
        with connect(redis_url, timeout=20.0) as client, client.pubsub() as listener:
            listener.psubscribe("/*.celeryev/task.multi")
            for item in listener.listen():
                listening.set()
                if item["type"] == "pmessage":
                    events = json.loads(base64.b64decode(json.loads(item["data"])["body"]))
                    heard.extend((time.time() - event["timestamp"], event["type"]) for event in events)
                if any(kind == "task-succeeded" for _, kind in heard):
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert listening.wait(10)
    app = make_app({"CELERYPIPE_REDIS_URL": redis_url})
    app.send_task(
        "tests.nodes.remote.Echo", [[1, 1], "run-that-is-over", "node", 0, "token"], queue="heard", retry=False
    )
    thread.join(20)
    assert [kind for _, kind in heard] == ["task-received", "task-started", "task-succeeded"]
    assert min(late for late, _ in heard) < 0.15  # not at the next beat of the worker's loop, 0.2 s later
