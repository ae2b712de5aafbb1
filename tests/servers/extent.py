"""How long the tests of faults take: ``make faults`` asks for the long form, everything else gets the short one."""

from __future__ import annotations

import os

import pytest

LONG = os.environ.get("CELERYPIPE_FAULTS") == "long"
at_length = pytest.mark.skipif(not LONG, reason="only at length: make faults")
