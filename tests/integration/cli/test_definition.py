"""The commands about definitions: check, graph, schema, nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from celerypipe.cli import main

DEFINITION: dict[str, Any] = {
    "version": "1",
    "plugins": ["./plugins"],
    "pipeline": {
        "name": 'faces "2"',
        "nodes": [
            {"name": "pages", "type": "source", "mark": "data_streamer", "configuration": {"count": 3}},
            {
                "name": "read",
                "type": "proc",
                "mark": "tasks.gpu.ReadText",
                "warped": True,
                "warp_configuration": {"timeout": 30},
            },
            {"name": "mark it", "type": "proc", "mark": "stamp"},
            {"name": "print", "type": "sink", "mark": "console"},
        ],
        "links": [
            {"from": "pages", "to": "read"},
            {"from": "pages", "to": "mark it", "full": "drop"},
            {"from": "read", "to": "print"},
            {"from": "mark it", "to": "print"},
        ],
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sound definition, and the plugin that it uses."""
    home = tmp_path / "plugins" / "nodes" / "proc" / "_stamp"
    home.mkdir(parents=True)
    (home / "stamp.py").write_text("from celerypipe import Proc\nclass Stamp(Proc):\n    '''Stamps it.'''\n")
    path = tmp_path / "pipeline.json"
    path.write_text(json.dumps(DEFINITION))
    return path


def broken(file: Path) -> Path:
    """The same definition with an unknown argument and a cycle."""
    data = json.loads(file.read_text())
    data["pipeline"]["nodes"][0]["configuration"] = {"cuont": 3}
    data["pipeline"]["links"].append({"from": "mark it", "to": "mark it"})
    file.write_text(json.dumps(data))
    return file


