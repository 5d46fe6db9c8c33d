"""Circuit breakers: what is known of a dependency that is out of order, and when a job may try it again."""

from msgspec import Struct
from msgspec.structs import replace

from penstock.model.job import JobId

__all__ = ["PROBE_MS", "Breaker", "Terms", "failed_again", "joined", "let_through", "opened", "opened_by_hand"]

#: After so long a job that tries a dependency no longer keeps others from trying it: it runs long, or is lost.
PROBE_MS = 60_000


class Terms(Struct, frozen=True, kw_only=True):
    """When a breaker opens, and how long jobs wait.

    Attributes:
        after: how many failures in a row, in one process, open it.
        pause_ms: how long until the first job tries again; each failure doubles it, up to `longest_ms`.
    """

    after: int = 5
    pause_ms: int = 10_000
    longest_ms: int = 300_000


class Breaker(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The open circuit breaker of a dependency; while it works there is none.

    Attributes:
        tasks: those that need the dependency, as far as known. Their jobs wait.
        reason: what was seen last.
        opened_ms: since when, in ms since the epoch.
        pause_ms: how long jobs waited, or wait, before the next try.
        probe_ms: when a job may try; while one tries, when it no longer keeps others from trying. None: no job tries,
            a person has opened the breaker and closes it.
        probe: the job that tries, empty while none does.
        probes: how many have failed.
    """

    tasks: tuple[str, ...]
    reason: str
    opened_ms: int
    pause_ms: int = 0
    probe_ms: int | None = None
    probe: str = ""
    probes: int = 0

    def may_be_tried(self, now_ms: int) -> bool:
        """Say whether a job may be let through now."""
        return self.probe_ms is not None and now_ms >= self.probe_ms


def opened(terms: Terms, tasks: tuple[str, ...], reason: str, now_ms: int, luck: float) -> Breaker:
    """Open a breaker.

    Args:
        luck: a random number from 0 to 1: the pause is between three quarters and all of what the terms say.
    """
    return Breaker(
        tasks=tasks,
        reason=reason,
        opened_ms=now_ms,
        pause_ms=terms.pause_ms,
        probe_ms=now_ms + _shortened(terms.pause_ms, luck),
    )


def opened_by_hand(reason: str, now_ms: int) -> Breaker:
    """Open a breaker until a person closes it; workers add the tasks that need the dependency."""
    return Breaker(tasks=(), reason=reason, opened_ms=now_ms)


def let_through(breaker: Breaker, job: JobId, now_ms: int) -> Breaker:
    """Let one job try the dependency."""
    return replace(breaker, probe=job, probe_ms=now_ms + PROBE_MS)


def failed_again(breaker: Breaker, terms: Terms, reason: str, now_ms: int, luck: float) -> Breaker:
    """Wait longer, because the job that tried has failed as those before it."""
    pause_ms = min(breaker.pause_ms * 2, terms.longest_ms)
    return replace(
        breaker,
        reason=reason,
        pause_ms=pause_ms,
        probe_ms=now_ms + _shortened(pause_ms, luck),
        probe="",
        probes=breaker.probes + 1,
    )


def joined(breaker: Breaker, tasks: tuple[str, ...]) -> Breaker:
    """Let more tasks wait, as they need the dependency too."""
    return replace(breaker, tasks=tuple(sorted({*breaker.tasks, *tasks})))


def _shortened(pause_ms: int, luck: float) -> int:
    return round(pause_ms * (0.75 + 0.25 * luck))
