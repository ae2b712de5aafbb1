"""host.toml: what a machine's owner allows, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from celerypipe.errors import ConfigError
from celerypipe.host.allowed import Allowed, Autoscale, RestartPolicy, host_named, wrong_host
from celerypipe.host.reception import changed
from celerypipe.host.records import Request, WorkerSet

GOOD = """\
name = "gpubox"

[queues.gpu]
most = 2
autoscale = { min = 0, max = 2, target_wait = 1.5 }

[queues.cpu]
restart = { attempts = 9, mode = "delay" }

[restart]
attempts = 1

[cache]
url = "file:///var/cache/results"
read_only = true
bytes = "1GiB"
"""


def _load(text: str, folder: Path) -> Allowed:
    (folder / "host.toml").write_text(text)
    return Allowed.load(folder / "host.toml")


def test_a_list_says_what_may_be_started_and_how(tmp_path: Path) -> None:
    allowed = _load(GOOD, tmp_path)
    assert allowed.name == "gpubox"
    assert allowed.queues["gpu"].most == 2
    assert allowed.queues["gpu"].autoscale == Autoscale(max=2, min=0, target_wait=1.5)
    assert allowed.policy("gpu") == RestartPolicy(attempts=1)
    assert allowed.policy("cpu") == RestartPolicy(attempts=9, mode="delay")
    expected = {"CELERYPIPE_CACHE_URL": "file:///var/cache/results", "CELERYPIPE_CACHE_BYTES": "1GiB"}
    expected["CELERYPIPE_CACHE"] = "read-only"
    assert allowed.environment() == expected


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[queues.gpu]\nmsot = 2\n", 2, "unknown key 'msot' in [queues.gpu]; did you mean 'most'?"),
        ("[queus.gpu]\nmost = 2\n", 1, "unknown key 'queus'; did you mean 'queues'?"),
        ("[queues.gpu]\n[restart]\natempts = 1\n", 3, "unknown key 'atempts' in [restart]; did you mean 'attempts'?"),
        ("[queues.gpu]\nmost = 0\n", 2, "[queues.gpu] most must be 1 or more, not 0"),
        ("[queues.gpu]\n[restart]\ndelay = -1\n", 3, "[restart] delay must be 0 or more, not -1"),
        ("[queues.gpu]\n[queues.gpu.autoscale]\nmax = 3\n", 2, "write 0 <= min <= max <= most (1)"),
        ('[queues.gpu]\ndevices = ["0", ""]\n', 2, '[queues.gpu] devices: one has no name; write devices = ["0", "1"]'),
        ('[queues."a b"]\n', 1, "leave out commas and spaces"),
        ('[queues."host.x"]\n', 1, "queues of hosts begin with 'host.'"),
        ('name = "a b"\n[queues.gpu]\n', 1, "'a b' is no name for a host"),
        ("[queues]\n", 1, "nothing could be started; add a table"),
        ("[queues.gpu]\ncommand = 'rm'\n", 2, "unknown key 'command' in [queues.gpu]"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_the_cure(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        _load(text, tmp_path)
    assert f"host.toml:{line}: " in str(wrong.value)
    assert said in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[queues.gpu]\nmost = "two"\n', "queues.gpu.most: Expected `int`, got `str`"),
        ("queues = 3\n", "queues: Expected `object`, got `int`"),
        ("", "missing required field `queues`"),
        ("[queues.gpu\n", "Expected ']'"),
        ('[queues.gpu]\n[restart]\nmode = "never"\n', "restart.mode: Invalid enum value 'never'"),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"host\.toml: ") as wrong:
        _load(text, tmp_path)
    assert said in str(wrong.value)


def test_a_host_without_a_list_is_shown_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"a host starts only what its own list allows; write one:\n\n(?s:.*)most = 1"
    ):
        Allowed.load(tmp_path / "host.toml")


def test_a_queue_of_which_a_worker_would_serve_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    allowed = _load("[queues.gpu]\n[queues.io]\n", tmp_path)
    (tmp_path / "worker_configs").mkdir()
    (tmp_path / "worker_configs" / "gpu.toml").touch()
    with pytest.raises(ConfigError, match=r"queue 'io': there is no worker_configs/io.toml and no tasks/io.py in"):
        allowed.require_configs()
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "io.py").touch()
    allowed.require_configs()


def test_names_of_hosts(tmp_path: Path) -> None:
    assert [name for name in ("gpubox", "a", "gpu-1_b", "7") if wrong_host(name)] == []
    assert all(wrong_host(name) for name in ("", "a b", "a.b", "-a", "ä", "a" * 64, "a/b", "a\n"))
    allowed = _load("[queues.gpu]\n", tmp_path)
    assert not wrong_host(host_named(None, allowed)), "whatever this machine is called"
    assert host_named("mine", allowed) == "mine"
    with pytest.raises(ConfigError, match="--name: 'a b' is no name for a host"):
        host_named("a b", allowed)


ENVIRONMENTS = """
[queues.gpu]
most = 2
environments = ["asr", "tts"]
[queues.io]
[environments.tts]
requirements = ["voice"]
"""


def test_workers_of_a_queue_run_in_environments_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    allowed = _load(ENVIRONMENTS, tmp_path)
    assert allowed.startable == {"gpu": 2, "gpu+asr": 2, "gpu+tts": 2, "io": 1}
    assert [allowed.named(queue) for queue in ("gpu", "gpu+tts", "gpu+other", "io+tts", "other")] == [
        *("gpu", "gpu", "", "", "")
    ]
    assert allowed.environment() == {"CELERYPIPE_ENVIRONMENT_LIST": str(tmp_path / "host.toml")}
    (tmp_path / "tasks").mkdir()
    for queue in ("gpu", "io"):
        (tmp_path / "tasks" / f"{queue}.py").touch()
    with pytest.raises(ConfigError, match=r"queue 'gpu\+asr': no \[environments.asr\] in .*gpu.toml or .*host.toml"):
        allowed.require_configs()
    (tmp_path / "worker_configs").mkdir()
    (tmp_path / "worker_configs" / "gpu.toml").write_text('[environments.asr]\nrequirements = ["ears"]\n')
    allowed.require_configs()


def test_all_workers_of_a_queue_count_together_whatever_they_run_in(tmp_path: Path) -> None:
    allowed = _load(ENVIRONMENTS, tmp_path)

    def asked(queue: str, sets: dict[str, WorkerSet]) -> WorkerSet:
        wanted = changed(Request("start", 0, WorkerSet(queue)), sets, allowed, "box")
        sets[wanted.id] = wanted
        return wanted

    sets: dict[str, WorkerSet] = {}
    assert [asked(queue, sets).queue for queue in ("gpu+asr", "gpu")] == ["gpu+asr", "gpu"]
    with pytest.raises(ConfigError, match="may run 2 workers of queue 'gpu': 2 are there, 1 were asked"):
        asked("gpu+tts", sets)
    with pytest.raises(
        ConfigError, match=r"of queue 'gpu\+ass'; did you mean 'gpu\+asr'.*add environments = \['ass'\]"
    ):
        asked("gpu+ass", sets)


def test_a_table_of_an_environment_is_read_as_in_the_file_of_a_queue(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"host.toml:3: unknown key 'requirement' in \[environments.asr\]; did you mean"
    ):
        _load("[queues.gpu]\n[environments.asr]\nrequirement = []\n", tmp_path)
