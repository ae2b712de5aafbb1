"""The shared flag: raised in one process, seen in its children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from celerypipe.worker.flag import SharedFlag
from tests.servers import ROOT

WATCH = "import sys; from celerypipe.worker.flag import SharedFlag; print(SharedFlag(sys.argv[1]).is_raised())"


def test_a_forked_child_sees_the_flag_that_was_raised_after_its_birth() -> None:
    flag = SharedFlag()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(told, 1)
        os._exit(0 if flag.is_raised() else 1)
    assert not flag.is_raised()
    flag.raise_it()
    os.write(tell, b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(told)
    os.close(tell)


def test_a_stranger_sees_the_flag_through_its_file_which_goes_with_its_owner() -> None:
    program = (
        "import subprocess, sys\n"
        "from celerypipe.worker.flag import SharedFlag\n"
        "flag = SharedFlag()\n"
        "path = flag.move_to_file()\n"
        "print(path)\n"
        "for _ in range(2):\n"
        f"    print(subprocess.check_output([sys.executable, '-c', {WATCH!r}, path], text=True).strip())\n"
        "    flag.raise_it()\n"
    )
    path, before, after = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT).split()
    assert (before, after) == ("False", "True")
    assert not Path(path).exists()
