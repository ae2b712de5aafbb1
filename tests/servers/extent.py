"""How long tests take: ``make faults`` and ``make installed`` ask for the long form, the suite takes the short one."""

from __future__ import annotations

import os

import pytest

LONG = os.environ.get("CELERYPIPE_FAULTS") == "long"
at_length = pytest.mark.skipif(not LONG, reason="only at length: make faults")
#: How often each census of what is left is taken: ``make orphans``.
ROUNDS = int(os.environ.get("CELERYPIPE_ORPHANS", "1"))
