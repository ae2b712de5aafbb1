"""Several machines, really: Redis, a runner and two hosts in networks of their own, whose cables can be pulled."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers import eventually
from tests.servers.extent import at_length
from tests.servers.host import CONFIG
from tests.servers.network import Network, NetworkMachine, network
from tests.servers.processes import alive, descendants

#: What stands on the runner's machine: it does what it is told, a line of Python each, and prints what that is as JSON.
PROGRAM = """
import json, sys, threading, time
import celerypipe
from celerypipe import Manager, Message, Runner
from tests.runs.pipelines import chain, warped
from tests.runs.reading import Reading

manager = Manager()
told = {}
for line in sys.stdin:
    try:
        said = eval(line, globals(), told)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said, default=str), flush=True)
"""
LIST = "[queues.net]\nmost = 3\n[restart]\ndelay = 0.1\n"


@dataclass
class Site:
    """All of them."""

    network: Network
    hosts: list[NetworkMachine]
    logs: list[Path]
    runner: subprocess.Popen[str]

    def tell(self, line: str) -> Any:
        """Have the runner's machine do something; return what it says."""
        assert self.runner.stdin is not None
        assert self.runner.stdout is not None
        self.runner.stdin.write(f"{line}\n")
        self.runner.stdin.flush()
        said = self.runner.stdout.readline()
        assert said, "the program on the runner's machine ended"
        return json.loads(said)

    def wait_for_silence(self, seconds: float) -> int:
        """Wait until no result came for so long; return how many there are."""
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < seconds:
            if (now := self.tell("len(told['reading'].out)")) != seen:
                seen, since = now, time.monotonic()
            time.sleep(0.05)
        return seen

    def state(self, host: str) -> str:
        """What a host is, as it is seen from there."""
        return str(self.tell(f"manager.host_status({host!r}).state"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with network() as made:
        server, here, *hosts = (made.machine(name) for name in ("redis", "runner", "one", "two"))
        url = made.redis(server, tmp_path)
        around = {"CELERYPIPE_REDIS_URL": url, "XDG_STATE_HOME": str(tmp_path / "state")}
        folder = tmp_path / "project"
        (folder / "worker_configs").mkdir(parents=True)
        (folder / "worker_configs" / "net.toml").write_text(CONFIG)
        (folder / "host.toml").write_text(LIST)
        logs = [tmp_path / f"{host.name}.log" for host in hosts]
        for host, log in zip(hosts, logs, strict=True):
            with log.open("w") as file:
                words = ("-m", "celerypipe", "host", "--name", host.name)
                host.python(*words, environment=around, cwd=folder, stdout=file, stderr=file)
        runner = here.python("-c", PROGRAM, environment=around, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        found = Site(made, hosts, logs, runner)
        for host in hosts:
            eventually(lambda host=host: found.state(host.name) == "up", f"host {host.name}")
        yield found


@at_length
def test_two_hosts_serve_a_run_and_nobody_is_left(site: Site) -> None:
    below: set[int] = set()
    for host in ("one", "two"):
        assert "workers" in site.tell(f"repr(told.setdefault({host!r}, manager.hosts[{host!r}].start('net', 2)))")
    assert site.tell("sorted({(each.state) for host in told for each in told[host].status()})") == ["up"]
    site.network.machines["one"].limit("100mbit")
    site.tell("told.update(pipeline=warped('tests.nodes.remote.Echo', 'net', configuration={'delay': 0.05}))")
    site.tell("told.update(out=list(Runner().stream(told['pipeline'], map(Message, range(100)))))")
    assert site.tell("[message.payload for message in told['out']]") == list(range(100))
    did = set(site.tell("[message.meta['pid'] for message in told['out']]"))
    for host in ("one", "two"):  # processes have numbers of their own, also in networks of their own
        pids = set(site.tell(f"[each.pid for each in told[{host!r}].status()]"))
        assert did & pids, f"none of the messages went to {host}"
        below |= pids.union(*map(descendants, pids))
    site.tell("told.update(frames=list(Runner().stream(told['pipeline'], [Message(b'x' * 2_000_000)] * 4)))")
    assert site.tell("[len(message.payload) for message in told['frames']]") == [2_000_000] * 4
    workers = site.tell("[each.place for host in ('one', 'two') for each in told[host].status()]")
    assert sorted(place.partition(".")[0] for place in workers) == ["one", "one", "two", "two"]
    assert site.tell("manager.close()") is None
    eventually(lambda: not any(map(alive, below)), "the end of all of them")


@at_length
def test_five_workers_with_four_nodes_each_serve_a_run_of_four_nodes_besides(site: Site) -> None:
    started = (
        "[manager.hosts[host].start('net', 1, pool='solo', wait=False) for host in ('one', 'two', 'one', 'two', 'one')]"
    )
    site.tell(f"told.update(groups={started})")
    site.tell("[group.wait() for group in told['groups']]")
    pids = site.tell("[each.pid for group in told['groups'] for each in group.status()]")
    below = {*pids}.union(*map(descendants, pids))
    made = "[group.create_node('tests.nodes.remote.Echo', delay=0.01) for group in told['groups'] for _ in range(4)]"
    site.tell(f"told.update(nodes={made})")
    site.tell("[node.start() for node in told['nodes']]")
    options = {
        f"n{number}": {"configuration": {"name": name, "modulus": 0, "delay": 0.01}}
        for number, name in enumerate("abc")
    }
    site.tell(f"told.update(pipeline=chain('net', 'Mark', 'Mark', 'Mark', 'Echo', **{options}))")
    site.tell("told.update(reading=Reading(Runner().stream(told['pipeline'], (Message((n,)) for n in range(300)))))")
    eventually(lambda: site.tell("len(told['reading'].out)") > 20, "some results")
    site.tell("told.update(answers=[out for n, node in enumerate(told['nodes']) for out in node.ask(Message(n))])")
    answers = site.tell("[(answer.payload, answer.meta['pid']) for answer in told['answers']]")
    assert answers == [[number, pids[number // 4]] for number in range(20)]
    assert site.tell("told['reading'].payloads()") == [[number, "a0", "b0", "c0"] for number in range(300)]
    did = set(site.tell("[message.meta['pid'] for message in told['reading'].out]"))
    for host, there in (("one", pids[::2]), ("two", pids[1::2])):
        assert did.intersection(there), f"none of the messages went to {host}"
    assert site.tell("manager.close()") is None
    eventually(lambda: not any(map(alive, below)), "the end of all of them")


def test_a_cable_that_is_pulled_and_put_in_again_loses_and_doubles_nothing(site: Site) -> None:
    for host in ("one", "two"):
        site.tell(f"repr(told.setdefault({host!r}, manager.hosts[{host!r}].start('net', 1, keep=True)))")
    site.tell(
        "told.update(pipeline=warped('tests.nodes.remote.Echo', 'net', configuration={'delay': 0.05}, timeout=60.0))"
    )
    site.tell("told.update(reading=Reading(Runner().stream(told['pipeline'], map(Message, range(200)))))")
    eventually(lambda: site.tell("len(told['reading'].out)") > 20, "some results")
    cut = site.network.machines["one"]
    before = {host: site.tell(f"[each.pid for each in told[{host!r}].status()]") for host in ("one", "two")}
    cut.cut()
    eventually(lambda: site.state("one") == "gone", "its silence")
    assert "nothing was heard from it" in site.tell("manager.host_status('one').why")
    assert "HostError: host one: nothing was heard from it" in site.tell("manager.hosts['one']")
    cut.mend()
    assert site.tell("[message.payload for message in (told['reading'].join(60), told['reading'].out)[1]]") == [
        *range(200)
    ]
    eventually(lambda: site.state("one") == "up", "its return")
    for host in ("one", "two"):
        assert site.tell(f"[each.pid for each in told[{host!r}].status()]") == before[host], "nothing was started twice"
        site.tell(f"told[{host!r}].stop()")


@at_length
@pytest.mark.parametrize("which", ["runner", "redis"])
def test_a_cut_of_any_other_line_loses_and_doubles_nothing(site: Site, which: str) -> None:
    for host in ("one", "two"):
        site.tell(f"repr(told.setdefault({host!r}, manager.hosts[{host!r}].start('net', 1, keep=True)))")
    before = {host: site.tell(f"[each.pid for each in told[{host!r}].status()]") for host in ("one", "two")}
    site.tell(
        "told.update(pipeline=warped('tests.nodes.remote.Echo', 'net', configuration={'delay': 0.05}, timeout=60.0))"
    )
    site.tell("told.update(reading=Reading(Runner().stream(told['pipeline'], map(Message, range(300)))))")
    eventually(lambda: site.tell("len(told['reading'].out)") > 20, "some results")
    cut = site.network.machines[which]
    cut.cut()
    lasts = site.wait_for_silence(5.0)
    assert lasts < 300, "the line was cut too late"
    cut.mend()
    began = time.monotonic()
    eventually(lambda: site.tell("len(told['reading'].out)") > lasts, "the next result")
    print(f"cut of {which}: the next result {time.monotonic() - began:.1f} s after it was mended")
    assert site.tell("[message.payload for message in (told['reading'].join(90), told['reading'].out)[1]]") == [
        *range(300)
    ]
    for host in ("one", "two"):
        eventually(lambda host=host: site.state(host) == "up", f"the return of {host}")
        assert site.tell(f"[each.pid for each in told[{host!r}].status()]") == before[host], "nothing was started twice"
        site.tell(f"told[{host!r}].stop()")
