"""Requirements as lines, seen from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from celerypipe.environments.requirements import files_in, lines_of
from celerypipe.errors import ConfigError
from tests.servers import Write


def test_a_file_is_read_with_those_it_includes_and_what_it_names_is_named_in_full(write: Write, tmp_path: Path) -> None:
    write("more/limits.txt", "numpy<3\n")
    (tmp_path / "wheels").mkdir()
    write("more/most.txt", "scipy>=1 # the first with wheels\n-c limits.txt\nnumpy<2\n")
    lines = (
        "# what it needs\n\nnumpy<2\n-r more/most.txt\n--find-links=wheels\n./beside[x]\n--index-url https://a.b/c\n"
    )
    file = write("asr.txt", lines + "torch \\\n  ==2.1; python_version > '3'\n")
    assert lines_of(file) == (
        "numpy<2",
        "scipy>=1",
        f"-c {tmp_path}/more/limits.txt",
        f"--find-links {tmp_path}/wheels",
        f"{tmp_path}/beside[x]",
        "--index-url https://a.b/c",
        "torch    ==2.1; python_version > '3'",
    )
    assert files_in(lines_of(file)) == [tmp_path / "more" / "limits.txt"]


def test_one_that_is_missing_or_includes_itself_is_named(write: Write, tmp_path: Path) -> None:
    file = write("asr.txt", "-r other.txt\n")
    with pytest.raises(ConfigError, match=r"there is no file .*other.txt, which .*asr.txt includes"):
        lines_of(file)
    write("other.txt", "-rasr.txt\n")
    with pytest.raises(ConfigError, match=r"asr.txt: includes itself"):
        lines_of(file)
    file.write_bytes(b"\xff\n")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 0\)"):
        lines_of(file)
