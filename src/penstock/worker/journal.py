"""One log line for each finished job."""

import logging
from collections.abc import Sequence

from penstock.engine import Answer
from penstock.model.durations import spell
from penstock.model.job import Change, Claim
from penstock.model.outcome import Outcome
from penstock.model.states import Cause, State

log = logging.getLogger("penstock.job")

_LEVELS = {
    Cause.RETRY: logging.WARNING,
    Cause.CRASH: logging.WARNING,
    Cause.LOSE: logging.WARNING,
    Cause.FALL_BACK: logging.WARNING,
    Cause.BURY: logging.ERROR,
}


class Journal:
    """Writes what became of settled jobs once the store has accepted it; formats nothing that no one reads."""

    def write(self, settled: Sequence[tuple[Claim, Outcome, Change]], answer: Answer) -> None:
        if not settled or not log.isEnabledFor(logging.ERROR):
            return
        late = set(answer.late)
        quietest = log.getEffectiveLevel()
        for claim, outcome, change in settled:
            level = _LEVELS.get(change.cause, logging.INFO)
            if change.id in late:
                log.warning(
                    "late result refused job=%s task=%s queue=%s fence=%s: it was handed on, and the other run counts",
                    claim.id,
                    claim.task,
                    claim.queue,
                    claim.fence,
                )
            elif level >= quietest:
                log.log(level, "%s", _line(claim, outcome, change, answer.now_ms), extra={"job": claim.id})

    def void(self, changes: Sequence[Change]) -> None:
        for change in changes:
            log.warning(
                "late result refused job=%s fence=%s: the lease is void, so it was handed on, and the other run counts",
                change.id,
                change.fence,
            )


def _line(claim: Claim, outcome: Outcome, change: Change, now_ms: int) -> str:
    parts = [f"{_word(outcome, change)} {claim.task} id={claim.id} queue={claim.queue} attempt={claim.attempt}"]
    if outcome.ran_us:
        waited_ms = max(0, now_ms - claim.enqueued_ms - outcome.ran_us // 1000)
        parts.append(f"ran={_milliseconds(outcome.ran_us)} waited={spell(waited_ms / 1000)}")
    if change.next is State.SCHEDULED:
        parts.append(f"next={spell(change.after_ms / 1000)}")
    if then := _then(claim, change):
        parts.append(f'then="{then}"')
    if outcome.error is not None:
        parts.append(f"error={str(outcome.error).splitlines()[0][:500] if str(outcome.error) else ''}")
    return " ".join(parts)


def _word(outcome: Outcome, change: Change) -> str:
    if change.cause is Cause.BURY:
        return f"buried ({outcome.ending.value})"
    return outcome.ending.value


def _then(claim: Claim, change: Change) -> str:
    """Say what comes next where the outcome alone would alarm."""
    match change.cause:
        case Cause.LOSE | Cause.RELEASE:
            return "runs again, free of charge"
        case Cause.CRASH:
            return f"charged a crash, {change.counters.crashes} of {max(1, claim.terms.max_crashes)}; runs again"
        case Cause.RETRY:
            return f"charged a failure, {change.counters.failures} of {claim.terms.max_attempts}; runs again"
        case Cause.FALL_BACK if change.move is not None:
            return f"failed for good; its fallback {change.move.task} takes over in queue {change.move.queue}"
        case Cause.BURY:
            return "kept for a person, see penstock jobs show"
        case _:
            return ""


def _milliseconds(ran_us: int) -> str:
    return f"{ran_us / 1000:.1f}ms" if ran_us < 10_000_000 else spell(ran_us / 1e6)
