"""What must hold of every history, whatever was killed, frozen or cut meanwhile: one function for each invariant.

A check says only what is sure: where two acts overlap, or nobody knows whether one took effect, it assumes the better.
"""

from collections.abc import Callable, Iterator

from tests.histories import claims, counting, ends, keys, ledger
from tests.histories.history import History
from tests.histories.violation import Violation

Check = Callable[[History], Iterator[Violation]]

INVARIANTS: dict[str, Check] = {
    "I1": ends.accepted_is_kept,
    "I2": claims.stale_changes_nothing,
    "I3": ends.ends_once,
    "I4": claims.fences_rise,
    "I5": claims.one_holds_it,
    "I6": claims.the_living_are_not_robbed,
    "I8": keys.one_holds_a_key,
    "I9": keys.bounds_hold,
    "I10": counting.counters_are_exact,
    "I11": counting.counts_add_up,
    "I12": ledger.effects_happen_once,
}

#: Invariants of what penstock does not have yet. I9 speaks of the bounds of queues alone: there are no rate limits yet.
VOID = {
    "I7": "there are no order keys yet",
    "I13": "there are no events yet",
    "I14": "there are no schedules yet",
}


def check(history: History) -> list[Violation]:
    """Give all that is wrong with a history."""
    return [found for invariant in INVARIANTS.values() for found in invariant(history)]
