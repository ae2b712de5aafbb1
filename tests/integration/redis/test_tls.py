"""Redis behind TLS that asks for certificates: ``rediss://`` from end to end, and what is said when one is missing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis

from celerypipe import Message, Pipeline, RedisUnavailable, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.embedded.server import private_folder
from celerypipe.redis.connection import connect
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.certificates import Authority, Door
from tests.servers.command import celerypipe
from tests.servers.port import free_port
from tests.servers.redis import redis_binary

CONFIG = 'imports = ["tests.nodes.remote"]\nworker_pool = "solo"\n'


class Secured(NamedTuple):
    """Where Redis is, what one shows at the door, and an authority that nobody there knows."""

    host: str
    authority: Authority
    stranger: Authority

    def url(self, signer: Authority | None, trusted: Authority | None = None, host: str = "") -> str:
        words = [f"ssl_ca_certs={(trusted or self.authority).certificate}"]
        if signer is not None:
            certificate, key = signer.sign("client")
            words += [f"ssl_certfile={certificate}", f"ssl_keyfile={key}"]
        return f"rediss://:s3cret@{host or self.host}/0?{'&'.join(words)}"


@pytest.fixture(scope="module", params=["before it", "of its own"])
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """TLS by a door before Redis, and by Redis itself where it was built with it."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder / "ours"), Authority(folder / "theirs")
    if request.param == "before it":
        server = RedisServer().start()
        with connect(server.url) as client:
            client.config_set("requirepass", "s3cret")
        door = Door(authority, Path(urlsplit(server.url).path))
        yield Secured(f"localhost:{door.port}", authority, stranger)
        door.close()
        server.remove()
        return
    place = private_folder()
    certificate, key = authority.sign("server")
    port = free_port()
    words = [
        "--port",
        "0",
        "--tls-port",
        str(port),
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
        "--save",
        "",
    ]
    words += ["--tls-ca-cert-file", authority.certificate, "--requirepass", "s3cret", "--dir", place]
    process = subprocess.Popen([redis_binary(), *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = Secured(f"localhost:{port}", authority, stranger)
    url = found.url(authority)

    def answers() -> str:
        if process.poll() is not None:
            return "no"
        try:
            with connect(url) as client:
                return "yes" if client.ping() else ""
        except (redis.ConnectionError, OSError):
            return ""

    there = eventually(answers, "an answer of redis-server")
    try:
        if there == "no":
            pytest.skip("this redis-server was built without TLS; the door before it shows the same")
        yield found
    finally:
        process.kill()
        process.wait()
        place.rmdir()


def echo(queue: str) -> Pipeline:
    node = NodeDefinition(
        name="there", type="proc", mark="tests.nodes.remote.Echo", warped=True, warp_configuration={"queue": queue}
    )
    return Pipeline(name="secured", nodes=[node], links=[])


def test_a_run_through_tls_with_certificates(secured: Secured, start_worker: StartWorker) -> None:
    url = secured.url(secured.authority)
    worker = start_worker("tls", url=url, config=CONFIG, env={"CELERYPIPE_SHARED_MEMORY": "no"})
    sent = [Message(number) for number in range(200)] + [Message(np.arange(500_000)) for _ in range(3)]
    back = list(Runner(url, shared_memory=False).stream(echo("tls"), sent))
    assert [message.payload for message in back[:200]] == list(range(200))
    assert [int(message.payload.sum()) for message in back[200:]] == [124999750000] * 3
    log = worker.text()
    assert "rediss://:***@localhost" in log
    assert "s3cret" not in log


def test_without_a_certificate_one_is_told_which_to_give(secured: Secured, start_worker: StartWorker) -> None:
    url = secured.url(None)
    with pytest.raises(RedisUnavailable, match=r"no encrypted connection .*&ssl_certfile=CERT.pem") as caught:
        list(Runner(url).stream(echo("nobody"), [Message(1)]))
    assert "s3cret" not in str(caught.value)
    with pytest.raises(RedisUnavailable):
        list(Runner(secured.url(secured.stranger)).stream(echo("nobody"), [Message(1)]))
    worker = start_worker("tls", url=url, config=CONFIG, wait=False)
    assert worker.wait_for_end() == 78
    assert "ssl_certfile=CERT.pem" in worker.text()
    assert len(worker.text().strip().splitlines()) == 1
    assert "s3cret" not in worker.text()


def test_a_server_that_a_stranger_vouches_for_is_not_trusted(secured: Secured) -> None:
    url = secured.url(secured.authority, trusted=secured.stranger)
    with pytest.raises(RedisUnavailable, match=r"no encrypted connection .*certificate verify failed"):
        list(Runner(url).stream(echo("nobody"), [Message(1)]))
    done = celerypipe("run", "examples/tutorial/pipeline.json", "--redis", url)
    assert done.returncode == 69
    assert "rediss://:***@localhost" in done.stderr
    assert "can be read by all users of this machine" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
