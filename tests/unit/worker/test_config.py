"""A queue's file: what it may say, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from celerypipe.errors import ConfigError
from celerypipe.settings import Settings
from celerypipe.worker.config import WorkerConfig, known_queues, load, overruled, unserved
from celerypipe.worker.options import exit_option, keeps_interrupted, stuck_after
from celerypipe.worker.vocabulary import KNOWN, REFUSED, TAKEN
from tests.servers import ROOT


def write(folder: Path, text: str, queue: str = "heavy") -> Path:
    (folder / f"{queue}.toml").write_text(text)
    return folder


def test_the_files_of_this_project_are_right() -> None:
    pools = {queue: load(queue, ROOT / "worker_configs").settings["worker_pool"] for queue in ("cpu", "gpu", "io")}
    assert pools == {"cpu": "prefork", "gpu": "solo", "io": "threads"}
    assert known_queues(ROOT / "worker_configs") == ["cpu", "gpu", "io"]


def test_settings_imports_and_plugins_are_told_apart(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        'imports = ["a.b", "c"]\nplugins = ["./plugins"]\nworker_concurrency = "auto"\nworker_lost_wait = 2\n'
        "[broker_transport_options]\nsocket_timeout = 5\n",
    )
    config = load("heavy", folder)
    assert config.imports == ("a.b", "c")
    assert config.plugins == (Path("plugins"),)
    assert config.settings == {
        "worker_concurrency": "auto",
        "worker_lost_wait": 2,
        "broker_transport_options": {"socket_timeout": 5},
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "\n\nworker_max_task_per_child = 1",
            ":3: unknown setting 'worker_max_task_per_child'; did you mean 'worker_max_tasks_per_child'?",
        ),
        ("plugin = []", ":1: unknown setting 'plugin'; did you mean 'plugins'?"),
        ("imports = 'tasks.gpu'", ":1: 'imports' must be a list of texts, not 'tasks.gpu'"),
        ("worker_concurrency = 0", ":1: 'worker_concurrency' must be a whole number above 0 or 'auto', not 0"),
        ("worker_concurrency = true", "must be a whole number above 0 or 'auto', not True"),
        ("worker_send_task_events = 1", ":1: 'worker_send_task_events' must be true or false, not 1"),
        ("worker_proc_alive_timeout = 'long'", ":1: 'worker_proc_alive_timeout' must be a number, not 'long'"),
        ("worker_proc_alive_timeout = -1", ":1: 'worker_proc_alive_timeout' must be above 0, not -1; leave it out"),
        ("broker_connection_timeout = 0", ":1: 'broker_connection_timeout' must be above 0, not 0; leave it out"),
        ("worker_soft_shutdown_timeout = -0.5", "'worker_soft_shutdown_timeout' must be 0 or more, not -0.5; leave it"),
        ("broker_pool_limit = true", "must be a whole number, not True"),
        ("worker_prefetch_multiplier = 4", "is not decided here; a worker takes no task before a slot is free"),
        ("[beat_schedule]\na = 1", "is not decided here; Celery schedules nothing here; start pipelines by cron"),
        ("keep_warm = false", ":1: 'keep_warm' must be true or a number of seconds, not False"),
        ("keep_warm = -1", "'keep_warm' must be true or a number of seconds, not -1"),
        ("worker_log_format = 3", ":1: 'worker_log_format' must be text, not 3"),
        (
            "worker_log_format = '%(nope)s'",
            ":1: 'worker_log_format' is no layout of a line: Formatting",
        ),
        ("worker_log_format = 'text'", ":1: 'worker_log_format' is no layout of a line"),
        ("worker_log_format = '%(task_id)s'", "is no layout of a line"),
        ("worker_task_log_format = '%(task_id)s %(node)d'", "is no layout of a line"),
        ("worker_redirect_stdouts_level = 'LOUD'", "must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, not 'LOUD'"),
        ("worker_state_db = '/nowhere/db'", ":1: 'worker_state_db': no file can be written in '/nowhere'"),
        ("broker_transport_options = 3", ":1: 'broker_transport_options' must be a table, not 3"),
        ("[broker_url]\na = 1", ":1: 'broker_url' is not decided here; give Redis with -b or CELERYPIPE_REDIS_URL"),
        ("broker_password = 's3cret'", ":1: 'broker_password' is not decided here; give Redis with -b"),
        ("result_backend = 'redis://'", "results go back to their run"),
        (
            "[broker_transport_options]\nglobal_keyprefix = 'x'",
            "'global_keyprefix' in 'broker_transport",
        ),
        ("task_acks_late = true", "a task only says that there is work"),
        ("a = ", "heavy.toml: Invalid value"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_its_cure(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("heavy", write(tmp_path, text))
    assert complaint in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "heavy.toml:")[:-1])


def test_each_setting_of_celery_is_taken_or_refused() -> None:
    assert sorted([*TAKEN, *REFUSED]) == sorted(KNOWN)


def test_a_queue_that_nothing_is_served_of_is_said_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    for name in ("slow", "__init__"):
        (tmp_path / "tasks" / f"{name}.py").touch()
    folder = Path("worker_configs")
    folder.mkdir()
    write(folder, 'worker_pool = "solo"')
    typed = {queue: load(queue, folder) for queue in ("slwo", "slow", "urgent", "heavy")}

    def said(*queues: str, own: bool) -> list[str]:
        return unserved([typed[queue] for queue in queues], Settings(), own=own)

    (text,) = said("slwo", own=False)
    assert text.startswith("nothing is served of queue 'slwo' itself, only what is built in: there is no ")
    assert f"worker_configs/slwo.toml and no tasks/slwo.py in {tmp_path}; did you mean 'slow'? Or start it in" in text
    (text,) = said("heavy", own=False)
    assert "worker_configs/heavy.toml names no module or plugin folder that has nodes for a worker; start it" in text
    assert said("slow", "urgent", "heavy", own=True) == [], "further queues may be meant for the same nodes"
    assert len(said("slow", "slwo", own=True)) == 1


def test_the_first_queue_leads_and_what_the_others_lose_is_said(tmp_path: Path) -> None:
    leader = WorkerConfig("cpu", Path("cpu.toml"), {"worker_pool": "prefork", "worker_lost_wait": 5})
    same = WorkerConfig("more", Path("more.toml"), {"worker_pool": "prefork"})
    other = WorkerConfig("gpu", Path("gpu.toml"), {"worker_pool": "solo", "worker_lost_wait": 5})
    assert overruled(leader, [same]) == []
    (text,) = overruled(leader, [same, other])
    assert text.startswith("gpu.toml: ignored in this worker")
    assert "worker_pool = 'solo'" in text
    assert "worker_lost_wait" not in text


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("30", 30), ("0.5", 0.5)])
def test_a_file_says_whether_a_stuck_worker_exits(tmp_path: Path, text: str, value: float) -> None:
    config = load("heavy", write(tmp_path, f"exit_when_stuck = {text}\n"))
    assert config.exit_when_stuck == value
    assert config.settings == {}


@pytest.mark.parametrize("text", ["0", "-1", '"yes"'])
def test_what_is_no_time_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"heavy.toml:1: 'exit_when_stuck' must be true, false or a "):
        load("heavy", write(tmp_path, f"exit_when_stuck = {text}\n"))


@pytest.mark.parametrize(
    ("pool", "option", "written", "seconds"),
    [
        ("solo", None, None, 2.0),
        ("solo", "0", None, None),
        ("solo", None, False, None),
        ("solo", "usual", False, 2.0),
        ("threads", None, None, None),
        ("threads", None, True, 10.0),
        ("threads", "usual", None, 10.0),
        ("threads", "usual", 30, 30),
        ("threads", "5", 30, 5.0),
        ("threads", "0", 30, None),
        ("prefork", "0", False, 2.0),
    ],
)
def test_option_and_file_say_when_a_stuck_worker_exits(
    pool: str, option: str | None, written: float | None, seconds: float | None
) -> None:
    assert stuck_after(pool, exit_option(option), written) == seconds


@pytest.mark.parametrize(
    ("pool", "keep", "option", "written", "stays"),
    [
        ("prefork", False, None, None, False),
        ("prefork", False, "0", False, False),
        ("prefork", True, None, None, True),
        ("solo", False, None, None, True),
        ("solo", False, None, True, False),
        ("solo", False, "usual", False, False),
        ("solo", False, "0", True, True),
        ("solo", True, "usual", True, True),
        ("threads", False, "usual", True, True),
    ],
)
def test_option_and_file_say_whether_an_interrupted_process_stays(
    pool: str, keep: bool, option: str | None, written: float | None, stays: bool
) -> None:
    assert keeps_interrupted(pool, keep=keep, option=exit_option(option), written=written) == stays


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_an_option_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--exit-when-stuck {text}: give seconds, 0 for a worker that stays"):
        exit_option(text)


def test_a_file_that_cannot_be_read_is_none_that_is_not_there(tmp_path: Path) -> None:
    for spoil, complaint in (
        (lambda path: path.write_bytes(b"worker_pool = '\xff'"), "is not UTF-8 text (byte 15); save it as UTF-8"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.symlink_to(tmp_path / "nowhere"), "cannot be read: No such file"),
        (lambda path: path.write_text("a = " + "[" * 5000), ""),
    ):
        path = tmp_path / "odd.toml"
        spoil(path)
        with pytest.raises(ConfigError) as caught:
            load("odd", tmp_path)
        assert str(caught.value).startswith(f"{path}: {complaint}")
        path.rmdir() if path.is_dir() else path.unlink()
