"""The relay: one thread beside the maintenance that carries jobs from the user's outbox to the store."""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import closing

from penstock.engine import Added, AddRequest, Engine
from penstock.model.durations import spell
from penstock.model.errors import EngineBusy, EngineUnavailable, QueueFull, Unsupported
from penstock.model.job import NewJob
from penstock.outbox import Entry, Fate, Outbox, read_job
from penstock.worker.patience import Patience

__all__ = ["AT_ONCE", "Relay", "carry", "fate_of"]

log = logging.getLogger("penstock.worker")

#: How many jobs are carried in one go; each may have a megabyte.
AT_ONCE = 100
#: After which time another worker may carry what this one took and said no more of.
LEASE_MS = 60_000
#: Bounds of the wait before a job that was refused for now is tried again.
SHORTEST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0

_Answer = list[Added] | Exception


class Relay:
    """Looks into the outbox every `period_s`, with jitter; whatever goes wrong there does the worker no harm.

    Attributes:
        done: whether nothing waited in the outbox at the last look, or it could not be used.
    """

    def __init__(self, open_outbox: Callable[[], Outbox], open_engine: Callable[[], Engine], period_s: float) -> None:
        self._open_outbox, self._open_engine, self._period_s = open_outbox, open_engine, period_s
        self.done = False
        self._introduced = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-relay", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Come to an end soon."""
        self._closing.set()

    def close(self, timeout_s: float) -> None:
        """End and wait for it; what it has taken and not carried, another worker carries when its lease lapses."""
        self.end()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        patience = Patience("the relay of the outbox")
        while not self._closing.is_set():
            try:
                self._work(patience)
            except Exception as error:  # noqa: BLE001 (whatever is wrong with the user's database, jobs must run)
                self.done = not isinstance(error, EngineBusy)
                patience.failed(error)
                self._closing.wait(max(self._period_s, patience.pause_s()))

    def _work(self, patience: Patience) -> None:
        with closing(self._open_outbox()) as outbox, closing(self._open_engine()) as engine:
            outbox.make()
            if not self._introduced:
                log.info("jobs of the outbox %s are carried to the store every %s", outbox.url, spell(self._period_s))
                self._introduced = True
            while not self._closing.is_set():
                carried = carry(outbox, engine)
                patience.answered()
                if not carried:
                    self.done = outbox.stand().waiting == 0
                if carried < AT_ONCE:
                    self._closing.wait(self._period_s * random.uniform(0.5, 1.0))


def carry(outbox: Outbox, engine: Engine, limit: int = AT_ONCE) -> int:
    """Carry the oldest entries to the store, in order; give how many there were.

    The store has them before they leave the outbox, so that none is lost in between; what it has already it does not
    store again.

    Raises:
        EngineUnavailable: the outbox or the store cannot be used now; the entries are tried again.
    """
    entries = outbox.take(limit, LEASE_MS)
    if not entries:
        return 0
    try:
        answers = _add(engine, [_read(entry) for entry in entries])
    except EngineUnavailable as error:
        outbox.settle([Fate(entry.number, str(error), again_ms=0) for entry in entries])
        raise
    fates = [fate_of(entry, answer, random.random()) for entry, answer in zip(entries, answers, strict=True)]
    outbox.settle(fates)
    _tell(fates)
    return len(entries)


def fate_of(entry: Entry, answer: _Answer, luck: float) -> Fate:
    """Decide what becomes of an entry: a full queue may have room later, every other refusal stays one.

    Args:
        luck: 0 to 1, spreads what is tried again.
    """
    if not isinstance(answer, Exception):
        return Fate(entry.number)
    error = f"{type(answer).__name__}: {answer}"
    if not isinstance(answer, QueueFull):
        return Fate(entry.number, error)
    bound_s = min(LONGEST_BACKOFF_S, SHORTEST_BACKOFF_S * 2.0 ** min(entry.tries, 10))
    return Fate(entry.number, error, again_ms=round(max(answer.retry_after, bound_s) * (0.5 + luck / 2) * 1000))


def _read(entry: Entry) -> NewJob | ValueError:
    try:
        return read_job(entry.job)
    except ValueError as error:
        return error


def _add(engine: Engine, jobs: Sequence[NewJob | ValueError]) -> list[_Answer]:
    """Add each job as a request of its own; one that no engine may store must not stand in the way of the others."""
    sound = [job for job in jobs if isinstance(job, NewJob)]
    added = iter(_add_all(engine, sound) if sound else ())
    return [next(added) if isinstance(job, NewJob) else job for job in jobs]


def _add_all(engine: Engine, jobs: Sequence[NewJob]) -> list[_Answer]:
    try:
        return list(engine.add([AddRequest((job,)) for job in jobs]))
    except (ValueError, Unsupported) as error:
        if len(jobs) == 1:
            return [error]
    return [answer for job in jobs for answer in _add_all(engine, [job])]


def _tell(fates: Sequence[Fate]) -> None:
    aside = [fate.error for fate in fates if fate.error is not None and fate.again_ms is None]
    if aside:
        log.error(
            "the store refused %d jobs of the outbox for good; they are set aside there, and `penstock doctor` shows "
            "them. The first: %s",
            len(aside),
            aside[0],
        )
