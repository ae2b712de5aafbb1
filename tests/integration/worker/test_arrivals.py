"""Spawned processes on their way: for as long as one is, nobody is late; not where they never arrive."""

from __future__ import annotations

from celerypipe.mailbox import hints
from celerypipe.mailbox.holder import Process
from celerypipe.message.message import new_id
from celerypipe.redis.connection import Client
from celerypipe.worker.arrivals import Arrivals


def test_a_slot_is_coming_until_its_process_is_there_and_not_where_they_end_on_their_way(redis_client: Client) -> None:
    queue = f"arriving{new_id()}"
    arrivals = Arrivals([queue], lambda pid: Process("host", pid, "ab"))
    arrivals.began(1)
    arrivals.began(2)
    assert not hints.is_freeing(redis_client, queue)  # nobody knows of the worker
    arrivals.tell(lambda action: action(redis_client))
    assert hints.is_freeing(redis_client, queue)
    arrivals.arrived(1)
    hints.say_replaced(redis_client, [queue], Process("host", 1, "ab"))  # it has its first task
    assert hints.is_freeing(redis_client, queue)
    arrivals.ended(2)
    assert not hints.is_freeing(redis_client, queue)
    arrivals.began(3)
    assert not hints.is_freeing(redis_client, queue)
    arrivals.arrived(3)
    arrivals.ended(3)
    arrivals.began(4)
    assert hints.is_freeing(redis_client, queue)
    arrivals.arrived(4)
    assert not hints.is_freeing(redis_client, queue)
