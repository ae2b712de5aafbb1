"""A warm node: what is told of the errors that its code raises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import celerypipe
from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance, trace
from celerypipe.message.message import Message

DEEP = """
from celerypipe import Proc

class Deep(Proc):
    def update(self, message):
        return self.dig(message)

    def dig(self, message):
        raise ValueError("too deep")
"""


@pytest.mark.parametrize("folder", ["plugins", "nodes/plugins", "../elsewhere"])
def test_the_frames_of_a_node_are_shown_wherever_its_file_lies(folder: str) -> None:
    """Also in the folder of celerypipe itself; ours are not, for they help nobody."""
    names: dict[str, Any] = {"__name__": "celerypipe_plugin_0123456789ab.deep"}
    exec(compile(DEEP, str(Path(celerypipe.__file__).parent / folder / "deep.py"), "exec"), names)  # noqa: S102  # ours
    instance = Instance(Listing("deep", names["Deep"], "plugin"), {}, name="deep")
    instance.warm()
    with pytest.raises(ValueError, match="too deep") as caught:
        instance.update(Message(1))
    text = trace(caught.value.with_traceback(caught.value.__traceback__.tb_next))  # type: ignore[union-attr]
    assert [word in text for word in ("in update", "in dig", "instance.py")] == [True, True, False]
