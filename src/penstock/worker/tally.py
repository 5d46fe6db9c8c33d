"""The record of a process: how its jobs of the last minutes ended, and what they cost; told to the other workers."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from penstock.engine import Engine
from penstock.model.errors import EngineUnavailable
from penstock.model.job import Change, Claim, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.model.record import Record, TaskRecord, add_up, fails_what_others_do
from penstock.records import RECORD_KEPT_MS, RECORDS, quarantined, read_records

__all__ = ["Tally"]

#: A record is of the last one to two of these.
SPAN_S = 300.0
#: About so many jobs of an exchange are looked at, each for all that it stands for: to count is to cost.
SAMPLES = 16

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
        """Tell the others what was done here, and say why this worker should claim no more; None if it may."""
        try:
            self.tell()
            for name, one in quarantined(self._engine).items():
                if name in (self._worker, self._host):
                    return f"{name} is in quarantine: {one.reason}"
            if self._judges and any(one.failed for one in self._shown.values()):
                return fails_what_others_do(self._worker, self._fresh_records())
        except EngineUnavailable:
            return None  # whoever cannot reach the store claims nothing anyway
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
        known = read_records(self._engine) if self._told is None else {}
        now_ms = time.time_ns() // 1_000_000
        data = msgspec.json.encode(Record(self._worker, self._host, now_ms, tasks)) if tasks else None
        if not self._engine.share(RECORDS, self._process, data, self._told):
            self._told = self._engine.shared(RECORDS).get(self._process)
            return
        self._told, self._shown = data, tasks
        for process, record in known.items():
            if record.at_ms < now_ms - RECORD_KEPT_MS:
                self._forget(process)

    def _forget(self, process: str) -> None:
        if (data := self._engine.shared(RECORDS).get(process)) is not None:
            self._engine.share(RECORDS, process, None, data)

    def _turn(self) -> None:
        now = self._clock()
        if now - self._turned >= SPAN_S:
            self._before, self._now, self._turned = self._now, {}, now
