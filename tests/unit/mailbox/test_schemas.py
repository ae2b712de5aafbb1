"""What workers tell of their code: signed where there are keys, so that it cannot be altered on its way."""

from __future__ import annotations

import json

import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.mailbox import schemas
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import Keyring
from tests.nodes import remembered

OURS, THEIRS = Keyring.parse("our key of many bytes"), Keyring.parse("their key of many bytes")
SCHEMA = Catalogue().find(f"{remembered.__name__}.Declared").schema()


def test_what_a_worker_tells_is_believed_as_it_told_it_and_of_itself_alone() -> None:
    told = json.loads(json.dumps(schemas.vouched(SCHEMA, OURS, "host.1.life")))
    assert schemas.is_vouched(told, OURS, "host.1.life")
    assert not schemas.is_vouched(told, OURS, "host.1.another")
    assert not schemas.is_vouched(told, THEIRS, "host.1.life")
    assert not schemas.is_vouched({**told, "code": "version 2"}, OURS, "host.1.life")
    assert not schemas.is_vouched({**told, "signature": "no hex"}, OURS, "host.1.life")
    assert not schemas.is_vouched(SCHEMA, OURS, "host.1.life")
    assert schemas.vouched(SCHEMA, None, "host.1.life") == SCHEMA
    assert schemas.is_vouched(SCHEMA, None)


@pytest.mark.parametrize("keyring", [None, OURS], ids=["without keys", "with keys"])
def test_what_was_told_is_remembered_unless_somebody_altered_it(redis_client: Client, keyring: Keyring | None) -> None:
    schemas.remember(redis_client, SCHEMA, keyring)
    found = schemas.recall(redis_client, SCHEMA["mark"], keyring)
    assert found is not None
    assert (found["code"], found["arguments"]) == (SCHEMA["code"], json.loads(json.dumps(SCHEMA["arguments"])))
    name = keys.USUAL.cache_schema(SCHEMA["mark"])
    text = redis_client.get(name)
    assert isinstance(text, bytes)
    redis_client.set(name, text.replace(b"version 1", b"version 0"))
    altered = schemas.recall(redis_client, SCHEMA["mark"], keyring)
    assert altered is None if keyring is not None else altered is not None
    redis_client.delete(name)
