"""What Redis, the network or a stored value says of a failure, in penstock's words."""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import hiredis
import msgspec

from penstock.model.errors import EngineBusy, EngineDown, EngineError, EngineFull, EngineReadOnly, StoreCorrupt

#: Answers by which a server says that it did nothing and may do it soon, or that another one does now.
PASSING = frozenset({"LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "MOVED", "ASK"})
#: Those of them after which the address has to be looked up again.
ELSEWHERE = frozenset({"READONLY", "MOVED", "ASK", "CLUSTERDOWN", "MASTERDOWN"})

#: Answers to who has not logged in, or with a password that is not right.
UNKNOWN_USER = frozenset({"NOAUTH", "WRONGPASS"})

#: By words of answers that have no code of their own.
_REMEDIES = {
    "DB index is out of range": "See redis-cli CONFIG GET databases; several stores can share one by ?prefix=.",
    "without any password": "Leave user and password out of the URL.",
    "'SENTINEL'": "It is no Sentinel; write redis://host:port for the server itself.",
    "cluster support disabled": "It is no node of a cluster; write redis://host:port.",
}

_REFUSED = UNKNOWN_USER | {"NOPERM"}
# What a command in a script was refused for, as a server before 7 tells it.
_INSIDE = re.compile(r": -(OOM|MISCONF|READONLY|NOPERM)\b")


#: How a connection fails: the network, or a peer that is no Redis.
FAILURES = (OSError, hiredis.HiredisError)


class Refusal(Exception):
    """An answer that is an error; `code` is its first word, or that of the error inside a script."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        inside = _INSIDE.search(said) if said.startswith("ERR ") else None
        self.code = said.partition(" ")[0] if inside is None else inside[1]


class CertificateUnfit(OSError):
    """A file of TLS that was named cannot be used; says which and why."""


class HandshakeTimeout(TimeoutError):
    """A peer took the connection and then did not speak TLS in time."""


class Translator:
    """Tells of the failures of one store."""

    def __init__(self, shown: str, timeout_s: float) -> None:
        self._shown, self._timeout_s = shown, timeout_s

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what the driver, the system or a value that cannot be read raises into penstock's errors."""
        try:
            yield
        except (Refusal, *FAILURES, msgspec.DecodeError, struct.error) as error:
            raise self.told(error) from error

    def told(self, error: Exception) -> EngineError:
        """Give the error to raise in place of the driver's."""
        if isinstance(error, Refusal):
            return self._of_server(error)
        if isinstance(error, HandshakeTimeout):
            return EngineBusy(
                f"{self._shown} did not agree on TLS within {self._timeout_s:g} s. Write redis:// if its port is "
                "without TLS; else try again."
            )
        if isinstance(error, TimeoutError):
            return EngineBusy(
                f"{self._shown} did not answer within {self._timeout_s:g} s. Try again; if it stays so, see "
                "`redis-cli SLOWLOG GET` and the load of its machine."
            )
        if isinstance(error, OSError):
            return self._of_network(error)
        if isinstance(error, hiredis.HiredisError):
            return EngineDown(f"{self._shown} does not speak as Redis does: {error}. Check host, port and TLS.")
        if isinstance(error, UnicodeError):
            return EngineDown(f"{self._shown} cannot be reached: {error}. Check the name of its host.")
        return StoreCorrupt(
            f"{self._shown} holds a value that cannot be read ({error}). Stop all workers and restore a backup."
        )

    def _of_network(self, error: OSError) -> EngineError:
        import ssl

        if isinstance(error, CertificateUnfit):
            return EngineDown(f"{self._shown}: {error}. Give PEM files in ?tls_ca=, ?tls_cert= and ?tls_key=.")
        if isinstance(error, ssl.SSLCertVerificationError):
            return EngineDown(
                f"{self._shown} shows a certificate that is not trusted: {error.verify_message}. If its authority is "
                "your own, name its file: ?tls_ca=/path/ca.pem; the certificate must be for the host in the URL."
            )
        if isinstance(error, ssl.SSLError):
            return EngineDown(
                f"{self._shown} does not agree on TLS: {error.reason or error}. Write redis:// if its port is without "
                "TLS; if it asks for a certificate, name it: ?tls_cert=/path/cert.pem&tls_key=/path/key.pem."
            )
        hint = " A port that is for TLS only needs rediss://." if isinstance(error, ConnectionResetError) else ""
        return EngineDown(
            f"{self._shown} cannot be reached: {error}. Check that it runs and the address is right.{hint}"
        )

    def _of_server(self, error: Refusal) -> EngineError:
        said = f"{self._shown} says: {str(error).rstrip('.?')}."
        if error.code == "OOM":
            return EngineFull(f"{said} New jobs are refused until memory is free; running ones end. Raise maxmemory.")
        if error.code == "MISCONF":
            return EngineFull(f"{said} It cannot write to its disk; free space there, and it goes on by itself.")
        if error.code == "READONLY":
            return EngineReadOnly(f"{said} It is a replica; give the address of its master.")
        if error.code in {"BUSY", "TRYAGAIN"}:
            return EngineBusy(f"{said} Try again.")
        if error.code in _REFUSED:
            return EngineDown(f"{said} Check user and password in the URL, and the rights of that user.")
        remedy = next((remedy for words, remedy in _REMEDIES.items() if words in str(error)), "")
        return EngineDown(f"{said} {remedy}".rstrip())
