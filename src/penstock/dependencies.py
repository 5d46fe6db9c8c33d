"""What an application says of the services that its tasks depend on, and the breakers that keep jobs from them."""

import logging
import time
from collections.abc import Callable, Mapping

import msgspec

from penstock.checks import check_count, check_text
from penstock.engine import Engine
from penstock.model.breaker import Breaker, Terms, opened_by_hand
from penstock.model.durations import Duration, milliseconds, spell
from penstock.model.errors import TaskInvalid

__all__ = ["BREAKERS", "Dependency", "read_breaker", "read_breakers", "read_terms", "tasks_held_up"]

log = logging.getLogger("penstock")

#: The kind of the shared values that breakers are.
BREAKERS = "breakers"

_decode = msgspec.json.Decoder(Breaker).decode


class Dependency:
    """A service that tasks depend on; made by `Penstock.dependency`."""

    def __init__(self, name: str, engine: Callable[[], Engine]) -> None:
        self.name, self._engine = name, engine

    def __repr__(self) -> str:
        return f"<Dependency {self.name!r}>"

    def breaker(self) -> Breaker | None:
        """Give its open circuit breaker, None while it works."""
        return read_breakers(self._engine()).get(self.name)

    def open(self, reason: str = "opened by hand") -> None:
        """Let the tasks that need it wait until `close`; no job tries it meanwhile."""
        data = msgspec.json.encode(opened_by_hand(check_text("reason", reason), time.time_ns() // 1_000_000))
        self._set(data)

    def close(self) -> bool:
        """Let its tasks go on; says whether they waited."""
        return self._set(None)

    def _set(self, data: bytes | None) -> bool:
        """Replace whatever the breaker is, also while workers change it; says whether there was one."""
        while True:
            known = self._engine().shared(BREAKERS).get(self.name)
            if self._engine().share(BREAKERS, self.name, data, known):
                return known is not None


def read_breakers(engine: Engine) -> dict[str, Breaker]:
    """Give all open breakers by the name of their dependency."""
    found = engine.shared(BREAKERS).items()
    return {name: breaker for name, data in sorted(found) if (breaker := read_breaker(data)) is not None}


def tasks_held_up(breakers: Mapping[str, Breaker]) -> frozenset[str]:
    """Give the tasks that wait for a dependency."""
    return frozenset(task for breaker in breakers.values() for task in breaker.tasks)


def read_breaker(data: bytes) -> Breaker | None:
    """Read a breaker; what cannot be read keeps nobody waiting."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        log.warning("a circuit breaker in the store cannot be read and is taken for closed: %.100r", data)
        return None


def read_terms(known: Terms, after: int | None, pause: Duration | None, longest_pause: Duration | None) -> Terms:
    """Check when a breaker opens and how long jobs wait; None leaves it as it is known.

    Raises:
        TaskInvalid: a count below 1, or a pause that is none, or longer than the longest.
    """
    terms = Terms(
        after=known.after if after is None else check_count("after", after, 1),
        pause_ms=known.pause_ms if pause is None else milliseconds(pause),
        longest_ms=known.longest_ms if longest_pause is None else milliseconds(longest_pause),
    )
    if not 0 < terms.pause_ms <= terms.longest_ms:
        told, most = spell(terms.pause_ms / 1000), spell(terms.longest_ms / 1000)
        raise TaskInvalid(f"A breaker cannot pause for {told}; give pause= above 0 and up to longest_pause= ({most}).")
    return terms
