"""The runner by itself: graphs, joins, time, errors and the end of a run, without workers."""

from __future__ import annotations

import csv
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from celerypipe import (
    ConfigError,
    DeadlineExceeded,
    Message,
    NodeFailed,
    NodeTimeout,
    Pipeline,
    RunCancelled,
    Runner,
)
from celerypipe.definition.pipeline import Link, NodeDefinition
from tests.nodes import faulty, forking, here, remote
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.command import begin


def local(name: str, mark: type, **options: Any) -> NodeDefinition:
    return NodeDefinition(name=name, mark=mark, **options)


def collected(tmp_path: Path, nodes: list[NodeDefinition], links: list[tuple[str, str]], **options: Any) -> list[Any]:
    """Run it with a file at the end of ``last`` and return what arrived there."""
    out = tmp_path / "out.jsonl"
    file = NodeDefinition(name="file", type="sink", mark="json_lines", configuration={"path": str(out)})
    pipeline = Pipeline(name="test", nodes=[*nodes, file], links=[*links, ("last", "file")], **options)
    report = Runner().run(pipeline)
    assert report.status == "done"
    return [json.loads(line) for line in out.read_text().splitlines()]


def diamond(sync: str, **right: Any) -> tuple[list[NodeDefinition], list[tuple[str, str]]]:
    nodes = [
        local("numbers", here.Numbers, configuration={"count": 300}),
        local("left", here.Keep),
        local("right", here.Keep, configuration=right),
        local("last", remote.Echo, sync=sync),
    ]
    return nodes, [("numbers", "left"), ("numbers", "right"), ("left", "last"), ("right", "last")]


def test_fan_out_and_fan_in_by_key_keeps_pairs_and_order(tmp_path: Path) -> None:
    pairs = collected(tmp_path, *diamond("key:number", delay=0.0005))
    assert [[part["payload"] for part in pair] for pair in pairs] == [[n, n] for n in range(300)]


def test_a_branch_that_swallows_leaves_the_others_unmatched_and_nothing_hangs(tmp_path: Path) -> None:
    pairs = collected(tmp_path, *diamond("key:number", every=3))
    assert [pair[0]["payload"] for pair in pairs] == list(range(0, 300, 3))


def test_zip_of_equal_links(tmp_path: Path) -> None:
    pairs = collected(tmp_path, *diamond("zip"))
    assert [[part["payload"] for part in pair] for pair in pairs] == [[n, n] for n in range(300)]


def test_a_hung_local_node_is_a_timeout_and_the_rest_goes_on(tmp_path: Path) -> None:
    nodes = [
        local("numbers", here.Numbers, configuration={"count": 3}),
        local("pick", here.Keep),
        local("last", remote.Nap, timeout=0.3, on_error="skip"),
    ]
    assert collected(tmp_path, nodes, [("numbers", "pick"), ("pick", "last")]) == [0]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "warped"])
def test_a_node_that_hangs_again_and_again_ends_the_run(tmp_path: Path, elsewhere: bool) -> None:
    limits = {"warped": True, "warp_configuration": {"queue": "nobody"}} if elsewhere else {}
    nap = local("nap", remote.Nap, timeout=0.05, on_error="dead_letter", **limits)
    pipeline = Pipeline(name="test", folder=str(tmp_path), nodes=[nap], links=[])
    before = set(threading.enumerate())
    with pytest.raises(NodeTimeout, match=r"^nap: 4 of its threads hang.*worker with a prefork pool") as caught:
        list(Runner(local=True).stream(pipeline, (Message(60) for _ in range(300))))
    report = caught.value.report["nap"]
    assert report.dead == len(list((tmp_path / "dead_letters").glob("*.json"))) == 4
    assert report.received == report.dead + report.unfinished
    hung = {each for each in threading.enumerate() if each.name in {"celerypipe-nap", "celerypipe-loopback"}}
    assert len(hung - before) == 4


