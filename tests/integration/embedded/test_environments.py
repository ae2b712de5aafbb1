"""Nodes of one pipeline whose requirements exclude each other."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import pytest

from celerypipe import Embedded, Message, Pipeline, Runner
from celerypipe.environments import pythons
from celerypipe.errors import EnvironmentFailed
from tests.servers import ROOT, Workplace
from tests.servers.extent import at_length
from tests.servers.wheels import Wheels, wheels

__all__ = ["wheels"]

NODES = """
import sys
from celerypipe import node

def where():
    import clash
    return [clash.VERSION, ".".join(map(str, sys.version_info[:2]))]

@node(queue="io", environment="one")
def first(payload):
    return {"first": where()}

@node(queue="io")
def second(payload):
    return {**payload, "second": where()}
"""


@pytest.fixture
def project(workplace: Workplace, wheels: Wheels, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The current folder is that of a project; return its module of nodes."""
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setenv("CELERYPIPE_ENVIRONMENTS", str(wheels.built))
    monkeypatch.syspath_prepend(str(workplace.folder))
    workplace.module("excluding.nodes", NODES)
    for name in ("excluding", "excluding.nodes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return import_module("excluding.nodes")


@pytest.fixture
def lean(wheels: Wheels, monkeypatch: pytest.MonkeyPatch) -> None:
    """What celerypipe itself needs is borrowed: nothing is asked of an index."""
    for name, value in wheels.around.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(wheels.folder / "metadata"))


def excluding(nodes: ModuleType) -> Pipeline:
    second = {"environment": "two", "timeout": 50}
    return Pipeline(
        name="excluding",
        nodes=[
            {"name": "a", "type": "proc", "mark": nodes.first, "warped": True},
            {"name": "b", "type": "proc", "mark": nodes.second, "warped": True, "warp_configuration": second},
        ],
        links=[("a", "b")],
    )


@pytest.mark.usefixtures("lean")
def test_two_nodes_of_a_pipeline_have_packages_that_exclude_each_other(
    project: ModuleType, workplace: Workplace, wheels: Wheels
) -> None:
    tables = wheels.table("environments.one", "clash==1") + wheels.table("environments.two", "clash==2")
    workplace.config("io", f'imports = ["excluding.nodes"]\nworker_pool = "solo"\n{tables}')
    pipeline, said = excluding(project), list[str]()
    with Embedded(pipeline, on_event=said.append) as url, Runner(url) as runner:
        answers = [answer.payload for answer in runner.stream(pipeline, [Message(), Message()])]
    assert [(each["first"][0], each["second"][0]) for each in answers] == [(1, 2)] * 2
    assert [line.split(" in ")[0].rpartition(" (")[0] for line in said if line.startswith("built")] == [
        "built environment 'one'",
        "built environment 'two'",
    ]
    with pytest.raises(ImportError):
        project.first(None)


@pytest.mark.usefixtures("lean")
def test_one_that_cannot_be_built_is_told_before_anything_starts(
    project: ModuleType, workplace: Workplace, wheels: Wheels
) -> None:
    tables = wheels.table("environments.one", "clash==3") + wheels.table("environments.two", "clash==2")
    workplace.config("io", f'imports = ["excluding.nodes"]\n{tables}')
    said = list[str]()
    with pytest.raises(EnvironmentFailed, match=r"(?s)environment 'one'.*The builder said last:.*clash==3"):
        Embedded(excluding(project), on_event=said.append).__enter__()
    assert not any("redis" in line for line in said)


@at_length
@pytest.mark.timeout(300)
def test_runner_and_two_nodes_have_three_pythons(
    project: ModuleType, workplace: Workplace, wheels: Wheels, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ".".join(map(str, sys.version_info[:2]))
    minors = dict.fromkeys(each.version.rpartition(".")[0] for each in pythons.all_there())
    others = [each for each in minors if each != here]
    if len(others) < 2:
        pytest.skip(f"this machine has no three Pythons that celerypipe runs with: {', '.join(minors)}")
    tables = "".join(
        f'[environments.{name}]\npython = "{python}"\n'
        f'requirements = ["--find-links {wheels.folder / "wheels"}", "clash=={version}"]\n'
        for name, python, version in (("one", others[0], 1), ("two", others[1], 2))
    )
    workplace.config("io", f'imports = ["excluding.nodes"]\nworker_pool = "solo"\n{tables}')
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pipeline = excluding(project)
    try:
        with Embedded(pipeline) as url, Runner(url) as runner:
            (answer,) = runner.stream(pipeline, [Message()])
    except EnvironmentFailed as error:
        if "clash" in str(error):
            raise
        pytest.skip(f"no index of packages can be reached from here: {error}")
    assert answer.payload == {"first": [1, others[0]], "second": [2, others[1]]}
