"""How far a run is: what its sources have, what is through, and where each message is that is neither."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import ConfigError, Message, NodeFailed, Pipeline, Proc, RunCancelled, Runner, Source
from celerypipe.contract.positions import Positions
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.nodes.data_streamer import DataStreamer
from celerypipe.nodes.json_lines import COUNTED_BYTES, JsonLinesSource
from celerypipe.runner.report import Report
from tests.nodes import remote


class Ahead(Source):
    """Counts to 500, and tells once six messages are out."""

    six = threading.Event()

    def messages(self) -> Iterator[Message]:
        for number in range(500):
            if number == 6:
                self.six.set()
            yield Message(number)


class Fourth(Proc):
    """Fails over the fourth message, once others of ``Ahead`` came after it."""

    def update(self, message: Message) -> Message:
        if message.payload == 3:
            assert Ahead.six.wait(30)
            raise ValueError("no three")
        return message


class Waits(Proc):
    """Waits with the message of this number until the gate is open."""

    gate = threading.Event()

    def update(self, message: Message) -> Message:
        if message.payload == 20:
            self.gate.wait(10)
        return message


class Cold(Proc):
    """Takes a while to warm up."""

    def warmup(self) -> None:
        time.sleep(0.2)

    def update(self, message: Message) -> Message:
        return message


class Counting(Source):
    """Two hundred messages, of which it says what it is told to."""

    def __init__(self, says: Any = None) -> None:
        self.says = says

    def total(self) -> Any:
        return self.says

    def messages(self) -> Iterator[Message]:
        for number in range(200):
            yield Message(number)


class Own(Source):
    """One whose ``total`` is its own affair."""

    total = 7  # type: ignore[assignment]  # what somebody wrote who never heard of ours

    def messages(self) -> Iterator[Message]:
        yield Message(1)


WAITS = NodeDefinition(name="there", mark=Waits)


def through(nodes: list[NodeDefinition], **how: Any) -> Report:
    """Run them in a row to the end of the first one's messages."""
    links = [(one.name, other.name) for one, other in itertools.pairwise(nodes)]
    return Runner(local=True).run(Pipeline(name="p", nodes=nodes, links=links), **how)


# -- what a source says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("says", "total"), [(500, 500), (None, None), (1, 86)])
def test_the_total_is_what_a_source_says_and_at_its_end_what_it_sent(says: Any, total: int | None) -> None:
    seen: list[Report] = []

    def look(report: Report) -> None:
        if (
            report["src"].sent == 86
        ):  # 20 are through, one is at work, 64 wait, one has no room; none of them is its last
            seen.append(report)
            Waits.gate.set()

    Waits.gate.clear()
    source = NodeDefinition(name="src", mark=Counting, configuration={"says": says})
    report = through([source, WAITS], on_progress=look)
    first = seen[0]
    assert (first.status, first.through, first.total, first.unfinished) == ("running", 20, total, 66)
    assert (report.status, report.through, report.total, report.unfinished) == ("done", 200, 200, 0)


@pytest.mark.parametrize("says", [1.5, -1, True, "3"])
def test_what_is_no_number_of_messages_is_refused_by_name(says: Any) -> None:
    with pytest.raises(ConfigError, match=r"src: total\(\) returned .*; return how many messages it yields, or None"):
        through([NodeDefinition(name="src", mark=Counting, configuration={"says": says})])


def test_an_attribute_of_that_name_is_let_be() -> None:
    assert through([NodeDefinition(name="src", mark=Own)]).through == 1


def test_built_in_sources_know_what_is_left(tmp_path: Path) -> None:
    assert DataStreamer(count=12).total() == 12
    assert DataStreamer(items=["a", {"b": 1}]).total() == 2
    going_on = DataStreamer(count=12)
    going_on.seek(Positions([0, 1, 5]))
    assert going_on.total() == 9

    def lines(text: str, *through: int) -> int | None:
        (tmp_path / "in.jsonl").write_text(text)
        source = JsonLinesSource(str(tmp_path / "in.jsonl"))
        source.configure()
        source.seek(Positions(through))
        try:
            total = source.total()
            assert next(iter(source.messages()), None) is None or text  # where it is read from stays as it was
            return total
        finally:
            source.destroy()

    assert lines("1\n\n  \n2\n3") == 3
    assert lines("1\n\n2\n3\n", 3, 4) == 1
    assert lines("") == 0
    large = json.dumps("x" * 1000) + "\n"
    count = COUNTED_BYTES // 1000 * 2
    assert lines("1\n" + large * count) == pytest.approx(count, rel=0.01)


def test_what_cannot_be_read_twice_has_no_total(tmp_path: Path) -> None:
    source = JsonLinesSource("-")
    source.configure()
    assert source.total() is None
    source.destroy()


def test_pictures_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="needs pip install 'celerypipe[vision]'")
    from celerypipe.nodes.image_files import ImageFilesSource

    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"")
    source = ImageFilesSource(folder=str(tmp_path))
    source.configure()
    source.seek(Positions([source.position(Message(1, version=0))]))
    assert source.total() == 2


def test_a_list_that_is_fed_from_code_has_a_length() -> None:
    runner = Runner(local=True)
    pipeline = Pipeline(name="p", nodes=[NodeDefinition(name="there", mark=remote.Echo)], links=[])
    assert len(list(runner.stream(pipeline, [Message(n) for n in range(5)]))) == 5
    assert runner.report is not None
    assert (runner.report.through, runner.report.total) == (5, 5)


# -- where each message is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_warped", [False, True])
def test_a_run_that_fails_says_where_all_its_messages_are(is_warped: bool) -> None:
    there = NodeDefinition(name="there", mark=Fourth, warped=is_warped, warp_configuration={"queue": "q"})
    source = NodeDefinition(name="src", mark=Ahead)
    Ahead.six.clear()
    with pytest.raises(NodeFailed) as failed:
        through([source, there, NodeDefinition(name="after", mark=remote.Echo)])
    report = failed.value.report
    one = report["there"]
    assert (one.sent, one.failed, one.given_up) == (3, {"failed": 1}, 0)
    assert one.unfinished > 0
    assert one.received == one.sent + 1 + one.unfinished == report["src"].sent
    assert f"message {failed.value.message_id}" in report.place
    assert f"{report.unfinished} messages unfinished" in report.losses


@pytest.mark.parametrize("is_warped", [False, True])
def test_a_run_that_is_cancelled_does_too(is_warped: bool) -> None:
    Waits.gate.clear()
    there = WAITS.model_copy(update={"warped": is_warped})
    source = NodeDefinition(name="src", mark=DataStreamer, configuration={"count": 500, "rate": 0})
    pipeline = Pipeline(name="p", nodes=[source, there], links=[("src", "there")])
    runner = Runner(local=True)
    with pytest.raises(RunCancelled) as cancelled:
        runner.run(pipeline, on_progress=lambda report: runner.cancel())
    Waits.gate.set()
    report = cancelled.value.report
    one = report["there"]
    assert report.status == "cancelled"
    assert one.received == one.sent + one.unfinished == report["src"].sent


def test_the_warm_up_of_a_node_is_no_messages_time() -> None:
    cold = NodeDefinition(name="there", mark=Cold, warped=True, warp_configuration={"queue": "q"})
    for node in (cold, cold.model_copy(update={"warped": False})):
        source = NodeDefinition(name="src", mark=DataStreamer, configuration={"count": 3, "rate": 0})
        one = through([source, node])["there"]
        assert one.warmup >= 0.2
        assert one.running is not None
        assert one.running.p99 < 0.2
