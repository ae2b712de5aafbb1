"""Edited code while a run goes on: what its local nodes are made of is looked at once a second, and imported anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.files import CodeFiles, Stamp, edited, newer, shown, stamps_of, syntax_error
from celerypipe.contract.moving import is_only_here
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import ConfigError
from celerypipe.runner.stations.course import Course

#: Seconds between two looks at the files.
LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Edit:
    """A node of which ``files`` were edited. ``modules``: those, and what imports them."""

    node: NodeDefinition
    files: Sequence[Path]
    modules: frozenset[Path]


class Reloader:
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
        self._fixed = [node for node in nodes if is_only_here(node.mark) and not node.warped]
        found = ((node, catalogue.code_files(node.mark, node.type)) for node in nodes)
        self._files: list[tuple[NodeDefinition, CodeFiles]] = [(node, each) for node, each in found if each is not None]
        #: Files of nodes, by name, that were edited and do not import.
        self._waiting: dict[str, Sequence[Path]] = {}
        #: The files as they were when they were imported.
        self._imported: dict[Path, Stamp] = {}
        for _, code in self._files:
            self._imported.update(code.stamps)

    def loop(self) -> None:
        """Look until the run is over; the body of a thread."""
        for node in self._fixed:
            self.course.say(
                f"node {node.name} is in the script that was started, and is not loaded anew when it is edited"
            )
        while not self.course.over.wait(LOOK):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not the watch in silence
                self.course.fail(error)

    def look(self) -> None:
        """Load the nodes anew whose code was edited, those together that have some of it in common."""
        found = edited([code for _, code in self._files])
        new = {node.name: files for (node, _), files in zip(self._files, found, strict=True) if files}
        if not new:
            return
        waiting, self._waiting = self._waiting, {}
        groups: list[list[Edit]] = []
        for node, code in self._files:
            if files := [*dict.fromkeys([*waiting.get(node.name, ()), *new.get(node.name, ())])]:
                edit = Edit(node, files, code.users(newer(code.stamps, self._imported)) | set(files))
                with_it = [group for group in groups if any(edit.modules & other.modules for other in group)]
                groups = [group for group in groups if group not in with_it]
                groups.append([*(other for group in with_it for other in group), edit])
        for group in groups:
            if not any(edit.node.name in new for edit in group) or not self._take(group):
                self._waiting.update((edit.node.name, edit.files) for edit in group)

    def _take(self, group: Sequence[Edit]) -> bool:
        """Load a group; False: it waits until it is mended."""
        renewals: list[tuple[Edit, Callable[[], None]]] = []
        for edit in group:
            renew = self._renewable(edit.node.name)
            if renew is not None:
                renewals.append((edit, renew))
            elif edit.node.type == "source":
                text = f"the source {edit.node.name} goes on as it is; start the run again for the edit"
                self.course.say(f"{shown(edit.files)} changed: {text}")
        if renewals and not self._loaded([edit for edit, _ in renewals]):
            return False
        for edit, renew in renewals:
            renew()  # before it is said: who hears that may send the next message at once
            self.course.say(f"{shown(edit.files)} changed: node {edit.node.name} is loaded anew")
        return True

    def _loaded(self, edits: Sequence[Edit]) -> bool:
        """Import the code of these nodes as it is now: all of it, or none where that does not work."""
        files = {file for edit in edits for file in edit.files}
        modules = {file for edit in edits for file in edit.modules}
        names = " and ".join(sorted(edit.node.name for edit in edits))
        goes_on = f"node {names} goes on with the code that it has"
        if len(edits) > 1:
            goes_on = f"nodes {names} go on with the code that they have"
        if broken := syntax_error(sorted(files)):
            self.course.say(f"{broken}; {goes_on}")
            return False
        now = stamps_of(modules)
        try:
            self.catalogue.load_anew([(edit.node.mark, edit.node.type) for edit in edits], modules)
        except ConfigError as error:
            self.course.say(f"{shown(files)} changed: {error}; {goes_on}")
            return False
        self._imported.update(now)
        return True