def test_a_file_sink_that_hung_goes_on_in_its_file(tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    nodes = [
        local("numbers", here.Numbers, configuration={"count": 5}),
        local("last", here.Dozes, type="sink", configuration={"path": str(lines)}, timeout=0.3, on_error="skip"),
    ]
    Runner().run(Pipeline(name="test", nodes=nodes, links=[("numbers", "last")]))
    assert lines.read_text().split() == ["0", "1", "3", "4"]


def test_a_source_that_is_silent_for_too_long_is_a_timeout() -> None:
    nodes = [
        local("numbers", here.Numbers, configuration={"hang_after": 2}, timeout=0.3),
        local("end", here.Opened),
    ]
    with pytest.raises(NodeTimeout, match=r"numbers: 0.3 s exceeded \(0.\d s since its last message\)"):
        Runner().run(Pipeline(name="test", nodes=nodes, links=[("numbers", "end")]))


def test_the_deadline_ends_the_run_with_a_report() -> None:
    nodes = [local("numbers", here.Numbers, configuration={"hang_after": 2}), local("end", here.Opened)]
    with pytest.raises(DeadlineExceeded, match=r"0\.3 s") as caught:
        Runner().run(Pipeline(name="test", nodes=nodes, links=[("numbers", "end")], deadline=0.3))
    assert caught.value.report["end"].received == 2


def test_sys_exit_in_a_node_is_its_failure_and_no_hang() -> None:
    nodes = [local("numbers", here.Numbers), local("quit", here.Quit), local("end", here.Opened)]
    pipeline = Pipeline(name="test", nodes=nodes, links=[("numbers", "quit"), ("quit", "end")])
    with pytest.raises(NodeFailed, match="quit: SystemExit: no more"):
        Runner().run(pipeline)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_error_of_ours_that_a_node_raises_names_the_node(tmp_path: Path, elsewhere: bool) -> None:
    limits = {"warped": True, "warp_configuration": {"queue": "nobody"}} if elsewhere else {}
    node = local("far", faulty.Noted, configuration={"diary": str(tmp_path / "diary")}, **limits)
    with pytest.raises(NodeFailed, match=r"^far: what it asks for is out of reach$") as caught:
        list(Runner(local=True).stream(Pipeline(name="test", nodes=[node], links=[]), [Message("setting")]))
    assert isinstance(caught.value.__cause__, ConfigError)


def test_a_child_of_a_node_hears_terminate_and_goes_no_way_of_its_parent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes = [local("numbers", here.Numbers, configuration={"count": 2}), local("last", forking.Terminates)]
    assert collected(tmp_path, nodes, [("numbers", "last")]) == [-signal.SIGTERM] * 2
    nodes = [local("strays", forking.Strays), local("last", remote.Echo)]
    assert collected(tmp_path, nodes, [("strays", "last")]) == [1]
    with Runner(local=True) as runner:
        assert runner.submit(forking.strays, "raise").result(20) == ("parent", 1)
        assert runner.submit(forking.strays, "exit").result(20) == ("parent", 7)
    said = capfd.readouterr().err
    assert "ValueError: in the child" in said
    assert "was forked there and came back; it ends here" in said


def test_when_one_node_cannot_warm_up_the_others_let_go() -> None:
    here.events.clear()
    nodes = [local("numbers", here.Numbers), local("open", here.Opened), local("cold", here.Cold)]
    pipeline = Pipeline(name="test", nodes=nodes, links=[("numbers", "open"), ("numbers", "cold")])
    with pytest.raises(NodeFailed, match=r"cold: warmup\(\) failed: OSError: no such device"):
        Runner().run(pipeline)
    assert here.events == ["warmup", "destroy"]


def test_a_stream_into_sinks_ends() -> None:
    here.events.clear()
    nodes = [local("keep", here.Keep), local("end", here.Opened)]
    pipeline = Pipeline(name="test", nodes=nodes, links=[("keep", "end")])
    assert list(Runner().stream(pipeline, [Message(1), Message(2)])) == []
    assert here.events == ["warmup", "update 1", "update 2", "destroy"]


def test_inputs_for_a_pipeline_that_takes_none_are_refused() -> None:
    nodes = [local("numbers", here.Numbers), local("end", here.Opened)]
    pipeline = Pipeline(name="test", nodes=nodes, links=[("numbers", "end")])
    with pytest.raises(ConfigError, match="no node of this pipeline is fed from code"):
        list(Runner().stream(pipeline, [Message(1)]))


def test_inputs_that_are_no_messages_are_named() -> None:
    pipeline = Pipeline(name="test", nodes=[local("keep", here.Keep)])
    with pytest.raises(NodeFailed, match=r"^\(inputs\): each has to be a Message, not int; write Message\(\.\.\.\)"):
        list(Runner().stream(pipeline, [1]))  # type: ignore[list-item]


def test_the_name_of_a_file_is_no_pipeline() -> None:
    cure = r"a Pipeline is needed, not 'p.json'; of a file: Pipeline.load\('pipeline.json'\)"
    for start in (Runner().run, Runner().replay, lambda name: list(Runner().stream(name, []))):
        with pytest.raises(ConfigError, match=cure):
            start("p.json")  # type: ignore[arg-type]


def test_cancel_ends_a_run_from_another_thread() -> None:
    runner = Runner()
    pipeline = Pipeline(name="test", nodes=[local("nap", remote.Nap)], links=[])
    stream = runner.stream(pipeline, [Message(0.0), Message(30.0)])
    assert next(stream).payload == 0.0
    runner.cancel()
    with pytest.raises(RunCancelled):
        list(stream)


def test_the_folder_holds_config_telemetry_dumps_and_dead_letters(tmp_path: Path) -> None:
    nodes = [
        local("numbers", here.Numbers, configuration={"count": 3}, auto_dump=True),
        local("last", remote.Picky, configuration={"bad": [1]}, on_error="dead_letter"),
    ]
    folder = tmp_path / "run"
    out = collected(tmp_path, nodes, [("numbers", "last")], folder=str(folder), telemetry="telemetry.csv")
    assert out == [0, 2]
    assert json.loads((folder / "config.json").read_text())["pipeline"]["name"] == "test"
    rows = list(csv.DictReader((folder / "telemetry.csv").read_text().splitlines()))
    assert [row["evt"] for row in rows if row["node"] == "last"].count("rx") == 3
    assert set(rows[0]) == {"ts", "evt", "node", "origin", "msg_id", "src_id", "size"}
    assert len(list((folder / "numbers").glob("auto_*.json"))) == 3
    (why,) = (json.loads(path.read_text()) for path in folder.glob("dead_letters/*.json"))
    assert (why["node"], why["text"]) == ("last", "last: ValueError: 1 is not to my taste")


def test_a_dead_letter_that_cannot_be_written_as_bytes_is_still_explained(tmp_path: Path) -> None:
    pipeline = warped("tests.nodes.remote.Echo", "nobody", on_error="dead_letter", folder=str(tmp_path))
    assert [m.payload for m in Runner(local=True).stream(pipeline, [Message(object()), Message(1)])] == [1]
    (why,) = (json.loads(path.read_text()) for path in tmp_path.glob("dead_letters/*.json"))
    assert "object" in why["not_kept"]


def test_what_moves_here_because_nobody_serves_the_queue_runs_once(redis_url: str, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    pipeline = warped(
        "tests.nodes.remote.Nap", "nobody", configuration={"diary": str(diary)}, limits={"on_no_worker": "local"}
    )
    out = [m.payload for m in Runner(redis_url).stream(pipeline, map(Message, [0.7, 0.8, 0.9]))]
    assert out == [0.7, 0.8, 0.9]
    assert diary.read_text().split() == ["0.7", "0.8", "0.9"]


def test_a_retry_of_the_last_message_is_not_lost(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    for salt in range(5):
        pipeline = warped(
            "tests.nodes.remote.Picky",
            "tsolo",
            configuration={"bad": [3], "times": 1, "salt": salt},
            retries=1,
            limits={"backoff": 0.01},
        )
        assert [m.payload for m in Runner(redis_url).stream(pipeline, map(Message, [1, 2, 3]))] == [1, 2, 3]


def test_ctrl_c_twice_ends_a_run_that_still_warms_up(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time, celerypipe\n"
        "class Slow(celerypipe.Sink):\n"
        "    def warmup(self):\n"
        "        open('warming', 'w').close()\n"
        "        time.sleep(60)\n"
    )
    definition = {
        "version": "1",
        "plugins": [],
        "pipeline": {
            "name": "slow",
            "nodes": [
                {"name": "numbers", "type": "source", "mark": "data_streamer"},
                {"name": "slow", "type": "sink", "mark": "slow.Slow"},
            ],
            "links": [{"from": "numbers", "to": "slow"}],
        },
    }
    (tmp_path / "pipeline.json").write_text(json.dumps(definition))
    run = begin("run", "pipeline.json", cwd=tmp_path)
    eventually(lambda: (tmp_path / "warming").exists(), "the warm-up")
    run.process.send_signal(signal.SIGINT)
    eventually(lambda: "press Ctrl-C again to abort" in run.err.read_text(), "the answer to the first")
    run.process.send_signal(signal.SIGINT)
    done = run.finish()
    assert done.returncode == 130
    assert "RunCancelled: stopped by a second SIGINT" in done.stderr


def test_runners_and_pipelines_have_a_short_repr() -> None:
    pipeline = Pipeline(name="p", nodes=[NodeDefinition(name="there", mark=remote.Echo, warped=True)], links=[])
    assert repr(pipeline) == str(pipeline) == "<Pipeline 'p': 1 node, 1 warped>"
    assert repr(Runner(local=True)) == "<Runner here>"
    assert repr(Runner()) == "<Runner where the environment says>"
    runner = Runner("redis://:s3cret@somewhere:6379/1", local=False)
    assert repr(runner) == "<Runner on redis://:***@somewhere:6379/1>"
    runner = Runner(local=True)
    stream = runner.stream(pipeline, [Message(1)])
    next(stream)
    assert repr(runner).startswith("<Runner here, in run ")
    stream.close()
    assert repr(runner) == "<Runner here>"


def test_without_a_worker_a_warning_is_logged_unless_somebody_listens(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    text, heard = "no live worker serves queue 'nowhere'", list[str]()
    pipeline = warped("tests.nodes.remote.Echo", "nowhere")
    for runner, said in ((Runner(private_redis.url), True), (Runner(private_redis.url, on_event=heard.append), False)):
        caplog.clear()
        stream = runner.stream(pipeline, [Message(1)])
        reader = threading.Thread(target=pytest.raises, args=(RunCancelled, next, stream))
        reader.start()
        if said:
            eventually(lambda: text in caplog.text, "a warning")
        else:
            eventually(lambda: any(text in each for each in heard), "a word")
        runner.cancel()
        reader.join()
        assert (text in caplog.text) == said
    caplog.clear()
    runner = Runner(private_redis.url)
    call = runner.submit(remote.add, 1)
    eventually(lambda: "no live worker serves queue 'remote'" in caplog.text, "a warning about a call")
    call.cancel()


def test_a_plugin_folder_that_is_not_there_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = NodeDefinition(name="numbers", type="source", mark="data_streamer", configuration={"items": []})
    Runner(local=True).run(Pipeline(name="p", plugins=[tmp_path / "gone"], nodes=[source]))
    assert [text for text in caplog.messages if f"plugins: there is no folder {tmp_path / 'gone'}" in text]


@pytest.mark.parametrize("options", [{}, {"cache": True}])
def test_what_waits_for_a_node_here_is_bounded_in_bytes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setenv("CELERYPIPE_CACHE_URL", (tmp_path / "cache").as_uri())
    source = local("in", here.Recordings, configuration={"count": 12, "size": 20 << 20})
    pipeline = Pipeline(
        name="p",
        nodes=[source, local("slow", here.Slow, **options)],
        links=[Link(source="in", target="slow", full="drop")],
    )
    report = Runner().run(pipeline)
    assert 4 <= report["slow"].received <= 6  # one that is worked on, and others until 64 MiB wait
    assert report["in"].dropped == 12 - report["slow"].received
