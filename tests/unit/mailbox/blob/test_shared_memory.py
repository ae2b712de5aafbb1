"""Blobs in /dev/shm: written, read, written again, and removed whoever died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from celerypipe.mailbox.blob import shared_memory
from celerypipe.mailbox.blob.blob import Blobs, Store
from celerypipe.mailbox.blob.shared_memory import RECYCLED_FROM, ROOT, Proof, SharedFolder, is_proven, sweep
from celerypipe.message.message import new_id

pytestmark = pytest.mark.skipif(not os.access(ROOT, os.W_OK), reason=f"no {ROOT} here")

OWNER = """
import os, sys, time
from celerypipe.mailbox.blob.shared_memory import Proof, SharedFolder
folder = SharedFolder.make(sys.argv[1])
proof = Proof()
if not os.fork():  # a child of a node that lives on
    os.close(1)
    sys.stdin.read()
    os._exit(0)
print(folder.write([b"left behind"]), proof.text, sep="|", flush=True)
time.sleep(60)
"""


def test_what_was_written_in_pieces_is_read_as_one(folder: SharedFolder) -> None:
    pieces = [b"head", b"", memoryview(np.arange(5000, dtype=np.int32)).cast("B"), *(b"%d," % n for n in range(2000))]
    reference = folder.write(pieces)
    assert reference is not None
    content = folder.read(reference)
    assert content == b"".join(pieces)
    assert content.readonly


def test_a_view_outlives_its_file(folder: SharedFolder) -> None:
    reference = folder.write([b"x" * 10_000])
    assert reference is not None
    content = folder.read(reference)
    folder.delete(reference)
    assert folder.read(reference) is None
    assert content == b"x" * 10_000


@pytest.mark.parametrize(
    "reference", ["/../../../etc/hostname:9", "/:0", "/nothing:3", "/lock:x", "/a/b:1", "/lock:-1"]
)
def test_a_reference_from_a_stranger_reads_nothing(folder: SharedFolder, reference: str) -> None:
    assert folder.read(reference) is None
    folder.delete(reference)
    assert (folder._path / "lock").exists()


@pytest.mark.parametrize("run", ["../../tmp", "", "a/b", "x" * 65])
def test_a_run_of_a_stranger_has_no_folder(run: str) -> None:
    assert SharedFolder.find(run) is None


def test_a_folder_that_others_may_enter_is_not_used(folder: SharedFolder) -> None:
    path = folder._path
    assert SharedFolder.find(path.name.removeprefix("celerypipe-run-")) is not None
    path.chmod(0o755)
    assert SharedFolder.find(path.name.removeprefix("celerypipe-run-")) is None
    path.chmod(0o700)


def test_a_file_that_nobody_maps_is_written_again(folder: SharedFolder) -> None:
    first = folder.write([b"a" * RECYCLED_FROM])
    assert first is not None
    number = os.stat(folder._path / first[1:].partition(":")[0]).st_ino
    folder.recycle(first)
    assert folder.read(first) is None  # who comes late must not read another message
    other = folder.write([b"b" * (RECYCLED_FROM + 1)])
    again = folder.write([b"c" * RECYCLED_FROM])
    assert other is not None
    assert again is not None
    assert os.stat(folder._path / again[1:].partition(":")[0]).st_ino == number
    assert folder.read(again) == b"c" * RECYCLED_FROM
    assert folder.read(other) == b"b" * (RECYCLED_FROM + 1)


def test_what_is_kept_for_reuse_is_bounded_and_made_of_the_sizes_used_last(
    folder: SharedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "_KEPT_BYTES", 3 * RECYCLED_FROM)
    for size in [RECYCLED_FROM] * 5 + [RECYCLED_FROM + n for n in range(20)]:
        for reference in [folder.write([bytes(size)]) for _ in range(5)]:
            assert reference is not None
            folder.recycle(reference)
    kept = [path for path in (folder._path / "free").rglob("*") if path.is_file()]
    assert 1 <= len(kept) <= 3 * shared_memory._KEPT_SIZES
    assert (folder._path / "free" / str(RECYCLED_FROM + 19)).is_dir()


@pytest.mark.parametrize("reference", ["/" + "a" * 18 + ":abc", "/" + "a" * 18 + ":", "/x:1", "/" + "a" * 18 + ":1/2"])
def test_a_strangers_reference_is_no_file_to_recycle(folder: SharedFolder, reference: str) -> None:
    folder.recycle(reference)
    assert folder.read(reference) is None


def test_a_folder_that_somebody_writes_into_goes_all_the_same(folder: SharedFolder) -> None:
    other = SharedFolder.find(folder._path.name.removeprefix("celerypipe-run-"))
    assert other is not None
    folder.remove()
    assert other.write([b"late"]) is None
    folder._path.with_name(f"{folder._path.name}-gone").mkdir(0o700)  # its removal was interrupted
    sweep()
    assert not list(ROOT.glob(f"{folder._path.name}*"))


def test_without_its_folder_a_run_goes_through_redis() -> None:
    folder = SharedFolder.make(new_id())
    assert folder is not None
    folder.remove()
    reference, commands = Store("run", folder, shares=True).put([b"content"])
    assert not reference.startswith("/")
    assert [command[0] for command in commands] == ["SET"]


def test_memory_that_somebody_may_map_is_not_written_again(folder: SharedFolder) -> None:
    blobs = Blobs(Store("run", folder, shares=True))
    reference = blobs.store.put_shared([b"a" * RECYCLED_FROM])
    blob = blobs.hold(reference)
    assert blobs.hold(reference) is blob
    content = folder.read(reference)
    assert content is not None
    blob.mapped(content)
    del blob
    assert not blobs.garbage  # an array may lie in it
    del content
    assert list(blobs.garbage) == [(reference, True)]
    sent = blobs.hold(reference)
    sent.readers += 1  # to a worker, which never answered
    blobs.garbage.clear()
    del sent
    assert list(blobs.garbage) == [(reference, False)]


def test_what_is_held_anew_before_it_is_removed_stays(folder: SharedFolder) -> None:
    blobs = Blobs(Store("run", folder, shares=True))
    stored, _ = Store("run").put([b"content"])
    shared = blobs.store.put_shared([b"a" * RECYCLED_FROM])
    first = [blobs.hold(stored), blobs.hold(shared)]
    first[1].readers += 1  # somebody may map it, and will not say until when
    first.clear()
    again = [blobs.hold(stored), blobs.hold(shared)]
    assert blobs.deleting() == []
    assert folder.read(shared) is not None
    again.clear()
    assert set(blobs.garbage) == {(stored, True), (shared, False)}
    blobs.hold(shared)  # and let it go, by one who knows of nobody
    assert blobs.deleting() == [("UNLINK", *blobs.store.keys_of(stored))]
    assert folder.read(shared) is None
    assert not list(folder._path.glob("free/*/*")), "its memory is not written again"


def test_a_proof_holds_only_where_its_memory_is() -> None:
    proof = Proof()
    name, _, secret = proof.text.partition(" ")
    assert is_proven(proof.text)
    assert not is_proven(f"{name} {secret[:-1]}")
    assert not is_proven(f"{name} ")
    assert not is_proven("")
    assert not is_proven("../../etc/hostname x")
    proof.remove()
    assert not is_proven(f"{name} {secret}")


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(folder: SharedFolder) -> None:
    run = new_id()
    command = [sys.executable, "-c", OWNER, run]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[4]) as owner:
        assert owner.stdout is not None
        reference, text = owner.stdout.readline().strip().split("|")
        theirs = SharedFolder.find(run)
        assert theirs is not None
        sweep()
        assert theirs.read(reference) == b"left behind"
        assert is_proven(text)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        os.utime(ROOT / text.split()[0])
        sweep()
        assert is_proven(text)  # so young that whoever made it may be about to lock it
        for made in (ROOT / text.split()[0], ROOT / f"celerypipe-run-{run}" / "lock"):
            os.utime(made, (0, 0))
        sweep()
    assert SharedFolder.find(run) is None
    assert not is_proven(text)
    assert folder.write([b"still here"]) is not None
