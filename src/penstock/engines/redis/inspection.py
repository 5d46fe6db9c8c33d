"""What a server's live settings promise, and a look at it from outside."""

import time
from collections.abc import Callable, Iterator, Sequence

from penstock.engine import Examination, Finding
from penstock.engines.redis.address import Address, Host
from penstock.engines.redis.errors import Refusal, Translator
from penstock.engines.redis.server import OLDEST, Facts, facts_of, find_host
from penstock.engines.redis.wire import Reply, Wire
from penstock.model.errors import EngineError

__all__ = ["durability_of", "inspect", "notes_of", "settings_of"]

Settings = dict[str, str] | None

#: Settings that say from where a server is reached.
_REACHED_BY = ("bind", "protected-mode", "port", "tls-port")
#: From here on protected-mode also holds where addresses to bind to are given.
_PROTECTS_ALL = (7,)

_SLOW_S = 0.005
_NEARLY_FULL = 0.9
_MIB = 1024**2


def settings_of(command: Callable[..., Reply]) -> tuple[Facts, Settings]:
    """Ask a server for its facts, and for the settings that count; None if it does not tell them."""
    lines = command("INFO").decode("utf-8", "replace").splitlines()
    facts = Facts(dict(line.split(":", 1) for line in lines if ":" in line))
    try:
        return facts, _told(command("CONFIG", "GET", "*append*"))
    except EngineError:
        return facts, None


def _told(pairs: Sequence[bytes]) -> dict[str, str]:
    return {pairs[at].decode(): pairs[at + 1].decode("utf-8", "replace") for at in range(0, len(pairs), 2)}


def durability_of(facts: Facts, settings: Settings) -> str:
    """Give the class of what a server's settings promise; without an append-only file there is no promise."""
    if facts.fields.get("aof_enabled") != "1":
        return "D0"
    if settings is None:
        return "D1"
    if settings.get("no-appendfsync-on-rewrite") == "yes":
        return "D0"
    return {"always": "D2", "everysec": "D1"}.get(settings.get("appendfsync", ""), "D0")


def notes_of(facts: Facts, settings: Settings) -> Iterator[str]:
    fields = facts.fields
    if fields.get("aof_enabled") != "1":
        yield "No append-only file: accepted jobs are lost with the server. Set appendonly yes."
    elif settings is None:
        yield "The server does not tell its settings; appendfsync everysec is assumed."
    elif settings.get("no-appendfsync-on-rewrite") == "yes":
        yield "no-appendfsync-on-rewrite yes: nothing is synced while the log is rewritten. Set it to no."
    elif settings.get("appendfsync") == "everysec":
        yield "appendfsync everysec: up to 2 s of accepted jobs may be lost when the server or its machine crashes."
    elif settings.get("appendfsync") == "no":
        yield "appendfsync no: what the system has not written yet is lost when the machine crashes."
    if facts.policy != "noeviction":
        yield f"maxmemory-policy {facts.policy}: the server may throw jobs away. Set noeviction."


def inspect(address: Address, prefix: str, *, timeout_s: float, schema: int) -> Examination:
    """Examine a server and the store on it, without making one."""
    try:
        with Translator(address.shown(), timeout_s).translated():
            deadline = time.monotonic() + timeout_s
            host = None if address.socket is not None else find_host(address, prefix.encode(), deadline)
            guarded = _asks_for_a_password(address, host, deadline)
            wire = Wire(address, host, deadline)
    except EngineError as error:
        unreachable = Finding("server", "fault", str(error))
        return Examination(exists=False, findings=(unreachable,), known_schema=schema)
    try:
        with Translator(address.shown(), timeout_s).translated():
            return _examined(wire, address, prefix, schema, guarded=guarded)
    finally:
        wire.close()


def _examined(wire: Wire, address: Address, prefix: str, schema: int, *, guarded: bool) -> Examination:
    facts, settings = facts_of(wire), _settings_on(wire)
    stored = wire.command(("HGET", f"{{{prefix}}}:meta", "schema"))
    findings = (
        _version(facts),
        _role(facts),
        _latency(wire),
        _policy(facts),
        _memory(facts),
        *_durability(facts, settings),
        *_persistence(facts),
        _replicas(facts),
        _access(facts, settings, guarded=guarded, by_socket=address.socket is not None),
    )
    return Examination(
        exists=stored is not None,
        findings=findings,
        schema=None if stored is None else int(stored),
        known_schema=schema,
    )


def _settings_on(wire: Wire) -> Settings:
    try:
        return {
            name: value
            for asked in ("*append*", *_REACHED_BY)
            for name, value in _told(wire.command(("CONFIG", "GET", asked))).items()
        }
    except Refusal:
        return None


