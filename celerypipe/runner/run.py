"""One execution of a pipeline: its stations, put together and taken apart."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.instance import Instance
from celerypipe.definition.graph import Graph
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import ConfigError, NodeError, RunCancelled
from celerypipe.mailbox.orders import Order
from celerypipe.mailbox.presence import Presence
from celerypipe.message.message import Message
from celerypipe.redis.connection import Client
from celerypipe.runner.assembly import Assembly
from celerypipe.runner.carrier.carrier import RedisCarrier
from celerypipe.runner.carrier.listener import CarrierListener
from celerypipe.runner.carrier.loopback import Loopback
from celerypipe.runner.control import Control
from celerypipe.runner.folder.folder import Folder
from celerypipe.runner.folder.letter import DeadLetter
from celerypipe.runner.folder.letters import PLACE, DeadLetters
from celerypipe.runner.folder.recording import Recording
from celerypipe.runner.provisions import Provisions
from celerypipe.runner.reloader import Reloader
from celerypipe.runner.replay import Replay, concerned, no_loose_ends, starts_of
from celerypipe.runner.report import Report, State, counted
from celerypipe.runner.resume import close_journal, open_journal
from celerypipe.runner.stations.advance import advance
from celerypipe.runner.stations.cache import RunCache
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.local import LocalStation
from celerypipe.runner.stations.reader import Outflow
from celerypipe.runner.stations.source import SourceStation
from celerypipe.runner.stations.station import Station
from celerypipe.runner.warmup import warm_up
from celerypipe.runner.warp.downstream import only_next
from celerypipe.runner.warp.warp import Warp

#: Seconds that nodes get to let go of their resources once the run is over, and once it was cancelled.
FAREWELL, PARTING = 3.0, 0.7


@dataclass(frozen=True, slots=True)
class Intake:
    """What goes into a run besides what its sources send.

    ``feed``: messages from code, for the nodes that are its ``heads``; ``letters``: dead letters to run again, and
    no source runs then; ``resume``: the run that this one goes on from, whose messages that were through are left out.
    """

    feed: Iterable[Message] | None = None
    heads: tuple[str, ...] = ()
    letters: tuple[DeadLetter, ...] | None = None
    resume: str | None = None


class Run(CarrierListener):
    """The stations of one run."""

    def __init__(self, pipeline: Pipeline, catalogue: Catalogue, provisions: Provisions, intake: Intake) -> None:
        self.pipeline = pipeline
        self.keyring = provisions.keyring
        self._intake = intake
        self.catalogue = catalogue
        self.folder = _folder_of(pipeline, provisions.say)
        self.course = Course(
            secrets.token_hex(6),
            folder=self.folder,
            say=provisions.say,
            pipeline=pipeline.name,
            watchers=provisions.watchers,
            recording=Recording(*provisions.record, provisions.say) if provisions.record is not None else None,
        )
        self.carrier: RedisCarrier | None = None
        if pipeline.warped and not provisions.local:
            self.carrier = RedisCarrier(self.course, provisions, self)
        self.cache = RunCache(self.course, provisions)
        self._explained = provisions.named_for_all
        self._assembly = Assembly(
            pipeline,
            catalogue,
            self.course,
            graph=Graph.of(pipeline, fed=intake.heads),
            carrier=self.carrier,
            cache=self.cache,
            adds=intake.letters is not None,
        )
        self.stations, self.loopbacks = self._assembly.stations, self._assembly.loopbacks
        self.outflow: Outflow | None = None
        self._pid = os.getpid()
        self._started = time.monotonic()
        self._seconds: float | None = None
        #: Were watchers told that it goes on?
        self._began = False
        #: The signal that told the sources to stop.
        self._stopped_by = ""
        self.replay: Replay | None = None
        self._make_stations(intake)
        self.control = Control(self.course, self.stations, self._loopback_of, self.carrier, self.cache)
        self._reloader = (
            Reloader(self.course, catalogue, pipeline.nodes, self._renewable) if provisions.reload else None
        )

    def _make_stations(self, intake: Intake) -> None:
        graph, feed, letters = self._assembly.graph, intake.feed, intake.letters
        starts = starts_of(self.pipeline, letters or ())
        names = frozenset(graph.order) if letters is None else concerned(graph, starts)
        self._assembly.make(names)
        if letters is not None:
            if feed is None:
                no_loose_ends(self.pipeline, graph, names)
            self._replay(self.course.fail).hold(starts)
        if feed is not None:
            self.outflow = self._assembly.add_feed(feed, intake.heads if letters is None else ())

    # -- life -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Look whether it can run, warm every local node up, then let the sources go; raise what prevents it."""
        try:
            if self.carrier is not None:
                self.carrier.inspect(self.pipeline, self.catalogue)
            self._make_folder()
            if self.course.recording is not None:
                self.course.recording.begin(self.pipeline, self.course.run_id)
            if self.carrier is not None:
                warps = self._linked()
                self.carrier.open(warps, {warp.name: self._assembly.record(warp) for warp in warps})
                self._raise_if_over()
            self.cache.open()
            warm_up(self._nodes(), self.course, deadline=self.pipeline.deadline, began=self._started)
            self._raise_if_over()
        except BaseException as error:
            self.course.fail(error)
            self.close()
            for each in self._nodes():
                each.discard()
            raise
        self._started = time.monotonic()
        self._began = True
        self.course.tell("run_began", self.pipeline.name)
        self.course.expect([*self.stations.values(), *([self.outflow] if self.outflow is not None else [])])
        if self.carrier is not None:
            self.carrier.start()
        for loopback in self.loopbacks:
            loopback.start()
        # From the sinks upwards, so that nobody sends to somebody who is not there yet.
        for station in reversed(self.stations.values()):
            station.start()
        if self.replay is not None:
            self.replay.feed(self._intake.letters or ())
        if self._reloader is not None:
            self.course.spawn("reload", self._reloader.loop)

    def _linked(self) -> list[Warp]:
        """The warped nodes, each with the one that its worker may hand results to; in a recording all come by here."""
        warps = [station for station in self.stations.values() if isinstance(station, Warp)]
        for warp in warps:
            if self.course.recording is None:
                warp.go_on_to(only_next(warp))
        return warps

    def _renewable(self, name: str) -> Callable[[], None] | None:
        """What makes a node anew that runs here, by its edited code; None: it does not, or it is a source."""
        station = self.stations.get(name)
        if isinstance(station, LocalStation):
            return station.renew
        loopback = next((each for each in self.loopbacks if each.name == name), None)
        if loopback is None:
            return None

        def renew(found: Loopback = loopback) -> None:
            found.renew()  # first: what is asked of the cache as the new code is, that computes
            self.cache.renew(name)

        return renew

    def _loopback_of(self, warp: Warp) -> Loopback | None:
        """What a warped node runs on that runs here."""
        return warp.carrier if isinstance(warp.carrier, Loopback) else None

    def ordered(self, order: Order) -> None:
        """Do it in a thread of its own, and answer."""
        self.course.spawn("order", self.control.answer, order)

    def _replay(self, trouble: Callable[[ConfigError], None]) -> Replay:
        if self.folder is None:
            raise ConfigError(f'pipeline {self.pipeline.name!r} has no "folder", so it keeps no dead letters')
        self.replay = Replay(self.course, self.folder.letters, self.stations, trouble)
        return self.replay

    def replay_requested(self, names: Sequence[str]) -> None:
        """Replay them beside what is going on."""
        self.course.say(f"asked to replay {len(names)} dead letters")
        replay = self.replay or self._replay(lambda error: self.course.say(f"nothing is replayed: {error}"))
        replay.feed(names)

    def _make_folder(self) -> None:
        if self.folder is not None:
            if not self.folder.make(self.pipeline.to_dict(), [node.name for node in self.pipeline.nodes]):
                self.course.say("no config.json is written: its definition has values that JSON cannot represent")
            if self._intake.letters is None:  # else one might go that is to be replayed
                self.folder.letters.expire()
        if self.outflow is None and self._intake.letters is None:  # what is fed from code cannot be asked for again
            local = self.carrier is None
            open_journal(self.pipeline, self.catalogue, self.course, resume=self._intake.resume, local=local)

    def _nodes(self) -> list[Station | Loopback]:
        """Everything that holds a node of its own."""
        return [*self.stations.values(), *self.loopbacks]

    def _raise_if_over(self) -> None:
        if self.course.error is not None:
            raise self.course.error

    def workers_seen(self, client: Client, name: str, workers: Sequence[Presence]) -> None:
        """Let the cache know whose code it is asked about."""
        self.cache.see(client, name, workers)

    def queue_abandoned(self, warp: Warp) -> None:
        """Let its messages go through a loopback from now on."""
        node = warp.node

        def make() -> Instance:
            return Instance(self._assembly.listing(node), self._assembly.configuration(node), name=node.name)

        fetch = self.carrier.here if self.carrier is not None else lambda message: message
        loopback = Loopback(self.course, node.name, make, fetch)
        self.loopbacks.append(loopback)
        warp.move(loopback)
        self.cache.move_here(warp.name)
        for order in self.control.given(warp.name):
            loopback.ordered(order)
        for flight in self.carrier.give_away(warp) if self.carrier is not None else ():
            loopback.post(warp, flight)
        loopback.start()

    def wait(self, seconds: float) -> bool:
        """Wait until the run is over, at most so long; return whether it is."""
        return self.course.over.wait(seconds)

    def check(self, now: float) -> None:
        """Hold every node to its timeout."""
        for station in list(self.stations.values()):
            station.check(now)

    def outputs(self) -> Iterator[Message]:
        """What reaches the end of a pipeline that is fed from code."""
        while self.outflow is not None and (messages := self.outflow.take()):
            yield from messages

    def stop_sources(self, reason: str) -> None:
        """Want no more messages; what is on its way still comes out."""
        self._stopped_by = reason
        press = "press Ctrl-C again to abort" if reason == "SIGINT" else f"{reason} once more aborts"
        # Said first: a run that has little left may be over a moment later.
        self.course.say(f"{reason}: finishing {counted(self.report().unfinished)}; {press}")
        for station in self.stations.values():
            if isinstance(station, SourceStation):
                station.stop()
        if self.replay is not None:
            self.replay.stop()

    def close(self) -> None:
        """Take everything apart. Nodes get a moment to let go; nothing keeps the process. In a fork: nothing."""
        if self._seconds is not None or os.getpid() != self._pid:
            return
        self._seconds = time.monotonic() - self._started
        self.course.over.set()
        for station in self.stations.values():
            station.close()
        for loopback in self.loopbacks:
            loopback.close()
        patience = PARTING if isinstance(self.course.error, RunCancelled) else FAREWELL
        self.course.settle(patience)
        if self.replay is not None:
            self.replay.close()
        close_journal(self.course, done=self.course.error is None and not self._stopped_by)
        if self.carrier is not None:
            error = self.course.error
            ending = "cancelled" if isinstance(error, RunCancelled) else "failed"
            self.carrier.close("finished" if error is None else ending)
        self.cache.close()
        self.course.farewell(patience)
        if self.carrier is not None:  # nobody counts any more
            self.carrier.counting.finish(self.carrier.address)
        if self.folder is not None:
            self.folder.keep_traces(self.course.traces.to_list())
            self.folder.close()
        if self._began:
            self.course.tell("run_ended", self.report().status)

    def report(self) -> Report:
        """What happened so far."""
        seconds = self._seconds if self._seconds is not None else time.monotonic() - self._started
        error = self.course.error
        status: State = "stopped" if self._stopped_by else "done"
        if error is not None:
            status = "cancelled" if isinstance(error, RunCancelled) else "failed"
        elif self._seconds is None:
            status = "stopping" if self._stopped_by else "running"
        nodes = tuple(station.report() for name, station in self.stations.items() if not name.startswith("("))
        through, total = advance(self.stations.values())
        if self.replay is not None and self._intake.letters is not None:  # else beside its own messages
            through, total = self.replay.advance
        refused = dict(self.keyring.refusals.counts) if self.keyring is not None else {}
        circuits = self.carrier.circuits.values() if self.carrier is not None else ()
        queues = tuple(circuit.report() for circuit in circuits)
        text = str(error) if error else ""
        place = error.place if isinstance(error, NodeError) else ""
        return Report(
            self.course.run_id,
            self.pipeline.name,
            status,
            seconds,
            nodes,
            text,
            queues,
            refused,
            through=through,
            total=total,
            stopped_by=self._stopped_by,
            place=place,
            explained=self._explained,
        )


def _folder_of(pipeline: Pipeline, say: Callable[[str], None]) -> Folder | None:
    """What the run leaves on disk, if its pipeline has a folder."""
    path = pipeline.folder_path
    if path is None:
        return None
    letters = DeadLetters(path / PLACE, limits=pipeline.dead_letters, say=say)
    return Folder(path, pipeline.telemetry, letters, pipeline.reach)
