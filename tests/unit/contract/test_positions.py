"""Sets of positions in a source."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celerypipe.contract.positions import Positions

NUMBERS = st.integers(-20, 20)
MEMBERS = st.lists(st.one_of(NUMBERS, st.tuples(NUMBERS, NUMBERS).map(sorted), st.text(max_size=2)))


@settings(deadline=None)
@given(MEMBERS, MEMBERS)
def test_it_is_the_set_that_it_stands_for(members: list[object], others: list[object]) -> None:
    expected: set[object] = set()
    made = [Positions(), Positions()]
    for positions, wanted in zip(made, (members, others), strict=True):
        for member in wanted:
            if isinstance(member, list):
                positions.add_range(*member)
                expected |= set(range(member[0], member[1] + 1))
            else:
                positions.add(member)  # type: ignore[arg-type]
                expected.add(member)
    made[0].update(made[1])
    again = Positions.from_list(json.loads(json.dumps(made[0].to_list())))
    for positions in (made[0], again):
        assert {number for number in range(-25, 26) if number in positions} == {n for n in expected if type(n) is int}
        assert all(name in positions for name in expected if isinstance(name, str))
        assert len(positions) == len(expected)
        assert bool(positions) == bool(expected)
    assert made[0].to_list() == again.to_list()


def test_ten_million_in_a_row_are_one_range() -> None:
    positions = Positions()
    positions.add_range(0, 4_999_999)
    positions.add_range(5_000_001, 9_999_999)
    positions.add(5_000_000)
    assert positions.to_list() == [[0, 9_999_999]]
    assert 9_999_999 in positions
    assert 10_000_000 not in positions
    assert None not in positions


@pytest.mark.parametrize("wrong", [[1], [[2, 1]], [[1, 2, 3]], [None], {}, None, 7, [["a", "b"]], [1.5]])
def test_what_is_no_list_of_positions_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="neither a range nor a name"):
        Positions.from_list(wrong)
