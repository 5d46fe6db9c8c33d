"""The server that holds a store: found, checked before it is used, and called by script within a deadline."""

import os
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from penstock.engines.redis.address import Address, Host
from penstock.engines.redis.errors import ELSEWHERE, FAILURES, PASSING, UNKNOWN_USER, Refusal, Translator
from penstock.engines.redis.scripts import Script, scripts_for
from penstock.engines.redis.wire import Reply, Wire, Word
from penstock.model.errors import EngineDown, SchemaMismatch, StoreInvalid

__all__ = ["OLDEST", "SCHEMA", "Facts", "Server", "facts_of", "find_host", "slot_of"]

OLDEST = (6, 2)
#: What stands where in the store; `lua/common.lua` describes it.
SCHEMA = 1
_SLOTS = 16_384
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.3
_KEPT = 16


class Facts(NamedTuple):
    """What a server says of itself; `fields` are those of INFO."""

    fields: dict[str, str]

    @property
    def version(self) -> tuple[int, ...]:
        """The version of Redis that it is like."""
        return tuple(int(part) for part in self.fields.get("redis_version", "0").split(".")[:3] if part.isdecimal())

    @property
    def name(self) -> str:
        valkey = self.fields.get("valkey_version")
        return f"Valkey {valkey}" if valkey else f"Redis {self.fields.get('redis_version', 'of unknown version')}"

    @property
    def is_replica(self) -> bool:
        return self.fields.get("role") == "slave"

    @property
    def came_back(self) -> bool:
        """Whether it is surely a master that was restarted from its own snapshot, and no replica that took over.

        Both show an earlier replication id and the offset up to which it held. A replica has read from its master, and
        has in its backlog what came before it took over; only the backlog of a restarted master begins at that offset.
        """
        begins, second = (self.fields.get(name) for name in ("repl_backlog_first_byte_offset", "second_repl_offset"))
        return begins == second and self.fields.get("total_net_repl_input_bytes") == "0"

    @property
    def policy(self) -> str:
        return self.fields.get("maxmemory_policy", "noeviction")


def facts_of(wire: Wire) -> Facts:
    lines = wire.command(("INFO",)).decode("utf-8", "replace").splitlines()
    return Facts(dict(line.split(":", 1) for line in lines if ":" in line))


class Server:
    """Connections to the server of one store; thread-safe, and usable after a fork.

    Args:
        prefix: what every key begins with, its hash tag included.
        any_eviction: whether a server that may throw jobs away is taken nevertheless.
    """

    def __init__(self, address: Address, prefix: str, *, timeout_s: float, any_eviction: bool) -> None:
        self.address, self.prefix, self.timeout_s = address, prefix.encode(), timeout_s
        self._any_eviction = any_eviction
        self._translator = Translator(address.shown(), timeout_s)
        self.translated = self._translator.translated
        self._start()

    def _start(self) -> None:
        self._free: list[Wire] = []
        self._scripts: dict[str, Script] = {}
        self._host: Host | None = None
        self._is_checked = False
        self._pid = os.getpid()  # last: from then on other threads take what is free

    def run(self, verb: str, arguments: Sequence[Word]) -> Reply:
        """Run the script of a verb.

        Raises:
            EngineUnavailable: in time.
        """
        return self._do(lambda wire: self._run_on(wire, verb, arguments), self.timeout_s)

    def command(self, *words: Word, within_s: float | None = None) -> Reply:
        """Do a plain command, within the time that every call has, or another one."""
        return self._do(lambda wire: wire.command(words), self.timeout_s if within_s is None else within_s)

    def _run_on(self, wire: Wire, verb: str, arguments: Sequence[Word]) -> Reply:
        script = self._scripts[verb]
        words = ("EVALSHA", script.digest, 1, self.prefix, *arguments)
        try:
            return wire.command(words)
        except Refusal as refusal:
            if refusal.code != "NOSCRIPT":
                raise
        wire.command(("SCRIPT", "LOAD", script.text))
        return wire.command(words)

    # -- connections --------------------------------------------------------------------------------------------------

    def _do(self, action: Callable[[Wire], Reply], within_s: float) -> Reply:
        deadline = time.monotonic() + within_s
        pause_s = _SHORTEST_PAUSE_S
        while True:
            try:
                return self._once(action, deadline)
            except Refusal as refusal:
                if refusal.code not in PASSING or time.monotonic() + pause_s > deadline:
                    raise self._translator.told(refusal) from refusal
                if refusal.code in ELSEWHERE:
                    self.close()
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _once(self, action: Callable[[Wire], Reply], deadline: float) -> Reply:
        try:
            wire = self._borrow(deadline)
        except (*FAILURES, UnicodeError) as error:  # no network knows a host with such a name
            self.close()
            raise self._translator.told(error) from error
        try:
            reply = action(wire)
        except Refusal:
            self._give_back(wire)
            raise
        except FAILURES as error:
            wire.abandon()
            self.close()
            raise self._translator.told(error) from error
        except BaseException:
            wire.close()
            raise
        self._give_back(wire)
        return reply

    def _borrow(self, deadline: float) -> Wire:
        """Give a connection that nobody uses, a new one if there is none."""
        if self._pid != os.getpid():
            self._start()  # what the parent opened is its own
        while self._free:
            try:
                wire = self._free.pop()
            except IndexError:
                break
            if wire.is_sound():
                wire.deadline = deadline
                return wire
            wire.close()
            self.close()  # the server may have been restarted, or another one be there
        return self._connect(deadline)

    def _give_back(self, wire: Wire) -> None:
        if len(self._free) < _KEPT:
            self._free.append(wire)
        else:
            wire.close()

    def _connect(self, deadline: float) -> Wire:
        if self._host is None and self.address.socket is None:
            self._host = find_host(self.address, self.prefix, deadline)
        wire = Wire(self.address, self._host, deadline)
        try:
            if not self._is_checked:
                self._check(wire)
        except BaseException:
            wire.close()
            raise
        return wire

    def _check(self, wire: Wire) -> None:
        """See that a server is fit for a store, and make the store or see that it is one that is known."""
        facts = facts_of(wire)
        if facts.is_replica:
            raise Refusal("READONLY this server is a replica")
        if facts.version < OLDEST:
            raise StoreInvalid(f"{self.address.shown()} is {facts.name}; penstock needs 6.2 or newer.")
        if facts.policy != "noeviction" and not self._any_eviction:
            raise StoreInvalid(
                f"{self.address.shown()} has maxmemory-policy {facts.policy}, by which it may throw jobs away. "
                "Set it: redis-cli CONFIG SET maxmemory-policy noeviction; or add ?any_eviction=yes to the URL."
            )
        self._scripts = scripts_for(facts.version)
        replids = (facts.fields.get("master_replid", ""), facts.fields.get("master_replid2", ""))
        found, epoch, replid = wire.command(("HMGET", self.prefix + b"meta", "schema", "epoch", "replid"))
        if epoch is None or replids[0].encode() not in (b"", replid):  # a server that cannot write is only read
            told = ("", SCHEMA, os.urandom(8).hex(), *replids, int(facts.came_back))
            found = self._run_on(wire, "open", told)[0]
        found = int(found)
        if found != SCHEMA:
            raise SchemaMismatch(
                found,
                SCHEMA,
                f"{self.address.shown()} holds a store of schema {found}; this penstock knows {SCHEMA}. "
                "Use the version that wrote it, or another prefix.",
            )
        self._is_checked = True

    def close(self) -> None:
        """Let go of all connections, and look the server up and check it again before the next call."""
        free, is_own = self._free, self._pid == os.getpid()
        self._free, self._host, self._is_checked = [], None, False
        for wire in free if is_own else ():
            wire.close()


