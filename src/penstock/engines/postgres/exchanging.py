"""The heart: what has ended goes in, what can run comes out, in one statement."""

from collections import deque
from collections.abc import Iterator, Sequence
from threading import Lock
from time import monotonic
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.engine import Answer, Want
from penstock.engines.forms import counters_in, counters_out, details_in
from penstock.engines.postgres import wire
from penstock.engines.postgres.catalog import Catalog
from penstock.model.job import Change, Claim, ErrorInfo, Fence, JobId
from penstock.model.states import State

__all__ = ["Head", "Sight", "change_columns", "error_out", "read_answer", "read_claims", "read_head", "want_columns"]

_ALONE_RUNNER = "process"
#: A number drawn this long ago was committed, unless its transaction met with trouble.
_SETTLED_S = 0.2
#: Now and then more is looked at again, for what was committed late after all.
_WIDER_EVERY_S, _WIDER_S = 1.0, 3.0
_ALL_EVERY_S = 60.0
_MARK_EVERY_S = 0.05

_NOTHING: tuple[Any, ...] = (wire.texts([]), *[None] * 11)
_NO_WANT: tuple[Any, ...] = (0, None, None, None, None, None, None)


class Head(Struct):
    """What an exchange answers beside its claims.

    Attributes:
        applied: whether this is the answer to the first of two parts.
        places: which of the changes were late, counted from 1; told by the first of two parts.
        before: the last beat, if the one that was sent does not follow it.
        process, beat: the number of the process, and its last beat that is remembered.
        lines, seqs: how far each line was seen.
    """

    lost: bool = False
    applied: bool = False
    before: int | None = None
    late: tuple[JobId, ...] = ()
    places: frozenset[int] = frozenset()
    cancels: tuple[tuple[int, int], ...] = ()
    drain: bool = False
    now_ms: int = 0
    mark: int = 0
    process: int = 0
    beat: int = 0
    lines: tuple[int, ...] = ()
    seqs: tuple[int, ...] = ()


_decode_head = msgspec.json.Decoder(Head).decode


