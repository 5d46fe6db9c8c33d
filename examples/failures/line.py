"""The way to a store that can be cut: the lock of an SQLite file, or a line to a server through this program."""

import socket
import sqlite3
import threading
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit


class Line(Protocol):
    """A way to a store; `url` leads over it."""

    url: str

    def cut(self) -> None: ...

    def mend(self) -> None: ...


def line_to(url: str) -> Line:
    return LineToFile(url) if url.startswith("sqlite:") else LineToServer(url)


class LineToFile:
    """While it is cut, this program holds the lock of the file, as any other might."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._other = sqlite3.connect(url.removeprefix("sqlite:///").partition("?")[0], isolation_level=None)

    def cut(self) -> None:
        self._other.execute("BEGIN IMMEDIATE")

    def mend(self) -> None:
        self._other.execute("ROLLBACK")


class LineToServer:
    """Carries bytes between who connects to it and the server; while it is cut, it hangs up on everybody."""

    def __init__(self, url: str) -> None:
        there = urlsplit(url)
        self._server = (there.hostname or "127.0.0.1", there.port or {"redis": 6379}.get(there.scheme, 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        login, at, _ = there.netloc.rpartition("@")
        here = f"{login}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(there._replace(netloc=here))
        self._is_cut, self._sockets = False, list[socket.socket]()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._is_cut = True
        for end in self._sockets:
            with suppress(OSError):  # it has been hung up already
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._is_cut = False

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._is_cut:
                client.close()
                continue
            server = socket.create_connection(self._server)
            self._sockets += (client, server)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=carry, args=(source, target), daemon=True).start()


def carry(source: socket.socket, target: socket.socket) -> None:
    """Carry what comes until somebody hangs up."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
