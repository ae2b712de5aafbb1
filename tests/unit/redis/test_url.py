"""The address of a Redis is read in one way, and redis-py, kombu and people are told the same of it."""

from __future__ import annotations

import ssl
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.utils.url import url_to_parts

from celerypipe import Runner
from celerypipe.celery.application import make_app
from celerypipe.errors import ConfigError
from celerypipe.redis.address import TLS, Address, Sentinels
from celerypipe.redis.connection import connect
from celerypipe.redis.url import read_address
from celerypipe.settings import Settings

SENTINELS = "sentinel://me:s%40cret@one:1,[::1]:2,three/mymaster/4?sentinel_password=h%26den"

READ = {
    "redis://": Address("localhost", 6379),
    "redis://box/": Address("box", 6379),
    "redis://box:1/0/": Address("box", 1),
    "redis://box/%33": Address("box", 6379, database=3),
    "redis://box?db=3": Address("box", 6379, database=3),
    "redis://box/3?virtual_host=3": Address("box", 6379, database=3),
    " redis://box:1/0\n": Address("box", 1),
    "REDIS://box:1": Address("box", 1),
    "valkey://box:1": Address("box", 1),
    "redis://[::1]:1/2": Address("::1", 1, database=2),
    "redis://[fe80::1%25eth0]": Address("fe80::1%eth0", 6379),
    "redis://:@box": Address("box", 6379),
    "redis://me@box": Address("box", 6379, user="me"),
    "redis://me:p%40s%2Fs:%20%25@box": Address("box", 6379, user="me", password="p@s/s: %"),
    "redis://:p@s[s w;d@box": Address("box", 6379, password="p@s[s w;d"),
    "redis://box?username=me&password=p": Address("box", 6379, user="me", password="p"),
    "unix:///run/redis.sock": Address(path="/run/redis.sock"),
    "unix:///a%20b/r%3F.sock?db=1": Address(path="/a b/r?.sock", database=1),
    "unix:///a@b/r.sock": Address(path="/a@b/r.sock"),
    "unix://me:p@/r.sock?db=2": Address(path="/r.sock", database=2, user="me", password="p"),
    "redis+socket://:p@/a%20b?virtual_host=/3": Address(path="/a b", database=3, password="p"),
    "rediss://box": Address("box", 6379, tls=TLS()),
    "valkeys://box?ssl_cert_reqs=none": Address("box", 6379, tls=TLS(cert_reqs="none")),
    "rediss://box?ssl_cert_reqs=CERT_OPTIONAL&ssl_check_hostname=no": Address(
        "box", 6379, tls=TLS(cert_reqs="optional", check_hostname=False)
    ),
    "rediss://box?ssl_ca_certs=/c%20a.pem&ssl_certfile=me.pem&ssl_keyfile=me.key&ssl_password=p%26": Address(
        "box", 6379, tls=TLS(ca_certs="/c a.pem", certfile="me.pem", keyfile="me.key", password="p&")
    ),
    "sentinel://here/mine": Address(sentinels=Sentinels((("here", 26379),), "mine")),
    "sentinel://one:1;sentinel://two/mine/3": Address(
        sentinels=Sentinels((("one", 1), ("two", 26379)), "mine"), database=3
    ),
    SENTINELS: Address(
        sentinels=Sentinels((("one", 1), ("::1", 2), ("three", 26379)), "mymaster", password="h&den"),
        database=4,
        user="me",
        password="s@cret",
    ),
}


def of_kombu(address: Address) -> dict[str, Any]:
    """What kombu would make a connection by."""
    connection = make_app({"CELERYPIPE_REDIS_URL": address.url}).connection_for_write()
    channel = object.__new__(connection.transport.Channel)  # one that is made connects at once
    channel.connection = SimpleNamespace(client=connection, default_port=6379)
    found: dict[str, Any] = channel._connparams()
    return found


@pytest.mark.parametrize("text", READ)
def test_runner_and_worker_connect_by_the_same_values(text: str) -> None:
    address = read_address(text)
    assert address == READ[text]
    assert read_address(address.url) == address
    ours = connect(address).connection_pool.connection_kwargs
    theirs = of_kombu(address)
    names = {"username", "password", "db", "path"} | {name for name in ours if name.startswith("ssl_")}
    names |= {"host", "port"} if address.host else set()
    assert {name: ours.get(name) for name in names} == {name: theirs.get(name) for name in names}
    if address.sentinels is None:
        assert theirs["connection_class"] is connect(address).connection_pool.connection_class


