"""What a worker cannot do without ends it where it fails; Celery would log that and come up empty."""

from __future__ import annotations

import os

import pytest
from celery.bin.base import CLIContext
from celery.bin.celery import celery
from celery.bin.worker import worker
from celery.utils.dispatch import Signal

from celerypipe.celery.application import make_app
from celerypipe.errors import ConfigError
from celerypipe.worker.boot import ending
from celerypipe.worker.options import unasked


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("gpu.toml is wrong"), os.EX_CONFIG, "celerypipe: gpu.toml is wrong\n"),
        (ZeroDivisionError("by zero"), os.EX_SOFTWARE, "ZeroDivisionError: by zero\n"),
    ],
)
def test_a_handler_that_fails_ends_the_worker_with_its_reason(
    error: Exception, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def handler(**_: object) -> None:
        raise error

    signal = Signal(name="boot")
    signal.connect(ending(handler), weak=False)
    with pytest.raises(SystemExit) as ended:
        signal.send(sender=None)
    assert ended.value.code == status
    assert capsys.readouterr().err.endswith(said)


def test_an_option_that_nobody_typed_is_told_and_so_is_one_that_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_WORKER_CONCURRENCY", "3")
    monkeypatch.setenv("CONFIG_MODULE", "another.project")
    words = ["--loader", "mine", "worker"]
    with celery.make_context("celery", words, auto_envvar_prefix="CELERY") as above:
        above.obj = CLIContext(app=make_app({}), no_color=True, workdir=None)
        with worker.make_context("worker", ["-Q", "gpu"], parent=above):
            said = unasked()
    assert said == [
        "--concurrency comes from the environment: unset CELERY_WORKER_CONCURRENCY if it is not meant",
        "--loader is ignored: a worker runs by worker_configs/<queue>.toml",
    ]
    assert unasked() == []
