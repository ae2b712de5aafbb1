"""What the tests start leaves nothing behind, however they end."""

from __future__ import annotations

import subprocess
import sys

from tests.servers import eventually
from tests.servers.checkout import ROOT
from tests.servers.processes import alive

#: What a process of the tests does: it has another one forked, and waits.
SCRIPT = """
import os, pathlib, signal
from tests.servers.zygote import zygote
words = ["-c", "import time; time.sleep(100)"]
print(zygote.fork(words, cwd=pathlib.Path.cwd(), environment=dict(os.environ), streams=[2, 2]).pid, flush=True)
signal.pause()
"""


def test_what_was_forked_ends_with_the_tests_that_are_told_to_end() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        assert alive(pid)
        tests.terminate()
    eventually(lambda: not alive(pid), "the end of what was forked")
