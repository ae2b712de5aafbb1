"""The course of a run: what all its stations share - its id, whether it is over, whom to tell, its threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Any, Literal

from celerypipe.contract.watcher import Watcher
from celerypipe.errors import NodeError
from celerypipe.message.message import Message
from celerypipe.redis.secret import HIDDEN
from celerypipe.runner.folder.descent import Descent
from celerypipe.runner.folder.folder import Folder
from celerypipe.runner.folder.progress import Progress
from celerypipe.runner.folder.recording import Recording
from celerypipe.runner.stations.places import Taken
from celerypipe.runner.stations.traces import Traces

logger = logging.getLogger(__name__)

#: What watchers are told, by the names of their methods.
WatcherMethod = Literal["run_began", "message_done", "attempt_failed", "run_ended"]


class Course:
    """What all stations of one run share: its id, whether it is over, and whom to tell."""

    def __init__(
        self,
        run_id: str,
        *,
        folder: Folder | None,
        say: Callable[[str], None],
        pipeline: str = "",
        watchers: Sequence[Watcher] = (),
        recording: Recording | None = None,
    ) -> None:
        self.run_id = run_id
        self.watchers = watchers
        self.pipeline = pipeline
        self.folder = folder
        #: Values of variables that no error and no event shows.
        self.secrets: set[str] = set()
        self._say = say
        #: Set when nothing more shall happen: done, failed or cancelled.
        self.over = threading.Event()
        self.error: BaseException | None = None
        self._at_end: BaseException | None = None
        #: Where the run can be resumed: how far its sources are.
        self.progress: Progress | None = None
        #: The dead letters that are replayed, by name, if any are.
        self.replayed: Descent[str] | None = None
        #: Those two, as far as there are any: they are told of each message that is sent on.
        self.followers: list[Descent[Any]] = []
        #: Where the messages of its sinks went.
        self.taken = Taken()
        #: Dead letters that there was no time to write.
        self.unwritten = 0
        #: What its nodes get and make of it, if that is wanted.
        self.recording = recording
        #: Where its messages spent their time.
        self.traces = Traces()
        self._lock = threading.Lock()
        #: Those that have not ended, but for the ones that nobody waits for.
        self._threads: set[threading.Thread] = set()
        self._going: set[object] = set()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="celerypipe-later")
        self._later: set[Future[None]] = set()

    def later(self, work: Callable[[], None]) -> None:
        """Do something that may take long, after what was given before, in a thread that nothing waits for."""
        future = self._executor.submit(work)
        self._later.add(future)
        future.add_done_callback(self._later.discard)

    def sent(self, message: Message, parent: Message | None, nodes: int = 1) -> None:
        """A message is about to be offered to so many nodes; ``parent``: what it was made of."""
        for follower in self.followers:
            follower.sent(message, parent, nodes)

    def hold(self, message: Message) -> None:
        """A message is not through before :meth:`left` was called once more."""
        self.sent(message, None)

    def left(self, message: Message) -> None:
        """A message is through a node, and what came of it was handed on; or it was given up."""
        for follower in self.followers:
            follower.left(message)

    def settle(self, seconds: float) -> None:
        """Wait so long for what :meth:`later` was given, and leave what is not done then."""
        left = wait(list(self._later), seconds).not_done
        self._executor.shutdown(wait=False, cancel_futures=True)
        self.unwritten = len(left)
        if left:
            self.say(f"{len(left)} dead letters could not be written in time")

    def expect(self, stations: Iterable[object]) -> None:
        """Be over when all of these have finished."""
        self._going = set(stations)
        if not self._going:
            self.over.set()

    def ended(self, station: object) -> None:
        """This station has finished."""
        with self._lock:
            self._going.discard(station)
            last, error = not self._going, self._at_end
        if last and error is not None:
            self.fail(error)
        elif last:
            self.over.set()

    def spawn(self, name: str, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        """Start a daemon thread of this run, which :meth:`farewell` waits for."""

        def live() -> None:
            try:
                work(*arguments)
            finally:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=live, name=f"celerypipe-{name}", daemon=True)
        self._threads.add(thread)
        thread.start()
        return thread

    def serve(self, works: SimpleQueue[Callable[[], None] | None]) -> None:
        """Do what comes, one after another, until None does or the run is over; the body of a thread."""
        while (work := works.get()) is not None and not self.over.is_set():
            try:
                work()
            except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
                self.fail(error)

    def forget(self, thread: threading.Thread | None) -> None:
        """This thread hangs in user code: nobody waits for it any more."""
        if thread is not None:
            self._threads.discard(thread)

    def farewell(self, seconds: float) -> None:
        """Give the threads so long to let go of their nodes."""
        until = time.monotonic() + seconds
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))

    def fail_at_end(self, error: BaseException) -> None:
        """End the run with this error once all stations have finished; the first one counts."""
        with self._lock:
            self._at_end = self._at_end or error

    def say(self, text: str) -> None:
        """Tell whoever started the run."""
        self._say(self.hidden(text))

    def whose(self, node: str, message: Message) -> dict[str, str]:
        """Return the fields of a line of the log on a message, which no handler may know by its thread."""
        return {"run": self.run_id, "node": node, "message_id": message.id}

    def tell(self, what: WatcherMethod, *facts: Any) -> None:
        """Call this method of each watcher, with the run and these facts; what it raises ends nothing."""
        for watcher in self.watchers:
            try:
                getattr(watcher, what)(self.run_id, *facts)
            except Exception:
                logger.exception("%s() of a watcher failed", what)

    def hidden(self, text: str) -> str:
        """Return a text without the secrets of the run."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text

    def hide(self, error: BaseException) -> None:
        """Take the secrets of the run out of what an error says, here and where it came from."""
        if self.secrets:
            error.args = tuple(self.hidden(each) if isinstance(each, str) else each for each in error.args)
            if isinstance(error, NodeError):
                error.remote_traceback = self.hidden(error.remote_traceback)

    def fail(self, error: BaseException) -> None:
        """End the run with this error; the first one counts."""
        self.hide(error)
        with self._lock:
            if self.error is None and not self.over.is_set():
                self.error = error
                if self.progress is not None:
                    self.progress.fail()
        self.over.set()
