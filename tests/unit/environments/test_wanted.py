"""Which environment a queue wants, by the tables of its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from celerypipe.environments.wanted import ISOLATED_VARIABLE, LIST_VARIABLE, wanted_by
from celerypipe.errors import ConfigError
from tests.servers import Write

FILE = """\
imports = ["work.heavy"]

[environment]
requirements = ["numpy>=2", "numpy>=2", "./beside"]

[environments.asr]
requirements = "asr.txt"
python = "3.12"

[environments."my.own"]
python = "pythons/mine"
"""

Refused = Callable[[str], str]


@pytest.fixture
def configs(write: Write) -> Path:
    write("configs/asr.txt", "numpy<2\n")
    return write("configs/gpu.toml", FILE).parent


def test_a_queue_has_its_own_and_those_of_its_list(configs: Path) -> None:
    own, asr, mine = (wanted_by(queue, configs) for queue in ("gpu", "gpu+asr", "gpu+my.own"))
    assert own is not None
    assert asr is not None
    assert mine is not None
    assert (own.name, own.requirements, own.python) == ("gpu", ("numpy>=2", str(configs / "beside")), None)
    assert (asr.name, asr.requirements, asr.python) == ("asr", ("numpy<2",), "3.12")
    assert (mine.name, mine.requirements, mine.python) == ("my.own", (), str(configs / "pythons/mine"))
    assert asr.source == f"{configs / 'gpu.toml'} [environments.asr]"


def test_a_queue_that_asks_for_none_has_none(configs: Path) -> None:
    (configs / "io.toml").write_text('imports = ["work.io"]\n')
    assert wanted_by("io", configs) is wanted_by("without.file", configs) is None


def test_a_name_is_looked_for_in_a_further_list_too(
    configs: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = write("host.toml", '[environments.tts]\nrequirements = ["voice"]\n[environments.asr]\npython = "3.13"\n')
    monkeypatch.setenv(LIST_VARIABLE, str(more))
    found, first = wanted_by("io+tts", configs), wanted_by("gpu+asr", configs)
    assert found is not None
    assert first is not None
    assert found.requirements == ("voice",)
    assert first.python == "3.12", "that of the queue's file comes first"
    with pytest.raises(ConfigError, match=r"no \[environments.ttt\] in .*io.toml or .*host.toml; did you mean 'tts'"):
        wanted_by("io+ttt", configs)


def test_a_file_of_requirements_may_be_that_of_the_whole_process(
    configs: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISOLATED_VARIABLE, str(write("node/requirements.txt", "clash==2\n")))
    found = wanted_by("gpu", configs)
    assert found is not None
    assert found.requirements == ("clash==2",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '[environment]\nrequirement = ["a"]\n',
            r"gpu.toml:2: unknown key 'requirement' .*did you mean",
        ),
        ("[environment]\nrequirements = [1]\n", r"gpu.toml:2: \[environment\] requirements must be a list such as"),
        ('[environment]\nrequirements = "numpy"\n', r"gpu.toml:2: .* there is no file .*numpy.*\[\"numpy\"\]"),
        ("[environment]\n", r"gpu.toml:1: \[environment\] asks for nothing; write requirements"),
        ("\n[environments.a]\npython = 3.12\n", r'gpu.toml:3: \[environments.a\] python must be text; .*"3.12"'),
        ('\n[environments."a b"]\npython = "3"\n', r"gpu.toml:2: 'a b' is no name for an environment"),
        ("environments = 1\n", r"gpu.toml:1: write a table for each: \[environments.NAME\]"),
        ("[environments]\na = 1\n", r"gpu.toml:2: \[environments.a\] must be a table"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_the_cure(write: Write, text: str, complaint: str) -> None:
    folder = write("configs/gpu.toml", text).parent
    with pytest.raises(ConfigError, match=complaint):
        wanted_by("gpu", folder)
