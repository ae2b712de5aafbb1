"""Which runs of a pipeline can be resumed, and the journal of one that goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check.complaints import is_known_here
from celerypipe.codec.identity import identity
from celerypipe.contract.contract import Source
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import CodecError, ConfigError, did_you_mean
from celerypipe.runner.folder.folder import REPORT
from celerypipe.runner.folder.journal import Journal, JournalContent
from celerypipe.runner.folder.journals import KeptJournal, kept, prune
from celerypipe.runner.folder.progress import REMEMBERS, Progress
from celerypipe.runner.stations.course import Course

#: The folder of the journals in the pipeline's folder.
PLACE = "journals"
#: The part of a definition that its links are.
LINKS = "(links)"
#: Most runs that an error lists.
LISTED = 10


def obstacle(pipeline: Pipeline, catalogue: Catalogue, *, local: bool = False) -> str:
    """Return why no run of this pipeline can be resumed, and what to do; nothing if they can.

    What a warped node is, only its worker may know, unless ``local`` says that it runs here: one that is not known here
    counts as stateless.
    """
    if pipeline.folder_path is None:
        return 'it has no folder to keep a journal in: give the pipeline a "folder"'
    try:
        parts_of(pipeline)
    except CodecError as error:
        return str(error)
    can_seek = False
    for node in pipeline.nodes:
        if node.sync == "latest":
            return f"{node.name!r} joins by 'latest', and what it remembers is lost with its run"
        if node.warped and node.warp_configuration.pinned:
            return REMEMBERS.format(node.name)
        if not is_known_here(node, catalogue, local=local):
            continue
        found = catalogue.find(node.mark, node.type).node
        if found.stateful:
            return REMEMBERS.format(node.name)
        can_seek = can_seek or (issubclass(found, Source) and found.seek is not Source.seek)
    if not can_seek:
        return (
            "none of its sources can continue in the middle: json_lines, image_files and data_streamer can, and any "
            "source with a seek() of its own"
        )
    return ""


def parts_of(pipeline: Pipeline) -> dict[str, str]:
    """Return a digest of each part of a definition that decides what comes out of it.

    Where and how fast a node runs, and what happens when it fails, may change before a run goes on.
    :class:`CodecError` names an argument that cannot be compared with what it was.
    """
    parts = {}
    for node in pipeline.nodes:
        try:
            configuration = {name: identity(value, name) for name, value in node.configuration.items()}
        except CodecError as error:
            text = f"whether node {node.name!r} is still the same could not be told: {error}"
            raise CodecError(text) from None
        parts[node.name] = identity([node.type, node.mark, configuration, node.sync])
    return {**parts, LINKS: identity(sorted([link.source, link.target] for link in pipeline.links))}


def changes(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """Return what is not as it was, as words."""
    names = {**then, **now}
    return ["its links" if name == LINKS else f"node {name!r}" for name in names if now.get(name) != then.get(name)]


def resumable(pipeline: Pipeline, catalogue: Catalogue, run: str, *, local: bool = False) -> KeptJournal:
    """Return the journal of this run of the pipeline; the beginning of its id will do.

    :class:`ConfigError` when there is none, which lists those there are; when the definition changed since; when the
    run is still going on.
    """
    if reason := obstacle(pipeline, catalogue, local=local):
        raise ConfigError(f"no run of pipeline {pipeline.name!r} can be resumed: {reason}")
    place = _place(pipeline)
    found, strange = kept(place)
    one = _meant(found, run)
    if one is None:
        known = [name for each in found for name in each.content.runs]
        asked = f"there is no journal of a run {run!r}{did_you_mean(run, known)}" if run else "--resume needs a run"
        raise ConfigError("\n".join([_with_list(asked, place, pipeline, found), *strange]))
    if one.content.obstacle:
        raise ConfigError(f"run {run!r} cannot be resumed: {one.content.obstacle}")
    if one.busy:
        raise ConfigError(f"run {run!r} is still active")
    if changed := changes(parts_of(pipeline), one.content.parts):
        raise ConfigError(
            f"run {run!r} cannot be continued: {', '.join(changed)} changed since, so old and new results would be "
            "mixed; put the definition back as it was, or run without --resume"
        )
    return one


def _meant(found: Sequence[KeptJournal], run: str) -> KeptJournal | None:
    """The journal of this run, or the only one with a run whose id begins so."""
    near = [each for each in found if run in each.content.runs]
    near = near or [each for each in found if run and any(name.startswith(run) for name in each.content.runs)]
    if len(near) > 1:
        names = ", ".join(each.content.runs[-1] for each in near)
        raise ConfigError(f"{run!r} begins the ids of {len(near)} runs ({names}); write more of it")
    return near[0] if near else None


def _place(pipeline: Pipeline) -> Path:
    return (pipeline.folder_path or Path()) / PLACE


def _with_list(text: str, place: Path, pipeline: Pipeline, found: Iterable[KeptJournal]) -> str:
    now = parts_of(pipeline)
    lines = [_line(each, changes(now, each.content.parts)) for each in found]
    if not lines:
        return f"{text}; no run can be resumed, there is nothing in {place}: {_ending(pipeline)}"
    more = [f"  … and {len(lines) - LISTED} older ones"] if len(lines) > LISTED else []
    return "\n".join([f"{text}; these are in {place}:", *lines[:LISTED], *more])


def _ending(pipeline: Pipeline) -> str:
    """Why there is no journal: how the last run ended, as its report has it."""
    file = (pipeline.folder_path or Path()) / REPORT
    try:
        last = json.loads(file.read_bytes()) if not pipeline.reach.complaint(file) else None
    except (OSError, ValueError, RecursionError):
        last = None
    match last:
        case {"run": str(run), "status": "failed" | "cancelled" | "stopped" as status}:
            return (
                f"the last run, {run!r}, {'was ' if status != 'failed' else ''}{status} before anything of its sources "
                "was through, so there is nothing to continue; run it again without --resume"
            )
        case {"run": str(run), "status": "done"}:
            return f"the last run, {run!r}, is done"
    return "no run has ended there yet"


def _line(each: KeptJournal, changed: list[str]) -> str:
    content = each.content
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(content.started))
    note = ", still active" if each.busy else f", {', '.join(changed)} changed since" if changed else ""
    note = f", cannot be resumed: {content.obstacle}" if content.obstacle else note
    return f"  {content.runs[-1]}  {content.pipeline}, begun {began}, {content.count:,} source messages through{note}"


def open_journal(pipeline: Pipeline, catalogue: Catalogue, course: Course, *, resume: str | None, local: bool) -> None:
    """Let a run tell how far its source messages are, if it can be resumed, and write it down as long as it goes on.

    In a journal of its own, or in that of ``resume``, from which it goes on.
    """
    journal: Journal | None
    if resume is None:
        journal = None if obstacle(pipeline, catalogue, local=local) else _new(pipeline, course)
    else:
        journal = Journal.open(resumable(pipeline, catalogue, resume, local=local).place, course.run_id)
        course.say(
            f"run {course.run_id} goes on from {resume}: {journal.content.count:,} source messages were finished"
        )
    if journal is not None:
        course.progress = Progress(journal, course.say)
        course.followers.append(course.progress.descent)
        course.spawn("journal", course.progress.live, course.over)


def _new(pipeline: Pipeline, course: Course) -> Journal | None:
    place = _place(pipeline)
    try:
        prune(place)
        content = JournalContent([course.run_id], pipeline.name, time.time(), parts_of(pipeline))
        return Journal.create(place / course.run_id, content)
    except OSError as error:  # a file system without locks, for one: the run itself does not need it
        course.say(f"this run cannot be resumed, no journal can be written to {place}: {error}")
        return None


def close_journal(course: Course, *, done: bool) -> None:
    """Write the last, and say how to go on; the journal of a run that is done is removed."""
    if course.progress is None:
        return
    try:
        count = course.progress.close(done=done)
    except OSError as error:
        course.say(f"the journal of this run cannot be closed: {error}")
        return
    if count and (reason := course.progress.obstacle):
        course.say(f"this run cannot be resumed: {reason}")
    elif count:
        course.say(f"{count:,} source messages are finished; to continue from there: --resume {course.run_id}")
