"""The files of a run: sent once while somebody has them, known as long, and back at their place."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from celerypipe import File, Message, Runner, codec
from celerypipe.mailbox.blob.files import is_there
from celerypipe.message.files import Origin, arriving
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.runner.carrier.files import SLACK, FileSender
from tests.nodes.filing import made
from tests.runs.pipelines import warped
from tests.servers import StartWorker
from tests.servers.extent import at_length

CONFIG = 'imports = ["tests.nodes.printing", "tests.nodes.filing"]\n'
WINDOW = 16


@pytest.fixture
def sender(redis_url: str) -> FileSender:
    return FileSender(redis_url, lambda seconds: False, lambda text: None)


@pytest.mark.parametrize("many", [pytest.param(5_000, marks=at_length), 400])
def test_a_run_knows_of_the_files_that_are_on_their_way(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, many: int
) -> None:
    shared_worker("filing", pool="prefork", concurrency=2, config=CONFIG)

    def messages() -> Iterator[Message]:
        for number in range(many):
            yield Message(made(tmp_path, f"{number}.txt", 10))

    runner = Runner(redis_url)
    passing = warped("tests.nodes.filing.Pass", "filing", limits={"window": WINDOW})
    held = []
    for number, message in enumerate(runner.stream(passing, messages())):
        assert message.payload.path == tmp_path / f"{number}.txt"  # of a node elsewhere, and known here still
        run = runner._current
        assert run is not None
        assert run.carrier is not None
        held.append(run.carrier.files.held)
    assert len(held) == many
    # Those in the window, and as many that came back and wait to be read; half of what is known may be over.
    assert max(held) <= 2 * 4 * WINDOW + SLACK


def test_the_same_content_is_sent_once_and_stays_as_long_as_one_message_has_it(
    sender: FileSender, redis_client: Client, tmp_path: Path
) -> None:
    first = made(tmp_path, "a.bin")
    copy = File(first.digest, "b.bin", first.size, Origin(tmp_path))
    sender.send([first])
    sender.send([copy])  # it is there: nothing is read, or this would not be found
    assert sender.held == 1
    name, size = first.digest, first.size
    del first
    gc.collect()
    sender.doubt()
    assert sender.renew(redis_client) == []
    assert sender.held == 1
    redis_client.delete(keys.USUAL.file(name))
    sender.doubt()
    assert sender.renew(redis_client) == [copy]
    del copy
    gc.collect()
    sender.doubt()
    assert sender.renew(redis_client) == []  # nobody asks for it any more
    assert sender.held == 0
    assert not is_there(redis_client, File(name, "a.bin", size))


def test_a_file_that_came_back_is_as_good_as_the_one_that_was_sent(
    sender: FileSender, redis_client: Client, tmp_path: Path
) -> None:
    file = made(tmp_path, "a.bin")
    sender.send([file])
    arriving.set(sender.place)
    try:
        (back,) = codec.decode(codec.encode_joined([Message(file)]))
    finally:
        arriving.set(None)
    del file
    gc.collect()
    sender.doubt()
    sender.renew(redis_client)
    assert back.payload.path == tmp_path / "a.bin"
    redis_client.delete(keys.USUAL.file(back.payload.digest))
    sender.doubt()
    sender.send_again(sender.renew(redis_client))
    assert is_there(redis_client, back.payload)


def test_what_may_be_asked_for_at_any_time_stays_until_the_end(
    sender: FileSender, redis_client: Client, tmp_path: Path
) -> None:
    sender.send([made(tmp_path, "a.bin")], keep=True)
    gc.collect()
    sender.renew(redis_client)
    assert sender.held == 1
