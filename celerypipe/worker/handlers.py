"""The signal handlers of a worker process, which are not those of the processes that its nodes fork."""

from __future__ import annotations

import signal

#: Whose handlers mean the worker: Celery's, those of its pool, our own.
MACHINERY = ("celery", "billiard", "celerypipe")


class Handlers:
    """The handlers by which Celery and its pools hear how their process is to end."""

    def leave_to_parent(self) -> None:
        """Called in a fork: a signal does there what it does in any process, unless a node said what.

        A child that a node ends by SIGTERM, as ``multiprocessing.Pool`` does, would else believe that it is the worker.
        """
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler) and getattr(handler, "__module__", "").partition(".")[0] in MACHINERY:
                usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, usual)
