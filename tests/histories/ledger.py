"""Side effects that are written down happen once, and what was written down is not forgotten."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.histories.history import Began, Did, History, Op, Recorded
from tests.histories.violation import Violation


def effects_happen_once(history: History) -> Iterator[Violation]:
    """I12: an effect that was recorded is not repeated, one that must not repeat is not, and what is known is told."""
    for (_, key), ops in sorted(_by_key(history).items()):
        begins = [op for op in ops if isinstance(op.act, Began) and op.accepted]
        records = [op for op in ops if isinstance(op.act, Recorded) and op.possible and op.act.value is not None]
        taken_back = any(isinstance(op.act, Recorded) and op.possible and op.act.value is None for op in ops)
        effects = [op for op in ops if isinstance(op.act, Did)]
        yield from _repeated(key, begins, records, effects)
        if not taken_back:
            yield from _begun_twice(key, begins)
            yield from _forgotten(key, begins, records)
        yield from _invented(key, begins, records)


def _by_key(history: History) -> dict[tuple[str, str], list[Op]]:
    found: defaultdict[tuple[str, str], list[Op]] = defaultdict(list)
    for life in history.lives.values():
        for op in life.others:
            if isinstance(op.act, Began | Recorded | Did):
                found[op.act.scope, op.act.key].append(op)
    return {at: sorted(ops, key=lambda op: op.t0) for at, ops in found.items()}


def _repeated(key: str, begins: Sequence[Op], records: Sequence[Op], effects: Sequence[Op]) -> Iterator[Violation]:
    """Find effects of those who could know better: who slept after it had begun may still do it when it wakes."""
    for one, other in pairwise(effects):
        if other.act.once:
            yield Violation("I12", other.act.job, f"{key!r} happened twice and may happen once", (one, other))
    known = next((op for op in records if op.accepted), None)
    for effect in effects:
        asked = next((op for op in begins if op.fence == effect.fence), effect)
        if known is not None and known.before(asked):
            yield Violation("I12", effect.act.job, f"{key!r} happened again after it was recorded", (known, effect))


def _begun_twice(key: str, begins: Sequence[Op]) -> Iterator[Violation]:
    firsts = [op for op in begins if op.act.first]
    for one, other in pairwise(firsts):
        if one.fence != other.fence:
            yield Violation("I12", other.act.job, f"two claims were the first to begin {key!r}", (one, other))


def _forgotten(key: str, begins: Sequence[Op], records: Sequence[Op]) -> Iterator[Violation]:
    for begin in begins:
        known = next((op for op in records if op.accepted and op.before(begin)), None)
        if known is not None and begin.act.value is None:
            yield Violation("I12", begin.act.job, f"what {key!r} gave was forgotten", (known, begin))


def _invented(key: str, begins: Sequence[Op], records: Sequence[Op]) -> Iterator[Violation]:
    for begin in begins:
        value = begin.act.value
        if value is not None and not any(op.act.value == value and op.t0 < begin.t1 for op in records):
            what = f"{key!r} is said to have given {value}, which nobody recorded"
            yield Violation("I12", begin.act.job, what, (*records, begin))
