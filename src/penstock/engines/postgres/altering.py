"""What a person does to jobs by hand, as the transition table allows: decided here, under locks on all of them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from psycopg.errors import SerializationFailure

from penstock.engine import Alteration, Altered, Bury, Cancel, Delete, Edit, Kick, Reschedule, Upgrade
from penstock.engines.checks import refusal
from penstock.engines.forms import counters_in, counters_out, details_in, details_out
from penstock.engines.postgres import wire
from penstock.engines.postgres.adding import digest
from penstock.engines.postgres.catalog import Catalog, LineKey
from penstock.engines.postgres.exchanging import error_out
from penstock.engines.postgres.store import Row, Session, flat
from penstock.engines.steering import (
    Place,
    Standing,
    edited,
    error_of_burial,
    kicked_ms,
    lifted_ms,
    may_alter,
    refused_upgrade,
    renewed,
    rescheduled_ms,
    returning,
)
from penstock.model.job import Counters, Details, ErrorInfo, JobId
from penstock.model.states import State

#: The states that are counted, in the order in which the statement `count` takes them.
_COUNTED = (
    State.SCHEDULED,
    State.READY,
    State.RUNNING,
    State.SUCCEEDED,
    State.CANCELLED,
    State.EXPIRED,
    State.BURIED,
)


class Altering:
    """One alteration of several jobs, in one transaction."""

    def __init__(self, session: Session, catalog: Catalog, alteration: Alteration, now_ms: int) -> None:
        self._session, self._catalog, self._now_ms = session, catalog, now_ms
        self._alteration = alteration
        self._due_ms = kicked_ms(alteration, now_ms)
        self._moves: defaultdict[int, Counter[State]] = defaultdict(Counter)

    def run(self, ids: Sequence[JobId]) -> list[Altered]:
        """Alter each job once for each time that it is named."""
        first = list(dict.fromkeys(ids))
        answers = self._alter(first)
        if len(first) == len(ids):
            return [answers[id] for id in ids]
        rest = list(ids)
        for id in first:
            rest.remove(id)
        later = iter(self.run(rest))
        return [answers.pop(id) if id in answers else next(later) for id in ids]

    def _alter(self, ids: Sequence[JobId]) -> dict[JobId, Altered]:
        hot, cold, ready = self._lock(ids)
        waiting: list[JobId] = []
        ended: list[JobId] = []
        running: list[JobId] = []
        answers: dict[JobId, Altered] = {}
        for id in ids:
            state = _state_of(id, hot, cold, ready)
            answers[id] = self._decide(id, state, cold.get(id))
            if answers[id].refused is None and state is not None:
                (running if state is State.RUNNING else ended if state.is_final else waiting).append(id)
        if running:
            self._session.do("ask_cancel", wire.texts(running))
            self._session.rows("ring", 4)
        self._change_waiting(waiting, hot, ready)
        self._change_ended(ended, cold)
        self._count()
        return answers

    def _lock(self, ids: Sequence[JobId]) -> tuple[dict[JobId, Row], dict[JobId, Row], set[JobId]]:
        """Hold the jobs still: an exchange locks the process first, so who holds one of them is locked first here."""
        session, wanted = self._session, wire.texts(ids)
        if isinstance(self._alteration, Cancel):
            holders = wire.ints(flat(session.rows("hold_holders", wanted)))
            session.do("steer_holders", holders)
        session.rows("lock_jobs", wanted)
        ready = set(flat(session.rows("lock_ready", wanted)))
        if isinstance(self._alteration, Cancel) and session.rows("unheld_holder", wanted, holders):
            raise SerializationFailure("a job was claimed at this moment")  # done again, its holder held
        hot = {row[0]: row for row in session.rows("hot_rows", wanted)}
        cold = {row[0]: row for row in session.rows("cold_rows", wanted)}
        return hot, cold, ready

    def _decide(self, id: JobId, state: State | None, cold: Row | None) -> Altered:
        if state is None:
            return Altered(id, None, None, refusal(None))
        if state is State.RUNNING:
            refused = None if isinstance(self._alteration, Cancel) else refusal(state)
            return Altered(id, state, state, refused)
        if not may_alter(state, self._alteration):
            return Altered(id, state, state, refusal(state))
        refused = None
        if cold is not None and isinstance(self._alteration, Kick | Edit | Upgrade):
            details = details_in(cold[3])
            refused = refused_upgrade(self._alteration, details) or self._hold_key(id, details)
        return Altered(id, state, state if refused else self._after(state), refused)

    def _after(self, state: State) -> State | None:
        match self._alteration:
            case Cancel():
                return State.CANCELLED
            case Bury():
                return State.BURIED
            case Delete():
                return None
            case Reschedule():
                return State.SCHEDULED
            case Kick() if self._due_ms is not None:
                return State.SCHEDULED
            case Edit() if not state.is_final:
                return state
            case _:
                return State.READY

    def _hold_key(self, id: JobId, details: Details) -> str | None:
        """Let a job that comes back hold the key that it held until it ended, or say who holds it now."""
        unique = details.unique
        if unique is None or unique.until != "ended":
            return None
        session, key = self._session, digest(unique.key)
        if session.do("hold_unique", key, unique.until, id, None, self._now_ms):
            return None
        holder = session.value("unique_holder", key, self._now_ms)
        return f"unique key {unique.key!r} is held by {holder}"

    # -- waiting jobs -------------------------------------------------------------------------------------------------

    def _change_waiting(self, ids: Sequence[JobId], hot: dict[JobId, Row], ready: set[JobId]) -> None:
        alteration = self._alteration
        if not ids:
            return
        match alteration:
            case Cancel():
                self._end(ids, State.CANCELLED)
            case Bury():
                self._bury(ids, hot, alteration)
            case Delete():
                self._end(ids, State.CANCELLED)  # so that one path frees all that they hold
                self._session.rows("forget", wire.texts(ids))
            case Kick():
                for id in ids:
                    self._kick_scheduled(hot[id])
            case Reschedule():
                for id in ids:
                    self._reschedule(hot[id], id in ready, alteration)
            case Edit():
                for id in ids:
                    self._edit(hot[id], id in ready, alteration)

    def _end(self, ids: Sequence[JobId], state: State, error: ErrorInfo | None = None) -> None:
        self._session.rows("end_waiting", wire.texts(ids), state, error_out(error), self._now_ms)

    def _bury(self, ids: Sequence[JobId], hot: dict[JobId, Row], bury: Bury) -> None:
        """End jobs of each queue and task together, because their error names the group of those."""
        keys = self._catalog.line_keys({hot[id][1] for id in ids})
        together: defaultdict[tuple[str, str], list[JobId]] = defaultdict(list)
        for id in ids:
            key = keys[hot[id][1]]
            together[key.queue, key.task].append(id)
        for (queue, task), some in together.items():
            self._end(some, State.BURIED, error_of_burial(bury, queue, task))

    def _kick_scheduled(self, row: Row) -> None:
        id, line, stage, policy = row[0], row[1], row[8], row[9]
        fresh = self._renewed(row[5], policy, stage)
        new = self._line(line, alone=fresh.runs_alone)
        self._session.do("kick_scheduled", new, self._draw_seq(), self._due_ms, counters_out(fresh), self._now_ms, id)
        self._moves[line][State.SCHEDULED] -= 1
        self._stand(id, new)

    def _reschedule(self, row: Row, is_ready: bool, alteration: Reschedule) -> None:
        id, line, seq = row[:3]
        self._session.do("reschedule", rescheduled_ms(alteration, self._now_ms), id)
        if is_ready:
            self._session.do("drop_ready", line, seq)
            self._moves[line][State.READY] -= 1
            self._moves[line][State.SCHEDULED] += 1
        self._session.rows("ring", 3)

    def _edit(self, row: Row, is_ready: bool, edit: Edit) -> None:
        """Change a job where it stands; in another queue or with another priority it goes to the end of its line."""
        id, line, seq = row[:3]
        details, envelope, crc = edited(details_in(row[4]), row[6], row[7], edit, self._standing(line))
        new = self._line(line, edit)
        moves = new != line
        if moves and is_ready:
            self._session.do("drop_ready", line, seq)
            seq = self._session.value("draw_seq")
        self._session.do("edit", new, seq, crc, details_out(details), envelope, id)
        if moves and is_ready:
            self._put_ready(id)
        if moves:
            state = State.READY if is_ready else State.SCHEDULED
            self._moves[line][state] -= 1
            self._moves[new][state] += 1

    def _standing(self, line: int) -> Standing:
        key = self._catalog.line_keys({line})[line]
        return Standing(key.queue, -key.rank, self._now_ms)

    def _renewed(self, stored: bytes | None, policy: int, stage: int) -> Counters:
        terms = self._catalog.policy_values({policy})[policy].at(stage)
        return renewed(self._alteration, counters_in(stored), terms)

    def _draw_seq(self) -> int | None:
        """Give a job that begins anew its place, None if it waits for its time."""
        return self._session.value("draw_seq") if self._due_ms is None else None

    def _stand(self, id: JobId, line: int) -> None:
        """Let a job that begins anew wait for its time, or take its place in line."""
        if self._due_ms is None:
            self._put_ready(id)
        else:
            self._session.rows("ring", 3)
        self._moves[line][State.READY if self._due_ms is None else State.SCHEDULED] += 1

    def _put_ready(self, id: JobId) -> None:
        self._session.do("put_ready", self._now_ms, id)
        self._session.rows("ring", 1)

    # -- ended jobs ---------------------------------------------------------------------------------------------------

    def _change_ended(self, ids: Sequence[JobId], cold: dict[JobId, Row]) -> None:
        if ids and isinstance(self._alteration, Delete):
            self._session.rows("forget", wire.texts(ids))
            return
        for id in ids:
            self._revive(cold[id])

    def _revive(self, row: Row) -> None:
        """Bring an ended job back with new chances; a deadline that has passed would end it again, so it is lifted."""
        id, line, state, stored_details, stored_counters, stored_envelope, stored_crc, expires_ms, stage, policy = row
        key = self._catalog.line_keys({line})[line]
        place, details = returning(self._alteration, Place(key.task, key.queue, stage), details_in(stored_details))
        edit = self._alteration if isinstance(self._alteration, Edit) else Edit()
        counters = self._renewed(stored_counters, policy, place.stage)
        details, envelope, crc = edited(details, stored_envelope, stored_crc, edit, self._standing(line))
        new = self._line(line, edit, alone=counters.runs_alone, place=place)
        values: tuple[Any, ...] = (
            self._draw_seq(),
            self._due_ms,
            lifted_ms(expires_ms, self._now_ms),
            crc,
            new,
            place.stage,
            counters_out(counters),
            details_out(details),
            envelope,
            id,
        )
        self._session.do("revive", *values)
        self._session.do("drop_ended", id)
        self._moves[line][State(state)] -= 1
        self._stand(id, new)

    # -- lines and counts ---------------------------------------------------------------------------------------------

    def _line(
        self, line: int, edit: Edit | None = None, *, alone: bool | None = None, place: Place | None = None
    ) -> int:
        key = self._catalog.line_keys({line})[line]
        task, queue = (key.task, key.queue) if place is None else (place.task, place.queue)
        queue = queue if edit is None or edit.queue is None else edit.queue
        rank = key.rank if edit is None or edit.priority is None else -edit.priority
        return self._catalog.line(LineKey(queue, task, key.fair_key, key.alone if alone is None else alone, rank))

    def _count(self) -> None:
        count(self._session, self._moves)
        self._moves.clear()


def count(session: Session, moves: dict[int, Counter[State]], finished: int = 0) -> None:
    """Append what was gained and lost by line and state."""
    if moves:
        columns = [[states[state] for states in moves.values()] for state in _COUNTED]
        session.do("count", wire.ints(list(moves)), *map(wire.ints, columns), wire.ints([finished] * len(moves)))


def alter_queue(session: Session, name: str, paused: bool | None, max_jobs: int | None, unlimited: bool) -> None:
    """Set a queue's switches; a resumed queue counts as news for those who wait for work."""
    session.do("add_queue", name)
    was_paused = session.value("lock_queue", name)
    if paused is not None:
        session.do("set_paused", paused, name)
        if was_paused and not paused:
            session.rows("draw_seq")
            session.rows("ring", 1)
    if unlimited or max_jobs is not None:
        session.do("set_max_jobs", None if unlimited else max_jobs, name)


def _state_of(id: JobId, hot: dict[JobId, Row], cold: dict[JobId, Row], ready: set[JobId]) -> State | None:
    if id in hot:
        return State.SCHEDULED if hot[id][3] is not None else State.READY if id in ready else State.RUNNING
    return State(cold[id][2]) if id in cold else None
