"""One contender at work: a producer that is asked, workers that are watched, and what both show."""

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count as numbers
from pathlib import Path
from typing import IO, Any

from benchmarks.counting import wait_for
from benchmarks.peers.contenders import Contender
from benchmarks.peers.environments import python_of
from benchmarks.peers.journal import JOURNAL, What, Written, counted, read
from benchmarks.peers.producing import URL
from benchmarks.workers import ROOT, Tree, running

__all__ = ["HELD", "Killed", "Session", "drain", "enqueue", "kill"]

HELD = 200
_REPLY_S = 180.0
_DRAIN_S = 180.0
#: The first fifth is not timed: processes start one after the other.
_WARM = 5
_FIRST_SPACED = 10**8
_UNCOUNTED = 5
_RUN = numbers()


@dataclass(frozen=True)
class Session:
    """A contender on a store that nothing has touched, with a journal of its own."""

    contender: Contender
    url: str
    journal: Path

    @classmethod
    def make(cls, contender: Contender, url: str) -> "Session":
        memory = Path("/dev/shm")
        folder = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
        journal = folder / f"penstock-bench-{os.getpid()}-{next(_RUN)}"
        journal.touch()
        return cls(contender, url, journal)

    @property
    def _environment(self) -> dict[str, str]:
        return {URL: self.url, JOURNAL: str(self.journal), **self.contender.environment}

    def _command(self, *words: str) -> list[str]:
        python = python_of(self.contender.home)
        return [python, "-m", "benchmarks.peers.producing", self.contender.program, *words]

    def worker(self, processes: int, *, tuned: bool) -> AbstractContextManager[Tree]:
        """Run a worker, and kill all of it at the end of the block."""
        words = ["work", str(processes), *(["tuned"] if tuned else [])]
        return running(self._command(*words), self._environment, gently=False)

    @contextmanager
    def producer(self) -> Iterator["Producer"]:
        """Run a producer that has made what the queue needs."""
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                self._command("produce"),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self._environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
            try:
                producer = Producer(process, said)
                producer.ask("prepare")
                yield producer
            finally:
                process.kill()
                process.communicate()

    def ran(self) -> int:
        return counted(self.journal)

    def written(self, *, after: int = 0) -> list[Written]:
        return read(self.journal, after=after)

    def close(self) -> None:
        self.journal.unlink()


class Producer:
    """A contender's program that enqueues what it is asked for."""

    def __init__(self, process: "subprocess.Popen[str]", said: IO[bytes]) -> None:
        self._process, self._said = process, said

    def ask(self, what: str, **request: object) -> Any:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **request}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure(what) from None
        return json.loads(self._reply(what))

    def _reply(self, what: str) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(_REPLY_S):
                raise TimeoutError(f"No answer to {what!r} within {_REPLY_S:g} s.")
        line = self._process.stdout.readline()
        if not line:
            raise self._failure(what)
        return line

    def _failure(self, what: str) -> RuntimeError:
        self._process.wait()
        self._said.seek(0)
        return RuntimeError(f"{what!r} failed: {self._said.read()[-1500:].decode(errors='replace').strip()}")


def enqueue(session: Session, seconds: float) -> tuple[float, float]:
    """Give jobs per second, enqueued one by one and in bulk."""
    with session.producer() as producer:
        warm = producer.ask("one", first=0, seconds=seconds / 5)["count"]
        one = producer.ask("one", first=warm, seconds=seconds)
        many = producer.ask("many", first=warm + one["count"], seconds=seconds)
    return one["count"] / one["seconds"], many["count"] / many["seconds"]


@dataclass(frozen=True)
class Drained:
    """What a worker showed.

    Attributes:
        rate: jobs per second.
        memory: the proportional set size of all its processes, in bytes, when it had worked.
        latencies_ms: from the call that enqueues to the first line of the job, when it was idle.
    """

    rate: float
    memory: int
    latencies_ms: list[float]


