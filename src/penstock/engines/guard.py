"""A guard against a server's clock that is set forward: nothing is voided until live workers could renew."""

_LONGEST_LEAP_MS = 2000


class ClockGuard:
    """Compares the server's time with this process's own clock, from one tend to the next.

    `own_s` is the time of that clock, in seconds, which is never set.
    """

    def __init__(self) -> None:
        self._seen: tuple[int, float] | None = None
        self._spares_until_s = 0.0

    def latest_ms(self, own_s: float) -> int | None:
        """Give the latest time that the server can show unless it was set forward; None before the first look."""
        if self._seen is None:
            return None
        store_ms, then_s = self._seen
        return store_ms + int((own_s - then_s) * 1000) + _LONGEST_LEAP_MS

    def spares(self, own_s: float) -> bool:
        """Say whether leases that have lapsed by the server's time are not to be voided yet."""
        return own_s < self._spares_until_s

    def note(self, store_ms: int, own_s: float, *, lease_ms: int = 0) -> None:
        """Learn what the server's clock shows.

        Args:
            lease_ms: the longest of all leases if that was later than it could be, so that for so long nothing is
                voided; else 0.
        """
        self._seen = store_ms, own_s
        if lease_ms:
            self._spares_until_s = own_s + lease_ms / 1000
