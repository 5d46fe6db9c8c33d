"""Where a store is: one server, a service that Sentinels know, or a slot of a cluster."""

from typing import Literal, NamedTuple
from urllib.parse import SplitResult, unquote

__all__ = ["Address", "Host", "Trust", "address_of"]

_PORT, _SENTINEL_PORT = 6379, 26379
_LAST_PORT = 65_535

Host = tuple[str, int]


class Trust(NamedTuple):
    """Files of TLS, in PEM: the authority that a server's certificate must be from, and what this side shows of itself.

    Without an authority those of the system are trusted.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class Address(NamedTuple):
    """Attributes:
    kind: `server`, or `sentinel` or `cluster`, whose `hosts` are asked where the server is.
    socket: path of a unix socket, instead of hosts.
    service: the name by which Sentinels know the server.
    sentinel_login: what the Sentinels themselves want to know of who asks: nothing, a password, or user and password.
    """

    kind: Literal["server", "sentinel", "cluster"]
    hosts: tuple[Host, ...]
    tls: bool = False
    socket: str | None = None
    service: str = ""
    user: str | None = None
    password: str | None = None
    db: int = 0
    sentinel_login: tuple[str, ...] = ()
    trust: Trust = Trust()

    def shown(self) -> str:
        """Give the address as a URL without its password."""
        if self.socket is not None:
            return f"unix://{self.socket}?db={self.db}"
        scheme = ("rediss" if self.tls else "redis") + ("" if self.kind == "server" else f"+{self.kind}")
        who = f"{self.user or ''}:***@" if self.password else ""
        hosts = ",".join(f"{f'[{name}]' if ':' in name else name}:{port}" for name, port in self.hosts)
        path = {"server": f"/{self.db}", "sentinel": f"/{self.service}/{self.db}", "cluster": ""}[self.kind]
        return f"{scheme}://{who}{hosts}{path}"


def address_of(parts: SplitResult, db: int | None = None) -> Address:
    """Read an address from the parts of a URL.

    Raises:
        ValueError: says what is wrong with it.
    """
    scheme, _, topology = parts.scheme.lower().partition("+")
    who, _, where = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    login = (unquote(user) or None, unquote(password) or None)
    if scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("it names no socket; write unix:///run/redis/redis.sock")
        return Address("server", (), False, unquote(parts.path), "", *login, db or 0)
    if db is not None:
        raise ValueError(
            "the option db is for unix:// only; write the number after the host, as in redis://host:6379/0"
        )
    tls = scheme == "rediss"
    path = [unquote(part) for part in parts.path.split("/") if part]
    if topology == "cluster":
        if path not in ([], ["0"]):
            raise ValueError("a cluster has no databases but 0; leave the path out")
        return Address("cluster", _hosts(where, _PORT), tls, None, "", *login)
    if topology == "sentinel":
        if not 1 <= len(path) <= 2:
            raise ValueError("it names no service; write redis+sentinel://host1,host2/service/0")
        return Address("sentinel", _hosts(where, _SENTINEL_PORT), tls, None, path[0], *login, _database(path[1:]))
    hosts = _hosts(where, _PORT)
    if len(hosts) > 1:
        raise ValueError("it names several hosts; write redis+cluster:// or redis+sentinel:// for those")
    return Address("server", hosts, tls, None, "", *login, _database(path))


def _hosts(where: str, port: int) -> tuple[Host, ...]:
    return tuple(_host(one, port) for one in (where or "localhost").split(","))


def _host(text: str, port: int) -> Host:
    name, separator, number = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        return text[1:-1], port
    if not separator:
        return text or "localhost", port
    if not number.isascii() or not number.isdecimal() or not 0 < int(number) <= _LAST_PORT:
        raise ValueError(f"{number!r} is no port")
    return name.strip("[]") or "localhost", int(number)


def _database(path: list[str]) -> int:
    if not path:
        return 0
    if len(path) > 1 or not path[0].isascii() or not path[0].isdecimal():
        raise ValueError(f"{'/'.join(path)!r} is no number of a database; write redis://host:6379/0")
    return int(path[0])
