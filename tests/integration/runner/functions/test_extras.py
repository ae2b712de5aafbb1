"""What calls have besides: what their function printed, and files as their arguments."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

import celerypipe
from celerypipe import CodecError, NodeFailed, NodeTimeout, Runner
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from tests.nodes import filing, printing
from tests.nodes.filing import made
from tests.servers import StartWorker, eventually

CONFIG = 'imports = ["tests.nodes.printing", "tests.nodes.filing"]\n'


@pytest.fixture(params=["there", "here"])
def runner(request: pytest.FixtureRequest, shared_worker: StartWorker, redis_url: str) -> Iterator[Runner]:
    """A runner whose functions run on a worker, and one whose functions run here."""
    if request.param == "there":
        shared_worker("printing", pool="prefork", concurrency=1, config=CONFIG)
        shared_worker("filing", pool="prefork", concurrency=2, config=CONFIG)
    with Runner(redis_url) if request.param == "there" else Runner(local=True) as runner:
        yield runner


# -- consoles ---------------------------------------------------------------------------------------------------------


def test_a_call_has_what_was_printed(runner: Runner) -> None:
    calls = [runner.submit(printing.loud, number) for number in range(5)]
    assert [call.result(20) for call in calls] == list(range(5))
    for number, call in enumerate(calls):
        assert call.console is not None
        assert call.console.text == f"loud {number}\n"
        assert (str(os.getpid()) in call.console.worker) == runner.local


def test_a_call_that_failed_has_it_too(runner: Runner) -> None:
    for mood, kind in (("raise", NodeFailed), ("hang", NodeTimeout)):
        call = runner.submit(printing.moody, mood)
        with pytest.raises(kind) as caught:
            call.result(20)
        assert call.console is not None
        assert call.console is caught.value.console
        assert call.console.text == f"in the mood to {mood}\n"


def test_a_result_out_of_the_cache_has_none(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("printing", pool="prefork", concurrency=1, config=CONFIG)
    with Runner(redis_url) as runner:
        word = secrets.token_hex(8)
        first = runner.submit(printing.remembered, word)
        assert first.result(20) == word
        assert first.console is not None
        again = runner.submit(printing.remembered, word)
        eventually(again.done, "the call")
        assert (again.state, again.console) == ("cached", None)


# -- files ------------------------------------------------------------------------------------------------------------


def test_files_are_arguments_at_any_depth(runner: Runner, tmp_path: Path) -> None:
    files = [made(tmp_path, f"{number}.bin", number) for number in range(4)]
    call = runner.submit(filing.lengths, {"deep": [(files[1],)]}, files[2], [files[3]])
    assert call.result(20) == [1, 2, 3]
    assert filing.lengths(files) == [0, 1, 2, 3]


def test_the_same_content_is_the_same_question(
    shared_worker: StartWorker, redis_url: str, redis_client: Client, tmp_path: Path
) -> None:
    shared_worker("filing", pool="prefork", concurrency=2, config=CONFIG)
    (tmp_path / "elsewhere").mkdir()
    first, other = made(tmp_path, "a.wav"), tmp_path / "elsewhere" / "b.wav"
    other.write_bytes(first.path.read_bytes())
    with Runner(redis_url) as runner:
        path, content = runner.submit(filing.content, first).result(20)
        assert content == first.path.read_bytes()
        assert path.endswith(".wav")
        redis_client.delete(keys.USUAL.file(first.digest), keys.USUAL.file_piece(first.digest, 0))
    with Runner(redis_url) as runner:  # another session, which has not sent it
        again = runner.submit(filing.content, celerypipe.file(other))
        assert again.result(20) == (path, content)
        assert again.state == "cached"
        assert not redis_client.exists(keys.USUAL.file(first.digest))  # nobody had to send it
        renamed = runner.submit(filing.content, celerypipe.file(other.rename(tmp_path / "a.mp3")))
        assert renamed.result(20)[0].endswith(".mp3")
        assert renamed.state == "done"


def test_a_result_with_a_file_in_it_is_not_kept(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("filing", pool="prefork", concurrency=2, config=CONFIG)
    file = made(tmp_path, "a.bin")
    said: list[str] = []
    with Runner(redis_url, on_event=said.append) as runner:
        for _ in range(2):
            call = runner.submit(filing.passed, file)
            assert call.result(20) == file
            assert call.state == "done"
    assert any("a result is not kept: the content of files travels to workers alone" in text for text in said)


def test_a_file_that_was_changed_is_refused_where_it_is_submitted(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("filing", pool="prefork", concurrency=2, config=CONFIG)
    file = made(tmp_path, "a.bin")
    (tmp_path / "a.bin").write_bytes(b"other")
    with Runner(redis_url) as runner, pytest.raises(CodecError, match="was changed after celerypipe"):
        runner.submit(filing.lengths, file)
