"""The recipes of ``worker_configs/deploy/`` and ``docs/deploy.md``, as far as this machine can try them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from celerypipe import Message, Runner
from celerypipe.celery.application import make_app
from celerypipe.redis.connection import connect
from celerypipe.settings import VARIABLES
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.runs.recipes import FOLDER, commands, commands_of_recipes, objects, services, typed
from tests.servers import ROOT, RunningWorker, eventually
from tests.servers.command import begin, celerypipe
from tests.servers.redis import TunedRedis
from tests.servers.slurm import Submitted, sbatch

DOCUMENT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
#: Each command that stands there, once.
COMMANDS = sorted({*map(tuple, commands_of_recipes()), *map(tuple, commands(typed(DOCUMENT)))})
#: A node that says when it has a message in hand, and keeps it until it may let it go.
NODE = """
import time
from pathlib import Path
from celerypipe import Message, Proc

class Held(Proc):
    def update(self, message: Message) -> Message:
        begun, let_go = map(Path, message.payload)
        with begun.open("a") as file:
            file.write("begun\\n")
        while not let_go.exists():
            time.sleep(0.01)
        return message
"""


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_that_is_written_there_is_one(words: tuple[str, ...]) -> None:
    done = celerypipe(*words, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_what_must_be_among_them_is() -> None:
    assert {("worker", "-Q", "gpu"), ("health", "--here", "--queue", "gpu")} <= set(COMMANDS)
    assert ("metrics", "--serve", "0.0.0.0:9808") in COMMANDS


def test_each_variable_that_is_written_there_is_read() -> None:
    texts = [DOCUMENT, *(file.read_text(encoding="utf-8") for file in FOLDER.iterdir())]
    named = {name for text in texts for name in re.findall(r"\bCELERYPIPE_[A-Z_]+\b", text)}
    assert "CELERYPIPE_REDIS_URL" in named
    assert named <= {variable.name for variable in VARIABLES}


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    units = sorted(each for each in FOLDER.iterdir() if each.suffix in (".service", ".timer"))
    assert len(units) == 3
    for unit in units:
        text = unit.read_text(encoding="utf-8")
        assert f"/etc/systemd/system/{unit.name}" in text
        (tmp_path / unit.name).write_text(text.replace("/srv/celerypipe/.venv/bin/celerypipe", sys.executable))
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    instances = [tmp_path / unit.name.replace("@", "@gpu") for unit in units]
    done = subprocess.run(["systemd-analyze", "verify", *instances], capture_output=True, text=True, check=False)
    assert "celerypipe" not in done.stdout + done.stderr


def test_of_a_redis_with_these_settings_nothing_is_said() -> None:
    lines = (FOLDER / "redis.conf").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    settings |= {"bind": "127.0.0.1", "save": settings["save"].strip('"')}
    server = TunedRedis(settings=settings)
    url = f"{server.url}&password={settings['requirepass']}"

    def answers() -> bool:
        with suppress(redis.RedisError), connect(url) as client:
            return bool(client.ping())
        return False

    try:
        server.start(wait=False)
        eventually(answers, "an answer of redis-server")
        pipeline = ROOT / "examples" / "tutorial" / "pipeline.json"
        said = celerypipe("check", pipeline, "--live", CELERYPIPE_REDIS_URL=url).stdout
        assert "warning: workers: no live worker serves queue 'remote'" in said
        assert not re.search(r"(note|warning|error): Redis: ", said), said
    finally:
        server.remove()


def _seconds(text: str) -> int:
    number = re.fullmatch(r"(\d+)s?", text)
    assert number, text
    return int(number[1])


def test_whoever_ends_a_worker_waits_longer_than_it_takes_to_finish() -> None:
    patience = make_app({}).conf.worker_soft_shutdown_timeout
    unit = (FOLDER / "celerypipe-worker@.service").read_text(encoding="utf-8")
    (stop,) = re.findall(r"^TimeoutStopSec=(.*)$", unit, re.MULTILINE)
    given = [_seconds(stop), *(_seconds(each["stop_grace_period"]) for each in services().values())]
    pod = objects("kubernetes.yaml")["Deployment/celerypipe-gpu"]["template"]["spec"]
    given.append(pod["terminationGracePeriodSeconds"])
    assert min(given) > 2 * patience


def test_each_service_of_the_compose_file_asks_for_its_own_queue() -> None:
    for service in services().values():
        queue = service["command"][-1]
        assert (ROOT / "worker_configs" / f"{queue}.toml").is_file()
        assert service["healthcheck"]["test"][-2:] == ["--queue", queue]


def test_the_objects_of_kubernetes_fit_together() -> None:
    found = objects("kubernetes.yaml")
    for kind, spec in found.items():
        if kind.startswith("Deployment/"):
            assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    pod = found["Deployment/celerypipe-gpu"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    queue = container["command"][-1]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"][-2:] == ["--queue", queue]
    metrics = found["Deployment/celerypipe-metrics"]["template"]
    service = found["Service/celerypipe-metrics"]
    assert service["selector"] == metrics["metadata"]["labels"]
    (ports,) = (each["ports"] for each in metrics["spec"]["containers"])
    assert [port["name"] for port in ports] == [port["targetPort"] for port in service["ports"]]
    assert metrics["spec"]["containers"][0]["command"][-1].endswith(f":{ports[0]['containerPort']}")


@pytest.fixture
def answering(redis_url: str) -> Iterator[httpx.Client]:
    """The server of metrics."""
    served = begin("metrics", "--redis", redis_url, "--serve", ":0")
    try:
        eventually(lambda: "/metrics" in served.err.read_text(), "the server of metrics")
        base = served.err.read_text().split("metrics at ")[1].split("/metrics")[0]
        with httpx.Client(base_url=base, timeout=20) as client:
            yield client
    finally:
        served.kill()


def test_keda_asks_for_numbers_that_are_there(answering: httpx.Client) -> None:
    kubernetes = objects("kubernetes.yaml")
    (scaled,) = objects("keda.yaml").values()
    deployment = kubernetes[f"Deployment/{scaled['scaleTargetRef']['name']}"]
    queue = deployment["template"]["spec"]["containers"][0]["command"][-1]
    for trigger in scaled["triggers"]:
        url = urlsplit(trigger["metadata"]["url"])
        ports = kubernetes[f"Service/{url.hostname}"]["ports"]
        assert url.port in [port["port"] for port in ports]
        assert url.path == f"/queues/{queue}"
        assert answering.get(url.path).json()[trigger["metadata"]["valueLocation"]] == 0
        assert float(trigger["metadata"]["targetValue"]) > 0
    probe = kubernetes["Deployment/celerypipe-metrics"]["template"]["spec"]["containers"][0]["livenessProbe"]
    assert answering.get(probe["httpGet"]["path"]).status_code == 200


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Path:
    """A folder as the recipe for Slurm wants it."""
    command = tmp_path / ".venv" / "bin" / "celerypipe"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m celerypipe "$@"\n')
    command.chmod(0o755)
    (tmp_path / "holding.py").write_text(NODE)
    (tmp_path / "worker_configs").mkdir()
    config = 'imports = ["holding"]\nworker_pool = "solo"\nworker_soft_shutdown_timeout = 100\n'
    (tmp_path / "worker_configs" / "allocated.toml").write_text(config)
    lines = ["# of this machine", "", f"CELERYPIPE_REDIS_URL={redis_url}", "UNSAFE=$(touch run) & touch run"]
    (tmp_path / "celerypipe.env").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def submitted(project: Path) -> Iterator[Submitted]:
    found = sbatch(FOLDER / "slurm.sh", "allocated", folder=project, environment={"PYTHONPATH": str(ROOT)})
    try:
        yield found
    finally:
        if found.process.poll() is None:
            os.killpg(found.process.pid, signal.SIGKILL)
            found.process.wait()


def test_a_worker_in_an_allocation_finishes_its_message_before_the_time_is_over(
    submitted: Submitted, project: Path, redis_url: str
) -> None:
    worker = RunningWorker(submitted.process, submitted.log, redis_url).wait_for_presence()
    begun, let_go = project / "begun", project / "let_go"
    message = Message([str(begun), str(let_go)])
    reading = Reading(Runner(redis_url).stream(warped("holding.Held", "allocated"), [message]))
    eventually(begun.exists, "a message in hand")
    submitted.time_is_nearly_over()
    eventually(lambda: "it ends when" in worker.text(), "that the worker was told")
    assert worker.process.poll() is None
    let_go.touch()
    assert len(reading.payloads()) == 1
    assert worker.wait_for_end() == 0
    assert begun.read_text() == "begun\n"
    assert not (project / "run").exists(), "what stands in the file with the address was run"


def test_the_script_for_slurm_is_one_of_bash_and_says_what_it_needs(tmp_path: Path) -> None:
    script = FOLDER / "slurm.sh"
    assert subprocess.run(["bash", "-n", script], capture_output=True, check=False).stderr == b""
    unsaid = sbatch(script, folder=tmp_path, environment={})
    assert unsaid.process.wait(20) == 1
    assert "which queue: sbatch slurm.sh gpu" in unsaid.log.read_text()
