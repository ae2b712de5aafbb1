"""Results that lie apart: fetched when somebody asks for them, and made again by running their calls if they are lost.

All of it takes time, so it is done by threads that want a result, or that do nothing else.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from celerypipe.codec import Content
from celerypipe.errors import CelerypipeError, CodecError, NodeFailed, RedisUnavailable
from celerypipe.mailbox.blob.blob import Gone, is_shared
from celerypipe.message.message import Message
from celerypipe.runner.carrier.cargo import Sealed
from celerypipe.runner.functions.outcome import Making, Outcome, Piece, message_of, payload
from celerypipe.runner.functions.submission import Submission
from celerypipe.runner.functions.transport import CallTransport
from celerypipe.runner.warp.flight import Flight

#: Seconds for which a Redis that is away is waited for at the end.
HURRY = 2.0
#: How often the inputs of one call may be lost, and a result is made again for who asks for it.
MOST = 3

Remade = tuple[Sequence[Message], BaseException | None]


class Mending:
    """Finds the bytes of results of one session, wherever they are, or makes them again."""

    def __init__(self, transport: CallTransport) -> None:
        self._transport = transport
        # One after another, so that two who miss the same result do not make it twice.
        self._lock = threading.RLock()
        #: What was made again, by the blob that it stands in the place of.
        self._again: weakref.WeakValueDictionary[str, Sealed] = weakref.WeakValueDictionary()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._beginning = threading.Lock()
        self._thread: threading.Thread | None = None

    def later(self, work: Callable[[], None]) -> None:
        """Have this done by a thread that does nothing else, in its turn: there may be thousands at a time."""
        self._work.put(work)
        with self._beginning:
            if self._thread is None:
                course = self._transport.course
                self._thread = course.spawn("inputs", course.serve, self._work)

    def close(self) -> None:
        """The session is over."""
        self._work.put(None)

    def content(self, outcome: Outcome) -> Content:
        """Return what of a result lies apart; :class:`NodeFailed` if it is lost for good."""
        for _ in range(MOST):
            sealed = outcome.sealed or Sealed(b"")
            content = self._there(sealed.blob.reference if sealed.blob is not None else "")
            if content is not None:
                return content
            outcome.sealed = self._made_again(outcome.name, outcome.piece)
        raise _lost(outcome.name)

    def bring(self, outcomes: Iterable[Outcome]) -> None:
        """Fetch results before their session ends; if one is lost, who asks for it hears that."""
        self._transport.patience = HURRY
        for outcome in outcomes:
            try:
                outcome.bring()
            except RedisUnavailable:
                return
            except CelerypipeError:  # told to who asks
                continue

    def mend(self, submission: Submission, flight: Flight) -> None:
        """See to it that the worker of a call can read all of its inputs, and send it again."""
        warp = submission.warp
        try:
            submission.mended += 1
            if submission.mended > MOST:
                raise NodeFailed(f"{warp.name}: its inputs were lost {submission.mended} times", node=warp.name)
            arguments, inputs = submission.arguments, submission.outcomes
            for _, outcome in inputs:
                self._see_to(outcome)
            if not flight.done:
                old = flight.message
                again = old.with_changes(payload=payload(arguments, inputs), id=old.id, created_at=old.created_at)
                warp.send_anew(flight, again)
        except CelerypipeError as error:
            warp.failed(flight, error)

    def _see_to(self, outcome: Outcome) -> None:
        sealed = outcome.sealed
        if sealed is None or sealed.blob is None:
            return
        content = self._there(sealed.blob.reference)
        if content is None:
            outcome.sealed = self._made_again(outcome.name, outcome.piece)
        elif is_shared(sealed.blob.reference):  # it is here, and its worker does not see it
            outcome.sealed = self._transport.copied(sealed.data, content)

    def _there(self, reference: str) -> Content | None:
        try:
            return self._transport.content(reference)
        except (Gone, CodecError):
            return None

    def _made_again(self, name: str, piece: Piece) -> Sealed:
        """Return a lost result as it was made again, by whoever missed it first."""
        with self._lock:
            found = self._again.get(piece.blob)
            if found is None or found.blob is None or self._there(found.blob.reference) is None:
                found = self._again[piece.blob] = self._run_again(name, piece.making)
            return found

    def _run_again(self, name: str, making: Making | None) -> Sealed:
        """Run the call of a result once more, and those before it whose results are lost too."""
        course = self._transport.course
        if making is None or course.over.is_set():
            raise _lost(name)
        course.say(f"{name}: its result is lost, and made again")
        pieces = [self._piece(name, piece) for _, piece in making.inputs]
        for sealed in pieces:
            if sealed.blob is not None:
                sealed.blob.readers += 1
        answers: queue.SimpleQueue[Remade] = queue.SimpleQueue()
        making.warp.run_errand(message_of(making, pieces), lambda outputs, error: answers.put((outputs, error)))
        while not course.over.is_set():
            with suppress(queue.Empty):
                outputs, error = answers.get(timeout=0.5)
                if error is not None:
                    raise _lost(name, error)
                found = outputs[0].payload
                return found if isinstance(found, Sealed) else Sealed(b"")
        raise _lost(name, course.error)

    def _piece(self, name: str, piece: Piece) -> Sealed:
        if not piece.blob or self._there(piece.blob) is not None:
            return self._transport.sealed(piece.data, piece.blob)
        return self._made_again(name, piece)


def _lost(name: str, error: BaseException | None = None) -> NodeFailed:
    said = f", and running it again failed: {error}" if error is not None else ", and cannot be made again"
    failure = NodeFailed(f"{name}: its result was lost{said}", node=name)
    failure.__cause__ = error
    return failure
