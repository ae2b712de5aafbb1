"""A worker whose environment is an image, with what stands in for docker: it starts what is typed, with nothing but
the variables that it is told to pass. Whether docker takes the line is tried beside ``environments/container.py``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from celerypipe import Message, Runner
from tests.runs.pipelines import warped
from tests.servers import ROOT, StartWorker, Workplace
from tests.servers.command import celerypipe
from tests.servers.extent import at_length
from tests.servers.worker import launch_worker

DOCKER = f"""#!{sys.executable}
import argparse, os, sys
reader = argparse.ArgumentParser()
reader.add_argument("--env", action="append")
for flag in ("--rm", "--init", "--read-only"):
    reader.add_argument(flag, action="store_true", required=True)
for option in ("network", "ipc", "user", "tmpfs", "cap-drop", "security-opt", "stop-signal", "stop-timeout", "workdir"):
    reader.add_argument(f"--{{option}}", required=True)
reader.add_argument("--mount", action="append")
reader.add_argument("--gpus")
reader.add_argument("words", nargs=argparse.REMAINDER)
told = reader.parse_args(sys.argv[2:])
image, *words = told.words
around = dict(each.split("=", 1) if "=" in each else (each, os.environ[each]) for each in told.env)
os.chdir(told.workdir)
around |= {{"BOXED": image, "PYTHONPATH": {str(ROOT)!r}, "PATH": os.environ["PATH"]}}
os.execve(sys.executable, [sys.executable, "-m", *words], around)
"""
#: An image that has celerypipe in it.
IMAGE = os.environ.get("CELERYPIPE_TEST_IMAGE", "")
NODE = """
import os
from celerypipe import Message, Proc

class Around(Proc):
    def update(self, message: Message) -> Message:
        return message.with_payload([os.environ.get(name, "") for name in message.payload])
"""


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    """A project whose queues run in an image, and a folder with the program that does that."""
    workplace.module("surrounded", NODE)
    for queue in ("boxed", "canned"):
        config = 'imports = ["surrounded"]\nworker_pool = "solo"\n[environment]\nimage = "asr:3"\n'
        workplace.config(queue, config)
    (workplace.folder / "bin").mkdir()
    docker = workplace.folder / "bin" / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return workplace


@pytest.mark.parametrize(
    ("queue", "typed"),
    [("boxed", ("celerypipe",)), pytest.param("canned", ("celery", "-A", "celerypipe"), marks=at_length)],
)
def test_a_worker_goes_on_in_a_container(
    start_worker: StartWorker, place: Workplace, redis_url: str, queue: str, typed: tuple[str, ...]
) -> None:
    around = {"PATH": f"{place.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "JT_ENV_KEY": "k", "OTHERS": "o"}
    worker = start_worker(queue, cwd=place.folder, env=around, typed=typed, fresh=True)
    names = ["BOXED", "JT_ENV_KEY", "OTHERS"]
    (answer,) = Runner(redis_url).stream(warped("surrounded.Around", queue), [Message(names)])
    assert answer.payload == ["asr:3", "k", ""]
    assert f"{queue}.{worker.process.pid}@" in worker.text(), "it is named after the process outside"
    worker.process.terminate()
    assert worker.wait_for_end() == 0


@pytest.mark.skipif(not IMAGE, reason="CELERYPIPE_TEST_IMAGE names no image with celerypipe in it")
def test_a_worker_goes_on_in_a_container_that_is_one(place: Workplace, redis_url: str) -> None:
    place.config("contained", f'imports = ["surrounded"]\nworker_pool = "prefork"\n[environment]\nimage = "{IMAGE}"\n')
    worker = launch_worker("contained", url=redis_url, cwd=place.folder, typed=("celerypipe",), wait=False, fresh=True)
    try:
        (answer,) = Runner(redis_url).stream(warped("surrounded.Around", "contained"), [Message(["HOME"])])
        assert answer.payload == ["/tmp"]  # noqa: S108  # its home, which is empty and its own
        worker.process.terminate()
        assert worker.wait_for_end() == 0
    finally:
        worker.kill()


def test_without_docker_and_podman_the_worker_ends_and_says_what_to_do(
    place: Workplace, redis_url: str, tmp_path: Path
) -> None:
    worker = launch_worker("boxed", url=redis_url, cwd=place.folder, env={"PATH": str(tmp_path)}, wait=False)
    assert worker.wait_for_end() == os.EX_CONFIG
    assert "the image 'asr:3' needs docker or podman, and neither is in the PATH" in worker.text()


def test_the_line_is_shown_and_a_host_refuses_to_start_what_it_cannot_watch(place: Workplace) -> None:
    path = f"{place.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    said = celerypipe("environments", "build", "boxed", cwd=place.folder, PATH=path).stdout
    assert said.startswith(f"boxed: is an image; `celerypipe worker -Q boxed` is: {place.folder}/bin/docker run --rm ")
    assert "asr:3 celerypipe worker -Q boxed" in said
    (place.folder / "host.toml").write_text("[queues.boxed]\n")
    done = celerypipe("host", "--check", cwd=place.folder)
    assert done.returncode == 2
    assert "boxed.toml [environment] is an image, and a host starts no containers" in done.stderr
    assert "celerypipe worker -Q boxed" in done.stderr
