"""The line between a supervisor and its processes: JSON messages, one a line, over a socket pair."""

import contextlib
import os
import select
import socket
import threading
import time

import msgspec
from msgspec import Struct

from penstock.alerts import Alert
from penstock.model.job import Claim, Fence, Progress
from penstock.model.outcome import Outcome


class Plan(Struct, frozen=True, tag="plan", kw_only=True):
    """What a process needs before it imports the application; the first message it gets.

    Attributes:
        queues: as the person wrote them, each with its weight or None; no queues means every queue.
        places: how many jobs each runner can run at once, in the order of their places on the board.
    """

    app: str
    url: str | None
    queues: tuple[tuple[str, int | None], ...] | None
    places: dict[str, int]
    lease_ms: int
    shutdown_ms: int
    start_ms: int = 120_000
    health_ms: int = 30_000
    quarantine: bool = True
    max_jobs: int | None = None
    max_memory: int | None = None
    reload: bool = False
    log_level: str = "info"
    log_format: str = "text"


class Hello(Struct, frozen=True, tag="hello", kw_only=True):
    """A process has imported the application and knows this of it; `sources` are its files, for reloading.

    Attributes:
        tasks: each with its runner.
        queues: the queue of each task.
        outbox: the URL of the user's database, from which jobs are fetched every `outbox_period` seconds.
        alerts: who is told of buried jobs.
    """

    url: str
    tasks: dict[str, str]
    queues: dict[str, str] = {}
    sources: tuple[str, ...] = ()
    outbox: str | None = None
    outbox_period: float = 1.0
    alerts: tuple[Alert, ...] = ()


#: What is sent of a message that says what is wrong with an application.
LONGEST_FAULT = 8 * 1024


class Fault(Struct, frozen=True, tag="fault"):
    """The application cannot be imported or used; the message is for a person."""

    message: str


class Go(Struct, frozen=True, tag="go"):
    """The process has a lease and may claim."""

    process: str
    worker: str


class Quiet(Struct, frozen=True, tag="quiet"):
    """Claim no more; give back what has not started."""


class Resume(Struct, frozen=True, tag="resume"):
    """Claim again."""


class Stop(Struct, frozen=True, tag="stop"):
    """Claim no more, finish what runs, then end."""


class Release(Struct, frozen=True, tag="release"):
    """Interrupt what runs, give it back, then end."""


class Drained(Struct, frozen=True, tag="drained"):
    """The process holds nothing any more and ends; `reason` says why it stopped."""

    reason: str


class Broken(Struct, frozen=True, tag="broken"):
    """The store cannot be used; the whole worker should end."""

    reason: str


class Unfit(Struct, frozen=True, tag="unfit"):
    """A job or a health check found this worker unfit; it claims no more."""

    reason: str


class Fit(Struct, frozen=True, tag="fit"):
    """The health checks of a process that was unfit pass again."""


class Void(Struct, frozen=True, tag="void"):
    """The lease of the process is void; it ends at once and needs a new identity."""


class Run(Struct, frozen=True, tag="run"):
    """For a child: run this claim."""

    claim: Claim


class AskToStop(Struct, frozen=True, tag="ask to stop"):
    """For a child: somebody cancelled the job under this fence."""

    fence: Fence


class Interrupted(Struct, frozen=True, tag="interrupted"):
    """For a child: interrupt whatever it runs under this fence, so that it can be given back."""

    fence: Fence


class Noted(Struct, frozen=True, tag="noted"):
    """From a child: progress or log text of the job that it runs."""

    progress: Progress | None
    log: str


class Ended(Struct, frozen=True, tag="ended", omit_defaults=True):
    """From a child: how the job ended; and why no other shall run there, if one shall not."""

    outcome: Outcome
    spoilt: str = ""


FromSupervisor = Plan | Go | Quiet | Resume | Stop | Release
FromProcess = Hello | Fault | Drained | Broken | Unfit | Fit | Void
FromRunner = Run | AskToStop | Interrupted
FromChild = Noted | Ended
Message = FromSupervisor | FromProcess | FromRunner | FromChild

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


class Channel:
    """One end of the line. Sending is thread-safe; one thread receives.

    That thread may post instead of sending, so as not to wait for the other end; then nobody else sends.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()
        self._buffer = b""
        self._posted = bytearray()

    @classmethod
    def pair(cls) -> "tuple[Channel, socket.socket]":
        """Make both ends; the second is for another process."""
        here, there = socket.socketpair()
        return cls(here), there

    @classmethod
    def inherited(cls, descriptor: int) -> "Channel":
        """Take the end that this process was started with, and keep it from the programs and forks of its jobs.

        They would speak in its name, and whoever waits at the other end would not see that it has ended.
        """
        os.set_inheritable(descriptor, False)
        channel = cls(socket.socket(fileno=descriptor))
        os.register_at_fork(after_in_child=channel.close)
        return channel

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message) -> bool:
        """Say whether the message left; False once the other end has gone."""
        line = _encode(message) + b"\n"
        with self._sending:
            try:
                self._socket.sendall(line)
            except OSError:
                return False
        return True

    def post(self, message: Message) -> None:
        """Send as much as the other end takes now; the rest follows in `has_more`."""
        self._posted += _encode(message) + b"\n"
        self._send_posted()

    def _send_posted(self) -> None:
        try:
            while self._posted:
                del self._posted[: self._socket.send(self._posted, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return
        except OSError:  # the other end has gone, as `receive` tells
            self._posted.clear()

    def has_more(self, timeout_s: float = 0.0) -> bool:
        """Say whether `receive` would return at once; wait for that, and send what was posted meanwhile."""
        until = time.monotonic() + timeout_s
        poll = select.poll()
        while True:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._posted else 0))
            ready = poll.poll(max(0.0, until - time.monotonic()) * 1000)
            self._send_posted()
            if not ready or ready[0][1] & ~select.POLLOUT:
                return bool(ready)

    def receive_first(self, timeout_s: float) -> list[Message] | None:
        """Wait for a whole message and give it, with those right behind it; none if it does not come in time."""
        until = time.monotonic() + timeout_s
        messages: list[Message] | None = []
        while messages is not None and not messages and self.has_more(max(0.0, until - time.monotonic())):
            messages = self.receive()
        return messages

    def receive(self) -> list[Message] | None:
        """Wait for bytes and give the messages that are complete; None once the other end has gone."""
        try:
            received = self._socket.recv(65536)
        except ConnectionError:
            received = b""
        if not received:
            return None
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        return [_decode(line) for line in lines]

    def receive_plan(self) -> tuple[Plan, list[Message]] | None:
        """Wait for the first message, which is the plan, and give it with those that came right behind it."""
        messages: list[Message] | None = []
        while messages is not None and not messages:
            messages = self.receive()
        if messages is None or not isinstance(messages[0], Plan):
            return None
        return messages[0], messages[1:]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when `parent` ends, and end at once if it already has.

    Linux counts the ending of the thread that spawned the process, so processes are spawned from main threads alone.
    Elsewhere the closed channel has to do. Source: prctl(2), PR_SET_PDEATHSIG.
    """
    import ctypes
    import signal
    import sys

    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


_PR_SET_PDEATHSIG = 1
