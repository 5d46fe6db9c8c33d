"""From a URL to a store on Redis."""

import time
from typing import Any
from urllib.parse import SplitResult

from penstock.engine import Clock, Examination
from penstock.engines.redis.address import Address, Trust, address_of
from penstock.engines.redis.engine import RedisEngine
from penstock.engines.redis.errors import Translator
from penstock.engines.redis.inspection import inspect
from penstock.engines.redis.server import SCHEMA, find_host
from penstock.engines.redis.wire import Wire

__all__ = ["examine", "is_there", "open_redis"]

_TIMEOUT_S = 5.0
_OF_THE_ADDRESS = frozenset({"db", "sentinel_user", "sentinel_password", "tls_ca", "tls_cert", "tls_key"})


def open_redis(parts: SplitResult, options: dict[str, Any], clock: Clock | None) -> RedisEngine:
    """Give an engine; no connection is made yet."""
    given = {name: value for name, value in options.items() if name not in _OF_THE_ADDRESS}
    return RedisEngine(_address(parts, options), clock=clock, **given)


def _address(parts: SplitResult, options: dict[str, Any]) -> Address:
    user, password = (options.get(f"sentinel_{name}") for name in ("user", "password"))
    login = tuple(word for word in (user, password) if word)
    trust = Trust(*(options.get(f"tls_{name}") for name in Trust._fields))
    return address_of(parts, options.get("db"))._replace(sentinel_login=login, trust=trust)


def is_there(parts: SplitResult, options: dict[str, Any]) -> bool:
    """Say whether the server holds a store under the prefix.

    Raises:
        EngineUnavailable: it cannot be reached.
    """
    address, timeout_s = _address(parts, options), options.get("timeout_s", _TIMEOUT_S)
    prefix = f"{{{options.get('prefix', 'penstock')}}}:"
    with Translator(address.shown(), timeout_s).translated():
        deadline = time.monotonic() + timeout_s
        host = None if address.socket is not None else find_host(address, prefix.encode(), deadline)
        wire = Wire(address, host, deadline)
        try:
            return bool(wire.command(("EXISTS", f"{prefix}meta")))
        finally:
            wire.close()


def examine(parts: SplitResult, options: dict[str, Any], _deep: bool) -> Examination:
    """Look at the server and the store on it; a deep look sees no more here."""
    address, timeout_s = _address(parts, options), options.get("timeout_s", _TIMEOUT_S)
    return inspect(address, options.get("prefix", "penstock"), timeout_s=timeout_s, schema=SCHEMA)