# -- where the server is ----------------------------------------------------------------------------------------------


def find_host(address: Address, prefix: bytes, deadline: float) -> Host:
    """Give the server to talk to, from the address itself or from those that know.

    Raises:
        OSError: none of them can be reached.
        EngineDown: none of them knows it.
    """
    if address.kind == "server":
        return address.hosts[0]
    ask = _ask_sentinel if address.kind == "sentinel" else _ask_cluster
    failure: OSError | Refusal | None = None
    for host in address.hosts:
        try:
            found = ask(address, host, prefix, deadline)
        except (OSError, Refusal) as error:
            failure = error
            continue
        if found is not None:
            return found
    if failure is not None:
        raise failure
    raise EngineDown(f"None of {address.shown()} knows the master; check the name of the service and the cluster.")


def _ask_sentinel(address: Address, host: Host, _: bytes, deadline: float) -> Host | None:
    wire = Wire(address, host, deadline, login=False)
    try:
        if address.sentinel_login:
            wire.command(("AUTH", *address.sentinel_login))
        reply = wire.command(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service))
    except Refusal as refusal:
        own = "; a Sentinel's own password goes into ?sentinel_password=" if refusal.code in UNKNOWN_USER else ""
        raise Refusal(f"{str(refusal).rstrip('.')} (the Sentinel {host[0]}:{host[1]}{own})") from refusal
    finally:
        wire.close()
    return None if reply is None else (reply[0].decode(), int(reply[1]))


def _ask_cluster(address: Address, host: Host, prefix: bytes, deadline: float) -> Host | None:
    wire = Wire(address, host, deadline)
    try:
        ranges = wire.command(("CLUSTER", "SLOTS"))
    finally:
        wire.close()
    slot = slot_of(prefix)
    for first, last, master, *_ in ranges:
        if first <= slot <= last:
            return (master[0].decode() if master[0] else host[0]), int(master[1])
    return None


def slot_of(key: bytes) -> int:
    """Give the slot of a key by its hash tag.

    Source: Redis cluster specification, "Hash tags"; CRC-16/XMODEM.

    >>> slot_of(b"{penstock}:jobs") == slot_of(b"penstock")
    True
    """
    _, opened, rest = key.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    crc = 0
    for byte in tag if opened and closed and tag else key:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % _SLOTS
