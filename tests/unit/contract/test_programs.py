"""The list of programs that nodes may run: how it is read, and what a pipeline may fill in."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from celerypipe.contract.programs import Program, programs_here, programs_in, read_programs, written_programs

HERE = Path("/project")
RESIZE = """
[programs.resize]
command = ["convert", "{input}", "-resize", "{width}", "{output}"]
input = "file"
output = "file"
suffix = ".png"
values = { width = '\\d+x\\d+' }
"""


def the(text: str) -> Program:
    ((_, complaint, program),) = programs_in(tomllib.loads(text), HERE)
    assert program is not None, complaint
    return program


def test_a_program_is_read_with_what_its_command_line_leaves_open() -> None:
    found = the(RESIZE)
    assert (found.name, found.open, found.suffix, found.exit_codes) == ("resize", ["width"], ".png", (0,))
    words = found.words({"input": "/x/a b", "output": "/x/c", "width": "1x2"})
    assert words == ["convert", "/x/a b", "-resize", "1x2", "/x/c"]
    assert read_programs(written_programs({"resize": found})) == {"resize": found}


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("200x200", True),
        (3.5, True),
        ("a b", True),
        ("-rf", False),
        ("--output=/etc/passwd", False),
        ("/etc/passwd", False),
        ("../secret", False),
        ("a/b", False),
        ("@list", False),
        ("$(id)", False),
        ("a;id", False),
        ("a\nb", False),
        ("a\0", False),
        ("a\n", False),
        ("", False),
        (True, False),
        (["-a", "b"], False),
        (None, False),
    ],
)
def test_what_a_value_may_be_where_the_list_says_nothing_of_it(value: object, allowed: bool) -> None:
    program = Program("p", ("tool", "--size={size}"), HERE)
    assert (program.complaint({"size": value}) == "") is allowed  # type: ignore[dict-item]


def test_what_does_not_fit_a_program_is_told_with_the_cure() -> None:
    program = the(RESIZE)
    assert program.complaint({"width": "1x2"}) == ""
    assert program.complaint({"width": -1}).endswith(
        "the list allows '\\\\d+x\\\\d+'. If it is meant, its owner writes width = 'PATTERN' into "
        "[programs.resize.values]"
    )
    assert program.complaint({}) == "values: program 'resize' needs width"
    assert "has no such value; did you mean 'width'?" in program.complaint({"widht": "1x1"})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("resize = 3", "[programs.resize] must be a table with command"),
        ("[programs.resize]", "has no command"),
        ("[programs.resize]\ncommand = 'convert a b'", "command must be a list of texts, not 'convert a b'"),
        ("[programs.resize]\ncommand = []", "command must be a list of texts"),
        ("[programs.resize]\ncommand = ['a']\nshell = true", "has an unknown key 'shell'"),
        ("[programs.resize]\ncommand = ['a']\ninput = 'pipe'", "input must be 'stdin', 'file' or 'none', not 'pipe'"),
        ("[programs.resize]\ncommand = ['a']\ntimeout = 0", "timeout must be a number of seconds above 0, not 0"),
        ("[programs.resize]\ncommand = ['a']\ntimeout = true", "timeout must be a number of seconds above 0, not True"),
        ("[programs.resize]\ncommand = ['a']\ninput = 'file'", "command has no {input}, and input is 'file'"),
        ("[programs.resize]\ncommand = ['a', '{output}']", "command has {output}, and output is 'stdout'"),
        ("[programs.resize]\ncommand = ['{tool}']", "the program itself is never chosen by a pipeline"),
        ("[programs.resize]\ncommand = ['a']\nvalues = {b = 'c'}", "values names 'b', which command does not have"),
        ("[programs.resize]\ncommand = ['a', '{b}']\nvalues = {b = '('}", "values.b: '(' is no regular expression"),
        ("[programs.resize]\ncommand = ['a']\nsuffix = '/x'", "suffix must be text such as '.png', not '/x'"),
        ("[programs.'a b']\ncommand = ['a']", "has a name with other characters"),
    ],
)
def test_a_mistake_in_the_list_is_told(table: str, said: str) -> None:
    text = table if table.startswith("[") else f"[programs]\n{table}"
    ((_, complaint, program),) = programs_in(tomllib.loads(text), HERE)
    assert program is None
    assert said in complaint


def test_of_two_that_are_called_the_same_nobody_can_tell_which_is_meant(tmp_path: Path) -> None:
    (tmp_path / "cpu.toml").write_text(RESIZE + "[programs.one]\ncommand = ['cat']")
    (tmp_path / "gpu.toml").write_text(RESIZE.replace("-resize", "-scale") + "[programs.two]\ncommand = []")
    (tmp_path / "broken.toml").write_text("[")
    found, wrong = programs_here(tmp_path)
    assert sorted(found) == ["one", "resize"]
    assert "cpu.toml and " in wrong["resize"]
    assert "different programs 'resize': call one otherwise" in wrong["resize"]
    assert "[programs.two] command must be a list of texts" in wrong["two"]
