"""The rooms of the tutorial by themselves: its two definitions, its plugin, its server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check.complaints import check
from celerypipe.message.message import Message
from celerypipe.nodes.data_streamer import DataStreamer
from celerypipe.nodes.notifier_websocket import NotifierWebsocket
from tests.runs.twins import both_twins, said
from tests.servers import ROOT

TUTORIAL = ROOT / "examples" / "tutorial"


def start_server(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start the tutorial's server on a free port; return it and its address."""
    command = [sys.executable, "-W", "error", str(TUTORIAL / "server.py"), "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().removeprefix("listening on ").strip()


def test_the_json_and_its_twin_are_one_definition():
    twins = from_json, from_python = both_twins(TUTORIAL)
    assert said(from_json) == said(from_python)
    assert from_json.version == from_python.version
    for pipeline in twins:
        assert [path.resolve() for path in pipeline.plugin_folders] == [TUTORIAL / "plugins"]
        assert pipeline.folder_path.resolve() == TUTORIAL / "pipe"
        assert check(pipeline) == []


def test_what_the_streamer_sends_and_the_plugin_labels_the_server_prints_and_ends(tmp_path):
    server, endpoint = start_server("--count", "3", "--output", str(tmp_path / "out.jsonl"))
    label = Catalogue([TUTORIAL / "plugins"]).find("label", "proc").create({"text": "warped"})
    sink = NotifierWebsocket(endpoint, retries=0)
    sink.warmup()
    for message in DataStreamer(count=3, rate=0).messages():
        sink.update(label.update(message))
    printed, errors = server.communicate(timeout=20)
    sink.destroy()
    assert (server.returncode, errors) == (0, "")
    assert printed == "".join(f'{n + 1}: {n}  meta {{"label": "warped"}}\n' for n in range(3))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["payload"] for line in lines] == [0, 1, 2]


def test_the_server_goes_quietly_at_ctrl_c():
    server, endpoint = start_server()
    sink = NotifierWebsocket(endpoint, retries=0)
    sink.warmup()
    sink.update(Message("hello"))
    assert server.stdout.readline() == '1: "hello"  meta {}\n'
    server.send_signal(signal.SIGINT)
    assert server.communicate(timeout=20) == ("", "")
    assert server.returncode == 0
    sink.destroy()
