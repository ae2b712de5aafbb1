"""A pipeline: the whole definition, read from juturna's JSON or written in Python. It runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from celerypipe.contract.reach import ANYWHERE, Reach
from celerypipe.definition.file import read_definition
from celerypipe.definition.names import IN_A_FOLDER
from celerypipe.definition.parts import PIPELINE_KEYS, DeadLetterLimits, Link, Name, NodeDefinition
from celerypipe.definition.shape import Inside, Location, Seconds, Shape, fail, path, refuse, shown
from celerypipe.definition.warp import WarpConfiguration
from celerypipe.errors import Complaint, DefinitionError
from celerypipe.folders import path_of
from celerypipe.settings import allowed_folders

__all__ = [
    "Document",
    "Link",
    "NodeDefinition",
    "Pipeline",
    "WarpConfiguration",
    "json_schema",
]


def _text_of_path(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


PathText = Annotated[str, BeforeValidator(_text_of_path), Field(min_length=1)]


class Body(Shape):
    """The pipeline itself, under the key ``pipeline``."""

    name: Name = Field(description="The pipeline's name.", examples=["pages"])
    id: Name = Field("", description="A second name, to tell pipelines of the same name apart.", examples=["2024-06"])
    folder: PathText | None = Field(
        None,
        description="The folder that the run writes to, relative to the pipeline file. Without it nothing is written.",
        examples=["./out"],
    )
    telemetry: Name | None = Field(
        None,
        description="The name of a CSV file in that folder, with a line for each message in and out of each node.",
        examples=["messages.csv"],
    )
    nodes: tuple[Annotated[NodeDefinition, Inside], ...] = Field(
        description="The nodes.", json_schema_extra={"minItems": 1}, examples=[[{"name": "read", "...": "..."}]]
    )
    links: tuple[Annotated[Link, Inside], ...] = Field(
        (), description="Which node sends to which.", examples=[[{"from": "scans", "to": "read"}]]
    )
    schedule: None = Field(None, description="Not supported yet: leave it out, and start runs with cron.")
    deadline: Seconds | None = Field(
        None, description="How long the whole run may take; then it is stopped. Default: no limit.", examples=[3600]
    )
    dead_letters: Annotated[DeadLetterLimits, Inside] = Field(
        default_factory=lambda: DeadLetterLimits(),
        description="How many messages with on_error dead_letter are kept.",
        examples=[{"count": 1000}],
    )

    foreign: ClassVar = {
        **dict.fromkeys(NodeDefinition.model_fields, 'is a key of a node; write it in one of "nodes"'),
        **dict.fromkeys(("timeout", "retries"), 'is a key of a node; write it in one of "nodes"'),
        **dict.fromkeys(("version", "plugins"), 'is written beside "pipeline"'),
    }
    wanted: ClassVar = {"name": "give the pipeline a name", "nodes": "write the list of nodes"}

    @field_validator("schedule", mode="before")
    @classmethod
    def _not_yet(cls, value: Any) -> None:
        if value is not None:
            fail("schedules are not built yet; leave it out and start the run with cron")

    @field_validator("nodes", mode="before")
    @classmethod
    def _some(cls, value: Any) -> Any:
        return fail("is empty; a pipeline needs at least one node") if value in ([], ()) else value

    @model_validator(mode="after")
    def _settle(self) -> Self:
        refuse(type(self).__name__, _needs_folder(self) if self.folder is None else _shares_folder(self))
        return self


def _needs_folder(body: Body) -> Iterable[tuple[Location, str]]:
    cure = 'needs a place to write to: give the pipeline a "folder"'
    if body.telemetry is not None:
        yield ("telemetry",), cure
    for index, node in enumerate(body.nodes):
        if node.auto_dump:
            yield ("nodes", index, "auto_dump"), cure
        if node.on_error == "dead_letter":
            yield ("nodes", index, "on_error"), f"'dead_letter' {cure}"


def _shares_folder(body: Body) -> Iterable[tuple[Location, str]]:
    """What would lie in one place of the folder; many disks know no case."""
    taken = dict.fromkeys(IN_A_FOLDER, ("a file or folder of celerypipe", ""))
    if body.telemetry is not None:
        if body.telemetry.casefold() in taken:
            yield ("telemetry",), f"{body.telemetry!r} is a file or folder of celerypipe there; choose another name"
        taken[body.telemetry.casefold()] = "the telemetry", ""
    for index, node in enumerate(body.nodes):
        what, name = taken.setdefault(node.name.casefold(), (f"nodes[{index}]", node.name))
        if name != node.name:  # two of one name are complained about anyway
            yield (
                ("nodes", index, "name"),
                f"{node.name!r} is, but for its case, {what} in the pipeline's folder; rename it",
            )


class Document(Shape):
    """A pipeline file."""

    editor_schema: str | None = Field(
        None,
        alias="$schema",
        description="The JSON Schema, for editors. celerypipe ignores it.",
        examples=["./schema.json"],
    )
    version: str = Field("1", description="The version of this pipeline: any text.", examples=["1.0.0"])
    plugins: tuple[PathText, ...] = Field(
        (), description="Folders with plugin nodes, relative to the pipeline file.", examples=[["./plugins"]]
    )
    pipeline: Annotated[Body, Inside] = Field(
        description="The pipeline itself.", examples=[{"name": "pages", "nodes": ["..."], "links": ["..."]}]
    )

    foreign: ClassVar = dict.fromkeys(("name", "id", *PIPELINE_KEYS), 'must stand in "pipeline": {...}')
    wanted: ClassVar = {"pipeline": 'write "pipeline": {"name": ..., "nodes": [...], "links": [...]}'}


#: What a pipeline has that does not stand under that key in a file.
BESIDE = {"version", "plugins", "root", "reach"}
#: Ends the complaint about a path in a definition.
CURE = "if it is meant, run with --allow {folder}, or export CELERYPIPE_ALLOW={folder}"


def _out_of_reach(document: Document, root: Path, reach: Reach) -> Iterable[Complaint]:
    places = [(f"plugins[{index}]", folder) for index, folder in enumerate(document.plugins)]
    if document.pipeline.folder is not None:
        places.append(("pipeline.folder", document.pipeline.folder))
    for place, folder in places:
        if complaint := reach.complaint(root / path_of(folder)):
            yield Complaint(place, complaint)


class Pipeline(Body):
    """A pipeline: ``Pipeline.load(path)``, or ``Pipeline(name=..., nodes=[...], links=[("a", "b")])`` in Python.

    All mistakes of shape come at once, in one :class:`DefinitionError`; what the nodes and links mean to each other
    is checked by :mod:`celerypipe.check.complaints`. ``$JT_ENV_`` variables are never resolved in here: a pipeline has
    no secrets.
    """

    model_config = ConfigDict(title="Pipeline")

    version: str = "1"
    plugins: tuple[PathText, ...] = ()
    #: What relative ``plugins`` and ``folder`` are relative to: the file's folder, or the current one in Python.
    root: Path = Field(default_factory=Path.cwd, exclude=True)
    #: The files that its nodes may touch here: one that is written in Python touches what it likes.
    reach: Reach = Field(default=ANYWHERE, exclude=True)

    def __init__(self, /, **data: Any) -> None:
        twins = duplicate_names(data.get("nodes"))
        try:
            super().__init__(**data)
        except DefinitionError as error:
            raise DefinitionError([*error.complaints, *twins]) from error.__cause__
        if twins:
            raise DefinitionError(twins)

    def __repr__(self) -> str:
        warped = f", {len(self.warped)} warped" if self.warped else ""
        return f"<Pipeline {self.name!r}: {len(self.nodes)} {'node' if len(self.nodes) == 1 else 'nodes'}{warped}>"

    __str__ = __repr__

    @classmethod
    def at(cls, location: Location, data: Mapping[str, Any]) -> str:
        """Return the place as it is in a file, where most keys stand under ``pipeline``."""
        return path(location if location and location[0] in BESIDE else ("pipeline", *location))

    @classmethod
    def load(cls, path: Path | str, allow: Iterable[Path] = ()) -> Self:
        """Read a definition file; relative paths in it are relative to its folder.

        It may be somebody else's: its nodes read and write only below its folder, below the current one, and below
        those in ``allow`` and in ``CELERYPIPE_ALLOW``. A path that leads elsewhere, by ``..`` or by a link too, is a
        complaint, or an error of the node that opens it.
        """
        file = Path(path)
        return cls.from_dict(read_definition(file), file.absolute().parent, allow)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], place: Path | None = None, allow: Iterable[Path] = ()) -> Self:
        """Make a pipeline of a definition nested as in a file; ``place``: its root, by default the current folder.

        ``allow``: as for :meth:`load`.
        """
        if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
            text = f"a definition is an object {{...}} with texts as keys, not {shown(data)}"
            raise DefinitionError([Complaint("", text)])
        inner = data.get("pipeline")
        try:
            document = Document(**data)
        except DefinitionError as error:
            twins = duplicate_names(inner.get("nodes")) if isinstance(inner, Mapping) else []
            raise DefinitionError([*error.complaints, *twins]) from error.__cause__
        body = document.pipeline
        root = place or Path.cwd()
        reach = Reach.of((root, Path.cwd(), *allow, *allowed_folders()), CURE)
        if beyond := list(_out_of_reach(document, root, reach)):
            raise DefinitionError(beyond)
        return cls(
            version=document.version,
            plugins=document.plugins,
            root=root,
            reach=reach,
            **{key: getattr(body, key) for key in body.model_fields_set},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the definition nested as in a file: what was written, without defaults."""
        body = self.model_dump(by_alias=True, exclude_unset=True, exclude=BESIDE)
        for key in ("nodes", "links"):
            if key in body:
                body[key] = list(body[key])
        return {"version": self.version, "plugins": list(self.plugins), "pipeline": body}

    @property
    def plugin_folders(self) -> tuple[Path, ...]:
        """The plugin folders, absolute."""
        return tuple(self.root / path_of(folder) for folder in self.plugins)

    @property
    def folder_path(self) -> Path | None:
        """The folder that a run writes to, absolute; None when it writes nothing."""
        return None if self.folder is None else self.root / path_of(self.folder)

    @property
    def warped(self) -> list[NodeDefinition]:
        """The nodes of it that run elsewhere."""
        return [node for node in self.nodes if node.warped]

    def node(self, name: str) -> NodeDefinition:
        """Return the node of that name; KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


def duplicate_names(nodes: object) -> list[Complaint]:
    """Complain about each node whose name an earlier one has; looks at raw data, so that it is said with the rest."""
    first: dict[str, int] = {}
    found = []
    for index, node in enumerate(nodes if isinstance(nodes, list | tuple) else ()):
        name = node.get("name") if isinstance(node, Mapping) else getattr(node, "name", None)
        if not isinstance(name, str):
            continue
        if first.setdefault(name, index) != index:
            text = f"{name!r} is the name of nodes[{first[name]}] already; give each node a name of its own"
            found.append(Complaint(f"pipeline.nodes[{index}].name", text))
    return found


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a definition file, for editors."""
    schema = Document.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A celerypipe pipeline"}
