"""What a worker does for its store beside its processes: it renews leases, reports deaths, and tends it.

It also carries jobs from an outbox, and tells people of buried jobs, where that was asked for.
"""

import logging
import time
from functools import partial

from penstock.engine import Death, Engine, WorkerInfo
from penstock.engines.open import open_engine, open_outbox
from penstock.model.durations import spell
from penstock.model.job import ProcessId
from penstock.worker.channel import Hello, Plan
from penstock.worker.heart import Heart, Tell
from penstock.worker.introduction import names_of
from penstock.worker.relay import Relay
from penstock.worker.telling import Telling
from penstock.worker.tender import Tender
from penstock.worker.tending import Tending
from penstock.worker.verdict import Verdict

__all__ = ["Upkeep"]

log = logging.getLogger("penstock.worker")


class Upkeep:
    """Heartbeat, maintenance, relay and telling, each in a thread; before `begin` there is no store to care for.

    Args:
        burst: whether to tell when nothing is left to do.
        tell: takes their news, in their threads.
    """

    def __init__(self, plan: Plan, tell: Tell, *, burst: bool) -> None:
        self._plan, self._tell, self._burst = plan, tell, burst
        self._tender = Tender(lambda: not self._closed)
        self._heart: Heart | None = None
        self._tending: Tending | None = None
        self._relay: Relay | None = None
        self._telling: Telling | None = None
        self._closed = False

    def begin(self, hello: Hello, info: WorkerInfo) -> None:
        """Open the store; maintenance and relay wait for `begin_tending`."""

        def open_store() -> Engine:
            return open_engine(hello.url)

        if hello.outbox is not None:
            self._relay = Relay(partial(open_outbox, hello.outbox), open_store, hello.outbox_period)

        self._telling = Telling(open_store, info.id, hello.alerts)
        self._heart = Heart(open_store, self._tender, info, self._tell)
        self._tending = Tending(
            open_store,
            self._tender,
            self._heart,
            self._tell,
            lease_ms=self._plan.lease_ms,
            burst=self._burst,
            queues=names_of(self._plan),
            tasks=hello.queues,
            app=self._plan.app,
            more_to_come=lambda: self._relay is not None and not self._relay.done,
        )
        self._heart.begin()

    @property
    def renewed_at(self) -> float | None:
        """When the leases were renewed last; None before `begin`."""
        return None if self._heart is None else self._heart.renewed_at

    @property
    def trying_since(self) -> float | None:
        """Since when the store was asked to renew them without an answer; None if it has answered."""
        return None if self._heart is None else self._heart.trying_since

    def enrol(self, process: ProcessId, info: WorkerInfo, hello: Hello) -> None:
        """Get a lease for a process, which knows the application as it is now."""
        if self._heart is not None and self._tending is not None and self._telling is not None:
            self._tending.tasks, self._telling.alerts = hello.queues, hello.alerts
            if self._tending.begun:
                self._telling.begin()
            self._heart.enrol(process, info)

    def present(self, info: WorkerInfo) -> None:
        """Let the store know this of the worker from now on."""
        if self._heart is not None:
            self._heart.present(info)

    def report(self, death: Death, verdict: Verdict) -> None:
        if self._heart is not None:
            self._heart.report(death, verdict)

    def forsake(self, process: ProcessId) -> None:
        if self._heart is not None:
            self._heart.forsake(process)

    def begin_tending(self) -> None:
        if self._tending is not None:
            self._tending.begin()
        if self._relay is not None:
            self._relay.begin()
        if self._telling is not None:
            self._telling.begin()

    def end_tending(self) -> None:
        """Let maintenance and relay come to their end, because the worker does; what was buried is told of later."""
        if self._tending is not None:
            self._tending.end()
        if self._relay is not None:
            self._relay.end()

    def close(self, until: float, told_by: float) -> None:
        """Report the last processes gone, so that nothing waits for a lease to lapse, and tell of what was buried.

        Args:
            told_by: until when people are told, at the most.
        """
        self.end_tending()
        if self._tending is not None and self._tending.begun:
            self._tending.close(until - time.monotonic())
        if self._relay is not None:
            self._relay.close(until - time.monotonic())
        if self._heart is not None and not self._heart.close(until - time.monotonic()):
            log.warning(
                "the store could not be told in time that this worker has ended; what its processes held is handed on "
                "when their leases lapse, in %s",
                spell(self._plan.lease_ms / 1000),
            )
        if self._telling is not None:
            self._telling.close(told_by - time.monotonic())
        self._closed = True
