"""The calls of one runner: a run without an end of its own, with a warp for each function that is submitted."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from celerypipe import codec
from celerypipe.errors import CelerypipeError, CodecError
from celerypipe.message.message import Message
from celerypipe.message.ownership import own
from celerypipe.runner.carrier.cargo import Sealed
from celerypipe.runner.functions.call import Call, split
from celerypipe.runner.functions.dispatch import Dispatch
from celerypipe.runner.functions.function import Function, as_function
from celerypipe.runner.functions.ledger import Ledger
from celerypipe.runner.functions.mending import Mending
from celerypipe.runner.functions.outcome import Outcome, making_of
from celerypipe.runner.functions.submission import Submission
from celerypipe.runner.functions.transport import CallTransport
from celerypipe.runner.functions.withdrawals import Withdrawals
from celerypipe.runner.warp.flight import Done, Flight
from celerypipe.runner.warp.warp import Warp

#: Seconds between two looks at timeouts while calls are out, and while none are.
CLOCK, IDLE = 0.05, 1.0
#: Seconds that threads get to end.
FAREWELL = 3.0


class Session:
    """Takes calls, sends those that can start, settles them. ``transport`` makes the warps, and knows the carrier.

    It holds a call only until it is settled: what its user lets go of is gone.
    """

    def __init__(self, transport: CallTransport) -> None:
        self.pid = os.getpid()
        self._transport = transport
        self.course = transport.course
        self._mending = Mending(transport)
        self._functions: dict[Any, Function] = {}
        self._warps: dict[Function, Warp] = {}
        self._ledger = Ledger()
        self._dispatch = Dispatch(self.course, self)
        self._apart: weakref.WeakSet[Outcome] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._withdrawals = Withdrawals(self._dispatch, local=transport.local)
        self._closing = False
        self._ended = threading.Event()
        self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="celerypipe-callbacks")
        self._clock: threading.Thread | None = None
        self.course.tell("run_began", self.course.pipeline)

    # -- in ----------------------------------------------------------------------------------------------------------

    def submit(self, value: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Call[Any]:
        """Take a call. It starts when its inputs are there and its function has room; nothing waits for that here."""
        if os.getpid() != self.pid:  # it has none of the threads, and a lock may be held for ever
            raise RuntimeError("calls cannot be submitted here: this process was forked; make an executor of its own")
        function = as_function(value, self._functions, local=self._transport.local)
        bound = function.bind(arguments, named, whole=self._transport.remembers(function))
        bare, inputs = split(bound)
        self._refuse_strangers(function, inputs)
        try:
            bare = own(bare)  # it may have to wait, and is what it was when it was given; arrays would take memory
            size = codec.encode_apart((Message(bare),))
        except CodecError as error:
            raise function.untravelled(error, bare) from None
        call: Call[Any] = Call(self, function.name)
        began = time.monotonic()
        warp = self._warp(function)
        self._transport.send(function, size.files)
        submission = Submission(call, warp, bare, inputs, len(size.head) + size.size, began)
        if self._ledger.enter(submission, self._refuse):
            self._start([submission])
        return call

    def knows(self, value: Callable[..., Any]) -> bool:
        """Was this function submitted before, so that :meth:`submit` waits for nothing?"""
        return value in self._functions and self._functions[value] in self._warps

    def look_at(self, value: Callable[..., Any]) -> None:
        """Raise at once what :meth:`submit` would raise of this function."""
        self._warp(as_function(value, self._functions, local=self._transport.local))

    def _refuse_strangers(self, function: Function, inputs: Iterable[tuple[Any, Call[Any]]]) -> None:
        for _, each in inputs:
            if not each.is_of(self):
                raise ValueError(
                    f"{function.name}(): a call of {each.function} is an argument that was submitted somewhere else; "
                    "submit both to the same runner, or give its result()"
                )

    def _refuse(self) -> None:
        """Raise if no more calls are taken."""
        if isinstance(self.course.error, CelerypipeError):
            raise self.course.error
        if self._closing or self.course.over.is_set():
            raise RuntimeError("the runner is closed: nothing can be submitted")

    def _warp(self, function: Function) -> Warp:
        warp = self._warps.get(function)
        if warp is None:
            with self._making:
                warp = self._warps.get(function)
                if warp is None:
                    warp = self._warps[function] = self._transport.open(function, self._dispatch)
                if self._clock is None:
                    self._clock = self.course.spawn("calls", self._keep_time)
                    atexit.register(self.close, cancel=True)
        return warp

    # -- on ----------------------------------------------------------------------------------------------------------

    def _start(self, submissions: Iterable[Submission]) -> None:
        """The inputs of these calls are there, unless they failed."""
        failed: list[Submission] = []
        for submission in submissions:
            error = submission.failed_input
            if error is not None:
                if submission.fail_for_input(error):
                    failed.append(submission)
            elif submission.warp.seen_here and any(each.is_apart for _, each in submission.inputs):
                self._mending.later(partial(self._bring_inputs, submission))
            else:
                self._dispatch.put(submission)
        self._settled(failed)
        self._dispatch.send()

    def _bring_inputs(self, submission: Submission) -> None:
        """Fetch the inputs of a call whose result is remembered by what they are, and start it."""
        try:
            for _, outcome in submission.outcomes:
                outcome.value()
        except CelerypipeError as error:
            self.failed(submission, error)
            return
        self._dispatch.put(submission)
        self._dispatch.send()

    # -- back --------------------------------------------------------------------------------------------------------

    def succeeded(self, submission: Submission, done: Done) -> None:
        """A result is here: settle its call, and start what waited for it."""
        found: Any = done.outputs[0].payload if done.outputs else None
        apart = isinstance(found, Sealed) and found.blob is not None
        making = making_of(submission.warp, submission.arguments, submission.outcomes) if apart else None
        outcome = Outcome(submission.call.function, found, making, self._mending.content, known=done.known)
        if apart:
            with self._lock:
                self._apart.add(outcome)
        submission.succeed(outcome, done)
        self._settled([submission])

    def failed(self, submission: Submission, error: BaseException) -> None:
        """A call failed for good."""
        submission.fail(error)
        self._settled([submission])

    def _settled(self, submissions: Iterable[Submission]) -> None:
        """Start what waited for these."""
        if ready := self._ledger.settle(submissions):
            self._start(ready)

    def mend(self, submission: Submission, flight: Flight) -> None:
        """A worker could not get the bytes of an input: see to it that it can, beside all else."""
        self.course.spawn("mend", self._mending.mend, submission, flight)

    def withdraw(self, submission: Submission) -> None:
        """A call was cancelled: take it back from wherever it is."""
        with self._ledger.changed:
            self._withdrawals.add(submission)
            self._ledger.changed.notify_all()
        self._settled([submission])

    # -- what calls ask for ------------------------------------------------------------------------------------------

    def is_waiting(self, call: Call[Any]) -> bool:
        """Is an input of a call missing?"""
        submission = self._ledger.get(call)
        return submission is not None and submission.missing > 0

    def is_running(self, call: Call[Any]) -> bool:
        """Was a call given to a worker?"""
        submission = self._ledger.get(call)
        flight = submission.flight if submission is not None else None
        return submission is not None and flight is not None and self._transport.is_given(submission.warp, flight)

    def trouble(self, call: Call[Any]) -> str:
        """Why a call is not done, as far as that is known without asking anybody."""
        submission = self._ledger.get(call)
        if submission is None or submission.warp.carrier.slots(submission.warp):
            return ""
        return f"; no worker serves queue {submission.warp.queue!r}"

    def cancel(self, call: Call[Any]) -> None:
        """Cancel a call, unless it is settled."""
        submission = self._ledger.get(call)
        if submission is not None and submission.cancel():
            self.withdraw(submission)

    def later(self, work: Callable[[], None]) -> None:
        """Run callbacks of users, one after another, in a thread that begins with the first of them."""
        try:
            self._callbacks.submit(work)
        except RuntimeError:  # the session is over, or Python itself ends
            work()

    def check_process(self) -> None:
        """Raise RuntimeError in a forked child: nobody settles calls there."""
        if os.getpid() != self.pid:
            raise RuntimeError("this call was submitted by the process that this one was forked from, and waits there")

    # -- the clock ---------------------------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        """Hold functions to their timeouts, take back what was cancelled, and see that nothing waits in vain."""
        try:
            while not self.course.over.is_set():
                with self._ledger.changed:
                    if not self._withdrawals.waiting and (self._ledger or not self._closing):
                        self._ledger.changed.wait(CLOCK if self._ledger or self._withdrawals.late else IDLE)
                now = time.monotonic()
                for warp in list(self._warps.values()):
                    warp.check(now)
                self._withdrawals.take_back(now)
                self._dispatch.send()
                if self._closing and not self._ledger and not self._withdrawals.waiting:
                    break
        except Exception as error:  # noqa: BLE001  # a defect of ours must end the calls, not their timeouts
            self.course.fail(error)
        if self.course.error is not None:  # nobody may come any more who would end it
            self.close(cancel=True)

    def _fail_all(self, error: BaseException) -> None:
        submissions = self._ledger.all()
        for submission in submissions:
            submission.fail(error)
        self._settled(submissions)

    # -- the end -----------------------------------------------------------------------------------------------------

    def cancel_waiting(self) -> None:
        """Cancel all calls that nobody was given yet."""
        for submission in self._ledger.all():
            if not submission.call.running():
                self.cancel(submission.call)

    def close(self, *, cancel: bool) -> None:
        """End it: wait for the calls that are out, or cancel them; let the workers go. Results stay readable."""
        if self.pid != os.getpid():
            return
        with self._ledger.changed:
            first, self._closing = not self._closing, True
            self._ledger.changed.notify_all()
        try:
            if not cancel:
                self._ledger.wait(self.course.over)
        finally:
            if self.course.error is not None:
                self._fail_all(self.course.error)
            calls = self._ledger.all()
            for submission in calls:
                self.cancel(submission.call)
            if first:
                atexit.unregister(self.close)
                try:
                    self._end("cancelled" if calls else "finished")
                finally:
                    self._ended.set()
            else:  # another thread is at it
                self._ended.wait(2 * FAREWELL)

    def _end(self, ending: str) -> None:
        if self._clock is not None and self._clock is not threading.current_thread():
            self._clock.join(FAREWELL)  # it takes back what was cancelled
        with self._lock:
            apart = [outcome for outcome in self._apart if outcome.is_apart]
        if self.course.error is None:
            self._mending.bring(apart)
        self.course.over.set()
        self._mending.close()
        with self._ledger.changed:
            self._ledger.changed.notify_all()
        for warp in list(self._warps.values()):
            warp.close()
        self._transport.close(ending if self.course.error is None else "failed")
        self.course.settle(0.0)
        self.course.farewell(FAREWELL)
        self._transport.count_last()
        status = "failed" if self.course.error is not None else "done" if ending == "finished" else ending
        self.course.tell("run_ended", status)
        self._callbacks.shutdown(wait=False)
