"""What descends from a root, counted until nothing of it is left."""

from __future__ import annotations

import threading
from operator import attrgetter

import pytest

from celerypipe.message.message import Message
from celerypipe.runner.folder.descent import Descent


@pytest.mark.parametrize("inherited", [True, False], ids=["source messages", "letters"])
def test_what_a_join_gave_up_is_through_at_once_for_a_source_and_at_a_good_end_for_a_letter(inherited: bool) -> None:
    through: list[str] = []
    descent: Descent[str] = Descent(attrgetter("origin" if inherited else "id"), through.extend, inherited=inherited)
    message = Message("a part without company")
    name = message.origin if inherited else message.id
    descent.begin("root", name)
    descent.sent(message, None)
    descent.begun(name)
    descent.unmatched(message)
    assert (through, descent.idle) == ((["root"], True) if inherited else ([], False))
    descent.end()
    assert through == ["root"]


def test_what_is_through_is_told_before_anybody_who_wants_it_still_goes_on() -> None:
    """Else the journal of a run could be closed in between, and the message be sent again."""
    told: list[str] = []
    in_between, go_on = threading.Event(), threading.Event()

    def through(roots: list[str]) -> None:
        in_between.set()
        assert go_on.wait(10)
        told.extend(roots)

    descent: Descent[str] = Descent(attrgetter("origin"), through, inherited=True)
    descent.begin("root", "a")
    ending = threading.Thread(target=descent.begun, args=("a",))
    ending.start()
    assert in_between.wait(10)
    seen: list[list[str]] = []

    def close() -> None:
        with descent.still():
            seen.append(list(told))

    closing = threading.Thread(target=close)
    closing.start()
    closing.join(0.1)
    assert not seen
    go_on.set()
    for thread in (ending, closing):
        thread.join(10)
    assert seen == [["root"]]
