"""URLs of the Redis engine: what they name, and what is wrong with those that name nothing."""

from urllib.parse import urlsplit

import pytest

from penstock.engines.open import check_url, open_engine
from penstock.engines.redis.address import Address, address_of
from penstock.model.errors import EngineUnknown

LOCAL = (("localhost", 6379),)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address("server", LOCAL)),
        ("redis://box", Address("server", (("box", 6379),))),
        ("rediss://box:7000/3", Address("server", (("box", 7000),), tls=True, db=3)),
        ("redis://:p%40ss@box", Address("server", (("box", 6379),), password="p@ss")),
        ("redis://app:pw@[::1]:7000", Address("server", (("::1", 7000),), user="app", password="pw")),
        ("redis://[::1]", Address("server", (("::1", 6379),))),
        ("unix:///run/r%20s.sock", Address("server", (), socket="/run/r s.sock")),
        ("redis+cluster://a,b:7001", Address("cluster", (("a", 6379), ("b", 7001)))),
        ("redis+sentinel://a,b:1/jobs", Address("sentinel", (("a", 26379), ("b", 1)), service="jobs")),
        ("rediss+sentinel://a/jobs/4", Address("sentinel", (("a", 26379),), tls=True, service="jobs", db=4)),
    ],
)
def test_url_names_its_server(url: str, address: Address) -> None:
    assert address_of(urlsplit(url)) == address


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://box:port", "'port' is no port"),
        ("redis://box:70000", "no port"),
        ("redis://box/one", "no number of a database"),
        ("redis://box/1/2", "no number of a database"),
        ("redis://a,b", "redis\\+cluster"),
        ("redis+cluster://a/1", "no databases but 0"),
        ("redis+sentinel://a", "names no service"),
        ("unix://", "names no socket"),
        ("redis://box?prefix=a:b", "prefix='a:b'"),
        ("redis://box?any_eviction=perhaps", "yes or no"),
        ("redis://box?db=1", "'db', which is not known"),
        ("unix:///s?db=x", "number of a database"),
        ("redis://box?timeot=1s", "Did you mean 'timeout'"),
    ],
)
def test_url_that_names_no_server_says_what_is_wrong(url: str, said: str) -> None:
    with pytest.raises(EngineUnknown, match=said):
        check_url(url)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (Address("server", (("box", 1),), tls=True, user="app", password="pw", db=2), "rediss://app:***@box:1/2"),
        (Address("server", (), socket="/s", password="pw"), "unix:///s?db=0"),
        (Address("sentinel", (("a", 1), ("b", 2)), service="jobs"), "redis+sentinel://a:1,b:2/jobs/0"),
        (Address("cluster", (("::1", 1),), password="pw"), "redis+cluster://:***@[::1]:1"),
    ],
)
def test_address_is_shown_without_its_password(address: Address, shown: str) -> None:
    assert address.shown() == shown


def test_opening_makes_no_connection() -> None:
    open_engine("redis://127.0.0.1:1/0").close()
