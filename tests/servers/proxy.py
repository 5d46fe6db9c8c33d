"""A link that can be cut, frozen, slowed and made to lose a reply, between a client and a real server."""

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_PIECE = 65536
_TICK_S = 0.02


class Proxy:
    """Forwards connections to a port of loopback. All switches work at once, also on connections that are open.

    Attributes:
        port: where clients connect.
        frozen: nothing passes, in either direction; new connections are taken and get no answer.
        refusing: new connections are reset at once.
        delay_s: how long each piece of a reply is held back, of those for which `delays` says true.
        lose_reply_to: a request for which this says true is forwarded; then its connection is reset in place of the
            reply, and `lost` counts it.
        changes: alters each piece of a reply on its way.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.frozen = False
        self.refusing = False
        self.delay_s = 0.0
        self.delays: Callable[[bytes], bool] = bool
        self.lose_reply_to: Callable[[bytes], bool] | None = None
        self.lost = 0
        self.changes: Callable[[bytes], bytes] | None = None
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut(self) -> None:
        """Reset every open connection; new ones are served."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.reset()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()
        self.cut()
        for link in list(self._links):
            link.thread.join()

    def _accept(self) -> None:
        self._listener.settimeout(_TICK_S)
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self.refusing:
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
            except OSError:
                _reset(client)
                continue
            link = _Link(self, client, server)
            with self._lock:
                self._links.add(link)
            link.thread.start()

    def _forget(self, link: "_Link") -> None:
        with self._lock:
            self._links.discard(link)


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._loses_reply = False
        self._is_reset = threading.Event()
        self.thread = threading.Thread(target=self._run, name="proxy-link", daemon=True)

    def reset(self) -> None:
        self._is_reset.set()

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._client, selectors.EVENT_READ)
                selector.register(self._server, selectors.EVENT_READ)
                while not self._is_reset.is_set():
                    if self._proxy.frozen:
                        self._is_reset.wait(_TICK_S)
                        continue
                    for key, _ in selector.select(_TICK_S):
                        if not self._pass_on(key.fileobj is self._client):
                            return
        except OSError:
            return  # one side is gone; so is the link
        finally:
            _reset(self._client)
            _reset(self._server)
            self._proxy._forget(self)

    def _pass_on(self, from_client: bool) -> bool:
        """Forward one piece; False ends the link."""
        source, target = (self._client, self._server) if from_client else (self._server, self._client)
        piece = source.recv(_PIECE)
        if not piece:
            return False
        if from_client:
            loses = self._proxy.lose_reply_to
            self._loses_reply = self._loses_reply or (loses is not None and loses(piece))
        elif self._loses_reply:
            self._proxy.lost += 1
            return False
        elif self._proxy.delay_s and self._proxy.delays(piece):
            time.sleep(self._proxy.delay_s)
        if not from_client and self._proxy.changes is not None:
            piece = self._proxy.changes(piece)
        target.sendall(piece)
        return True


def _reset(end: socket.socket) -> None:
    """Close with a reset (RST) in place of a goodbye. Source: socket(7), SO_LINGER with a time of 0."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
