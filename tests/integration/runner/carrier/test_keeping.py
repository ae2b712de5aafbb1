"""What a run asks of Redis besides its messages: a few round trips now and then, however many nodes it has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.redis.connection import Client, Command, connect
from celerypipe.runner.carrier.upkeep import Upkeep
from tests.nodes.stateful import CONFIG
from tests.runs.reading import Reading
from tests.servers import RedisServer, StartWorker, eventually

#: Rounds that are looked at, and before them those in which the last bells of the beginning are rung.
ROUNDS, FIRST = 4, 2
#: More commands of these rounds: a renewal of what lies apart, a look.
FEW = 4
#: What the connections of a run are called: the fourth is its heartbeat's, as the worker has one.
OWN = ["celerypipe-keep", "celerypipe-post", "celerypipe-reply"]


def wide(count: int, delay: float, *, pinned: bool) -> Pipeline:
    """So many warped nodes side by side; each gets every message."""
    mark = "tests.nodes.stateful.Forgetful" if pinned else "tests.nodes.remote.Echo"
    options = {"type": "proc", "mark": mark, "warped": True, "configuration": {"delay": delay}}
    warp = {"queue": "wide", "timeout": 60, "pinned": pinned}
    nodes = [NodeDefinition(name=f"n{number}", warp_configuration=warp, **options) for number in range(count)]
    return Pipeline(name="wide", nodes=nodes, links=[])


class Asked:
    """The round trips of this process, of the threads that keep a run and send its messages, and commands of all.

    By the rounds of keeping, and not by the clock: how many there are of these in a second is up to the machine.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trips = self.commands = 0
        self.rounds: list[tuple[int, int]] = []
        ask, execute, keep = Client.ask, Client.execute_command, Upkeep._keep

        def counted(client: Client, *commands: Command) -> None:
            self._add(len(commands))
            ask(client, *commands)

        def executed(client: Client, *command: Any, **options: Any) -> Any:
            self._add(1)
            return execute(client, *command, **options)

        def kept(upkeep: Upkeep, client: Client) -> None:
            self.rounds.append((self.trips, self.commands))
            keep(upkeep, client)

        monkeypatch.setattr(Client, "ask", counted)
        monkeypatch.setattr(Client, "execute_command", executed)
        monkeypatch.setattr(Upkeep, "_keep", kept)

    def _add(self, commands: int) -> None:
        self.trips += threading.current_thread().name in ("celerypipe-keep", "celerypipe-post")
        self.commands += commands * threading.current_thread().name.startswith("celerypipe-")

    def in_rounds(self) -> tuple[int, int]:
        """Return the trips and commands of so many rounds."""
        self.rounds.clear()
        eventually(lambda: len(self.rounds) > FIRST + ROUNDS, "rounds of keeping")
        (first, began), (last, ended) = self.rounds[FIRST], self.rounds[FIRST + ROUNDS]
        return last - first, ended - began


@pytest.mark.parametrize(
    ("delay", "pinned"), [(0.0, False), (30.0, False), (30.0, True)], ids=["idle", "busy", "pinned"]
)
def test_a_run_of_many_nodes_asks_as_seldom_as_one_of_one(
    start_doomed: StartWorker, private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, delay: float, pinned: bool
) -> None:
    slots = 30 if pinned else 1
    start_doomed("wide", url=private_redis.url, pool="threads", concurrency=slots, config=CONFIG)
    asked = Asked(monkeypatch)
    found = []
    for count in (1, 24):
        over = threading.Event()

        def inputs(over: threading.Event = over) -> Iterator[Message]:
            yield Message(0)
            over.wait()

        runner = Runner(private_redis.url)
        reading = Reading(runner.stream(wide(count, delay, pinned=pinned), inputs()))
        with connect(private_redis.url) as client:
            if delay:
                eventually(lambda: list(client.scan_iter("celerypipe:mailbox:*:n0")), "its mailboxes")
            else:
                reading.wait_for(count)
            found.append(asked.in_rounds())
            names = [each["name"] for each in client.client_list()]
            assert sorted(name for name in names if name in OWN or name == "celerypipe-clock") == OWN
            assert names.count("celerypipe-heartbeat") == 2
        over.set()
        runner.cancel()
        reading.join(20)
    (trips, commands), (trips_of_many, commands_of_many) = found
    assert trips_of_many <= trips + FEW
    if not delay:  # who is idle renews little; the process that says that it lives adds one a second
        assert commands_of_many <= commands + FEW
        assert commands <= (4 - 1) * ROUNDS + FEW
