"""``celerypipe remotize``: juturna's command; one node on a queue, warm before the first message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, Pipeline, Runner, UnknownMark
from celerypipe.definition.pipeline import NodeDefinition, WarpConfiguration
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis.connection import Client
from tests.servers import eventually
from tests.servers.command import RunningCommand, begin, celerypipe
from tests.servers.wheels import Wheels, wheels

__all__ = ["wheels"]

NODE = """
import os
from celerypipe import Proc

class Slowly(Proc):
    '''Adds what it was configured with.'''

    def __init__(self, amount: int = 1) -> None:
        self.amount = amount

    def warmup(self):
        print(f"warmed up with {self.amount}", flush=True)

    def update(self, message):
        return message.with_payload(message.payload + self.amount)
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    for mark in ("slowly", "other"):
        folder = tmp_path / "plugins" / "nodes" / "proc" / f"_{mark}"
        folder.mkdir(parents=True)
        (folder / f"{mark}.py").write_text(NODE.replace("Slowly", mark.title()))
    return tmp_path / "plugins"


@pytest.fixture
def remote(plugins: Path, redis_url: str, tmp_path: Path) -> Iterator[RunningCommand]:
    words = ("--node-name", "1_pass", "--pipe-name", "mine", "--node-mark", "slowly", "--plugins-dir", "./plugins")
    more = ("--default-config", '{"amount": 2}', "--queue", "remotely", "--redis", redis_url)
    command = begin("remotize", *words, *more, cwd=tmp_path)
    yield command
    command.kill()


def _pipeline(mark: str, configuration: dict[str, Any], plugins: Path) -> Pipeline:
    limits = {"queue": "remotely"}
    node = NodeDefinition(
        name="there", type="proc", mark=mark, configuration=configuration, warped=True, warp_configuration=limits
    )
    return Pipeline(name="test", nodes=[node], links=[], plugins=[str(plugins)])


def _said(remote: RunningCommand) -> str:
    return remote.out.read_text() + remote.err.read_text()


def test_one_node_is_served_warm_to_pipelines_of_any_configuration(
    remote: RunningCommand, redis_url: str, redis_client: Client, plugins: Path
) -> None:
    def marks() -> list[str]:
        assert remote.process.poll() is None, _said(remote)
        return [mark for each in read_presences(redis_client) if "remotely" in each["queues"] for mark in each["marks"]]

    assert eventually(marks, "the worker") == ["slowly"]
    assert _said(remote).count("warmed up with 2") == 1, "before any message"
    runner = Runner(redis_url)
    (same,) = runner.stream(_pipeline("slowly", {"amount": 2}, plugins), [Message(1)])
    (other,) = runner.stream(_pipeline("slowly", {"amount": 10}, plugins), [Message(1)])
    assert (same.payload, other.payload) == (3, 11)
    assert _said(remote).count("warmed up with 2") == 1, "the one that was warm"
    assert "serving node 1_pass (slowly) of mine on queue remotely" in _said(remote)
    with pytest.raises(UnknownMark, match="its workers know slowly"):
        list(runner.stream(_pipeline("other", {}, plugins), [Message(1)]))
    remote.process.terminate()
    assert remote.finish().returncode == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--port": "50051"}, "In place of --port 50051: --queue remote"),
        ({"--queue": None}, "Missing option '--queue'"),
        ({"--queue": "a b"}, "'a b' is no name for a queue"),
        ({"--node-mark": "slwly"}, "did you mean 'slowly'"),
        ({"--node-mark": "data_streamer"}, "data_streamer is a source, which runs where its pipeline runs"),
        ({"--plugins-dir": "./nowhere"}, "--plugins-dir: there is no folder nowhere"),
        ({"--default-config": "{delay}"}, "--default-config: is no JSON"),
        ({"--default-config": "[1]"}, 'must be an object such as {"delay": 2}, not [1]'),
        ({"--default-config": '{"amuont": 2}'}, "amuont"),
        ({"--node-name": "a/b"}, "is no name"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    changed: dict[str, str | None], said: str, plugins: Path, tmp_path: Path, redis_url: str
) -> None:
    options = {"--node-name": "n", "--node-mark": "slowly", "--plugins-dir": "./plugins", "--queue": "never"} | changed
    words = [word for name, value in options.items() if value is not None for word in (name, value)]
    done = celerypipe("remotize", *words, "--redis", redis_url, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr


def test_the_configuration_may_be_a_file_as_juturna_has_it(plugins: Path, tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "default.json").write_text(json.dumps({"amuont": 2}))
    words = ("-n", "n", "-m", "slowly", "-P", "./plugins", "-c", "default.json", "-Q", "never")
    done = celerypipe("remotize", *words, "--redis", redis_url, cwd=tmp_path)
    assert done.returncode == 2
    assert "amuont" in done.stderr


def test_an_isolated_node_has_what_its_requirements_ask_for(
    plugins: Path, redis_url: str, redis_client: Client, tmp_path: Path, wheels: Wheels
) -> None:
    home = plugins / "nodes" / "proc" / "_slowly"
    (home / "slowly.py").write_text(f"import clash\n{NODE.replace('= amount', '= amount * clash.VERSION * 100')}")
    (home / "requirements.txt").write_text("\n".join(wheels.lines("clash==2")))
    words = ("--isolate", "-n", "apart", "-m", "slowly", "-P", "./plugins", "-Q", "apart", "--redis", redis_url)
    command = begin("remotize", *words, cwd=tmp_path, **wheels.around)
    try:

        def there() -> bool:
            assert command.process.poll() is None, _said(command)
            return any("apart" in each["queues"] for each in read_presences(redis_client))

        eventually(there, "the worker")
        pipeline = _pipeline("slowly", {"amount": 1}, plugins)
        node = pipeline.nodes[0].model_copy(update={"warp_configuration": WarpConfiguration(queue="apart")})
        (answer,) = Runner(redis_url).stream(pipeline.model_copy(update={"nodes": (node,)}), [Message(1)])
        assert answer.payload == 201
        assert "building environment 'slowly'" in _said(command)
    finally:
        command.kill()


def test_a_node_without_requirements_cannot_be_isolated(plugins: Path, tmp_path: Path) -> None:
    words = ("--isolate", "-n", "apart", "-m", "slowly", "-P", "./plugins", "-Q", "apart")
    done = celerypipe("remotize", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "--isolate: there is no requirements.txt in plugins/nodes/proc/_slowly or" in done.stderr


def test_what_a_worker_lacks_of_the_requirements_of_a_plugin_is_told_before_a_run(
    plugins: Path, redis_url: str, tmp_path: Path, start_worker: Any
) -> None:
    home = plugins / "nodes" / "proc" / "_slowly"
    (home / "requirements.txt").write_text("numpy<0.1 # none\n-r more.txt\nnot-there; python_version < '3'\nclick\n")
    start_worker("lacking", cwd=tmp_path, env={"CELERYPIPE_PLUGINS": str(plugins)})
    where = {"warped": True, "warp_configuration": {"queue": "lacking"}}
    body = {"name": "p", "nodes": [{"name": "there", "type": "proc", "mark": "slowly", **where}], "links": []}
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"version": "1.0", "plugins": ["./plugins"], "pipeline": body}))
    done = celerypipe("check", file, "--live", "--redis", redis_url, cwd=tmp_path)
    assert "slowly asks for in its requirements.txt: numpy<0.1 (" in " ".join(done.stdout.split())
    assert "not-there" not in done.stdout
    assert "click" not in done.stdout
