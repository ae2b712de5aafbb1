"""What a worker makes of a task before anything runs."""

from __future__ import annotations

import zlib

import kombu.compression
from kombu.message import Message as TaskMessage

from celerypipe.celery.request import refuse_packed_tasks


def test_a_worker_unpacks_no_task() -> None:
    known = {name: kombu.compression.get_decoder(name) for name in kombu.compression.encoders()}
    assert "application/x-gzip" in known
    try:
        refuse_packed_tasks()
        packed = zlib.compress(bytes(1 << 24))
        bomb = TaskMessage(body=packed, headers={"compression": "application/x-gzip"})
        assert bomb.body is packed
        assert "unpacks none" in str(bomb.errors[0][1])
    finally:
        for name, decoder in known.items():
            kombu.compression.register(kombu.compression.get_encoder(name)[0], decoder, name)
