"""What passing time does: leases lapse, jobs become due, expire and are forgotten; each in bounded steps."""

from collections.abc import Sequence
from typing import Any

from penstock.engine import MOST_AT_ONCE, Taken, Tended
from penstock.engines.forms import details_in
from penstock.engines.sqlite.ending import Waiting, end_waiting
from penstock.engines.sqlite.leasing import drop_if_empty, take_over
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.step import Step, numbers, texts
from penstock.model.job import UNREADABLE_DETAILS, ProcessId
from penstock.model.states import State

_SAMPLE_AT_LEAST_MS, _SAMPLE_AT_MOST_MS = 10_000, 60_000


class Tending:
    """One bounded step; each part takes from `left`."""

    def __init__(self, step: Step, limit: int, max_ended: int) -> None:
        self._step, self.left, self._max_ended = step, limit, max_ended

    def run(self, tender: ProcessId, steady_ms: int, boot: str) -> Tended:
        taken = self._void_lapsed(tender, steady_ms, boot)
        due = self._make_due()
        expired = self._expire()
        pruned = self._prune()
        self._sample_rates()
        return Tended(
            due=due,
            expired=expired,
            pruned=pruned,
            taken=tuple(taken),
            more=self.left <= 0 and self._has_more(),
            next_ms=self._next_ms(),
            lapse_ms=self._lapse_ms(tender, steady_ms, boot),
        )

    def _void_lapsed(self, tender: ProcessId, steady_ms: int, boot: str) -> list[Taken]:
        """Without a live lease of the tender nothing is voided: claims must not be left with nobody."""
        db = self._step.db
        own = db.execute(SQL["live_lease"], (tender, steady_ms, boot)).fetchone()
        if own is None:
            return []
        db.execute(SQL["void_lapsed"], (steady_ms, boot))
        taken: list[Taken] = []
        for process, id in db.execute(SQL["void"]).fetchall():
            taken += take_over(self._step, process, id, own[0], max(self.left - len(taken), 0))
            drop_if_empty(self._step, process)
        self.left -= len(taken)
        return taken

    def _make_due(self) -> int:
        step = self._step
        rows = step.db.execute(SQL["due"], (step.now_ms, max(self.left, 0))).fetchall()
        for id, lane, rank in rows:
            seq = step.draw_seq()
            step.db.execute(SQL["make_due"], (seq, id))
            step.db.execute(SQL["add_ready"], (lane, rank, seq, id, step.now_ms))
            step.count(lane, State.SCHEDULED, -1)
            step.count(lane, State.READY, 1)
            step.work = True
        self.left -= len(rows)
        return len(rows)

    def _expire(self) -> int:
        step = self._step
        rows = step.db.execute(SQL["overdue"], (step.now_ms, max(self.left, 0))).fetchall()
        if rows:
            end_waiting(step, [Waiting.from_row(row) for row in rows], State.EXPIRED)
        self.left -= len(rows)
        return len(rows)

    def _prune(self) -> int:
        step = self._step
        rows = step.db.execute(SQL["forgettable"], (step.now_ms, max(self.left, 0))).fetchall()
        self._forget(rows)
        pruned = len(rows) + self._prune_surplus()
        step.db.execute(SQL["free_windows"], (step.now_ms, MOST_AT_ONCE))
        step.db.execute(SQL["forget_ledger"], (step.now_ms, MOST_AT_ONCE))
        return pruned

    def _prune_surplus(self) -> int:
        """Forget the oldest ends beyond the newest `max_ended` of a queue, from where the last sweep stopped."""
        step, pruned = self._step, 0
        for queue, kept in step.kept_by_queue().items():
            surplus = min(kept - self._max_ended, self.left)
            if surplus <= 0:
                continue
            row = step.db.execute(SQL["swept"], (queue,)).fetchone()
            rows = step.db.execute(SQL["oldest_ended"], (row[0] if row else 0, queue, surplus)).fetchall()
            self._forget(rows)
            pruned += len(rows)
            if rows:
                step.db.execute(SQL["set_swept"], (queue, rows[-1][0]))
        return pruned

    def _forget(self, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        forget_ended(self._step, rows)
        self.left -= len(rows)

    def _sample_rates(self) -> None:
        """Count what ended since the last sample, once it is 10 s old; from 60 s on, count from now."""
        step = self._step
        for queue, finished, sampled_ms, sampled, rate in step.db.execute(SQL["samples"]).fetchall():
            elapsed_ms = 0 if sampled_ms is None else step.now_ms - sampled_ms
            if sampled_ms is None or elapsed_ms < 0 or elapsed_ms >= _SAMPLE_AT_MOST_MS:
                step.db.execute(SQL["sample"], (queue, step.now_ms, finished))
            if elapsed_ms >= _SAMPLE_AT_LEAST_MS and (new := (finished - sampled) * 1000 / elapsed_ms) != rate:
                step.db.execute(SQL["set_rate"], (new, queue))

    def _has_more(self) -> bool:
        db, now_ms = self._step.db, self._step.now_ms
        waiting = ((SQL["due"], (now_ms, 1)), (SQL["overdue"], (now_ms, 1)), (SQL["forgettable"], (now_ms, 1)))
        return (
            any(db.execute(query, parameters).fetchone() for query, parameters in waiting)
            or db.execute(SQL["void"]).fetchone() is not None
            or any(kept > self._max_ended for kept in self._step.kept_by_queue().values())
        )

    def _next_ms(self) -> int | None:
        db = self._step.db
        times = [row[0] for row in (db.execute(SQL["next_due"]).fetchone(), db.execute(SQL["next_expiry"]).fetchone())]
        known = [time for time in times if time is not None]
        return max(0, min(known) - self._step.now_ms) if known else None

    def _lapse_ms(self, tender: ProcessId, steady_ms: int, boot: str) -> int | None:
        until_ms = self._step.db.execute(SQL["next_lapse"], (boot, tender)).fetchone()[0]
        return None if until_ms is None else max(0, until_ms - steady_ms)


def forget_ended(step: Step, rows: Sequence[tuple[Any, ...]]) -> None:
    """Delete ended jobs with their logs and keys; rows are (ended, id, lane, state, details)."""
    step.db.execute(SQL["drop_ended"], (numbers(row[0] for row in rows),))
    ids = texts(row[1] for row in rows)
    step.db.execute(SQL["drop_logs"], (ids,))
    step.db.execute(SQL["drop_ledger"], (ids,))
    for _, id, lane, state, details in rows:
        step.count(lane, State(state), -1)
        known = details_in(details)
        if known is UNREADABLE_DETAILS:
            step.db.execute(SQL["drop_unknown_keys"], (id,))
        elif known.idempotency_key is not None:
            step.db.execute(SQL["drop_keys"], (known.idempotency_key, id))
