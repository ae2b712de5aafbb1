"""The line of docker or podman that a worker becomes whose environment is an image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from celerypipe.environments.building import plan
from celerypipe.environments.container import Outside, line, moved
from celerypipe.environments.wanted import Environment, wanted_by
from celerypipe.errors import ConfigError
from tests.servers import Write

OUTSIDE = Outside(
    program="/usr/bin/docker",
    folder=Path("/srv/project"),
    folders={Path("/srv/project"): "ro", Path("/srv/results"): "rw"},
    variables=["CELERYPIPE_KEYS", "CELERYPIPE_REDIS_URL"],
    user=1000,
    group=100,
    process=4711,
    gpu=False,
)
WORDS = ["celerypipe", "worker", "-Q", "gpu"]
IMAGE = "registry.example/asr:3"


def test_the_line_of_docker() -> None:
    assert line(IMAGE, WORDS, ["gpu"], OUTSIDE) == [
        *("/usr/bin/docker", "run", "--rm", "--init", "--network", "host", "--ipc", "host", "--user", "1000:100"),
        *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),  # noqa: S108
        *("--stop-signal", "SIGTERM", "--stop-timeout", "600"),
        *("--mount", "type=bind,source=/srv/project,target=/srv/project,readonly"),
        *("--mount", "type=bind,source=/srv/results,target=/srv/results"),
        *("--workdir", "/srv/project", "--env", "HOME=/tmp"),
        *("--env", "CELERYPIPE_KEYS", "--env", "CELERYPIPE_REDIS_URL"),
        *(IMAGE, "celerypipe", "worker", "-Q", "gpu", "-n", "gpu.4711@%h"),
    ]


def test_podman_maps_the_user_and_each_names_gpus_in_its_own_way() -> None:
    podman = replace(OUTSIDE, program="/usr/bin/podman", gpu=True)
    said = line(IMAGE, WORDS, ["gpu"], podman)
    assert said[said.index("--userns") + 1] == "keep-id"
    assert said[said.index("--device") + 1] == "nvidia.com/gpu=all"
    assert "--userns" not in line(IMAGE, WORDS, ["gpu"], replace(podman, user=0)), "root is root there"
    said = line(IMAGE, WORDS, ["gpu"], replace(OUTSIDE, gpu=True))
    assert said[said.index("--gpus") + 1] == "all"


def test_a_worker_that_was_given_a_name_keeps_it() -> None:
    assert line(IMAGE, [*WORDS, "-n", "mine@%h"], ["gpu"], OUTSIDE)[-2:] == ["-n", "mine@%h"]
    assert line(IMAGE, [*WORDS, "--hostname=mine"], ["gpu"], OUTSIDE)[-1] == "--hostname=mine"


@pytest.mark.parametrize(
    "typed", [["--redis", "redis://:x@r/0"], ["--broker=redis://:x@r/0"], ["-b", "redis://:x@r/0"]]
)
def test_an_address_on_the_command_line_is_passed_as_a_variable(typed: list[str]) -> None:
    words, around = moved(["celery", *typed, "worker", "-Q", "gpu"], {"CELERYPIPE_REDIS_URL": "redis://other/0"})
    assert (words, around) == (["celery", "worker", "-Q", "gpu"], {"CELERYPIPE_REDIS_URL": "redis://:x@r/0"})


def test_no_value_of_a_variable_stands_on_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    secret = {"CELERYPIPE_REDIS_URL": "unix://:pass@" + str(tmp_path / "run" / "redis.sock"), "JT_ENV_KEY": "s3cret"}
    (tmp_path / "run").mkdir()
    around = {**secret, "CELERYPIPE_ALLOW": f"more:{tmp_path}/gone", "AWS_SECRET": "not ours", "PATH": "x"}
    found = Outside.here(Environment("gpu", (), image=IMAGE), around)
    assert found.variables == ["CELERYPIPE_ALLOW", "CELERYPIPE_REDIS_URL", "JT_ENV_KEY"]
    assert found.folders == {tmp_path: "ro", tmp_path / "more": "rw", tmp_path / "run": "ro"}
    assert (found.user, found.process) == (os.getuid(), os.getpid())
    text = " ".join(line(IMAGE, WORDS, ["gpu"], found))
    assert "pass" not in text
    assert "s3cret" not in text


def test_where_neither_program_is_there_it_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        Outside.here(Environment("gpu", (), image=IMAGE, source="gpu.toml [environment]"), {})
    assert "gpu.toml [environment]: the image 'registry.example/asr:3' needs docker or podman" in str(caught.value)
    assert "write requirements = [...] in place of the image" in str(caught.value)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("program", ["docker", "podman"])
def test_the_program_itself_takes_the_line(program: str, gpu: bool) -> None:
    """It reads its options before it looks for its daemon, which is not needed for that."""
    there = shutil.which(program)
    if there is None:
        pytest.skip(f"{program} is not installed")
    said = line("celerypipe.invalid/none", WORDS, ["gpu"], replace(OUTSIDE, program=there, gpu=gpu))
    nowhere = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(said, capture_output=True, text=True, env=nowhere, timeout=60, check=False)
    assert done.returncode in (125, 126)
    assert not re.search(r"unknown (shorthand )?flag|invalid argument .* for \"-|invalid .*mount", done.stderr)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('image = "--privileged"', "gpu.toml:2: [environment] image: '--privileged' is no name of an image"),
        ("image = 3", "gpu.toml:2: [environment] image: 3 is no name of an image"),
        ('image = "a"\npython = "3.12"', "gpu.toml:3: [environment] has image and python: what an image has in it"),
    ],
)
def test_a_table_with_an_image_that_makes_no_sense_is_refused(write: Write, table: str, said: str) -> None:
    file = write("gpu.toml", f"[environment]\n{table}\n")
    with pytest.raises(ConfigError) as caught:
        wanted_by("gpu", file.parent)
    assert said in str(caught.value)


def test_who_starts_workers_by_their_python_says_that_an_image_has_none(write: Write) -> None:
    file = write("gpu.toml", f'[environment]\nimage = "{IMAGE}"\n')
    wanted = wanted_by("gpu", file.parent)
    assert wanted is not None
    with pytest.raises(ConfigError) as caught:
        plan(wanted, file.parent)
    assert "an image is not built here, and its workers are not started from here" in str(caught.value)


def test_an_image_is_an_environment_of_a_queue_or_of_its_nodes(write: Write) -> None:
    file = write("gpu.toml", f'[environment]\nimage = "{IMAGE}"\n[environments.asr]\nimage = "asr"\n')
    own, asr = wanted_by("gpu", file.parent), wanted_by("gpu+asr", file.parent)
    assert own is not None
    assert asr is not None
    assert (own.image, asr.image, own.requirements) == (IMAGE, "asr", ())
