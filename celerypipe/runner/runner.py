"""The runner: walks the graph of a pipeline here, from the first source to the last message, and reports."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from celerypipe.cache.node import CacheUse
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check.complaints import absences, require
from celerypipe.check.finding import BYTE_BUDGET
from celerypipe.contract.watcher import Watcher
from celerypipe.definition.graph import heads_of
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import CelerypipeError, ConfigError, DeadlineExceeded, RunCancelled
from celerypipe.mailbox.orders import Obeyed, Order
from celerypipe.message.logs import LogLine
from celerypipe.message.message import Message
from celerypipe.redis.url import read_address
from celerypipe.runner.folder.letter import DeadLetter
from celerypipe.runner.folder.letters import PLACE, DeadLetters, chosen
from celerypipe.runner.folder.recording import MOST
from celerypipe.runner.functions.session import Session
from celerypipe.runner.functions.submitting import Submitting
from celerypipe.runner.functions.transport import CallTransport
from celerypipe.runner.logs.shown import level_of, show
from celerypipe.runner.provisions import Provisions
from celerypipe.runner.report import Report
from celerypipe.runner.run import Intake, Run
from celerypipe.runner.stopping import Stopping
from celerypipe.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds between two looks at timeouts.
CLOCK = 0.05


class Runner(Submitting):
    """Runs pipelines, and calls functions.

    ``redis``: The address of Redis, such as ``redis://host:6379/0`` or ``unix:///path``, for warped nodes and calls. By
    default that of ``CELERYPIPE_REDIS_URL``, then ``CELERY_BROKER_URL``.
    ``local``: Run warped nodes and calls in this process; messages are encoded and decoded as for a worker.
    ``byte_budget``: How many bytes may be on their way to workers and back at one time; then the sources wait.
    ``shared_memory``: Large payloads may go through ``/dev/shm`` if all workers are on this machine. By default
    ``CELERYPIPE_SHARED_MEMORY`` decides.
    ``cache``: With False, nodes with a result cache compute everything, and keep nothing.
    ``refresh``: The names of nodes that compute everything, and keep the new results.
    ``rerun_failing``: Run messages again whose failure is in the result cache.
    ``reload``: Look once a second whether the code of a node that runs in this process was edited, and load it anew
    before its next message. Code that does not import, or does not start, is said, and the code before runs on.
    ``on_event``: Called with one sentence when something worth telling happens (no worker, Redis away, …), by any
    thread; what it raises is logged, and ends nothing. By default each sentence is logged as a warning.
    ``watchers``: Called for each message and run, see :class:`celerypipe.Watcher`.
    ``logs``: Called with each :class:`celerypipe.LogLine` that workers log or print for a run, in the order of their
    times, while their nodes are at work. By default it goes to the logger ``celerypipe.node.<node>``, or to
    ``sys.stderr`` where no logger has a handler. With False, workers send none.
    ``log_level``: Workers send what they log from this level on, such as ``INFO``, and all that they print.
    ``record``: A new folder, for what each node gets and makes of it; see ``celerypipe replay-hop``.
    ``record_most``: So many bytes are recorded at most.
    """

    def __init__(
        self,
        redis: str | None = None,
        *,
        local: bool = False,
        byte_budget: int = BYTE_BUDGET,
        shared_memory: bool | None = None,
        cache: bool = True,
        refresh: Iterable[str] = (),
        rerun_failing: bool = False,
        reload: bool = False,
        on_event: Callable[[str], None] | None = None,
        watchers: Iterable[Watcher] = (),
        logs: Callable[[LogLine], None] | bool = True,
        log_level: str | int = logging.WARNING,
        record: str | Path | None = None,
        record_most: int = MOST,
    ) -> None:
        self.redis = read_address(redis) if redis else None
        self.local = local
        self.byte_budget = byte_budget
        self.shared_memory = shared_memory
        self.cache = CacheUse(cache, (refresh,) if isinstance(refresh, str) else tuple(refresh), rerun_failing)
        self.reload = reload
        self.on_event = partial(_tell, on_event or partial(logger.warning, "%s"))
        self.watchers = tuple(watchers)
        for place, watcher in enumerate(self.watchers):
            if not isinstance(watcher, Watcher):
                raise ConfigError(
                    f"watchers[{place}] is {watcher!r}; give an object of a subclass of celerypipe.Watcher"
                )
        if not (callable(logs) or isinstance(logs, bool)):
            raise ConfigError(f"logs is {logs!r}; give a function that takes a celerypipe.LogLine, True or False")
        self.logs = logs
        self.log_level = level_of(log_level)
        self.record = (Path(record), record_most) if record is not None else None
        # No reference to itself: a runner that is let go of is gone at once, and its session ends.
        super().__init__(partial(_session, weakref.proxy(self)))
        #: What happened in the last run that ended; :meth:`stream` has no other way to say so.
        self.report: Report | None = None
        self._current: Run | None = None

    def __repr__(self) -> str:
        where = f"on {self.redis.shown}" if self.redis is not None else "where the environment says"
        run = self._current
        doing = f", in run {run.course.run_id} of {run.pipeline.name!r}" if run is not None else ""
        return f"<Runner {'here' if self.local else where}{doing}>"

    def run(
        self,
        pipeline: Pipeline,
        *,
        resume: str | None = None,
        on_progress: Callable[[Report], None] | None = None,
    ) -> Report:
        """Run a pipeline until its sources end and all messages are finished.

        Ctrl-C, SIGTERM and SIGHUP (the terminal was closed) stop the sources and drain, the last two for at most 8 s;
        a second one stops at once, and so does SIGQUIT. Raises :class:`DefinitionError` and :class:`ConfigError` before
        anything runs, :class:`NodeError` when a node fails under ``on_error: stop``, :class:`RunCancelled`,
        :class:`DeadlineExceeded`; the error's ``report`` says how far it came, and so does ``report.json`` in the
        pipeline's folder, if it has one. ``on_progress`` is called about four times a second.

        ``resume``: the id of a run of this pipeline that was ended, by ``kill -9`` too. Its sources leave out the
        messages that were through: a :class:`ConfigError` says why if that cannot be.
        """
        return self._run(self._make(pipeline, resume=resume), on_progress)

    def replay(
        self,
        pipeline: Pipeline,
        letters: Iterable[str] | None = None,
        *,
        on_progress: Callable[[Report], None] | None = None,
    ) -> Report:
        """Run dead letters again. Each starts at the node that failed; sources do not run.

        ``letters``: their names, or the beginnings of them; None: all. A letter is removed once all that came of it is
        through. It stays when it dies again, is skipped, finds nobody in the join where it died, or the run fails. A
        file sink adds to its file. Otherwise as :meth:`run`.
        """
        return self._run(self._make(pipeline, replay=True if letters is None else letters), on_progress)

    def _run(self, run: Run, on_progress: Callable[[Report], None] | None) -> Report:
        self._current = run
        with Stopping(run):
            run.begin()
            try:
                self._watch(run, run.pipeline.deadline, on_progress)
            except BaseException as error:  # whatever ends the caller, Ctrl-C too, ends the run; it is raised again
                run.course.fail(error)
                self._close(run)
                raise
        return self._end(run)

    def stream(
        self, pipeline: Pipeline, inputs: Iterable[Message] = (), *, replay: Iterable[str] | bool = False
    ) -> Iterator[Message]:
        """Send ``inputs`` to the nodes without a link in, and yield the outputs of the nodes without a link out.

        ``replay``: names of dead letters to run again instead, or True for all, as :meth:`replay` does. A letter is
        through when the message after what came of it was asked for.

        Closing the iterator early cancels the run. Raises what :meth:`run` raises.
        """
        run = self._make(pipeline, feed=inputs, replay=replay)
        self._current = run
        run.begin()
        clock = threading.Thread(target=self._keep_time, args=(run, pipeline.deadline), daemon=True)
        clock.start()
        try:
            yield from run.outputs()
        except BaseException:  # whatever ends the reader, closing the iterator too; it is raised again
            run.course.fail(RunCancelled("the reader of the stream left"))
            clock.join()
            self._close(run)
            raise
        clock.join()
        self._end(run)

    def cancel(self) -> None:
        """Stop the active run at once; may be called from any thread."""
        run = self._current
        if run is not None:
            run.course.fail(RunCancelled(f"run {run.course.run_id} was cancelled"))

    def set(self, node: str, property: str, value: Any) -> list[Obeyed]:
        """Change a property of a node of the active run, here or on workers; may be called from any thread.

        All its instances call ``set_on_config(property, value)`` between two messages; those that begin later do too.
        Returns what came of it at each that is at work now, after a second and a half at most. Raises
        :class:`ConfigError` if there is no such run or node.
        """
        return self._order(Order("set", node, property, value))

    def suspend(self, node: str) -> list[Obeyed]:
        """Let a node of the active run hand on its messages unchanged; a sink drops them. Otherwise as :meth:`set`."""
        return self._order(Order("suspend", node))

    def unsuspend(self, node: str) -> list[Obeyed]:
        """Let it work again. Otherwise as :meth:`set`."""
        return self._order(Order("unsuspend", node))

    def restart(self, node: str) -> list[Obeyed]:
        """Destroy all instances of a node, and warm up new ones; what was set stays set. Otherwise as :meth:`set`."""
        return self._order(Order("restart", node))

    def _order(self, order: Order) -> list[Obeyed]:
        run = self._current
        if run is None:
            raise ConfigError("no run is active; call this from another thread, or while the stream is read")
        return run.control.obey(order)

    def _make(
        self,
        pipeline: Pipeline,
        feed: Iterable[Message] | None = None,
        replay: Iterable[str] | bool = False,
        resume: str | None = None,
    ) -> Run:
        if not isinstance(pipeline, Pipeline):
            raise ConfigError(f"a Pipeline is needed, not {pipeline!r}; of a file: Pipeline.load('pipeline.json')")
        settings = Settings.from_environment()
        catalogue = Catalogue((*pipeline.plugin_folders, *settings.plugins))
        heads = () if feed is None and replay is False else heads_of(pipeline)
        if feed is not None and not isinstance(feed, tuple) and not heads:
            raise ConfigError("no node of this pipeline is fed from code: each has a link in, or is a source")
        require(pipeline, catalogue, local=self.local, fed=heads)
        self.cache.check(pipeline.nodes)
        provisions = _provided(self, settings)
        if provisions.redis is None and not self.local and pipeline.warped:
            raise ConfigError(
                "a warped node needs a Redis: Runner(redis='redis://host:6379/0'), or CELERYPIPE_REDIS_URL, or "
                "`with Embedded(pipeline) as url: Runner(redis=url)`"
            )
        for text in absences(pipeline, catalogue):
            self.on_event(text)
        letters = None if replay is False else self._letters(pipeline, replay)
        return Run(pipeline, catalogue, provisions, Intake(feed, heads, letters, resume))

    def _letters(self, pipeline: Pipeline, wanted: Iterable[str] | bool) -> tuple[DeadLetter, ...]:
        """The dead letters that are meant; what else is in their folder is said and left alone."""
        if pipeline.folder_path is None:
            raise ConfigError(f'pipeline {pipeline.name!r} has no "folder", so it keeps no dead letters')
        words = () if isinstance(wanted, bool) else tuple(wanted)
        if wanted is not True and not words:
            return ()
        found = chosen(DeadLetters(pipeline.folder_path / PLACE), words)
        for line in found.strange:
            self.on_event(f"dead letters: {line}; it is ignored")
        for letter in found.letters:
            if letter.not_kept:
                self.on_event(f"dead letter {letter.name} has no message, and is kept: {letter.not_kept}")
        return tuple(letter for letter in found.letters if not letter.not_kept)

    def _watch(self, run: Run, deadline: float | None, on_progress: Callable[[Report], None] | None) -> None:
        """Hold every node to its timeout until the run is over."""
        start = shown = time.monotonic()
        while not run.wait(CLOCK):
            now = time.monotonic()
            run.check(now)
            if deadline is not None and now - start > deadline:
                run.course.fail(DeadlineExceeded(f"the pipeline's deadline of {deadline} s passed"))
            if on_progress is not None and now - shown > 0.25:
                shown = now
                on_progress(run.report())

    def _keep_time(self, run: Run, deadline: float | None) -> None:
        try:
            self._watch(run, deadline, None)
        except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not its timeouts
            run.course.fail(error)

    def _close(self, run: Run) -> Report:
        run.close()
        self._current = None
        self.report = report = run.report()
        if run.folder is not None:
            try:
                run.folder.keep(report.to_json(indent=2))
            except OSError as error:
                self.on_event(f"the report cannot be written to {run.folder.path}: {error}")
        return report

    def _end(self, run: Run) -> Report:
        report = self._close(run)
        error = run.course.error
        if error is not None:
            if isinstance(error, CelerypipeError):
                error.report = report
            raise error
        return report


def _tell(on_event: Callable[[str], None], text: str) -> None:
    try:
        on_event(text)
    except Exception:  # a listener that cannot print it, for one, must not take a thread of the run with it
        logger.exception("on_event failed on %r", text)


def _provided(runner: Runner, settings: Settings) -> Provisions:
    """What a run or a session that begins now is provided with."""
    if runner.redis is None:
        for text in settings.redis.unheard:
            runner.on_event(text)
    return Provisions(
        redis=replace(runner.redis, namespace=settings.redis.namespace) if runner.redis else settings.redis.address,
        local=runner.local,
        budget=runner.byte_budget,
        shared_memory=settings.shared_memory if runner.shared_memory is None else runner.shared_memory,
        keyring=settings.keyring,
        cache=settings.cache,
        use=replace(runner.cache, read_only=settings.cache.read_only),
        say=runner.on_event,
        reload=runner.reload,
        watchers=runner.watchers,
        logs=runner.logs if callable(runner.logs) else show if runner.logs else None,
        level=runner.log_level,
        record=runner.record,
    )


def _session(runner: Runner) -> Session:
    settings = Settings.from_environment()
    provisions = _provided(runner, settings)
    if provisions.redis is None and not provisions.local:
        raise ConfigError(
            "a function needs a Redis: Runner(redis='redis://host:6379/0'), or CELERYPIPE_REDIS_URL, or "
            "`with Embedded(['gpu']) as url: Runner(redis=url)`, with the names of its queues; Runner(local=True) "
            "calls it here"
        )
    return Session(CallTransport(provisions, settings.plugins))
