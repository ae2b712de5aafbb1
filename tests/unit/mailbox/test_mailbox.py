"""What Redis says of a mailbox, by its version."""

from __future__ import annotations

import redis

from celerypipe.mailbox.mailbox import is_missing


def test_each_redis_has_a_word_for_a_mailbox_that_is_gone() -> None:
    for words in (
        "NOGROUP No such key 'celerypipe:mailbox' or consumer group 'w' in XREADGROUP with GROUP option",
        "UNBLOCKED the stream key no longer exists",  # 7.0, while it waits; 6.2 says nothing
        "-NOGROUP the consumer group this client was blocked on no longer exists",
    ):
        assert is_missing(redis.ResponseError(words))
    assert not is_missing(redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"))
