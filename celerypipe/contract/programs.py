"""Which programs nodes may run on this machine: its own list, ``[programs.NAME]`` in the files of ``worker_configs/``.

A pipeline names one of them, and gives values for the places that its command line leaves open. What comes from
elsewhere is never a program, a path, an option or a list of arguments.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from celerypipe.errors import ConfigError, did_you_mean

Filling = str | int | float
InputWay = Literal["stdin", "file", "none"]
OutputWay = Literal["stdout", "file", "none"]

#: What a value may be where the list says nothing of it: no path, no option, nothing that programs read otherwise.
USUAL = r"[A-Za-z0-9_][A-Za-z0-9_ .,:+=%-]*"
#: Bytes that a program may write, where the list says nothing.
MOST_BYTES = 256 * 1024 * 1024
#: What a command line leaves open; the first three the node fills in.
_OPEN = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
INPUT, OUTPUT, HERE = "input", "output", "here"
OWN = (INPUT, OUTPUT, HERE)
EXAMPLE = 'command = ["convert", "{input}", "-resize", "{width}", "{output}"]'


@dataclass(frozen=True, slots=True)
class Program:
    """One entry of the list.

    ``command``: the program and its arguments, in which ``{name}`` stands for a value. ``values``: what each may be, as
    a regular expression. ``input``, ``output``: how a payload goes in and comes out; ``suffix``: the end of the name of
    a file that it writes, ``input_suffix`` of one that it reads. ``text``: what it writes is UTF-8 text. ``timeout``:
    seconds after which it is ended. ``exit_codes``: those that mean success. ``most_bytes``: what it may write.
    """

    name: str
    command: tuple[str, ...]
    here: Path
    values: Mapping[str, str] = field(default_factory=dict)
    input: InputWay = "stdin"
    output: OutputWay = "stdout"
    suffix: str = ""
    input_suffix: str = ""
    text: bool = False
    timeout: float | None = None
    exit_codes: tuple[int, ...] = (0,)
    most_bytes: int = MOST_BYTES

    @property
    def open(self) -> list[str]:
        """The values that a pipeline has to give, in their order."""
        found = dict.fromkeys(name for word in self.command for name in _OPEN.findall(word))
        return [name for name in found if name not in OWN]

    def complaint(self, values: Mapping[str, Filling]) -> str:
        """Say what is wrong with the values for this program, and what to write; nothing if they fit."""
        needed = self.open
        for name, value in values.items():
            if name not in needed:
                takes = f"it takes {', '.join(needed)}" if needed else "it takes none"
                return f"values.{name}: program {self.name!r} has no such value{did_you_mean(name, needed)}; {takes}"
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                return f"values.{name}: {value!r} is neither text nor a number"
            pattern = self.values.get(name, USUAL)
            if not re.fullmatch(pattern, str(value)):
                return (
                    f"values.{name}: {value!r} is not allowed; the list allows {pattern!r}. If it is meant, its "
                    f"owner writes {name} = 'PATTERN' into [programs.{self.name}.values]"
                )
        if missing := [name for name in needed if name not in values]:
            return f"values: program {self.name!r} needs {', '.join(missing)}"
        return ""

    def words(self, filled: Mapping[str, Filling]) -> list[str]:
        """Return the command line; ``filled``: all values, and the paths of the node. A word stays one word."""
        return [_OPEN.sub(lambda found: str(filled.get(found[1], found[0])), word) for word in self.command]

    @property
    def missing(self) -> str:
        """Say that the program is not on this machine; nothing if it is."""
        name = self.words({HERE: str(self.here)})[0]
        path = str(self.here / name) if "/" in name else name
        return "" if shutil.which(path) else f"{name!r} is not there"

    def executable(self) -> str:
        """Return the path of the program; :class:`ConfigError` where it is not on this machine."""
        name = self.words({HERE: str(self.here)})[0]
        found = shutil.which(str(self.here / name) if "/" in name else name)
        if found is None:
            raise ConfigError(
                f"program {self.name!r}: {name!r} is not on this machine, or may not be run; install it, or correct "
                f"`command` of [programs.{self.name}] here"
            )
        return found


Programs = Mapping[str, Program]


def programs_in(content: Mapping[str, Any], here: Path) -> Iterator[tuple[str, str, Program | None]]:
    """Read ``[programs]`` of a file: for each its key, what is wrong with it, and the program where nothing is.

    ``here``: the folder that ``{here}`` stands for, and from which a program with a path is seen.
    """
    tables = content.get("programs", {})
    if not isinstance(tables, dict):
        yield "programs", f"'programs' holds tables, such as [programs.resize] with {EXAMPLE}", None
        return
    for name, table in tables.items():
        wrong = _wrong_table(name, table)
        made = None if wrong else Program(name, tuple(table["command"]), here, **_options(table))
        wrong = wrong or _wrong_command(made)
        yield f"programs.{name}", f"[programs.{name}] {wrong}" if wrong else "", None if wrong else made


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "command": ((list,), "a list of texts"),
    "values": ((dict,), "a table of patterns"),
    "input": ((str,), "'stdin', 'file' or 'none'"),
    "output": ((str,), "'stdout', 'file' or 'none'"),
    "suffix": ((str,), "text such as '.png'"),
    "input_suffix": ((str,), "text such as '.png'"),
    "text": ((bool,), "true or false"),
    "timeout": ((int, float), "a number of seconds above 0"),
    "exit_codes": ((list,), "a list of whole numbers"),
    "most_bytes": ((int,), "a whole number above 0"),
}
_WAYS = {"input": ("stdin", "file", "none"), "output": ("stdout", "file", "none")}


def _wrong_table(name: str, table: Any) -> str:
    if not isinstance(table, dict):
        return f"must be a table with {EXAMPLE}"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return "has a name with other characters than letters, digits, '_' and '-'"
    for key, value in table.items():
        if key not in _KINDS:
            return f"has an unknown key {key!r}{did_you_mean(key, _KINDS)}"
        kinds, said = _KINDS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds) or not _fits(key, value):
            return f"{key} must be {said}, not {value!r}"
    if "command" not in table:
        return f"has no command; write {EXAMPLE}"
    return ""


def _fits(key: str, value: Any) -> bool:
    if key == "command":
        return bool(value) and all(isinstance(word, str) and word and "\0" not in word for word in value)
    if key == "values":
        return all(isinstance(pattern, str) for pattern in value.values())
    if key == "exit_codes":
        return bool(value) and all(isinstance(code, int) and not isinstance(code, bool) for code in value)
    if key in _WAYS:
        return value in _WAYS[key]
    if key in ("suffix", "input_suffix"):
        return re.fullmatch(r"(\.[A-Za-z0-9_-]+)*", value) is not None
    return key == "text" or value > 0


def _options(table: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in table.items() if key != "command"}
    if "exit_codes" in options:
        options["exit_codes"] = tuple(options["exit_codes"])
    return options


def _wrong_command(program: Program | None) -> str:
    if program is None:
        return ""
    named = set(_OPEN.findall(" ".join(program.command)))
    if named & set(_OPEN.findall(program.command[0])) - {HERE}:
        return "command begins with a value: the program itself is never chosen by a pipeline"
    for name, way in ((INPUT, program.input), (OUTPUT, program.output)):
        if (name in named) != (way == "file"):
            there = f"has no {{{name}}}" if way == "file" else f"has {{{name}}}"
            return f"command {there}, and {name} is {way!r}; write {name} = 'file' and {{{name}}} both, or neither"
    if unknown := sorted(set(program.values) - set(program.open)):
        return f"values names {unknown[0]!r}, which command does not have{did_you_mean(unknown[0], program.open)}"
    for name, pattern in program.values.items():
        try:
            re.compile(pattern)
        except re.error as error:
            return f"values.{name}: {pattern!r} is no regular expression: {error}"
    return ""


def written_programs(programs: Programs) -> list[dict[str, Any]]:
    """Return programs as a process is told of them that inherits nothing."""
    return [{**asdict(each), "here": str(each.here)} for each in programs.values()]


def read_programs(told: Sequence[Mapping[str, Any]]) -> dict[str, Program]:
    """Read what :func:`written_programs` returned."""
    tuples = {"command": tuple, "exit_codes": tuple, "here": Path}
    made = [Program(**{key: tuples.get(key, lambda same: same)(value) for key, value in one.items()}) for one in told]
    return {program.name: program for program in made}


def programs_here(folder: Path) -> tuple[dict[str, Program], dict[str, str]]:
    """Return the programs of all files of a folder, for nodes that run in this process, and what is wrong with others.

    Of two that are called the same and differ nobody can tell which is meant: that is wrong, too.
    """
    found: dict[str, Program] = {}
    wrong: dict[str, str] = {}
    where: dict[str, Path] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # a worker of that queue says so
            continue
        for key, complaint, program in programs_in(content, Path.cwd()):
            name = key.removeprefix("programs.")
            if program is None:
                wrong[name] = f"{path}: {complaint}"
            elif found.setdefault(name, program) != program:
                wrong[name] = f"{where[name]} and {path} have different programs {name!r}: call one otherwise"
            where.setdefault(name, path)
    return found, wrong
