"""Replies as they stand in a stream: what no activation wrote is none."""

from __future__ import annotations

import pytest

from celerypipe import CodecError
from celerypipe.mailbox.onward import Step, pack, unpack
from celerypipe.mailbox.wire import RESULT_HEAD, as_published


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_time_that_is_none_is_no_reply(seconds: float) -> None:
    for times in ((seconds, 0.0, 0.0), (0.0, seconds, 0.0), (0.0, 0.0, seconds)):
        reply = RESULT_HEAD.pack(1, 0, b"r", *times, False, 0, 0, 0, 0, 0)
        published = as_published((b"1-0", [b"n", b"node", b"w", b"worker", b"r", reply]))
        assert published is not None
        assert (published.results, published.refused) == ([], 1)
    with pytest.raises(CodecError, match="are no time"):
        unpack(pack([Step(b"r", 0.0, onward=(None, Step(b"r", seconds)))]))
