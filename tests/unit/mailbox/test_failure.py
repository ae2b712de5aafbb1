"""What a failure says when it comes back."""

from __future__ import annotations

from typing import Any

import pytest

from celerypipe import CodecError, codec
from celerypipe.mailbox.failure import said_of


@pytest.mark.parametrize(
    "said", [None, [], {}, {"kind": "failed"}, {"kind": [], "text": "", "traceback": ""}, "failed"]
)
def test_a_failure_that_no_activation_wrote_is_unreadable(said: Any) -> None:
    with pytest.raises(CodecError, match="a failure without kind"):
        said_of(codec.encode_value(said))
