"""A program as a node: here and on a real worker, and what becomes of it when it fails, hangs or floods."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import celerypipe
from celerypipe import ConfigError, Message, NodeFailed, NodeTimeout, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from tests.runs.pipelines import warped
from tests.runs.reading import Reading, results
from tests.servers import StartWorker, eventually
from tests.servers.processes import alive

#: Notes its number, and that of what it started in a group of its own, and sleeps.
HANGS = 'import os, subprocess, sys, time; p = subprocess.Popen(["sleep", "600"], process_group=0); '
HANGS += 'open(sys.argv[1], "w").write(f"{os.getpid()} {p.pid}"); time.sleep(600)'

LIST = f"""
[programs.upper]
command = ["tr", "a-z", "A-Z"]
text = true

[programs.count]
command = ["wc", "-c", "{{input}}"]
input = "file"
input_suffix = ".dat"
text = true

[programs.sort]
command = ["sort", "--key={{key}}", "-o", "{{output}}"]
output = "file"

[programs.fails]
command = ["sh", "-c", "echo $0 >&2; echo no such luck >&2; exit 3", "{{word}}"]
values = {{ word = ".*" }}

[programs.odd]
command = ["sh", "-c", "cat; exit 1"]
exit_codes = [0, 1]

[programs.silent]
command = ["sh", "-c", "cat > /dev/null"]
output = "none"

[programs.floods]
command = ["sh", "-c", "yes"]
input = "none"
most_bytes = 100000

[programs.environment]
command = ["env"]
input = "none"
text = true

[programs.slow]
command = ["sleep", "600"]
timeout = 0.3

[programs.hangs]
command = ["python3", "-c", '''{HANGS}''', "{{path}}"]
input = "none"
values = {{ path = ".*" }}

[programs.starts]
command = ["python3", "-c", '''{HANGS.replace(", process_group=0", "")}''', "{{path}}"]
input = "none"
values = {{ path = ".*" }}

[programs.absent]
command = ["no-such-program", "{{a}}"]
"""
CONFIG = f'imports = ["tests.nodes.remote"]\n{LIST}'
Ask = Callable[..., list[Any]]


def node(program: str, **values: Any) -> dict[str, Any]:
    return {"program": program, **({"values": values} if values else {})}


@pytest.fixture(params=["here", "prefork"])
def ask(
    request: pytest.FixtureRequest,
    shared_worker: StartWorker,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Ask:
    """Run a program on payloads: in this process, or on a worker."""
    warp = request.param != "here"
    if warp:
        shared_worker("programs", pool="prefork", concurrency=1, config=CONFIG)
    else:
        (tmp_path / "cpu.toml").write_text(LIST)
        monkeypatch.setenv("CELERYPIPE_WORKER_CONFIGS", str(tmp_path))

    def run(configuration: dict[str, Any], *payloads: Any, **options: Any) -> list[Any]:
        if warp:
            pipeline = warped("program", "programs", configuration=configuration, timeout=30.0, **options)
        else:
            one = NodeDefinition(name="there", type="proc", mark="program", configuration=configuration, **options)
            pipeline = Pipeline(name="test", nodes=[one], links=[])
        return results(Runner(redis_url), pipeline, payloads)

    return run


def test_payloads_go_in_and_come_out_as_the_list_says(ask: Ask, tmp_path: Path) -> None:
    assert ask(node("upper"), "kein ß", b"bytes") == ["KEIN ß", "BYTES"]
    counted = ask(node("count"), b"12345", celerypipe.file(_written(tmp_path / "file.bin", b"123")))
    assert [line.split()[0] for line in counted] == ["5", "3"]
    assert counted[0].rstrip().endswith("input.dat")
    assert ask(node("sort", key=2), b"a 2\nb 1\n") == [b"b 1\na 2\n"]
    assert ask(node("odd"), b"taken") == [b"taken"]
    assert ask(node("silent"), b"passed on") == [b"passed on"]


def test_a_program_that_fails_says_how_and_its_last_lines(ask: Ask) -> None:
    with pytest.raises(NodeFailed) as caught:
        ask(node("fails", word="$(id); `id` | rm -rf *"), b"x")
    text = str(caught.value)
    assert "program 'fails' ended with exit status 3; its error output ends with:" in text
    assert "$(id); `id` | rm -rf *\nno such luck" in text, "one argument, as it is"
    with pytest.raises(NodeFailed, match="wrote more than 100000 bytes; raise `most_bytes`"):
        ask(node("floods"), b"x")
    with pytest.raises(NodeFailed, match=r"program 'slow' took longer than 0\.3 s, and was ended"):
        ask(node("slow"), b"x")
    with pytest.raises(NodeFailed, match="takes bytes, text or a file, not int; put a node in front of it"):
        ask(node("upper"), 3)


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        (node("uper"), "did you mean 'upper'"),
        (node("absent", a="1"), "'no-such-program' is not"),
        (node("sort", ky="1"), "ky"),
        (node("upper", size="1"), "size"),
        (node("sort", key="../../etc"), "'../../etc' is not allowed"),
    ],
)
def test_what_does_not_fit_the_list_is_told_before_anything_runs(
    ask: Ask, configuration: dict[str, Any], said: str
) -> None:
    with pytest.raises((ConfigError, NodeFailed), match=said):
        ask(configuration, b"x")


def test_a_program_knows_no_secrets(ask: Ask, redis_url: str) -> None:
    (found,) = ask(node("environment"), b"")
    assert "PATH=" in found
    assert "CELERY" not in found
    assert redis_url not in found


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_timeout_ends_all_that_a_program_started(
    start_doomed: StartWorker, redis_url: str, tmp_path: Path, pool: str
) -> None:
    start_doomed("hanging", pool=pool, concurrency=1, config=CONFIG)
    path = tmp_path / "pids"
    pipeline = warped("program", "hanging", configuration=node("hangs", path=str(path)), timeout=2.0)
    with pytest.raises(NodeTimeout):
        results(Runner(redis_url), pipeline, [b""])
    pids = [int(pid) for pid in path.read_text().split()]
    assert len(pids) == 2
    eventually(lambda: not any(map(alive, pids)), "the end of both")


def test_with_its_worker_a_program_ends(start_doomed: StartWorker, redis_url: str, tmp_path: Path) -> None:
    worker = start_doomed("killed", pool="prefork", concurrency=1, config=CONFIG)
    path = tmp_path / "pids"
    pipeline = warped("program", "killed", configuration=node("starts", path=str(path)), timeout=60.0)
    runner = Runner(redis_url)
    reading = Reading(runner.stream(pipeline, [Message(b"")]))
    eventually(lambda: path.exists() and len(path.read_text().split()) == 2, "its start")
    pids = [int(pid) for pid in path.read_text().split()]
    os.kill(worker.process.pid, 9)
    eventually(lambda: not any(map(alive, pids)), "the end of both")
    runner.cancel()
    reading.join(20)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
