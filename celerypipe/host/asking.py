"""A host is asked for something, and answers within two seconds (more where Redis is far away), or does nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from celerypipe.celery.item import Items
from celerypipe.errors import HostError
from celerypipe.host.allowed import QUEUE
from celerypipe.host.records import TASK, Granted, Request, WorkerSet, written
from celerypipe.redis.connection import Client, accepted
from celerypipe.redis.signing import Keyring

#: Seconds that a host has to answer, after which it does not do it any more.
PATIENCE = 2.0
#: Round trips to Redis that a wish takes at most; beside one that is near they are nothing.
TRIPS = 15
#: What a request may be about.
RequestKind = Literal["start", "stop", "restart", "scale"]


class HostClient:
    """Requests that are on their way, to one host each."""

    def __init__(self, client: Client, keyring: Keyring | None) -> None:
        self._client, self._keyring, self._items = client, keyring, Items()

    def one(self, host: str, kind: RequestKind, wanted: WorkerSet) -> None:
        """Ask one host; :class:`HostError` says why it does not do it."""
        ((_, error),) = self.all([(host, kind, wanted)])
        if error:
            raise HostError(error)

    def all(self, wishes: Sequence[tuple[str, RequestKind, WorkerSet]]) -> list[tuple[WorkerSet, str]]:
        """Ask several hosts at once; return for each wish why nothing came of it, empty if something did."""
        client = self._client
        asked = time.monotonic()
        now = client.now()
        # The host asks Redis too, for one wish after the other; it may be as far away.
        patience = PATIENCE + TRIPS * (1 + len(wishes)) * (time.monotonic() - asked)
        until = int((now + patience) * 1000)
        requests = [(host, Request(kind, until, wanted)) for host, kind, wanted in wishes]
        items = [
            (
                client.names.queue(f"{QUEUE}{host}"),
                self._items.item(
                    TASK,
                    [written(request, host, self._keyring)],
                    queue=f"{QUEUE}{host}",
                    shown=f"({request.kind!r}, {request.set.queue!r}, {request.set.count})",
                ),
            )
            for host, request in requests
        ]
        accepted(client.together(*(("LPUSH", queue, item) for queue, item in items)))
        answers: dict[str, Granted] = {}
        waiting = {client.names.answer(request.id): request.id for _, request in requests}
        while waiting and (left := until / 1000 - client.now()) > 0:
            found = client.call("BLPOP", *waiting, f"{max(left, 0.01):.2f}")  # 0 is for ever
            if found is None:
                break
            answers[waiting.pop(found[0].decode())] = msgspec.json.decode(found[1], type=Granted)
        if waiting:  # nobody took them: they would be void anyway
            client.together(*(("LREM", queue, 1, item) for queue, item in items))
        silence = f"did not answer within {patience:.1f} s, and will not do it: see its log, and restart it"
        return [
            (request.set, answers[request.id].error if request.id in answers else f"host {host} {silence}")
            for host, request in requests
        ]
