"""Shared memory of a run, for the tests of what is in it and of what stays mapped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celerypipe.mailbox.blob.shared_memory import SharedFolder
from celerypipe.message.message import new_id


@pytest.fixture
def folder() -> Iterator[SharedFolder]:
    """The folder of a run that is over with the test."""
    made = SharedFolder.make(new_id())
    assert made is not None
    yield made
    made.remove()
