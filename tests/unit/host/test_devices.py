"""Which GPU a worker of a host sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from celerypipe.errors import ConfigError
from celerypipe.host.allowed import Allowed
from celerypipe.host.devices import devices_by_queue, least_taken, shown_only


def _allowed(folder: Path, text: str) -> Allowed:
    (folder / "host.toml").write_text(text)
    return Allowed.load(folder / "host.toml")


def test_workers_get_the_gpus_that_are_there_or_those_that_are_named(tmp_path: Path) -> None:
    text = '[queues.gpu]\ndevices = "gpus"\nenvironments = ["asr"]\n[queues.big]\ndevices = ["0,1", 2]\n[queues.cpu]\n'
    allowed = _allowed(tmp_path, text)
    nowhere = tmp_path / "nowhere"
    assert devices_by_queue(allowed, 2, {}, nowhere) == {"gpu": ["0", "1"], "gpu+asr": ["0", "1"], "big": ["0,1", "2"]}
    part = {"CUDA_VISIBLE_DEVICES": "3, MIG-5f"}
    assert devices_by_queue(allowed, 8, part, nowhere)["gpu"] == ["3", "MIG-5f"], "what a scheduler left to this host"
    driver = tmp_path / "gpus"
    for each in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (driver / each).mkdir(parents=True)
    assert devices_by_queue(allowed, 0, {}, driver)["gpu"] == ["0", "1", "2"], "without NVIDIA's library"


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, "this machine shows none"), ({"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES of this host names none")],
)
def test_a_machine_without_a_gpu_is_told_what_to_write(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    allowed = _allowed(tmp_path, '[queues.gpu]\ndevices = "gpus"\n')
    with pytest.raises(ConfigError) as caught:
        devices_by_queue(allowed, 0, environment, tmp_path / "nowhere")
    assert f'{allowed.path}: [queues.gpu] devices = "gpus": {said}' in str(caught.value)
    assert 'devices = ["0", "1"]' in str(caught.value)


def test_each_worker_gets_the_gpu_that_the_fewest_have() -> None:
    taken: list[str] = []
    for _ in range(5):
        taken.append(least_taken(["0", "1", "2"], taken))
    assert taken == ["0", "1", "2", "0", "1"]
    assert least_taken(["0", "1", "2"], ["", "0", "2", "2"]) == "1"
    assert least_taken([], ["0"]) == ""


def test_a_worker_without_a_gpu_of_its_own_sees_what_its_host_sees() -> None:
    assert shown_only("") == {}
    assert shown_only("1") == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
