"""The runner's watch over its stateful warped nodes: it reads their snapshots, and goes back to them when it must."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celerypipe.errors import CodecError, ConfigError, NodeError, WorkerLost
from celerypipe.mailbox.blob.blob import INLINE_LIMIT, Gone, Store
from celerypipe.mailbox.failure import said_of
from celerypipe.mailbox.fence import GIVEN_UP, Fate, Fence, Seen
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.redis.connection import Client, accepted
from celerypipe.redis.keys import DATA_TTL
from celerypipe.redis.query import Query, ask
from celerypipe.redis.script import call
from celerypipe.runner.carrier.doubts import Doubts
from celerypipe.runner.carrier.failures import error_of
from celerypipe.runner.carrier.holdings import Holdings
from celerypipe.runner.carrier.sender import Sender
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.retained import Retained
from celerypipe.runner.warp.warp import Warp

#: Seconds between two renewals of a snapshot that lies apart.
RENEW = DATA_TTL / 4000
#: Seconds between two looks at a node that has nothing to do.
IDLE_LOOK = 5.0
#: Seconds that the process of a pinned node may be held up.
HELD_UP = 3.0


@dataclass(slots=True)
class News:
    """A snapshot that is newer than the one here: up to where it goes, its bytes, and their blob if they lie apart.

    ``rewound``: how often the node had gone back when it was asked for; ``altered``: nobody of ours wrote it; ``gone``:
    a newer one has taken its place a moment ago.
    """

    rewound: int
    query: Query
    last: int = -1
    data: bytes | None = None
    blob: str = ""
    altered: bool = False
    gone: bool = False


class States:
    """Looks after the stateful warped nodes of one run.

    The caller holds the lock of the sender, but for what is only read: :meth:`asking` and :meth:`news`.
    """

    def __init__(self, course: Course, holdings: Holdings, sender: Sender, doubts: Doubts) -> None:
        self.course = course
        self._holdings = holdings
        self._sender = sender
        self._doubts = doubts
        self._store = Store(course.run_id, signed=holdings.keyring is not None, names=holdings.names)
        self._blobs: dict[str, tuple[str, float]] = {}
        self._unheld: dict[str, float] = {}
        #: How often each went back to a snapshot.
        self._rewound: Counter[str] = Counter()
        self._looked: dict[str, float] = {}

    def asking(self, warps: Iterable[Warp]) -> dict[Warp, Query]:
        """Return what is to be asked for :meth:`see`; nothing of a node that has nothing to do, for a while."""
        found = {}
        now = time.monotonic()
        for warp in warps:
            retained = warp.retained
            if retained is None:
                continue
            if warp.flights or retained.flights or now - self._looked.get(warp.name, 0.0) > IDLE_LOOK:
                self._looked[warp.name] = now
                fence = self._fence(warp)
                found[warp] = Query(fence.looking_closer() if warp.limits.pinned else fence.looking())
        return found

    def news(self, client: Client, answers: Mapping[Warp, Any]) -> dict[Warp, News]:
        """Read the snapshots that are newer than those here, in two round trips; no lock is held meanwhile.

        ``answers``: what Redis answered to :meth:`asking`.
        """
        found: dict[Warp, News] = {}
        for warp, answer in answers.items():
            retained = warp.retained
            if retained is None or warp.limits.pinned:
                continue
            seen = self._fence(warp).seen(answer)
            if seen is None or seen.last <= retained.last:
                continue
            if retained.answered_up_to(seen.last):
                found[warp] = News(self._rewound[warp.name], Query(self._fence(warp).reading()))
        ask(client, [each.query for each in found.values()])
        for warp, each in found.items():
            try:
                each.last, each.data, each.blob = self._fence(warp).snapshot(each.query.accepted)
            except (CodecError, ConfigError):
                each.altered = True
        contents = self._store.open(client, [each.blob for each in found.values() if each.blob])
        for each in found.values():
            if each.blob:
                try:
                    each.data = bytes(contents.content(each.blob))
                except Gone as lost:
                    each.altered, each.gone = lost.altered, not lost.altered
                except CodecError:
                    each.altered = True
        return found

    def see(self, client: Client, warp: Warp, answer: Any, news: News | None) -> None:
        """Take a snapshot, and what its activation has to say; ``answer``: to what was asked a moment ago."""
        retained = warp.retained
        about = self._fence(warp).fate(answer) if warp.limits.pinned else None
        seen = self._fence(warp).seen(answer) if about is None else about.seen
        made = warp.name in self._holdings.states
        if retained is None or seen is None or seen.trouble is not None or not made:
            self.watch(client, warp)  # asked again, since it may lead back to a snapshot: nobody else goes back now
        elif about is not None:
            retained.forget()
            self._see_that_it_lives(warp, seen.token, about)
        elif retained.doubtful or seen.rewind:
            self.watch(client, warp)
        else:
            self._go_on(client, warp, retained, seen, news)

    def watch(self, client: Client, warp: Warp) -> None:
        """Make its state at first; then read its snapshots, and what its activation has to say."""
        retained = warp.retained
        if retained is None:
            return
        name = warp.name
        seen = self._fence(warp).look(client)
        if name not in self._holdings.states:
            self._holdings.states.add(name)
            self.rewind(client, warp, "")
        elif seen is None:
            self.rewind(client, warp, "Redis lost its state")
        elif seen.trouble is not None:
            try:
                self.course.fail(_error(warp, seen.trouble, seen.token))
            except CodecError:  # nobody of ours said that
                self._altered(client, warp)
        elif warp.limits.pinned:
            retained.forget()
            fence = self._fence(warp)
            self._see_that_it_lives(warp, seen.token, fence.fate(call(client, fence.looking_closer())))
        elif seen.rewind or retained.doubtful:
            self.rewind(client, warp, "its worker misses messages of its last second")
        else:
            self._go_on(client, warp, retained, seen)

    def _fence(self, warp: Warp) -> Fence:
        return Fence(self._mailbox(warp))

    def _mailbox(self, warp: Warp) -> Mailbox:
        return self._holdings.mailboxes[warp.name]

    def _go_on(self, client: Client, warp: Warp, retained: Retained, seen: Seen, news: News | None = None) -> None:
        if warp.circuit is not None and warp.circuit.state != "closed" and retained.merge():
            self.rewind(client, warp, "")
            return
        self._renew(client, warp.name, seen.blob)
        if news is None or news.gone or news.rewound != self._rewound[warp.name]:
            return
        if news.altered:
            self._altered(client, warp)
        elif retained.answered_up_to(news.last):
            for flight in retained.saved(news.last, news.data):
                warp.carrier.settled(warp, flight)

    def missing(self, client: Client, there: Mapping[Warp, Container[tuple[int, int]]]) -> set[Warp]:
        """Return those that miss the word that a message was given up: their activation waits for it for ever.

        ``there``: numbers and tries of what was in the mailbox of each a moment ago.
        """
        words = {
            warp: left
            for warp, places in there.items()
            if warp.retained is not None and not warp.limits.pinned
            if (left := [word for word in warp.retained.given_up() if (word, GIVEN_UP) not in places])
        }
        # After the mailbox: what a snapshot took out of that is in it.
        queries = {warp: Query(self._fence(warp).looking()) for warp in words}
        ask(client, queries.values())
        seen = {warp: self._fence(warp).seen(query.accepted) for warp, query in queries.items()}
        return {warp for warp, state in seen.items() if any(state is None or word > state.last for word in words[warp])}

    def _altered(self, client: Client, warp: Warp) -> None:
        self._doubts.add(warp.name, "state")
        self.rewind(client, warp, "somebody altered its state")

    def rewind(self, client: Client, warp: Warp, why: str) -> None:
        """Go back to the snapshot that is here, and send every message since once more."""
        retained = warp.retained
        if retained is None:
            return
        if why and warp.limits.pinned:
            self.course.fail(_gone(warp, f"{why}, and a pinned node has no snapshot to go back to", ""))
            return
        self._rewound[warp.name] += 1
        retained.doubtful = False  # who doubts from now on has another one follow
        data, flights = retained.data, retained.since(self._sender.waits())
        if why:
            self.course.say(
                f"{warp.name}: {why}; it continues from the snapshot after message {retained.last + 1}, "
                f"and {len(flights)} messages are run again"
            )
        if data is not None and len(data) > INLINE_LIMIT:
            blob, storing = self._store.put([data])
            self._fence(warp).rewind(client, retained.last, ("blob", blob.encode(), storing))
        else:
            self._fence(warp).rewind(client, retained.last, ("data" if data is not None else "", data or b"", ()))
        for flight in flights:
            warp.carrier.post(warp, flight, wait=False)

    def _renew(self, client: Client, name: str, blob: str) -> None:
        before, renewed = self._blobs.get(name, ("", 0.0))
        now = time.monotonic()
        if not blob or before != blob:
            self._blobs[name] = (blob, now)
        elif now - renewed > RENEW:
            self._blobs[name] = (blob, now)
            chunks = self._store.keys_of(blob)
            accepted(client.together(*[("PEXPIRE", chunk, DATA_TTL) for chunk in chunks]))

    def _see_that_it_lives(self, warp: Warp, token: str, about: Fate) -> None:
        """Nobody can go on for the process of a pinned node: when it is dead, or its bell gone, its state is lost.

        Not at once, unless somebody saw it end: nobody else takes the bell, so a process that was held up takes it
        again.
        """
        gone = "the process that kept its state is gone"
        if about.death is not None:
            self.course.fail(_gone(warp, f"{gone}: {about.death}", token))
        elif about.keeps:
            self._unheld.pop(warp.name, None)
        elif time.monotonic() - self._unheld.setdefault(warp.name, time.monotonic()) > HELD_UP:
            self.course.fail(_gone(warp, gone, token))

    def leave(self, client: Client) -> None:
        """Remove all of it: the run is over."""
        fences = [Fence(self._holdings.mailboxes[name]) for name in self._holdings.states]
        seen = [found for fence in fences if (found := fence.look(client))]
        chunks = [chunk for found in seen for chunk in self._store.keys_of(found.blob)]
        if fences:
            accepted(client.together(("UNLINK", *[fence.key for fence in fences], *chunks)))


def _gone(warp: Warp, why: str, token: str) -> WorkerLost:
    worker = _place(token)
    where = f" ({worker})" if worker else ""
    return WorkerLost(
        f"{warp.name}: {why}{where}; start the run again, or give the node snapshot() and restore(state) and leave "
        '"pinned" out',
        node=warp.name,
        worker=worker,
    )


def _error(warp: Warp, trouble: bytes, token: str) -> NodeError | ConfigError:
    """What an activation says of the state, as the error that ends the run. Raises :class:`CodecError`."""
    kind, text, traceback, _ = said_of(trouble)
    worker = _place(token)
    return error_of(warp.name, kind, text, traceback, worker=worker, says=worker)


def _place(token: str) -> str:
    process = Holder.read(token).process
    return f"worker {process.where}" if process.pid else ""
