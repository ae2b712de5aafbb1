"""Nodes that print, for real workers (``imports = ["tests.nodes.printing"]``) and for the runner's own process."""

from __future__ import annotations

import faulthandler
import itertools
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

from celerypipe import Message, Proc, node

#: What a worker of these nodes has in its configuration.
CONFIG = 'imports = ["tests.nodes.printing"]\n'


class Talk(Proc):
    """Prints its payload in every way there is, and sends it on."""

    def update(self, message: Message) -> Message:
        """Print."""
        word = message.payload
        print("print", word)
        sys.stdout.write(f"write {word}\n")
        print("error", word, file=sys.stderr)
        logging.getLogger("some.library").warning("logged %s", word)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"warned {word}", stacklevel=1)
        print("half a line", word, end="")
        return message


class Chat(Proc):
    """Prints three lines of its payload with pauses, long enough for another thread to print between them."""

    def __init__(self, pause: float = 0.02) -> None:
        self.pause = pause

    def update(self, message: Message) -> Message:
        """Print."""
        for number in range(3):
            print(f"{message.payload}.{number}")
            time.sleep(self.pause)
        return message


class Moody(Proc):
    """Prints, then does as the payload says: "raise", "hang", or a number of lines that it prints."""

    def update(self, message: Message) -> Message:
        """Do it."""
        print("before", message.payload)
        if message.payload == "raise":
            raise ValueError("no good")
        if message.payload == "hang":
            threading.Event().wait(30)
        if isinstance(message.payload, int):
            for number in range(message.payload):
                print(f"line {number:06d}")
        return message


class TalkTogether(Proc):
    """Prints one line for a whole batch."""

    def update_batch(self, messages: list[Message]) -> list[Message]:
        """Print."""
        print("together", len(messages))
        return messages


class Doubled(Proc):
    """Prints and doubles: two of it in a row are served by one activation."""

    def update(self, message: Message) -> Message:
        """Print."""
        print("doubling", message.payload)
        return message.with_payload(2 * message.payload)


@node(queue="printing", console=True, version="1")
def loud(payload: Any) -> Any:
    """Print."""
    print("loud", payload)
    return payload


@node(queue="printing", console=True, timeout=2.0, version="1")
def moody(mood: str) -> str:
    """Print, then do as the mood says."""
    print("in the mood to", mood)
    if mood == "raise":
        raise ValueError("no good")
    if mood == "hang":
        threading.Event().wait(30)
    return mood


@node(queue="printing", console=True, cache=True, version="1")
def remembered(word: str) -> str:
    """Print."""
    print("working on", word)
    return word


#: What :func:`uses_streams` returns anywhere.
USES = {"encoding": "utf-8", "written": 5, "raw": 6, "descriptors": True, "returned": 0, "child": 0, "enabled": True}


@node(queue="streams", timeout=20)
def uses_streams() -> dict[str, Any]:
    """Use the standard streams as programs do that know nothing of workers."""
    print("frame", 3, "of", 5)
    print("half a", end="", flush=False)
    print(" line")
    threads = [threading.Thread(target=print, args=("from a thread", number)) for number in range(4)]
    for thread in threads:
        thread.start()
        thread.join()
    child = os.fork()
    if not child:
        print("from a fork")
        os._exit(0)
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable(sys.stderr)
    found = {
        "encoding": sys.stdout.encoding.lower(),
        "written": sys.stderr.write("bare\n"),
        "raw": sys.stdout.buffer.write(b"bytes\n"),
        "descriptors": sys.stdout.fileno() != sys.stderr.fileno(),
        "returned": subprocess.run(["echo", "from a process"], stdout=sys.stdout, check=True).returncode,
        "child": os.waitpid(child, 0)[1],
        "enabled": faulthandler.is_enabled(),
    }
    if not was_enabled:
        faulthandler.disable()
    return found


class Endless(Proc):
    """Prints numbers for ever, ``pause`` seconds apart, and notes in a file how far it came."""

    def __init__(self, diary: str, pause: float = 0.005) -> None:
        self.diary = diary
        self.pause = pause

    def update(self, message: Message) -> Message:
        """Print."""
        with open(f"{self.diary}.{os.getpid()}", "ab", buffering=0) as diary:
            for number in itertools.count():
                print(f"{message.payload} {number}")
                diary.write(b"%d\n" % number)
                time.sleep(self.pause)
        return message


class Wordy(Proc):
    """Prints and logs at every level, waits for a file between the beginning and the end, and sends its payload on.

    ``secret``: is printed. ``wait``: the file; empty: no wait. ``lines``: so many are printed in a row.
    """

    def __init__(self, secret: str = "", wait: str = "", lines: int = 0) -> None:
        self.secret = secret
        self.wait = wait
        self.lines = lines

    def warmup(self) -> None:
        """Print."""
        print("warming up")

    def update(self, message: Message) -> Message:
        """Print."""
        log = logging.getLogger("my.model")
        print("begin", message.payload, self.secret)
        log.debug("debug %s", message.payload)
        log.info("info %s", message.payload)
        log.warning("warning %s", message.payload)
        for number in range(self.lines):
            print(f"line {number}")
        until = time.monotonic() + 30
        while self.wait and not os.path.exists(self.wait) and time.monotonic() < until:
            time.sleep(0.02)
        try:
            message.payload["none"]
        except TypeError:
            log.exception("caught")
        print("end", message.payload)
        return message


class Turns(Proc):
    """Prints in turn with another one: each waits until the file of the other has as many lines as it needs."""

    def __init__(self, diary: str, other: str, word: str) -> None:
        self.diary = diary
        self.other = other
        self.first = word == "a"

    def update(self, message: Message) -> Message:
        """Print."""
        for number in range(message.payload):
            self._wait_for(number if self.first else number + 1)
            time.sleep(0.01)
            print(f"turn {2 * number + (not self.first)}")
            with open(self.diary, "a") as diary:
                diary.write("x")
        return message

    def _wait_for(self, count: int) -> None:
        until = time.monotonic() + 30
        while (os.path.getsize(self.other) if os.path.exists(self.other) else 0) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"the other one does not come to {count}")
            time.sleep(0.002)
