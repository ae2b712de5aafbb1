"""Edited code of the workers of ``Embedded``: it is looked for once a second, tried, and then they restart with it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.files import CodeFiles, edited, shown, syntax_error
from celerypipe.catalogue.modules import forget_bytecode
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import ConfigError

#: Seconds between two looks at the files.
LOOK = 1.0


class Edits:
    """Looks at the files of nodes that workers run, in a thread of its own, until :meth:`close`.

    ``environment``: the variables of the workers; ``python`` says which one those of a queue run with. ``restart`` is
    told whose queue's worker is to restart, ``say`` what happens.
    """

    def __init__(
        self,
        nodes: Sequence[NodeDefinition],
        catalogue: Catalogue,
        environment: Mapping[str, str],
        *,
        python: Callable[[str], str],
        restart: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._environment = environment
        self._python = python
        self._restart = restart
        self._say = say
        self._nodes: dict[str, list[NodeDefinition]] = {}
        for node in nodes:
            self._nodes.setdefault(node.queue, []).append(node)
        found = ((node.queue, catalogue.code_files(node.mark, node.type)) for node in nodes)
        self._files: list[tuple[str, CodeFiles]] = [(queue, code) for queue, code in found if code is not None]
        self._over = threading.Event()
        self._trial: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._over.clear()
        threading.Thread(target=self._loop, name="embedded-edits", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        trial = self._trial
        if trial is not None:
            trial.kill()

    def _loop(self) -> None:
        while not self._over.wait(LOOK):
            files: dict[str, list[Path]] = {}
            for (queue, _), found in zip(self._files, edited([code for _, code in self._files]), strict=True):
                files.setdefault(queue, []).extend(found)
            for queue, written in files.items():
                if written:
                    self._take(queue, list(dict.fromkeys(written)))

    def _take(self, queue: str, files: Sequence[Path]) -> None:
        pinned = [node.name for node in self._nodes[queue] if node.warp_configuration.pinned]
        changed = f"{shown(files)} changed"
        if pinned:
            text = f"worker {queue} goes on as it is, for node {pinned[0]} is pinned to a process of it"
            self._say(f"{changed}: {text}; start the run again for the edit")
            return
        goes_on = f"worker {queue} goes on with the code that it has"
        if broken := syntax_error(files):
            self._say(f"{broken}; {goes_on}")
            return
        forget_bytecode(files)
        wrong = self._tried(queue)
        if self._over.is_set():
            return
        if wrong:
            self._say(f"{changed}: {wrong}; {goes_on}")
            return
        self._say(f"{changed}: worker {queue} restarts")
        self._restart(queue)

    def _tried(self, queue: str) -> str:
        """Import the nodes of a queue in a process of its own; return why that cannot be, empty if it can."""
        marks = sorted({f"{node.type}:{node.mark}" for node in self._nodes[queue]})
        try:
            python = self._python(queue)
        except ConfigError as error:  # the file of the queue was edited, too
            return str(error)
        self._trial = subprocess.Popen(  # noqa: S603  # that of the workers; each mark is one argument
            [python, "-m", "celerypipe.embedded.rehearsal", *marks],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **self._environment},
        )
        _, said = self._trial.communicate()
        status, self._trial = self._trial.returncode, None
        lines = said.strip().splitlines()
        return "" if not status else lines[-1] if lines else f"importing it ended with status {status}"
