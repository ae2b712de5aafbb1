"""The page itself, section by section."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import click

import celerypipe
from celerypipe.catalogue.catalogue import BUILT_IN, Catalogue, Listing
from celerypipe.cli.commands import COMMANDS, main
from celerypipe.cli.endings import MEANINGS
from celerypipe.definition.pipeline import json_schema
from celerypipe.settings import VARIABLES
from celerypipe.worker.config import OURS
from celerypipe.worker.vocabulary import REFUSED, TAKEN
from tests.reference.markdown import code, plain, table
from tests.servers import ROOT

STORED = ROOT / "docs" / "reference.md"
HEAD = """# Reference

Made from the code by `python -m tests.reference keep`; do not edit it here. The same is in `celerypipe schema`,
`celerypipe --help`, `celerypipe COMMAND --help` and `celerypipe nodes`."""
#: The objects of a pipeline file, in the order of the page: the name of the model, the heading, where it stands.
OBJECTS = {
    "": ("File", "The outermost object of the file."),
    "Body": ("Pipeline", 'The object under `"pipeline"`.'),
    "NodeDefinition": ("Node", 'An object in `"nodes"`.'),
    "WarpConfiguration": ("Warp configuration", 'The object under `"warp_configuration"` of a node.'),
    "BatchLimits": ("Batch", 'The object under `"batch"` of a warp configuration.'),
    "CacheDefinition": ("Cache", 'The object under `"cache"` of a node.'),
    "Link": ("Link", 'An object in `"links"`.'),
    "DeadLetterLimits": ("Dead letters", 'The object under `"dead_letters"` of a pipeline.'),
}
KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": ""}
#: Public classes whose methods are listed.
WITH_METHODS = ("Runner", "Pipeline", "Message", "Call", "Source", "Proc", "Sink")
NOT_FOR_USERS = ("at", "is_of", "set_result", "set_exception")
#: What is called, and where its arguments are explained.
CALLED = {
    "Message": celerypipe.Message,
    "Report": celerypipe.Report,
    "Runner": celerypipe.Runner,
    "Embedded": celerypipe.Embedded.__init__,
    "node": celerypipe.node,
}
_ARGUMENT = re.compile(r"^``(\w+)``: (.*?)(?=^``\w+``: |^\s*$|\Z)", re.MULTILINE | re.DOTALL)


def page() -> str:
    """Return the whole page."""
    sections = {
        "Pipeline files": _pipeline_files,
        "Commands": _commands,
        "Exit status": _endings,
        "Environment variables": _variables,
        "Worker files": _worker_files,
        "Built-in nodes": _nodes,
        "Python": _names,
    }
    contents = "\n".join(f"* [{name}](#{name.lower().replace(' ', '-')})" for name in sections)
    parts = [f"## {name}\n\n" + "\n\n".join(section()) for name, section in sections.items()]
    return "\n\n".join([HEAD, contents, *parts]) + "\n"


def _pipeline_files() -> Iterator[str]:
    yield "A pipeline is one JSON or YAML file. Keys that are not listed here are errors."
    schema = json_schema()
    for model, (heading, where) in OBJECTS.items():
        shape = schema["$defs"][model] if model else schema
        required = shape.get("required", ())
        rows = [
            (f"`{key}`", kind(value), _default(value, required=key in required), plain(value["description"]), example)
            for key, value in shape["properties"].items()
            for example in [" ".join(map(code, value.get("examples", ())))]
        ]
        yield f"### {heading}\n\n{where}"
        yield table(("key", "type", "default", "meaning", "example"), rows)


def kind(value: Mapping[str, Any]) -> str:
    """What a key takes, in words."""
    if "$ref" in value:
        heading = OBJECTS[value["$ref"].rpartition("/")[2]][0]
        return f"[{heading.lower()}](#{heading.lower().replace(' ', '-')})"
    if "enum" in value:
        return " ".join(f"`{each}`" for each in value["enum"])
    if "anyOf" in value:
        return ", ".join(dict.fromkeys(filter(None, map(kind, value["anyOf"]))))
    if value["type"] == "array":
        return f"list of {inner}" if (inner := kind(value["items"])) != "text" else "list of texts"
    name = KINDS.get(value["type"], value["type"])
    return f"{name} ({value['unit']})" if "unit" in value else name


def _default(value: Mapping[str, Any], *, required: bool) -> str:
    if required:
        return "required"
    return code(value.get("default") if value.get("default") not in ("", []) else None)


def _commands() -> Iterator[str]:
    yield "`celerypipe --help` lists the commands. `-h` and `--help` explain one."
    yield table(
        ("command", "what it does"), [(f"[`{name}`](#celerypipe-{name})", text) for name, text in COMMANDS.items()]
    )
    context = click.Context(main, info_name="celerypipe")
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        yield from _command(name, command, click.Context(command, context, name), level=3)


def _command(name: str, command: click.Command, context: click.Context, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} celerypipe {name}"
    usage = f"`{context.command_path} {' '.join(command.collect_usage_pieces(context))}`"
    yield "\n\n".join([usage, *map(plain, inspect.cleandoc(command.help or "").split("\n\n"))])
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield table(
            ("option", "default", "meaning"), [(_typed(each), _usual(each), each.help or "") for each in options]
        )
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            below = command.commands[inner]
            yield from _command(f"{name} {inner}", below, click.Context(below, context, inner), level=level + 1)


def _typed(option: click.Option) -> str:
    value = "" if option.is_flag else option.metavar or _value(option.type)
    return ", ".join(f"`{name}`" for name in option.opts) + (f" {value}" if value else "")


def _value(type_: click.ParamType) -> str:
    return " ".join(f"`{each}`" for each in type_.choices) if isinstance(type_, click.Choice) else type_.name.upper()


def _usual(option: click.Option) -> str:
    return f"`{option.default}`" if type(option.default) in (int, float, str) and option.default != "" else ""


def _endings() -> Iterator[str]:
    yield table(("status", "of every command"), [(str(int(each)), plain(text)) for each, text in MEANINGS.items()])
    yield "Those of a worker are in [operations](operations.md#exit-codes)."


def _variables() -> Iterator[str]:
    yield "Read once, when a command, a worker or a `Runner` starts."
    rows = [(f"`{each.name}`", each.unit, each.default, each.meaning, f"`{each.example}`") for each in VARIABLES]
    yield table(("variable", "type", "default", "meaning", "example"), rows)


def _worker_files() -> Iterator[str]:
    yield "`worker_configs/gpu.toml` says how workers of the queue `gpu` run ([more](../worker_configs/README.md))."
    yield "### Keys of celerypipe"
    yield table(("key", "meaning"), [(f"`{key}`", text) for key, text in OURS.items()])
    yield "### Celery's settings that a worker takes"
    yield table(("setting", "what it does here"), [(f"`{name}`", text) for name, text in TAKEN.items()])
    yield "### Celery's settings that a worker refuses\n\nIt ends with status 78, and says what to do instead."
    by_reason: dict[str, list[str]] = {}
    for name, why in REFUSED.items():
        by_reason.setdefault(why, []).append(f"`{name}`")
    rows = [(" ".join(names), why) for why, names in by_reason.items()]
    yield table(("settings", "why, and what to do instead"), rows)


def _nodes() -> Iterator[str]:
    yield "`celerypipe nodes` lists them too, together with those of your plugin folders and packages."
    order = ("source", "proc", "sink")
    found = [each for each in Catalogue().listings([]) if each.origin == BUILT_IN]
    for listing in sorted(found, key=lambda each: (order.index(each.type), each.mark)):
        yield f"### {listing.mark} ({listing.type})"
        yield from _node(listing)


def _node(listing: Listing) -> Iterator[str]:
    text = inspect.getdoc(listing.node) or ""
    meanings = {name: plain(meaning) for name, meaning in _ARGUMENT.findall(text)}
    yield from (plain(each) for each in re.split(r"\n\n", _ARGUMENT.sub("", text)) if each.strip())
    rows = [
        (
            f"`{each.name}`",
            f"`{each.annotation}`",
            "required" if each.required else code(each.default),
            meanings[each.name],
        )
        for each in listing.arguments()
    ]
    if rows:
        yield table(("argument", "type", "default", "meaning"), rows)


def _names() -> Iterator[str]:
    yield "`from celerypipe import …`. Names that are not listed here are internal, and may change in any version."
    names = [name for name in celerypipe.__all__ if not name.startswith("_")]
    errors = [name for name in names if _is_error(getattr(celerypipe, name))]
    others = [name for name in names if name not in errors]
    yield table(("name", "what it is"), [(f"`{name}`", about(name)) for name in others])
    yield "### Errors\n\nAll of them are a `CelerypipeError`."
    yield table(("name", "what it says"), [(f"`{name}`", about(name)) for name in errors])
    for name, explained in CALLED.items():
        what = "attribute" if is_dataclass(explained) else "argument"
        yield f"### {what.capitalize()}s of {name}"
        yield table((what, "default", "meaning"), _taken(getattr(celerypipe, name), explained))
    for name in WITH_METHODS:
        rows = [
            (f"`{each}{_parameters(function)}`", plain((inspect.getdoc(function) or "").partition("\n")[0]))
            for each, function in _methods(getattr(celerypipe, name))
        ]
        yield f"### Methods of {name}"
        yield table(("method", "what it does"), rows)


def _methods(public: type) -> Iterator[tuple[str, Any]]:
    """Its methods, those of its own bases too, as their classes have them; without those that are not for users."""
    found: dict[str, Any] = {}
    for each in reversed(public.__mro__):
        if each.__module__.startswith("celerypipe."):
            found |= {name: value for name, value in vars(each).items() if not name.startswith("_")}
    for name, value in found.items():
        if inspect.isfunction(getattr(value, "__func__", value)) and name not in NOT_FOR_USERS:
            yield name, value


def _is_error(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Exception)


def _taken(called: Any, explained: Any) -> list[tuple[str, str, str]]:
    """The arguments of a class or function, by its signature; what each is for stands in a docstring."""
    meanings = {name: plain(meaning) for name, meaning in _ARGUMENT.findall(inspect.getdoc(explained) or "")}
    taken = [each for each in inspect.signature(called).parameters.values() if each.name in meanings]
    assert {each.name for each in taken} == set(meanings)
    return [(f"`{each.name}`", _said(each.default), meanings[each.name]) for each in taken]


def _said(default: object) -> str:
    """A default that says something: a number, True or False."""
    return f"`{default}`" if isinstance(default, int) else ""


def _parameters(function: Any) -> str:
    """How it is called: its parameters with their stars and defaults, without their types."""
    signature = inspect.signature(getattr(function, "__func__", function))
    kept = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in kept]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def about(name: str) -> str:
    """The first line of a public name's docstring; of an alias the comment above it."""
    found = getattr(celerypipe, name)
    if isinstance(found, type) or inspect.isfunction(found):
        return plain((found.__doc__ or "").strip().partition("\n")[0])
    source = inspect.getsource(importlib.import_module(f"celerypipe.{celerypipe._MODULE_OF[name]}"))
    line = next(each.lineno for each in ast.parse(source).body if name in ast.unparse(each).partition("=")[0].split())
    return plain(source.splitlines()[line - 2].removeprefix("#: "))
