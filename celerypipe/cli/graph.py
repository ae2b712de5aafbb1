"""``celerypipe graph``: draw a pipeline as text, for Mermaid or for Graphviz."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from celerypipe.cli.options import ALLOW, PLACE, SET
from celerypipe.definition.file import read_definition
from celerypipe.definition.graph import Graph
from celerypipe.definition.overrides import Overrides
from celerypipe.definition.pipeline import Link, NodeDefinition, Pipeline


def text(pipeline: Pipeline, graph: Graph) -> str:
    """Return one line a node, indented by what it waits for, with the names it sends to."""
    lines = [pipeline.name]
    for depth, layer in enumerate(graph.layers, start=1):
        for name in layer:
            node = pipeline.node(name)
            targets = [_text_of(link) for link in graph.downstream(name)]
            arrow = f" → {', '.join(targets)}" if targets else ""
            lines.append(f"{'  ' * depth}{name} ({node.type} {node.mark}){_elsewhere(node, '  ⇢ {}')}{arrow}")
    return "\n".join(lines)


def mermaid(pipeline: Pipeline, graph: Graph) -> str:
    """Return a Mermaid flowchart: sources and sinks rounded, warped nodes hexagons."""
    ids = {name: f"n{index}" for index, name in enumerate(graph.order)}
    lines = ["flowchart LR"]
    for name in graph.order:
        node = pipeline.node(name)
        label = f"{_quoted(name)}<br/>{_quoted(node.mark)}{_elsewhere(node, '<br/>⇢ {}', _quoted)}"
        left, right = ("{{", "}}") if node.warped else ("[", "]") if node.type == "proc" else ("([", "])")
        lines.append(f'    {ids[name]}{left}"{label}"{right}')
    for link in graph.links:
        arrow = "-. drop .->" if link.full == "drop" else "-->"
        lines.append(f"    {ids[link.source]} {arrow} {ids[link.target]}")
    return "\n".join(lines)


def dot(pipeline: Pipeline, graph: Graph) -> str:
    """Return a Graphviz digraph: sources and sinks rounded, warped nodes hexagons."""
    lines = ["digraph pipeline {", "    rankdir=LR;", f"    label={_dotted(pipeline.name)};"]
    for name in graph.order:
        node = pipeline.node(name)
        label = _dotted(f"{name}\n{node.mark}{_elsewhere(node, chr(10) + '⇢ {}')}")
        shape = "hexagon" if node.warped else "box" if node.type == "proc" else "oval"
        lines.append(f"    {_dotted(name)} [label={label}, shape={shape}];")
    for link in graph.links:
        style = ' [label="drop", style=dashed]' if link.full == "drop" else ""
        lines.append(f"    {_dotted(link.source)} -> {_dotted(link.target)}{style};")
    return "\n".join([*lines, "}"])


FORMATS: dict[str, Callable[[Pipeline, Graph], str]] = {"text": text, "mermaid": mermaid, "dot": dot}


@click.command()
@click.argument("pipeline", type=click.Path(path_type=Path))
@SET
@PLACE
@ALLOW
@click.option(
    "--format", "format_", type=click.Choice(list(FORMATS)), default="text", show_default=True, help="How to draw it."
)
def graph(
    pipeline: Path, values: tuple[str, ...], places: tuple[str, ...], allow: tuple[Path, ...], format_: str
) -> None:
    """Draw PIPELINE, a JSON or YAML file; `-` reads it from standard input. Warped nodes show the queue they run on.

    `--format mermaid` is for Markdown, as on GitHub; `--format dot` for Graphviz, as in
    `celerypipe graph p.json --format dot | dot -Tsvg > p.svg`. Nothing is imported or run for it.
    """
    data = Overrides.read(values, places).applied(read_definition(pipeline))
    definition = Pipeline.from_dict(data, pipeline.absolute().parent, allow)
    click.echo(FORMATS[format_](definition, Graph.of(definition)))


def _elsewhere(node: NodeDefinition, form: str, quote: Callable[[str], str] = str) -> str:
    return form.format(quote(f"queue {node.queue}")) if node.warped else ""


def _text_of(link: Link) -> str:
    return f"{link.target} (drops when full)" if link.full == "drop" else link.target


def _quoted(value: str) -> str:
    """Text inside a Mermaid label, whose own characters are written as entities."""
    return "".join(char if char.isalnum() or char in " _-.:⇢" else f"#{ord(char)};" for char in value)


def _dotted(value: str) -> str:
    """Text as a Graphviz string; a line break in it becomes one in the picture."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
