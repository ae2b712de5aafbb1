"""What happens around a fork, in the process that forks."""

from __future__ import annotations

import subprocess
import sys

from tests.servers import ROOT

#: What is registered first is called last, when signals are held back.
PROGRAM = """
import os, signal, time
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
import celerypipe.process.forks
try:
    if not os.fork():
        os._exit(0)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_while_a_process_forks_is_not_lost() -> None:
    # Python 3.13 warns of forks in a process with threads, of which the one is there that brings Ctrl-C once more.
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
