"""Runs of :mod:`tests.nodes.remembered`, whose results are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from celerypipe import Message, Pipeline, Runner, codec
from celerypipe.definition.pipeline import NodeDefinition

QUEUE = "remembered"

#: A module of a node that this process need not have.
UNSEEN = """
from celerypipe import Message, Proc

class Far(Proc):
    version = "7"

    def __init__(self, diary: str, times: int = 3) -> None:
        self.diary, self.times = diary, times

    def update(self, message: Message) -> Message:
        with open(self.diary, "a") as file:
            file.write("computed\\n")
        return message.with_payload(message.payload * self.times)
"""


def computed(diary: Path) -> list[str]:
    """What nodes with this diary were asked to compute."""
    return diary.read_text().splitlines() if diary.exists() else []


def node(mark: type | str, diary: Path, name: str = "node", **options: Any) -> NodeDefinition:
    """A node with a cache."""
    configuration = {"diary": str(diary), **options.pop("configuration", {})}
    if options.get("warped"):
        options["warp_configuration"] = {"queue": QUEUE, **options.pop("limits", {})}
    return NodeDefinition(name=name, type="proc", mark=mark, configuration=configuration, cache=True, **options)  # type: ignore[arg-type]


def pipeline(mark: type | str, diary: Path, **options: Any) -> Pipeline:
    """One node with a cache, to be fed and read from code."""
    folder = options.pop("folder", None)
    cache = options.pop("cache", True)
    one = node(mark, diary, **options).model_copy(update={})
    if cache is not True:
        one = NodeDefinition(**{**one.model_dump(by_alias=True, exclude_unset=True), "cache": cache})
    return Pipeline(name="cached", nodes=[one], links=[], folder=folder)


def outputs(runner: Runner, pipe: Pipeline, messages: Iterable[Any]) -> list[Message]:
    """What comes out for messages, or for payloads."""
    given = [each if isinstance(each, Message) else Message(each) for each in messages]
    return list(runner.stream(pipe, given))


def payloads(runner: Runner, pipe: Pipeline, messages: Iterable[Any]) -> list[Any]:
    """The payloads of these."""
    return [message.payload for message in outputs(runner, pipe, messages)]


def content(messages: Sequence[Message]) -> list[bytes]:
    """All of the messages that does not differ from run to run, to the last bit."""
    return [
        codec.encode_joined([Message(each.payload, each.meta, each.creator, each.version, id="", created_at=0.0)])
        for each in messages
    ]
