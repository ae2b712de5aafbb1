"""Files by themselves: what they are, how they travel, the folder of a worker; over a real Redis."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3

import celerypipe
from celerypipe import CodecError, File, Message, NodeFailed, Pipeline, codec
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check.complaints import check
from celerypipe.codec.digest import digest
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.mailbox.blob.files import is_there, put
from celerypipe.message.files import PIECE, Arrived, Here, Origin, arriving
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from celerypipe.runner.carrier.files import FileSender
from celerypipe.worker.activation.files import FileFolder
from tests.nodes.filing import made

MakeFolder = Callable[..., FileFolder]


@pytest.fixture
def make_folder(redis_url: str, tmp_path: Path) -> MakeFolder:
    def make(life: str = "abc", most: int = 1 << 30) -> FileFolder:
        return FileFolder(lambda: connect(redis_url), tmp_path / "base", life, most)

    return make


@pytest.fixture
def sender(redis_url: str) -> FileSender:
    return FileSender(redis_url, lambda seconds: False, lambda text: None)


def as_it_arrives(file: File, find: Callable[[File], Here] | FileFolder) -> File:
    """The file as the codec brings it, where it is found so."""

    def travel() -> None:
        arriving.set(lambda _: Arrived(find))
        (message,) = codec.decode(codec.encode_joined([Message(file)]))
        found.append(message.payload)

    found: list[File] = []
    thread = threading.Thread(target=travel)  # with a context of its own
    thread.start()
    thread.join()
    return found[0]


# -- what they are ---------------------------------------------------------------------------------------------------


def test_a_file_is_its_content_and_opens_as_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"sound")
    file = celerypipe.file(path)
    assert (file.digest, file.name, file.size) == (blake3(b"sound").hexdigest(), "a.wav", 5)
    assert os.fspath(file) == str(path)
    with open(file, "rb") as opened:
        assert opened.read() == b"sound"
    other = tmp_path / "b" / "a.wav"
    other.parent.mkdir()
    other.write_bytes(b"sound")
    assert celerypipe.file(other) == file
    assert hash(celerypipe.file(other)) == hash(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    with pytest.raises(FileNotFoundError):
        celerypipe.file(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        celerypipe.file(tmp_path)
    with pytest.raises(ValueError, match="is no file with a content that stays"):
        celerypipe.file(tmp_path / "device")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.wav", ".wav"),
        ("scan.nii.gz", ".nii.gz"),
        ("README", ""),
        (".bashrc", ""),
        ("a.b/../c", ""),
        ("x." + "y" * 40, ""),
        ("x.p\ny", ""),
    ],
)
def test_the_end_of_a_name_is_kept_if_it_is_one(name: str, suffix: str) -> None:
    assert File("0" * 64, name, 0).suffix == suffix


# -- how they travel -------------------------------------------------------------------------------------------------


def test_files_travel_at_any_depth_by_their_digest_alone(tmp_path: Path) -> None:
    file = made(tmp_path, "a.bin", 100_000)
    payload = {"one": [file], ("k",): (file, {"deep": [[file]]})}
    apart = codec.encode_apart([Message(payload, meta={"file": file})])
    assert len(apart.head) + apart.size < 1000
    assert list(apart.files) == [file] * 4
    (message,) = codec.decode(apart.joined())
    assert message.payload == payload
    assert message.meta["file"] == file
    with pytest.raises(NodeFailed, match=r"the file 'a.bin' came from elsewhere, and is only passed on here"):
        os.fspath(message.payload["one"][0])


@pytest.mark.parametrize(
    "fields",
    [
        ("0" * 63, "a", 1),
        ("G" * 64, "a", 1),
        (b"0" * 64, "a", 1),
        ("0" * 64, "", 1),
        ("0" * 64, ".", 1),
        ("0" * 64, "..", 1),
        ("0" * 64, "../../etc/passwd", 1),
        ("0" * 64, "a/b", 1),
        ("0" * 64, "a\0b", 1),
        ("0" * 64, "a" * 256, 1),
        ("0" * 64, "a", -1),
        ("0" * 64, "a", True),
        ("0" * 64, "a", 1 << 60),
        ("0" * 64, "a", 1.0),
    ],
)
def test_a_name_that_leads_elsewhere_does_not_arrive(fields: tuple[str, str, int]) -> None:
    data = codec.encode_joined([Message(File(*fields))])
    with pytest.raises(CodecError, match="malformed message"):
        codec.decode(data)


def test_a_message_shows_a_file_as_json(tmp_path: Path) -> None:
    file = made(tmp_path, "a.bin")
    assert Message(file).to_dict()["payload"] == {"name": "a.bin", "size": 1000, "digest": file.digest}


# -- from here to Redis ----------------------------------------------------------------------------------------------


def test_a_content_is_sent_once_in_pieces_that_go_away(
    sender: FileSender, redis_url: str, redis_client: Client, tmp_path: Path
) -> None:
    file = made(tmp_path, "large.bin", 2 * PIECE + 5)
    sender.send([file, file])
    names = sorted(redis_client.scan_iter(f"celerypipe:file:{file.digest}*", count=1000))
    assert len(names) == 4
    assert all(0 < redis_client.pttl(name) <= keys.DATA_TTL for name in names)
    assert max(redis_client.strlen(name) for name in names) == PIECE
    (tmp_path / "large.bin").unlink()
    FileSender(redis_url, lambda seconds: False, lambda text: None).send([file])  # it is there: nothing is read


def test_a_file_that_was_changed_is_not_sent(sender: FileSender, redis_client: Client, tmp_path: Path) -> None:
    file = made(tmp_path, "a.bin")
    (tmp_path / "a.bin").write_bytes(b"other")
    with pytest.raises(CodecError, match=r"a\.bin was changed after celerypipe\.file\(\); make it anew"):
        sender.send([file])
    (tmp_path / "a.bin").unlink()
    with pytest.raises(CodecError, match=r"a\.bin cannot be read any more"):
        sender.send([file])
    assert not list(redis_client.scan_iter(f"celerypipe:file:{file.digest}*", count=1000))


def test_what_redis_lost_is_sent_again(sender: FileSender, redis_client: Client, tmp_path: Path) -> None:
    file = made(tmp_path, "a.bin")
    sender.send([file])
    assert sender.renew(redis_client) == []
    redis_client.delete(keys.USUAL.file_piece(file.digest, 0))
    sender.doubt()
    assert sender.renew(redis_client) == [file]
    sender.send_again([file])
    assert is_there(redis_client, file)


def test_a_file_of_elsewhere_is_passed_on_as_long_as_it_is_there(
    sender: FileSender, redis_client: Client, tmp_path: Path
) -> None:
    file = made(tmp_path, "a.bin")
    passed = File(file.digest, file.name, file.size)
    with pytest.raises(CodecError, match="neither here nor in Redis any more"):
        sender.send([passed])
    put(redis_client, file, Origin(tmp_path))
    sender.send([passed])


# -- from Redis to a worker ------------------------------------------------------------------------------------------


def test_a_copy_is_fetched_once_when_it_is_asked_for(
    sender: FileSender, make_folder: MakeFolder, redis_client: Client, tmp_path: Path
) -> None:
    file = made(tmp_path, "scan.nii.gz", PIECE + 3)
    sender.send([file])
    folder = make_folder()
    copy = as_it_arrives(file, folder)
    assert not folder.path.exists()
    assert copy.path.read_bytes() == file.path.read_bytes()
    assert copy.path.name.endswith(".nii.gz")
    assert copy.path.parent == folder.path
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert copy.path.stat().st_mode & 0o777 == 0o400
    redis_client.delete(
        keys.USUAL.file(file.digest), keys.USUAL.file_piece(file.digest, 0), keys.USUAL.file_piece(file.digest, 1)
    )
    assert as_it_arrives(file, folder).path == copy.path
    other = as_it_arrives(File(file.digest, "b.txt", file.size), make_folder())  # as another process of the worker
    assert other.path.read_bytes() == file.path.read_bytes()
    assert other.path.suffix == ".txt"
    folder.remove()
    assert not folder.path.exists()


def test_an_empty_file_arrives_too(sender: FileSender, make_folder: MakeFolder, tmp_path: Path) -> None:
    file = made(tmp_path, "empty", 0)
    sender.send([file])
    assert as_it_arrives(file, make_folder()).path.read_bytes() == b""


def test_what_is_not_what_was_sent_is_fetched_again_and_then_refused(
    sender: FileSender, make_folder: MakeFolder, redis_client: Client, tmp_path: Path
) -> None:
    file = made(tmp_path, "a.bin")
    name = keys.USUAL.file_piece(file.digest, 0)
    sender.send([file])
    redis_client.set(name, b"x" * 1000)
    done = threading.Event()

    def look_after(evil: bool) -> None:
        """As its runner does; or as somebody does who alters it every time."""
        while not done.wait(0.005):
            if redis_client.exists(name):
                continue
            if evil:
                redis_client.set(name, b"x" * 1000)
            else:
                sender.send_again([file])

    def with_company(evil: bool) -> Path:
        done.clear()
        company = threading.Thread(target=look_after, args=(evil,))
        company.start()
        try:
            return as_it_arrives(file, make_folder()).path
        finally:
            done.set()
            company.join()

    with pytest.raises(NodeFailed, match=r"'a\.bin' is not what was sent: its digest is [0-9a-f]{16}…, not"):
        with_company(evil=True)
    redis_client.set(name, b"x" * 1000)
    assert with_company(evil=False).read_bytes() == file.path.read_bytes()
    assert not [each for each in make_folder().path.iterdir() if each.suffix == ".part"]


def test_there_is_room_for_what_was_used_last_and_for_what_is_held(
    sender: FileSender, make_folder: MakeFolder, tmp_path: Path
) -> None:
    files = [made(tmp_path, f"{number}.bin", 1000) for number in range(4)]
    sender.send(files)
    folder = make_folder(most=2500)
    first = as_it_arrives(files[0], folder)
    assert first.path.exists()
    as_it_arrives(files[1], folder).path  # noqa: B018  # asking for it is the test
    as_it_arrives(files[2], folder).path  # noqa: B018
    assert (folder.path / files[0].digest).exists()  # it is the oldest, and in use
    assert not (folder.path / files[1].digest).exists()
    held = as_it_arrives(files[2], folder)
    assert held.path.exists()
    with pytest.raises(NodeFailed, match=r"no room for the file '3\.bin' of 1,000 bytes: this worker keeps 2,500"):
        as_it_arrives(files[3], folder).path  # noqa: B018
    del held
    assert as_it_arrives(files[3], folder).path.exists()


def test_the_folder_of_a_worker_that_was_killed_goes_with_the_next_one(
    sender: FileSender, make_folder: MakeFolder, tmp_path: Path
) -> None:
    file = made(tmp_path, "a.bin")
    sender.send([file])
    killed, living = make_folder("killed"), make_folder("living")
    as_it_arrives(file, killed).path  # noqa: B018
    as_it_arrives(file, living).path  # noqa: B018
    assert killed._alive is not None
    fcntl.flock(killed._alive, fcntl.LOCK_UN)  # as the end of its processes does
    as_it_arrives(file, make_folder("new")).path  # noqa: B018
    assert not killed.path.exists()
    assert living.path.exists()


def test_a_folder_of_somebody_else_is_not_used(sender: FileSender, make_folder: MakeFolder, tmp_path: Path) -> None:
    file = made(tmp_path, "a.bin")
    sender.send([file])
    folder = make_folder()
    folder.base.mkdir()
    folder.path.mkdir(mode=0o777)
    folder.path.chmod(0o777)
    with pytest.raises(NodeFailed, match="is no private folder of this user"):
        as_it_arrives(file, folder).path  # noqa: B018
    folder.path.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NodeFailed, match="is no private folder of this user"):
        as_it_arrives(file, folder).path  # noqa: B018


def test_many_at_once_fetch_it_once(sender: FileSender, redis_url: str, tmp_path: Path) -> None:
    file = made(tmp_path, "a.bin", PIECE)
    sender.send([file])
    asked: list[int] = []

    def connected() -> Client:
        asked.append(1)
        return connect(redis_url)

    paths: list[Path] = []

    def fetch() -> None:
        folder = FileFolder(connected, tmp_path / "base", "abc", 1 << 30)
        with suppress(NodeFailed):
            paths.append(as_it_arrives(file, folder).path)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 8
    assert len(asked) == 1


def test_for_a_fingerprint_its_content_counts_and_the_end_of_its_name(tmp_path: Path) -> None:
    file = made(tmp_path, "a.wav")
    other = made(tmp_path, "b.wav")
    renamed = File(file.digest, "c.wav", file.size)
    assert digest({"sound": [file]}) == digest({"sound": [renamed]})
    assert digest(file) != digest(File(file.digest, "a.mp3", file.size))
    assert digest(file) != digest(other)
    assert digest(file) != digest((file.digest, file.suffix))


def test_a_configuration_is_no_place_for_a_file(tmp_path: Path) -> None:
    configuration = {"payloads": [{"reference": made(tmp_path, "a.bin")}]}
    node = NodeDefinition(
        name="n", mark="tests.nodes.filing.Read", type="proc", warped=True, configuration=configuration
    )
    said = "has the file 'a.bin', and the content of files travels"
    (found,) = [each for each in check(Pipeline(name="p", nodes=[node], links=[]), Catalogue()) if said in each.text]
    assert found.place == "pipeline.nodes[0].configuration"


def test_a_place_that_cannot_be_is_named_with_the_cure(sender: FileSender, redis_url: str, tmp_path: Path) -> None:
    file = made(tmp_path, "a.bin")
    sender.send([file])
    folder = FileFolder(lambda: connect(redis_url), tmp_path / "a.bin", "abc", 1 << 30)
    with pytest.raises(NodeFailed, match=r"'a\.bin' cannot be kept in .*; choose another place: CELERYPIPE_FILES"):
        as_it_arrives(file, folder).path  # noqa: B018