def test_behind_sentinels_kombu_asks_all_of_them_for_that_master() -> None:
    with make_app({"CELERYPIPE_REDIS_URL": SENTINELS}).connection_for_write() as connection:
        assert [url_to_parts(each)[1:3] for each in connection.alt] == [("one", 1), ("::1", 2), ("three", 26379)]
        options = connection.transport_options
    assert options["master_name"] == "mymaster"
    assert "h&den" in options["sentinel_kwargs"].values()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("box:6379", "is no Redis URL; write redis://host:6379/0"),
        ("amqp://:s3cret@box//", "is no Redis URL"),
        ("redis://:s3c#ret@box", "no # may stand in it; in user and password write % as %25"),
        ("redis://:s3c/ret@box", "/ as %2F"),
        ("redis://:s3c?ret@box", "? as %3F"),
        ("redis://:s3cret", "its host and port cannot be read"),
        ("redis://::1", "write host:6379, or [::1]:6379"),
        ("redis://box:99999", "a port is a number from 1 to 65535"),
        ("redis://box/first", "a database is a number, as in redis://host:6379/0"),
        ("redis://box/1?db=2", "it says two databases"),
        ("redis://me:s3cret@box?password=another", "it says password twice"),
        ("redis://box?db=1&db=1", "it says an option twice"),
        ("redis://box?socket_timeout=5", "leave socket_timeout out"),
        ("redis://box?protocol=3", "leave protocol out"),
        ("redis://box?paswword=s3cret", "unknown option 'paswword'; did you mean 'password'?"),
        ("redis://box?ssl_ca_certs=ca.pem", "ssl_ options need rediss://, with two s"),
        ("rediss://box?ssl_cert_reqs=maybe", "ssl_cert_reqs is one of required, optional, none"),
        ("rediss://box?ssl_check_hostname=maybe", "ssl_check_hostname is true or false"),
        ("redis://b\nox", "a character that cannot be printed"),
        ("unix://run/redis.sock", "a socket is a path that begins with /"),
        ("unix:///", "a socket is a path that begins with /"),
        ("sentinel://me:s3cret@one:1,two:2", "names no master; write sentinel://"),
        ("sentinel://me:s3cret@one:1/0", "names no master"),
        ("sentinel://me:s3cret@/mymaster", "names no Sentinel"),
        ("sentinel://me:s3cret@one,,two/mymaster", "names no Sentinel"),
        ("sentinel://me:s3cret@one:port/mymaster", "its host and port cannot be read"),
        ("sentinel://me:s3cret@one/mymaster/first", "a database is a number"),
        ("sentinel://one/mymaster?client_name=s3cret", "sentinel_username, sentinel_password is set by"),
        ("sentinel://me:s3cret@one:1/0;sentinel://me:s3cret@two:1/0", "names no master"),
        ("sentinel://one:1/mine;sentinel://two:1/yours", "its Sentinels do not share path"),
    ],
)
def test_a_wrong_one_says_what_is_wrong_and_no_secret(url: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment({"CELERYPIPE_REDIS_URL": url})
    assert str(caught.value).startswith("CELERYPIPE_REDIS_URL: ")
    assert complaint in str(caught.value)
    assert "s3c" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://", "celery -A celerypipe worker -Q 'a b'"),
        ("redis://box:1/2", "CELERYPIPE_REDIS_URL=redis://box:1/2 celery -A celerypipe worker -Q 'a b'"),
        (
            "redis://:s%40cret@box",
            "CELERYPIPE_REDIS_URL='redis://:***@box:6379/0' celery -A celerypipe worker -Q 'a b'",
        ),
    ],
)
def test_the_command_for_a_worker_leads_it_to_the_same_redis(url: str, words: str) -> None:
    address = read_address(url)
    assert address.worker_command("a b") == words
    assert replace(address, namespace="team").worker_command("a b") == f"CELERYPIPE_NAMESPACE=team {words}"


def test_what_is_no_text_is_no_address() -> None:
    with pytest.raises(ConfigError, match="a Redis URL is a text, not int; write redis://host:6379/0"):
        Runner(redis=6379)  # type: ignore[arg-type]


def test_kombu_is_told_to_encrypt_and_to_verify() -> None:
    """It sends everything in the clear to a ``rediss://`` that says nothing about certificates."""
    told = of_kombu(read_address("rediss://box"))
    made = told.pop("connection_class")(db=told["db"], **{k: v for k, v in told.items() if k.startswith("ssl_")})
    assert made.cert_reqs == ssl.CERT_REQUIRED
    assert made.check_hostname
