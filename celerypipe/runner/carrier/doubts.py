"""What was refused, by this run or by a worker: said, and a reason to look what of the run is missing now."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Container

from celerypipe.mailbox.bell import declined_in
from celerypipe.mailbox.holder import Process
from celerypipe.redis.signing import Keyring, refused
from celerypipe.runner.stations.course import Course

#: So often a worker may decline before it gets nothing more to do: a record that a stranger altered is made anew.
DECLINED_MOST = 3
#: So many workers that declined are remembered, those of lately: nobody says which are gone.
REMEMBERED = 1000


class Doubts:
    """The nodes of one run of which something was refused since they were last looked at."""

    def __init__(self, course: Course, keyring: Keyring | None, nodes: Container[str]) -> None:
        self._course = course
        self._keyring = keyring
        self._nodes = nodes
        self._doubted: set[str] = set()
        self._times: Counter[str] = Counter()
        #: How often each worker declined, by life.
        self._declines: OrderedDict[str, int] = OrderedDict()
        #: The workers that cannot serve this run, by life, with the reason.
        self.declining: dict[str, str] = {}

    def __contains__(self, node: str) -> bool:
        return node in self._doubted

    def add(self, node: str, what: str, count: int = 1) -> None:
        """So many messages, results or what else of a node were refused: what they stand in the place of is missing."""
        where = f"run {self._course.run_id} node {node}" if node in self._nodes else f"run {self._course.run_id}"
        if self._keyring is None:
            self._times[what] += 1
            if self._times[what] == 1:
                self._course.say(f"{where}: a {what} that no worker of this protocol wrote is ignored")
        elif self._keyring.refusals.add(what, where, count):
            self._course.say(refused(what, where))
        self._doubted.add(node)

    def declined(self, said: bytes) -> None:
        """A worker says that it cannot serve a node."""
        found = declined_in(said, self._course.run_id, self._keyring)
        if found is None or found.node not in self._nodes:
            self.add("", "result")
            return
        worker = Process.read(found.worker)
        times = self._declines[worker.life] = self._declines.pop(worker.life, 0) + 1
        if times == 1:
            self._course.say(f"node {found.node!r}: the worker on {worker.where}, cannot serve it: {found.text}")
        elif times == DECLINED_MOST:
            self.declining[worker.life] = f"cannot serve node {found.node!r}: {found.text}"
        if len(self._declines) > REMEMBERED:
            self.declining.pop(self._declines.popitem(last=False)[0], None)

    def discard(self, node: str) -> None:
        """It is being looked at."""
        self._doubted.discard(node)
