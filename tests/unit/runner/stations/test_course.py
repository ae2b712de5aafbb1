"""What a run says holds no secret that its nodes were given by a variable; and what it remembers of its threads."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Pipeline, Runner
from celerypipe.errors import CelerypipeError
from celerypipe.runner.stations.course import Course

TOKEN, FOLDER = "t0ken/of a node", "/data/pictures"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMETHING", TOKEN)
    monkeypatch.setenv("FOLDER", FOLDER)


def quoting(folder: Path, on_error: str, **configuration: Any) -> Pipeline:
    given = {"token": "$JT_ENV_SOMETHING", "where": "$JT_ENV_FOLDER", **configuration}
    nodes = [
        {"name": "one", "type": "source", "mark": "data_streamer", "configuration": {"items": [1]}},
        {"name": "there", "type": "proc", "mark": "tests.nodes.here.Quoting", "on_error": on_error},
    ]
    nodes[1]["configuration"] = given
    body = {"name": "p", "folder": "run", "nodes": nodes, "links": [{"from": "one", "to": "there"}]}
    return Pipeline.from_dict({"pipeline": body}, folder)


@pytest.mark.parametrize("at_once", [False, True])
def test_an_error_that_ends_a_run_shows_no_secret(tmp_path: Path, at_once: bool) -> None:
    said: list[str] = []
    with pytest.raises(CelerypipeError) as caught:
        Runner(on_event=said.append).run(quoting(tmp_path, "stop", at_once=at_once))
    assert f"*** is no token of {FOLDER}" in str(caught.value)
    shown = [str(caught.value), getattr(caught.value, "remote_traceback", ""), *said]
    shown += [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [text for text in shown if TOKEN in text]


@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_a_message_that_is_given_up_shows_none(tmp_path: Path, on_error: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        report = Runner().run(quoting(tmp_path, on_error))
    assert f"*** is no token of {FOLDER}" in caplog.text
    shown = [caplog.text, json.dumps(report.to_dict())]
    shown += [path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [text for text in shown if TOKEN in text]


def test_a_thread_that_ended_is_forgotten() -> None:
    course, ended = Course("run", folder=None, say=print), threading.Event()
    for _ in range(3):
        course.spawn("short", lambda: None).join()
    course.spawn("long", ended.wait)
    assert [thread.name for thread in course._threads] == ["celerypipe-long"]
    ended.set()
    course.farewell(20)
    assert not course._threads
