"""The study of chirps as shipped: a private Redis, a worker, and the second run out of the cache."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.servers.command import start

EXAMPLE = ROOT / "examples" / "spectra"
COUNT = 4


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_second_run_computes_nothing(tmp_path: Path) -> None:
    for name in ("tasks", "worker_configs"):  # a folder that is like the root of the checkout, but takes the picture
        (tmp_path / name).symlink_to(ROOT / name)
    study = start(EXAMPLE / "study.py", COUNT, cwd=tmp_path).finish()
    assert study.returncode == 0, study.stdout + study.stderr
    assert re.search(rf"^first run: .* s, 0 of {COUNT} from the cache$", study.stdout, re.MULTILINE)
    assert re.search(rf"^second run: .* s, {COUNT} of {COUNT} from the cache$", study.stdout, re.MULTILINE)
    assert "every number is the same" in study.stdout
    picture = tmp_path / "examples" / "spectra" / "out" / "spectra.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
