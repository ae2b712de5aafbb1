"""A definition file, read and checked: everything that is wrong with it comes at once, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check.complaints import check
from celerypipe.definition.draft import Draft, draft_of
from celerypipe.definition.file import read_definition
from celerypipe.definition.overrides import Overrides
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import Complaint, DefinitionError


def load(
    file: Path,
    allow: Iterable[Path] = (),
    plugins: Sequence[Path] = (),
    *,
    local: bool = False,
    overrides: Overrides = Overrides(),  # noqa: B008  # a frozen value
) -> Pipeline:
    """Return the pipeline of a file, as :meth:`Pipeline.load` does, with the ``overrides``.

    Where it is written wrong, :class:`DefinitionError` says all that :func:`celerypipe.check.complaints.check` finds in
    the rest, too. ``plugins``: further plugin folders; ``local``: warped nodes run here.
    """
    data, root = overrides.applied(read_definition(file)), file.absolute().parent
    allowed = tuple(allow)
    try:
        return Pipeline.from_dict(data, root, allowed)
    except DefinitionError:
        draft = draft_of(data, root, allowed)
        raise DefinitionError([*draft.complaints, *_further(draft, plugins, local=local)]) from None


def _further(draft: Draft, plugins: Sequence[Path], *, local: bool) -> list[Complaint]:
    pipeline = draft.pipeline
    if pipeline is None:
        return []
    catalogue = Catalogue((*pipeline.plugin_folders, *plugins))
    if not draft.knows("plugins"):  # any short mark may be there
        known = ("", *catalogue.marks())
        nodes = [
            node if "." in node.mark or node.mark in known else node.model_copy(update={"mark": ""})
            for node in pipeline.nodes
        ]
        pipeline = pipeline.model_copy(update={"nodes": tuple(nodes)})
    return [each for each in check(pipeline, catalogue, local=local) if draft.knows(each.place)]
