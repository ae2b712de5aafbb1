"""Edited code while a run goes on: what its local nodes are made of is looked at once a second, and imported anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.files import CodeFiles, Stamp, newer, shown, stamps_of, syntax_error
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import ConfigError
from celerypipe.runner.stations.course import Course

#: Seconds between two looks at the files.
LOOK = 1.0


class Watch:
    """Looks at the files of the nodes that run here. ``renewable``: what makes the node of a name anew, or None."""

    def __init__(
        self,
        course: Course,
        catalogue: Catalogue,
        nodes: Sequence[NodeDefinition],
        renewable: Callable[[str], Callable[[], None] | None],
    ) -> None:
        self.course = course
        self.catalogue = catalogue
        self._renewable = renewable
        found = ((node, catalogue.code_files(node.mark, node.type)) for node in nodes)
        self._files: list[tuple[NodeDefinition, CodeFiles]] = [(node, each) for node, each in found if each is not None]
        #: The files as they were when they were imported.
        self._imported: dict[Path, Stamp] = {}
        for _, code in self._files:
            self._imported.update(code.stamps)

    def loop(self) -> None:
        """Look until the run is over; the body of a thread."""
        while not self.course.over.wait(LOOK):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not the watch in silence
                self.course.fail(error)

    def look(self) -> None:
        """Load the nodes anew whose code was edited."""
        for node, code in self._files:
            if files := code.edited():
                self._load(node, code, files)

    def _load(self, node: NodeDefinition, code: CodeFiles, files: Sequence[Path]) -> None:
        changed = f"{shown(files)} changed"
        renew = self._renewable(node.name)
        if renew is None:
            if node.type == "source":
                self.course.say(f"{changed}: the source {node.name} goes on as it is; start the run again for the edit")
            return
        if broken := syntax_error(files):
            self.course.say(f"{broken}; node {node.name} goes on with the code that it has")
            return
        users = code.users(newer(code.stamps, self._imported))
        now = stamps_of(users)
        try:
            self.catalogue.find_anew(node.mark, node.type, users)
        except ConfigError as error:
            self.course.say(f"{changed}: {error}; node {node.name} goes on with the code that it has")
            return
        self._imported.update({**{file: code.stamps[file] for file in files}, **now})
        self.course.say(f"{changed}: node {node.name} is loaded anew")
        renew()
