"""The number of the protocol: it goes with what stands in Redis, and says who understands whom."""

from __future__ import annotations

import difflib

import pytest

from celerypipe.mailbox import protocol
from celerypipe.mailbox.bell import Bell, bell_in, wrong_with
from celerypipe.mailbox.protocol import SPOKEN, Spoken, unlike
from celerypipe.redis.signing import Keyring
from tests.protocol.sources import STORED, described, digest_of

WHAT_TO_DO = """
What runners and workers say to each other through Redis was changed. If one from before and one from now would not
understand each other, and the number was in a release, raise it:  python -m tests.protocol raise
Else the number stays:                                             python -m tests.protocol keep
Commit what that writes together with the change (CONTRIBUTING.md, "What stands in Redis").
"""
SOURCE = '''
"""A module."""
import struct
ENTRY = struct.Struct("<QIH")
def packed(number):
    """Pack it."""
    logger.debug("a number: %s", number)
    if number < 0:
        raise ValueError(f"{number} is no number")
    return ENTRY.pack(number, 0, 0)  # as it stands there
SEND = Script("""
-- Append it.
redis.call('XADD', KEYS[1], '*', 'm', ARGV[1])
""")
'''


def test_the_number_goes_with_what_stands_in_redis() -> None:
    before, now = STORED.read_text("utf-8").splitlines(), described().splitlines()
    assert before == now, "\n".join([WHAT_TO_DO, *difflib.unified_diff(before, now, "stored", "now", n=0, lineterm="")])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Another sentence."""'),
        ('    """Pack it."""\n', ""),
        ("  # as it stands there", ""),
        ("import struct", "import struct\nimport os"),
        ("a number: %s", "another word: %s"),
        ("is no number", "is below zero"),
        ("-- Append it.\n", "\n"),
    ],
)
def test_words_are_no_part_of_it(old: str, new: str) -> None:
    assert old in SOURCE
    assert digest_of(SOURCE.replace(old, new)) == digest_of(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"), [("<QIH", "<QQH"), ("number, 0, 0", "number, 0, 1"), ("'m', ", "'n', "), ("< 0", "< 1")]
)
def test_what_it_does_is(old: str, new: str) -> None:
    assert old in SOURCE
    assert digest_of(SOURCE.replace(old, new)) != digest_of(SOURCE)


def test_two_understand_each_other_if_there_is_a_number_that_both_do() -> None:
    for one, other, so in [
        ((1, 1), (1, 1), True),
        ((3, 1), (2, 2), True),
        ((3, 2), (1, 1), False),
        ((1, 1), (0, 0), False),
    ]:
        assert Spoken(*one).understands(Spoken(*other)) is so
        assert Spoken(*other).understands(Spoken(*one)) is so


def test_who_is_older_is_told_to_be_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SPOKEN", Spoken(3, 2))
    assert unlike(Spoken(2, 1), "gpubox") == ""
    assert unlike(Spoken(1, 1), "gpubox") == (
        "speaks protocol 1, and this machine protocol 3: update celerypipe on gpubox, and restart the worker"
    )
    assert "update celerypipe here, to the version that gpubox has" in unlike(Spoken(5, 4), "gpubox")
    assert "speaks a protocol without a number" in unlike(Spoken(), "gpubox")


@pytest.mark.parametrize("keyring", [None, Keyring.parse("a key of the tests that is known")])
def test_a_bell_is_read_as_far_as_every_version_can(keyring: Keyring | None) -> None:
    bell = Bell("run", "node", 2, "token", SPOKEN)
    arguments = bell.arguments("mark", keyring)
    assert bell_in(arguments) == bell
    assert wrong_with(bell) == ""
    for later in ([[9, 8], "run", "node"], [[9, 8], "run", "node", {"all": "new"}], [[9, 8], *arguments[1:]]):
        found = bell_in(later)
        assert found == Bell("run", "node", protocol=Spoken(9, 8))
        assert "this run speaks protocol 9, and the worker protocol 1: update celerypipe where the worker is" in (
            wrong_with(found)
        )
    strange = bell_in([list(SPOKEN), "run", "node", "slot", "token"])
    assert strange is not None
    assert "does not have the arguments of protocol 1" in wrong_with(strange)
    for nameless in (["run", "node", 0, "token"], ["run", "node", 0, "token", "signature"]):
        before = bell_in(nameless)
        assert before == Bell("run", "node")
        assert "speaks a protocol without a number, and the worker protocol 1: update celerypipe where this run is" in (
            wrong_with(before)
        )
    for other in (
        [],
        ["run", "node", 0],
        ["run", "node", "token", 0],
        [[1], "run", "node"],
        [[1, 1], 5, "node"],
        ["1-1", "run", "node"],
    ):
        assert bell_in(other) is None
