"""Items on a queue's list that are no task: kept apart, so that they neither end a worker nor vanish.

Whoever reaches Redis can push anything onto a list. A stock worker ends with the exception that comes of it, after it
popped the item; the next worker does not see it any more.
"""

from __future__ import annotations

import logging
from typing import Any

import redis

from celerypipe.redis import keys

logger = logging.getLogger("celerypipe.worker")

#: How much of one item is kept, in bytes, and how much of it is shown in the log.
KEEP_BYTES = 1024 * 1024
SHOW_BYTES = 120


def keep_apart(client: Any, where: str, queue: str, item: bytes, why: BaseException) -> None:
    """Say once what came and why it is no task, and keep it in the list ``where``; ``client``: redis-py's."""
    logger.error(
        "queue %r: an item of %d bytes is no task (%s: %s) and is kept in the list %s; it begins with %r",
        queue,
        len(item),
        type(why).__name__,
        why,
        where,
        item[:SHOW_BYTES],
    )
    try:
        with client.pipeline(transaction=False) as together:
            together.lpush(where, item[:KEEP_BYTES])
            together.ltrim(where, 0, keys.REFUSED_MOST - 1)
            together.expire(where, keys.REFUSED_TTL)
            together.execute()
    except (redis.RedisError, OSError) as error:  # what the log shows is all that is left of it
        logger.warning("cannot keep that item: %s", error)
