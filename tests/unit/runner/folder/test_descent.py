"""What descends from a root, counted until nothing of it is left."""

from __future__ import annotations

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
