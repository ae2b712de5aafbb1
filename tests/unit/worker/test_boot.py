"""What a worker cannot do without ends it where it fails; Celery would log that and come up empty."""

from __future__ import annotations

import os

import pytest
from celery.utils.dispatch import Signal

from celerypipe.errors import ConfigError
from celerypipe.worker.boot import ending


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
