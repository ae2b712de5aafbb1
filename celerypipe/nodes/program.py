"""``program``: a proc that runs a program of this machine's own list on each message."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any

from celerypipe.contract.contract import Proc
from celerypipe.contract.programs import HERE, INPUT, OUTPUT, Filling, Program, programs_here
from celerypipe.errors import ConfigError, did_you_mean
from celerypipe.heartbeat.descendants import end_tree
from celerypipe.message.files import File
from celerypipe.message.message import Message
from celerypipe.process.parent import die_with_parent
from celerypipe.settings import Settings

#: What of its error output is shown, in bytes.
SHOWN = 4096
#: What a program has no need to know.
SECRET = ("CELERYPIPE_", "CELERY_")


class RunProgram(Proc):
    """Runs a program on each message: the payload goes in, and what it writes is the payload that is sent.

    Which programs there are is decided where the node runs: ``[programs.NAME]`` in the file of the worker's queue, or
    for a node that is not warped in any file of ``worker_configs/``. The pipeline chooses one by its name and gives the
    values that its command line leaves open; each stays one argument, and there is no shell. A payload is bytes, text
    or a :class:`File`. What comes out is bytes, or text where the list says so; a program without output sends the
    message on as it is. A program that fails fails the message, with its exit status and the end of its error output.
    A timeout ends it and all that it started.

    ``program``: its name in the list
    ``values``: for each place that its command line leaves open, a text or a number
    """

    def __init__(self, program: str, values: dict[str, Any] | None = None) -> None:
        self.program = program
        self.values: Mapping[str, Filling] = values or {}
        self._found: Program | None = None
        self._executable = ""

    def configure(self) -> None:
        """Look the program up; :class:`ConfigError` names the list and what it has."""
        programs, wrong = self.reach.programs, dict[str, str]()
        where = "[programs] of the file of the worker's queue"
        if programs is None:
            folder = Settings.from_environment().worker_configs
            programs, wrong = programs_here(folder)
            where = f"[programs] of the files in {folder}/"
        if self.program in wrong:
            raise ConfigError(wrong[self.program])
        found = programs.get(self.program)
        if found is None:
            known = ", ".join(sorted(programs)) or "none"
            raise ConfigError(
                f"there is no program {self.program!r} in {where}{did_you_mean(self.program, programs)}; there are: "
                f"{known}. The owner of that machine adds [programs.{self.program}]"
            )
        if complaint := found.complaint(self.values):
            raise ConfigError(complaint)
        self._executable = found.executable()
        self._found = found

    def update(self, message: Message) -> Message:
        """Run it; RuntimeError with exit status and error output if it fails, TypeError for another payload."""
        program = self._found
        assert program is not None  # noqa: S101  # it was configured
        with ExitStack() as last:
            folder = Path(tempfile.mkdtemp(prefix="celerypipe-program-"))
            last.callback(shutil.rmtree, folder, ignore_errors=True)
            run = _Run(program, self._executable, folder, last)
            result = run.run(message.payload, self.values)
            if text := run.error_output():
                self.logger.info("%s: %s", program.name, text)
        return message if result is None else message.with_payload(result)


class _Run:
    """One time that a program runs, in a folder of its own."""

    def __init__(self, program: Program, executable: str, folder: Path, last: ExitStack) -> None:
        self.program = program
        self._executable = executable
        self._folder = folder
        self._last = last
        self._out = folder / f"output{program.suffix}"
        self._errors = folder / "stderr"

    def run(self, payload: Any, values: Mapping[str, Filling]) -> bytes | str | None:
        """Run it to its end; return what it wrote, None where it writes nothing."""
        program = self.program
        filled = {**values, HERE: str(program.here), INPUT: "", OUTPUT: str(self._out)}
        source: IO[bytes] | int = subprocess.DEVNULL
        if program.input != "none":
            path = self._stored(payload)
            filled[INPUT] = str(path)
            if program.input == "stdin":
                source = self._last.enter_context(path.open("rb"))
        output = self._out if program.output == "stdout" else self._folder / "stdout"
        sink = self._last.enter_context(output.open("wb"))
        errors = self._last.enter_context(self._errors.open("wb"))
        words = program.words(filled)
        work = self._folder / "work"
        work.mkdir()
        process = subprocess.Popen(  # noqa: S603  # of this machine's own list, without a shell
            [words[0], *words[1:]],
            executable=self._executable,
            stdin=source,
            stdout=sink,
            stderr=errors,
            cwd=work,
            env={name: value for name, value in os.environ.items() if not name.startswith(SECRET)},
            preexec_fn=partial(_begin, program.most_bytes, die_with_parent()),
        )
        try:
            status = process.wait(program.timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(self._said(f"took longer than {program.timeout:g} s, and was ended")) from None
        finally:  # also where the node is interrupted, for its own timeout
            if process.poll() is None:
                _end(process)
        self._require_success(status)
        return self._written()

    def _stored(self, payload: Any) -> Path:
        """Return the path of a file with the payload."""
        if isinstance(payload, File):
            return payload.path
        if isinstance(payload, str):
            payload = payload.encode()
        if not isinstance(payload, bytes | bytearray | memoryview):
            raise TypeError(
                f"program {self.program.name!r} takes bytes, text or a file, not {type(payload).__name__}; put a node "
                "in front of it that makes bytes of that"
            )
        path = self._folder / f"input{self.program.input_suffix}"
        path.write_bytes(payload)
        return path

    def _require_success(self, status: int) -> None:
        most = self.program.most_bytes
        if any(path.exists() and path.stat().st_size >= most for path in (self._out, self._folder / "stdout")):
            raise RuntimeError(self._said(f"wrote more than {most} bytes; raise `most_bytes` in its list"))
        if status not in self.program.exit_codes:
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
            raise RuntimeError(self._said(how))

    def _written(self) -> bytes | str | None:
        program = self.program
        if program.output == "none":
            return None
        try:
            found = self._out.read_bytes()
        except FileNotFoundError:
            raise RuntimeError(self._said("ended well, and wrote no file at {output}")) from None
        if not program.text:
            return found
        try:
            return found.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"program {program.name!r} wrote no UTF-8 text: {error}; leave `text` out") from None

    def error_output(self) -> str:
        """Return the end of what it said on its error output."""
        with self._errors.open("rb") as file:
            file.seek(max(0, self._errors.stat().st_size - SHOWN))
            return file.read().decode(errors="replace").strip()

    def _said(self, how: str) -> str:
        text = self.error_output()
        return f"program {self.program.name!r} {how}" + (f"; its error output ends with:\n{text}" if text else "")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that came of it, in a thread: an interrupt that comes again must not leave half of it."""

    def end() -> None:
        end_tree(process.pid)
        process.wait()

    ending = threading.Thread(target=end, name="celerypipe-program-end")
    ending.start()
    ending.join()


def _begin(most: int, arm: Callable[[], None] | None) -> None:
    """In the child: what it writes is bounded, and Ctrl-C is for who started it, who lets it finish its message."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arm is not None:
        arm()
