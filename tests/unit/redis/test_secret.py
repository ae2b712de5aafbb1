"""A password is shown nowhere, whatever it is made of and however an address is wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from celerypipe.celery.application import make_app
from celerypipe.celery.broker import kombu_form
from celerypipe.errors import ConfigError
from celerypipe.redis.address import Address, Sentinels
from celerypipe.redis.secret import hidden, hidden_in, seen_in_ps
from celerypipe.redis.url import read_address

#: No word of it is one that stands in an address or in a sentence about one.
PASSWORDS = st.text(st.characters(codec="utf-8"), min_size=1).map(lambda text: f"Zq{text}Xj")
FORMS = [
    "redis://:{}@host:6379/0",
    "rediss://me:{}@host:6379/0?ssl_ca_certs=/ca.pem",
    "unix://me:{}@/run/redis.sock?db=1",
    "sentinel://:{}@one,two/mymaster/0",
    "amqp://me:{}@host//",
    "redis://:{}",
    "redis:/:{}@host",
    ":{}@host:6379",
    "redis://host:6379/0?password={}",
    "rediss://host:6379/0?ssl_password={}&db=1",
    "sentinel://one/mymaster?sentinel_password={}",
]


@given(PASSWORDS, st.sampled_from(FORMS))
def test_nothing_of_a_password_is_shown_whatever_it_is_made_of(password: str, form: str) -> None:
    assume(form != "redis://:{}" or "@" not in password)  # there nobody can tell its end from a host
    url = form.format(password)
    said = [hidden(url), hidden_in(f"no such command ({url})"), seen_in_ps(["celery", "-b", url, f"--broker={url}"])]
    try:
        address = read_address(url)
    except ConfigError as error:
        said += [str(error), repr(error)]
    else:
        said += [str(address), repr(address), f"{address}"]
    for text in said:
        assert "Zq" not in text
        assert "Xj" not in text


@given(PASSWORDS)
def test_an_address_of_any_password_comes_back_and_kombu_hides_it(password: str) -> None:
    sentinels = Sentinels((("one", 1), ("two", 2)), "mine", password=password)
    for place in (Address("host", 1), Address(path="/r.sock"), Address(sentinels=sentinels)):
        address = Address(place.host, place.port, place.path, place.sentinels, user="me", password=password)
        assert read_address(address.url) == address
        connection = make_app({}).connection_for_write(**kombu_form(address))
        shown = [connection.as_uri(), repr({**connection.info(), "password": ""}), str(address), repr(address)]
        assert not any("Zq" in text for text in shown)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://pw@h:1/0", "redis://***@h:1/0"),
        ("redis://me:pw@h:1/0", "redis://me:***@h:1/0"),
        ("rediss://h:1/0", "rediss://h:1/0"),
        ("unix:///r.sock", "unix:///r.sock?db=0"),
        ("sentinel://h:1,i:2/m/0", "sentinel://h:1/0"),
        ("sentinel://:pw@h:1/m/0", "sentinel://***@h:1/0"),
    ],
)
def test_celery_shows_a_password_where_there_is_one(url: str, shown: str) -> None:
    assert make_app({"CELERYPIPE_REDIS_URL": url}).connection_for_write().as_uri() == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://me:pw@h:1/0", "redis://***@h:1/0"),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=***&db=1"),
        ("rediss://:pw@h/0?ssl_keyfile=/k&ssl_password=pw", "rediss://***@h/0?ssl_keyfile=/k&ssl_password=***"),
        ("unix:///s?db=0&password=pw", "unix:///s?db=0&password=***"),
        ("unix:///s?db=0", "unix:///s?db=0"),
        ("s3://me:pw@bucket/folder", "s3://***@bucket/folder"),
        ("file:///var/cache/results", "file:///var/cache/results"),
        ("localhost:6379", "localhost:6379"),
    ],
)
def test_what_is_harmless_is_shown(url: str, shown: str) -> None:
    assert hidden(url) == shown
    warned = seen_in_ps(["celery", "worker", "-b", url])
    assert bool(warned) == (url != shown)
    assert not re.search(r"\bpw\b", warned)
    assert seen_in_ps(["celery", "worker"]) == ""
