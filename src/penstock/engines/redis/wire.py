"""One connection to a Redis server: RESP2 over TCP, TLS or a unix socket.

A command and its answer cost one write and one read. The general clients of Redis do more for each call than a single
enqueue has time for; what the engine needs of them fits here.
"""

import contextlib
import select
import socket
import struct
import time
from typing import Any, cast

import hiredis

from penstock.engines.redis.address import Address, Host, Trust
from penstock.engines.redis.errors import CertificateUnfit, HandshakeTimeout, Refusal

__all__ = ["Reply", "Wire", "Word", "left_until"]

#: What a command answers: numbers, bytes, None, or lists of them.
Reply = Any
Word = str | int | bytes

_READ_BYTES = 65_536
_IDLE_S = 1.0
_NO_LINGER = struct.pack("ii", 1, 0)


class Wire:
    """A connection that is open, logged in and in its database. Not thread-safe.

    Args:
        host: where to connect; None for the socket of the address.
        deadline: until when, in steady seconds, connecting and every answer must have come; may be set anew.

    Raises:
        OSError: it cannot be reached in time.
        Refusal: it does not let this user in.
    """

    def __init__(self, address: Address, host: Host | None, deadline: float, *, login: bool = True) -> None:
        self._reader = hiredis.Reader()
        self.deadline = deadline
        self._socket = _connect(address, host, left_until(deadline))
        self._used = time.monotonic()
        try:
            if login:
                self._log_in(address)
        except BaseException:
            self.close()
            raise

    def _log_in(self, address: Address) -> None:
        if address.password is not None:
            login = (address.password,) if address.user is None else (address.user, address.password)
            self.command(("AUTH", *login))
        if address.db:
            self.command(("SELECT", address.db))

    def command(self, words: tuple[Word, ...]) -> Reply:
        """Do one command.

        Raises:
            Refusal: the server answered with an error; the connection is as good as before.
            OSError: the connection failed or the answer took too long; whether the command was done is not known.
        """
        self._socket.settimeout(left_until(self.deadline))
        self._socket.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub takes one word
        reply = self._reader.gets()
        while reply is False:
            self._socket.settimeout(left_until(self.deadline))
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
            reply = self._reader.gets()
        self._used = time.monotonic()
        if isinstance(reply, hiredis.ReplyError):
            raise Refusal(str(reply))
        return reply

    def is_sound(self) -> bool:
        """Say whether the server has not closed a connection that lay idle; nothing unasked for ever comes on it."""
        if time.monotonic() - self._used < _IDLE_S:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLHUP)
        return not poll.poll(0)

    def abandon(self) -> None:
        """Close so that what is still on its way is not delivered later, where that can be helped."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.close()

    def close(self) -> None:
        self._socket.close()


def left_until(deadline: float) -> float:
    """Give the seconds that are left.

    Raises:
        TimeoutError: none are.
    """
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the deadline is over")
    return left_s


def _connect(address: Address, host: Host | None, timeout_s: float) -> socket.socket:
    if host is None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(cast(str, address.socket))
        except BaseException:
            connection.close()
            raise
        return connection
    connection = socket.create_connection(host, timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return _secured(connection, host[0], address.trust) if address.tls else connection


def _secured(connection: socket.socket, name: str, trust: Trust) -> socket.socket:
    import ssl

    try:
        try:
            context = ssl.create_default_context(cafile=trust.ca)
            if trust.cert is not None:
                context.load_cert_chain(trust.cert, trust.key)
        except OSError as error:
            files = ", ".join(filter(None, trust))
            raise CertificateUnfit(f"{files} cannot be used: {error}") from error
        return context.wrap_socket(connection, server_hostname=name)
    except TimeoutError as error:
        connection.close()
        raise HandshakeTimeout(str(error)) from error
    except BaseException:
        connection.close()
        raise