def drain(session: Session, processes: int, count: int, spaced: int) -> Drained:
    """Let a worker empty a filled store; then give it jobs now and then."""
    with session.producer() as producer:
        producer.ask("fill", first=0, count=count)
        with session.worker(processes, tuned=True) as tree:
            wait_for(lambda: session.ran() >= count, f"{count:,} jobs", tree=tree, timeout_s=_DRAIN_S)
            memory = tree.pss_bytes()
            latencies = _latencies_ms(session, producer, tree, spaced) if spaced else []
    return Drained(_rate(session.written(), count), memory, latencies)


def _rate(written: list[Written], count: int) -> float:
    warm = count // _WARM
    times = [one.at_ns for one in written[:count]]
    return (count - 1 - warm) / (times[-1] - times[warm]) * 1e9


def _latencies_ms(session: Session, producer: Producer, tree: Tree, count: int) -> list[float]:
    """Leave out the first ones: a worker that polls is not yet in its stride after a drain.

    A job that runs twice is counted when it first ran, and takes no other one's place.
    """
    before, count = session.ran(), count + _UNCOUNTED
    wanted = range(_FIRST_SPACED, _FIRST_SPACED + count)
    sent = producer.ask("spaced", first=_FIRST_SPACED, count=count)["sent_ns"]

    def began() -> dict[int, int]:
        return {one.number: one.at_ns for one in reversed(session.written(after=before))}

    wait_for(lambda: began().keys() >= set(wanted), f"{count} single jobs", tree=tree)
    at = began()
    found = [(at[number] - sent_ns) / 1e6 for number, sent_ns in zip(wanted, sent, strict=True)]
    return found[_UNCOUNTED:]


@dataclass(frozen=True)
class Killed:
    """What became of 200 jobs whose worker was killed midway, with default settings throughout.

    Attributes:
        completed: how many different jobs had run to their end when all had, or time was over.
        interrupted: how many had started and not ended at the kill.
        again_s: for each of these that was started again, how long after the kill, ascending.
        twice: how many ran to their end more than once.
        waited_s: how long after the kill the last look was.
    """

    completed: int
    interrupted: int
    again_s: list[float]
    twice: int
    waited_s: float

    @property
    def all_again(self) -> bool:
        return len(self.again_s) == self.interrupted


def kill(session: Session, patience_s: float) -> Killed:
    """Kill a whole worker tree when half of the jobs have run, start a fresh worker, and look what it runs."""
    with session.producer() as producer:
        producer.ask("hold", first=0, count=HELD)
    with session.worker(1, tuned=False) as tree:
        wait_for(lambda: _is_midway(session), "half of the jobs", tree=tree, timeout_s=_DRAIN_S, tick_s=0.001)
        tree.kill()
    killed_ns = time.monotonic_ns()
    with session.worker(1, tuned=False) as tree:
        while time.monotonic_ns() - killed_ns < patience_s * 1e9 and len(_ended(session)) < HELD:
            tree.check()
            time.sleep(0.05)
    return _judged(session.written(), killed_ns)


def _is_midway(session: Session) -> bool:
    """Whether half of the jobs have run, and one is running."""
    written = session.written()
    ended = {one.number for one in written if one.what is What.RAN}
    return len(ended) >= HELD // 2 and len({one.number for one in written}) > len(ended)


def _ended(session: Session) -> set[int]:
    return {one.number for one in session.written() if one.what is What.RAN}


def _judged(written: list[Written], killed_ns: int) -> Killed:
    before = [one for one in written if one.at_ns <= killed_ns]
    ended = {one.number for one in before if one.what is What.RAN}
    interrupted = {one.number for one in before if one.what is What.STARTED} - ended
    again: dict[int, float] = {}
    for one in written[len(before) :]:
        if one.what is What.STARTED and one.number in interrupted:
            again.setdefault(one.number, (one.at_ns - killed_ns) / 1e9)
    ran = [one.number for one in written if one.what is What.RAN]
    return Killed(
        completed=len(set(ran)),
        interrupted=len(interrupted),
        again_s=sorted(again.values()),
        twice=len(ran) - len(set(ran)),
        waited_s=(time.monotonic_ns() - killed_ns) / 1e9,
    )
