"""One write transaction as a unit of work: what it has drawn and counted, written down once at its end."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.engines.forms import policy_in
from penstock.engines.sqlite.queries import SQL
from penstock.model.errors import StoreCorrupt
from penstock.model.retry import Policy
from penstock.model.states import State

#: States in the order of their codes in the table of counters.
COUNTED = (
    State.BLOCKED,
    State.SCHEDULED,
    State.READY,
    State.RUNNING,
    State.SUCCEEDED,
    State.CANCELLED,
    State.EXPIRED,
    State.BURIED,
)
_CODES = {state: code for code, state in enumerate(COUNTED)}
_FINISHED = len(COUNTED)


class LaneKey(NamedTuple):
    """What makes jobs eligible together."""

    queue: str
    task: str
    fair_key: str
    alone: bool


class Catalog:
    """Numbers of lanes and policies, as one process knows them; cleared after a rollback, which may take some back."""

    def __init__(self) -> None:
        self.lanes: dict[LaneKey, int] = {}
        self.lane_keys: dict[int, LaneKey] = {}
        self.policies: dict[Policy, int] = {}
        self.policy_values: dict[int, Policy] = {}

    def clear(self) -> None:
        self.lanes.clear()
        self.lane_keys.clear()
        self.policies.clear()
        self.policy_values.clear()

    def lane_key(self, db: sqlite3.Connection, lane: int) -> LaneKey:
        key = self.lane_keys.get(lane)
        if key is None:
            row = db.execute(SQL["lane_key"], (lane,)).fetchone()
            if row is None:
                raise StoreCorrupt(f"The store has jobs in lane {lane}, which it does not know.")
            key = self.lane_keys[lane] = LaneKey(row[0], row[1], row[2], bool(row[3]))
        return key

    def policy_value(self, db: sqlite3.Connection, policy: int) -> Policy:
        value = self.policy_values.get(policy)
        if value is None:
            row = db.execute(SQL["policy_body"], (policy,)).fetchone()
            if row is None:
                raise StoreCorrupt(f"The store has jobs with policy {policy}, which it does not know.")
            value = self.policy_values[policy] = policy_in(row[0])
        return value


class Keys(NamedTuple):
    """The lanes and policies that some rows name by number."""

    lanes: dict[int, LaneKey]
    policies: dict[int, Policy]


class CatalogStale(Exception):
    """A lane that this process knew was forgotten by another one; the step must be taken back and done again."""


class Step:
    """What a write transaction does to the counters: seq and end numbers drawn, jobs moved between states.

    Attributes:
        db: the connection, inside its transaction.
        now_ms: the time of day of the whole step.
        has_bounds: whether any queue has a bound on its jobs.
        work, done, due, steer: whether it gave listeners reason to look.
    """

    def __init__(self, db: sqlite3.Connection, catalog: Catalog, now_ms: int) -> None:
        self.db, self.catalog, self.now_ms = db, catalog, now_ms
        self.work = self.done = self.due = self.steer = False
        (seq,), (ended,), (late,), (bounded,) = db.execute(SQL["numbers"]).fetchall()
        self.seq: int = seq
        self.ended: int = ended
        self.late: int = late
        self.has_bounds = bounded > 0
        self._first = [seq, ended, late]
        self._moves: defaultdict[tuple[int, State], int] = defaultdict(int)

    def remember(self) -> tuple[Any, ...]:
        """Give what `restore` needs to take back what comes after, as a savepoint does for the tables."""
        return self.seq, self.ended, dict(self._moves), self.work, self.done, self.due, self.steer

    def restore(self, before: tuple[Any, ...]) -> None:
        self.seq, self.ended, moves, self.work, self.done, self.due, self.steer = before
        self._moves = defaultdict(int, moves)
        self.catalog.clear()

    def draw_seq(self) -> int:
        self.seq += 1
        return self.seq

    def draw_end(self) -> int:
        self.ended += 1
        return self.ended

    def count(self, lane: int, state: State, by: int) -> None:
        self._moves[lane, state] += by

    def counted(self, queue: str) -> int:
        """Give how many unfinished jobs a queue has gained in this step so far."""
        return sum(
            by
            for (lane, state), by in self._moves.items()
            if not state.is_final and self.catalog.lane_key(self.db, lane).queue == queue
        )

    def kept_by_queue(self) -> dict[str, int]:
        """Give how many ended jobs that are not buried each queue keeps, this step included."""
        kept = {queue: int(count) for queue, count in self.db.execute(SQL["kept"]).fetchall()}
        for (lane, state), by in self._moves.items():
            if state.is_final and state is not State.BURIED:
                queue = self.lane_key(lane).queue
                kept[queue] = kept.get(queue, 0) + by
        return kept

    def lane(self, key: LaneKey) -> int:
        lane = self.catalog.lanes.get(key)
        if lane is None:
            row = self.db.execute(SQL["lane_of"], key).fetchone()
            lane = int(row[0]) if row else self._add_lane(key)
            self.catalog.lanes[key], self.catalog.lane_keys[lane] = lane, key
        return lane

    def _add_lane(self, key: LaneKey) -> int:
        lane = self._insert("add_lane", key)
        self.db.executemany(SQL["first_count"], [(lane, what) for what in (*_CODES.values(), _FINISHED)])
        return lane

    def _insert(self, statement: str, values: tuple[Any, ...]) -> int:
        return int(self.db.execute(SQL[statement], values).lastrowid or 0)

    def lane_key(self, lane: int) -> LaneKey:
        return self.catalog.lane_key(self.db, lane)

    def policy(self, value: Policy) -> int:
        policy = self.catalog.policies.get(value)
        if policy is None:
            body = msgspec.json.encode(value)
            row = self.db.execute(SQL["policy_of"], (body,)).fetchone()
            policy = int(row[0]) if row else self._insert("add_policy", (body,))
            self.catalog.policies[value] = policy
        return policy

    def policy_value(self, policy: int) -> Policy:
        return self.catalog.policy_value(self.db, policy)

    def read_keys(self, rows: Sequence[tuple[Any, ...]]) -> Keys:
        """Look up what rows of jobs name in columns 2 (lane) and 5 (policy)."""
        lanes = {lane: self.lane_key(lane) for lane in {row[2] for row in rows}}
        policies = {policy: self.policy_value(policy) for policy in {row[5] for row in rows}}
        return Keys(lanes, policies)

    def write_counts(self) -> None:
        """Write down what was drawn and counted; the step's last act.

        Raises:
            CatalogStale: it counted in a lane that is no more.
        """
        changes = self._drawn() + self._counted()
        if changes and self.db.executemany(SQL["count"], changes).rowcount < len(changes):
            raise CatalogStale
        gained: defaultdict[int, int] = defaultdict(int)
        for (lane, _), by in self._moves.items():
            gained[lane] += by
        for lane, by in gained.items():
            if by < 0:
                self._forget_lane_if_empty(lane)

    def _drawn(self) -> list[tuple[int, int, int]]:
        drawn = zip(self._first, (self.seq, self.ended, self.late), strict=True)
        return [(now - before, 0, what) for what, (before, now) in enumerate(drawn) if now != before]

    def _counted(self) -> list[tuple[int, int, int]]:
        changes = [(by, lane, _CODES[state]) for (lane, state), by in self._moves.items() if by]
        changes += [(by, lane, _FINISHED) for (lane, state), by in self._moves.items() if by > 0 and state.is_final]
        return changes

    def _forget_lane_if_empty(self, lane: int) -> None:
        """Forget a lane with its last job, and its queue with its last lane unless a switch of it is set."""
        if self.db.execute(SQL["is_empty_lane"], (lane,)).fetchone() is None:
            return
        queue = self.lane_key(lane).queue
        self.db.execute(SQL["unsample_lane"], {"lane": lane})
        self.db.execute(SQL["drop_counts"], (lane,))
        self.db.execute(SQL["drop_lane"], (lane,))
        self.db.execute(SQL["forget_queue"], {"queue": queue})
        self.catalog.clear()


def numbers(values: Iterable[int]) -> str:
    """Write integers as the JSON array that `json_each` reads."""
    return "[" + ",".join(map(str, values)) + "]"


def texts(values: Iterable[str]) -> str:
    return msgspec.json.encode(list(values)).decode()
