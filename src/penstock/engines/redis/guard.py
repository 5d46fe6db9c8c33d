"""A guard against a server's clock that is set forward: nothing is voided until live workers could renew."""

_SLACK_MS = 2000
_USUAL_LEASE_MS = 30_000


class ClockGuard:
    """Compares the server's time with this process's own clock, from one tend to the next."""

    def __init__(self) -> None:
        self._lease_ms = _USUAL_LEASE_MS
        self._seen: tuple[int, float] | None = None
        self._holds_off_until = 0.0

    def note_lease(self, lease_ms: int) -> None:
        """Learn how long a lease may be."""
        self._lease_ms = max(self._lease_ms, lease_ms)

    def expect(self, own_s: float) -> tuple[int | str, int]:
        """Give the latest time that the server can show, empty before the first, and 1 while nothing is voided.

        Args:
            own_s: the time of this process's own clock, which is never set.
        """
        holds_off = int(own_s < self._holds_off_until)
        if self._seen is None:
            return "", holds_off
        store_ms, then_s = self._seen
        return store_ms + int((own_s - then_s) * 1000) + _SLACK_MS, holds_off

    def note(self, store_ms: int, own_s: float, *, jumped: bool) -> None:
        """Learn what the server's clock showed, and whether that was later than could be."""
        self._seen = store_ms, own_s
        if jumped:
            self._holds_off_until = own_s + self._lease_ms / 1000
