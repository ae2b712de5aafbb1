"""The URL of a Redis behind Sentinels: read, written in kombu's form, shown without secrets."""

from __future__ import annotations

import pytest

from celerypipe.errors import ConfigError
from celerypipe.redis.sentinel import Sentinels
from celerypipe.redis.url import broker_url, client_url, without_password
from celerypipe.settings import Settings

WHOLE = "sentinel://me:s%40cret@one:1,[::1]:2,three/mymaster/4?sentinel_password=h%26den"


def test_everything_in_it_is_read_and_comes_back_from_kombus_form() -> None:
    sentinels = Sentinels.parse(WHOLE)
    assert sentinels.addresses == (("one", 1), ("::1", 2), ("three", 26379))
    assert (sentinels.master, sentinels.database) == ("mymaster", 4)
    assert sentinels.user == ("me", "s@cret")
    assert "h&den" in sentinels.asking.values()
    assert Sentinels.parse(sentinels.broker_url()) == sentinels
    assert client_url(broker_url(client_url(WHOLE))) == client_url(WHOLE)


def test_without_users_and_database_it_means_none_and_the_first() -> None:
    sentinels = Sentinels.parse("sentinel://here/mine")
    assert sentinels.addresses == (("here", 26379),)
    assert sentinels.user == (None, None)
    assert sentinels.database == 0
    assert broker_url("sentinel://here/mine") == "sentinel://here:26379/mine/0"


def test_no_secret_is_shown() -> None:
    assert without_password(WHOLE) == "sentinel://one:1,[::1]:2,three:26379/mymaster/4"
    assert without_password("sentinel://me:s3cret@one") == "sentinel://***"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sentinel://me:s3cret@one:1,two:2", "'sentinel://one:1,two:2' names no master; write sentinel://"),
        ("sentinel://me:s3cret@one:1/0", "names no master"),
        ("sentinel://me:s3cret@/mymaster", "names no Sentinel"),
        ("sentinel://me:s3cret@one,,two/mymaster", "names no Sentinel"),
        ("sentinel://me:s3cret@one:port/mymaster", "'one:port' is no address"),
        ("sentinel://me:s3cret@one/mymaster/first", "'first' is no database"),
        ("sentinel://one/mymaster?password=s3cret", "unknown option 'password'; there are sentinel_username and"),
        ("sentinel://me:s3cret@one:1/0;sentinel://me:s3cret@two:1/0", "names no master"),
    ],
)
def test_a_wrong_one_says_what_is_wrong_and_no_secret(url: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment({"CELERYPIPE_REDIS_URL": url})
    assert str(caught.value).startswith("CELERYPIPE_REDIS_URL: ")
    assert complaint in str(caught.value)
    assert "s3cret" not in str(caught.value)