class Sight:
    """How far one engine has seen each line, so that a search does not begin at what was claimed long ago.

    A number is drawn before its job is committed, so a line is looked at again from the last number that had been
    drawn a fifth of a second ago; every second from further back; and every minute from the beginning.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._seen: dict[int, int] = {}
        self._marks: deque[tuple[float, int]] = deque()
        self._wider_s = self._all_s = monotonic()
        self._asked_all = False

    def columns(self) -> tuple[Any, ...]:
        """Give what an exchange begins its search with."""
        with self._lock:
            return self._settled(), wire.ints(list(self._seen)), wire.longs(list(self._seen.values()))

    def learn(self, head: Head) -> None:
        """Note how far an exchange has seen."""
        with self._lock:
            self._seen.update(zip(head.lines, head.seqs, strict=True))
            now_s = monotonic()
            if self._asked_all:
                self._asked_all, self._all_s = False, now_s
            if not self._marks or now_s - self._marks[-1][0] >= _MARK_EVERY_S:
                self._marks.append((now_s, head.mark))

    def behind(self) -> int | None:
        """Give the number from which a job may have been committed behind the mark; None before the first exchange."""
        with self._lock:
            return self._settled_since(_WIDER_S) if self._marks else None

    def widen(self) -> None:
        """Let the next search begin further back."""
        with self._lock:
            self._wider_s = float("-inf")

    def forget(self) -> None:
        """Look at everything again."""
        with self._lock:
            self._seen.clear()
            self._marks.clear()

    def _settled(self) -> int:
        now_s = monotonic()
        if now_s - self._all_s > _ALL_EVERY_S:
            self._asked_all = True
            return 0
        age_s = _SETTLED_S
        if now_s - self._wider_s > _WIDER_EVERY_S:
            self._wider_s, age_s = now_s, _WIDER_S
        return self._settled_since(age_s)

    def _settled_since(self, age_s: float) -> int:
        now_s, marks = monotonic(), self._marks
        while len(marks) > 1 and marks[1][0] <= now_s - _WIDER_S:
            marks.popleft()
        return max((mark for at_s, mark in marks if at_s <= now_s - age_s), default=0)


def change_columns(changes: Sequence[Change]) -> tuple[Any, ...]:
    """Give changes as the arrays that `exchange` takes; a repetition among them gets a number that fits no claim.

    Where no job comes back, what is looked at for those alone is left out, and what all share is sent once.
    """
    if not changes:
        return _NOTHING
    afters = [_after_ms(change) for change in changes]
    none_back = afters.count(None) == len(afters)
    back = [] if none_back else changes
    seen: set[tuple[JobId, Fence]] = set()
    numbers = []
    for change in changes:
        key = (change.id, change.fence)
        numbers.append(-1 if key in seen else change.fence.number)
        seen.add(key)
    return (
        wire.texts([change.id for change in changes]),
        wire.ints(wire.shared(numbers, none_back)),
        wire.longs([change.fence.token for change in changes]),
        wire.texts(wire.shared([change.next for change in changes], none_back)),
        wire.longs(afters),
        wire.longs([change.ran_us for change in changes]),
        wire.bools([change.counters.attempts > 0 for change in back]),
        wire.bools([change.counters.runs_alone for change in back]),
        wire.byteas(wire.shared([counters_out(change.counters) for change in changes], none_back)),
        wire.byteas([change.result for change in changes]),
        wire.byteas([error_out(change.error) for change in changes]),
        wire.texts([change.degraded for change in changes]),
    )


def _after_ms(change: Change) -> int | None:
    if change.next.is_final:
        return None
    return change.after_ms if change.next is State.SCHEDULED else 0


def error_out(error: ErrorInfo | None) -> bytes | None:
    """Give an error without its time, which the server puts in front."""
    return None if error is None else msgspec.json.encode(replace(error, at_ms=0))


def want_columns(want: Want | None) -> tuple[Any, ...]:
    """Give what is wanted as `exchange` takes it: runners by number."""
    if want is None or want.limit <= 0:
        return _NO_WANT
    runners = {name: number for number, name in enumerate(want.free, 1)}
    tasks = list(want.tasks)
    groups = None if want.queues is None else [(name, n) for n, names in enumerate(want.queues) for name in names]
    return (
        want.limit,
        wire.texts(tasks) or wire.texts([]),
        wire.ints([runners.get(want.tasks[task], 0) for task in tasks]),
        runners.get(_ALONE_RUNNER, 0),
        wire.ints([max(0, count) for count in want.free.values()]),
        None if groups is None else wire.texts([name for name, _ in groups]),
        None if groups is None else wire.ints([number for _, number in groups]),
    )


def read_head(rows: Sequence[tuple[Any, ...]]) -> Head:
    """Give the head of an answer, which stands last."""
    return _decode_head(rows[-1][12])


def read_answer(catalog: Catalog, rows: Sequence[tuple[Any, ...]], head: Head) -> Answer:
    """Make the answer of an exchange of its rows."""
    return Answer(
        claims=tuple(read_claims(catalog, rows[:-1])),
        late=head.late,
        cancels=tuple(Fence(number, token) for number, token in head.cancels),
        drain=head.drain,
        now_ms=head.now_ms,
        mark=head.mark,
    )


def read_claims(catalog: Catalog, rows: Sequence[tuple[Any, ...]]) -> Iterator[Claim]:
    """Make claims of the rows of an exchange, or of others with the same columns."""
    lines = catalog.line_keys({row[0] for row in rows})
    policies = catalog.policy_values({row[5] for row in rows})
    for line, _, id, number, token, policy, crc, created_ms, stage, cancel, details, counters, envelope in rows:
        key = lines[line]
        yield Claim(
            id=id,
            fence=Fence(number, token),
            task=key.task,
            queue=key.queue,
            envelope=envelope,
            crc=crc,
            policy=policies[policy],
            counters=counters_in(counters),
            details=details_in(details),
            priority=-key.rank,
            stage=stage,
            enqueued_ms=created_ms,
            cancel_requested=cancel,
        )
