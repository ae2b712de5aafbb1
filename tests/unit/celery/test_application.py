"""Where Redis is, and who said so: one order for the commands of celerypipe, those of Celery, and runners."""

from __future__ import annotations

import os

import pytest

from celerypipe.celery.application import make_app, named_redis
from celerypipe.errors import ConfigError
from celerypipe.settings import RedisSettings
from tests.servers.command import start

OURS, CELERYS = "CELERYPIPE_REDIS_URL", "CELERY_BROKER_URL"


@pytest.mark.parametrize(
    ("given", "environment", "host", "said_by"),
    [
        ("redis://a", {OURS: "redis://b", CELERYS: "redis://c"}, "a", "--redis"),
        (None, {OURS: "redis://b", CELERYS: "redis://c"}, "b", OURS),
        (None, {OURS: " ", CELERYS: "redis://c"}, "c", CELERYS),
        (None, {CELERYS: "redis://c"}, "c", CELERYS),
        (None, {CELERYS: "amqp://c"}, "localhost", ""),
        ("", {}, "localhost", ""),
    ],
)
def test_the_first_that_says_something_counts(
    given: str | None, environment: dict[str, str], host: str, said_by: str
) -> None:
    found = RedisSettings.find(given, environment)
    assert (found.or_default.host, found.said_by) == (host, said_by)
    assert f"Redis: redis://{host}:6379/0, " in str(found)
    assert (said_by or "the default") in str(found)
    if given is None:  # as a worker finds it
        assert make_app(environment).connection_for_read().hostname == host


def test_what_is_not_heard_is_said_where_it_differs() -> None:
    environment = {OURS: "redis://:s3cret@b", CELERYS: "redis://:s3cret@c"}
    (text,) = RedisSettings.find(None, environment).unheard
    assert text == f"{CELERYS} names another Redis, redis://***@c: it is ignored, {OURS} comes first"
    assert len(RedisSettings.find("redis://a", environment).unheard) == 2
    same = {OURS: "redis://b", CELERYS: "redis://b:6379/0"}
    assert RedisSettings.find("redis://b/", same).unheard == ()
    assert RedisSettings.find(None, {OURS: "redis://b", CELERYS: "amqp://c"}).unheard == ()
    (left,) = RedisSettings.find(None, {CELERYS: "amqp://me:s3cret@c//"}).unheard
    assert f"{CELERYS} is no address of Redis, and is ignored" in left
    assert "s3cret" not in left


def test_who_says_something_wrong_is_named() -> None:
    for name in (OURS, CELERYS):
        with pytest.raises(ConfigError, match=f"^{name}: 'redis://h:6379"):
            RedisSettings.find(None, {name: "redis://h:6379/0?db=1"})
    with pytest.raises(ConfigError, match=r"^--redis: "):
        RedisSettings.find("box", {})


def test_the_option_of_celerys_command_line_comes_first_and_its_variables_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from celery.bin.celery import celery  # not where the tests are collected: it imports for long

    with celery.make_context("celery", ["-b", "redis://a", "worker"]):
        found = named_redis({OURS: "redis://b", CELERYS: "redis://a"})  # where Celery puts it
        assert (found.or_default.host, found.said_by) == ("a", "-b")
        assert [text.partition(",")[0] for text in found.unheard] == [f"{OURS} names another Redis"]
    monkeypatch.setenv("BROKER_URL", "redis://elsewhere")
    with celery.make_context("celery", ["worker"]):
        assert named_redis({OURS: "redis://b", CELERYS: "redis://elsewhere"}).or_default.host == "b"
        assert named_redis({CELERYS: "redis://elsewhere"}).or_default.host == "localhost"


def test_an_application_hears_no_variable_of_another_project(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CELERYS, "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        monkeypatch.setenv(name, "redis://elsewhere")
    for name in ("CELERY_CONFIG_MODULE", "CELERY_LOADER", "CELERY_RESULT_BACKEND", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.setenv(name, "no.such.module")
    app = make_app({OURS: "redis://here"})
    ways = (app.connection_for_read, app.connection_for_write, app.connection)
    assert {way().hostname for way in ways} == {"here"}
    with app.connection_or_acquire() as connection:
        assert connection.hostname == "here"
    assert type(app.backend).__name__ == "DisabledBackend"
    assert os.environ[CELERYS] == "redis://elsewhere", "what nodes of ours see of it stays as it is"


def test_a_command_of_celery_ends_with_one_line_where_an_import_goes_on() -> None:
    words = ["-m", "celery", "-A", "celerypipe", "inspect", "ping"]
    done = start(*words, **{OURS: "redis://:s3c/ret@host"}).finish()
    assert done.returncode == 78
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"celerypipe: {OURS}: 'redis://***@host': what stands before its @ cannot be read")
    assert make_app({OURS: "redis://:s3c/ret@host"}).conf.broker_url == "redis://localhost:6379/0"
