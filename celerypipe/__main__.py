"""``celerypipe``, and ``python -m celerypipe``, which is the same."""

from __future__ import annotations

import importlib
import os
import signal
import sys


def main() -> None:
    """Run the command line, and hear Ctrl-C from the first moment on: importing the commands takes a while."""
    _open_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    importlib.import_module("celerypipe.cli").main(obj=_hear)


def _open_streams() -> None:
    """A standard stream that is closed leads nowhere: else a connection gets its number, and what is printed there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is that of the stream
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _leave(*_: object) -> None:
    """Nothing began yet."""
    os.write(sys.stderr.fileno(), b"celerypipe: stopped by Ctrl-C\n")
    os._exit(130)


def _hear() -> None:
    """From here on a command hears it, as an exception."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    main()