def call(*words: object) -> Result:
    """Call the command line."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_check_says_ok_wherever_one_stands(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    result = call("check", file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{file}: ok\n", "")


def test_check_prints_every_complaint_and_ends_with_2(file: Path) -> None:
    result = call("check", broken(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{file}: 2 complaints" in result.stderr
    assert "pipeline.links: mark it → mark it is a cycle" in result.stderr
    assert "pipeline.nodes[0].configuration: data_streamer has no argument 'cuont'" in result.stderr


def test_check_prints_notes_beside_the_ok(file: Path) -> None:
    file.write_text(file.read_text().replace('{"timeout": 30}', "{}"))
    result = call("check", file)
    assert result.exit_code == 0
    assert "note: pipeline.nodes[1]: the warped node 'read' has no timeout" in result.stdout


def test_check_and_nodes_say_which_node_is_given_copies(file: Path) -> None:
    plugin = file.parent / "plugins" / "nodes" / "proc" / "_stamp" / "stamp.py"
    plugin.write_text(plugin.read_text() + "    writable = True\n")
    said = call("check", file).stdout
    assert (
        "note: pipeline.nodes[2].mark: stamp: it says writable = True, so all arrays that it is given are copied for it"
    ) in said
    assert "stamp: proc, writable (" in call("nodes", "stamp", "--plugins", file.parent / "plugins").stdout


def test_check_speaks_json(file: Path) -> None:
    assert json.loads(call("check", file, "--json").stdout) == {"ok": True, "complaints": [], "notes": []}
    result = call("check", broken(file), "--json")
    said = json.loads(result.stdout)
    assert (result.exit_code, said["ok"]) == (2, False)
    assert [complaint["place"] for complaint in said["complaints"]] == [
        "pipeline.links",
        "pipeline.nodes[0].configuration",
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"pipeline": {"nodez": 1}}', ""])
@pytest.mark.parametrize("command", [["check"], ["check", "--json"], ["graph"], ["nodes"]])
def test_a_file_that_is_no_definition_ends_with_2_and_without_traceback(
    tmp_path: Path, command: list[str], text: str
) -> None:
    (tmp_path / "bad.json").write_text(text)
    result = call(*command, tmp_path / "bad.json")
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert result.output.strip()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for command in ("check", "graph", "nodes"):
        result = call(command, tmp_path / "nowhere.json")
        assert result.exit_code == 2
        assert "there is no such file" in result.stderr


def test_check_finds_plugins_of_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = file.parent / "plugins"
    plugins.rename(file.parent / "elsewhere")
    assert "no proc answers to the mark 'stamp'" in call("check", file).stderr
    monkeypatch.setenv("CELERYPIPE_PLUGINS", str(file.parent / "elsewhere"))
    result = call("check", file)
    assert result.exit_code == 0
    assert "there is no folder" in result.stdout


def test_a_plugin_folder_of_the_environment_that_is_not_there_is_said(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CELERYPIPE_PLUGINS", str(tmp_path / "gone"))
    result = call("check", file)
    assert result.exit_code == 0
    assert f"CELERYPIPE_PLUGINS: there is no folder {tmp_path / 'gone'}" in result.stdout
    result = call("nodes", "--plugins", tmp_path / "nowhere")
    assert result.exit_code == 0
    assert [line.partition(";")[0] for line in result.stderr.splitlines()] == [
        f"note: there is no folder {tmp_path / name}" for name in ("nowhere", "gone")
    ]


@pytest.mark.parametrize("seconds", ["nan", "0", "-1", "inf", "soon"])
def test_a_timeout_that_is_none_is_refused(file: Path, seconds: str) -> None:
    result = call("run", file, "--timeout", seconds)
    assert result.exit_code == 2
    assert "--timeout" in result.stderr
    assert "4000000000" not in call("run", "--help").stdout


def test_graph_draws_text_with_queues_and_arrows(file: Path) -> None:
    assert call("graph", file).stdout.splitlines() == [
        'faces "2"',
        "  pages (source data_streamer) → read, mark it (drops when full)",
        "    read (proc tasks.gpu.ReadText)  ⇢ queue gpu → print",
        "    mark it (proc stamp) → print",
        "      print (sink console)",
    ]
    assert "⇢" not in call("graph", file, "--place", "read=here").stdout
    assert "⇢ queue cpu" in call("graph", file, "--set", "read.warp_configuration.queue=cpu").stdout


def test_graph_draws_mermaid(file: Path) -> None:
    assert call("graph", file, "--format", "mermaid").stdout.splitlines() == [
        "flowchart LR",
        '    n0(["pages<br/>data_streamer"])',
        '    n1{{"read<br/>tasks.gpu.ReadText<br/>⇢ queue gpu"}}',
        '    n2["mark it<br/>stamp"]',
        '    n3(["print<br/>console"])',
        "    n0 --> n1",
        "    n0 -. drop .-> n2",
        "    n1 --> n3",
        "    n2 --> n3",
    ]


def test_graph_draws_dot(file: Path) -> None:
    drawn = call("graph", file, "--format", "dot").stdout
    assert drawn.startswith("digraph pipeline {")
    assert 'label="faces \\"2\\"";' in drawn
    assert '"read" [label="read\\ntasks.gpu.ReadText\\n⇢ queue gpu", shape=hexagon];' in drawn
    assert '"pages" -> "mark it" [label="drop", style=dashed];' in drawn


def test_names_cannot_break_a_drawing(file: Path) -> None:
    file.write_text(file.read_text().replace('"mark it"', json.dumps('a"]; x --> y{{')))
    mermaid = call("graph", file, "--format", "mermaid").stdout
    assert '    n2["a#34;#93;#59; x --#62; y#123;#123;<br/>stamp"]' in mermaid.splitlines()
    assert '"a\\"]; x --> y{{" -> "print";' in call("graph", file, "--format", "dot").stdout


def test_a_cycle_is_not_drawn_but_said(file: Path) -> None:
    result = call("graph", broken(file))
    assert result.exit_code == 2
    assert "is a cycle" in result.stderr


def test_schema_is_one_that_an_editor_can_use(file: Path) -> None:
    schema = json.loads(call("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(file.read_text()))


def test_nodes_lists_built_ins_and_the_plugins_of_a_pipeline(file: Path) -> None:
    assert "stamp" not in call("nodes").stdout
    result = call("nodes", file)
    assert result.exit_code == 0
    for word in ("data_streamer", "rate=1.0", "console", "stamp", "Stamps it."):
        assert word in result.stdout
    assert "tasks.gpu" not in result.stdout
    assert "stamp" in call("nodes", file.rename(file.with_suffix(".yaml"))).stdout
    assert "stamp" in call("nodes", "--plugins", file.parent / "plugins").stdout


def test_nodes_shows_one_mark_with_its_arguments() -> None:
    shown = call("nodes", "data_streamer").stdout
    for word in ("data_streamer: source (built-in)", "items", "count", "rate", "1.0", "messages a second; 0 means"):
        assert word in shown
    assert "passthrough_identity" not in shown
    schemas = json.loads(call("nodes", "json_lines", "--json").stdout)
    assert [(schema["mark"], schema["type"], schema["origin"]) for schema in schemas] == [
        ("json_lines", "source", "built-in"),
        ("json_lines", "sink", "built-in"),
    ]


def test_nodes_says_what_it_left_out_and_lists_the_rest(file: Path) -> None:
    (file.parent / "plugins/nodes/proc/_stamp/stamp.py").write_text("import not_there_at_all\n")
    result = call("nodes", file)
    assert (result.exit_code, result.stderr.count("left out")) == (0, 1)
    assert "No module named 'not_there_at_all'" in result.stderr
    assert "data_streamer" in result.stdout


def test_nodes_names_the_nearest_of_an_unknown_mark() -> None:
    result = call("nodes", "data_steamer")
    assert result.exit_code == 2
    assert "did you mean 'data_streamer'" in result.stderr


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_word_of_the_list_of_nodes_is_broken(file: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = call("nodes", file).stdout
    assert max(map(len, text.splitlines())) <= width
    words = ("passthrough_identity", "notifier_websocket", "content_type='application/json',", "max_bytes=1048576,")
    assert [word for word in words if word not in text.split()] == []
