"""The record of a process: how its jobs of the last minutes ended, and what they cost; told to the other workers."""

import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from penstock.engine import Engine
from penstock.model.errors import EngineError, EngineUnavailable
from penstock.model.job import Change, Claim, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.model.record import Record, TaskRecord, add_up, fails_what_others_do
from penstock.records import RECORD_KEPT_MS, RECORDS, quarantined, read_records

__all__ = ["Tally"]

log = logging.getLogger("penstock.worker")

#: A record is of the last one to two of these.
SPAN_S = 300.0
#: About so many jobs of an exchange are looked at, each for all that it stands for: to count is to cost.
SAMPLES = 16
#: A shared value may have 64 KiB.
LARGEST_RECORD = 32 * 1024

_FAILED = frozenset({Ending.FAILED, Ending.TIMED_OUT, Ending.CRASHED})


class Tally:
    """Counts what the pump delivers. `count` belongs to the pump's thread, the rest to the one that asks for fitness.

    Args:
        judges: whether a worker that fails what others do well is unfit.
        clock: steady seconds.
    """

    def __init__(
        self,
        engine: Engine,
        process: ProcessId,
        worker: str,
        *,
        judges: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._process, self._worker, self._judges = engine, process, worker, judges
        self._host, self._clock = socket.gethostname(), clock
        self._now: dict[str, TaskRecord] = {}
        self._before: dict[str, TaskRecord] = {}
        self._turned = clock()
        self._told: bytes | None = None
        self._shown: Mapping[str, TaskRecord] = {}
        self._verdict: str | None = None

    def count(self, settled: Sequence[tuple[Claim, Outcome, Change]], busy_ns: int) -> None:
        """Count what is delivered, for which the pump was busy so long."""
        step = len(settled) // SAMPLES + 1
        each_us = busy_ns // 1000 // len(settled)
        for claim, outcome, _ in settled[::step]:
            if outcome.result is not None or outcome.ending in _FAILED:
                self._add(claim.task, outcome, step, each_us)

    def _add(self, task: str, outcome: Outcome, times: int, queue_us: int) -> None:
        record = self._now.get(task)
        if record is None:
            record = self._now[task] = TaskRecord()
        if outcome.result is not None:
            record.done += times
        else:
            record.failed += times
        record.ran_us += outcome.ran_us * times
        record.queue_us += queue_us * times

    def unfit(self) -> str | None:
        """Tell the others what was done here, and say why this worker should claim no more; None if it may.

        While the store cannot be read, what was found last holds.
        """
        try:
            self.tell()
            self._verdict = self._judge()
        except EngineError as error:
            log.log(
                logging.DEBUG if isinstance(error, EngineUnavailable) else logging.WARNING,
                "whether this worker is in quarantine cannot be read: %s",
                error,
            )
        return self._verdict

    def _judge(self) -> str | None:
        for name, one in quarantined(self._engine).items():
            if name in (self._worker, self._host):
                return f"{name} is in quarantine: {one.reason}"
        if self._judges and any(one.failed for one in self._shown.values()):
            return fails_what_others_do(self._worker, self._fresh_records())
        return None

    def _fresh_records(self) -> list[Record]:
        since_ms = time.time_ns() // 1_000_000 - round(2 * SPAN_S * 1000)
        return [record for record in read_records(self._engine).values() if record.at_ms > since_ms]

    def tell(self) -> None:
        """Write the record down where all workers see it, if it has changed; forget those that say nothing any more.

        Raises:
            EngineUnavailable: the store cannot be reached.
        """
        self._turn()
        tasks = add_up((self._before.copy(), self._now.copy()))
        if tasks == self._shown:
            return
        now_ms = time.time_ns() // 1_000_000
        if self._told is None:
            self._forget_old(now_ms)
        data = self._written(tasks, now_ms) if tasks else None
        if self._engine.share(RECORDS, self._process, data, self._told):
            self._told, self._shown = data, tasks
        else:
            self._told = self._engine.shared(RECORDS).get(self._process)

    def _written(self, tasks: Mapping[str, TaskRecord], now_ms: int) -> bytes:
        """Write a record of the tasks with the most jobs, as many as there is room for."""
        busiest = sorted(tasks, key=lambda name: -tasks[name].ended)
        while True:
            kept = {name: tasks[name] for name in busiest}
            data = msgspec.json.encode(Record(self._worker, self._host, now_ms, kept))
            if len(data) <= LARGEST_RECORD:
                return data
            busiest = busiest[: len(busiest) // 2]

    def _forget_old(self, now_ms: int) -> None:
        """Remove the records that say nothing any more, and those that nobody can read."""
        stored, known = self._engine.shared(RECORDS), read_records(self._engine)
        for process, data in stored.items():
            if process not in known or known[process].at_ms < now_ms - RECORD_KEPT_MS:
                self._engine.share(RECORDS, process, None, data)

    def _turn(self) -> None:
        now = self._clock()
        if now - self._turned >= SPAN_S:
            self._before, self._now, self._turned = self._now, {}, now
