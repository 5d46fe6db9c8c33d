"""What passing time does: leases lapse, jobs become due, expire and are forgotten; each in bounded steps."""

from penstock.engine import MOST_AT_ONCE, Taken, Tended
from penstock.engines.postgres import wire
from penstock.engines.postgres.catalog import Catalog
from penstock.engines.postgres.leasing import Now, drop_if_empty, take_over
from penstock.engines.postgres.store import Session, flat
from penstock.model.job import ProcessId

_SAMPLE_AT_LEAST_MS, _SAMPLE_AT_MOST_MS = 10_000, 60_000


class Tending:
    """One bounded step; each part takes from `left`.

    Args:
        voids: whether lapsed leases may be voided now.
    """

    def __init__(
        self, session: Session, catalog: Catalog, limit: int, max_ended: int, now: Now, *, voids: bool
    ) -> None:
        self._session, self._catalog, self._now = session, catalog, now
        self.left, self._max_ended, self._voids = limit, max_ended, voids

    def run(self, tender: ProcessId) -> Tended:
        taken = self._void_lapsed(tender)
        due = self._make_due()
        expired = self._expire()
        pruned = self._prune()
        self._session.do("free_windows", self._now.wall_ms, MOST_AT_ONCE)
        self._session.do("forget_ledger", self._now.wall_ms, MOST_AT_ONCE)
        if self._session.value("try_tend"):
            self._sample_rates()
            self._session.rows("fold")
        return Tended(
            due=due,
            expired=expired,
            pruned=pruned,
            taken=tuple(taken),
            more=self.left <= 0 and self._has_more(),
            next_ms=self._next_ms(),
            lapse_ms=self._lapse_ms(tender),
        )

    def _void_lapsed(self, tender: ProcessId) -> list[Taken]:
        """Without a live lease of the tender nothing is voided: claims must not be left with nobody."""
        session, now = self._session, self._now
        session.rows("hold_process", tender)
        own = session.row("live_lease", tender, now.steady_ms, now.boot)
        if own is None:
            return []
        if self._voids:
            session.do("void_lapsed", now.steady_ms, now.boot)
        taken: list[Taken] = []
        for process, id in session.rows("void"):
            taken += take_over(session, self._catalog, process, id, own[0], max(self.left - len(taken), 0))
            drop_if_empty(session, process)
        self.left -= len(taken)
        return taken

    def _make_due(self) -> int:
        session, now_ms = self._session, self._now.wall_ms
        ids = flat(session.rows("due", now_ms, max(self.left, 0)))
        if ids:
            session.rows("line_up", wire.texts(ids), now_ms)
        self.left -= len(ids)
        return len(ids)

    def _expire(self) -> int:
        session, now_ms = self._session, self._now.wall_ms
        ids = flat(session.rows("overdue", now_ms, max(self.left, 0)))
        ended = session.value("end_waiting", wire.texts(ids), "expired", None, now_ms) if ids else []
        self.left -= len(ended)
        return len(ended)

    def _prune(self) -> int:
        session = self._session
        ids = flat(session.rows("forgettable", self._now.wall_ms, max(self.left, 0)))
        pruned = self._forget(ids)
        session.do("unsweep", self._now.wall_ms)
        for queue, kept in session.rows("kept"):
            surplus = min(kept - self._max_ended, self.left)
            if surplus > 0:
                rows = session.rows("surplus", queue, queue, surplus)
                pruned += self._forget(flat(rows))
                if rows:
                    session.do("set_swept", queue, rows[-1][1])
        return pruned

    def _forget(self, ids: list[str]) -> int:
        count = int(self._session.value("forget", wire.texts(ids))) if ids else 0
        self.left -= count
        return count

    def _sample_rates(self) -> None:
        """Count what ended since the last sample, once it is 10 s old; from 60 s on, count from now."""
        session, now_ms = self._session, self._now.wall_ms
        for queue, finished, sampled_ms, sampled, rate in session.rows("samples"):
            elapsed_ms = 0 if sampled_ms is None else now_ms - sampled_ms
            ended = finished or 0
            if sampled_ms is None or elapsed_ms < 0 or elapsed_ms >= _SAMPLE_AT_MOST_MS:
                session.do("sample", queue, now_ms, ended)
            if elapsed_ms >= _SAMPLE_AT_LEAST_MS and (new := (ended - sampled) * 1000 / elapsed_ms) != rate:
                session.do("set_rate", new, queue)

    def _has_more(self) -> bool:
        session, now_ms = self._session, self._now.wall_ms
        return (
            any(session.rows(work, now_ms, 1) for work in ("due", "overdue", "forgettable"))
            or bool(session.rows("void"))
            or any(kept > self._max_ended for _, kept in session.rows("kept"))
        )

    def _next_ms(self) -> int | None:
        rows = [*self._session.rows("next_due"), *self._session.rows("next_expiry")]
        return max(0, min(flat(rows)) - self._now.wall_ms) if rows else None

    def _lapse_ms(self, tender: ProcessId) -> int | None:
        until_ms = self._session.value("next_lapse", self._now.boot, tender)
        return None if until_ms is None else max(0, until_ms - self._now.steady_ms)
