"""What is passed on of an exception out of user code: enough to mend it, and never without bound."""

from __future__ import annotations

import pytest

from celerypipe.catalogue.instance import LONGEST_TEXT, LONGEST_TRACE, brief, trace
from celerypipe.errors import ConfigError


def caught(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as raised:
        raise error
    return raised.value


def test_a_short_text_is_whole() -> None:
    error = caught(ValueError("odd"))
    assert brief(error) == "ValueError: odd"
    assert trace(error).endswith("ValueError: odd\n")
    assert brief(caught(KeyboardInterrupt())) == "KeyboardInterrupt"


def test_a_long_text_is_cut_and_says_so() -> None:
    for error in (caught(ValueError("x" * 10**7)), caught(ConfigError("x" * 10**7))):
        assert len(brief(error)) < LONGEST_TEXT + 100
        assert brief(error).endswith("more characters)")
    assert len(trace(caught(ValueError("x" * 10**7)))) < 2 * LONGEST_TEXT
    assert "in caught" in trace(caught(ValueError("x" * 10**7)))


def test_of_a_long_traceback_the_innermost_frames_are_left() -> None:
    error: BaseException = caught(ValueError("the first"))
    for number in range(100):
        outer = RuntimeError(f"{number}" * 4000)
        outer.__cause__ = error
        error = caught(outer)
    text = trace(error)
    assert len(text) < LONGEST_TRACE + 100
    assert text.startswith("(")
    assert "parts of this traceback are left out)" in text
    assert text.rstrip().endswith("99")
