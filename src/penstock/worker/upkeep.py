"""What a worker does for its store beside its processes: it renews leases, reports deaths and does the maintenance."""

import logging
import time
from collections.abc import Mapping

from penstock.engine import Death, Engine, WorkerInfo
from penstock.engines.open import open_engine
from penstock.model.durations import spell
from penstock.model.job import ProcessId
from penstock.worker.channel import Plan
from penstock.worker.heart import Heart, Tell
from penstock.worker.introduction import names_of
from penstock.worker.tender import Tender
from penstock.worker.tending import Tending
from penstock.worker.verdict import Verdict

__all__ = ["Upkeep"]

log = logging.getLogger("penstock.worker")


class Upkeep:
    """Heartbeat and maintenance, each in a thread of its own; before `begin` there is no store, and nothing happens.

    Args:
        burst: whether to tell when nothing is left to do.
        tell: takes their news, in their threads.
    """

    def __init__(self, plan: Plan, tell: Tell, *, burst: bool) -> None:
        self._plan, self._tell, self._burst = plan, tell, burst
        self._tender = Tender(lambda: not self._closed)
        self._heart: Heart | None = None
        self._tending: Tending | None = None
        self._closed = False

    def begin(self, url: str, info: WorkerInfo, tasks: Mapping[str, str]) -> None:
        """Open the store; the maintenance waits for `begin_tending`."""

        def open_store() -> Engine:
            return open_engine(url)

        self._heart = Heart(open_store, self._tender, info, self._tell)
        self._tending = Tending(
            open_store,
            self._tender,
            self._heart,
            self._tell,
            lease_ms=self._plan.lease_ms,
            burst=self._burst,
            queues=names_of(self._plan),
            tasks=tasks,
            app=self._plan.app,
        )
        self._heart.begin()

    @property
    def renewed_at(self) -> float | None:
        """When the leases were renewed last; None before `begin`."""
        return None if self._heart is None else self._heart.renewed_at

    def enrol(self, process: ProcessId, info: WorkerInfo, tasks: Mapping[str, str]) -> None:
        """Get a lease for a process, which knows these tasks."""
        if self._heart is not None and self._tending is not None:
            self._tending.tasks = tasks
            self._heart.enrol(process, info)

    def report(self, death: Death, verdict: Verdict) -> None:
        if self._heart is not None:
            self._heart.report(death, verdict)

    def forsake(self, process: ProcessId) -> None:
        if self._heart is not None:
            self._heart.forsake(process)

    def begin_tending(self) -> None:
        if self._tending is not None:
            self._tending.begin()

    def end_tending(self) -> None:
        """Let the maintenance come to its end, because the worker does."""
        if self._tending is not None:
            self._tending.end()

    def close(self, until: float) -> None:
        """Report the last processes gone, so that nothing waits for a lease to lapse."""
        if self._tending is not None and self._tending.begun:
            self._tending.close(until - time.monotonic())
        if self._heart is not None and not self._heart.close(until - time.monotonic()):
            log.warning(
                "the store could not be told in time that this worker has ended; what its processes held is handed on "
                "when their leases lapse, in %s",
                spell(self._plan.lease_ms / 1000),
            )
        self._closed = True