def _asks_for_a_password(address: Address, host: Host | None, deadline: float) -> bool:
    """Say whether the server refuses who does not log in: what it is set to says that in too many ways."""
    stranger = Wire(address, host, deadline, login=False)
    try:
        stranger.command(("PING",))
    except Refusal as refusal:
        if refusal.code != "NOAUTH":
            raise
        return True
    finally:
        stranger.close()
    return False


def _version(facts: Facts) -> Finding:
    if facts.version < OLDEST:
        return Finding("server", "fault", f"{facts.name} is too old", "Use Redis 6.2 or newer, or Valkey.")
    return Finding("server", "ok", facts.name)


def _role(facts: Facts) -> Finding:
    if facts.is_replica:
        return Finding("role", "fault", "it is a replica, which takes no jobs", "Give the address of its master.")
    return Finding("role", "ok", "master")


def _latency(wire: Wire) -> Finding:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        wire.command(("PING",))
        taken.append(time.perf_counter() - began)
    median = sorted(taken)[2]
    found = f"a PING takes {median * 1000:.2f} ms"
    if median > _SLOW_S:
        return Finding("latency", "warning", found, "Every enqueue takes as long; move the server closer.")
    return Finding("latency", "ok", found)


def _policy(facts: Facts) -> Finding:
    if facts.policy == "noeviction":
        return Finding("eviction", "ok", "maxmemory-policy noeviction")
    return Finding(
        "eviction",
        "fault",
        f"maxmemory-policy {facts.policy}: the server may throw jobs away",
        "redis-cli CONFIG SET maxmemory-policy noeviction, and in redis.conf.",
    )


def _memory(facts: Facts) -> Finding:
    used, most = int(facts.fields.get("used_memory", 0)), int(facts.fields.get("maxmemory", 0))
    if not most:
        return Finding(
            "memory",
            "warning",
            f"{used / _MIB:.0f} MiB used, no maxmemory: a long queue ends when the system kills the server",
            "Set maxmemory below what the machine has; new jobs are refused at that bound.",
        )
    found = f"{used / _MIB:.0f} of {most / _MIB:.0f} MiB used"
    if used > _NEARLY_FULL * most:
        return Finding("memory", "warning", found, "Add workers or memory: at the bound new jobs are refused.")
    return Finding("memory", "ok", found)


def _durability(facts: Facts, settings: Settings) -> Iterator[Finding]:
    promised = durability_of(facts, settings)
    notes = [note for note in notes_of(facts, settings) if "append" in note]
    found = "; ".join([promised, *notes])
    if promised == "D0":
        yield Finding("durability", "warning", found, "Set appendonly yes and appendfsync everysec or always.")
    else:
        yield Finding("durability", "ok", found)


def _persistence(facts: Facts) -> Iterator[Finding]:
    for name, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if facts.fields.get(name, "ok") != "ok":
            yield Finding("disk", "fault", f"the last write of the {what} failed", "See the server's log; free space.")


def _replicas(facts: Facts) -> Finding:
    return Finding("replicas", "ok", f"{facts.fields.get('connected_slaves', '0')} connected")


def _access(facts: Facts, settings: Settings, *, guarded: bool, by_socket: bool) -> Finding:
    if guarded:
        return Finding("access", "ok", "it does nothing without a password")
    if settings is None:
        found = "no password: whoever reaches the port can read and change every job"
        return Finding("access", "warning", found, "Set requirepass or an ACL, and give it in the URL.")
    shut = _shut_to_others(facts, settings)
    if shut and by_socket and settings.get("port") == settings.get("tls-port", "0") == "0":
        return Finding("access", "ok", f"no password, but {shut}")
    if shut:
        found = f"no password; {shut}, so that every program of that machine can read and change every job"
        return Finding("access", "warning", found, "Set requirepass or an ACL, and give it in the URL.")
    return Finding(
        "access",
        "warning",
        f"no password, and other hosts reach it (bind {settings.get('bind') or 'to all addresses'}, protected-mode "
        f"{settings.get('protected-mode', 'no')}): whoever does can read, change and delete every job",
        "Set requirepass or an ACL and give it in the URL, or set bind 127.0.0.1 if all workers run on that machine.",
    )


def _shut_to_others(facts: Facts, settings: dict[str, str]) -> str:
    """Say by what other hosts are shut out of a server without a password; empty if they are not."""
    if settings.get("port") == settings.get("tls-port", "0") == "0":
        return "it listens on a socket only"
    bound = [address.removeprefix("-") for address in settings.get("bind", "").split()]
    if bound and all(_is_loopback(address) for address in bound):
        return f"it is bound to {' '.join(bound)}"
    if settings.get("protected-mode") == "yes" and (facts.version >= _PROTECTS_ALL or not bound):
        return "protected-mode shuts out other hosts"
    return ""


def _is_loopback(address: str) -> bool:
    return address == "localhost" or address == "::1" or address.startswith("127.")
