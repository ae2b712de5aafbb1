"""Warped nodes that run in the runner's own process: their files, and what a long run remembers of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

from celerypipe import Message, Pipeline, Proc, Runner, file
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.message.files import File

COUNT = 300


class Reads(Proc):
    """Reads a file, and answers with it and with one that it writes."""

    def update(self, message: Message) -> Message:
        given = Path(message.payload)
        own = given.with_suffix(".own")
        own.write_text(f"own {given.read_text(encoding='utf-8')}", encoding="utf-8")
        return message.with_payload([message.payload, file(own)])


def test_files_of_messages_that_are_through_are_forgotten(tmp_path: Path) -> None:
    def papers() -> Iterator[Message]:
        for number in range(COUNT):
            path = tmp_path / f"{number}.txt"
            path.write_text(str(number), encoding="utf-8")
            yield Message(file(path))

    node = NodeDefinition(name="there", mark=Reads, warped=True, warp_configuration={"queue": "nowhere", "window": 4})
    read, living = [], []
    for message in Runner(local=True).stream(Pipeline(name="p", nodes=[node], links=[]), papers()):
        read.append(tuple(Path(each).read_text(encoding="utf-8") for each in message.payload))
        if len(read) % 50 == 0:
            gc.collect()
            living.append(sum(type(each) is File for each in gc.get_objects()))
    assert read == [(str(number), f"own {number}") for number in range(COUNT)]
    assert max(living) < COUNT / 3  # what has not been taken from the run yet
